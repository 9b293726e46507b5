"""`tdxreclaim capture`."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import click

from tdxreclaim import __version__
from tdxreclaim.cli.output import Variable, emit, emit_bytes, help_option, write_bytes_whole
from tdxreclaim.errors import MalformedInputError, UsageError

if TYPE_CHECKING:
    from tdxreclaim.facts.collect import HostCapture
    from tdxreclaim.facts.sources.base import Source


@click.command(
    add_help_option=False, short_help="Collect what can be used of a host into an archive."
)
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    default="tdxreclaim-capture.tar.gz",
    show_default=True,
    help="Write to FILE atomically; - is standard output.",
)
@click.option("--from", "from_", metavar="PATH", help="Capture a captured host anew, not this one.")
@click.option(
    "--include",
    metavar="PATH",
    multiple=True,
    help="Take this file too, as it is (proc/cmdline); it may identify the host.",
)
@click.option("--list", "list_", is_flag=True, help="Show what would be taken, and write nothing.")
@help_option
def capture(*, output: str, from_: str | None, include: tuple[str, ...], list_: bool) -> None:
    """Collect what this tool can use of a host into one small archive.

    Nothing that identifies the host is taken: no host name, serial number,
    address, UUID or full command line.  No root is needed; what cannot be
    read is left out and said.  check, simulate and triage --from read it.
    """
    from tdxreclaim.facts import collect as capture_host

    paths = [_checked(path) for path in include]
    captured = _collect(from_, paths)
    if list_:
        emit(_listing(captured))
        return
    manifest = capture_host.manifest(captured, version=__version__, date=_date())
    data = capture_host.pack(captured, manifest)
    if output == "-":
        emit_bytes(data)
        return
    write_bytes_whole(output, data)
    left_out = f", {len(captured.left_out)} left out" if captured.left_out else ""
    emit(f"{output}: {len(captured.taken)} files{left_out}, {len(data):,} bytes\n")
    if captured.left_out:
        emit("".join(f"  left out {each.path}: {each.why}\n" for each in captured.left_out))


def _collect(from_: str | None, include: list[str]) -> HostCapture:
    from tdxreclaim.facts.collect import ALSO_WANTED, collect
    from tdxreclaim.facts.sources.live import Live, installed_kernels
    from tdxreclaim.facts.sources.tree import Tree

    if from_ is None:
        return collect(Live(), include=include, tree=Tree("/"), installed=installed_kernels())
    from tdxreclaim.facts.sources.recognise import open_capture

    also = ALSO_WANTED.union(include)
    with contextlib.closing(open_capture(from_, also=also).source) as source:
        captured = collect(source, include=include)
        _check_no_stronger(captured, source, from_)
        return captured


def _check_no_stronger(captured: HostCapture, source: Source, name: str) -> None:
    """Refuse a capture that says more than what it was made of.

    Raises:
        MalformedInputError: the original's evidence is not whole, is of several
            hosts or contradicts itself, and the capture would hide that.

    """
    from tdxreclaim.facts.host import read_host
    from tdxreclaim.facts.sources.base import Files
    from tdxreclaim.policy.decide import decide

    texts = {each.path: each.text for each in captured.taken}
    after = decide(read_host(Files(texts))).verdict
    if after.must_clear:
        return
    before = decide(read_host(source))
    if before.verdict is not after:
        raise MalformedInputError(
            name, f"a capture would hide what was found: {before.verdict}: {before.because}"
        )


def _checked(path: str) -> str:
    name = path.lstrip("/")
    if not name or ".." in name.split("/"):
        raise UsageError("--include", f"{path!r} is no file of the host (proc/cmdline)")
    return name


def _date() -> str:
    """Return today's date, or that of SOURCE_DATE_EPOCH, for captures that repeat."""
    epoch = Variable.SOURCE_DATE_EPOCH.read()
    now = int(epoch) if epoch.isascii() and epoch.isdigit() and len(epoch) < 12 else time.time()  # noqa: PLR2004
    return time.strftime("%Y-%m-%d", time.gmtime(now))


def _listing(captured: HostCapture) -> str:
    lines = [f"{each.path}: {len(each.text):,} bytes, {each.how}" for each in captured.taken]
    lines += [f"left out {each.path}: {each.why}" for each in captured.left_out]
    return "\n".join(lines) + "\n"
