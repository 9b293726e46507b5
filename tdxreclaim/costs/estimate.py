"""What a teardown costs: counts of steps, priced by a calibration.

``estimate`` counts the steps in closed form; ``simulate`` counts them by
doing them; ``price`` turns either into time.  The two counts agree for every
shape, plan and injection (tested), so the times agree to the nanosecond.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, assert_never

from tdxreclaim.engine.faults import NOTHING, Injections, busy_turns
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLAN_OF_ORDER, Order, Plan
from tdxreclaim.engine.shape import Shape
from tdxreclaim.tables.seamcalls import Leaf
from tdxreclaim.tables.teardown import Action, Phase
from tdxreclaim.units import ZERO, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tdxreclaim.costs.calibration import Calibration, CostCause, Extrapolation, Provenance, Row

Counts = Counter[tuple[Phase, Action]]


LEAVES_OUT = (
    "the reuse of the memory, and everything before guest_memfd is closed",
    "other TDs of the host: their teardowns share the memory's bandwidth",
    "NUMA distance, memory bandwidth and yields of the lock between pages",
    "a step that fails is priced like one that succeeds",
)
"""What no calibration covers."""


# High over low from which on each cause is named.
_NAMES_CAUSES = 1.5


class Size(Protocol):
    """What of a TD's shape its counts of steps depend on."""

    @property
    def guest_pages(self) -> int:
        """Private pages of the guest."""

    @property
    def vcpus(self) -> int:
        """Its vCPUs."""

    @property
    def control_pages(self) -> int:
        """Pages that are not the guest's."""


class Contradiction(NamedTuple):
    """What somebody reported of shutdowns that no curve through the timed ones gives."""

    least_bytes: int
    """Mapped memory that is like the TD that was reported on, from here ..."""
    most_bytes: int
    """... to here."""
    says: str


