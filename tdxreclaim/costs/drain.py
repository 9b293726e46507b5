"""How long it takes to stop all TDs of a host, by list scheduling.

Each TD's shutdown is one kernel thread with locks of its own, but for phase B
(the HKID), which takes the host-wide ``tdx_lock``.  As many run at once as are
asked for and there are CPUs; the longest begin first, the next as soon as one
has ended.  Certain are two bounds: no drain is shorter than its longest TD
alone, none longer than all of them one after another.

What nobody has measured is how TDs slow each other down: they share the memory's
bandwidth, of which each takes 4 KiB a page, and as much again where it clears.

Source: linux 7.1 arch/x86/kvm/vmx/tdx.c and arch/x86/virt/vmx/tdx/tdx.c for the
locks; the scheduling is inferred.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.costs.estimate import Estimate, estimate
from tdxreclaim.engine.shape import Shape
from tdxreclaim.tables.teardown import Phase
from tdxreclaim.units import PAGE_BYTES, ZERO, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tdxreclaim.costs.calibration import Calibration, CostCause
    from tdxreclaim.costs.scene import Scene

MOST_TDS = 4096


class Td(NamedTuple):
    """A TD to be stopped."""

    name: str
    memory_bytes: int
    vcpus: int


class Times(NamedTuple):
    """What a TD's phases take, nanoseconds."""

    a_ns: int
    b_ns: int
    c_ns: int


class Slot(NamedTuple):
    """When a TD is stopped, nanoseconds from the beginning."""

    number: int
    start_ns: int
    lock_ns: int
    """When it gets the host-wide lock, for phase B."""
    end_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """All TDs under one rule."""

    at_once: int
    """How many run at once at most."""
    total: Span
    limited: bool
    """Whether the memory's bandwidth says how long it takes, by the likely times."""
    slots: tuple[Slot, ...]
    """By the likely times, in the TDs' order."""
    by_cause: tuple[tuple[CostCause, Span], ...]
    """The total if one cause drives what a page costs; empty where no two are left open."""
    bytes_a_second: float
    """What they ask of the memory while most of them run, by the likely times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drain:
    """A host's TDs, and how long it takes to stop them."""

    tds: tuple[Td, ...]
    estimates: tuple[Estimate, ...]
    together: Schedule
    one_by_one: Schedule
    asked: Schedule | None
    """So many at once as were asked for; None: nobody asked."""
    bytes_a_page: int
    """What a page's shutdown moves: it is written back, and cleared where the kernel does."""
    longest: Span
    """The longest of them alone: no drain is shorter."""
    sum: Span
    """All of them one after another: no drain is longer."""


def run(times: Sequence[Times], at_once: int) -> tuple[Slot, ...]:
    """Schedule TDs that begin in their order, so many at once; phase B one by one.

    >>> run([Times(10, 1, 2), Times(10, 1, 2)], 2)
    (Slot(number=0, start_ns=0, lock_ns=10, end_ns=13), Slot(number=1, start_ns=0, lock_ns=11, end_ns=14))
    """
    waiting = list(enumerate(times))[::-1]
    slots: list[Slot] = []
    # Who is in phase A, by when it ends; who is in C frees a thread when it ends.
    running: list[tuple[int, int, int]] = []
    free = [0] * min(at_once, len(times))
    lock_free = 0
    while waiting or running:
        if waiting and free and (not running or free[0] <= running[0][0]):
            start = heapq.heappop(free)
            number, each = waiting.pop()
            heapq.heappush(running, (start + each.a_ns, number, start))
            continue
        ready, number, start = heapq.heappop(running)
        lock = max(ready, lock_free)
        lock_free = lock + times[number].b_ns
        end = lock_free + times[number].c_ns
        heapq.heappush(free, end)
        slots.append(Slot(number, start, lock, end))
    return tuple(sorted(slots))


