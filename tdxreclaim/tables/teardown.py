"""The steps of a teardown, and the kernel functions that do them, as the kernel rows name them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from tdxreclaim.record import Record

if TYPE_CHECKING:
    from tdxreclaim.tables.seamcalls import Leaf


class Phase(StrEnum):
    """Parts of a teardown, named as the facts name them; A dominates."""

    BEFORE = "before"
    """Faults put in before the teardown starts; takes no time."""
    GUEST_PAGES = "A"
    HKID = "B"
    CONTROL_PAGES = "C"
    REUSE = "reuse"
    """The host uses the memory again; takes no time of the teardown."""


class Action(StrEnum):
    """A step; what is priced and counted."""

    BLOCK = "block"
    TRACK = "track"
    KICK = "kick"
    """``kvm_make_all_cpus_request(OUTSIDE_GUEST_MODE)``: walks every vCPU."""
    REMOVE = "remove"
    WBINVD = "wbinvd"
    CLEAR = "clear"
    """64 times MOVDIR64B and a fence."""
    RECLAIM = "reclaim"
    VP_FLUSH = "vp_flush"
    VPFLUSHDONE = "vpflushdone"
    CACHE_WB = "cache_wb"
    """On one CPU a package, the packages in parallel: priced once a round."""
    FREEID = "freeid"

    @property
    def leaf(self) -> Leaf | None:
        """The SEAMCALL leaf, None where the host acts without the module."""
        # Whoever decides about a host needs no leaf.
        from tdxreclaim.tables.seamcalls import Leaf

        name = _LEAVES.get(self)
        return None if name is None else Leaf[name]

    @property
    def label(self) -> str:
        """How prose spells it.

        >>> Action.REMOVE.label, Action.KICK.label
        ('TDH.MEM.PAGE.REMOVE', 'kick vCPUs')
        """
        if self.leaf is not None:
            return self.leaf.spelling
        return "kick vCPUs" if self is Action.KICK else "clear (MOVDIR64B)"


_LEAVES = {
    Action.BLOCK: "TDH_MEM_RANGE_BLOCK",
    Action.TRACK: "TDH_MEM_TRACK",
    Action.REMOVE: "TDH_MEM_PAGE_REMOVE",
    Action.WBINVD: "TDH_PHYMEM_PAGE_WBINVD",
    Action.RECLAIM: "TDH_PHYMEM_PAGE_RECLAIM",
    Action.VP_FLUSH: "TDH_VP_FLUSH",
    Action.VPFLUSHDONE: "TDH_MNG_VPFLUSHDONE",
    Action.CACHE_WB: "TDH_PHYMEM_CACHE_WB",
    Action.FREEID: "TDH_MNG_KEY_FREEID",
}


class Function(Record):
    """A kernel function of a teardown."""

    name: str
    phase: Phase | None = None
    """The one phase that it alone tells in a stack; None: others call it too."""
    action: Action | None = None
    """The step that its time is."""
    holds: tuple[Action, ...] = ()
    """The steps that its code takes a guest page through."""
    traced: bool = False
    """Whether a recipe records it (without a step: because it tells the kernel)."""
    unmaps: bool = False
    """Whether it is of phase A where something zaps pages above it."""


def _tells(name: str, phase: Phase, *, traced: bool = False) -> Function:
    return Function(name=name, phase=phase, traced=traced)


def _step(name: str, phase: Phase | None, action: Action) -> Function:
    return Function(name=name, phase=phase, action=action, traced=True)


# kvm_tdp_mmu_unmap_gfn_range() and tdp_mmu_zap_leafs() are not among them:
# ordinary guests go through them too.
COMMON_FUNCTIONS = (
    _tells("kvm_gmem_release", Phase.GUEST_PAGES),
    _tells("kvm_gmem_invalidate_begin", Phase.GUEST_PAGES),
    _tells("kvm_gmem_punch_hole", Phase.GUEST_PAGES),
    _step("tdh_mem_range_block", Phase.GUEST_PAGES, Action.BLOCK),
    _tells("tdx_track", Phase.GUEST_PAGES),
    _step("tdh_mem_track", Phase.GUEST_PAGES, Action.TRACK),
    # Whoever has vCPUs kicks them: it tells no phase.
    _step("kvm_make_all_cpus_request", None, Action.KICK),
    _step("tdh_mem_page_remove", Phase.GUEST_PAGES, Action.REMOVE),
    _step("tdh_phymem_page_wbinvd_hkid", Phase.GUEST_PAGES, Action.WBINVD),
    _tells("tdx_mmu_release_hkid", Phase.HKID, traced=True),
    _tells("vt_vm_pre_destroy", Phase.HKID),
    _tells("tdx_flush_vp_on_cpu", Phase.HKID),
    _step("tdh_vp_flush", Phase.HKID, Action.VP_FLUSH),
    _step("tdh_mng_vpflushdone", Phase.HKID, Action.VPFLUSHDONE),
    _tells("smp_func_do_phymem_cache_wb", Phase.HKID),
    _step("tdh_phymem_cache_wb", Phase.HKID, Action.CACHE_WB),
    _step("tdh_mng_key_freeid", Phase.HKID, Action.FREEID),
    _tells("tdx_vcpu_free", Phase.CONTROL_PAGES),
    _tells("tdx_sept_free_private_spt", Phase.CONTROL_PAGES),
    _tells("tdx_vm_destroy", Phase.CONTROL_PAGES),
    _tells("tdx_reclaim_td_control_pages", Phase.CONTROL_PAGES),
    _tells("tdx_reclaim_control_page", Phase.CONTROL_PAGES),
    _tells("tdx_reclaim_page", Phase.CONTROL_PAGES),
    _tells("__tdx_reclaim_page", Phase.CONTROL_PAGES),
    _step("tdh_phymem_page_reclaim", Phase.CONTROL_PAGES, Action.RECLAIM),
    _step("tdh_phymem_page_wbinvd_tdr", Phase.CONTROL_PAGES, Action.WBINVD),
)


# What takes guest pages out of KVM's page tables, ordinary guests' too.
ZAPS = frozenset(
    ("tdp_mmu_zap_leafs", "tdp_mmu_zap_root", "__tdp_mmu_zap_root", "kvm_tdp_mmu_unmap_gfn_range")
)


def clears(name: str) -> Function:
    """The function of a kernel that clears a page, in phases A and C alike."""
    return _step(name, None, Action.CLEAR)


def removes(name: str, *steps: Action) -> Function:
    """A function of a kernel that takes a guest page away, by so many of the steps."""
    return Function(name=name, phase=Phase.GUEST_PAGES, holds=steps, traced=True)


_OWN_STEPS = (Action.BLOCK, Action.REMOVE, Action.WBINVD)


def removes_alone(name: str, *, traced: bool = True) -> Function:
    """A function that takes a guest page through all steps but those of tdx_track()."""
    return removes(name, *_OWN_STEPS)._replace(traced=traced)
