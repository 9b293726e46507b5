"""What a sweep comes to, in the words that its formats share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import exp2
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.costs.estimate import CONTRADICTIONS
from tdxreclaim.engine.plan import ClearWhen, Order
from tdxreclaim.sweep.kinds import OPEN, Taken, Value
from tdxreclaim.sweep.plan import Command
from tdxreclaim.sweep.tally import STEP_BITS, MemoryBins, Times
from tdxreclaim.units import Share, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tdxreclaim.sweep.axes import Axis
    from tdxreclaim.sweep.tally import Tally
    from tdxreclaim.sweep.trials import Job

NO_PROBABILITY = "Quantiles count the trials of this plan; they are not probabilities of a host."

_WHEN = {
    ClearWhen.ALWAYS: "always",
    ClearWhen.ON_ERRATUM: "on the erratum",
    ClearWhen.NEVER: "never",
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What a host does, and the times of the trials in which it does so."""

    order: Order
    clearing: ClearWhen
    kernels: tuple[str, ...]
    unsafe_on: tuple[str, ...]
    """CPUs that need the clearing which it leaves out."""
    times: Times
    sizes: tuple[AtSize, ...]

    @property
    def clears(self) -> str:
        """When it clears, in a word or two."""
        first = ", HKID first" if self.order is Order.HKID_FIRST else ""
        return f"{_WHEN[self.clearing]}{first}{': UNSAFE' if self.unsafe_on else ''}"

    @property
    def name(self) -> str:
        """What prose calls it."""
        first = ", HKID first (in no release)" if self.order is Order.HKID_FIRST else ""
        unsafe = f": UNSAFE on {', '.join(self.unsafe_on)}" if self.unsafe_on else ""
        clears = (
            "never clears" if self.clearing is ClearWhen.NEVER else f"clears {_WHEN[self.clearing]}"
        )
        return f"{clears}{first}{unsafe}"


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
            settings = [s for s in self.job.settings.values() if s.policy == (order, clearing)]
            if at:
                found.append(
                    Policy(
                        order=order,
                        clearing=clearing,
                        kernels=tuple(dict.fromkeys(s.kernel for s in settings)),
                        unsafe_on=tuple(dict.fromkeys(s.cpu for s in settings if s.unsafe)),
                        times=_together(at.values()),
                        sizes=tuple(AtSize(sizes[size], times) for size, times in at.items()),
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
    def own_range(self) -> float:
        """How many times its low the high end of a trial is, in the geometric mean."""
        return exp2(self.tally.width / self.tally.trials / (1 << STEP_BITS))

    @property
    def cautions(self) -> tuple[str, ...]:
        """What whoever reads the numbers must know."""
        plan = self.job.plan
        said = []
        if unsafe := {cpu: None for policy in self.policies for cpu in policy.unsafe_on}:
            said.append(
                f"Not clearing is UNSAFE on {', '.join(unsafe)}: it has tdx_pw_mce, and its pages "
                "raise machine checks when they are used again."
            )
        said.append(NO_PROBABILITY)
        if Taken.DRAWN_APART in plan.values("cost"):
            said.append(
                "Costs are drawn apart for each step, which narrows the spread: that they are "
                "independent is assumed."
            )
        if OPEN in plan.values("cause") and self.job.calibration.causes:
            said.append(
                "Which cause drives the costs is left open: a time covers every one of them."
            )
        if any(policy.order is Order.HKID_FIRST for policy in self.policies):
            said.append("HKID first is the order of no release.")
        if plan.command is Command.DRAIN:
            said.append("All TDs of a drain are alike, and do not slow each other down: assumed.")
        assumed = (f"{each[0].upper()}{each[1:]}." for each in self.job.assumed)
        return (*said, *assumed, *(f"{each}." for each in self._contradictions()))

    def _contradictions(self) -> Iterator[str]:
        """Reports of shutdowns that contradict what the calibration says of TDs like these."""
        plan = self.job.plan
        orders = {policy.order for policy in self.policies}
        if not self.job.calibration.causes or Order.UPSTREAM not in orders:
            return
        shares = [share for share in plan.values("mapped") if isinstance(share, Share)]
        sizes = [share.of(memory) for share in shares for memory in plan.numbers("memory")]
        for each in CONTRADICTIONS:
            if max(sizes) >= each.least_bytes and min(sizes) <= each.most_bytes:
                yield each.says


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
_MOST_SHOWN = 4


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
    return f"{shown[0]} to {shown[-1]} ({len(shown)} values)"


def name_axis(axis: Axis) -> str:
    """Return how prose calls an axis."""
    return _SPELLED[axis.name]
