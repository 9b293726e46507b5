"""What the TDX module checks before a leaf of the teardown does anything, in its own order.

The first check that fails gives the status.  Nothing waits for a lock: one
that somebody holds is TDX_OPERAND_BUSY.  Checks that every leaf makes stand
in ``ALL_LEAVES`` and come first.

To add a check, add its row in its place, with the function it was read in;
where the emulator knows nothing of its condition, the condition always holds.

Source: TDX module 1.5.01 (intel/tdx-module, branch tdx_1.5 @72d8cffb214b).
Later modules were not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from tdxreclaim.tables.seamcalls import Leaf, Operand, Reply, Status
from tdxreclaim.tables.sources import Certainty


class Condition(Enum):
    """What a check asks."""

    VERSION_KNOWN = auto()
    MODULE_UP = auto()
    MODULE_READY = auto()

    ADDRESS_FORMED = auto()
    IN_A_TDMR = auto()
    PAGE_UNLOCKED = auto()
    IS_TDR = auto()
    IS_TDVPR = auto()
    IS_NDA = auto()
    HELD_BY_A_TD = auto()
    ALIGNED_TO_ITS_SIZE = auto()
    OWNER_UNLOCKED = auto()

    NOT_FATAL = auto()
    KEYS_CONFIGURED = auto()
    HKID_HELD = auto()
    TD_BLOCKED = auto()
    IN_TEARDOWN = auto()
    TDCS_COMPLETE = auto()
    OP_STATE_UNLOCKED = auto()
    OP_STATE_ALLOWS = auto()
    NO_CHILDREN = auto()

    GPA_FORMED = auto()
    GPA_PRIVATE = auto()
    SEPT_TREE_UNLOCKED = auto()
    SEPT_WALKED = auto()
    SEPT_ENTRY_UNLOCKED = auto()
    NOT_BLOCKED_YET = auto()
    MAPPED = auto()
    LEAF_ENTRY = auto()
    TARGET_UNLOCKED = auto()
    BLOCKED = auto()
    TRACKED = auto()
    EPOCH_UNLOCKED = auto()
    EPOCH_BEFORE_EMPTY = auto()

    TDVPS_COMPLETE = auto()
    VCPU_ASSOCIATED = auto()
    NO_VCPU_ASSOCIATED = auto()

    KOT_UNLOCKED = auto()
    CACHES_WRITTEN_BACK = auto()
    COMMAND_KNOWN = auto()
    PACKAGE_UNLOCKED = auto()
    SOME_HKID_FLUSHED = auto()
    POINT_SAVED = auto()
    NOT_INTERRUPTED = auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleCheck:
    """One check: what must hold, and what the caller gets where it does not."""

    condition: Condition
    says: str
    reply: Reply
    certainty: Certainty = Certainty.UNVERIFIED
    source: str


def _read(
    condition: Condition, says: str, status: Status, operand: Operand, function: str
) -> ModuleCheck:
    """A check as it was read in *function* of the module's source."""
    return ModuleCheck(
        condition=condition,
        says=says,
        reply=Reply(status, operand),
        certainty=Certainty.VERIFIED,
        source=f"TDX module 1.5.01, {function}()",
    )


_C, _S, _O = Condition, Status, Operand


ALL_LEAVES = (
    _read(_C.VERSION_KNOWN, "the leaf and its version are known", _S.TDX_OPERAND_INVALID, _O.NONE,
          "tdx_vmm_dispatcher"),
    _read(_C.MODULE_UP, "the module is not shut down", _S.TDX_SYS_SHUTDOWN, _O.NONE,
          "tdx_vmm_dispatcher"),
    _read(_C.MODULE_READY, "the module is initialised", _S.TDX_SYS_NOT_READY, _O.NONE,
          "tdx_vmm_dispatcher"),
)  # fmt: skip


def _page(operand: Operand, kind: Condition, says: str) -> tuple[ModuleCheck, ...]:
    """The checks of a page that a register names, ending with its PAMT type."""
    address, entry = "check_and_lock_explicit_private_hpa", "non_shared_hpa_metadata_check_and_lock"
    return (
        _read(_C.ADDRESS_FORMED, f"the address in {operand.name} is a page's, without an HKID",
              _S.TDX_OPERAND_INVALID, operand, address),
        _read(_C.IN_A_TDMR, f"the page in {operand.name} lies in a TDMR",
              _S.TDX_OPERAND_ADDR_RANGE_ERROR, operand, entry),
        _read(_C.PAGE_UNLOCKED, f"nobody holds the PAMT entry of the page in {operand.name}",
              _S.TDX_OPERAND_BUSY, operand, entry),
        _read(kind, says, _S.TDX_PAGE_METADATA_INCORRECT, operand, entry),
    )  # fmt: skip


def _tdr(operand: Operand) -> tuple[ModuleCheck, ...]:
    return _page(operand, _C.IS_TDR, f"the page in {operand.name} is a TDR")


