"""Fits: the published table, known costs found again, wild rows, what cannot be told."""

from __future__ import annotations

import random

import pytest

from tdxreclaim.calibrate.fit import Fit, fit
from tdxreclaim.calibrate.observations import parse
from tdxreclaim.costs.calibration import Origin, Provenance
from tdxreclaim.costs.shipped import read_calibration, read_shipped_observations
from tdxreclaim.engine.plan import Action
from tdxreclaim.errors import MalformedInputError

PUBLISHED = read_calibration("published")
NOBODY = Origin("fit", "h", "k", "d", "o", None)
HEAD = "memory,vcpus,packages,kernel,order,seconds,n,affected\n"
# What a made-up host's steps cost, in nanoseconds: pages before 6.18, clear,
# each further vCPU.
PAGE, CLEAR, FURTHER = 14_000, 1_500, 100


def _fit(text: str) -> Fit:
    return fit(parse(text, "obs.csv", origin=NOBODY), PUBLISHED, name="fit", origin="o")


def _rows(*, wild: int | None = None, noise: float = 0.0) -> str:
    """Eight shutdowns of the made-up host, under a kernel that clears and one that does not."""
    chance = random.Random(5)
    lines = []
    sizes = [(64, 8), (128, 16), (256, 32), (512, 64), (64, 64), (512, 8), (256, 8), (128, 64)]
    for number, (gib, vcpus) in enumerate(sizes):
        kernel, clears = (("6.17", True), ("6.18.2", False))[number % 2]
        pages = gib * (1 << 18)
        ns = pages * (PAGE + FURTHER * (vcpus - 8) + CLEAR * clears)
        seconds = ns / 1e9 * (1 + chance.gauss(0, noise))
        if number == wild:
            seconds *= 1.8
        lines.append(f"{gib}GiB,{vcpus},2,{kernel},upstream,{seconds:.3f},3,no")
    return HEAD + "\n".join(lines) + "\n"


def test_known_costs_are_found_again() -> None:
    found = _fit(_rows())

    told = {each.label: each.ns for each in found.solved}
    assert told["block + track + kick + remove + wbinvd"] == pytest.approx(PAGE, rel=0.02)
    assert told["clear"] == pytest.approx(CLEAR, rel=0.05)
    assert told["kick, each further vCPU"] == pytest.approx(FURTHER, rel=0.05)
    assert found.wild is None
    assert all(abs(each.error) < 0.01 for each in found.residuals)
    split = {each.action for each in found.untold if each.why.startswith("only in the sum")}
    assert split == {Action.BLOCK, Action.TRACK, Action.KICK, Action.REMOVE, Action.WBINVD}
    assert found.calibration.steps[Action.CLEAR].provenance is Provenance.DERIVED


@pytest.mark.parametrize("wild", range(8))
def test_one_wild_row_is_named_and_left_out(wild: int) -> None:
    found = _fit(_rows(wild=wild, noise=0.005))

    assert found.wild is not None
    assert found.wild.number == wild
    assert found.wild.error == pytest.approx(1 / 1.8 - 1, abs=0.03)
    assert len(found.calibration.rows) == 7
    told = {each.label: each.ns for each in found.solved}
    assert told["block + track + kick + remove + wbinvd"] == pytest.approx(PAGE, rel=0.03)


def test_noise_is_not_wild() -> None:
    assert _fit(_rows(noise=0.01)).wild is None


def test_rows_that_no_cost_explains_are_warned_of() -> None:
    assert _fit(_rows(noise=0.005)).warnings == ()
    assert _fit(_rows(wild=3, noise=0.005)).warnings == ()
    nothing = _fit(
        HEAD + "64GiB,8,2,6.17,upstream,0.001,3,no\n32GiB,8,2,6.17,upstream,0.001,3,no\n"
    )
    assert not nothing.solved
    assert "nothing was fitted" in nothing.warnings[0]
    assert "rows[0], rows[1]" in nothing.warnings[1]


def test_what_two_alike_rows_cannot_tell() -> None:
    found = _fit(f"{HEAD}64GiB,8,1,6.17,upstream,300,1,\n128GiB,8,1,6.17,upstream,600,1,\n")

    why = {each.action: each.why for each in found.untold}
    assert "not to be told from" in why[Action.CLEAR]
    assert "block" in why[Action.CLEAR]
    assert Action.CLEAR not in found.calibration.steps
    assert len(found.solved) == 1