CONTRADICTIONS = (
    Contradiction(
        800 << 30,
        1800 << 30,
        "kata-containers 13564 says that the teardown of a TD of about 1.2 TiB takes minutes, with "
        "no duration measured; every curve through the timed shutdowns gives hours. Memory that "
        "the guest never accepted, 2 MiB pages in that vendor's kernel or loose words "
        "would explain it: not settled",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBill:
    """One kind of step in one phase."""

    phase: Phase
    action: Action
    count: int
    each: Span
    total: Span
    provenance: Provenance
    stand_in: str | None = None
    """What was measured in place of the step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """How long a teardown takes, and what the number rests on."""

    steps: tuple[StepBill, ...]
    """By phase (A, B, C) and action, whatever the plan's order; none with count 0."""
    causes: Mapping[CostCause, Span]
    """The total if one cause drives the costs; empty where the calibration leaves no two open."""
    mapped_bytes: int
    calibration: str
    extrapolates: tuple[Extrapolation, ...]
    """In what respects the TD lies outside what the calibration timed."""
    leaves_out: tuple[str, ...]

    @property
    def total(self) -> Span:
        """All of it."""
        return _sum(self.steps)

    def phase(self, phase: Phase) -> Span:
        """One phase."""
        return _sum(step for step in self.steps if step.phase is phase)

    def action(self, action: Action) -> Span:
        """One kind of step over all phases.

        Of CLEAR it is what skipping the clear saves.
        """
        return _sum(step for step in self.steps if step.action is action)

    @property
    def contradictions(self) -> tuple[str, ...]:
        """Reports of such shutdowns that contradict it."""
        if not self.causes or all(step.action is not Action.REMOVE for step in self.steps):
            return ()
        return tuple(
            each.says
            for each in CONTRADICTIONS
            if each.least_bytes <= self.mapped_bytes <= each.most_bytes
        )

    @property
    def ratio(self) -> float:
        """The range, high over low."""
        return self.total.high_ns / max(self.total.low_ns, 1)

    @property
    def names_causes(self) -> bool:
        """Whether the range is so wide that each cause is said with its time."""
        return bool(self.causes) and self.ratio > _NAMES_CAUSES

    @property
    def has_likely(self) -> bool:
        """Whether the range is so narrow that one time in it is worth saying."""
        return not self.total.is_wide

    @property
    def clearing_share(self) -> float:
        """Likely share of clearing in the total, 0 to 1: of *this* order, no other."""
        return self.action(Action.CLEAR).likely_ns / self.total.likely_ns


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """A published teardown beside the model's."""

    row: Row
    emulated: Span

    @property
    def published_ns(self) -> int:
        """What was published."""
        return round(self.row.seconds * 1_000_000_000)

    @property
    def error(self) -> float:
        """Likely over published, less one: 0.05 is 5 % too long."""
        return self.emulated.likely_ns / self.published_ns - 1


def prices(
    calibration: Calibration, shape: Shape, cause: CostCause | None = None
) -> dict[Action, Span]:
    """What each step costs for a TD; if *cause* alone drives the costs, where it is given."""
    return {
        action: cost.at(shape.vcpus, shape.mapped_bytes, cause=cause)
        for action, cost in calibration.steps.items()
    }


def price(counts: Mapping[tuple[Phase, Action], int], cal: Calibration, shape: Shape) -> Estimate:
    """Turn counted steps into time."""
    each = prices(cal, shape)
    phases, actions = list(Phase), list(Action)
    ordered = sorted(counts, key=lambda key: (phases.index(key[0]), actions.index(key[1])))
    return Estimate(
        steps=tuple(
            StepBill(
                phase=phase,
                action=action,
                count=counts[phase, action],
                each=each[action],
                total=each[action].times(counts[phase, action]),
                provenance=cal.steps[action].provenance,
                stand_in=cal.steps[action].stand_in,
            )
            for phase, action in ordered
            if counts[phase, action]
        ),
        causes={cause: _total(counts, prices(cal, shape, cause)) for cause in cal.causes},
        mapped_bytes=shape.mapped_bytes,
        calibration=cal.name,
        extrapolates=cal.extrapolates(vcpus=shape.vcpus, memory_bytes=shape.mapped_bytes),
        leaves_out=(*cal.leaves_out, *LEAVES_OUT),
    )


def estimate(
    shape: Shape,
    plan: Plan,
    platform: Platform,
    calibration: Calibration,
    injections: Injections = NOTHING,
) -> Estimate:
    """The time of a teardown, at once.

    Raises:
        UsageError: the injections do not fit the shape.
    """
    injections.check(shape)
    return price(step_counts(shape, plan, platform, injections), calibration, shape)


def step_counts(
    shape: Size, plan: Plan, platform: Platform, injections: Injections = NOTHING
) -> Counts:
    """How often each step is done in each phase, in closed form.

    Linear in pages, vCPUs and faults.  A page whose freeing step fails costs
    the steps up to it; a FATAL TD fails each page at its first step in the
    upstream order and none in the other.
    """
    clears = plan.clearing.clears(erratum=platform.erratum)
    pages = shape.guest_pages
    counts, freed = _guest_pages(plan.order, pages, injections)
    hkid = {Action.VP_FLUSH: shape.vcpus, Action.CACHE_WB: 1}
    for action in (Action.VP_FLUSH, Action.VPFLUSHDONE, Action.CACHE_WB, Action.FREEID):
        counts[Phase.HKID, action] = hkid.get(action, 1)
    # The TDR goes last, and only if no page leaked: it is the owner of them all.
    tdr = freed == pages
    counts[Phase.CONTROL_PAGES, Action.RECLAIM] = shape.control_pages
    counts[Phase.CONTROL_PAGES, Action.WBINVD] = int(tdr)
    if clears:
        counts[Phase.GUEST_PAGES, Action.CLEAR] = freed
        counts[Phase.CONTROL_PAGES, Action.CLEAR] = shape.control_pages - (not tdr)
    return counts


def _guest_pages(order: Order, pages: int, injections: Injections) -> tuple[Counts, int]:
    """Phase A without clears, and how many pages it frees."""
    match order:
        case Order.UPSTREAM:
            return _removed(pages, injections)
        case Order.HKID_FIRST:
            # TDX_OPERAND_BUSY cannot happen: nobody else is left to hold a lock.
            counts = Counter({(Phase.GUEST_PAGES, Action.RECLAIM): pages})
            return counts, pages - injections.reclaim_fails
        case _:
            assert_never(order)


def _removed(pages: int, injections: Injections) -> tuple[Counts, int]:
    """Phase A in the upstream order."""
    phase = Phase.GUEST_PAGES
    busy = busy_turns(injections.busy)
    if injections.fatal:
        retries = busy[Leaf.TDH_MEM_RANGE_BLOCK]
        return Counter({(phase, Action.BLOCK): pages + retries, (phase, Action.KICK): retries}), 0
    freed = pages - injections.reclaim_fails
    counts = Counter(
        {
            (phase, Action.BLOCK): pages + busy[Leaf.TDH_MEM_RANGE_BLOCK],
            (phase, Action.TRACK): pages + busy[Leaf.TDH_MEM_TRACK],
            (phase, Action.KICK): pages + injections.busy,
            (phase, Action.REMOVE): pages + busy[Leaf.TDH_MEM_PAGE_REMOVE],
            (phase, Action.WBINVD): freed,
        }
    )
    return counts, freed


def degrees_of_freedom(calibration: Calibration) -> int | None:
    """Rows less the numbers that were fitted to them; None: not stated how many those are."""
    if calibration.fitted is None:
        return None
    return max(0, len(calibration.rows) - calibration.fitted)


def validate(calibration: Calibration) -> tuple[Validation, ...]:
    """Each whole teardown that the calibration knows, beside the model's."""
    return tuple(
        Validation(
            row=row,
            emulated=estimate(
                Shape(memory_bytes=row.memory_bytes, vcpus=row.vcpus),
                PLAN_OF_ORDER[row.order].with_clearing(row.clearing),
                # Whether a row's CPU has the erratum only matters to a plan that asks.
                Platform(erratum=False),
                calibration,
            ).total,
        )
        for row in calibration.rows
    )


def _total(counts: Mapping[tuple[Phase, Action], int], each: Mapping[Action, Span]) -> Span:
    total = ZERO
    for (_, action), count in counts.items():
        total = total.plus(each[action].times(count))
    return total


def _sum(steps: Iterable[StepBill]) -> Span:
    total = ZERO
    for step in steps:
        total = total.plus(step.total)
    return total
