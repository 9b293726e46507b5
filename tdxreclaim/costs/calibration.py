"""Calibrations: what each step costs, with where the number comes from.

A calibration is a TOML text; ``load`` reads one and names the bad field when
it cannot.  The caller opens the file; the shipped ones are
``calibrations/NAME.toml`` beside this module.

Format (``schema = "tdxreclaim.calibration/1"``)::

    [record]   name, host, kernel, date, origin; cpu if it is known;
               assumptions, leaves_out (lists); fitted, how many numbers were
               fitted to the rows, if it is known
    [steps.X]  for each step X: provenance, source, and either
               low_ns, likely_ns, high_ns, or beyond, grows_with and points;
               of a step that was measured on something else stand_in, of a
               merged one taken_from
    [[steps.X.points]]  low_ns, likely_ns, high_ns at vcpus, at memory_bytes,
               or at both; ascending
    [[sources]]  of a merged calibration: name, host, kernel, date, origin, cpu
    [[rows]]   what was published or measured of whole teardowns:
               order, clearing, vcpus, memory_bytes, seconds, source

Times are integer nanoseconds, low <= likely <= high.  ``grows_with`` lists the
causes that may drive the cost (vcpus, memory); of several nobody knows which
one does, and a cost covers them all.  ``beyond`` says what happens past the
last point: ``hold`` keeps it, ``rise`` may go on as between the last two.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from tdxreclaim.tables.releases import release_series
from tdxreclaim.units import Span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tdxreclaim.engine.plan import ClearWhen, Order
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


class CostCause(StrEnum):
    """What a cost may grow with."""

    NOTHING = "nothing"
    VCPUS = "vcpus"
    MEMORY = "memory"

    @property
    def label(self) -> str:
        """How prose spells it."""
        return "vCPUs" if self is CostCause.VCPUS else self.value


class Beyond(StrEnum):
    """What a cost does past its last point."""

    HOLD = "hold"
    RISE = "rise"


class CostPoint(NamedTuple):
    """A cost at a number of vCPUs, at a size of memory, or at both."""

    vcpus: int | None
    cost: Span
    memory_bytes: int | None = None

    def amount(self, cause: CostCause) -> int | None:
        """How much there was of *cause*; None: the point tells nothing of it."""
        return self.memory_bytes if cause is CostCause.MEMORY else self.vcpus


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCost:
    """What one step costs, by what it may grow with."""

    points: tuple[CostPoint, ...]
    """One point where nothing matters."""
    beyond: Beyond
    grows_with: tuple[CostCause, ...] = (CostCause.VCPUS,)
    """Causes that are not excluded; none is NOTHING."""
    provenance: Provenance
    source: str
    stand_in: str | None = None
    """What was measured in place of the step; None: the step itself."""
    taken_from: str | None = None
    """Which of the calibration's ``sources`` it is of; None: of the calibration itself."""

    @property
    def is_plain(self) -> bool:
        """Whether it is one cost, whatever the TD."""
        return self.points == (CostPoint(1, self.points[0].cost),) and self.beyond is Beyond.HOLD

    def at(
        self, vcpus: int, memory_bytes: int | None = None, *, cause: CostCause | None = None
    ) -> Span:
        """The cost of a TD: the envelope over every curve that its causes leave possible.

        Each cause has the curve through its points, straight between them, the
        nearest point's cost outside; past the last one RISE has a second curve
        that goes on.  Likely is the middle between the lowest and the highest
        likely.  *cause*, if it is one of the step's, is taken as the one; where
        *memory_bytes* is not known, a cost that may grow with it covers all of
        its points.
        """
        causes = (cause,) if cause in self.grows_with else self.grows_with
        if len(self.points) == 1 or not causes:
            return self.points[0].cost
        amounts = {CostCause.VCPUS: vcpus, CostCause.MEMORY: memory_bytes}
        return envelope([span for each in causes for span in self._curves(each, amounts[each])])

    def _curves(self, cause: CostCause, amount: int | None) -> list[Span]:
        curve = self.curve(cause)
        if amount is None:
            return [span for _, span in curve]
        first, last = curve[0], curve[-1]
        if amount <= first[0]:
            return [first[1]]
        if amount > last[0]:
            goes_on = self.beyond is Beyond.RISE and len(curve) > 1
            return [last[1], _rising(curve[-2], last, amount)] if goes_on else [last[1]]
        left, right = next(pair for pair in pairwise(curve) if pair[0][0] < amount <= pair[1][0])
        return [_between(left, right, amount)]

    def curve(self, cause: CostCause) -> list[tuple[int, Span]]:
        """The cost by the amount of a cause, ascending; several points at one amount are one."""
        found: dict[int, list[Span]] = {}
        for point in self.points:
            amount = point.amount(cause)
            if amount is not None:
                found.setdefault(amount, []).append(point.cost)
        return [(amount, envelope(spans)) for amount, spans in sorted(found.items())]


