"""Drawings as SVG and pages as HTML, self-contained: no script, font or file from elsewhere.

Colours are CSS variables, so that one picture is readable in dark and light.
Lengths are SVG user units, one of which is a CSS pixel at 100 %.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

WIDTH = 860
MARGIN = 24
_CHARACTER = 7.3  # of the 13 px font, on average and rather too wide
_HEAD = 1.35  # bold and larger

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --faint: #5b6570;
  --line: #d3d8de; --main: #2563a8; --band: #2563a833; --other: #8a94a0;
  --critical: #b3140f; --error: #c2410c; --warning: #a16207; --notice: #2563a8; --benign: #5b6570; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e6eaef; --faint: #9aa5b1;
  --line: #39424d; --main: #6fb1f5; --band: #6fb1f540; --other: #7c8794;
  --critical: #ff7b72; --error: #ffa657; --warning: #e3c14b; --notice: #6fb1f5; --benign: #9aa5b1; } }
""".strip()

_SVG_STYLE = """
.paper { fill: var(--paper); } text { fill: var(--ink); font: 13px system-ui, sans-serif; }
.head { font-weight: 600; font-size: 16px; } .sub { font-weight: 600; }
.faint { fill: var(--faint); font-size: 12px; } .axis { stroke: var(--line); fill: none; }
.main { fill: var(--main); } .other { fill: var(--other); } .band { fill: var(--band); }
.curve { stroke: var(--main); stroke-width: 2; fill: none; } .end { text-anchor: end; }
.middle { text-anchor: middle; }
.critical { fill: var(--critical); } .error { fill: var(--error); } .warning { fill: var(--warning); }
.notice { fill: var(--notice); } .benign { fill: var(--benign); }
""".strip()

_HTML_STYLE = """
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.25rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
svg { max-width: 100%; height: auto; } pre, code { font: 13px/1.45 ui-monospace, monospace; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); padding: .75rem; }
details { border-top: 1px solid var(--line); padding: .4rem 0; } summary { cursor: pointer; }
dt { color: var(--faint); } dd { margin: 0 0 .4rem 0; overflow-wrap: anywhere; }
.critical { color: var(--critical); } .error { color: var(--error); }
.warning { color: var(--warning); } .notice { color: var(--notice); }
.benign, .faint { color: var(--faint); } .severity { font-weight: 600; }
""".strip()


class Picture:
    """An SVG that grows downwards; whatever it says is escaped."""

    def __init__(self, title: str, description: str = "", style: str = "") -> None:
        """*description* is read out to who does not see it; *style* is CSS of its own."""
        self._title = title
        self._description = description
        self._style = style
        self._parts: list[str] = []
        self.y = float(MARGIN)

    def text(self, words: str, css: str = "", *, width: int = WIDTH - 2 * MARGIN) -> None:
        """Add *words*, broken at blanks to lines of *width*."""
        big = _HEAD if "head" in css else 1.0
        for line in _wrap(words, int(width / (_CHARACTER * big))):
            self.y += 19 * big
            self.put(label(MARGIN, self.y, line, css))

    def gap(self, height: float = 14) -> None:
        """Leave *height* empty."""
        self.y += height

    def put(self, element: str) -> None:
        """Add an element, already escaped."""
        self._parts.append(element)

    def svg(self, *, alone: bool = True) -> str:
        """Return the picture; *alone*: with its colours, not those of a page around it."""
        height = round(self.y + MARGIN)
        style = f"{_SVG_STYLE}\n{self._style}".rstrip()
        if alone:
            style = f"{STYLE}\n{style}"
        described = (f"<desc>{_escape(self._description)}</desc>",) if self._description else ()
        return "\n".join(
            (
                (
                    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
                    f'width="{WIDTH}" height="{height}" role="img">'
                ),
                f"<title>{_escape(self._title)}</title>",
                *described,
                f"<style>{style}</style>",
                f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
                *self._parts,
                "</svg>\n",
            )
        )


class Bar(NamedTuple):
    """A row of a bar chart: from *low* to *high* (0 to *high* where they are equal parts)."""

    label: str
    low: float
    high: float
    said: str
    css: str = "main"


_LABELS = 240
_SAID = 190


def bars(picture: Picture, rows: Sequence[Bar]) -> None:
    """Add *rows* on one scale from 0; a bar is never thinner than can be seen."""
    longest = max((row.high for row in rows), default=0) or 1
    room = WIDTH - 2 * MARGIN - _LABELS - _SAID
    for row in rows:
        picture.y += 24
        start = MARGIN + _LABELS + room * row.low / longest
        length = max(room * (row.high - row.low) / longest, 2)
        picture.put(label(MARGIN, picture.y, row.label))
        picture.put(
            f'<rect class="{row.css}" x="{start:.1f}" y="{picture.y - 12:.1f}" '
            f'width="{length:.1f}" height="14" rx="2"/>'
        )
        picture.put(label(WIDTH - MARGIN, picture.y, row.said, "faint end"))


class Point(NamedTuple):
    """A place on a curve with its range; ``middle`` is ``None`` where none is likely."""

    x: float
    low: float
    high: float
    middle: float | None


