"""Times in logs, in microseconds."""

from __future__ import annotations

import re


def _microseconds(value: object) -> float | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value / 1e6 if abs(value) < 1 << 63 else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:  # noqa: PLR2004
        return int(value) / 1e6
    return None


def _iso(moment: float) -> str:
    import datetime as dt

    try:
        return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return ""


_ISO = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,]\d+)?(Z|[+-]\d\d:?\d\d)?")


_SYSLOG = re.compile(
    r"(?:[A-Z][a-z]{2} )?([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d)(?: (\d{4}))?"
)


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _moment(when: str, near: float) -> float | None:
    """Return the seconds since 1970 of a wall clock's text, ``None`` if it does not tell.

    Without a zone it is taken as UTC; without a year, as the one nearest
    to *near*.
    """
    import datetime as dt

    iso = _ISO.search(when)
    try:
        if iso:
            zone = (iso[3] or "+00:00").replace("Z", "+00:00")
            return dt.datetime.fromisoformat(f"{iso[1]}T{iso[2]}{zone}").timestamp()
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


def parse_since(text: str) -> float | None:
    """Return ``--since`` in seconds since 1970 (UTC unless it has a zone); ``None`` if it is no date.

    >>> parse_since("2026-06-24"), parse_since("2026-06-24 11:07:17"), parse_since("tuesday")
    (1782259200.0, 1782299237.0, None)
    """
    import datetime as dt

    try:
        parsed = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=dt.UTC)
    return parsed.timestamp()
