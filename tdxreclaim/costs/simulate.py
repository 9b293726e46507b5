"""One teardown from start to end: faults, plan, time, and the reuse afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdxreclaim.costs.estimate import Estimate, price, prices
from tdxreclaim.engine.build import build
from tdxreclaim.engine.faults import (
    DEFAULT_PARTIAL_WRITES,
    NOTHING,
    Injections,
    partial_lines,
    put_in,
)
from tdxreclaim.engine.plan import PLANS, Order, Plan
from tdxreclaim.engine.recorder import Event, Recorder
from tdxreclaim.engine.reuse import Aftermath, Hazard
from tdxreclaim.engine.teardown import EmulatedHost, FailedPages

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from tdxreclaim.costs.calibration import Calibration
    from tdxreclaim.engine.module import MachineCheck, Platform
    from tdxreclaim.engine.shape import Shape


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
    leaked: tuple[FailedPages, ...]
    """Pages that nobody gets before a reboot."""
    handed_back: tuple[FailedPages, ...]
    """Pages that the host hands out again although the module has them as the TD's."""
    overwritten_lines: int
    """Lines of those that were written back for the TD after they were handed back."""
    hazards: Mapping[Hazard, int]
    """Pages that were handed over as reusable with something wrong, before any reuse."""
    partial_writes: int
    """Partial writes that the host made on reuse."""
    partial_writes_skipped: int
    """Partial writes that were not made, because their page had leaked."""
    machine_check_count: int
    """Lines whose poison the host consumed when it used the memory again."""
    contested_reads: int
    """Lines that the host read as zeros where a source that was read has a #MC."""
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
        return _pages(self.leaked)

    @property
    def pages_handed_back(self) -> int:
        """Pages that go back to the host while the TD owns them."""
        return _pages(self.handed_back)

    @property
    def pages_reclaimed(self) -> int:
        """Pages that come back as they should."""
        return self.pages_in - self.pages_leaked - self.pages_handed_back

    @property
    def is_clean(self) -> bool:
        """No machine check, and every page came back."""
        return not (self.machine_check_count or self.leaked or self.handed_back)


def simulate(  # noqa: PLR0913 - one argument for each thing that can be varied
    shape: Shape,
    plan: Plan,
    platform: Platform,
    calibration: Calibration,
    injections: Injections = NOTHING,
    *,
    seed: int = 0,
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
        trace: how many of the first steps to keep.
        watch: page frame numbers whose lives to keep.
        progress: called now and then with pages done and pages in all.

    Raises:
        UsageError: injections do not fit the shape, or a watched page is not the TD's.
    """
    injections.check(shape)

    def tick(done: int) -> Callable[[], None]:
        """Work that does no page of the teardown still lets the caller look in."""
        return lambda: progress(done, shape.pages) if progress is not None else None

    recorder = Recorder(trace, [shape.page(pfn) for pfn in watch])
    machine = build(shape, platform)
    for page in recorder.pages:
        machine.pages.isolate(page)
    cheap = {action: span.likely_ns for action, span in prices(calibration, shape).items()}
    host = EmulatedHost(machine, shape, plan, prices=cheap, recorder=recorder, progress=progress)
    for page, line in put_in(injections, machine, shape, plan.order, seed, tick(0)):
        host.note_fault(page, line)
    host.tear_down()
    after = Aftermath(host, recorder)
    hazards = after.hazards()
    made, skipped = after.use(partial_lines(injections, shape, seed), tick(shape.pages))
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
        leaked=tuple(host.leaked.values()),
        handed_back=tuple(host.handed_back.values()),
        overwritten_lines=host.overwritten_lines,
        hazards=hazards,
        partial_writes=made,
        partial_writes_skipped=skipped,
        machine_check_count=machine.machine_check_count,
        contested_reads=after.contested_reads,
        machine_checks=tuple(machine.machine_checks),
        events=tuple(recorder.events),
        lives={shape.base_pfn + page: tuple(life) for page, life in recorder.lives.items()},
        notes=_notes(plan, injections),
    )


def _pages(failed: Iterable[FailedPages]) -> int:
    return sum(each.pages for each in failed)


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
    return tuple(said)