_CURVE_HEIGHT = 220
_AXIS = 90


def curve(
    picture: Picture,
    points: Sequence[Point],
    *,
    at: Point,
    said: str,
    show_x: Callable[[float], str],
    show_y: Callable[[float], str],
) -> None:
    """Add a band over x, its middle where there is one, and a mark at the place *at*."""
    top, left, right = picture.y + 12, MARGIN + _AXIS, WIDTH - MARGIN - 40
    bottom = top + _CURVE_HEIGHT
    most_x, most_y = points[-1].x, max(point.high for point in points) or 1

    def place(x: float, y: float) -> str:
        across = left + (right - left) * x / most_x
        return f"{across:.1f},{bottom - _CURVE_HEIGHT * y / most_y:.1f}"

    upper = [place(point.x, point.high) for point in points]
    lower = [place(point.x, point.low) for point in reversed(points)]
    picture.put(f'<polygon class="band" points="{" ".join(upper + lower)}"/>')
    likely = [place(p.x, p.middle) for p in points if p.middle is not None]
    if len(likely) == len(points):
        picture.put(f'<polyline class="curve" points="{" ".join(likely)}"/>')
    picture.put(f'<path class="axis" d="M{left} {top} V{bottom} H{right}"/>')
    for part in range(5):
        y = bottom - _CURVE_HEIGHT * part / 4
        picture.put(label(left - 8, y + 4, show_y(most_y * part / 4) if part else "0", "faint end"))
        x = left + (right - left) * part / 4
        picture.put(
            label(x, bottom + 18, show_x(most_x * part / 4) if part else "0", "faint middle")
        )
    mark, low = place(at.x, at.low).split(",")
    high = place(at.x, at.high).partition(",")[2]
    picture.put(f'<path class="curve" d="M{mark} {low} V{high}"/>')
    picture.put(f'<circle class="main" cx="{mark}" cy="{high}" r="3.5"/>')
    picture.put(f'<circle class="main" cx="{mark}" cy="{low}" r="3.5"/>')
    # Left of the mark there is room: time grows with x.
    beside, end = float(mark) - 10, " end"
    if beside - len(said) * _CHARACTER < left:
        beside, end = float(mark) + 10, ""
    above = max(float(high) - 8, top + 8)
    picture.put(label(beside, above, said, f"sub{end}"))
    picture.y = bottom + 24


class Mark(NamedTuple):
    """Something on a time line: seconds, a severity, what it is."""

    at: float
    css: str
    said: str


_ROWS = 8


def time_line(picture: Picture, marks: Sequence[Mark], show: Callable[[float], str]) -> None:
    """Add *marks*, in order of time, over one axis; labels step down so that none cover others."""
    first, last = marks[0].at, marks[-1].at
    span = (last - first) or 1
    left, right = MARGIN + 10, WIDTH - MARGIN - 10
    top = picture.y + 12
    rows = min(len(marks), _ROWS)
    axis = top + rows * 20 + 8
    for number, mark in enumerate(marks):
        x = left + (right - left) * (mark.at - first) / span
        y = top + (number % rows) * 20
        at_end = x > (left + right) / 2
        picture.put(f'<path class="axis" d="M{x:.1f} {y + 4:.1f} V{axis:.1f}"/>')
        picture.put(f'<circle class="{mark.css}" cx="{x:.1f}" cy="{axis:.1f}" r="5"/>')
        picture.put(
            label(
                x - 6 if at_end else x + 6,
                y + 8,
                mark.said,
                f"{mark.css}{' end' if at_end else ''}",
            )
        )
    picture.put(f'<path class="axis" d="M{left} {axis:.1f} H{right}"/>')
    picture.put(label(left, axis + 24, show(first), "faint"))
    picture.put(label(right, axis + 24, show(last), "faint end"))
    picture.y = axis + 28


def page(title: str, body: Iterable[str]) -> str:
    """Return an HTML document with *body*, whose parts are escaped already."""
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_escape(title)}</title>",
            f"<style>\n{STYLE}\n{_HTML_STYLE}\n</style></head><body>",
            *body,
            "</body></html>\n",
        )
    )


def element(tag: str, words: str, css: str = "") -> str:
    """Return ``<tag>words</tag>``, escaped."""
    kind = f' class="{css}"' if css else ""
    return f"<{tag}{kind}>{_escape(words)}</{tag}>"


def unfolding(summary: str, inside: Iterable[str], *, opened: bool = False) -> str:
    """Return a part that unfolds; both are escaped already."""
    return "\n".join(
        (f"<details{' open' if opened else ''}><summary>{summary}</summary>", *inside, "</details>")
    )


def _escape(words: str) -> str:
    """Return *words* for XML, whose documents may hold no control characters at all."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in words)
    return escape(shown)


def label(x: float, y: float, words: str, css: str = "") -> str:
    """Return *words* as an element at a place, escaped."""
    kind = f' class="{css}"' if css else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}">{_escape(words)}</text>'


def _wrap(words: str, most: int) -> list[str]:
    from textwrap import wrap

    return wrap(words, max(most, 20)) or [""]
