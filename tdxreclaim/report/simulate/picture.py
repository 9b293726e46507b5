"""A simulated teardown as drawings: time against memory, steps, kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.costs.estimate import estimate
from tdxreclaim.costs.scene import name_errata
from tdxreclaim.engine.shape import Shape
from tdxreclaim.report.check.text import faked_note
from tdxreclaim.report.picture import Bar, Picture, Point, bars, curve, element, page, unfolding
from tdxreclaim.report.simulate.text import headline, render
from tdxreclaim.units import PAGE_BYTES, format_ns, format_range, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.report.simulate.simulation import Simulation

_TITLE = "tdxreclaim simulate"
# The curve goes to twice the memory that was asked about, in this many pieces.
_PIECES = 48


def draw(simulation: Simulation) -> Picture:
    """Return the picture."""
    picture = Picture(_TITLE)
    picture.text(f"{headline(simulation)}{faked_note(simulation.report)}", "head")
    _against_memory(picture, simulation)
    _by_step(picture, simulation)
    _by_kernel(picture, simulation)
    picture.gap()
    for caution in simulation.cautions:
        picture.text(caution, "faint")
    picture.text(
        f"Calibration {simulation.calibration.name}: {simulation.calibration.origin}", "faint"
    )
    return picture


def render_svg(simulation: Simulation) -> str:
    """Return the simulation as an SVG picture."""
    return draw(simulation).svg()


def render_html(simulation: Simulation) -> str:
    """Return the simulation as an HTML page: the picture, and all of the text below it."""
    text = render(simulation, width=100)
    return page(
        _TITLE,
        (
            draw(simulation).svg(alone=False),
            unfolding("All of it as text", [element("pre", text)]),
        ),
    )


def _against_memory(picture: Picture, simulation: Simulation) -> None:
    picture.gap()
    vcpus = simulation.shape.vcpus
    picture.text(f"Time against memory ({vcpus} vCPU{'' if vcpus == 1 else 's'})", "sub")
    *points, _ = list(_points(simulation))
    at = _point(simulation, simulation.shape.memory_bytes)
    curve(
        picture,
        points,
        at=at,
        said=f"{format_size(int(at.x))}: {format_range(simulation.result.estimate.total)}",
        show_x=lambda size: format_size(round(size / (1 << 20)) << 20).partition(" (")[0],
        show_y=lambda ns: format_ns(round(ns)),
    )
    picture.text("the band is the range of the estimate", "faint")


def _points(simulation: Simulation) -> Iterator[Point]:
    step = max(simulation.shape.memory_bytes * 2 // _PIECES // PAGE_BYTES, 1) * PAGE_BYTES
    for number in range(1, _PIECES + 2):
        yield _point(simulation, step * number)


def _point(simulation: Simulation, memory_bytes: int) -> Point:
    total = estimate(
        Shape(memory_bytes=memory_bytes, vcpus=simulation.shape.vcpus),
        simulation.scene.plan,
        simulation.scene.platform,
        simulation.calibration,
    ).total
    return Point(memory_bytes, total.low_ns, total.high_ns, total.likely_ns)


def _by_step(picture: Picture, simulation: Simulation) -> None:
    picture.gap()
    picture.text("Where the time goes", "sub")
    bill = simulation.result.estimate
    total = bill.total.likely_ns
    rows = [
        Bar(
            f"{step.phase} {step.action.label}",
            0,
            step.total.likely_ns,
            f"{format_ns(step.total.likely_ns)}, {step.total.likely_ns / total:.0%}",
        )
        for step in bill.steps
        if step.total.likely_ns * 200 > total
    ]
    bars(picture, rows)
    picture.text("steps of less than half a percent are left out", "faint")


def _by_kernel(picture: Picture, simulation: Simulation) -> None:
    affected = simulation.scene.platform.erratum
    shown = [each for each in simulation.what_ifs if each.affected is affected]
    if not shown:
        return
    picture.gap()
    picture.text(
        f"Other kernels, on a CPU {name_errata(simulation.decision, affected=affected)}", "sub"
    )
    bars(
        picture,
        [
            Bar(
                f"{each.label}{' (this one)' if each.current else ''}",
                each.estimate.total.low_ns,
                each.estimate.total.high_ns,
                f"{format_range(each.estimate.total)}, {_does(each.clears, affected)}",
                "main" if each.current else "other",
            )
            for each in shown
        ],
    )
    picture.text("each bar is the range of the estimate", "faint")


def _does(clears: bool, affected: bool) -> str:
    if clears:
        return "clears"
    return "skips: UNSAFE" if affected else "skips"
