"""The TDX module's side of teardown: leaves, status codes, preconditions.

``LEAVES`` is the table: for each SEAMCALL leaf the checks that the module
makes, in its order, and the status that a failed check returns.  The machine
walks it and holds no check of its own.

Sources: TDX module 1.5.01 sources (checks, states, operand ids), Linux 7.1
``tdx_errno.h`` and ``virt/vmx/tdx/tdx.h`` (status codes, leaf numbers).

That a status goes with an operand id is verified for RECLAIM's
TDX_PAGE_METADATA_INCORRECT | RCX; the other operand ids are inferred.

To add a check, add a row to its leaf and the wrong order that trips it to the
tests; to add a leaf, its effect goes to ``machine.Machine``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.engine.states import Certainty, KeyIdState, Lifecycle, Use

if TYPE_CHECKING:
    from collections.abc import Callable


class Leaf(IntEnum):
    """SEAMCALL leaves, by the kernel's names, with their numbers."""

    TDH_MEM_RANGE_BLOCK = 7
    TDH_VP_FLUSH = 18
    TDH_MNG_VPFLUSHDONE = 19
    TDH_MNG_KEY_FREEID = 20
    TDH_PHYMEM_PAGE_RECLAIM = 28
    TDH_MEM_PAGE_REMOVE = 29
    TDH_MEM_TRACK = 38
    TDH_PHYMEM_CACHE_WB = 40
    TDH_PHYMEM_PAGE_WBINVD = 41

    @property
    def spelling(self) -> str:
        """The leaf as prose spells it.

        >>> Leaf.TDH_MEM_PAGE_REMOVE.spelling
        'TDH.MEM.PAGE.REMOVE'
        """
        return self.name.replace("_", ".")


class Status(IntEnum):
    """Completion status of a SEAMCALL, without its operand id."""

    SUCCESS = 0
    TDX_NO_HKID_READY_TO_WBCACHE = 0x0000082100000000
    """Of the success class: there was nothing to write back."""
    TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE = 0x6000000500000000
    TDX_INTERRUPTED_RESUMABLE = 0x8000000300000000
    TDX_OPERAND_BUSY = 0x8000020000000000
    TDX_VCPU_NOT_ASSOCIATED = 0x8000070200000000
    TDX_WBCACHE_NOT_COMPLETE = 0x8000081700000000
    TDX_FLUSHVP_NOT_DONE = 0x8000082400000000
    TDX_OPERAND_INVALID = 0xC000010000000000
    TDX_PAGE_METADATA_INCORRECT = 0xC000030000000000
    TDX_TD_ASSOCIATED_PAGES_EXIST = 0xC000040000000000
    TDX_LIFECYCLE_STATE_INCORRECT = 0xC000060700000000
    TDX_GPA_RANGE_NOT_BLOCKED = 0xC0000B0600000000
    TDX_TLB_TRACKING_NOT_DONE = 0xC0000B0800000000
    TDX_EPT_ENTRY_STATE_INCORRECT = 0xC0000B0D00000000
    VMFAIL_INVALID = -1
    """No module answered: it was shut down.  Not a code; SEAMCALL itself failed."""

    @property
    def is_success(self) -> bool:
        """Whether it is of the success class.

        >>> Status.TDX_NO_HKID_READY_TO_WBCACHE.is_success
        True
        """
        # Bits 63 to 61: error, non-recoverable, fatal.
        return self >= 0 and self >> 61 == 0


class Operand(IntEnum):
    """Operand ids, in the low 32 bits of a status."""

    NONE = 0
    RCX = 1
    TDR = 0x80
    SEPT = 0x92
    TD_EPOCH = 0xA9


