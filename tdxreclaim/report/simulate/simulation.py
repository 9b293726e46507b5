"""A simulated teardown, ready to be said: the same for every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdxreclaim.costs.scene import Scene, WhatIf, identified_cpu
from tdxreclaim.engine.reuse import Hazard
from tdxreclaim.errors import ExitStatus
from tdxreclaim.report.check.report import Report
from tdxreclaim.tables.teardown import Action
from tdxreclaim.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tdxreclaim.costs.calibration import Calibration, CostCause
    from tdxreclaim.costs.simulate import Result
    from tdxreclaim.engine.shape import Shape
    from tdxreclaim.policy.model import Decision
    from tdxreclaim.units import Span


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulation:
    """What was asked, what came out, and what it rests on."""

    decision: Decision
    source: str
    scene: Scene
    shape: Shape
    result: Result
    what_ifs: tuple[WhatIf, ...]
    calibration: Calibration
    trace: int = 0

    @property
    def report(self) -> Report:
        """The decision that this rests on, as `check` would report it."""
        return Report(self.decision, self.source, "")

    @property
    def exit_status(self) -> ExitStatus:
        """20 if it ends in machine checks, in pages that are not safe, or in leaked ones."""
        clean = self.result.is_clean and not self.unsafe_pages
        return ExitStatus.NOT_REQUIRED if clean else ExitStatus.FINDINGS

    @property
    def unsafe_pages(self) -> int:
        """Pages handed over with something that harms on this platform, at least.

        Without the erratum a TD-owned line does not: any write converts it.
        """
        hazards = self.result.hazards
        harmful = [
            Hazard.STILL_THE_TDS,
            Hazard.PRIVATE_DIRTY,
            Hazard.POISON_INTEGRITY,
            Hazard.POISON_HARDWARE,
        ]
        if self.scene.platform.erratum:
            harmful.append(Hazard.TD_OWNED)
        return max(hazards.get(hazard, 0) for hazard in harmful)

    @property
    def handed_back_source(self) -> str:
        """Where it was read what the kernel does to a guest page whose removal failed."""
        row = self.scene.plan.row
        return str(row.failed_page_citation) if row is not None else ""

    @property
    def causes(self) -> Mapping[CostCause, Span]:
        """The time by each cause that is open, where the range is so wide that it matters."""
        estimate = self.result.estimate
        return estimate.causes if estimate.names_causes else {}

    @property
    def cautions(self) -> tuple[str, ...]:
        """What was assumed of this host, what does not fit it, and where it extrapolates."""
        said = [f"Assumed: {each}." for each in self.scene.assumed]
        said += [f"Warning: {each}." for each in self.warnings]
        platform = self.scene.platform
        modes = "with SEAM_NR" if platform.seam_nr else "without SEAM_NR"
        said.append(f"Assumed: a platform in {platform.mode} mode, {modes}.")
        for what, value, low, high in self.result.estimate.extrapolates:
            show = format_size if what == "memory_bytes" else str
            name = {"vcpus": "vCPUs", "memory_bytes": "of memory"}.get(what, what)
            timed = "nothing was timed"
            if low is not None and high is not None:
                timed = f"{show(low)} to {show(high)} were timed"
            said.append(f"Extrapolated: {show(value)} {name}; {timed}.")
        return tuple(said)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Where the calibration is of something else than what was asked about."""
        return self.calibration.warnings(
            cpu=identified_cpu(self.decision), kernel=self.decision.kernel.release
        )

    @property
    def caveats(self) -> tuple[str, ...]:
        """What was assumed, extrapolated and left out, the most important first."""
        estimate = self.result.estimate
        said = list(self.cautions)
        said += [f"{note[:1].upper()}{note[1:]}." for note in self.result.notes]
        said += [f"Assumed: {each}." for each in self.calibration.assumptions]
        said += [f"Left out: {each}." for each in estimate.leaves_out]
        return tuple(said)

    @property
    def clearing_ns(self) -> int:
        """Likely nanoseconds that go into clearing."""
        return self.result.estimate.action(Action.CLEAR).likely_ns
