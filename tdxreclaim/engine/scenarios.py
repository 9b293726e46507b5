"""Sentences that can be run: each is played on the machine, on every platform it is about.

A scenario says only what is done.  What comes of it is read off the machine,
with the row of the truth table or the module's check that decided it, so a
scenario cannot claim what the tables do not say.

To add one, write its play and a row in ``SCENARIOS``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tdxreclaim.engine.host import Host
from tdxreclaim.engine.leaves import LEAVES, Leaf, Operand, Reply, Status
from tdxreclaim.engine.machine import Actor, Machine, Platform
from tdxreclaim.engine.memory import PageStore
from tdxreclaim.engine.plan import PLANS, Action
from tdxreclaim.engine.reuse import Mark, mark
from tdxreclaim.engine.shape import Shape
from tdxreclaim.engine.simulate import initial_page
from tdxreclaim.engine.states import PAGES, Certainty, Dirty, Health, Line, PageType, SeptEntry, Use
from tdxreclaim.engine.truth import Key, Mode, Op, Seen, tables
from tdxreclaim.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_MARK_CERTAINTY = {
    Mark.MARKED: Certainty.INFERRED,
    Mark.NOT_FOUND: Certainty.VERIFIED,
    Mark.NOT_TRIED: Certainty.INFERRED,
    Mark.UNKNOWN: Certainty.UNKNOWN,
}
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
        rule = tables(self.platform.mode, erratum=self.platform.erratum)[op, key].rules[before.code]
        self._add(
            f"{by} {op} through {key} KeyID",
            seen=seen,
            machine_check=self.machine.machine_check_count > checks,
            certainty=rule.certainty,
            source=f"{rule.name}: {rule.source}",
        )

    def call(self, leaf: Leaf, number: int = 0, key: Key = Key.TD) -> Reply:
        """Make a SEAMCALL."""
        reply = self.machine.call(leaf, number, key=key)
        failed = next((c for c in LEAVES[leaf].checks if c.reply == reply), None)
        self._add(
            leaf.spelling,
            reply=reply,
            certainty=failed.certainty if failed else Certainty.VERIFIED,
            source=f"{failed.source}: {failed.says}" if failed else _MODULE,
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

    def marks(self) -> None:
        """Ask, for each plan's kernels, whether the page of the last #MC is marked."""
        check = self.machine.machine_checks[-1]
        fixed = replace(PLANS["6.18"], kernels="with the address fix", finds_poisoned_page=True)
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
        busy = Reply(Status.TDX_OPERAND_BUSY, Operand.SEPT)
        self.machine.script(Leaf.TDH_MEM_RANGE_BLOCK, _PAGE, busy)
        self.call(Leaf.TDH_MEM_RANGE_BLOCK)
        self.machine.script(Leaf.TDH_MEM_RANGE_BLOCK, _PAGE, busy)
        shape = Shape(memory_bytes=4096, vcpus=1, base_pfn=0, tdcx_pages_per_vcpu=0, tdcs_pages=0)
        plan = PLANS["6.18"]
        host = Host(self.machine, shape, plan, prices=dict.fromkeys(Action, 0))
        first = plan.stages[0]
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """A sentence, and how to play it."""

    name: str
    says: str
    platforms: tuple[Platform, ...]
    play: Callable[[Script], None]

    def run(self) -> tuple[Act, ...]:
        """Play it on each of its platforms."""
        acts = []
        for platform in self.platforms:
            script = Script(platform)
            self.play(script)
            acts.append(Act(platform=platform, steps=tuple(script.steps)))
        return tuple(acts)


