"""Time: the published totals, the closed form, the calibration's reader."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tdxreclaim.costs.calibration
from tdxreclaim.costs.calibration import Beyond, CostCause, CostPoint, Provenance, StepCost
from tdxreclaim.costs.estimate import degrees_of_freedom, estimate, step_counts, validate
from tdxreclaim.costs.simulate import simulate
from tdxreclaim.costs.toml import load
from tdxreclaim.engine.faults import Injections
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLANS, ClearWhen, Order
from tdxreclaim.engine.shape import Shape
from tdxreclaim.errors import MalformedInputError, UsageError
from tdxreclaim.tables.teardown import Action, Phase
from tdxreclaim.units import Span

ENGINE = Path(tdxreclaim.costs.calibration.__file__).parent
TEXT = (ENGINE / "calibrations" / "published.toml").read_text(encoding="utf-8")
PUBLISHED = load(TEXT, "published")

# (vCPUs, GiB, upstream seconds, hkid-first seconds), as in the RFC and V2 to V4.
ROWS = [(4, 18, 72, 24), (32, 107, 517, 134), (64, 400, 5539, 467)]


@pytest.mark.parametrize(("vcpus", "gib", "upstream", "first"), ROWS)
def test_published_totals_come_out(vcpus: int, gib: int, upstream: int, first: int) -> None:
    shape = Shape(memory_bytes=gib << 30, vcpus=vcpus)
    for name, seconds in (("6.16", upstream), ("hkid-first", first)):
        total = estimate(shape, PLANS[name], Platform(erratum=False), PUBLISHED).total
        assert total.likely_ns == pytest.approx(seconds * 1e9, rel=0.01)
        assert total.low_ns <= seconds * 1e9 <= total.high_ns


def test_validation_lists_all_six_rows() -> None:
    found = {(v.row.vcpus, v.row.order, v.row.seconds) for v in validate(PUBLISHED)}

    assert found == {(n, Order.UPSTREAM, slow) for n, _, slow, _ in ROWS} | {
        (n, Order.HKID_FIRST, fast) for n, _, _, fast in ROWS
    }
    assert all(abs(v.error) < 0.05 for v in validate(PUBLISHED))


@pytest.mark.parametrize(("vcpus", "gib"), [row[:2] for row in ROWS])
def test_clearing_is_a_small_part_of_upstream_and_about_40_percent_of_hkid_first(
    vcpus: int, gib: int
) -> None:
    shape = Shape(memory_bytes=gib << 30, vcpus=vcpus)
    share = {
        name: estimate(shape, PLANS[name], Platform(erratum=True), PUBLISHED).clearing_share
        for name in PLANS
    }

    for name in ("6.16", "6.18", "7.2"):
        assert 0.03 < share[name] < 0.135
    assert 0.36 < share["hkid-first"] < 0.44


def test_a_cleared_page_takes_1_8_to_2_us_and_nobody_measured_it() -> None:
    clear = PUBLISHED.steps[Action.CLEAR]

    assert clear.at(1) == Span(1800, 1900, 2000)
    assert clear.provenance is Provenance.DERIVED
    assert "inferred" in clear.source
    assert any("GiB" in each for each in PUBLISHED.assumptions)


RISING = (CostPoint(10, Span(90, 100, 110)), CostPoint(20, Span(180, 200, 220)))


def cost(points: tuple[CostPoint, ...], beyond: Beyond, *causes: CostCause) -> StepCost:
    return StepCost(
        points=points,
        beyond=beyond,
        grows_with=causes or (CostCause.VCPUS,),
        provenance=Provenance.ASSUMED,
        source="a test",
    )


def test_a_cost_between_and_beyond_its_points() -> None:
    rise, hold = cost(RISING, Beyond.RISE), cost(RISING, Beyond.HOLD)

    for each in (rise, hold):
        assert each.at(10) == each.at(1) == Span(90, 100, 110)
        assert each.at(20) == Span(180, 200, 220)
        assert each.at(15) == Span(135, 150, 165)
    assert hold.at(25) == Span(180, 200, 220)
    assert rise.at(25) == Span(180, 225, 275), "it stays, or goes on as before"


def test_a_cost_that_falls_does_not_go_on_falling() -> None:
    falling = (CostPoint(10, Span(180, 200, 220)), CostPoint(20, Span(90, 100, 110)))

    assert cost(falling, Beyond.RISE).at(99) == Span(90, 100, 110)


def test_a_cost_covers_every_cause_that_is_open() -> None:
    points = (
        CostPoint(10, Span(90, 100, 110), 4 << 30),
        CostPoint(20, Span(180, 200, 220), 8 << 30),
    )
    both = cost(points, Beyond.HOLD, CostCause.VCPUS, CostCause.MEMORY)

    assert both.at(10, 8 << 30) == Span(90, 150, 220)
    assert both.at(10, 8 << 30, cause=CostCause.VCPUS) == Span(90, 100, 110)
    assert both.at(10, 8 << 30, cause=CostCause.MEMORY) == Span(180, 200, 220)
    assert both.at(10) == Span(90, 150, 220), "the memory is not known"
    settled = cost(points, Beyond.HOLD, CostCause.MEMORY)
    assert settled.at(10, 8 << 30, cause=CostCause.VCPUS) == Span(180, 200, 220)


def test_points_of_different_causes_stand_side_by_side() -> None:
    points = (
        CostPoint(None, Span(50, 50, 50), 4 << 30),
        CostPoint(None, Span(70, 70, 70), 8 << 30),
        CostPoint(10, Span(90, 100, 110)),
        CostPoint(20, Span(180, 200, 220)),
    )
    both = cost(points, Beyond.HOLD, CostCause.VCPUS, CostCause.MEMORY)

    assert both.at(15, 6 << 30, cause=CostCause.VCPUS) == Span(135, 150, 165)
    assert both.at(15, 6 << 30, cause=CostCause.MEMORY) == Span(60, 60, 60)


# GiB and vCPUs; then what the curves through the published rows give: by vCPUs
# flat and rising, by memory flat and rising, in seconds.
ENVELOPES = [
    (2, 1, 8.0, 8.0, 8.0, 8.0),
    (16, 248, 221, 1051, 64, 64),
    (64, 8, 264, 264, 284, 284),
    (128, 32, 617, 617, 700, 700),
    (256, 64, 3545, 3545, 2412, 2412),
    (400, 64, 5539, 5539, 5539, 5539),
    (1024, 4, 4107, 4107, 14180, 33830),
    (1024, 8, 4225, 4225, 14180, 33830),
    (1024, 64, 14180, 14180, 14180, 33830),
    (1228.8, 96, 17016, 28090, 17016, 48340),
    (2048, 512, 28360, 286900, 28360, 132150),
]


@pytest.mark.parametrize(
    ("gib", "vcpus", "curves"), [(row[0], int(row[1]), row[2:]) for row in ENVELOPES]
)
def test_an_estimate_is_the_envelope_over_the_causes(
    gib: float, vcpus: int, curves: tuple[float, ...]
) -> None:
    shape = Shape(memory_bytes=int(gib * 2**18) * 4096, vcpus=vcpus)
    done = estimate(shape, PLANS["6.16"], Platform(erratum=False), PUBLISHED)

    assert done.total.low_ns == pytest.approx(min(curves) * 0.97e9, rel=0.01)
    assert done.total.high_ns == pytest.approx(max(curves) * 1.10e9, rel=0.01)
    by_vcpus, by_memory = done.causes[CostCause.VCPUS], done.causes[CostCause.MEMORY]
    assert by_vcpus.low_ns == pytest.approx(min(curves[:2]) * 0.97e9, rel=0.01)
    assert by_vcpus.high_ns == pytest.approx(max(curves[:2]) * 1.10e9, rel=0.01)
    assert by_memory.low_ns == pytest.approx(min(curves[2:]) * 0.97e9, rel=0.01)
    assert by_memory.high_ns == pytest.approx(max(curves[2:]) * 1.10e9, rel=0.01)
    assert done.names_causes == (done.ratio > 1.5)
    assert done.has_likely == (done.ratio <= 3)


def test_time_goes_by_what_is_mapped() -> None:
    part = Shape(memory_bytes=1 << 40, vcpus=8, mapped=64 << 30)
    whole = Shape(memory_bytes=64 << 30, vcpus=8)
    done = [estimate(x, PLANS["6.18"], Platform(erratum=False), PUBLISHED) for x in (part, whole)]

    assert done[0] == done[1]


def test_a_report_that_contradicts_the_rows_is_named_where_the_td_is_like_it() -> None:
    def said(gib: int, plan: str) -> int:
        shape = Shape(memory_bytes=gib << 30, vcpus=96)
        done = estimate(shape, PLANS[plan], Platform(erratum=False), PUBLISHED)
        return len(done.contradictions)

    assert [said(1228, "6.18"), said(64, "6.18"), said(1228, "hkid-first")] == [1, 0, 0]


def test_six_totals_by_six_numbers_leave_nothing_over() -> None:
    assert degrees_of_freedom(PUBLISHED) == 0
    assert degrees_of_freedom(replace(PUBLISHED, fitted=2)) == 4
    assert degrees_of_freedom(replace(PUBLISHED, fitted=None)) is None


def test_an_estimate_says_what_it_rests_on() -> None:
    inside = estimate(
        Shape(memory_bytes=100 << 30, vcpus=16), PLANS["6.18"], Platform(erratum=False), PUBLISHED
    )
    outside = estimate(
        Shape(memory_bytes=1 << 40, vcpus=128), PLANS["6.18"], Platform(erratum=False), PUBLISHED
    )

    assert inside.extrapolates == ()
    assert outside.extrapolates == (
        ("vcpus", 128, 4, 64),
        ("memory_bytes", 1 << 40, 18 << 30, 400 << 30),
    )
    assert inside.calibration == "published"
    assert inside.leaves_out
    assert Action.CLEAR not in {step.action for step in inside.steps}
    assert inside.phase(Phase.GUEST_PAGES).likely_ns > 0.99 * inside.total.likely_ns
    assert sum(inside.phase(phase).high_ns for phase in Phase) == inside.total.high_ns


shapes = st.builds(
    Shape,
    memory_bytes=st.integers(1, 3000).map(lambda pages: pages * 4096),
    vcpus=st.integers(1, 130),
    tdcx_pages_per_vcpu=st.integers(0, 6),
    tdcs_pages=st.integers(0, 5),
)
platforms = st.builds(Platform, erratum=st.booleans(), packages=st.integers(1, 4))
plans = st.builds(
    lambda name, clearing: PLANS[name].with_clearing(clearing),
    st.sampled_from(sorted(PLANS)),
    st.sampled_from(ClearWhen),
)
injections = st.builds(
    Injections,
    partial_writes=st.none() | st.integers(0, 20),
    poison_hardware=st.integers(0, 5),
    poison_integrity=st.integers(0, 5),
    busy=st.integers(0, 7),
    reclaim_fails=st.integers(0, 4),
    fatal=st.booleans(),
)


@given(shapes, plans, platforms, injections, st.integers(0, 99))
@settings(max_examples=150)
def test_closed_form_and_emulator_agree_to_the_nanosecond(
    shape: Shape, plan: object, platform: Platform, faults: Injections, seed: int
) -> None:
    assert isinstance(plan, type(PLANS["6.16"]))
    if faults.busy + faults.reclaim_fails > shape.guest_pages or shape.guest_pages < 1:
        with pytest.raises(UsageError):
            estimate(shape, plan, platform, PUBLISHED, faults)
        return

    done = simulate(shape, plan, platform, PUBLISHED, faults, seed=seed)

    assert done.estimate == estimate(shape, plan, platform, PUBLISHED, faults)
    assert done.clock_ns == done.estimate.total.likely_ns
    back = done.pages_reclaimed + done.pages_handed_back
    assert done.pages_in == back + done.pages_leaked


def test_counts_by_hand() -> None:
    shape = Shape(memory_bytes=1 << 21, vcpus=2, tdcx_pages_per_vcpu=5, tdcs_pages=4)
    counts = step_counts(shape, PLANS["6.16"], Platform(erratum=False))
    control = 3 + 2 * 6 + 4 + 1  # Secure-EPT, vCPUs, TDCS, TDR

    assert counts[Phase.GUEST_PAGES, Action.BLOCK] == 512
    assert counts[Phase.GUEST_PAGES, Action.CLEAR] == 512
    assert counts[Phase.HKID, Action.VP_FLUSH] == 2
    assert counts[Phase.HKID, Action.CACHE_WB] == 1
    assert counts[Phase.CONTROL_PAGES, Action.RECLAIM] == control
    assert counts[Phase.CONTROL_PAGES, Action.CLEAR] == control
    assert counts[Phase.CONTROL_PAGES, Action.WBINVD] == 1
    seamcalls = sum(n for (phase, a), n in counts.items() if phase is Phase.GUEST_PAGES and a.leaf)
    assert seamcalls == 4 * 512


BAD = [
    ("likely_ns = 1_900", 'likely_ns = "2 us"', "steps.clear.likely_ns: expected integer"),
    ("likely_ns = 1_900", "likely_ns = true", "steps.clear.likely_ns: expected integer"),
    ("likely_ns = 1_900", "likely_ns = -1", "steps.clear.likely_ns: expected 0 or more"),
    (
        "likely_ns = 1_900",
        "likely_ns = 1",
        "steps.clear.likely_ns: expected low_ns <= likely_ns <= high_ns",
    ),
    ("likely_ns = 1_900\n", "", "steps.clear.likely_ns: missing, expected integer"),
    ("vcpus = 32\n", "vcpus = 3\n", "steps.block.points[1].vcpus: expected ascending vcpus"),
    ("vcpus = 4\n", "vcpus = 0\n", "steps.block.points[0].vcpus: expected 1 or more"),
    (
        "memory_bytes = 19_327_352_832",
        "memory_bytes = 4095",
        "steps.block.points[0].memory_bytes: expected 4096 or more",
    ),
    ('["vcpus", "memory"]', '["vcpus", "moon"]', "steps.block.grows_with: expected a list of"),
    ('["vcpus", "memory"]', '["vcpus", "vcpus"]', "steps.block.grows_with: expected a list of"),
    ("fitted = 6", 'fitted = "six"', "record.fitted: expected integer"),
    ('beyond = "rise"', 'beyond = "wish"', "steps.block.beyond: expected one of hold, rise"),
    ("[steps.freeid]", "[steps.free]", "steps.freeid: missing, expected table"),
    ("[steps.block]", "[steps.nap]\n[steps.block]", "steps.nap: unknown field"),
    ("[record]", "[record]\ncolour = 1", "record.colour: unknown field"),
    ('host = "not stated"', "host = 3", "record.host: expected string"),
    ("assumptions = [", "assumptions = [ 3,", "record.assumptions: expected list of strings"),
    ("calibration/1", "calibration/2", "schema: expected tdxreclaim.calibration/1"),
    ("seconds = 517", "seconds = 0", "rows[1].seconds: expected a number above 0"),
    ('provenance = "assumed"', 'provenance = "felt"', "steps.block.provenance: expected one of"),
]


@pytest.mark.parametrize(("good", "bad", "why"), BAD, ids=[case[2] for case in BAD])
def test_a_broken_calibration_names_the_field(good: str, bad: str, why: str) -> None:
    assert good in TEXT
    with pytest.raises(MalformedInputError) as raised:
        load(TEXT.replace(good, bad, 1), "mine.toml")

    assert raised.value.what == "mine.toml"
    assert raised.value.why.startswith(why)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("= 3", "Invalid"),
        ("", "schema: missing, expected string"),
        ('schema = "tdxreclaim.calibration/1"\nrecord = 3', "record: expected table"),
    ],
)
def test_what_is_no_calibration_at_all(text: str, why: str) -> None:
    with pytest.raises(MalformedInputError) as raised:
        load(text, "mine.toml")

    assert raised.value.why.startswith(why)


def test_lists_where_tables_or_points_belong() -> None:
    head, kick, _ = TEXT.partition("[steps.kick]")
    empty = head + kick + '\nprovenance = "assumed"\nsource = "x"\nbeyond = "hold"\npoints = '
    for points, why in (("[]", "expected at least one"), ("3", "expected list of tables")):
        with pytest.raises(MalformedInputError) as raised:
            load(empty + points, "mine.toml")
        assert raised.value.why == f"steps.kick.points: {why}"


def test_a_calibration_without_whole_teardowns_extrapolates_everywhere() -> None:
    bare = load(TEXT.partition("[[rows]]")[0], "bare")

    assert bare.extrapolates(vcpus=4, memory_bytes=4096) == (
        ("vcpus", 4, None, None),
        ("memory_bytes", 4096, None, None),
    )
    assert validate(bare) == ()