def drain(
    tds: Sequence[Td],
    scene: Scene,
    calibration: Calibration,
    *,
    at_once: int | None = None,
    cpus: int | None = None,
    bandwidth: int | None = None,
) -> Drain:
    """Say how long it takes to stop *tds*, longest first.

    At most *cpus* run at once, and no more bytes a second than *bandwidth* move;
    None: no such bound is known.

    Raises:
        UsageError: a TD's size makes no sense.
    """
    priced = sorted(
        ((td, _price(td, scene, calibration)) for td in tds),
        key=lambda pair: -pair[1].total.likely_ns,
    )
    found = tuple(td for td, _ in priced)
    estimates = tuple(each for _, each in priced)
    threads = min(len(found), cpus or len(found))
    totals = [each.total for each in estimates]
    clears = scene.plan.clearing.clears(erratum=scene.platform.erratum)
    bytes_a_page = PAGE_BYTES * (1 + clears)
    moved = sum(td.memory_bytes for td in found) // PAGE_BYTES * bytes_a_page
    everything = _sum(totals)
    # One after another they are as fast as each alone, which was timed.
    floor_ns = _floor_ns(moved, bandwidth)
    floor = Span(*(min(floor_ns, each) for each in everything))

    def schedule(most: int) -> Schedule:
        return _schedule(found, estimates, most, bytes_a_page, floor)

    return Drain(
        tds=found,
        estimates=estimates,
        together=schedule(threads),
        one_by_one=schedule(1),
        asked=None if at_once is None else schedule(min(at_once, threads)),
        bytes_a_page=bytes_a_page,
        longest=Span(*(max(span[part] for span in totals) for part in range(3))),
        sum=everything,
    )


def drain_alike(
    phases: Sequence[Span],
    tds: int,
    *,
    at_once: int | None,
    cpus: int | None,
    moved_bytes: int,
    bandwidth: int | None,
) -> Span:
    """Say how long it takes to stop so many TDs of the same *phases* A, B and C.

    *moved_bytes* is what all of them ask of the memory; the rest is as in `drain`.
    """
    most = min(tds, cpus or tds, at_once or tds)
    ends = []
    for part in range(3):
        times = Times(*(phase[part] for phase in phases))
        floor = _floor_ns(moved_bytes, bandwidth)
        ends.append(max(_end(run([times] * tds, most)), min(floor, sum(times) * tds)))
    return Span(*ends)


def _floor_ns(moved_bytes: int, bandwidth: int | None) -> int:
    return 0 if bandwidth is None else -(-moved_bytes * 1_000_000_000 // bandwidth)


def _price(td: Td, scene: Scene, calibration: Calibration) -> Estimate:
    shape = Shape(memory_bytes=td.memory_bytes, vcpus=td.vcpus)
    return estimate(shape, scene.plan, scene.platform, calibration)


def _schedule(
    tds: Sequence[Td],
    estimates: Sequence[Estimate],
    at_once: int,
    bytes_a_page: int,
    floor: Span,
) -> Schedule:
    low, likely, high = (
        run([_times(each, part) for each in estimates], at_once) for part in range(3)
    )
    rates = [
        td.memory_bytes / PAGE_BYTES * 1e9 / max(1, each.phase(Phase.GUEST_PAGES).likely_ns)
        for td, each in zip(tds, estimates, strict=True)
    ]
    return Schedule(
        at_once=at_once,
        total=Span(*map(max, map(_end, (low, likely, high)), floor)),
        limited=floor.likely_ns > _end(likely),
        slots=likely,
        # In the first moment as many run as ever do.
        by_cause=tuple(_by_cause(estimates, at_once, floor)),
        bytes_a_second=bytes_a_page * sum(rates[s.number] for s in likely if s.start_ns == 0),
    )


def _end(slots: Iterable[Slot]) -> int:
    return max(slot.end_ns for slot in slots)


def _times(each: Estimate, part: int) -> Times:
    return Times(*(each.phase(phase)[part] for phase in _PHASES))


_PHASES = (Phase.GUEST_PAGES, Phase.HKID, Phase.CONTROL_PAGES)


def _by_cause(
    estimates: Sequence[Estimate], at_once: int, floor: Span
) -> Iterator[tuple[CostCause, Span]]:
    for cause in estimates[0].causes if all(each.causes for each in estimates) else ():
        ends = []
        for part in range(3):
            times = []
            for each in estimates:
                # What a cause takes off is of phase A, but for TDs that have next to none.
                _, b_ns, c_ns = _times(each, part)
                whole = each.causes[cause][part]
                a_ns = max(0, whole - b_ns - c_ns)
                times.append(Times(a_ns, b_ns, whole - a_ns - b_ns))
            ends.append(max(_end(run(times, at_once)), floor[part]))
        yield cause, Span(*ends)


def _sum(spans: Iterable[Span]) -> Span:
    total = ZERO
    for span in spans:
        total = total.plus(span)
    return total
