"""One teardown from start to end: faults, plan, time, and the reuse afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdxreclaim.engine.cost import Estimate, price, prices
from tdxreclaim.engine.host import Host, Leak
from tdxreclaim.engine.inject import (
    DEFAULT_PARTIAL_WRITES,
    NOTHING,
    Injections,
    partial_lines,
    put_in,
)
from tdxreclaim.engine.machine import Machine, MachineCheck, Platform
from tdxreclaim.engine.memory import PageStore
from tdxreclaim.engine.plan import PLANS, Action, Order, Plan
from tdxreclaim.engine.reuse import Aftermath, Hazard
from tdxreclaim.engine.shape import Shape
from tdxreclaim.engine.states import PAGE_BYTES, PAGES, USE_SHIFT, Dirty, Health, Line, Page, Use
from tdxreclaim.engine.trace import Event, Recorder
from tdxreclaim.engine.truth import Mode
from tdxreclaim.errors import MalformedInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from tdxreclaim.engine.calibration import Calibration


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a simulated teardown came to."""

    shape: Shape
    plan: Plan
    platform: Platform
    injections: Injections
    seed: int
    clears: bool
    """Whether this plan clears on this platform."""
    estimate: Estimate
    """From the steps that were done."""
    clock_ns: int
    """Likely time, added up step by step; equals ``estimate.total.likely_ns``."""
    pages_in: int
    pages_reclaimed: int
    leaks: tuple[Leak, ...]
    hazards: Mapping[Hazard, int]
    """Pages that were handed over as reusable with something wrong, before any reuse."""
    partial_writes: int
    """Partial writes that the host made on reuse."""
    partial_writes_skipped: int
    """Partial writes that were not made, because their page had leaked."""
    machine_check_count: int
    """Lines whose poison the host consumed when it used the memory again."""
    machine_checks: tuple[MachineCheck, ...]
    """Some of them by ascending address, at most 1000.  A real host would not survive many."""
    events: tuple[Event, ...]
    """The first steps, as many as were asked for."""
    lives: Mapping[int, tuple[Event, ...]]
    """The life of each watched page, by page frame number."""
    notes: tuple[str, ...]
    """What somebody who reads the numbers should know."""

    @property
    def pages_leaked(self) -> int:
        """Pages that the host does not get back."""
        return sum(leak.pages for leak in self.leaks)

    @property
    def is_clean(self) -> bool:
        """No machine check and no leaked page."""
        return not self.machine_check_count and not self.leaks


def initial_page(use: Use, mode: Mode) -> Page:
    """A page of a TD as the teardown finds it.

    Every line counts as changed in the cache and not yet in memory: the most
    that a cache can hold back, so that a missing flush shows.
    """
    fits = Health.MAC_FITS if mode is Mode.CI else Health.MAC_UNFIT
    return Page(use, Line(True, fits, Dirty.GLOBAL if use is Use.TDR else Dirty.TD))


def build(
    shape: Shape,
    platform: Platform,
    states: bytes | bytearray | memoryview | None = None,
    partition: bytes | None = None,
) -> Machine:
    """A machine with one TD of this shape, all pages in place.

    *states* gives each guest page a state of its own (``states.Page.code``);
    it is not copied and must not be changed while the machine lives.
    *partition* is ``memory.PageStore.load``'s.

    Raises:
        MalformedInputError: *states* is not a byte for each guest page, or
            holds one that is not a guest page's.
    """
    pages = PageStore(shape.pages, 0)
    for span, use in shape.uses():
        pages.fill(span.start, span.stop, initial_page(use, platform.mode).code)
    if states is not None:
        if len(states) != shape.guest_pages:
            raise MalformedInputError("states", f"expected {shape.guest_pages}, got {len(states)}")
        pages.load(0, states, partition)
        if pages.plain_count(0, shape.guest_pages, _NOT_GUEST)[1]:
            strange = pages.plain_find(0, shape.guest_pages, _NOT_GUEST, 1)
            raise MalformedInputError("states", f"[{strange[0]}]: not a guest page's state")
    return Machine(platform, pages, vcpus=shape.vcpus, base_pfn=shape.base_pfn)


_NOT_GUEST = bytes(Use(code >> USE_SHIFT) not in (Use.MAPPED, Use.BLOCKED) for code in range(256))


_GUEST = bytes(code for code in range(256) if not _NOT_GUEST[code])


