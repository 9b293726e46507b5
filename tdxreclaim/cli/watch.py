"""`tdxreclaim watch`."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

import click

from tdxreclaim.cli import completion
from tdxreclaim.cli.output import (
    color_option,
    help_option,
    terminal_width,
    text_or_json_option,
    wants_color,
    write_whole,
)
from tdxreclaim.errors import (
    ExitStatus,
    HostReadError,
    InterruptedWorkError,
    TdxReclaimError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.calibrate.recorded import Measured
    from tdxreclaim.cli.watch_screen import Screen
    from tdxreclaim.costs.calibration import Calibration, HostRecord
    from tdxreclaim.costs.watch import Stated, Watch
    from tdxreclaim.facts.kvm.counters import Counters


@click.command(
    add_help_option=False,
    short_help="Watch a TD's shutdown: pages left, time left.",
)
@click.argument("vm", metavar="[TID-FD|PID]", required=False)
@click.option("--all", "all_", is_flag=True, help="All VMs; the default if none is named.")
@click.option(
    "--interval",
    metavar="TIME",
    default="1s",
    show_default=True,
    help="Time between looks, 0.5s at least: a look holds the VM for a moment.",
)
@click.option(
    "--patience",
    metavar="TIME",
    default="30s",
    show_default=True,
    help="Without a page for so long a shutdown is stuck.",
)
@click.option("--until-done", is_flag=True, help="End when every VM is gone, or stuck.")
@click.option("--td", metavar="SIZE[:VCPUS]", help="The VM is a TD of this size: 400GiB:64, 18GiB.")
@click.option(
    "--record",
    metavar="FILE",
    shell_complete=completion.files,
    help="Write what a page cost to FILE as a calibration.",
)
@click.option(
    "--replay",
    metavar="FILE",
    shell_complete=completion.files,
    help="Play a recorded run: --format json's lines, or a series of changes.",
)
@click.option(
    "--root",
    metavar="DIR",
    default="/",
    shell_complete=completion.files,
    help="Read DIR/sys and DIR/proc: a host's, seen from a container.",
)
@click.option("--cpu", metavar="CPU", shell_complete=completion.cpus, help="The CPU, for --record.")
@click.option(
    "--kernel",
    metavar="RELEASE",
    shell_complete=completion.kernels,
    help="The kernel, if it is not this host's.",
)
@text_or_json_option
@color_option
@help_option
@click.pass_context
def watch(
    ctx: click.Context,
    /,
    *,
    vm: str | None,
    all_: bool,
    interval: str,
    patience: str,
    until_done: bool,
    td: str | None,
    record: str | None,
    replay: str | None,
    root: str,
    cpu: str | None,
    kernel: str | None,
    format_: str,
    color: str,
) -> None:
    """Watch TDs give their pages back: pages left, pages a second, time left.

    Reads KVM's counters in debugfs, as root.  VMs are named by their folder
    (TID-FD) or by a process.  Exit status 0: done, or nothing to watch; 20: a
    shutdown is stuck, or pages failed; 130: interrupted.
    """
    from tdxreclaim.cli.values import parse_kernel
    from tdxreclaim.cli.watch_screen import screen_for
    from tdxreclaim.costs.watch import Watch
    from tdxreclaim.units import parse_duration

    if vm is not None and all_:
        raise UsageError("--all", "contradicts naming a VM")
    if replay is not None and root != "/":
        raise UsageError("--root", "contradicts --replay")
    seconds = parse_duration("--interval", interval) / 1e9
    stated = None if td is None else parse_td(td)
    kernel = None if kernel is None else str(parse_kernel(kernel))
    release = kernel or (None if replay else _release(root))
    recorder = None if record is None else _recorder(record, replay, root, cpu, kernel)
    watched = Watch(
        vm,
        stated=stated,
        patience=parse_duration("--patience", patience) / 1e9,
        failures_stay=_failures_stay(release),
    )
    screen = screen_for(format_, width=terminal_width(), color=wants_color(color), pace=seconds)
    with _counters(replay, root, seconds) as counters:
        _first(watched, counters, vm, stated)
        interrupted = _follow(
            watched,
            counters,
            screen,
            seconds,
            _Ends(until_done, vm is not None, replay is not None),
        )
        holders = counters.holders() if watched.stuck else ()
    status = ExitStatus.FINDINGS if watched.stuck or watched.failed else ExitStatus.NOT_REQUIRED
    if interrupted:
        status = ExitStatus.INTERRUPTED
    try:
        _end(watched, screen, recorder, holders, status)
    except TdxReclaimError as error:
        if format_ != "json":
            raise
        # The last line has said how it ended; an error's JSON is more than a line.
        click.echo(f"tdxreclaim: {error.what}: {error.why}", err=True)
        status = error.exit_status
    ctx.exit(status)


def parse_td(text: str) -> Stated:
    """Return what ``400GiB:64`` says; without vCPUs they are not stated."""
    from tdxreclaim.cli.values import parse_number
    from tdxreclaim.costs.watch import Stated
    from tdxreclaim.engine.shape import MAX_VCPUS
    from tdxreclaim.units import parse_size

    size, colon, vcpus = text.partition(":")
    count = parse_number("--td", vcpus, MAX_VCPUS) if colon else None
    if count == 0:
        raise UsageError("--td", f"0 vCPUs: 1 to {MAX_VCPUS}")
    return Stated(parse_size("--td", size), count)


@contextlib.contextmanager
def _counters(replay: str | None, root: str, seconds: float) -> Iterator[Counters]:
    if replay is not None:
        from tdxreclaim.facts.kvm.recording import Recording
        from tdxreclaim.facts.sources.base import read_file

        yield Recording(read_file(replay), replay)
        return
    from tdxreclaim.facts.kvm.counters import FOLDER
    from tdxreclaim.facts.sources.events import Events
    from tdxreclaim.facts.sources.kvm import LEAST_INTERVAL_SECONDS, LiveCounters

    if seconds < LEAST_INTERVAL_SECONDS:
        why = f"{seconds:g} s: at least {LEAST_INTERVAL_SECONDS} s; who looks holds the VM"
        raise UsageError("--interval", why)
    with Events(os.path.join(root, FOLDER)) as events:
        yield LiveCounters(root, events)


def _release(root: str) -> str | None:
    from tdxreclaim.facts.sources.live import Live
    from tdxreclaim.facts.sources.tree import Tree

    source = Live() if root == "/" else Tree(root)
    return (source.read("proc/sys/kernel/osrelease") or "").strip() or None


def _failures_stay(release: str | None) -> bool | None:
    """Whether a page whose removal fails stays in the counter; warns of old kernels."""
    from tdxreclaim.tables.kernels import COUNTERS_READ_SINCE, FAILURES_STAY_SINCE
    from tdxreclaim.tables.releases import release_series

    series = release_series(release)
    if series is None:
        return None
    if series < COUNTERS_READ_SINCE:
        _note(
            f"kernel {release} is older than what was read ({COUNTERS_READ_SINCE}): "
            "its counters may differ"
        )
    return series >= FAILURES_STAY_SINCE


def _note(said: str) -> None:
    click.echo(f"tdxreclaim: watch: {said}", err=True)


def _first(watched: Watch, counters: Counters, vm: str | None, stated: Stated | None) -> None:
    """Take the first look, and refuse what makes no sense of it."""
    look = counters.look({})
    if look is None:
        return
    watched.see(look, counters.describe)
    if vm is not None and not watched.followed and watched.known:
        names = ", ".join(sorted(watched.known))
        raise HostReadError(vm, f"no such VM: it is gone, or has no folder; there are {names}")
    if stated is not None and len(watched.followed) > 1:
        names = ", ".join(watched.followed)
        raise UsageError("--td", f"several VMs: name the one of that size ({names})")


class _Ends(NamedTuple):
    """What ends it, beside an interrupt."""

    until_done: bool
    named: bool
    played: bool

    def reached(self, watched: Watch) -> bool:
        if not watched.followed:
            # A recording begins before its VM; on a host there is nothing to wait for.
            return not self.played
        if self.until_done:
            return watched.over
        return self.named and all(e.watched.state.ended for e in watched.followed.values())


def _follow(
    watched: Watch, counters: Counters, screen: Screen, seconds: float, ends: _Ends
) -> bool:
    """Look until there is no more to see; return whether that was an interrupt."""
    try:
        holders: tuple[str, ...] = ()
        stuck: tuple[str, ...] = ()
        with screen:
            while True:
                names = tuple(each.vm.name for each in watched.stuck)
                if names != stuck:
                    # Every process's descriptors: not at each look.
                    stuck, holders = names, counters.holders() if names else ()
                screen.show(watched, holders)
                if ends.reached(watched):
                    return False
                counters.wait(seconds)
                look = counters.look(watched.known)
                if look is None:
                    return False
                if look.broken is not None:
                    _note(f"{look.broken}: no rate is made of that time")
                watched.see(look, counters.describe)
    except KeyboardInterrupt:
        return True


class _Recorder(NamedTuple):
    """Where a record goes, and what the watch itself cannot tell of the host."""

    path: str
    origin: HostRecord
    clears: bool

    def write(self, watched: Watch, base: Calibration) -> None:
        from tdxreclaim.calibrate.merge import merge
        from tdxreclaim.calibrate.recorded import calibration
        from tdxreclaim.costs.toml import dump

        part = calibration(watched.followed.values(), base, clears=self.clears, origin=self.origin)
        whole = merge([part, base], name="watch", origin=self.origin.origin)
        write_whole(self.path, dump(whole))


def _recorder(
    path: str, replay: str | None, root: str, cpu: str | None, kernel: str | None
) -> _Recorder:
    """Read the host now: what is wrong must not come out after hours of watching."""
    import time

    from tdxreclaim.cli.host_options import read_chosen_host
    from tdxreclaim.costs.calibration import HostRecord
    from tdxreclaim.costs.scene import identified_cpu, set_scene
    from tdxreclaim.policy.decide import decide

    if path == "-":
        raise UsageError("--record", "writes a file; - is none")
    if replay is not None and (cpu is None or kernel is None):
        raise UsageError("--record", "requires --cpu and --kernel with --replay")
    chosen = read_chosen_host(
        symbols=True,
        from_=None if root == "/" else root,
        from_format=None,
        cpu=cpu,
        vendor=None,
        family=None,
        model=None,
        stepping=None,
        kernel=kernel,
        live=cpu is not None and replay is None and root == "/",
        cross_check=False,
    )
    decision = decide(chosen.facts)
    scene = set_scene(decision, packages=1)
    origin = HostRecord(
        name="watch",
        host=scene.cpu,
        kernel=decision.kernel.release or "not stated",
        date=time.strftime("%Y-%m-%d"),
        origin=f"tdxreclaim watch --record{'' if replay is None else ' --replay'}",
        cpu=identified_cpu(decision),
    )
    return _Recorder(path, origin, scene.plan.clearing.clears(erratum=scene.platform.erratum))


def _end(
    watched: Watch,
    screen: Screen,
    recorder: _Recorder | None,
    holders: tuple[str, ...],
    status: ExitStatus,
) -> None:
    """Say how it ended and write the record.

    Raises:
        InterruptedWorkError: it was interrupted, with how far it was.
        UnmeasurableError: nothing was seen that could be recorded.
    """
    from tdxreclaim.calibrate.recorded import measure, published_page
    from tdxreclaim.costs.shipped import read_calibration
    from tdxreclaim.report.watch.sentences import how_far

    base = read_calibration("published")
    measured: Measured | None = measure(watched.followed.values())
    screen.end(watched, measured, published_page(base), holders, status)
    failure: TdxReclaimError | None = None
    if recorder is not None:
        try:
            recorder.write(watched, base)
        except TdxReclaimError as error:
            failure = error
        else:
            _note(f"recorded: tdxreclaim simulate --calibration {recorder.path}")
    if status is ExitStatus.INTERRUPTED:
        if failure is not None:
            _note(f"{failure.what}: {failure.why}")
        raise InterruptedWorkError("watch", f"interrupted: {how_far(watched)}")
    if failure is not None:
        raise failure
