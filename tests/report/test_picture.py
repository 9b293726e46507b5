"""Pictures: well formed, self-contained, safe for whatever they are given."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.report.picture import (
    WIDTH,
    Bar,
    Mark,
    Picture,
    Point,
    bars,
    curve,
    element,
    page,
    time_line,
)

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunTool

SVG = "{http://www.w3.org/2000/svg}"


@given(st.text())
def test_whatever_is_said_is_escaped(words: str) -> None:
    picture = Picture(words)
    picture.text(words)
    bars(picture, [Bar(words, 0, 1, words)])
    time_line(picture, [Mark(0, "error", words), Mark(1, "error", words)], str)
    root = ET.fromstring(picture.svg())  # noqa: S314  (what we wrote ourselves)
    assert {child.tag for child in root} <= {
        f"{SVG}{tag}" for tag in ("title", "style", "rect", "text", "path", "circle")
    }
    assert "<script" not in element("p", words)


def test_nothing_comes_from_elsewhere() -> None:
    text = page("title", [Picture("x").svg(alone=False)])
    assert not re.findall(r"(?:src|href)=|url\(|@import|<script", text)
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]


@given(
    st.lists(st.tuples(st.floats(0, 1e18), st.floats(0, 1e18)), min_size=1, max_size=20),
)
def test_every_bar_and_mark_is_inside_the_picture(ends: list[tuple[float, float]]) -> None:
    picture = Picture("bars")
    bars(picture, [Bar("x", min(pair), max(pair), "said") for pair in ends])
    time_line(picture, [Mark(at, "error", "x") for at, _ in sorted(ends)], str)
    root = ET.fromstring(picture.svg())  # noqa: S314
    for rect in root.iter(f"{SVG}rect"):
        assert float(rect.get("x", 0)) + float(rect.get("width", 0)) <= WIDTH + 1
    for circle in root.iter(f"{SVG}circle"):
        assert 0 <= float(circle.get("cx", -1)) <= WIDTH


def test_a_curve_without_a_likely_time_has_a_band_alone() -> None:
    def drawn(middle: float | None) -> str:
        picture = Picture("curve")
        points = [Point(x, x, 2 * x, middle) for x in (1.0, 2.0)]
        curve(picture, points, at=points[0], said="here", show_x=str, show_y=str)
        return picture.svg()

    assert "<polygon" in drawn(None)
    assert "<polyline" not in drawn(None)
    assert "<polyline" in drawn(1.5)


@pytest.mark.parametrize("memory", ["4KiB", "1GiB", "64TiB"])
def test_simulate_draws_any_size(memory: str, run: RunTool, tmp_path: Path) -> None:
    svg, html = tmp_path / "a.svg", tmp_path / "a.html"
    question = ("--memory", memory, "--vcpus", "2", "--cpu", "spr", "--kernel", "6.18")
    run("simulate", *question, "--svg", str(svg), "--html", str(html))
    root = ET.parse(svg).getroot()  # noqa: S314
    assert any("Time against memory" in (text.text or "") for text in root.iter(f"{SVG}text"))
    assert "<details><summary>" in html.read_text()
