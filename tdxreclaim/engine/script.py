"""A stage for one page: does things to it and writes down what came of each.

The outcome, its certainty and its source are read off the machine and its
tables; a script adds none of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tdxreclaim.engine.build import initial_page
from tdxreclaim.engine.module import Actor, Machine, Platform
from tdxreclaim.engine.pages import PageStore
from tdxreclaim.engine.plan import PLANS
from tdxreclaim.engine.reuse import Mark, mark
from tdxreclaim.engine.shape import Shape
from tdxreclaim.engine.states import PAGES, Dirty, Health, Line, PageType, SeptEntry, Use
from tdxreclaim.engine.teardown import EmulatedHost
from tdxreclaim.tables.kernels import FIRST_THAT_SKIPS, FailedPage
from tdxreclaim.tables.modulechecks import CHECKS
from tdxreclaim.tables.seamcalls import Leaf, Operand, Reply, Status
from tdxreclaim.tables.sources import Certainty
from tdxreclaim.tables.teardown import Action

if TYPE_CHECKING:
    from tdxreclaim.engine.truth import Key, Op, Seen

_MARK_CERTAINTY = {
    Mark.MARKED: Certainty.INFERRED,
    Mark.NOT_FOUND: Certainty.VERIFIED,
    Mark.NOT_TRIED: Certainty.INFERRED,
}


_FATES = {
    FailedPage.LEAKED: "the page leaks: nobody gets it before a reboot",
    FailedPage.HANDED_BACK: "the page goes back to the host, uncleared and still the TD's",
}


# A plan whose clears depend on the platform.
_SKIPS = PLANS[str(FIRST_THAT_SKIPS)]


_MODULE = "TDX module 1.5.01 sources"


_PAGE = 0


_LINE = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ScenarioStep:
    """One thing done, and what came of it."""

    did: str
    line: Line
    """The line in question, afterwards."""
    page_type: PageType
    """The page's, afterwards."""
    sept: SeptEntry
    seen: Seen | None = None
    """What an access saw; None where nothing was accessed."""
    reply: Reply | None = None
    """What a SEAMCALL returned; None where none was made."""
    machine_check: bool = False
    """Whether this step raised #MC."""
    note: str | None = None
    """An outcome that is neither, such as whether the kernel marks the page."""
    certainty: Certainty
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Act:
    """A scenario on one platform."""

    platform: Platform
    steps: tuple[ScenarioStep, ...]


