"""Sizes, durations and spans: how they are read and written."""

from __future__ import annotations

import re
from typing import NamedTuple

from tdxreclaim.errors import UsageError

PAGE_BYTES = 4096


# K, M, G, T alone are what QEMU and libvirt take them for: powers of 1024.
_SIZES = {
    "": 1,
    "B": 1,
    **{letter: 1024**n for n, letter in enumerate("KMGTPE", start=1)},
    **{f"{letter}IB": 1024**n for n, letter in enumerate("KMGTPE", start=1)},
    **{f"{letter}B": 1000**n for n, letter in enumerate("KMGTPE", start=1)},
}


# Below a MiB a size is meant to the byte, above it as people round.
_EXACT = frozenset(("", "B", "K", "KIB", "KB"))


_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,10})?) ?([A-Za-z]{0,3})", re.ASCII)


def parse_size(option: str, text: str) -> int:
    """Return *text* (``18G``, ``107GB``, ``1.2TiB``) in bytes, a whole number of 4 KiB pages.

    With a unit of MB or more it is rounded up to a page; without, or in KiB,
    it must be whole pages.

    >>> parse_size("--memory", "1MB"), parse_size("--memory", "1MiB")
    (1003520, 1048576)

    Raises:
        UsageError: it is no size, is nothing, or is not whole pages.

    """
    from fractions import Fraction

    match = _SIZE.fullmatch(text.strip())
    unit = match[2].upper() if match else ""
    if match is None or unit not in _SIZES:
        raise UsageError(option, f"{text!r} is not a size (18G, 107GB, 400GiB, 1.2TiB)")
    size = Fraction(match[1]) * _SIZES[unit]
    if size <= 0:
        raise UsageError(option, "must be greater than 0")
    if unit in _EXACT and size % PAGE_BYTES:
        cure = f", in bytes: write {text}GiB if it is meant so" if not unit else ""
        raise UsageError(option, f"{text} is not a whole number of 4 KiB pages{cure}")
    return -int(-size // PAGE_BYTES) * PAGE_BYTES


def format_size(size_bytes: int) -> str:
    """Return a size in the largest binary unit that it fills, with GB beside GiB.

    >>> format_size(400 * 1024**3), format_size(107_000_000_512)
    ('400 GiB', '99.65 GiB (107.0 GB)')
    """
    unit, name = 1, "bytes"
    for power, each in enumerate(("KiB", "MiB", "GiB", "TiB", "PiB"), start=1):
        if size_bytes >= 1024**power:
            unit, name = 1024**power, each
    if size_bytes % unit == 0:
        return f"{size_bytes // unit} {name}"
    decimal = 1000 ** (("KiB", "MiB", "GiB", "TiB", "PiB").index(name) + 1)
    return f"{size_bytes / unit:.2f} {name} ({size_bytes / decimal:.1f} {name.replace('i', '')})"


# 100 %, in thousandths of a percent.
_ALL = 100_000


_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?) ?%", re.ASCII)


