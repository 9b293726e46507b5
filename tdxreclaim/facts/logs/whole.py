"""A kernel log that is in memory as one text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.logs.dress import undress
from tdxreclaim.facts.logs.line import Speaker
from tdxreclaim.facts.logs.prose import add_prose, looks_like_report
from tdxreclaim.facts.logs.reading import LogReading
from tdxreclaim.facts.logs.scanner import CHUNK_BYTES, LogScanner

if TYPE_CHECKING:
    from tdxreclaim.facts.logs.voice import ScannedLog

_MOST_SHOWN = 8


# Of one text's lines; a boot has some hundred that matter.
MOST_LOOKED_AT = 100_000


def scan_text(
    text: str, *, host: str | None = None, watches: bool = True
) -> tuple[ScannedLog, ...]:
    """Return the witnesses in *text*; see `LogScanner`."""
    return _scan(text, host=host, watches=watches)[0]


def _scan(text: str, *, host: str | None, watches: bool) -> tuple[tuple[ScannedLog, ...], bool]:
    """Return the witnesses, and whether *text* was read to its end."""
    scanner = LogScanner("", lambda _path: lambda _event: None, host=host, watches=watches)
    # Piece by piece: all of it in bytes too would fill the memory.
    for start in range(0, len(text), CHUNK_BYTES):
        if scanner.looked_at > MOST_LOOKED_AT:
            return scanner.finish(), False
        scanner.feed(text[start : start + CHUNK_BYTES].encode("utf-8", "replace"))
    return scanner.finish(), True


def choose_log(
    logs: tuple[ScannedLog, ...], name: str, cure: str = "choose one with --host NAME"
) -> ScannedLog | None:
    """Return the log that tells of the host, ``None`` if none does.

    Raises:
        MalformedInputError: several hosts have lines in them.

    """
    own = [log for log in logs if not log.quoted and log.kernel_lines]
    hosts = sorted({log.host for log in own if log.host})
    if len(hosts) > 1:
        shown = f"{', '.join(hosts[:_MOST_SHOWN])}{', ...' if len(hosts) > _MOST_SHOWN else ''}"
        raise MalformedInputError(name, f"lines of {len(hosts)} hosts: {shown}: {cure}")
    return max(own, key=lambda log: (bool(log.host), log.kernel_lines), default=None)


def parse_kernel_log(text: str, *, name: str = "kernel log", watches: bool = True) -> LogReading:
    """Return what the log says of its last boot; an empty reading if nothing.

    Raises:
        MalformedInputError: several hosts have lines in it.

    """
    logs, ended = _scan(text, host=None, watches=watches)
    log = choose_log(logs, name, "give the lines of one alone")
    reading = LogReading() if log is None else log.reading
    return add_prose(reading._replace(unended=not ended), text)


def looks_like_kernel_log(text: str) -> bool:
    """Whether *text*, or the beginning of one, has a line that the kernel wrote."""
    lines = text.lstrip("\ufeff").splitlines()
    if looks_like_report(text) or any(
        undress(line).line.speaker is Speaker.KERNEL for line in lines
    ):
        return True
    return any(log.kernel_lines for log in scan_text(text))
