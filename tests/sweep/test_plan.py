"""Plans and draws: what a plan means, what is wrong with one, and that no machine draws otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.sweep.axes import DRAW_BITS
from tdxreclaim.sweep.draws import Asked, Draws, Faults, Load, Priced, Size, Trials
from tdxreclaim.sweep.kinds import KINDS
from tdxreclaim.sweep.plan import SweepPlan, read_plan
from tdxreclaim.units import Share

PAGE = Path(__file__).parents[2] / "man" / "tdxreclaim-sweep.1"
EXAMPLE = PAGE.read_text().partition("$ cat plan.toml\n")[2].partition("$ tdxreclaim")[0]
GIB = 1 << 30


def plan(axes: str, top: str = "", command: str = "simulate") -> SweepPlan:
    head = f'schema = "tdxreclaim.sweep-plan/1"\ncommand = "{command}"\n'
    return read_plan(f"{head}{top}\n[axes]\n{axes}\n", "plan.toml")


def wrong(axes: str, top: str = "", command: str = "simulate") -> str:
    with pytest.raises(MalformedInputError) as raised:
        plan(axes, top, command)
    assert raised.value.what == "plan.toml"
    return raised.value.why


ONE = 'memory = "18GiB"\nvcpus = 4\n'


def test_the_plan_of_the_manual_is_one() -> None:
    found = read_plan(EXAMPLE, "plan.toml")

    assert (found.trials, found.drawn, found.seed) == (200_000, True, 1)
    assert [axis.name for axis in found.axes] == ["memory", "mapped", "vcpus", "cpu", "kernel"]


def test_the_manual_names_every_axis() -> None:
    text = PAGE.read_text().partition(".Sh THE PLAN")[2].partition(".Sh EXIT")[0]
    named = set(re.findall(r"[a-z-]+", "".join(re.findall(r"^\.It Li .*$", text, re.MULTILINE))))
    assert set(KINDS) <= named


BAD = [
    ("", "", "axes.memory: missing"),
    ("memory = 3\nvcpus = 4", "", 'axes.memory: expected a size ("400GiB")'),
    ('memory = ["1GiB", "2GiB", 3]\nvcpus = 4', "", "axes.memory[2]: expected a size"),
    ('memory = ["1GiB", "lots"]\nvcpus = 4', "", "axes.memory[1]: 'lots' is not a size"),
    ("memory = []\nvcpus = 4", "", "axes.memory: expected 1 to 1000 values"),
    ('memory = ["1GiB", "1024MiB"]\nvcpus = 4', "", "axes.memory[1]: there twice"),
    ('memory = "0GiB"\nvcpus = 4', "", "axes.memory: must be greater than 0"),
    ('memory = "8EiB"\nvcpus = 4', "", "axes.memory: "),
    ('memory = "1GiB"\nvcpus = [4, 0]', "", "axes.vcpus[1]: expected an integer from 1 to 4096"),
    ('memory = "1GiB"\nvcpus = true', "", "axes.vcpus: expected an integer"),
    ('memory = "1GiB"\nvcpus = nan', "", "axes.vcpus: expected an integer"),
    ('memory = "1GiB"\nvcpus = 1979-05-27', "", "axes.vcpus: expected an integer"),
    ('memory = "1GiB"\nvcpus = [[4]]', "", "axes.vcpus[0]: expected an integer"),
    ('memory = "1GiB"\nvcpus = -inf', "", "axes.vcpus: expected an integer"),
    (ONE + "[axes.vcpu]", "", "axes.vcpu: unknown field; nearest: vcpus"),
    (ONE + "poison-hardware = 3", "", "axes.poison-hardware: no axis: changes no time"),
    (ONE + "tds = 3", "", 'axes.tds: only with command = "drain"'),
    (ONE + 'mapped = ["10%", "19GiB"]', "", "axes.mapped: 19 GiB is more than the least memory"),
    (ONE + 'mapped = "101%"', "", "axes.mapped: 101% is not above 0 % and up to 100 %"),
    (
        ONE + 'mapped = { from = "1GiB", to = "50%" }',
        "trials = 1",
        "axes.mapped.from: expected a p",
    ),
    (ONE + 'clear = ["kernel", "sometimes"]', "", "axes.clear[1]: expected one of kernel, always"),
    (ONE + "busy = 4000000", "", "axes.busy: expected an integer from 0 to 1000000"),
    ('memory = "4MiB"\nvcpus = 1\nbusy = 1025', "", "axes.busy: with reclaim-fails 1025 pages"),
    (ONE + "fatal = 1", "", "axes.fatal: expected true or false"),
    (ONE + 'cause = "moon"', "", "axes.cause: expected one of open, vcpus, memory"),
    (ONE + 'cost = "cheap"', "", "axes.cost: expected one of range, low, likely, high"),
    (ONE + 'cpu = ""', "", "axes.cpu: expected a name"),
    (ONE + 'cpu = { from = "spr", to = "gnr" }', "trials = 1", "axes.cpu.from: expected a list"),
    ('memory = "1GiB"\nvcpus = { from = 4 }', "", "axes.vcpus.to: missing"),
    ('memory = "1GiB"\nvcpus = { from = 4, to = 4 }', "", "axes.vcpus.to: expected more than from"),
    (
        'memory = "1GiB"\nvcpus = { from = 4, to = 9 }',
        "",
        "axes.vcpus.steps: missing, a grid needs",
    ),
    (
        'memory = "1GiB"\nvcpus = { from = 4, to = 9, steps = 1 }',
        "",
        "axes.vcpus.steps: expected 2",
    ),
    ('memory = "1GiB"\nvcpus = { from = 4, to = 9, stepps = 2 }', "", "axes.vcpus.steps: missing"),
    (
        'memory = "1GiB"\nvcpus = { from = 4, to = 9, steps = 2, scal = "log" }',
        "",
        "axes.vcpus.scal: unknown field; nearest: scale",
    ),
    (
        'memory = "1GiB"\nvcpus = { from = 4, to = 9, steps = 2, scale = "square" }',
        "",
        "axes.vcpus.scale: expected one of linear, log",
    ),
    (
        ONE + 'busy = { from = 0, to = 9, steps = 2, scale = "log" }',
        "",
        "axes.busy.from: expected m",
    ),
    (ONE, "trials = 0", "trials: expected 1 or more"),
    (ONE, "trials = 10_000_001", "trials: expected up to 10,000,000"),
    (ONE, f"trials = {10**30}", "trials: expected up to"),
    (ONE, "trials = 1e400", "trials: expected integer"),
    (ONE, "seed = -1", "seed: expected 0 or more"),
    (ONE, "seeds = 1", "seeds: unknown field; nearest: seed"),
    (ONE, "quantiles = []", "quantiles: expected a list of 1 to 9"),
    (ONE, "quantiles = [50, 50]", "quantiles[1]: expected more than the one before"),
    (ONE, "quantiles = [nan]", "quantiles[0]: expected 0 to 100"),
    (ONE, "quantiles = [101]", "quantiles[0]: expected 0 to 100"),
    (ONE, '"' + "x" * 100_000 + '" = 1', "x" * 60 + "..."),
]


@pytest.mark.parametrize(("axes", "top", "why"), BAD, ids=[case[2][:40] for case in BAD])
def test_a_wrong_plan_names_the_field(axes: str, top: str, why: str) -> None:
    assert wrong(axes, top).startswith(why)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "schema: missing"),
        ('schema = "tdxreclaim.sweep-plan/2"', "schema: expected tdxreclaim.sweep-plan/1"),
        ("x = " + "[" * 5000, "nested too deep"),
        ("a = 1" + "0" * 5000, "Exceeds the limit"),
        ("\0", "Invalid"),
    ],
)
def test_what_is_no_plan_at_all(text: str, why: str) -> None:
    with pytest.raises(MalformedInputError) as raised:
        read_plan(text, "plan.toml")
    assert raised.value.why.startswith(why)


def test_a_grid_of_10_to_the_30_is_refused_at_once() -> None:
    values = str(list(range(1, 1001)))
    faults = str(list(range(1000)))
    axes = f'memory = "1TiB"\nvcpus = {values}\nbusy = {faults}\nreclaim-fails = {faults}'
    assert wrong(axes).startswith("axes: 1000 x 1000 x 1000 combinations: at most 10,000,000")


def test_drain_needs_a_number_of_tds() -> None:
    assert wrong(ONE, command="drain").startswith("axes.tds: missing")
    assert plan(ONE + "tds = 3", command="drain").trials == 1


def test_a_grid_is_every_combination_the_last_axis_fastest() -> None:
    found = plan('memory = ["1GiB", "2GiB"]\nvcpus = [1, 2, 3]\nkernel = ["6.17", "6.18"]')
    trials = Trials(found)
    seen = [trials.at(index)[0] for index in range(found.trials)]

    assert len(set(seen)) == found.trials == 12
    assert [(t.td.memory_bytes // GIB, t.td.vcpus, t.host.kernel) for t in seen[:3]] == [
        (1, 1, "6.17"),
        (1, 1, "6.18"),
        (1, 2, "6.17"),
    ]


def test_steps_by_the_logarithm_are_exact_where_they_are_round() -> None:
    found = plan(
        'memory = { from = "16GiB", to = "4TiB", steps = 9, scale = "log" }\n'
        "vcpus = { from = 1, to = 4096, steps = 13, scale = 'log' }\n"
        "mapped = { from = '10%', to = '100%', steps = 10 }"
    )
    assert found.numbers("memory") == [16 * GIB << n for n in range(9)]
    assert found.numbers("vcpus") == [1 << n for n in range(13)]
    assert found.values("mapped") == tuple(Share(None, n * 10_000) for n in range(1, 11))


def test_the_digest_is_of_what_a_plan_means() -> None:
    one = plan(ONE, "trials = 100")
    assert (
        plan("# said otherwise\nvcpus=[4]\nmemory='18432MiB'", "trials = 1_00").digest == one.digest
    )
    for top in ("trials = 101", "trials = 100\nseed = 1", "trials = 100\nquantiles = [50]"):
        assert plan(ONE, top).digest != one.digest
    assert plan(ONE + "fatal = true", "trials = 100").digest != one.digest
    assert plan(ONE).digest != plan(ONE, "trials = 1").digest


RANGES = plan(
    'memory = { from = "16GiB", to = "4TiB", scale = "log" }\n'
    "vcpus = { from = 3, to = 130, scale = 'log' }\n"
    "mapped = { from = '25%', to = '100%' }\n"
    "busy = { from = 0, to = 2 }\n"
    "cpu = ['spr', 'emr', 'gnr']",
    "trials = 1000\nseed = 7",
)


def test_a_trial_has_the_axes_in_their_order() -> None:
    parts = (Size, Asked, Priced, Faults, Load)
    fields = [field for part in parts for field in part._fields]
    named = [name.replace("-", "_").replace("memory", "memory_bytes") for name in KINDS]
    assert fields == named


def test_draws_are_the_same_on_every_machine() -> None:
    """A change here changes every sweep that anybody has run."""
    assert Draws(7).block(3, 0)[:2] == (2664081247966364978, 9977252200761809382)
    trial, _ = Trials(RANGES).at(3)
    assert trial.td == (38_266_695_680, Share(None, 65_565), 17)
    assert (trial.faults.busy, trial.host.cpu) == (1, "emr")


def test_what_is_varied_besides_moves_no_other_draw() -> None:
    more = plan(
        RANGES.text.partition("[axes]\n")[2] + "cause = ['vcpus', 'memory']\nfatal = [true, false]",
        "trials = 99\nseed = 7",
    )
    for index in range(20):
        ours, theirs = Trials(RANGES).at(index)[0], Trials(more).at(index)[0]
        assert (ours.td, ours.host) == (theirs.td, theirs.host)
        assert ours.faults.busy == theirs.faults.busy


@given(st.integers(0, (1 << DRAW_BITS) - 1))
def test_a_draw_is_within_its_range(draw: int) -> None:
    memory, mapped, vcpus, cpu, busy = RANGES.axes
    size, share = memory.at(draw), mapped.at(draw)
    assert isinstance(size, int)
    assert isinstance(share, Share)
    assert 16 * GIB <= size <= 4096 * GIB
    assert size % 4096 == 0
    assert 25_000 <= share.thousandths <= 100_000
    assert vcpus.at(draw) in range(3, 131)
    assert busy.at(draw) in (0, 1, 2)
    assert cpu.at(draw) in ("spr", "emr", "gnr")


def test_draws_reach_both_ends_and_are_spread_evenly() -> None:
    memory, *_, busy = RANGES.axes
    last = (1 << DRAW_BITS) - 1
    assert (memory.at(0), memory.at(last)) == (16 * GIB, 4096 * GIB)
    assert (busy.at(0), busy.at(last // 2), busy.at(last)) == (0, 1, 2)
    middle = memory.at(last // 2)
    assert isinstance(middle, int)
    assert middle == pytest.approx(256 * GIB, rel=1e-6)
    trials = Trials(RANGES)
    below = sum(trials.at(index)[0].td.memory_bytes < 256 * GIB for index in range(1000))
    assert 450 < below < 550
