"""Times as people read them: a range, in the unit of its likely value."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdxreclaim.engine.calibration import Span

# A unit, its nanoseconds, and from how many of it on it reads better than the
# next smaller one: 92 min, not 1.5 h.
_UNITS = (
    ("days", 86_400_000_000_000, 3),
    ("h", 3_600_000_000_000, 3),
    ("min", 60_000_000_000, 3),
    ("s", 1_000_000_000, 1),
    ("ms", 1_000_000, 1),
    ("us", 1_000, 1),
)


def format_span(span: Span) -> str:
    """Return ``about 92 min (90 to 102 min)``; one value where the range rounds to it."""
    name, unit = _unit(span.likely_ns)
    low, likely, high = (_digits(value / unit) for value in span)
    if low == high:
        return f"about {likely} {name}"
    return f"about {likely} {name} ({low} to {high} {name})"


def format_range(span: Span) -> str:
    """Return ``3.1 to 3.5 min``."""
    name, unit = _unit(span.likely_ns)
    low, high = _digits(span.low_ns / unit), _digits(span.high_ns / unit)
    return f"{low} {name}" if low == high else f"{low} to {high} {name}"


def format_ns(value_ns: int) -> str:
    """Return one time in its unit: ``2.05 us``."""
    name, unit = _unit(value_ns)
    return f"{_digits(value_ns / unit)} {name}"


def _unit(value_ns: int) -> tuple[str, int]:
    for name, unit, enough in _UNITS:
        if value_ns >= enough * unit:
            return name, unit
    return "ns", 1


def _digits(value: float) -> str:
    """Return a number with two digits or more that count, none that do not."""
    if value >= 10 or value == int(value):  # noqa: PLR2004  (two digits)
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"
