"""Draining a host: one TD as simulate has it, bounds, the lock, who runs when."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.costs.drain import Drain, Slot, Td, Times, drain, run
from tdxreclaim.costs.scene import Scene
from tdxreclaim.costs.shipped import read_calibration
from tdxreclaim.costs.simulate import simulate
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLANS
from tdxreclaim.engine.shape import Shape

PUBLISHED = read_calibration("published")
SCENES = [
    Scene(PLANS[kernel], Platform(erratum=erratum, packages=2), kernel, "a CPU", ())
    for kernel in ("6.16", "6.18")
    for erratum in (False, True)
]
SIZES = st.integers(1, 1 << 22).map(lambda pages: pages * 4096)
TDS = st.lists(st.builds(Td, st.just("td"), SIZES, st.integers(1, 256)), min_size=1, max_size=20)


@given(SIZES, st.integers(1, 512), st.sampled_from(SCENES))
def test_one_td_costs_what_simulate_says_to_the_nanosecond(
    memory: int, vcpus: int, scene: Scene
) -> None:
    found = drain([Td("td", memory, vcpus)], scene, PUBLISHED, at_once=7)
    shape = Shape(memory_bytes=memory, vcpus=vcpus)
    alone = simulate(shape, scene.plan, scene.platform, PUBLISHED).estimate.total

    assert found.asked is not None
    for each in (found.together, found.one_by_one, found.asked):
        assert each.total == alone
        assert each.at_once == 1
        assert dict(each.by_cause) == found.estimates[0].causes
    assert found.longest == found.sum == alone


def _sound(found: Drain, slots: tuple[Slot, ...], at_once: int) -> None:
    """Each TD once, never more at once than allowed, the lock with one at a time."""
    assert [slot.number for slot in slots] == list(range(len(found.tds)))
    held = sorted((slot.lock_ns, slot.lock_ns + _b(found, slot.number)) for slot in slots)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(held))
    for slot in slots:
        beside = [each for each in slots if each.start_ns <= slot.start_ns < each.end_ns]
        assert len(beside) <= at_once


def _b(found: Drain, number: int) -> int:
    from tdxreclaim.tables.teardown import Phase

    return found.estimates[number].phase(Phase.HKID).likely_ns


@given(TDS, st.integers(1, 25), st.one_of(st.none(), st.integers(1, 25)), st.sampled_from(SCENES))
def test_every_schedule_is_sound_and_between_the_bounds(
    tds: list[Td], at_once: int, cpus: int | None, scene: Scene
) -> None:
    found = drain(tds, scene, PUBLISHED, at_once=at_once, cpus=cpus)
    assert found.asked is not None
    for each in (found.together, found.asked, found.one_by_one):
        assert each.at_once <= min(len(tds), cpus or len(tds))
        _sound(found, each.slots, each.at_once)
        for part in range(3):
            assert found.longest[part] <= each.total[part] <= found.sum[part]
    assert found.one_by_one.total == found.sum
    for part in range(3):
        assert found.together.total[part] <= found.one_by_one.total[part]
    likely = [each.total.likely_ns for each in found.estimates]
    assert likely == sorted(likely, reverse=True), "the longest begin first"


@given(TDS, st.integers(1, 1 << 50), st.sampled_from(SCENES))
def test_a_bound_on_bandwidth_never_shortens_and_never_passes_the_sum(
    tds: list[Td], bandwidth: int, scene: Scene
) -> None:
    free = drain(tds, scene, PUBLISHED)
    bound = drain(tds, scene, PUBLISHED, bandwidth=bandwidth)
    for part in range(3):
        assert free.together.total[part] <= bound.together.total[part] <= bound.sum[part]
    assert bound.one_by_one.total == free.one_by_one.total
    assert bound.together.limited is (
        bound.together.total.likely_ns > free.together.total.likely_ns
    )


def test_the_lock_is_the_hosts() -> None:
    slots = run([Times(100, 10, 1)] * 3, 3)
    assert [(slot.start_ns, slot.lock_ns, slot.end_ns) for slot in slots] == [
        (0, 100, 111),
        (0, 110, 121),
        (0, 120, 131),
    ]


def test_the_next_begins_as_soon_as_one_has_ended() -> None:
    slots = run([Times(100, 0, 0), Times(30, 0, 0), Times(50, 0, 0), Times(10, 0, 0)], 2)
    assert [(slot.start_ns, slot.end_ns) for slot in slots] == [
        (0, 100),
        (0, 30),
        (30, 80),
        (80, 90),
    ]


@pytest.mark.parametrize("scene", SCENES)
def test_what_is_asked_of_the_memory(scene: Scene) -> None:
    clears = scene.plan.clearing.clears(erratum=scene.platform.erratum)
    found = drain([Td("td", 18 << 30, 4)] * 10, scene, PUBLISHED)
    assert found.bytes_a_page == (8192 if clears else 4096)
    # facts 4.7: 0.5 GB/s a TD at 15 us a page that is cleared too
    assert found.together.bytes_a_second == pytest.approx(
        10 * (0.54e9 if clears else 0.31e9), rel=0.05
    )
    assert found.one_by_one.bytes_a_second == pytest.approx(
        found.together.bytes_a_second / 10, rel=0.01
    )
