"""Names of SEAMCALL leaves and of what the TDX module returns, for messages that have numbers.

Source: linux v7.1 arch/x86/virt/vmx/tdx/tdx.h and arch/x86/include/asm/tdx_errno.h;
operand ids: intel/tdx-module 1.5, tdx_error_codes_defs.h.
"""

from __future__ import annotations

LEAVES = {
    0: "TDH.VP.ENTER",
    1: "TDH.MNG.ADDCX",
    2: "TDH.MEM.PAGE.ADD",
    3: "TDH.MEM.SEPT.ADD",
    4: "TDH.VP.ADDCX",
    6: "TDH.MEM.PAGE.AUG",
    7: "TDH.MEM.RANGE.BLOCK",
    8: "TDH.MNG.KEY.CONFIG",
    9: "TDH.MNG.CREATE",
    10: "TDH.VP.CREATE",
    11: "TDH.MNG.RD",
    16: "TDH.MR.EXTEND",
    17: "TDH.MR.FINALIZE",
    18: "TDH.VP.FLUSH",
    19: "TDH.MNG.VPFLUSHDONE",
    20: "TDH.MNG.KEY.FREEID",
    21: "TDH.MNG.INIT",
    22: "TDH.VP.INIT",
    24: "TDH.PHYMEM.PAGE.RDMD",
    26: "TDH.VP.RD",
    28: "TDH.PHYMEM.PAGE.RECLAIM",
    29: "TDH.MEM.PAGE.REMOVE",
    31: "TDH.SYS.KEY.CONFIG",
    33: "TDH.SYS.INIT",
    34: "TDH.SYS.RD",
    35: "TDH.SYS.LP.INIT",
    36: "TDH.SYS.TDMR.INIT",
    38: "TDH.MEM.TRACK",
    40: "TDH.PHYMEM.CACHE.WB",
    41: "TDH.PHYMEM.PAGE.WBINVD",
    43: "TDH.VP.WR",
    45: "TDH.SYS.CONFIG",
}


# Bits 23:16 are the leaf's version.
_LEAF_MASK = 0xFFFF


RECLAIM = "TDH.PHYMEM.PAGE.RECLAIM"


# The leaves of a teardown other than the reclaim itself.
TEARDOWN = frozenset(LEAVES[number] for number in (7, 18, 19, 20, 29, 38, 40, 41))


_STATUSES = {
    0x80000003: "TDX_INTERRUPTED_RESUMABLE",
    0xC0000100: "TDX_OPERAND_INVALID",
    0xC0000101: "TDX_OPERAND_ADDR_RANGE_ERROR",
    0x80000200: "TDX_OPERAND_BUSY",
    0x80000201: "TDX_PREVIOUS_TLB_EPOCH_BUSY",
    0x80000203: "TDX_RND_NO_ENTROPY",
    0xC0000300: "TDX_PAGE_METADATA_INCORRECT",
    0xC0000400: "TDX_TD_ASSOCIATED_PAGES_EXIST",
    0xC0000607: "TDX_LIFECYCLE_STATE_INCORRECT",
    0x80000702: "TDX_VCPU_NOT_ASSOCIATED",
    0x80000817: "TDX_WBCACHE_NOT_COMPLETE",
    0x00000821: "TDX_NO_HKID_READY_TO_WBCACHE",
    0x80000824: "TDX_FLUSHVP_NOT_DONE",
    0xC0000B06: "TDX_GPA_RANGE_NOT_BLOCKED",
    0xC0000B08: "TDX_TLB_TRACKING_NOT_DONE",
    0xC0000B0D: "TDX_EPT_ENTRY_STATE_INCORRECT",
    0x60000005: "TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE",
}


_OPERANDS = {0x01: "RCX", 0x80: "TDR", 0x92: "SEPT", 0xA9: "TD_EPOCH"}


_VMFAIL_INVALID = 0xFFFFFFFF00000000


def name_leaf(text: str) -> str:
    """Return the leaf of a number (hex or decimal) or of its name in a macro.

    >>> name_leaf("0x000000000000001c"), name_leaf("28"), name_leaf("TDH_MEM_TRACK")
    ('TDH.PHYMEM.PAGE.RECLAIM', 'TDH.PHYMEM.PAGE.RECLAIM', 'TDH.MEM.TRACK')
    >>> name_leaf("0x3ff")
    'leaf 1023 (not in the table)'
    """
    if not text[:1].isdigit():
        return text.upper().replace("_", ".")
    number = int(text, 16 if text.lower().startswith("0x") else 10) & _LEAF_MASK
    return LEAVES.get(number, f"leaf {number} (not in the table)")


def name_status(text: str) -> str:
    """Return what a status of the TDX module means.

    >>> name_status("0xc000030000000001")
    'TDX_PAGE_METADATA_INCORRECT, operand RCX'
    >>> name_status("0xc000050500000000")
    'a status not in the table'
    """
    value = int(text, 16) & 0xFFFFFFFFFFFFFFFF
    if value & _VMFAIL_INVALID == _VMFAIL_INVALID:
        return "VMfailInvalid: no TDX module answered"
    name = _STATUSES.get(value >> 32)
    if name is None:
        return "a status not in the table"
    operand = _OPERANDS.get(value & 0xFFFFFFFF)
    return f"{name}, operand {operand}" if operand else name
