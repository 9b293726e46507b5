"""Times in logs, in microseconds."""

from __future__ import annotations

import re
from typing import NamedTuple


def epoch_seconds(value: object, unit: float | None = None) -> float | None:
    """Return a number of seconds (a time, or since boot), ``None`` if it is none.

    *unit* is how many of it a second has; without one the size of the number
    tells seconds, milli-, micro- or nanoseconds.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:  # noqa: PLR2004
        value = int(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1 << 63:
        return None
    if unit is None:
        unit = next((each for each in (1e9, 1e6, 1e3) if value / each > _LEAST_EPOCH), 1)
    return value / unit


# 1973: smaller numbers are of a smaller unit, or since boot.
_LEAST_EPOCH = 1e8


def iso(moment: float) -> str:
    """Return a time as text, in UTC; empty where no calendar has it."""
    import datetime as dt

    try:
        return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return ""


_ISO = re.compile(r"(\d{4}[-/]\d\d[-/]\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,]\d+)?(Z|[+-]\d\d:?\d\d)?")


_SYSLOG = re.compile(
    r"(?:[A-Z][a-z]{2} )?([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d)(?: (\d{4}))?"
)


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def moment_of(when: str, near: float) -> float | None:
    """Return the seconds since 1970 of a wall clock's text, ``None`` if it does not tell.

    Without a zone it is taken as UTC; without a year, as the one nearest
    to *near*.
    """
    import datetime as dt

    found = _ISO.search(when)
    try:
        if found:
            zone = (found[3] or "+00:00").replace("Z", "+00:00")
            return dt.datetime.fromisoformat(
                f"{found[1].replace('/', '-')}T{found[2]}{zone}"
            ).timestamp()
        match = _SYSLOG.match(when)
        if match is None or match[1] not in _MONTHS:
            return None
        month = _MONTHS.index(match[1]) + 1
        base = dt.datetime.fromtimestamp(near, dt.UTC)
        day, hour, minute, second = (int(match[group]) for group in (2, 3, 4, 5))
        years = [int(match[6])] if match[6] else [base.year - 1, base.year, base.year + 1]
        moments = [
            dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC).timestamp()
            for year in years
        ]
        return min(moments, key=lambda moment: abs(moment - near))
    except (ValueError, OverflowError, OSError):
        return None


class Since(NamedTuple):
    """From when on lines are wanted: by the wall clock (seconds since 1970) or since boot."""

    moment: float | None = None
    uptime: float | None = None


_SPAN = re.compile(
    r"(?P<count>\d{1,9}(?:\.\d{1,3})?) ?(?P<unit>s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?)"
    r"(?![a-z])[ ,]*"
)


_SPAN_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


_UPTIME = re.compile(r"\[? *(\d{1,12}\.\d{1,9})\]?")


def parse_since(text: str, now: float | None = None) -> Since | None:
    """Return what ``--since`` says; ``None`` if it is no time.

    A date, a log's stamp as it stands there, or a span before *now* ("2h",
    "1h30m", "2 days ago", "yesterday"); UTC unless it has a zone.

    >>> parse_since("2026-06-24 11:07:17"), parse_since("2h", now=10000), parse_since("[ 261.26]")
    (Since(moment=1782299237.0, uptime=None), Since(moment=2800.0, uptime=None), Since(moment=None, uptime=261.26))
    >>> parse_since("tuesday") is None
    True
    """
    import time

    text = text.strip()
    now = time.time() if now is None else now
    uptime = _UPTIME.fullmatch(text)
    if uptime is not None:
        return Since(uptime=float(uptime[1]))
    moment = _of_date(text)
    if moment is None:
        moment = _before(text, now)
    if moment is None:
        moment = moment_of(text, now)
    return None if moment is None else Since(moment=moment)


def _of_date(text: str) -> float | None:
    import datetime as dt

    try:
        parsed = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=dt.UTC)
    return parsed.timestamp()


def _before(text: str, now: float) -> float | None:
    midnight = now - now % _SPAN_SECONDS["d"]
    named = {"now": now, "today": midnight, "yesterday": midnight - _SPAN_SECONDS["d"]}
    if text in named:
        return named[text]
    span = text.removeprefix("-").removesuffix("ago").strip()
    seconds, at = 0.0, 0
    while match := _SPAN.match(span, at):
        seconds += float(match["count"]) * _SPAN_SECONDS[match["unit"][0]]
        at = match.end()
    return now - seconds if at and at == len(span) else None