def _running_td() -> tuple[ModuleCheck, ...]:
    """The checks of a TD that has its keys and its TDCS."""
    state, map_ = "check_td_in_correct_build_state", "check_any_td_state_map_tdcs_and_lock"
    return (
        _read(_C.NOT_FATAL, "the TD is not FATAL", _S.TDX_TD_FATAL, _O.NONE, state),
        _read(_C.KEYS_CONFIGURED, "the TD's keys are configured", _S.TDX_TD_KEYS_NOT_CONFIGURED,
              _O.NONE, state),
        _read(_C.TDCS_COMPLETE, "the TDCS has all its pages", _S.TDX_TDCS_NOT_ALLOCATED,
              _O.NONE, state),
        _read(_C.OP_STATE_UNLOCKED, "nobody holds OP_STATE", _S.TDX_OPERAND_BUSY, _O.OP_STATE,
              map_),
        _read(_C.OP_STATE_ALLOWS, "OP_STATE allows the leaf", _S.TDX_OP_STATE_INCORRECT, _O.NONE,
              map_),
    )  # fmt: skip


def _sept_entry(function: str) -> tuple[ModuleCheck, ...]:
    """The checks on the way to the Secure-EPT entry of a GPA."""
    walk = "lock_sept_check_and_walk_internal"
    return (
        _read(_C.GPA_FORMED, "GPA and level are well formed", _S.TDX_OPERAND_INVALID, _O.RCX,
              function),
        _read(_C.GPA_PRIVATE, "the GPA is a private one of the TD", _S.TDX_OPERAND_INVALID, _O.RCX,
              walk),
        _read(_C.SEPT_TREE_UNLOCKED, "nobody holds the Secure-EPT tree", _S.TDX_OPERAND_BUSY,
              _O.SEPT_TREE, walk),
        _read(_C.SEPT_WALKED, "the Secure-EPT walk reaches the level", _S.TDX_EPT_WALK_FAILED,
              _O.RCX, walk),
        _read(_C.SEPT_ENTRY_UNLOCKED, "nobody holds the Secure-EPT entry", _S.TDX_OPERAND_BUSY,
              _O.RCX, function),
    )  # fmt: skip


