"""What a drain is reported with, whatever the format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdxreclaim.tables.kernels import DISABLES_SINCE
from tdxreclaim.tables.releases import release_series

if TYPE_CHECKING:
    from tdxreclaim.costs.calibration import Calibration
    from tdxreclaim.costs.drain import Drain, Schedule
    from tdxreclaim.costs.scene import Scene
    from tdxreclaim.policy.model import Decision


@dataclass(frozen=True, kw_only=True, slots=True)
class DrainPlan:
    """A drain, and what it rests on."""

    drain: Drain
    scene: Scene
    decision: Decision
    calibration: Calibration
    source: str
    """Where the TDs are from."""
    cpus: int | None
    bandwidth: int | None

    @property
    def schedules(self) -> tuple[tuple[str, Schedule], ...]:
        """Each rule with its name, the quickest first."""
        asked = self.drain.asked
        middle = () if asked is None else ((f"{asked.at_once} at once", asked),)
        return (("together", self.drain.together), *middle, ("one by one", self.drain.one_by_one))

    @property
    def cautions(self) -> tuple[str, ...]:
        """What the numbers do not hold."""
        demand = self.drain.together.bytes_a_second / 1e9
        alone = (
            "nobody has published shutdowns of several TDs at once: that they do not slow each "
            "other down is assumed"
        )
        said = [
            alone,
            f"together they ask {demand:.1f} GB/s of the memory ({self.drain.bytes_a_page >> 10} KiB a page)"
            + ("" if self.bandwidth else "; --bandwidth states a bound"),
        ]
        if self.cpus is None:
            said.append("a CPU for each TD is assumed; --cpus states a bound")
        if self._disables:
            said.append(
                "on this kernel a reboot with live TDs takes longer still, in TDH.SYS.DISABLE: by "
                "how much nobody has published. Stop the TDs first"
            )
        return (*said, *self.scene.assumed, *self.calibration.warnings())

    @property
    def _disables(self) -> bool:
        series = release_series(self.decision.kernel.release)
        return series is not None and series >= DISABLES_SINCE