class Reply(NamedTuple):
    """What a SEAMCALL returned."""

    status: Status
    operand: Operand = Operand.NONE

    @property
    def code(self) -> int:
        """RAX, as the kernel logs it; -1 where the module did not answer.

        >>> hex(Reply(Status.TDX_PAGE_METADATA_INCORRECT, Operand.RCX).code)
        '0xc000030000000001'
        """
        return self.status if self.status < 0 else self.status | self.operand

    def __str__(self) -> str:
        """Return names, and for what is no success the code too.

        >>> str(Reply(Status.TDX_PAGE_METADATA_INCORRECT, Operand.RCX))
        'TDX_PAGE_METADATA_INCORRECT|RCX (0xc000030000000001)'
        """
        if self.status is Status.SUCCESS:
            return self.status.name
        operand = f"|{self.operand.name}" if self.operand is not Operand.NONE else ""
        code = "" if self.code < 0 else f" ({self.code:#018x})"
        return f"{self.status.name}{operand}{code}"


SUCCESS = Reply(Status.SUCCESS)


@dataclass(slots=True)
class Td:
    """What the module knows about one TD, its pages aside."""

    packages: int = 1
    vcpus: int = 1
    lifecycle: Lifecycle = Lifecycle.KEYS_CONFIGURED
    fatal: bool = False
    """A machine check hit the TD: it may only be torn down."""
    keyid: KeyIdState = KeyIdState.ASSIGNED
    unwritten: int = 0
    """One bit a package whose caches are still to be written back for the HKID."""
    epoch: int = 1
    """TD epoch: TDH.MEM.TRACK counts it up."""
    children: int = 0
    """CHLDCNT of the TDR."""
    associated: set[int] = field(default_factory=set)
    """vCPUs that are associated with a logical processor."""


class Call(NamedTuple):
    """The operands of one call, as far as a check looks at them."""

    td: Td
    use: Use
    """Of the page operand; NDA where the leaf takes no page."""
    tracked: bool
    """TDH.MEM.TRACK ran since the page was blocked; False where it is not."""
    number: int
    """vCPU or package; 0 where the leaf takes neither."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One precondition; ``holds`` is asked before anything changes."""

    says: str
    holds: Callable[[Call], bool]
    status: Status
    operand: Operand = Operand.NONE
    certainty: Certainty = Certainty.VERIFIED
    source: str = "TDX module 1.5.01 sources"

    @property
    def reply(self) -> Reply:
        """What the caller gets where it does not hold."""
        return Reply(self.status, self.operand)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeafSpec:
    """A leaf: its checks in the module's order, and its effect in words."""

    checks: tuple[Check, ...]
    effect: str


_TD_RUNS = (
    Check(
        says="the TD has its keys",
        holds=lambda c: c.td.lifecycle is Lifecycle.KEYS_CONFIGURED,
        status=Status.TDX_LIFECYCLE_STATE_INCORRECT,
        operand=Operand.TDR,
    ),
    Check(
        says="the TD is not FATAL",
        holds=lambda c: not c.td.fatal,
        status=Status.TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE,
        operand=Operand.TDR,
        # That it fails is stated (only teardown leaves work); the code is a guess.
        certainty=Certainty.INFERRED,
        source="TDX base architecture 348549, section 16: FATAL allows teardown only",
    ),
)


