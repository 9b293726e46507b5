"""The host: performs a teardown plan on the machine.

Pages that are alike are torn down once, on a machine with a single page, and
the outcome holds for all of them; pages with faults, scripted replies or a
watcher are torn down one by one.  Both ways run the same code.

Retries and what becomes of failures are the kernel's (Linux 6.16 to 7.3
``arch/x86/kvm/vmx/tdx.c``): one retry on TDX_OPERAND_BUSY after kicking all
vCPUs; a guest page on which anything else fails leaks or goes back to the host
as it is, as the plan has it; a control page leaks, and all of them do where the
HKID cannot be released.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.engine.plan import Plan, PlanStep, Scope, Stage
from tdxreclaim.engine.recorder import Event, Recorder
from tdxreclaim.engine.states import LINES_PER_PAGE, PAGES, Dirty, KeyIdState
from tdxreclaim.engine.truth import Key, Op
from tdxreclaim.tables.kernels import FailedPage
from tdxreclaim.tables.seamcalls import SUCCESS, Reply, Status
from tdxreclaim.tables.teardown import Action, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tdxreclaim.engine.module import Machine
    from tdxreclaim.engine.shape import Shape

_MAX_CACHE_WB_LOOPS = 10_000


_MAX_LISTED_PAGES = 16


# Every state is in class 1.
_ANY = bytes([1]) * 256


_DIRTY = bytes(page.line.dirty is Dirty.TD for page in PAGES)


_ON_PAGES = frozenset(
    {Scope.GUEST_PAGE, Scope.SEPT_PAGE, Scope.VCPU_PAGE, Scope.TDCS_PAGE, Scope.TDR}
)


class Reason(StrEnum):
    """Why a page does not come back as it should."""

    SEAMCALL_FAILED = "seamcall-failed"
    HKID_STILL_ASSIGNED = "hkid-still-assigned"


class Failure(NamedTuple):
    """What pages that failed alike have in common."""

    scope: Scope
    reason: Reason
    action: Action | None
    """The step that failed."""
    reply: Reply | None


@dataclass(slots=True)
class FailedPages:
    """Pages that failed alike."""

    failure: Failure
    pages: int = 0
    pfns: list[int] = field(default_factory=list)
    """Some of them, at most 16."""


class _Outcome(NamedTuple):
    """What a stage does to one page, as far as it differs between page states."""

    counts: tuple[tuple[Action, int], ...]
    failure: Failure | None
    children: int
    epochs: int


class EmulatedHost:
    """Drives one machine through one plan.  Use once."""

    def __init__(
        self,
        machine: Machine,
        shape: Shape,
        plan: Plan,
        *,
        prices: Mapping[Action, int],
        recorder: Recorder | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.machine = machine
        self.plan = plan
        self.clears = plan.clearing.clears(erratum=machine.platform.erratum)
        self.counts: Counter[tuple[Phase, Action]] = Counter()
        self.clock_ns = 0
        """Likely nanoseconds so far."""
        self.leaked: dict[Failure, FailedPages] = {}
        """Nobody gets these pages before a reboot."""
        self.handed_back: dict[Failure, FailedPages] = {}
        """The host hands these out again, uncleared, while the module has them as the TD's."""
        self.overwritten_lines = 0
        """Lines of such pages that CACHE.WB wrote for the TD, over what the host had there."""
        self._shape = shape
        self._prices = prices
        self._recorder = recorder or Recorder()
        self._progress = progress
        self._done_pages = 0
        self.kept_out: set[int] = set()
        """Pages that leaked one by one; those that leaked by the run are not NDA."""
        self._hkid_kept = False

    def tear_down(self) -> None:
        """Perform the plan."""
        for stage in self.plan.stages:
            if stage.scope in _ON_PAGES:
                self._page_stage(stage)
            elif stage.phase is Phase.HKID and self._hkid_kept:
                # TDX_FLUSHVP_NOT_DONE: the kernel returns in silence, the HKID stays.
                continue
            elif stage.scope is Scope.PACKAGE:
                self._write_back_packages(stage)
            else:
                for number in range(self._shape.vcpus if stage.scope is Scope.VCPU else 1):
                    self._other(stage, number)

    def note_fault(self, page: int, line: int) -> None:
        """Record that a line was tampered with before the teardown."""
        if self._recorder.wants(page):
            self._recorder.add(
                Event(
                    at_ns=0,
                    phase=Phase.BEFORE,
                    did=None,
                    scope=Scope.GUEST_PAGE,
                    number=page,
                    pfn=self.machine.base_pfn + page,
                    line=line,
                    after=self.machine.line(page, line),
                )
            )

    def perform(self, stage: Stage, page: int) -> Failure | None:
        """Do a stage to one page; what it failed by, or None."""
        for step in stage.steps:
            if step.action is Action.CLEAR and not self.clears:
                continue
            reply = self._act(stage, step, page)
            # Of the success class or not: the kernel stops on anything but 0.
            if reply.status is not Status.TDX_SUCCESS and not step.goes_on:
                return Failure(stage.scope, Reason.SEAMCALL_FAILED, step.action, reply)
        return None

    # Pages.

    def _page_stage(self, stage: Stage) -> None:
        span = self._shape.span(stage.scope)
        if stage.phase is Phase.CONTROL_PAGES and (self.machine.td.keyid is not KeyIdState.FREE):
            failure = Failure(stage.scope, Reason.HKID_STILL_ASSIGNED, None, None)
            self._fail(failure, len(span), span[:_MAX_LISTED_PAGES])
            self._advance(len(span))
            return
        at = span.start
        while at < span.stop and self._recorder.hungry:
            self._one_page(stage, at)
            at += 1
        watched = sorted(page for page in self._recorder.pages if page in range(at, span.stop))
        for page in watched:
            self._stretch(stage, at, page)
            self._one_page(stage, page)
            at = page + 1
        self._stretch(stage, at, span.stop)

    def _stretch(self, stage: Stage, start: int, stop: int) -> None:
        """A stage on pages that nobody watches."""
        pages = self.machine.pages
        table = bytearray(range(256))
        outcomes: dict[int, _Outcome] = {}
        for begin, end, state in pages.runs(start, stop):
            if state not in outcomes:
                table[state], outcomes[state] = self._outcome(stage, state)
            self._alike(stage, begin, end, outcomes[state])
        pages.translate_runs(start, stop, bytes(table))
        for page in pages.singles(start, stop):
            self._one_page(stage, page)

    def _alike(self, stage: Stage, start: int, stop: int, outcome: _Outcome) -> None:
        """Put what a stage does to one page to the account of a run of pages."""
        pages = self.machine.pages
        count = stop - start - len(pages.singles(start, stop))
        for action, times in outcome.counts:
            self._count(stage.phase, action, times * count)
        self.machine.td.children += outcome.children * count
        self.machine.td.epoch += outcome.epochs * count
        if outcome.failure is not None and count:
            first = pages.first_of_runs(start, stop, _ANY, _MAX_LISTED_PAGES)
            self._fail(outcome.failure, count, first)
        self._advance(count)

    def _outcome(self, stage: Stage, state: int) -> tuple[int, _Outcome]:
        """What the stage makes of one page in *state*, found by doing it."""
        single = self.machine.alone(state)
        before = (single.td.children, single.td.epoch)
        host = EmulatedHost(single, self._shape, self.plan, prices=self._prices)
        failure = host.perform(stage, 0)
        after = (single.td.children, single.td.epoch)
        return single.pages[0], _Outcome(
            tuple((action, n) for (_, action), n in host.counts.items()),
            failure,
            after[0] - before[0],
            after[1] - before[1],
        )

    def _one_page(self, stage: Stage, page: int) -> None:
        self.machine.pages.isolate(page)
        failure = self.perform(stage, page)
        if failure is not None:
            if not self._hands_back(failure):
                self.kept_out.add(page)
            self._fail(failure, 1, [page])
        self._advance(1)

    # Steps.

    def _act(self, stage: Stage, step: PlanStep, number: int) -> Reply:
        """One step, with its one retry."""
        reply = self._once(stage, step, number)
        if step.retried and reply.status is Status.TDX_OPERAND_BUSY:
            self._once(stage, PlanStep(action=Action.KICK, source=step.source), number)
            reply = self._once(stage, step, number)
        return reply

    def _once(
        self,
        stage: Stage,
        step: PlanStep,
        number: int,
        *,
        priced: bool = True,
        resume: bool = False,
    ) -> Reply:
        machine = self.machine
        on_page = stage.scope in _ON_PAGES
        recorded = self._recorder.wants(number) if on_page else self._recorder.hungry
        before = PAGES[machine.pages[number]] if recorded and on_page else None
        leaf = step.action.leaf
        reply = SUCCESS
        if leaf is not None:
            reply = machine.call(leaf, number, key=step.key, resume=resume)
        elif step.action is Action.CLEAR:
            quirk_clear_page(machine, number)
        if priced:
            self._count(stage.phase, step.action, 1)
        if recorded:
            self._recorder.add(
                Event(
                    at_ns=self.clock_ns,
                    phase=stage.phase,
                    did=step.action,
                    scope=stage.scope,
                    number=number,
                    pfn=machine.base_pfn + number if on_page else None,
                    reply=None if leaf is None else reply,
                    before=before,
                    after=PAGES[machine.pages[number]] if on_page else None,
                )
            )
        return reply

    def _other(self, stage: Stage, number: int) -> None:
        """A step on a vCPU or on the TD."""
        for step in stage.steps:
            reply = self._act(stage, step, number)
            if stage.scope is Scope.TD and reply.status is not Status.TDX_SUCCESS:
                self._hkid_kept = True

    def _write_back_packages(self, stage: Stage) -> None:
        """TDH.PHYMEM.CACHE.WB on one CPU of each package, again while interrupted.

        The packages work in parallel, so what counts is the one that needed most calls.
        """
        (step,) = stage.steps
        if self.handed_back:
            self.overwritten_lines = self._dirty_guest_lines()
        before = {page: PAGES[self.machine.pages[page]] for page in self._recorder.pages}
        longest = 0
        for package in range(self.machine.platform.packages):
            for call in range(1, _MAX_CACHE_WB_LOOPS + 1):
                reply = self._once(stage, step, package, priced=False, resume=call > 1)
                longest = max(longest, call)
                if reply.status is not Status.TDX_INTERRUPTED_RESUMABLE:
                    break
        self._count(stage.phase, step.action, longest)
        for page, was in before.items():
            now = PAGES[self.machine.pages[page]]
            if now != was:
                self._recorder.add(
                    Event(
                        at_ns=self.clock_ns,
                        phase=stage.phase,
                        did=Op.WRITE_BACK,
                        scope=None,
                        number=page,
                        pfn=self.machine.base_pfn + page,
                        before=was,
                        after=now,
                    )
                )

    def _dirty_guest_lines(self) -> int:
        """Lines of guest pages that the cache holds under the TD's HKID: all are the host's now."""
        pages, guest = self.machine.pages, self._shape.span(Scope.GUEST_PAGE)
        lines = LINES_PER_PAGE * pages.count_runs(guest.start, guest.stop, _DIRTY)[1]
        for page in pages.singles(guest.start, guest.stop):
            if page not in self.kept_out:
                codes = (self.machine.line(page, line).dirty for line in range(LINES_PER_PAGE))
                lines += sum(dirty is Dirty.TD for dirty in codes)
        return lines

    # Accounts.

    def _count(self, phase: Phase, action: Action, times: int) -> None:
        self.counts[phase, action] += times
        self.clock_ns += self._prices[action] * times

    def _hands_back(self, failure: Failure) -> bool:
        guest = failure.scope is Scope.GUEST_PAGE
        return guest and self.plan.failed_page is FailedPage.HANDED_BACK

    def _fail(self, failure: Failure, count: int, pages: Iterable[int]) -> None:
        into = self.handed_back if self._hands_back(failure) else self.leaked
        failed = into.setdefault(failure, FailedPages(failure))
        failed.pages += count
        room = _MAX_LISTED_PAGES - len(failed.pfns)
        failed.pfns += [self.machine.base_pfn + page for page in pages][:room]

    def _advance(self, pages: int) -> None:
        self._done_pages += pages
        if self._progress is not None and pages:
            self._progress(self._done_pages, self._shape.pages)


def quirk_clear_page(machine: Machine, page: int) -> None:
    """Overwrite all lines of a page with MOVDIR64B through KeyID 0, for ``tdx_pw_mce``.

    Linux: ``tdx_clear_page()`` before 6.18, ``tdx_quirk_reset_page()`` from 6.18,
    ``tdx_quirk_reset_paddr()`` from 7.2.
    """
    machine.access_page(Op.FULL_WRITE, Key.SHARED, page)
