"""A chart of several bands over one pair of axes, linear or logarithmic, inside a `Picture`."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.report.picture import MARGIN, WIDTH, label

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tdxreclaim.report.picture import Picture

MOST_SERIES = 6
"""Colours that can be told apart, by those too who see fewer of them."""

# Okabe and Ito's, the lighter ones on dark paper.
STYLE = """
:root { --s0: #0072b2; --s1: #d55e00; --s2: #007a58; --s3: #a64d80; --s4: #8a6100; --s5: #444c56; }
@media (prefers-color-scheme: dark) { :root { --s0: #56b4e9; --s1: #ff9a4d; --s2: #3fcf9f;
  --s3: #e79bc2; --s4: #f0c14b; --s5: #c3cbd4; } }
.extent { stroke: var(--faint); stroke-width: 3; fill: none; }
.grid { stroke: var(--line); stroke-width: 1; opacity: .6; fill: none; }
""" + "\n".join(
    f".b{n} {{ fill: var(--s{n}); opacity: .13; }} "
    f".m{n} {{ fill: var(--s{n}); fill-opacity: .3; stroke: var(--s{n}); stroke-width: 1.5; "
    f"stroke-dasharray: {dash}; stroke-linejoin: round; }}"
    for n, dash in enumerate(("none", "7 3", "2 3", "9 3 2 3", "4 4", "1 4"))
)

# From this factor on between the ends of an axis it is logarithmic.
_DECADE = 10
_MOST_TICKS = 9
_PARTS = 4
_HEIGHT = 360
_LEFT = 84
_ROOM = 34
_LEGEND = 24


class Mark(NamedTuple):
    """A place on the x axis: an outer range, and one inside it."""

    x: int
    low: int
    high: int
    inner_low: int
    inner_high: int


class Extent(NamedTuple):
    """A stretch of the x axis that is named."""

    low: int
    high: int
    name: str


class Series(NamedTuple):
    """What is drawn in one colour."""

    name: str
    marks: Sequence[Mark]


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A scale, and what is written beside it."""

    title: str
    low: int
    high: int
    candidates: Sequence[int]
    """Round values to mark on a logarithmic scale; on a linear one they are evenly apart."""
    show: Callable[[int], str]

    @property
    def is_log(self) -> bool:
        """Whether it spans a decade."""
        return self.high >= _DECADE * max(self.low, 1)

    def place(self, value: int) -> float:
        """Return where a value is, 0 to 1."""
        if self.is_log:
            low = max(self.low, 1)
            return log(max(value, 1) / low) / log(self.high / low)
        return (value - self.low) / ((self.high - self.low) or 1)

    @property
    def ticks(self) -> list[int]:
        """The values that are marked."""
        within = [tick for tick in self.candidates if self.low <= tick <= self.high]
        if self.is_log and len(within) > 1:
            return within[:: -(-len(within) // _MOST_TICKS)]
        return [self.low + (self.high - self.low) * i // _PARTS for i in range(_PARTS + 1)]


def draw(
    picture: Picture, series: Sequence[Series], x: Axis, y: Axis, extent: Extent | None = None
) -> None:
    """Add the chart: for each series its outer band and the one inside it, and a legend."""
    top, left, right = picture.y + 30, MARGIN + _LEFT, WIDTH - MARGIN - 12
    bottom = top + _HEIGHT

    def across(value: int) -> float:
        return left + (right - left) * x.place(value)

    def down(value: int) -> float:
        return bottom - _HEIGHT * y.place(value)

    picture.put(label(MARGIN, top - 12, y.title, "faint"))
    for tick in y.ticks:
        picture.put(f'<path class="grid" d="M{left} {down(tick):.1f} H{right}"/>')
        picture.put(label(left - 8, down(tick) + 4, y.show(tick), "faint end"))
    for tick in x.ticks:
        picture.put(f'<path class="grid" d="M{across(tick):.1f} {top} V{bottom}"/>')
        picture.put(label(across(tick), bottom + 18, x.show(tick), "faint middle"))
    picture.put(f'<path class="axis" d="M{left} {top} V{bottom} H{right}"/>')
    picture.put(label((left + right) / 2, bottom + 36, x.title, "faint middle"))
    for css, parts in (("b", ("low", "high")), ("m", ("inner_low", "inner_high"))):
        for number, each in enumerate(series):
            low, high = ([getattr(mark, part) for mark in each.marks] for part in parts)
            xs = [across(mark.x) for mark in each.marks]
            upper = [f"{a:.1f},{down(b):.1f}" for a, b in zip(xs, high, strict=True)]
            lower = [f"{a:.1f},{down(b):.1f}" for a, b in zip(xs, low, strict=True)]
            picture.put(
                f'<polygon class="{css}{number}" points="{" ".join(upper + lower[::-1])}"/>'
            )
    if extent is not None and extent.low <= x.high and extent.high >= x.low:
        begin, end = across(max(extent.low, x.low)), across(min(extent.high, x.high))
        picture.put(f'<path class="extent" d="M{begin:.1f} {bottom - 3} H{end:.1f}"/>')
        picture.put(label((begin + end) / 2, bottom - 9, extent.name, "faint middle"))
    picture.y = bottom + 44
    for number, each in enumerate(series):
        picture.y += _LEGEND
        box = f'x="{left}" y="{picture.y - 11:.1f}" width="34"'
        picture.put(f'<rect class="b{number}" {box} height="14"/>')
        picture.put(
            f'<rect class="m{number}" x="{left}" y="{picture.y - 6:.1f}" width="34" height="4"/>'
        )
        picture.put(label(left + _ROOM + 12, picture.y + 1, each.name))