LEAVES: dict[Leaf, LeafSpec] = {
    Leaf.TDH_MEM_RANGE_BLOCK: LeafSpec(
        checks=(
            *_TD_RUNS,
            Check(
                says="the Secure-EPT entry is mapped and not blocked",
                holds=lambda c: c.use is Use.MAPPED,
                status=Status.TDX_EPT_ENTRY_STATE_INCORRECT,
                operand=Operand.RCX,
                certainty=Certainty.INFERRED,
            ),
        ),
        effect="the entry becomes blocked, stamped with the TD epoch",
    ),
    Leaf.TDH_MEM_TRACK: LeafSpec(checks=_TD_RUNS, effect="the TD epoch advances"),
    Leaf.TDH_MEM_PAGE_REMOVE: LeafSpec(
        checks=(
            *_TD_RUNS,
            Check(
                says="the Secure-EPT entry maps a page",
                holds=lambda c: c.use in (Use.MAPPED, Use.BLOCKED),
                status=Status.TDX_EPT_ENTRY_STATE_INCORRECT,
                operand=Operand.RCX,
            ),
            Check(
                says="the entry is blocked",
                holds=lambda c: c.use is Use.BLOCKED,
                status=Status.TDX_GPA_RANGE_NOT_BLOCKED,
                operand=Operand.RCX,
            ),
            Check(
                says="TLB tracking ran since it was blocked",
                holds=lambda c: c.tracked,
                status=Status.TDX_TLB_TRACKING_NOT_DONE,
                operand=Operand.RCX,
            ),
        ),
        effect="the page becomes NDA, CHLDCNT goes down; contents are not touched",
    ),
    Leaf.TDH_PHYMEM_PAGE_WBINVD: LeafSpec(
        checks=(
            Check(
                says="the page is NDA",
                holds=lambda c: c.use is Use.NDA,
                status=Status.TDX_PAGE_METADATA_INCORRECT,
                operand=Operand.RCX,
            ),
        ),
        effect="lines cached under the given KeyID are written back and dropped",
    ),
    Leaf.TDH_VP_FLUSH: LeafSpec(
        checks=(
            Check(
                says="the vCPU is associated",
                holds=lambda c: c.number in c.td.associated,
                status=Status.TDX_VCPU_NOT_ASSOCIATED,
            ),
        ),
        effect="the vCPU is no longer associated",
    ),
    Leaf.TDH_MNG_VPFLUSHDONE: LeafSpec(
        checks=(
            Check(
                says="the HKID is assigned",
                holds=lambda c: (
                    c.td.lifecycle in (Lifecycle.HKID_ASSIGNED, Lifecycle.KEYS_CONFIGURED)
                ),
                status=Status.TDX_LIFECYCLE_STATE_INCORRECT,
                operand=Operand.TDR,
            ),
            Check(
                says="no vCPU is associated",
                holds=lambda c: not c.td.associated,
                status=Status.TDX_FLUSHVP_NOT_DONE,
            ),
        ),
        effect="the TD is blocked, the HKID flushed, every package to be written back",
    ),
    Leaf.TDH_PHYMEM_CACHE_WB: LeafSpec(
        checks=(
            Check(
                says="an HKID waits for this package",
                holds=lambda c: (
                    c.td.keyid is KeyIdState.FLUSHED and bool(c.td.unwritten >> c.number & 1)
                ),
                status=Status.TDX_NO_HKID_READY_TO_WBCACHE,
            ),
        ),
        effect="the package's caches are written back for the HKID",
    ),
    Leaf.TDH_MNG_KEY_FREEID: LeafSpec(
        checks=(
            Check(
                says="the TD is blocked",
                holds=lambda c: c.td.lifecycle is Lifecycle.BLOCKED,
                status=Status.TDX_LIFECYCLE_STATE_INCORRECT,
                operand=Operand.TDR,
            ),
            Check(
                says="every package's caches are written back",
                holds=lambda c: c.td.unwritten == 0,
                status=Status.TDX_WBCACHE_NOT_COMPLETE,
            ),
        ),
        effect="the HKID is free, the TD in teardown",
    ),
    Leaf.TDH_PHYMEM_PAGE_RECLAIM: LeafSpec(
        checks=(
            Check(
                says="the page belongs to a TD",
                holds=lambda c: c.use not in (Use.NDA, Use.RSVD),
                status=Status.TDX_PAGE_METADATA_INCORRECT,
                operand=Operand.RCX,
            ),
            Check(
                says="the TD is in teardown",
                holds=lambda c: c.td.lifecycle is Lifecycle.TEARDOWN,
                status=Status.TDX_LIFECYCLE_STATE_INCORRECT,
                operand=Operand.TDR,
            ),
            Check(
                says="a TDR has no pages left",
                holds=lambda c: c.use is not Use.TDR or c.td.children == 0,
                status=Status.TDX_TD_ASSOCIATED_PAGES_EXIST,
                operand=Operand.TDR,
            ),
        ),
        effect="the page becomes NDA, CHLDCNT goes down; contents are not touched",
    ),
}
