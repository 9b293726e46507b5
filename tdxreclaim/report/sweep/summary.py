"""What a sweep comes to, in the words that its formats share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.engine.plan import ClearWhen, Order
from tdxreclaim.sweep.kinds import OPEN, Taken, Value
from tdxreclaim.sweep.plan import Command
from tdxreclaim.sweep.tally import MemoryBins, Times
from tdxreclaim.units import Share, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.sweep.axes import Axis
    from tdxreclaim.sweep.tally import Tally
    from tdxreclaim.sweep.trials import Job

NO_PROBABILITY = "Quantiles count the trials of this plan; they are not probabilities of a host."

_CLEARS = {
    ClearWhen.ALWAYS: "clears always",
    ClearWhen.ON_ERRATUM: "clears on the erratum",
    ClearWhen.NEVER: "never clears",
}

_SPELLED = {
    "memory": "memory",
    "mapped": "mapped share",
    "vcpus": "vCPUs",
    "cpu": "CPU",
    "kernel": "kernel",
    "order": "order",
    "clear": "when it clears",
    "cause": "cause of growth",
    "cost": "calibration's range",
    "busy": "busy pages",
    "reclaim-fails": "failing pages",
    "fatal": "FATAL TDs",
    "tds": "number of TDs",
    "at-once": "TDs at once",
    "cpus": "CPUs",
    "bandwidth": "bandwidth",
}


class AtSize(NamedTuple):
    """Times of a policy at one size of memory, or in one part of its range."""

    memory_bytes: int
    times: Times


class Policy(NamedTuple):
    """What a host does, and the times of the trials in which it does so."""

    order: Order
    clearing: ClearWhen
    kernels: tuple[str, ...]
    times: Times
    sizes: tuple[AtSize, ...]

    @property
    def name(self) -> str:
        """How prose calls it."""
        first = ", HKID first" if self.order is Order.HKID_FIRST else ""
        return f"{_CLEARS[self.clearing]}{first}"


class Explained(NamedTuple):
    """How much of the spread of the times an axis explains, 0 to 1."""

    axis: Axis
    share: float

    @property
    def name(self) -> str:
        """How prose calls the axis."""
        return _SPELLED[self.axis.name]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All trials of a job."""

    job: Job
    tally: Tally
    calibration_digest: str

    @cached_property
    def times(self) -> Times:
        """Of all trials."""
        return _together(self.tally.times.values())

    @cached_property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that a trial fell on."""
        sizes = MemoryBins(self.job.plan).sizes
        found = []
        for number, (order, clearing) in enumerate(self.job.policies):
            at = {size: t for (p, size), t in sorted(self.tally.times.items()) if p == number}
            settings = self.job.settings.values()
            named = {s.kernel: None for s in settings if s.policy == (order, clearing)}
            if at:
                found.append(
                    Policy(
                        order,
                        clearing,
                        tuple(named),
                        _together(at.values()),
                        tuple(AtSize(sizes[size], times) for size, times in at.items()),
                    )
                )
        return tuple(found)

    @cached_property
    def explained(self) -> tuple[Explained, ...]:
        """The axes that are varied, the one that explains most first."""
        found = map(Explained, self.job.plan.varied, self.tally.shares())
        return tuple(sorted(found, key=lambda each: -each.share))

    @property
    def outside_share(self) -> float:
        """Which part of the trials lies outside what the calibration timed, 0 to 1."""
        return self.tally.outside / self.tally.trials

    @property
    def cautions(self) -> tuple[str, ...]:
        """What whoever reads the numbers must know."""
        said = [NO_PROBABILITY]
        plan = self.job.plan
        if Taken.DRAWN_APART in plan.values("cost"):
            said.append(
                "Costs are drawn apart for each step, which narrows the spread: nobody knows that "
                "they are independent."
            )
        if OPEN in plan.values("cause") and self.job.calibration.causes:
            said.append("Where the cause is open, a time covers all that the calibration leaves.")
        if plan.command is Command.DRAIN:
            said.append("All TDs of a drain are alike, and do not slow each other down: assumed.")
        return (*said, *(f"{each}." for each in self.job.assumed))


def _together(times: Iterable[Times]) -> Times:
    found = Times()
    for each in times:
        found.merge(each)
    return found


def show(value: Value) -> str:
    """Return a value as a plan has it."""
    if isinstance(value, Share):
        if value.size_bytes is not None:
            return format_size(value.size_bytes)
        return f"{value.thousandths / 1000:g}%"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


_SIZES = ("memory", "bandwidth")
_MOST_SHOWN = 3


def show_axis(axis: Axis) -> str:
    """Return what an axis is varied over, in a few words."""
    shown = [
        format_size(value).partition(" (")[0]
        if axis.name in _SIZES and isinstance(value, int)
        else show(value)
        for value in axis.ends()
    ]
    if axis.is_range:
        return f"{shown[0]} to {shown[-1]}"
    if len(shown) <= _MOST_SHOWN:
        return ", ".join(shown)
    return f"{len(shown)} from {shown[0]} to {shown[-1]}"


def name_axis(axis: Axis) -> str:
    """Return how prose calls an axis."""
    return _SPELLED[axis.name]
