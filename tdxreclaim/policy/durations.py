"""Durations as people write them."""

from __future__ import annotations

import re

from tdxreclaim.errors import UsageError

_UNITS = {"h": 3600, "m": 60, "min": 60, "s": 1, "": 1}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(h|min|m|s)?", re.ASCII)


def parse_duration(option: str, text: str) -> int:
    """Return *text* (``517s``, ``9min``, ``1h32m``, plain seconds) in nanoseconds.

    >>> parse_duration("--observed", "517s"), parse_duration("--observed", "1m30.5s")
    (517000000000, 90500000000)

    Raises:
        UsageError: it is no duration, or is nothing.

    """
    total, at = 0.0, 0
    stripped = text.strip().lower()
    while match := _PART.match(stripped, at):
        total += float(match[1]) * _UNITS[match[2] or ""]
        at = match.end()
        while stripped[at : at + 1] == " ":
            at += 1
    if at != len(stripped) or not stripped:
        raise UsageError(option, f"{text!r} is no duration (517s, 9min, 1h32m)")
    if total <= 0:
        raise UsageError(option, f"{text} is nothing: a shutdown takes time")
    return round(total * 1_000_000_000)