CHECKS: dict[Leaf, tuple[ModuleCheck, ...]] = {
    Leaf.TDH_MEM_RANGE_BLOCK: (
        *_tdr(_O.RDX),
        *_running_td(),
        *_sept_entry("tdh_mem_range_block"),
        _read(_C.NOT_BLOCKED_YET, "the entry is not blocked yet",
              _S.TDX_GPA_RANGE_ALREADY_BLOCKED, _O.RCX, "tdh_mem_range_block"),
        _read(_C.MAPPED, "the entry maps something", _S.TDX_EPT_ENTRY_STATE_INCORRECT, _O.RCX,
              "tdh_mem_range_block"),
    ),
    Leaf.TDH_MEM_TRACK: (
        *_tdr(_O.RCX),
        *_running_td(),
        _read(_C.EPOCH_UNLOCKED, "nobody holds the TD epoch", _S.TDX_OPERAND_BUSY, _O.TD_EPOCH,
              "tdh_mem_track"),
        _read(_C.EPOCH_BEFORE_EMPTY, "no vCPU still runs in the epoch before",
              _S.TDX_PREVIOUS_TLB_EPOCH_BUSY, _O.NONE, "tdh_mem_track"),
    ),
    Leaf.TDH_MEM_PAGE_REMOVE: (
        *_tdr(_O.RDX),
        *_running_td(),
        *_sept_entry("tdh_mem_page_remove"),
        _read(_C.LEAF_ENTRY, "the entry maps a page, blocked or not",
              _S.TDX_EPT_ENTRY_STATE_INCORRECT, _O.RCX, "tdh_mem_page_remove"),
        _read(_C.TARGET_UNLOCKED, "nobody holds the page's PAMT entry", _S.TDX_OPERAND_BUSY,
              _O.RCX, "tdh_mem_page_remove"),
        # These two are not asked of a TD that was never finalized.
        _read(_C.BLOCKED, "the entry is blocked", _S.TDX_GPA_RANGE_NOT_BLOCKED, _O.RCX,
              "tdh_mem_page_remove"),
        _read(_C.TRACKED, "TLB tracking ran since it was blocked", _S.TDX_TLB_TRACKING_NOT_DONE,
              _O.RCX, "tdh_mem_page_remove"),
    ),
    # The HKID in the address is taken off first and never looked at.
    Leaf.TDH_PHYMEM_PAGE_WBINVD: _page(_O.RCX, _C.IS_NDA, "the page is no TD's (NDA)"),
    Leaf.TDH_VP_FLUSH: (
        *_page(_O.RCX, _C.IS_TDVPR, "the page in RCX is a TDVPR"),
        _read(_C.OWNER_UNLOCKED, "nobody holds the owner's TDR", _S.TDX_OPERAND_BUSY, _O.TDR,
              "lock_and_map_implicit_tdr"),
        _read(_C.KEYS_CONFIGURED, "the TD's keys are configured", _S.TDX_TD_KEYS_NOT_CONFIGURED,
              _O.NONE, "tdh_vp_flush"),
        _read(_C.TDVPS_COMPLETE, "the TDVPS has all its pages", _S.TDX_TDCX_NUM_INCORRECT,
              _O.NONE, "tdh_vp_flush"),
        _read(_C.VCPU_ASSOCIATED, "the vCPU is associated with this logical processor",
              _S.TDX_VCPU_NOT_ASSOCIATED, _O.NONE, "tdh_vp_flush"),
    ),
    Leaf.TDH_MNG_VPFLUSHDONE: (
        *_tdr(_O.RCX),
        _read(_C.KOT_UNLOCKED, "nobody holds the KeyID ownership table", _S.TDX_OPERAND_BUSY,
              _O.KOT, "tdh_mng_vpflushdone"),
        _read(_C.HKID_HELD, "the TD holds its HKID, not flushed yet",
              _S.TDX_LIFECYCLE_STATE_INCORRECT, _O.NONE, "tdh_mng_vpflushdone"),
        _read(_C.NO_VCPU_ASSOCIATED, "no vCPU is associated", _S.TDX_FLUSHVP_NOT_DONE, _O.NONE,
              "tdh_mng_vpflushdone"),
    ),
    Leaf.TDH_PHYMEM_CACHE_WB: (
        _read(_C.COMMAND_KNOWN, "the command is start or resume", _S.TDX_OPERAND_INVALID, _O.RCX,
              "tdh_phymem_cache_wb"),
        _read(_C.PACKAGE_UNLOCKED, "nobody writes this package back already",
              _S.TDX_OPERAND_BUSY, _O.WBCACHE, "tdh_phymem_cache_wb"),
        _read(_C.KOT_UNLOCKED, "nobody holds the KeyID ownership table", _S.TDX_OPERAND_BUSY,
              _O.KOT, "tdh_phymem_cache_wb"),
        _read(_C.SOME_HKID_FLUSHED, "a start finds some HKID flushed, of whatever TD",
              _S.TDX_NO_HKID_READY_TO_WBCACHE, _O.NONE, "tdh_phymem_cache_wb"),
        _read(_C.POINT_SAVED, "a resume finds a saved point", _S.TDX_WBCACHE_RESUME_ERROR,
              _O.NONE, "tdh_phymem_cache_wb"),
        _read(_C.NOT_INTERRUPTED, "no interrupt comes in", _S.TDX_INTERRUPTED_RESUMABLE, _O.NONE,
              "tdh_phymem_cache_wb"),
    ),
    Leaf.TDH_MNG_KEY_FREEID: (
        *_tdr(_O.RCX),
        _read(_C.TD_BLOCKED, "VPFLUSHDONE was done", _S.TDX_LIFECYCLE_STATE_INCORRECT, _O.NONE,
              "tdh_mng_key_freeid"),
        _read(_C.KOT_UNLOCKED, "nobody holds the KeyID ownership table", _S.TDX_OPERAND_BUSY,
              _O.KOT, "tdh_mng_key_freeid"),
        _read(_C.CACHES_WRITTEN_BACK, "every package wrote its caches back",
              _S.TDX_WBCACHE_NOT_COMPLETE, _O.NONE, "tdh_mng_key_freeid"),
    ),
    Leaf.TDH_PHYMEM_PAGE_RECLAIM: (
        _read(_C.ADDRESS_FORMED, "the address is a page's, without an HKID",
              _S.TDX_OPERAND_INVALID, _O.RCX, "tdh_phymem_page_reclaim"),
        _read(_C.IN_A_TDMR, "the page lies in a TDMR", _S.TDX_OPERAND_ADDR_RANGE_ERROR, _O.RCX,
              "tdh_phymem_page_reclaim"),
        _read(_C.PAGE_UNLOCKED, "nobody holds the page's PAMT entry", _S.TDX_OPERAND_BUSY, _O.RCX,
              "tdh_phymem_page_reclaim"),
        _read(_C.HELD_BY_A_TD, "a TD holds the page", _S.TDX_PAGE_METADATA_INCORRECT, _O.RCX,
              "tdh_phymem_page_reclaim"),
        _read(_C.ALIGNED_TO_ITS_SIZE, "the address is aligned to the page's size",
              _S.TDX_OPERAND_INVALID, _O.RCX, "tdh_phymem_page_reclaim"),
        _read(_C.OWNER_UNLOCKED, "nobody holds the owner's TDR", _S.TDX_OPERAND_BUSY, _O.TDR,
              "lock_and_map_implicit_tdr"),
        _read(_C.IN_TEARDOWN, "the TD's HKID is free", _S.TDX_LIFECYCLE_STATE_INCORRECT, _O.NONE,
              "tdh_phymem_page_reclaim"),
        _read(_C.NO_CHILDREN, "a TDR has no page left", _S.TDX_TD_ASSOCIATED_PAGES_EXIST, _O.NONE,
              "tdh_phymem_page_reclaim"),
    ),
}  # fmt: skip
