"""Calibrations: what each step costs, with where the number comes from.

A calibration is a TOML text; ``load`` reads one and names the bad field when
it cannot.  The caller opens the file; the shipped ones are
``calibrations/NAME.toml`` beside this module.

Format (``schema = "tdxreclaim.calibration/1"``)::

    [record]   name, host, kernel, date, origin; cpu if it is known;
               assumptions, leaves_out (lists)
    [steps.X]  for each step X: provenance, source, and either
               low_ns, likely_ns, high_ns, or beyond and points; of a step that
               was measured on something else stand_in, of a merged one
               taken_from
    [[steps.X.points]]  vcpus, low_ns, likely_ns, high_ns; ascending vcpus
    [[sources]]  of a merged calibration: name, host, kernel, date, origin, cpu
    [[rows]]   what was published or measured of whole teardowns:
               order, clearing, vcpus, memory_bytes, seconds, source

Times are integer nanoseconds, low <= likely <= high.  ``beyond`` says what
happens outside the points: ``hold`` keeps the nearest one, ``rise`` takes the
cost to grow with vCPUs (see ``StepCost.at``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.tables.kernels import release_series
from tdxreclaim.units import Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tdxreclaim.engine.plan import Clearing, Order
    from tdxreclaim.tables.teardown import Action


SCHEMA = "tdxreclaim.calibration/1"


_ENDLESS = 1e15


SHIPPED = ("published",)
"""Names of the calibrations in the package."""


class Provenance(StrEnum):
    """Where a number comes from."""

    MEASURED = "measured"
    PUBLISHED = "published"
    DERIVED = "derived"
    """Arithmetic on published or measured numbers."""
    ASSUMED = "assumed"


class Beyond(StrEnum):
    """What a cost does outside its points."""

    HOLD = "hold"
    RISE = "rise"


class Point(NamedTuple):
    """A cost at one number of vCPUs."""

    vcpus: int
    cost: Span


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCost:
    """What one step costs, by the TD's number of vCPUs."""

    points: tuple[Point, ...]
    """One point where the number of vCPUs does not matter."""
    beyond: Beyond
    provenance: Provenance
    source: str
    stand_in: str | None = None
    """What was measured in place of the step; None: the step itself."""
    taken_from: str | None = None
    """Which of the calibration's ``sources`` it is of; None: of the calibration itself."""

    def at(self, vcpus: int) -> Span:
        """The cost at *vcpus*.

        At a point, the point's.  Between two points the likely cost is on the
        straight line between them, and all that a monotone cost could be is in
        range: low to high of both.  Outside, HOLD keeps the nearest point;
        RISE keeps likely and high below the first point and lets low fall to
        0, and past the last point continues the last line as likely, with no
        growth as low and growth twice as steep as high.
        """
        first, last = self.points[0], self.points[-1]
        if vcpus <= first.vcpus:
            rises = vcpus < first.vcpus and self.beyond is Beyond.RISE
            return first.cost._replace(low_ns=0) if rises else first.cost
        if vcpus >= last.vcpus:
            if vcpus == last.vcpus or self.beyond is Beyond.HOLD or len(self.points) == 1:
                return last.cost
            before = self.points[-2]
            slope = max(0, last.cost.likely_ns - before.cost.likely_ns)
            growth = slope * (vcpus - last.vcpus) // (last.vcpus - before.vcpus)
            low, likely, high = last.cost
            return Span(low, likely + growth, high + 2 * growth)
        left, right = next(
            pair for pair in pairwise(self.points) if pair[0].vcpus <= vcpus < pair[1].vcpus
        )
        if vcpus == left.vcpus:
            return left.cost
        rise = right.cost.likely_ns - left.cost.likely_ns
        return Span(
            min(left.cost.low_ns, right.cost.low_ns),
            left.cost.likely_ns + rise * (vcpus - left.vcpus) // (right.vcpus - left.vcpus),
            max(left.cost.high_ns, right.cost.high_ns),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A whole teardown that somebody timed."""

    order: Order
    clearing: Clearing
    vcpus: int
    memory_bytes: int
    seconds: float
    """Written as it was read: 72, not 72.0."""
    source: str


class Origin(NamedTuple):
    """Where and when numbers were taken."""

    name: str
    host: str
    kernel: str
    date: str
    origin: str
    cpu: str | None
    """``GenuineIntel 6/0x8f``; None: not stated."""


class Extrapolation(NamedTuple):
    """A respect in which a TD lies outside what a calibration timed."""

    what: str
    """``vcpus`` or ``memory_bytes``."""
    value: int
    timed_from: int | None
    """None: no whole teardown was timed."""
    timed_to: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Step costs and where they come from."""

    name: str
    host: str
    kernel: str
    date: str
    origin: str
    """The command that measured it, or the publication."""
    assumptions: tuple[str, ...]
    leaves_out: tuple[str, ...]
    steps: Mapping[Action, StepCost]
    rows: tuple[Row, ...]
    cpu: str | None = None
    """The CPU as ``GenuineIntel 6/0x8f``; None: not stated."""
    sources: tuple[Origin, ...] = ()
    """The calibrations that it was merged from; empty: it was not merged."""

    @property
    def itself(self) -> Origin:
        """Its own record."""
        return Origin(self.name, self.host, self.kernel, self.date, self.origin, self.cpu)

    @property
    def stand_ins(self) -> dict[Action, str]:
        """The steps that were measured on something else, and on what."""
        return {
            action: cost.stand_in
            for action, cost in self.steps.items()
            if cost.stand_in is not None
        }

    def premises(self, *, cpu: str | None = None, kernel: str | None = None) -> tuple[str, ...]:
        """What whoever reads a time made with it must know: stand-ins and `strangers`."""
        said = (
            f"{action.label} is a stand-in, not the step itself: {what}"
            for action, what in self.stand_ins.items()
        )
        return (*said, *self.strangers(cpu=cpu, kernel=kernel))

    def strangers(self, *, cpu: str | None, kernel: str | None) -> tuple[str, ...]:
        """In what it is of another CPU or kernel than the ones asked about.

        A CPU or kernel that is not known, here or there, is no other one.
        """
        said = []
        for each in self.sources or (self.itself,):
            if cpu is not None and each.cpu is not None and each.cpu != cpu:
                said.append(f"calibration {each.name} is of CPU {each.cpu}, not of {cpu}")
            ours, theirs = release_series(kernel), release_series(each.kernel)
            if ours is not None and theirs is not None and ours != theirs:
                said.append(f"calibration {each.name} is of kernel {each.kernel}, not of {kernel}")
        return tuple(said)

    def extrapolates(self, *, vcpus: int, memory_bytes: int) -> tuple[Extrapolation, ...]:
        """In what respects a TD lies outside what was timed; empty if in none."""
        asked = {"vcpus": vcpus, "memory_bytes": memory_bytes}
        timed = {
            "vcpus": [row.vcpus for row in self.rows],
            "memory_bytes": [row.memory_bytes for row in self.rows],
        }
        return tuple(
            Extrapolation(
                what, value, min(timed[what], default=None), max(timed[what], default=None)
            )
            for what, value in asked.items()
            if not timed[what] or not min(timed[what]) <= value <= max(timed[what])
        )