def envelope(spans: Sequence[Span]) -> Span:
    """The span that covers all of *spans*, likely in the middle of their likelies."""
    likely = [span.likely_ns for span in spans]
    return Span(
        min(span.low_ns for span in spans),
        (min(likely) + max(likely)) // 2,
        max(span.high_ns for span in spans),
    )


def _between(left: tuple[int, Span], right: tuple[int, Span], amount: int) -> Span:
    """The cost on the straight line through two points."""
    part, whole = amount - left[0], right[0] - left[0]
    return Span(*(a + (b - a) * part // whole for a, b in zip(left[1], right[1], strict=True)))


def _rising(before: tuple[int, Span], last: tuple[int, Span], amount: int) -> Span:
    """The cost where the last line goes on; one that falls does not."""
    part, whole = amount - last[0], last[0] - before[0]
    return Span(
        *(b + max(0, b - a) * part // whole for a, b in zip(before[1], last[1], strict=True))
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A whole teardown that somebody timed."""

    order: Order
    clearing: ClearWhen
    vcpus: int
    memory_bytes: int
    seconds: float
    """Written as it was read: 72, not 72.0."""
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HostRecord:
    """Where and when numbers were taken."""

    name: str
    host: str
    kernel: str
    date: str
    origin: str
    cpu: str | None = None
    """``GenuineIntel 6/0x8f``; None: not stated."""

    def fields(self) -> dict[str, Any]:
        """Return all of it by name, in order."""
        return asdict(self)


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
    fitted: int | None = None
    """How many numbers were fitted to the rows; None: not stated."""
    sources: tuple[HostRecord, ...] = ()
    """The calibrations that it was merged from; empty: it was not merged."""

    @property
    def itself(self) -> HostRecord:
        """Its own record."""
        return HostRecord(
            name=self.name,
            host=self.host,
            kernel=self.kernel,
            date=self.date,
            origin=self.origin,
            cpu=self.cpu,
        )

    @property
    def causes(self) -> tuple[CostCause, ...]:
        """What its costs may grow with, where it leaves several open; else empty."""
        found = {each for cost in self.steps.values() for each in cost.grows_with}
        several = len(self.steps) and any(len(cost.grows_with) > 1 for cost in self.steps.values())
        return tuple(each for each in CostCause if each in found) if several else ()

    @property
    def stand_ins(self) -> dict[Action, str]:
        """The steps that were measured on something else, and on what."""
        return {
            action: cost.stand_in
            for action, cost in self.steps.items()
            if cost.stand_in is not None
        }

    def warnings(self, *, cpu: str | None = None, kernel: str | None = None) -> tuple[str, ...]:
        """What whoever reads a time made with it must know: stand-ins and `mismatches`."""
        said = (
            f"{action.label} is a stand-in, not the step itself: {what}"
            for action, what in self.stand_ins.items()
        )
        return (*said, *self.mismatches(cpu=cpu, kernel=kernel))

    def mismatches(self, *, cpu: str | None, kernel: str | None) -> tuple[str, ...]:
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