def foresee(plan: Plan, platform: Platform, *, fatal: bool) -> bytes:
    """Classes of states that come to the same in all that a simulation asks.

    Found by a rehearsal with one page of each state.  Class 0 is no guest
    page's.
    """
    shape = Shape(memory_bytes=len(_GUEST) * PAGE_BYTES, vcpus=1)
    machine = build(shape, platform, _GUEST)
    machine.td.fatal = fatal
    host = Host(machine, shape, plan, prices=dict.fromkeys(Action, 0))
    host.tear_down()
    after = Aftermath(machine, host.kept_out, Recorder(), 0)
    after.hazards()
    after.use(())
    questions = {tuple(asked[code] for code in _GUEST) for asked in machine.pages.asked}
    questions = {answers for answers in questions if len(set(answers)) > 1}
    kinds = [tuple(answers[i] for answers in questions) for i in range(len(_GUEST))]
    if len(set(kinds)) > len(questions) + 2:
        # Cheaper to ask again than to count so many classes: the use will do.
        kinds = [(PAGES[code].use,) for code in _GUEST]
    number = {kind: i for i, kind in enumerate(dict.fromkeys(kinds), start=1)}
    classes = bytearray(256)
    for code, kind in zip(_GUEST, kinds, strict=True):
        classes[code] = number[kind]
    return bytes(classes)


def simulate(  # noqa: PLR0913 - one argument for each thing that can be varied
    shape: Shape,
    plan: Plan,
    platform: Platform,
    calibration: Calibration,
    injections: Injections = NOTHING,
    *,
    seed: int = 0,
    states: bytes | bytearray | memoryview | None = None,
    trace: int = 0,
    watch: Collection[int] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Tear a TD down step by step, then use its memory again.

    Args:
        shape: how large the TD is.
        plan: what the kernel does; see ``plan.PLANS``.
        platform: the hardware.
        calibration: what the steps cost.
        injections: what goes wrong.
        seed: where it goes wrong.
        states: see ``build``.
        trace: how many of the first steps to keep.
        watch: page frame numbers whose lives to keep.
        progress: called now and then with pages done and pages in all.

    Raises:
        UsageError: injections do not fit the shape, or a watched page is not the TD's.
        MalformedInputError: see ``build``.
    """
    injections.check(shape)

    def beat(done: int) -> Callable[[], None]:
        """Work that does no page of the teardown still lets the caller look in."""
        return lambda: progress(done, shape.pages) if progress is not None else None

    recorder = Recorder(trace, [shape.page(pfn) for pfn in watch])
    partition = None
    if states is not None:
        partition = foresee(plan, platform, fatal=injections.fatal)
    machine = build(shape, platform, states, partition)
    for page in recorder.pages:
        machine.pages.isolate(page)
    cheap = {action: span.likely_ns for action, span in prices(calibration, shape.vcpus).items()}
    host = Host(machine, shape, plan, prices=cheap, recorder=recorder, progress=progress)
    for page, line in put_in(injections, machine, shape, plan.order, seed, beat(0)):
        host.note_fault(page, line)
    host.tear_down()
    after = Aftermath(machine, host.kept_out, recorder, host.clock_ns)
    hazards = after.hazards()
    made, skipped = after.use(partial_lines(injections, shape, seed), beat(shape.pages))
    leaks = tuple(host.leaks.values())
    return Result(
        shape=shape,
        plan=plan,
        platform=platform,
        injections=injections,
        seed=seed,
        clears=host.clears,
        estimate=price(host.counts, calibration, shape),
        clock_ns=host.clock_ns,
        pages_in=shape.pages,
        pages_reclaimed=shape.pages - sum(leak.pages for leak in leaks),
        leaks=leaks,
        hazards=hazards,
        partial_writes=made,
        partial_writes_skipped=skipped,
        machine_check_count=machine.machine_check_count,
        machine_checks=tuple(machine.machine_checks),
        events=tuple(recorder.events),
        lives={shape.base_pfn + page: tuple(life) for page, life in recorder.lives.items()},
        notes=_notes(plan, injections),
    )


def _notes(plan: Plan, injections: Injections) -> tuple[str, ...]:
    said = []
    if plan.order is Order.HKID_FIRST:
        said.append(f"plan {plan.name}: {plan.note}")
    if plan.clearing is not PLANS[plan.name].clearing:
        said.append(f"clearing {plan.clearing} is asked for; {plan.kernels} does otherwise")
    if injections.partial_writes is None:
        said.append(
            f"{DEFAULT_PARTIAL_WRITES} partial writes by the host on reuse are assumed, "
            "not known of any host"
        )
    if plan.order is Order.HKID_FIRST and injections.busy:
        said.append("busy has no effect: nothing contends for a page once the HKID is free")
    if plan.order is Order.HKID_FIRST and injections.fatal:
        said.append("fatal has no effect: a FATAL TD allows every leaf of this order")
    if plan.finds_poisoned_page is None:
        said.append("whether this kernel marks poisoned pages is not verified")
    return tuple(said)
