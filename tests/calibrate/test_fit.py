"""Fits: known costs found again, outliers, what cannot be told; the shipped calibration."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tdxreclaim.calibrate.fit import Fit, fit
from tdxreclaim.calibrate.observations import is_table, parse_csv, together
from tdxreclaim.costs.calibration import CostCause, CostPoint, HostRecord
from tdxreclaim.costs.estimate import estimate, validate
from tdxreclaim.costs.shipped import read_calibration, read_shipped_calibration
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLANS, Order
from tdxreclaim.engine.shape import Shape
from tdxreclaim.errors import MalformedInputError
from tdxreclaim.tables.teardown import Action
from tdxreclaim.units import PAGE_BYTES

PUBLISHED = read_calibration("published")
NOBODY = HostRecord(name="fit", host="h", kernel="k", date="d", origin="o")
HEAD = "memory,vcpus,kernel,order,seconds,affected\n"
# What a made-up host's steps cost, in nanoseconds: a page, its clear, each
# further vCPU or GiB.
PAGE, CLEAR, FURTHER = 14_000, 1_500, 100
SIZES = ((64, 8), (128, 16), (256, 32), (512, 64), (64, 64), (512, 8), (256, 8), (128, 64))


def _fit(text: str) -> Fit:
    rows = parse_csv(text, "obs.csv")
    return fit(together([("obs.csv", rows)]), PUBLISHED, origin=NOBODY)


def _rows(cause: CostCause, *, outlier: int | None = None, noise: float = 0.0) -> str:
    """Eight shutdowns of the made-up host, under a kernel that clears and one that does not."""
    chance = random.Random(5)
    lines = []
    for number, (gib, vcpus) in enumerate(SIZES):
        kernel, clears = (("6.17", True), ("6.18.2", False))[number % 2]
        more = {CostCause.NOTHING: 0, CostCause.VCPUS: vcpus - 8, CostCause.MEMORY: gib - 64}[cause]
        ns = gib * (1 << 18) * (PAGE + FURTHER * more + CLEAR * clears)
        seconds = ns / 1e9 * (1 + chance.gauss(0, noise))
        if number == outlier:
            seconds *= 1.8
        lines.append(f"{gib}GiB,{vcpus},{kernel},upstream,{seconds:.3f},no")
    return HEAD + "\n".join(lines) + "\n"


@pytest.mark.parametrize("cause", list(CostCause))
def test_known_costs_are_found_again(cause: CostCause) -> None:
    found = _fit(_rows(cause))

    assert found.used.cause is cause
    assert found.used.page_ns == pytest.approx(PAGE, rel=0.02)
    assert found.used.clear_ns == pytest.approx(CLEAR, rel=0.05)
    growth = 0 if cause is CostCause.NOTHING else FURTHER
    assert found.used.growth_ns == pytest.approx(growth, rel=0.05)
    assert found.outlier is None
    assert found.warnings == ()
    assert all(abs(each.error) < 0.01 for each in found.residuals)
    if cause is not CostCause.NOTHING:
        assert {each.cause for each in found.excluded} == set(CostCause) - {cause}


@pytest.mark.parametrize("cause", [CostCause.NOTHING, CostCause.VCPUS])
def test_the_calibration_gives_the_rows_back(cause: CostCause) -> None:
    text = _rows(cause)
    steps = {**PUBLISHED.steps, **_fit(text).calibration.steps}
    for row in parse_csv(text, "obs.csv"):
        each = sum(
            steps[action].at(row.vcpus, row.memory_bytes).likely_ns
            for action in (
                Action.BLOCK,
                Action.TRACK,
                Action.KICK,
                Action.REMOVE,
                Action.WBINVD,
                *((Action.CLEAR,) if row.clearing.clears(erratum=False) else ()),
            )
        )
        assert each * row.memory_bytes / PAGE_BYTES / 1e9 == pytest.approx(row.seconds, rel=0.02)


@pytest.mark.parametrize("outlier", range(8))
def test_one_outlier_is_named_and_left_out(outlier: int) -> None:
    found = _fit(_rows(CostCause.VCPUS, outlier=outlier, noise=0.005))

    assert found.outlier is not None
    assert found.outlier.observed.where == f"rows[{outlier}]"
    assert found.outlier.error == pytest.approx(1 / 1.8 - 1, abs=0.03)
    assert len(found.calibration.rows) == 7
    assert found.used.page_ns == pytest.approx(PAGE, rel=0.03)


def test_noise_is_no_outlier() -> None:
    found = _fit(_rows(CostCause.NOTHING, noise=0.01))
    assert found.outlier is None
    assert found.used.cause is CostCause.NOTHING
    assert found.calibration.steps[Action.BLOCK].at(1).high_ns > 0


def test_what_two_alike_rows_cannot_tell() -> None:
    found = _fit(f"{HEAD}64GiB,8,6.17,upstream,300,\n128GiB,8,6.17,upstream,600,\n")

    said = {each.what: each.why for each in found.undetermined}
    assert "the same vCPUs" in said["whether a page costs more with vCPUs"]
    assert "all of these clear" in said["the clear"]
    assert Action.CLEAR not in found.calibration.steps
    assert found.used.left_over == 1


def test_vcpus_and_memory_that_grow_together_are_not_told_apart() -> None:
    found = _fit(f"{HEAD}64GiB,8,6.17,upstream,300,\n128GiB,16,6.17,upstream,900,\n")

    assert {each.cause for each in found.causes} == {CostCause.VCPUS, CostCause.MEMORY}
    assert [each.cause for each in found.excluded] == [CostCause.NOTHING]
    assert any("both grow together" in each.why for each in found.undetermined)
    assert any("grows with vCPUs or memory" in a for a in found.calibration.assumptions)
    assert found.calibration.causes == (CostCause.VCPUS, CostCause.MEMORY)


def test_a_single_row_tells_a_single_cost() -> None:
    found = _fit(f"{HEAD}64GiB,8,6.17,upstream,300,\n")

    assert (found.used.cause, found.used.left_over) == (CostCause.NOTHING, 0)
    assert found.residuals[0].error == pytest.approx(0, abs=1e-9)
    assert found.page.low_ns == found.page.high_ns


def test_shutdowns_that_no_cause_explains_are_warned_of() -> None:
    rows = together([("published", PUBLISHED.rows)])
    found = fit(rows, PUBLISHED, origin=NOBODY)
    assert "no cause explains these shutdowns" in found.warnings[0]
    assert len(found.residuals) == 3, "HKID first is in no release"


def test_shutdowns_that_cannot_be() -> None:
    for row, why in (
        ("64GiB,8,6.17,hkid-first,80,", "rows: none in the order of a release"),
        ("64GiB,8,6.17,upstream,0.001,", "rows[0].seconds: less than"),
    ):
        with pytest.raises(MalformedInputError) as caught:
            _fit(f"{HEAD}{row}\n")
        assert caught.value.why.startswith(why)


PAGE_STEPS = (Action.BLOCK, Action.TRACK, Action.KICK, Action.REMOVE, Action.WBINVD)


def test_the_shipped_calibration_follows_from_its_own_rows() -> None:
    """Each row less its clear and what it does once, over its pages, at 97 to 110 %."""
    steps = PUBLISHED.steps
    for row in PUBLISHED.rows:
        upstream = row.order is Order.UPSTREAM
        shape = Shape(memory_bytes=row.memory_bytes, vcpus=row.vcpus)
        clear = steps[Action.CLEAR].at(1).likely_ns
        hkid = steps[Action.VP_FLUSH].at(1).likely_ns * row.vcpus + sum(
            steps[each].at(1).likely_ns
            for each in (Action.VPFLUSHDONE, Action.CACHE_WB, Action.FREEID)
        )
        reclaim = steps[Action.RECLAIM].at(row.vcpus, row.memory_bytes).likely_ns
        left = row.seconds * 1e9 - shape.pages * clear - hkid
        left -= shape.control_pages * reclaim if upstream else 0
        likely = left / (shape.guest_pages if upstream else shape.pages)
        actions = PAGE_STEPS if upstream else (Action.RECLAIM,)
        each = [_point_at(steps[action].points, row.vcpus) for action in actions]
        assert sum(point.cost.likely_ns for point in each) == pytest.approx(likely, abs=3)
        for point in each:
            low, middle, high = point.cost
            assert low == pytest.approx(middle * 0.97, abs=1)
            assert high == pytest.approx(middle * 1.10, abs=1)
            assert point.memory_bytes == row.memory_bytes
    for action in (*PAGE_STEPS, Action.RECLAIM):
        assert steps[action].grows_with == (CostCause.VCPUS, CostCause.MEMORY)
    assert max(abs(each.error) for each in validate(PUBLISHED)) < 1e-3


def _point_at(points: tuple[CostPoint, ...], vcpus: int) -> CostPoint:
    return next(point for point in points if point.vcpus == vcpus)


def _range(rows: str, gib: int, vcpus: int) -> tuple[float, tuple[CostCause, ...]]:
    """High over low of a TD by a calibration that was fitted to *rows*, and what it leaves open."""
    found = _fit(HEAD + rows).calibration
    record = replace(PUBLISHED, steps={**PUBLISHED.steps, **found.steps}, rows=found.rows)
    shape = Shape(memory_bytes=gib << 30, vcpus=vcpus)
    done = estimate(shape, PLANS["6.16"], Platform(erratum=False), record)
    causes = (
        found.steps[Action.BLOCK].grows_with if len(found.steps[Action.BLOCK].points) > 1 else ()
    )
    return done.ratio, causes


SETTLING = [
    ("one row", "64GiB,8,6.17,upstream,264,\n", (CostCause.VCPUS, CostCause.MEMORY)),
    (
        "same memory, it grows",
        "64GiB,4,6.17,upstream,256,\n64GiB,64,6.17,upstream,886,\n",
        (CostCause.VCPUS,),
    ),
    (
        "same memory, it does not",
        "64GiB,4,6.17,upstream,280,\n64GiB,64,6.17,upstream,280,\n",
        (CostCause.MEMORY,),
    ),
    (
        "same vCPUs, it grows",
        "18GiB,8,6.17,upstream,72,\n400GiB,8,6.17,upstream,5539,\n",
        (CostCause.MEMORY,),
    ),
    (
        "same vCPUs, it does not",
        "18GiB,8,6.17,upstream,72,\n400GiB,8,6.17,upstream,1600,\n",
        (CostCause.VCPUS,),
    ),
]


@pytest.mark.parametrize(
    ("rows", "causes"), [row[1:] for row in SETTLING], ids=[row[0] for row in SETTLING]
)
def test_two_shutdowns_that_settle_the_cause_narrow_the_range(
    rows: str, causes: tuple[CostCause, ...]
) -> None:
    open_ratio, _ = _range(SETTLING[0][1], 1024, 8)
    ratio, left = _range(rows, 1024, 8)

    assert left == causes
    assert open_ratio > 5
    assert len(causes) > 1 or ratio < open_ratio / 2


def test_two_rows_tell_no_shape_between_them() -> None:
    """A straight line and the shipped curve go through both: the range holds either."""
    found = _fit(f"{HEAD}64GiB,4,6.17,upstream,256,\n64GiB,64,6.17,upstream,886,\n").calibration
    page = [found.steps[action].at(32, 64 << 30) for action in PAGE_STEPS]
    straight, bent = 13_300 + 28 * 626, 16_500

    assert sum(span.low_ns for span in page) <= bent
    assert sum(span.high_ns for span in page) >= straight


def test_a_table_is_told_from_a_calibration() -> None:
    assert is_table(HEAD)
    assert not is_table(read_shipped_calibration("published"))
    assert not is_table("# a comment\n\nschema = 3\n")


BAD_CSV = [
    ("", "it is empty"),
    ("memory,vcpus\n", "it has no rows"),
    ("memory,age\n1GiB,2\n", "line 1: 'age' is no column"),
    ("memory,memory\n1GiB,2\n", "line 1: a column is there twice"),
    ("memory,vcpus\n1GiB\n", "rows[0]: 1 values for 2 columns"),
    ('memory,vcpus\n"1GiB,2\n', "not CSV: "),
    (f"{HEAD}lots,8,6.17,upstream,3,\n", "rows[0].memory: "),
    (f"{HEAD}1GiB,{'9' * 5000},6.17,upstream,3,\n", "rows[0].vcpus: expected integer"),
    (f"{HEAD}1GiB,8,6.17,upstream,{'9' * 500},\n", "rows[0].seconds: expected number"),
    (f"{HEAD}1GiB,8,6.17,upstream,-1,\n", "rows[0].seconds: expected number"),
    (f"{HEAD}1GiB,8,6.17,upstream,0,\n", "rows[0].seconds: expected a number above 0"),
    (f"{HEAD}1GiB,x,6.17,upstream,3,\n", "rows[0].vcpus: expected integer"),
    (f"{HEAD}1GiB,9999,6.17,upstream,3,\n", "rows[0].vcpus: "),
    (f"{HEAD}1GiB,8,6.17,upstream,soon,\n", "rows[0].seconds: expected number"),
    (f"{HEAD}1GiB,8,6.17,sideways,3,\n", "rows[0].order: expected one of"),
    (f"{HEAD}1GiB,8,6.18,upstream,3,\n", "rows[0].affected: missing"),
    (f"{HEAD}1GiB,8,6.18,upstream,3,maybe\n", "rows[0].affected: expected yes or no"),
    (f"{HEAD}1GiB,8,6.12,upstream,3,\n", "rows[0].kernel: this release cannot run TDs"),
    (f"{HEAD}1GiB,8,99.0,upstream,3,\n", "rows[0].kernel: newer than what is known"),
    (f"{HEAD}1GiB,8,{'9' * 5000}.1,upstream,3,\n", "rows[0].kernel: not a kernel release"),
    (f"{HEAD}1GiB,8,,upstream,3,\n", "rows[0].kernel: missing"),
    ("memory,vcpus,clearing,seconds\n1GiB,8,erratum,3\n", "rows[0].affected: missing"),
]


@pytest.mark.parametrize(("text", "why"), BAD_CSV, ids=[each[1] for each in BAD_CSV])
def test_a_bad_csv_names_the_row_and_the_column(text: str, why: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_csv(text, "obs.csv")
    assert caught.value.what == "obs.csv"
    assert caught.value.why.startswith(why)


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(MalformedInputError, match="more than"):
        parse_csv(HEAD + "1GiB,8,6.17,upstream,3,\n" * 1001, "obs.csv")
