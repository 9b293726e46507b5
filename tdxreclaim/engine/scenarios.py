"""Sentences that can be run: each is played on the machine, on every platform it is about.

A scenario says only what is done.  What comes of it is read off the machine,
with the row of the truth table or the module's check that decided it, so a
scenario cannot claim what the tables do not say.

To add one, write its play and a row in ``SCENARIOS``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tdxreclaim.engine.module import Actor, Platform
from tdxreclaim.engine.script import Act, Script
from tdxreclaim.engine.states import Health
from tdxreclaim.engine.truth import Key, Mode, Op
from tdxreclaim.errors import UsageError
from tdxreclaim.tables.errata import PW_MCE
from tdxreclaim.tables.kernels import HANDING_BACK, LEAKING
from tdxreclaim.tables.seamcalls import Leaf, Reply, Status

if TYPE_CHECKING:
    from collections.abc import Callable


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


def _removal_fails(script: Script) -> None:
    script.access(Op.CACHED_WRITE, Key.TD, Actor.TD)
    script.make_fatal()
    script.call(Leaf.TDH_MEM_RANGE_BLOCK)
    script.fates()
    # From here on the host of a kernel that hands the page back.
    script.access(Op.FULL_WRITE, Key.SHARED)
    script.release_hkid()
    script.access(Op.READ, Key.SHARED)
    script.access(Op.PARTIAL_WRITE, Key.SHARED)
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
    script.call(Leaf.TDH_PHYMEM_CACHE_WB)
    script.call(Leaf.TDH_MNG_KEY_FREEID)
    script.call(Leaf.TDH_PHYMEM_CACHE_WB, resume=True)
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
            says="what KeyID 0 reads of a TD-owned line: zeros in Li; in Ci zeros by the "
            "specification's prose and by Linux, poison by an unofficial note",
            platforms=(_AFFECTED_LI, _AFFECTED, replace(_AFFECTED, owned_reads_poison=True)),
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
            says=f"with {PW_MCE} a partial write poisons silently, and the next read is a #MC",
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
            says=f"with {PW_MCE} a partial write to a cleared page is harmless",
            platforms=_BOTH_MODES,
            play=_partial_write_cleared,
        ),
        Scenario(
            name="poison-reported",
            says="a TD that consumes poison becomes FATAL; taken back leaf by leaf, which KVM does "
            "not do, its page returns unless it gets marked",
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
            name="removal-fails",
            says=f"a page of a FATAL TD leaks on {LEAKING} and is handed back on {HANDING_BACK}: "
            "a late write-back takes what the host wrote, a partial write may poison",
            platforms=(_AFFECTED_LI, _OTHER_LI),
            play=_removal_fails,
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
