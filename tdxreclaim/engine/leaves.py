"""The TDX module's side of teardown: what holds when a leaf is called.

``tables.modulechecks`` has the checks of each leaf, in the module's order and
with their statuses; ``CONDITIONS`` says of each condition whether it holds.
A condition that is not in it always holds here: addresses and GPAs are good,
nobody else takes a lock or interrupts (a caller scripts such replies:
``module.Machine.script``), the module is ready, and TDCS and TDVPS have all
their pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.engine.states import KeyIdState, Lifecycle, Use
from tdxreclaim.tables.modulechecks import CHECKS, Condition, ModuleCheck

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.tables.seamcalls import Leaf


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
    saved: int = 0
    """One bit a package whose write-back was interrupted and can be resumed."""
    epoch: int = 1
    """TD epoch: TDH.MEM.TRACK counts it up."""
    children: int = 0
    """CHLDCNT of the TDR."""
    associated: set[int] = field(default_factory=set)
    """vCPUs that are associated with a logical processor."""
    has_tdr: bool = True
    """Whether the TDR is still one: after its RECLAIM the TD is gone for the module."""


class Call(NamedTuple):
    """The operands of one call, as far as a check looks at them."""

    td: Td
    use: Use
    """Of the page operand, of the vCPU's TDVPR; NDA where the leaf takes no page."""
    tracked: bool
    """TDH.MEM.TRACK ran since the page was blocked; False where it is not."""
    number: int
    """vCPU or package; 0 where the leaf takes neither."""
    resume: bool = False
    """TDH.PHYMEM.CACHE.WB goes on from a saved point, rather than starts."""


CONDITIONS: dict[Condition, Callable[[Call], bool]] = {
    Condition.IS_TDR: lambda c: c.td.has_tdr,
    Condition.IS_TDVPR: lambda c: c.use is Use.TDVPR,
    Condition.IS_NDA: lambda c: c.use is Use.NDA,
    Condition.HELD_BY_A_TD: lambda c: c.use not in (Use.NDA, Use.RSVD),
    Condition.NOT_FATAL: lambda c: not c.td.fatal,
    Condition.KEYS_CONFIGURED: lambda c: c.td.lifecycle is Lifecycle.KEYS_CONFIGURED,
    Condition.HKID_HELD: lambda c: (
        c.td.lifecycle in (Lifecycle.HKID_ASSIGNED, Lifecycle.KEYS_CONFIGURED)
    ),
    Condition.TD_BLOCKED: lambda c: c.td.lifecycle is Lifecycle.BLOCKED,
    Condition.IN_TEARDOWN: lambda c: c.td.lifecycle is Lifecycle.TEARDOWN,
    Condition.NO_CHILDREN: lambda c: c.use is not Use.TDR or c.td.children == 0,
    Condition.NOT_BLOCKED_YET: lambda c: c.use is not Use.BLOCKED,
    Condition.MAPPED: lambda c: c.use is Use.MAPPED,
    Condition.LEAF_ENTRY: lambda c: c.use in (Use.MAPPED, Use.BLOCKED),
    Condition.BLOCKED: lambda c: c.use is Use.BLOCKED,
    Condition.TRACKED: lambda c: c.tracked,
    Condition.VCPU_ASSOCIATED: lambda c: c.number in c.td.associated,
    Condition.NO_VCPU_ASSOCIATED: lambda c: not c.td.associated,
    Condition.CACHES_WRITTEN_BACK: lambda c: c.td.unwritten == 0,
    # There is one TD, so that "some HKID" is its own.
    Condition.SOME_HKID_FLUSHED: lambda c: c.resume or c.td.keyid is KeyIdState.FLUSHED,
    Condition.POINT_SAVED: lambda c: not c.resume or bool(c.td.saved >> c.number & 1),
}


def _asked(leaf: Leaf) -> tuple[tuple[Callable[[Call], bool], ModuleCheck], ...]:
    """The checks of a leaf that can fail here, each with its question."""
    return tuple(
        (CONDITIONS[check.condition], check)
        for check in CHECKS[leaf]
        if check.condition in CONDITIONS
    )


ASKED = {leaf: _asked(leaf) for leaf in CHECKS}


def failed_check(leaf: Leaf, call: Call) -> ModuleCheck | None:
    """The first check that does not hold, in the module's order; None: the leaf does its work."""
    return next((check for holds, check in ASKED[leaf] if not holds(call)), None)
