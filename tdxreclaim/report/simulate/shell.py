"""A simulated teardown as shell assignments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report import shell
from tdxreclaim.report.simulate.text import headline

if TYPE_CHECKING:
    from tdxreclaim.report.simulate.simulation import Simulation


def render(simulation: Simulation) -> str:
    """Return the simulation as assignments to ``TDXRECLAIM_*``; times in nanoseconds."""
    result, scene = simulation.result, simulation.scene
    total = result.estimate.total
    return shell.render_simulation(
        {
            "EXIT_STATUS": str(int(simulation.exit_status)),
            "SUMMARY": headline(simulation),
            "LOW_NS": str(total.low_ns),
            "LIKELY_NS": str(total.likely_ns),
            "HIGH_NS": str(total.high_ns),
            "CLEARING_NS": str(simulation.clearing_ns),
            "PLAN": scene.plan.name,
            "ORDER": scene.plan.order,
            "AFFECTED": str(int(scene.platform.erratum)),
            "CLEARS": str(int(result.clears)),
            "PAGES_LEAKED": str(result.pages_leaked),
            "PAGES_HANDED_BACK": str(result.pages_handed_back),
            "MACHINE_CHECKS": str(result.machine_check_count),
            "CALIBRATION": simulation.calibration.name,
        }
    )
