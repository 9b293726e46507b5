"""Two calibrations side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdxreclaim.tables.teardown import Action

if TYPE_CHECKING:
    from tdxreclaim.costs.calibration import Calibration, Provenance
    from tdxreclaim.units import Span


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What one step costs in each; ``instead`` is what a stand-in was measured on."""

    action: Action
    one: Span
    other: Span
    one_known: Provenance
    other_known: Provenance
    one_instead: str | None
    other_instead: str | None

    @property
    def ratio(self) -> float | None:
        """Likely of the other over likely of the one; None where that is 0."""
        return self.other.likely_ns / self.one.likely_ns if self.one.likely_ns else None


def compare(one: Calibration, other: Calibration, *, vcpus: int) -> tuple[Change, ...]:
    """Every step, for a TD with *vcpus*."""
    return tuple(
        Change(
            action=action,
            one=one.steps[action].at(vcpus),
            other=other.steps[action].at(vcpus),
            one_known=one.steps[action].provenance,
            other_known=other.steps[action].provenance,
            one_instead=one.steps[action].stand_in,
            other_instead=other.steps[action].stand_in,
        )
        for action in Action
    )
