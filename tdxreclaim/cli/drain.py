"""`tdxreclaim drain`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from tdxreclaim.cli.host_options import host_options, read_chosen_host
from tdxreclaim.cli.output import (
    calibration_option,
    color_option,
    emit,
    help_option,
    output_option,
    terminal_width,
    text_or_json_option,
    wants_color,
)
from tdxreclaim.costs.shipped import read_calibration
from tdxreclaim.errors import HostReadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.costs.drain import Td
    from tdxreclaim.facts.kvm.counters import Vm


@click.command(add_help_option=False, short_help="How long to stop all TDs of a host.")
@click.option(
    "--td",
    "tds",
    metavar="SIZE:VCPUS[xN]",
    multiple=True,
    help="A TD, or N alike: 400GiB:64, 18GiB:4x10. Without it, the TDs of the host that is meant.",
)
@click.option("--at-once", metavar="K", help="Stop K at once; together and one by one come anyway.")
@click.option("--cpus", metavar="N", help="The host has N CPUs: no more TDs are stopped at once.")
@click.option("--bandwidth", metavar="SIZE", help="The memory moves SIZE a second at most: 200GB.")
@click.option(
    "--packages", metavar="N", default="1", show_default=True, help="The host's packages."
)
@host_options
@calibration_option
@text_or_json_option
@output_option
@color_option
@help_option
def drain(
    *,
    tds: tuple[str, ...],
    at_once: str | None,
    cpus: str | None,
    bandwidth: str | None,
    packages: str,
    calibration: str,
    format_: str,
    output: str | None,
    color: str,
    **host: Any,  # noqa: ANN401  (the options of read_chosen_host, as click gives them)
) -> None:
    """Say how long it takes to stop all TDs of a host.

    All together, K at once, and one by one, beside two bounds that are certain:
    the longest TD alone, and all of them in turn.
    """
    from tdxreclaim.cli.values import parse_number
    from tdxreclaim.costs.drain import MOST_TDS
    from tdxreclaim.costs.drain import drain as schedule
    from tdxreclaim.costs.scene import set_scene
    from tdxreclaim.policy.decide import decide
    from tdxreclaim.report.drain.plan import DrainPlan
    from tdxreclaim.units import parse_size

    def count(option: str, text: str | None, most: int) -> int | None:
        number = None if text is None else parse_number(option, text, most)
        if number == 0:
            raise UsageError(option, f"0 is out of range: 1 to {most}")
        return number

    record = read_calibration(calibration)
    limit, threads = count("--at-once", at_once, MOST_TDS), count("--cpus", cpus, 1 << 16)
    moved = None if bandwidth is None else parse_size("--bandwidth", bandwidth)
    given = [td for text in tds for td in _parse(text)]
    source = "the command line" if given else "this host"
    if not given:
        source = host["from_"] or source
        given, host = _tds_of_host(host)
    if len(given) > MOST_TDS:
        raise UsageError("--td", f"{len(given)} TDs: at most {MOST_TDS}")
    chosen = read_chosen_host(symbols=True, **host)
    decision = decide(chosen.facts)
    scene = set_scene(decision, packages=count("--packages", packages, 64) or 1)
    plan = DrainPlan(
        drain=schedule(given, scene, record, at_once=limit, cpus=threads, bandwidth=moved),
        scene=scene,
        decision=decision,
        calibration=record,
        source=source,
        cpus=threads,
        bandwidth=moved,
    )
    if format_ == "json":
        from tdxreclaim.report.drain import json

        emit(json.render(plan), output)
        return
    from tdxreclaim.report.drain import text

    colored = wants_color(color, output)
    emit(text.render(plan, width=terminal_width(), color=colored), output, color=colored)


_TD = re.compile(r"([^:]+):(\d{1,5})(?:x(\d{1,5}))?", re.ASCII)


def _parse(text: str) -> list[Td]:
    """Return the TDs that ``18GiB:4x10`` means."""
    from tdxreclaim.costs.drain import MOST_TDS, Td
    from tdxreclaim.units import parse_size

    match = _TD.fullmatch(text.strip())
    if match is None:
        raise UsageError("--td", f"{text[:80]!r} is not a TD (400GiB:64, 18GiB:4x10)")
    number = int(match[3] or 1)
    if not 1 <= number <= MOST_TDS:
        raise UsageError("--td", f"{number} TDs: 1 to {MOST_TDS}")
    size, vcpus = parse_size("--td", match[1]), int(match[2])
    name = f"{match[1].strip()}:{vcpus}"
    names = [name] if number == 1 else [f"{name} #{n}" for n in range(1, number + 1)]
    return [Td(each, size, vcpus) for each in names]


def _tds_of_host(host: dict[str, Any]) -> tuple[list[Td], dict[str, Any]]:
    """Return the TDs of the host that is meant, and the options that tell the rest of it.

    Raises:
        HostReadError: it has none, or its counters cannot be read.
    """
    from tdxreclaim.costs.drain import Td

    found, host = _look_for(host)
    given = [Td(vm.name, vm.memory_bytes, vm.vcpus) for vm in found if vm.memory_bytes and vm.vcpus]
    if not given:
        what = host["from_"] or "this host"
        why = "no TD of known size; say them with --td SIZE:VCPUS"
        raise HostReadError(what, why)
    return given, host


def _look_for(host: dict[str, Any]) -> tuple[list[Vm], dict[str, Any]]:
    import os

    from tdxreclaim.facts.kvm.counters import FOLDER
    from tdxreclaim.facts.kvm.tds import tds_of_counters
    from tdxreclaim.facts.sources.kvm import LiveCounters

    path = host["from_"]
    if path is None:
        try:
            return list(tds_of_counters(LiveCounters())), host
        except HostReadError as error:
            why = f"{error.why}; or say the TDs with --td SIZE:VCPUS"
            raise HostReadError(error.what, why, error.errno) from error
    if os.path.isdir(os.path.join(path, FOLDER)):
        return list(tds_of_counters(LiveCounters(path))), host
    return _in_capture(path, host)


def _in_capture(path: str, host: dict[str, Any]) -> tuple[list[Vm], dict[str, Any]]:
    """Look into lines of watch, else into what a sosreport says of processes."""
    import contextlib

    from tdxreclaim.facts.kvm.recording import Recording
    from tdxreclaim.facts.kvm.tds import PROCESSES, tds_of_processes
    from tdxreclaim.facts.sources.base import is_directory, read_beginning, read_file
    from tdxreclaim.facts.sources.recognise import open_capture

    if path == "-":
        raise UsageError("--from", "- is read once, and TDs are looked for in it: say --td")
    if not is_directory(path) and read_beginning(path).startswith(b'{"schema": "tdxreclaim.watch/'):
        recording = Recording(read_file(path), path)
        found: dict[str, Vm] = {}
        while (look := recording.look(found)) is not None:
            found |= {name: recording.describe(name) for name in look.pages}
        # It tells no CPU: that is left to --cpu and --kernel.
        return [vm for vm in found.values() if vm.td], {**host, "from_": None}
    capture = open_capture(path, also=frozenset(PROCESSES))
    with contextlib.closing(capture.source):
        texts: Iterable[str | None] = (capture.source.read(each) for each in PROCESSES)
        text = next((each for each in texts if each), "")
    return list(tds_of_processes(text)), host
