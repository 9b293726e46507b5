"""What adds up: no order matters, and a quantile is where it should be."""

from __future__ import annotations

import json
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.sweep.plan import read_plan
from tdxreclaim.sweep.tally import MemoryBins, Tally, Times, greatest_of, least_of, step_of
from tdxreclaim.units import Span

numbers = st.integers(0, 1 << 70)


@given(numbers)
def test_a_step_is_a_thousandth_wide(number: int) -> None:
    step = step_of(number)
    assert least_of(step) <= number <= greatest_of(step)
    assert greatest_of(step) - least_of(step) <= number >> 9


@given(numbers, numbers)
def test_steps_are_in_order(one: int, other: int) -> None:
    assert (one <= other) is (step_of(one) <= step_of(other)) or step_of(one) == step_of(other)


def counted(times: list[Span]) -> Times:
    found = Times()
    for time in times:
        found.add(time, map(step_of, time))
    return found


spans = st.lists(st.integers(1, 1 << 50), min_size=3, max_size=3).map(lambda n: Span(*sorted(n)))


@given(st.lists(spans, min_size=1, max_size=30), st.sampled_from([0, 10, 50, 90, 99.9, 100]))
def test_a_quantile_holds_the_exact_one(times: list[Span], percent: float) -> None:
    rank = max(1, ceil(percent * len(times) / 100)) - 1
    low, likely, high = (sorted(each[part] for each in times)[rank] for part in range(3))
    found = counted(times).quantile(percent)

    assert found.low_ns <= low <= found.low_ns * 1.001 + 1
    assert found.likely_ns <= likely <= found.likely_ns * 1.001 + 1
    assert high <= found.high_ns <= high * 1.001 + 1


@given(st.lists(spans, min_size=1, max_size=20), st.integers(0, 20))
def test_no_order_of_merging_matters(times: list[Span], cut: int) -> None:
    one, other = counted(times[:cut]), counted(times[cut:])
    other.merge(one)
    whole = counted(times)

    assert other.parts == whole.parts
    assert (other.least_ns, other.most_ns) == (whole.least_ns, whole.most_ns)


def test_there_is_no_quantile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no trials"):
        Times().quantile(50)


HEAD = 'schema = "tdxreclaim.sweep-plan/1"\ncommand = "simulate"\ntrials = 9\n[axes]\nvcpus = 4\n'


@pytest.mark.parametrize(
    "memory",
    [
        '["1GiB", "3GiB", "2GiB"]',
        '{ from = "16GiB", to = "4TiB" }',
        '{ from = "4KiB", to = "12KiB" }',
        '{ from = "1GiB", to = "4TiB", steps = 1000 }',
    ],
)
def test_every_size_has_a_part(memory: str) -> None:
    plan = read_plan(f"{HEAD}memory = {memory}", "plan")
    bins = MemoryBins(plan)
    for size in plan.numbers("memory"):
        part = bins.at(size)
        assert 0 <= part < len(bins.sizes)
        assert not bins.listed or bins.sizes[part] == size


def test_written_and_read_again_is_the_same() -> None:
    plan = read_plan(HEAD + 'memory = ["1GiB", "2GiB"]', "plan")
    written = {
        "outside": 1,
        "width": 9,
        "sum": 40_000,
        "square": 1_000_000_000,
        "axes": [[[1, 10_000], [1, 30_000]]],
        "times": [[0, 1, 5, 9, [[1024, 2]], [[1024, 1], [2048, 1]], [[2048, 2]]]],
    }
    tally = Tally(plan)
    tally.read(json.loads(json.dumps(written)))

    assert json.loads(json.dumps(tally.write())) == written
    assert tally.trials == 2
    assert tally.shares() == [1.0]
    tally.read(written)
    assert tally.trials == 4
    assert Tally(plan).trials == 0


def test_equal_times_have_no_spread_to_explain() -> None:
    plan = read_plan(HEAD + 'memory = ["1GiB", "2GiB"]', "plan")
    tally = Tally(plan)
    steps = [[5, 2]]
    tally.read(
        {
            "outside": 0,
            "width": 0,
            "sum": 10,
            "square": 50,
            "axes": [[[1, 5], [1, 5]]],
            "times": [[0, 0, 1, 1, steps, steps, steps]],
        }
    )
    assert tally.shares() == [0.0]
