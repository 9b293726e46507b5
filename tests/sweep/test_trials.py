"""Trials: each says what simulate or drain says of the same question."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tdxreclaim.cli.sweep_job import make_job
from tdxreclaim.costs.calibration import CostCause
from tdxreclaim.costs.drain import Td, drain
from tdxreclaim.costs.estimate import estimate
from tdxreclaim.costs.scene import Scene
from tdxreclaim.costs.shipped import read_calibration
from tdxreclaim.engine.faults import Injections
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLAN_OF_ORDER
from tdxreclaim.engine.shape import Shape
from tdxreclaim.errors import MalformedInputError
from tdxreclaim.sweep.plan import read_plan
from tdxreclaim.sweep.trials import Job, Outcome, Runner, cut
from tdxreclaim.tables.teardown import Action
from tdxreclaim.units import Span

PUBLISHED = read_calibration("published")

SIMULATE = """
schema = "tdxreclaim.sweep-plan/1"
command = "simulate"
trials = 300
[axes]
memory = { from = "1GiB", to = "4TiB", scale = "log" }
mapped = { from = "25%", to = "100%" }
vcpus = { from = 1, to = 200 }
cpu = ["spr", "gnr", "6/0xaf"]
kernel = ["6.17", "6.18", "v7.3"]
order = ["upstream", "hkid-first"]
clear = ["kernel", "always", "erratum", "never"]
cause = ["open", "vcpus", "memory"]
busy = [0, 1000]
reclaim-fails = { from = 0, to = 3 }
fatal = [false, true]
"""
DRAIN = """
schema = "tdxreclaim.sweep-plan/1"
command = "drain"
trials = 120
[axes]
memory = { from = "1GiB", to = "1TiB" }
vcpus = [4, 64]
cpu = ["spr", "gnr"]
kernel = ["6.17", "6.18"]
tds = { from = 1, to = 20 }
at-once = ["all", 1, 3]
cpus = { from = 2, to = 8 }
bandwidth = ["10GB", "1TB"]
"""


def job(text: str) -> Job:
    return make_job(read_plan(text, "plan"), PUBLISHED, "plan")


def outcomes(text: str) -> list[Outcome]:
    made = job(text)
    return list(Runner(made).run(0, made.plan.trials))


def test_a_trial_says_what_simulate_says() -> None:
    for outcome in outcomes(SIMULATE):
        td, setting = outcome.trial.td, outcome.setting
        shape = Shape(memory_bytes=td.memory_bytes, vcpus=td.vcpus, mapped=td.mapped_bytes)
        busy, reclaim_fails, fatal = outcome.trial.faults
        faults = Injections(busy=busy, reclaim_fails=reclaim_fails, fatal=bool(fatal))
        cause = outcome.trial.priced.cause
        plan = PLAN_OF_ORDER[setting.order].with_clearing(setting.clearing)
        platform = Platform(erratum=setting.affected)
        alone = estimate(shape, plan, platform, PUBLISHED, faults)
        same = alone.total if cause == "open" else alone.causes[CostCause(cause)]

        assert outcome.time == same, outcome
        assert outcome.clear == alone.action(Action.CLEAR)
        assert outcome.outside is bool(alone.extrapolates)


def test_a_trial_says_what_drain_says() -> None:
    for outcome in outcomes(DRAIN):
        trial, setting = outcome.trial, outcome.setting
        number, at_once, cpus, bandwidth = trial.load
        plan = PLAN_OF_ORDER[setting.order].with_clearing(setting.clearing)
        scene = Scene(plan, Platform(erratum=setting.affected), "", "", ())
        tds = [Td("", trial.td.memory_bytes, trial.td.vcpus)] * (number or 0)
        found = drain(
            tds,
            scene,
            PUBLISHED,
            at_once=at_once if isinstance(at_once, int) else len(tds),
            cpus=cpus,
            bandwidth=bandwidth,
        )

        assert found.asked is not None
        assert (outcome.time, outcome.clear) == (found.asked.total, None), outcome


COSTS = """
schema = "tdxreclaim.sweep-plan/1"
command = "simulate"
[axes]
memory = ["107GiB", "4TiB"]
vcpus = [4, 32]
cost = ["range", "low", "likely", "high", "drawn-together", "drawn-apart"]
"""


def test_a_trial_takes_the_calibration_s_range_as_it_is_told() -> None:
    found = outcomes(COSTS)
    for start in range(0, len(found), 6):
        whole, low, likely, high, together, apart = (each.time for each in found[start : start + 6])
        assert (low, likely, high) == tuple(Span(ns, ns, ns) for ns in whole)
        for drawn in (together, apart):
            assert drawn.low_ns == drawn.high_ns
            assert whole.low_ns < drawn.low_ns < whole.high_ns
        assert together != apart


def test_a_cause_that_the_calibration_settles_is_no_choice() -> None:
    settled = replace(
        PUBLISHED,
        steps={a: replace(s, grows_with=(CostCause.MEMORY,)) for a, s in PUBLISHED.steps.items()},
    )
    with pytest.raises(MalformedInputError) as raised:
        make_job(read_plan(SIMULATE, "plan"), settled, "plan")
    assert raised.value.why == "axes.cause[1]: calibration published leaves no cause open"


def test_a_policy_is_the_order_and_when_it_clears() -> None:
    made = job(SIMULATE)
    assert len(made.policies) == 6
    assert [made.policies[0], made.policies[-1]] == [
        ("upstream", "always"),
        ("hkid-first", "never"),
    ]


def test_where_nothing_was_timed_every_trial_is_outside() -> None:

    made = make_job(read_plan(COSTS, "plan"), replace(PUBLISHED, rows=()), "plan")
    assert all(outcome.outside for outcome in Runner(made).run(0, 4))


@pytest.mark.parametrize("trials", [1, 249, 250, 251, 100_000, 9_999_999, 10_000_000])
@pytest.mark.parametrize("parts", [1, 3, 300])
def test_chunks_cover_every_trial_once(trials: int, parts: int) -> None:
    chunks = sorted(chunk for part in range(1, parts + 1) for chunk in cut(trials, part, parts))
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    ends = [0, *(chunk.stop for chunk in chunks)]
    assert [chunk.start for chunk in chunks] == ends[:-1]
    assert ends[-1] == trials
    assert all(0 < chunk.stop - chunk.start <= 4000 for chunk in chunks)