def scenario(name: str) -> Scenario:
    """The scenario of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in SCENARIOS:
        raise UsageError(f"scenario {name}", f"not one of {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


def _clear_private(script: Script) -> None:
    script.access(Op.FULL_WRITE, Key.SHARED)
    script.access(Op.READ, Key.SHARED)


def _clear_poison(health: Health) -> Callable[[Script], None]:
    def play(script: Script) -> None:
        script.fault(health)
        script.access(Op.FULL_WRITE, Key.SHARED)
        script.access(Op.READ, Key.SHARED)

    return play


def _read_zeros(script: Script) -> None:
    script.access(Op.READ, Key.SHARED)
    script.access(Op.READ, Key.TD, Actor.TD)


def _shared_integrity(script: Script) -> None:
    script.access(Op.READ, Key.SHARED_INTEGRITY)
    script.access(Op.FULL_WRITE, Key.SHARED)
    script.access(Op.READ, Key.SHARED_INTEGRITY)


def _partial_write(script: Script) -> None:
    script.remove()
    script.call(Leaf.TDH_PHYMEM_PAGE_WBINVD)
    script.access(Op.READ, Key.SHARED)
    script.access(Op.PARTIAL_WRITE, Key.SHARED)
    script.access(Op.READ, Key.SHARED)


def _partial_write_cleared(script: Script) -> None:
    script.remove()
    script.call(Leaf.TDH_PHYMEM_PAGE_WBINVD)
    script.access(Op.FULL_WRITE, Key.SHARED)
    script.access(Op.PARTIAL_WRITE, Key.SHARED)
    script.access(Op.READ, Key.SHARED)


def _reported(script: Script) -> None:
    script.fault(Health.POISON_INTEGRITY)
    script.access(Op.READ, Key.TD, Actor.TD)
    script.marks()
    script.call(Leaf.TDH_MEM_RANGE_BLOCK)
    script.release_hkid()
    script.call(Leaf.TDH_PHYMEM_PAGE_RECLAIM)
    script.access(Op.READ, Key.SHARED)


def _unreported(script: Script) -> None:
    script.fault(Health.POISON_INTEGRITY)
    script.remove()
    script.call(Leaf.TDH_PHYMEM_PAGE_WBINVD)
    script.access(Op.READ, Key.SHARED)
    script.access(Op.FULL_WRITE, Key.SHARED)
    script.access(Op.READ, Key.SHARED)


def _remove_keeps(script: Script) -> None:
    script.remove()


def _reclaim_keeps(script: Script) -> None:
    script.release_hkid()
    script.call(Leaf.TDH_PHYMEM_PAGE_RECLAIM)


def _late_write_back(script: Script) -> None:
    script.access(Op.CACHED_WRITE, Key.TD, Actor.TD)
    script.remove()
    script.access(Op.FULL_WRITE, Key.SHARED)
    script.access(Op.WRITE_BACK, Key.TD)
    script.access(Op.READ, Key.SHARED)


def _freeid_early(script: Script) -> None:
    script.call(Leaf.TDH_MNG_KEY_FREEID)
    script.call(Leaf.TDH_MNG_VPFLUSHDONE)
    script.call(Leaf.TDH_VP_FLUSH)
    script.call(Leaf.TDH_MNG_VPFLUSHDONE)
    script.call(Leaf.TDH_PHYMEM_CACHE_WB, 0)
    script.call(Leaf.TDH_MNG_KEY_FREEID)
    script.call(Leaf.TDH_PHYMEM_CACHE_WB, 1)
    script.call(Leaf.TDH_MNG_KEY_FREEID)
    script.call(Leaf.TDH_PHYMEM_CACHE_WB, 1)


def _reclaim_early(script: Script) -> None:
    script.call(Leaf.TDH_PHYMEM_PAGE_RECLAIM)
    script.release_hkid()
    script.call(Leaf.TDH_PHYMEM_PAGE_RECLAIM)
    script.call(Leaf.TDH_PHYMEM_PAGE_RECLAIM)


def _remove_early(script: Script) -> None:
    script.call(Leaf.TDH_MEM_PAGE_REMOVE)
    script.call(Leaf.TDH_MEM_RANGE_BLOCK)
    script.call(Leaf.TDH_MEM_PAGE_REMOVE)
    script.call(Leaf.TDH_MEM_TRACK)
    script.call(Leaf.TDH_MEM_PAGE_REMOVE)


def _wbinvd_early(script: Script) -> None:
    script.call(Leaf.TDH_PHYMEM_PAGE_WBINVD)
    script.remove()
    script.call(Leaf.TDH_PHYMEM_PAGE_WBINVD)


def _interrupted(script: Script) -> None:
    script.machine.script(Leaf.TDH_PHYMEM_CACHE_WB, 0, Reply(Status.TDX_INTERRUPTED_RESUMABLE))
    script.call(Leaf.TDH_VP_FLUSH)
    script.call(Leaf.TDH_MNG_VPFLUSHDONE)
    while script.call(Leaf.TDH_PHYMEM_CACHE_WB).status is Status.TDX_INTERRUPTED_RESUMABLE:
        script.call(Leaf.TDH_MNG_KEY_FREEID)
    script.call(Leaf.TDH_MNG_KEY_FREEID)


_AFFECTED = Platform(mode=Mode.CI, erratum=True)
_AFFECTED_LI = Platform(mode=Mode.LI, erratum=True)
_OTHER = Platform(mode=Mode.CI, erratum=False)
_OTHER_LI = Platform(mode=Mode.LI, erratum=False)
_BOTH_MODES = (_AFFECTED, _AFFECTED_LI)

SCENARIOS = {
    each.name: each
    for each in (
        Scenario(
            name="clear-converts",
            says="MOVDIR64B through KeyID 0 clears the TD Owner bit and the MAC, no violation",
            platforms=_BOTH_MODES,
            play=_clear_private,
        ),
        Scenario(
            name="clear-cures-integrity-poison",
            says="MOVDIR64B clears integrity poison without consuming it",
            platforms=_BOTH_MODES,
            play=_clear_poison(Health.POISON_INTEGRITY),
        ),
        Scenario(
            name="clear-keeps-hardware-poison",
            says="MOVDIR64B does not clear hardware poison",
            platforms=_BOTH_MODES,
            play=_clear_poison(Health.POISON_HARDWARE),
        ),
        Scenario(
            name="keyid0-reads-zeros",
            says="KeyID 0 reads a TD-owned line as zeros: no #MC, and the TD can still read it",
            platforms=_BOTH_MODES,
            play=_read_zeros,
        ),
        Scenario(
            name="shared-integrity",
            says="a shared KeyID with integrity does not get away with what KeyID 0 may do",
            platforms=_BOTH_MODES,
            play=_shared_integrity,
        ),
        Scenario(
            name="partial-write-affected",
            says="with tdx_pw_mce a partial write poisons silently, and the next read is a #MC",
            platforms=_BOTH_MODES,
            play=_partial_write,
        ),
        Scenario(
            name="partial-write-unaffected",
            says="on any other CPU any write converts the line",
            platforms=(_OTHER, _OTHER_LI),
            play=_partial_write,
        ),
        Scenario(
            name="partial-write-cleared",
            says="with tdx_pw_mce a partial write to a cleared page is harmless",
            platforms=_BOTH_MODES,
            play=_partial_write_cleared,
        ),
        Scenario(
            name="poison-reported",
            says="a TD that consumes poison becomes FATAL; its page returns unless it gets marked",
            platforms=(_OTHER, Platform(erratum=False, seam_nr=False)),
            play=_reported,
        ),
        Scenario(
            name="poison-unreported",
            says="poison that nobody consumed comes back with the page; clearing would hide it",
            platforms=(_OTHER,),
            play=_unreported,
        ),
        Scenario(
            name="remove-keeps-contents",
            says="REMOVE never touches contents",
            platforms=(_AFFECTED,),
            play=_remove_keeps,
        ),
        Scenario(
            name="reclaim-keeps-contents",
            says="RECLAIM never touches contents",
            platforms=(_AFFECTED,),
            play=_reclaim_keeps,
        ),
        Scenario(
            name="late-write-back",
            says="without WBINVD a copy cached under the HKID takes a cleared line for the TD again",
            platforms=(_AFFECTED,),
            play=_late_write_back,
        ),
        Scenario(
            name="reclaim-before-freeid",
            says="RECLAIM works only once the HKID is free, and only once",
            platforms=(_AFFECTED,),
            play=_reclaim_early,
        ),
        Scenario(
            name="freeid-before-cache-wb",
            says="FREEID works only after VPFLUSHDONE and CACHE.WB on every package",
            platforms=(Platform(erratum=True, packages=2),),
            play=_freeid_early,
        ),
        Scenario(
            name="remove-before-block",
            says="REMOVE works only after BLOCK and TRACK",
            platforms=(_AFFECTED,),
            play=_remove_early,
        ),
        Scenario(
            name="wbinvd-before-remove",
            says="PAGE.WBINVD works only on a page that no TD holds",
            platforms=(_AFFECTED,),
            play=_wbinvd_early,
        ),
        Scenario(
            name="operand-busy",
            says="a busy operand is retried once, after all vCPUs were kicked out",
            platforms=(_AFFECTED,),
            play=Script.busy_once,
        ),
        Scenario(
            name="cache-wb-interrupted",
            says="CACHE.WB may be interrupted; until it is resumed FREEID does not work",
            platforms=(_AFFECTED,),
            play=_interrupted,
        ),
    )
}
"""The scenarios by name."""
