"""Time: the published totals, the closed form, the calibration's reader."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tdxreclaim.costs.calibration
from tdxreclaim.costs.calibration import Beyond, Point, Provenance, StepCost
from tdxreclaim.costs.estimate import estimate, step_counts, validate
from tdxreclaim.costs.simulate import simulate
from tdxreclaim.costs.toml import load
from tdxreclaim.engine.faults import Injections
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLANS, Clearing, Order
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


def test_the_slow_path_grows_with_vcpus_and_its_doubt_shows_between_the_points() -> None:
    kick = PUBLISHED.steps[Action.KICK]
    costs = [kick.at(vcpus) for vcpus in range(1, 300)]

    assert [c.likely_ns for c in costs] == sorted(c.likely_ns for c in costs)
    assert all(c.low_ns <= c.likely_ns <= c.high_ns for c in costs)
    assert kick.at(48).low_ns == kick.at(32).low_ns
    assert kick.at(48).high_ns == kick.at(64).high_ns
    assert kick.at(1).low_ns == 0


def test_a_cost_between_and_beyond_its_points() -> None:
    points = (Point(10, Span(90, 100, 110)), Point(20, Span(180, 200, 220)))
    rise = StepCost(
        points=points, beyond=Beyond.RISE, provenance=Provenance.ASSUMED, source="a test"
    )
    hold = StepCost(
        points=points, beyond=Beyond.HOLD, provenance=Provenance.ASSUMED, source="a test"
    )

    assert rise.at(10) == hold.at(10) == Span(90, 100, 110)
    assert rise.at(20) == hold.at(20) == Span(180, 200, 220)
    assert rise.at(15) == hold.at(15) == Span(90, 150, 220)
    assert rise.at(1) == Span(0, 100, 110)
    assert hold.at(1) == Span(90, 100, 110)
    assert rise.at(25) == Span(180, 250, 320)
    assert hold.at(25) == Span(180, 200, 220)


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
    st.sampled_from(Clearing),
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
    ("likely_ns = 2_400", 'likely_ns = "2 us"', "steps.block.likely_ns: expected integer"),
    ("likely_ns = 2_400", "likely_ns = true", "steps.block.likely_ns: expected integer"),
    ("likely_ns = 2_400", "likely_ns = -1", "steps.block.likely_ns: expected 0 or more"),
    (
        "likely_ns = 2_400",
        "likely_ns = 1",
        "steps.block.likely_ns: expected low_ns <= likely_ns <= high_ns",
    ),
    ("likely_ns = 2_400\n", "", "steps.block.likely_ns: missing, expected integer"),
    ("vcpus = 32\nlow", "vcpus = 4\nlow", "steps.kick.points[1].vcpus: expected ascending vcpus"),
    ("vcpus = 4\nlow", "vcpus = 0\nlow", "steps.kick.points[0].vcpus: expected 1 or more"),
    ('beyond = "rise"', 'beyond = "wish"', "steps.kick.beyond: expected one of hold, rise"),
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