def test_a_single_row_tells_a_single_cost() -> None:
    found = _fit(f"{HEAD}64GiB,8,1,6.17,hkid-first,80,1,\n")

    assert [each.label for each in found.solved] == ["clear + reclaim"]
    assert found.rows_left_over == 0
    assert found.wild is None
    assert any("not done in these shutdowns" in each.why for each in found.untold)


def test_the_published_table_is_exactly_determined() -> None:
    text = read_shipped_observations("published")
    found = fit(
        parse(text, "published", origin=NOBODY),
        PUBLISHED,
        name="published",
        origin=PUBLISHED.origin,
    )

    assert found.calibration == PUBLISHED
    assert len(found.residuals) == len(found.solved) == 6
    assert found.rows_left_over == 0
    assert all(abs(each.error) < 1e-6 for each in found.residuals)
    assert all(each.error_ns > 0 for each in found.solved)


TOML = read_shipped_observations("published")
BAD_TOML = [
    ('schema = "tdxreclaim.observations/1"', 'schema = "x"', "schema: expected tdxreclaim.obs"),
    ("[spread]\nlow_percent = 97", "[spread]\nlow_percent = 101", "spread.low_percent: expected"),
    ("[given.block]", "[given.kick]", "solve.kick: it is given too"),
    ("[given.block]", "[given.blok]", "given.blok: unknown field"),
    ('vary = "vcpus"', 'vary = "age"', "solve.kick.vary: expected one of vcpus, none"),
    ("seconds = 72", "seconds = -1", "rows[0].seconds: expected a number above 0"),
    ("seconds = 72", "seconds = inf", "rows[0].seconds: expected a number above 0"),
    ("seconds = 72", "seconds = nan", "rows[0].seconds: expected a number above 0"),
    ("seconds = 72", "minutes = 72", "rows[0].seconds: missing"),
    ("vcpus = 4\n", "vcpus = 9999\n", "rows[0].vcpus: "),
    ("19_327_352_832", "19_327_352_833", "rows[0].memory_bytes: "),
    ('clearing = "always"\n', "", "rows[0].kernel: missing"),
    ('clearing = "always"\n', 'clearing = "erratum"\n', "rows[0].affected: missing"),
    ('clearing = "always"\n', 'kernel = "6.12"\n', "rows[0].kernel: no release before 6.16"),
    ('clearing = "always"\n', 'kernel = "new"\n', "rows[0].kernel: not a kernel release"),
]


@pytest.mark.parametrize(("good", "bad", "why"), BAD_TOML, ids=[each[2] for each in BAD_TOML])
def test_a_bad_toml_names_the_field(good: str, bad: str, why: str) -> None:
    assert good in TOML
    with pytest.raises(MalformedInputError) as caught:
        parse(TOML.replace(good, bad, 1), "obs.toml", origin=NOBODY)
    assert caught.value.what == "obs.toml"
    assert caught.value.why.startswith(why)


BAD_CSV = [
    ("", "it is empty"),
    ("memory,vcpus\n", "it has no rows"),
    ("memory,age\n1GiB,2\n", "line 1: 'age' is no column"),
    ("memory,memory\n1GiB,2\n", "line 1: a column is there twice"),
    ("memory,vcpus\n1GiB\n", "rows[0]: 1 values for 2 columns"),
    ('memory,vcpus\n"1GiB,2\n', "not CSV: "),
    (f"{HEAD}lots,8,1,6.17,upstream,3,1,\n", "rows[0].memory: "),
    (f"{HEAD}1GiB,{'9' * 5000},1,6.17,upstream,3,1,\n", "rows[0].vcpus: expected integer"),
    (f"{HEAD}1GiB,8,1,6.17,upstream,{'9' * 500},1,\n", "rows[0].seconds: expected number"),
    (f"{HEAD}1GiB,x,1,6.17,upstream,3,1,\n", "rows[0].vcpus: expected integer"),
    (f"{HEAD}1GiB,8,1,6.17,upstream,soon,1,\n", "rows[0].seconds: expected number"),
    (f"{HEAD}1GiB,8,1,6.17,sideways,3,1,\n", "rows[0].order: expected one of"),
    (f"{HEAD}1GiB,8,1,6.18,upstream,3,1,\n", "rows[0].affected: missing"),
    (f"{HEAD}1GiB,8,1,6.18,upstream,3,1,maybe\n", "rows[0].affected: expected yes or no"),
]


@pytest.mark.parametrize(("text", "why"), BAD_CSV, ids=[each[1] for each in BAD_CSV])
def test_a_bad_csv_names_the_row_and_the_column(text: str, why: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse(text, "obs.csv", origin=NOBODY)
    assert caught.value.what == "obs.csv"
    assert caught.value.why.startswith(why)