class Script:
    """A machine with one guest page, and a record of what is done to it."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        page = initial_page(Use.MAPPED, platform.mode)
        # Most sentences are about memory, so nothing waits in the cache.
        clean = page._replace(line=page.line._replace(dirty=Dirty.NONE))
        self.machine = Machine(platform, PageStore(1, clean.code), vcpus=1)
        self.steps: list[ScenarioStep] = []

    def access(self, op: Op, key: Key, by: Actor = Actor.HOST) -> None:
        """Access the line."""
        before = self.machine.line(_PAGE, _LINE)
        checks = self.machine.machine_check_count
        seen, _ = self.machine.access(op, key, _PAGE, _LINE, by=by)
        rule = self.platform.tables[op, key].rules[before.code]
        self._add(
            f"{by} {op} through {key} KeyID",
            seen=seen,
            machine_check=self.machine.machine_check_count > checks,
            certainty=rule.certainty,
            source=f"{rule.name}: {rule.source}",
        )

    def call(self, leaf: Leaf, number: int = 0, *, resume: bool = False) -> Reply:
        """Make a SEAMCALL."""
        reply = self.machine.call(leaf, number, resume=resume)
        failed = next((c for c in CHECKS[leaf] if c.reply == reply), None)
        self._add(
            leaf.spelling,
            reply=reply,
            certainty=failed.certainty if failed else Certainty.VERIFIED,
            source=f"{failed.source}; it needs that {failed.says}" if failed else _MODULE,
        )
        return reply

    def fault(self, health: Health) -> None:
        """Have the line's memory go bad, or its integrity."""
        before = self.machine.line(_PAGE, _LINE)
        self.machine.set_line(_PAGE, _LINE, before._replace(health=health))
        self._add(
            f"fault: {health.name.lower().replace('_', ' ')}",
            certainty=Certainty.ASSUMED,
            source="put in by the scenario",
        )

    def release_hkid(self) -> None:
        """Phase B."""
        self.call(Leaf.TDH_VP_FLUSH)
        self.call(Leaf.TDH_MNG_VPFLUSHDONE)
        for package in range(self.platform.packages):
            self.call(Leaf.TDH_PHYMEM_CACHE_WB, package)
        self.call(Leaf.TDH_MNG_KEY_FREEID)

    def remove(self) -> None:
        """The SEAMCALLs of phase A up to REMOVE."""
        self.call(Leaf.TDH_MEM_RANGE_BLOCK)
        self.call(Leaf.TDH_MEM_TRACK)
        self.call(Leaf.TDH_MEM_PAGE_REMOVE)

    def make_fatal(self) -> None:
        """Have a machine check hit the TD elsewhere."""
        self.machine.td.fatal = True
        self._add(
            "fault: a machine check makes the TD FATAL",
            certainty=Certainty.ASSUMED,
            source="put in by the scenario",
        )

    def fates(self) -> None:
        """Ask, for each plan's kernels, what becomes of a guest page whose removal failed."""
        for plan in PLANS.values():
            if plan.row is not None:
                self._add(
                    f"a kernel ({plan.kernels}) goes on after the failure",
                    note=_FATES[plan.failed_page],
                    certainty=Certainty.INFERRED,
                    source=f"{plan.row.failed_page_citation}; read in the code, not observed",
                )

    def marks(self) -> None:
        """Ask, for each plan's kernels, whether the page of the last #MC is marked."""
        check = self.machine.machine_checks[-1]
        fixed = replace(_SKIPS, kernels="with the address fix", finds_poisoned_page=True)
        for plan in (*PLANS.values(), fixed):
            if plan.released:
                made = mark(check, self.platform, plan)
                self._add(
                    f"a kernel ({plan.kernels}) handles the machine check",
                    note=made.value,
                    certainty=_MARK_CERTAINTY[made],
                    source="linux arch/x86/kernel/cpu/mce, SEAM_NR branch; "
                    "20250819162436.137625-2-adrian.hunter@intel.com",
                )

    def busy_once(self) -> None:
        """Have a kernel meet TDX_OPERAND_BUSY in TDH.MEM.RANGE.BLOCK, and retry."""
        busy = Reply(Status.TDX_OPERAND_BUSY, Operand.SEPT_TREE)
        self.machine.script(Leaf.TDH_MEM_RANGE_BLOCK, _PAGE, busy)
        self.call(Leaf.TDH_MEM_RANGE_BLOCK)
        self.machine.script(Leaf.TDH_MEM_RANGE_BLOCK, _PAGE, busy)
        shape = Shape(memory_bytes=4096, vcpus=1, base_pfn=0, tdcx_pages_per_vcpu=0, tdcs_pages=0)
        host = EmulatedHost(self.machine, shape, _SKIPS, prices=dict.fromkeys(Action, 0))
        first = _SKIPS.stages[0]
        host.perform(first, _PAGE)
        done = {action.label: n for (_, action), n in host.counts.items()}
        self._add(
            "the kernel's phase A on the page",
            note=", ".join(f"{n} x {title}" for title, n in done.items()),
            certainty=Certainty.VERIFIED,
            source=first.steps[0].source,
        )

    def _add(  # noqa: PLR0913 - the fields of a step
        self,
        did: str,
        *,
        seen: Seen | None = None,
        reply: Reply | None = None,
        machine_check: bool = False,
        note: str | None = None,
        certainty: Certainty,
        source: str,
    ) -> None:
        use = PAGES[self.machine.pages[_PAGE]].use
        self.steps.append(
            ScenarioStep(
                did=did,
                line=self.machine.line(_PAGE, _LINE),
                page_type=use.page_type,
                sept=use.sept,
                seen=seen,
                reply=reply,
                machine_check=machine_check,
                note=note,
                certainty=certainty,
                source=source,
            )
        )
