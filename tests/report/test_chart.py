"""Charts of bands: well formed, inside their picture, whatever the numbers are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.report.chart import MOST_SERIES, STYLE, Axis, Extent, Mark, Series, draw
from tdxreclaim.report.picture import WIDTH, Picture

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunTool

SVG = "{http://www.w3.org/2000/svg}"
POWERS = tuple(10**n for n in range(25))


def axis(title: str, values: list[int]) -> Axis:
    return Axis(title=title, low=min(values), high=max(values), candidates=POWERS, show=str)


def drawn(series: list[Series], extent: Extent | None = None) -> ET.Element:
    marks = [mark for each in series for mark in each.marks]
    picture = Picture("title", "described", STYLE)
    x = axis("x", [mark.x for mark in marks])
    y = axis("y", [value for mark in marks for value in mark[1:]])
    draw(picture, series, x, y, extent)
    return ET.fromstring(picture.svg())  # noqa: S314  (what we wrote ourselves)


ranges = st.lists(st.integers(0, 1 << 70), min_size=4, max_size=4).map(sorted)
marks = st.builds(lambda x, r: Mark(x, r[0], r[3], r[1], r[2]), st.integers(1, 1 << 60), ranges)


@given(
    st.lists(st.lists(marks, min_size=1, max_size=5), min_size=1, max_size=MOST_SERIES),
    st.integers(1, 1 << 60),
)
def test_everything_is_inside_the_picture(each: list[list[Mark]], timed: int) -> None:
    series = [Series(f"<{n}>", sorted(found)) for n, found in enumerate(each)]
    root = drawn(series, Extent(timed, timed * 2, "timed"))
    height = float(root.get("height", 0))
    polygons = list(root.iter(f"{SVG}polygon"))
    assert len(polygons) == 2 * len(series)
    for polygon in polygons:
        for pair in polygon.get("points", "").split():
            x, y = map(float, pair.split(","))
            assert -1 <= x <= WIDTH + 1
            assert -1 <= y <= height + 1
    assert [text.text for text in root.iter(f"{SVG}text")][-len(series) :] == [
        s.name for s in series
    ]


def test_an_axis_over_decades_is_logarithmic_and_marks_round_values() -> None:
    wide, narrow = axis("x", [7, 5000]), axis("x", [100, 500])
    assert (wide.is_log, wide.ticks) == (True, [10, 100, 1000])
    assert (narrow.is_log, narrow.ticks) == (False, [100, 200, 300, 400, 500])
    assert wide.place(7) == 0
    assert wide.place(5000) == pytest.approx(1)
    assert len(axis("x", [1, 10**24]).ticks) <= 9


def test_every_series_has_a_style_of_its_own_in_dark_and_light() -> None:
    for number in range(MOST_SERIES):
        assert len(re.findall(rf"--s{number}: #", STYLE)) == 2
        assert f".b{number} " in STYLE
        assert f".m{number} " in STYLE


PLAN = """
schema = "tdxreclaim.sweep-plan/1"
command = "simulate"
[axes]
vcpus = 8
cpu = ["spr", "gnr"]
kernel = ["6.17", "6.18"]
clear = ["kernel", "never"]
order = ["upstream", "hkid-first"]
memory = """


@pytest.mark.parametrize(
    "memory", ['["1GiB", "2GiB"]', '"4KiB"', '{ from = "1GiB", to = "64TiB", steps = 90 }']
)
def test_sweep_draws_any_size(memory: str, run: RunTool, tmp_path: Path) -> None:
    plan, svg = tmp_path / "plan.toml", tmp_path / "x.svg"
    plan.write_text(PLAN + memory)
    ran = run("sweep", str(plan), "--svg", str(svg), "--jobs", "1")
    assert (ran.status, ran.err) == (0, "")
    root = ET.fromstring(svg.read_text())  # noqa: S314
    said = " ".join(filter(None, (text.text for text in root.iter(f"{SVG}text"))))

    assert "not probabilities of a host" in said
    assert "UNSAFE" in said
    assert [child.tag for child in root][:2] == [f"{SVG}title", f"{SVG}desc"]
    assert "UNSAFE on Sapphire Rapids" in str(root[1].text)
    assert not re.findall(r"(?:src|href)=|url\(|@import|<script", svg.read_text())
