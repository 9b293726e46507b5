"""A simulated teardown, ready to be said: the same for every format."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.engine.plan import Action
from tdxreclaim.errors import ExitStatus

if TYPE_CHECKING:
    from tdxreclaim.engine.calibration import Calibration
    from tdxreclaim.engine.question import Scene, WhatIf
    from tdxreclaim.engine.shape import Shape
    from tdxreclaim.engine.simulate import Result
    from tdxreclaim.policy.model import Decision


class Simulation(NamedTuple):
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
    def exit_status(self) -> ExitStatus:
        """20 if it ends in machine checks or leaked pages."""
        return ExitStatus.NOT_REQUIRED if self.result.is_clean else ExitStatus.FINDINGS

    @property
    def caveats(self) -> tuple[str, ...]:
        """What was assumed, extrapolated and left out, the most important first."""
        estimate = self.result.estimate
        said = [f"Assumed: {each}." for each in self.scene.assumed]
        for what, value, low, high in estimate.extrapolates:
            name = {"vcpus": "vCPUs", "memory_bytes": "bytes of memory"}[what]
            timed = "nothing was timed" if low is None else f"{low} to {high} were timed"
            said.append(f"Extrapolated: {value} {name}; {timed}.")
        said += [f"{note[:1].upper()}{note[1:]}." for note in self.result.notes]
        said += [f"Assumed: {each}." for each in self.calibration.assumptions]
        said += [f"Left out: {each}." for each in estimate.leaves_out]
        return tuple(said)

    @property
    def clearing_ns(self) -> int:
        """Likely nanoseconds that go into clearing."""
        return self.result.estimate.action(Action.CLEAR).likely_ns