class Share(NamedTuple):
    """How much of a memory: so many bytes, or so many thousandths of a percent of it."""

    size_bytes: int | None
    thousandths: int = _ALL

    def of(self, memory_bytes: int) -> int:
        """Return it in bytes, whole pages, rounded up."""
        if self.size_bytes is not None:
            return self.size_bytes
        return -(-(memory_bytes // PAGE_BYTES) * self.thousandths // _ALL) * PAGE_BYTES


def parse_share(option: str, text: str) -> Share:
    """Return what ``64GiB`` or ``25 %`` means.

    >>> parse_share("--mapped", "25 %").of(1 << 30) == 1 << 28
    True

    Raises:
        UsageError: it is neither, or nothing, or above 100 %.

    """
    if "%" not in text:
        return Share(parse_size(option, text))
    match = _PERCENT.fullmatch(text.strip())
    if match is None:
        raise UsageError(option, f"{text!r} is not a size or a percentage (64GiB, 25%)")
    thousandths = round(float(match[1]) * 1000)
    if not 0 < thousandths <= _ALL:
        raise UsageError(option, f"{text} is not above 0 % and up to 100 %")
    return Share(None, thousandths)


# High over low.
_WIDE = 3


class Span(NamedTuple):
    """A time and its range, in integer nanoseconds; low <= likely <= high."""

    low_ns: int
    likely_ns: int
    high_ns: int

    @property
    def is_wide(self) -> bool:
        """Whether it is so wide that one time in it says nothing."""
        return self.high_ns > _WIDE * self.low_ns

    def times(self, count: int) -> Span:
        """It, *count* times over; the whole range moves together."""
        return Span(self.low_ns * count, self.likely_ns * count, self.high_ns * count)

    def plus(self, other: Span) -> Span:
        """Both; lows add up to the low, highs to the high."""
        return Span(
            self.low_ns + other.low_ns,
            self.likely_ns + other.likely_ns,
            self.high_ns + other.high_ns,
        )


ZERO = Span(0, 0, 0)


_SECONDS = {"h": 3600, "m": 60, "min": 60, "s": 1, "ms": 0.001, "": 1}


_PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(h|min|ms|m|s)?", re.ASCII)


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
        total += float(match[1]) * _SECONDS[match[2] or ""]
        at = match.end()
        while stripped[at : at + 1] == " ":
            at += 1
    if at != len(stripped) or not stripped:
        raise UsageError(option, f"{text!r} is not a duration (517s, 9min, 1h32m)")
    if total <= 0:
        raise UsageError(option, "must be greater than 0")
    return round(total * 1_000_000_000)


# A unit, its nanoseconds, and from how many of it on it reads better than the
# next smaller one: 92 min, not 1.5 h.
_TIMES = (
    ("days", 86_400_000_000_000, 3),
    ("h", 3_600_000_000_000, 3),
    ("min", 60_000_000_000, 3),
    ("s", 1_000_000_000, 1),
    ("ms", 1_000_000, 1),
    ("us", 1_000, 1),
)


def format_span(span: Span) -> str:
    """Return ``about 92 min (90 to 102 min)``; the range alone where it is wide."""
    if span.is_wide:
        return format_range(span)
    name, unit = _unit(span.likely_ns)
    low, likely, high = (_digits(value / unit) for value in span)
    if low == high:
        return f"about {likely} {name}"
    return f"about {likely} {name} ({low} to {high} {name})"


def format_range(span: Span) -> str:
    """Return ``3.1 to 3.5 min``; ``62 s to 19 min`` where it is wide."""
    if span.is_wide and span.low_ns and _unit(span.low_ns) != _unit(span.high_ns):
        return f"{format_ns(span.low_ns)} to {format_ns(span.high_ns)}"
    name, unit = _unit(span.likely_ns)
    low, high = _digits(span.low_ns / unit), _digits(span.high_ns / unit)
    return f"{low} {name}" if low == high else f"{low} to {high} {name}"


def format_ns(value_ns: int) -> str:
    """Return one time in its unit: ``2.05 us``."""
    name, unit = _unit(value_ns)
    return f"{_digits(value_ns / unit)} {name}"


def format_percent(share: float) -> str:
    """Return a share of 1 in percent.

    >>> format_percent(0.043), format_percent(0.004), format_percent(0)
    ('4 %', 'under 1 %', '0 %')
    """
    percent = share * 100
    return "under 1 %" if 0 < percent < 1 else f"{percent:.0f} %"


def _unit(value_ns: int) -> tuple[str, int]:
    for name, unit, enough in _TIMES:
        if value_ns >= enough * unit:
            return name, unit
    return "ns", 1


def _digits(value: float) -> str:
    """Return a number with two digits or more that count, none that do not."""
    if value >= 9.95 or value == int(value):  # noqa: PLR2004  (two digits)
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"
