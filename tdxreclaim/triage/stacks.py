"""Which phase of a TD's teardown a kernel stack sits in, and what it waits for.

Source: linux v6.16-v7.1 virt/kvm/guest_memfd.c, arch/x86/kvm/vmx/tdx.c and
arch/x86/virt/vmx/tdx/tdx.c; no stack of a real host was seen (inferred).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.tables.findings.stuck import (
    STUCK_CONTROL_PAGES,
    STUCK_ELSEWHERE,
    STUCK_GUEST_PAGES,
    STUCK_HKID,
    STUCK_ON_LOCK,
    STUCK_SYS_DISABLE,
)
from tdxreclaim.tables.kernels import RUNS_TDS
from tdxreclaim.tables.teardown import ZAPS, Action, Phase

if TYPE_CHECKING:
    from tdxreclaim.facts.logs.stack import Stack
    from tdxreclaim.tables.findings.kind import Kind

_FUNCTIONS = {function for row in RUNS_TDS for function in row.functions}


# Functions that only one phase has.
_PHASES = {each.name: each.phase for each in _FUNCTIONS if each.phase is not None}


_UNMAPS = {each.name for each in _FUNCTIONS if each.unmaps}


_KINDS = {
    Phase.GUEST_PAGES: STUCK_GUEST_PAGES,
    Phase.HKID: STUCK_HKID,
    Phase.CONTROL_PAGES: STUCK_CONTROL_PAGES,
}


# Clears in phase A and C alike; without another sign it is most likely A, of
# which there are some five hundred times as many pages.
_CLEARS = {each.name for each in _FUNCTIONS if each.action is Action.CLEAR}


_WAITS = (
    "mutex_lock",
    "__mutex_lock",
    "rwsem_down_",
    "down_write",
    "down_read",
    "queued_write_lock",
    "queued_read_lock",
    "native_queued_spin_lock",
    "__down_write",
    "__down_read",
)


# How many functions above the lock may belong to the scheduler.
_TOP = 8


# KVM's and the core's wrappers of the leaves come by many names.
_TEARDOWN_BEGINS = ("tdx_reclaim_", "tdh_phymem_", "tdx_flush_vp", "tdx_hkid_free")


def is_teardown(function: str) -> bool:
    """Whether a function of TDX's code is a step of a teardown."""
    return function in _PHASES or function.startswith(_TEARDOWN_BEGINS)


def phase_of(function: str) -> Phase | None:
    """Return the one phase of a teardown that a function belongs to."""
    return _PHASES.get(function)


def names_tdx(stack: Stack) -> bool:
    """Whether a function in it is TDX's own: guest_memfd is not TDX's alone."""
    return any(name.startswith(("tdx_", "__tdx_", "tdh_")) for name in stack.frames)


class Attribution(NamedTuple):
    """The row for a stack, and the function that decided."""

    kind: Kind
    function: str


def attribute(stack: Stack) -> Attribution:
    """Return what a stack is doing: a phase, a wait for KVM's locks, or something else.

    The outermost function that only one phase has decides: a phase calls what
    others call too.
    """
    if "tdx_sys_disable" in stack.frames:
        return Attribution(STUCK_SYS_DISABLE, "tdx_sys_disable")
    waiting = next((i for i, f in enumerate(stack.frames[:_TOP]) if f.startswith(_WAITS)), None)
    if waiting is not None:
        caller = next(
            (f for f in stack.frames[waiting:] if f.startswith(("kvm_", "tdx_", "vt_", "__kvm_"))),
            "",
        )
        if caller:
            return Attribution(STUCK_ON_LOCK, caller)
    for function in reversed(stack.frames):
        if function in _PHASES:
            return Attribution(_KINDS[_PHASES[function]], function)
    if not ZAPS.isdisjoint(stack.frames):
        unmaps = next((f for f in stack.frames if f in _UNMAPS), None)
        if unmaps:
            return Attribution(STUCK_GUEST_PAGES, unmaps)
    clears = next((f for f in stack.frames if f in _CLEARS), None)
    if clears:
        return Attribution(STUCK_GUEST_PAGES, clears)
    named = next((f for f in stack.frames if not f.startswith(("__schedule", "schedule"))), "")
    return Attribution(STUCK_ELSEWHERE, named or "a function that is not told")
