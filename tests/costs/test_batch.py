"""The closed form for many TDs against the one for each: to the nanosecond."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tdxreclaim.costs.batch import SHARE_BITS, Batch, Pricer
from tdxreclaim.costs.calibration import (
    Beyond,
    Calibration,
    CostCause,
    CostPoint,
    Provenance,
    StepCost,
)
from tdxreclaim.costs.estimate import estimate, prices
from tdxreclaim.costs.shipped import read_calibration
from tdxreclaim.engine.faults import Injections
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLANS, ClearWhen, Plan
from tdxreclaim.engine.shape import Shape
from tdxreclaim.tables.teardown import Action, Phase
from tdxreclaim.units import Span

PUBLISHED = read_calibration("published")
CAUSES = (CostCause.VCPUS, CostCause.MEMORY)

spans = st.lists(st.integers(0, 10**6), min_size=3, max_size=3).map(lambda ns: Span(*sorted(ns)))
amounts = st.integers(1, 40)
points = st.lists(
    st.builds(
        lambda vcpus, pages, cost: CostPoint(vcpus, cost, pages and pages * 4096),
        st.none() | amounts,
        st.none() | amounts,
        spans,
    ).filter(lambda point: point.vcpus is not None or point.memory_bytes is not None),
    min_size=1,
    max_size=5,
)


@st.composite
def step_costs(draw: st.DrawFn) -> StepCost:
    found = draw(points)
    able = [cause for cause in CAUSES if any(p.amount(cause) is not None for p in found)]
    return StepCost(
        points=tuple(found),
        beyond=draw(st.sampled_from(Beyond)),
        grows_with=tuple(draw(st.lists(st.sampled_from(able), unique=True))),
        provenance=Provenance.ASSUMED,
        source="a test",
    )


calibrations = st.just(PUBLISHED) | st.fixed_dictionaries(
    {action: step_costs() for action in Action}
).map(lambda steps: replace(PUBLISHED, steps=steps))
sizes = st.tuples(st.integers(8, 60) | st.integers(8, 1 << 30), st.integers(1, 60))
plans = st.builds(
    lambda name, clearing: PLANS[name].with_clearing(clearing),
    st.sampled_from(sorted(PLANS)),
    st.sampled_from(ClearWhen),
)
platforms = st.builds(Platform, erratum=st.booleans())
injections = st.builds(
    Injections, busy=st.integers(0, 4), reclaim_fails=st.integers(0, 4), fatal=st.booleans()
)


@given(st.lists(sizes, min_size=1, max_size=4), plans, platforms, calibrations, injections)
@settings(max_examples=150)
def test_a_batch_says_what_estimate_says_of_each(
    tds: list[tuple[int, int]],
    plan: Plan,
    platform: Platform,
    calibration: Calibration,
    faults: Injections,
) -> None:
    batch = Batch(plan, platform, Pricer(calibration), faults)
    by_cause = {
        cause: Batch(plan, platform, Pricer(calibration, cause), faults)
        for cause in calibration.causes
    }
    for pages, vcpus in tds:
        shape = Shape(memory_bytes=pages * 4096, vcpus=vcpus)
        alone = estimate(shape, plan, platform, calibration, faults)
        costs = batch.at(shape.memory_bytes, vcpus)

        assert costs.total == alone.total
        assert costs.clear == alone.action(Action.CLEAR)
        phases = (Phase.GUEST_PAGES, Phase.HKID, Phase.CONTROL_PAGES)
        assert costs.phases == tuple(map(alone.phase, phases))
        for cause, one in by_cause.items():
            assert one.at(shape.memory_bytes, vcpus).total == alone.causes[cause]


def test_totals_of_many() -> None:
    plan, platform = PLANS["6.18"], Platform(erratum=True)
    batch = Batch(plan, platform, Pricer(PUBLISHED))
    # More kinds of vCPUs than are kept.
    tds = [(pages * 4096, vcpus) for pages in (1 << 20, 1 << 22) for vcpus in range(1, 4097)]
    found = list(batch.totals([*tds, (1 << 30, 3)]))

    for (memory, vcpus), span in list(zip([*tds, (1 << 30, 3)], found, strict=True))[::501]:
        shape = Shape(memory_bytes=memory, vcpus=vcpus)
        assert span == estimate(shape, plan, platform, PUBLISHED).total


@given(st.lists(st.integers(0, (1 << SHARE_BITS) - 1), min_size=len(Action), max_size=len(Action)))
def test_a_drawn_cost_is_within_its_range(shares: list[int]) -> None:
    pricer = Pricer(PUBLISHED)
    batch = Batch(PLANS["6.16"], Platform(erratum=False), pricer)
    whole = batch.at(107 << 30, 32)
    drawn = batch.at(107 << 30, 32, shares).total

    assert whole.total.low_ns <= drawn.low_ns == drawn.likely_ns == drawn.high_ns
    assert drawn.high_ns <= whole.total.high_ns
    lowest = batch.at(107 << 30, 32, [0] * len(Action))
    assert lowest.total.likely_ns == whole.total.low_ns


def test_the_order_of_the_prices_is_that_of_the_actions() -> None:
    pricer = Pricer(PUBLISHED)
    each = prices(PUBLISHED, Shape(memory_bytes=107 << 30, vcpus=20))
    low, likely, high = pricer.at(20, 107 << 30)

    assert [*map(Span, low, likely, high)] == [each[action] for action in pricer.actions]
