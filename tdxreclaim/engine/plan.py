"""Teardown plans: what a kernel does to give a TD's pages back, step by step.

A ``Plan`` is a sequence of stages; a stage does its steps to each thing in
its scope (each guest page, each vCPU, the TD).  Nothing here acts:
``teardown.EmulatedHost`` performs a plan; what it costs is priced elsewhere.

Every row of ``tables.kernels`` whose KVM runs TDs has a plan, made from it.

Sources: Linux 6.16.1 to 7.3.4 ``arch/x86/kvm/vmx/tdx.c``
and ``arch/x86/virt/vmx/tdx/tdx.c``; RFC 20250313181629.17764-1-adrian.hunter@intel.com
for the order that releases the HKID first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from tdxreclaim.engine.truth import Key
from tdxreclaim.tables import kernels
from tdxreclaim.tables.kernels import FailedPage, KernelRow
from tdxreclaim.tables.sources import Certainty
from tdxreclaim.tables.teardown import Action, Function, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tdxreclaim.tables.releases import Version


class ClearWhen(StrEnum):
    """When the host clears a page that it got back."""

    ALWAYS = "always"
    ON_ERRATUM = "erratum"
    """Only on a CPU with ``tdx_pw_mce``."""
    NEVER = "never"

    def clears(self, *, erratum: bool) -> bool:
        """Whether it clears on a CPU with or without the erratum."""
        return self is ClearWhen.ALWAYS or (self is ClearWhen.ON_ERRATUM and erratum)


class Order(StrEnum):
    """What comes first: the guest's pages or the HKID."""

    UPSTREAM = "upstream"
    HKID_FIRST = "hkid-first"
    """In no release; emulation only."""


class Scope(StrEnum):
    """What a stage is done to, one after another."""

    GUEST_PAGE = "guest page"
    VCPU = "vCPU"
    TD = "TD"
    PACKAGE = "package"
    VCPU_PAGE = "vCPU page"
    """TDCX pages of each vCPU, then its TDVPR."""
    SEPT_PAGE = "Secure-EPT page"
    TDCS_PAGE = "TDCS page"
    TDR = "TDR"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanStep:
    """One step, and where it was read."""

    action: Action
    key: Key = Key.TD
    """The KeyID a WBINVD works on; a clear always goes through KeyID 0."""
    retried: bool = False
    """On TDX_OPERAND_BUSY the host kicks all vCPUs and tries once more."""
    goes_on: bool = False
    """The host goes on where it fails."""
    source: str
    certainty: Certainty = Certainty.UNVERIFIED


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Steps done to each thing in a scope before the next one's turn."""

    phase: Phase
    scope: Scope
    steps: tuple[PlanStep, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a kernel tears a TD down."""

    name: str
    order: Order
    clearing: ClearWhen
    kernels: str
    """Releases it stands for, for people."""
    row: KernelRow | None
    """The releases that do it so; None: no release does, emulation only."""
    finds_poisoned_page: bool
    """Whether the machine check handler masks the KeyID out of MCi_ADDR."""
    failed_page: FailedPage
    """What becomes of a guest page whose BLOCK, REMOVE or WBINVD failed."""
    stages: tuple[Stage, ...]
    note: str
    certainty: Certainty = Certainty.UNVERIFIED

    @property
    def released(self) -> bool:
        """Whether a release has this order."""
        return self.row is not None

    def with_clearing(self, clearing: ClearWhen) -> Plan:
        """The same plan, clearing at another time."""
        return replace(self, clearing=clearing)

    def lines(self, *, erratum: bool) -> Iterator[tuple[Stage, PlanStep]]:
        """Its steps one by one, without the clears that it would skip."""
        clears = self.clearing.clears(erratum=erratum)
        for stage in self.stages:
            for step in stage.steps:
                if clears or step.action is not Action.CLEAR:
                    yield stage, step


_READ = kernels.spell_rows(kernels.RUNS_TDS)


_KVM = f"linux {_READ} arch/x86/kvm/vmx/tdx.c"


def _functions(does: Callable[[Function], bool]) -> str:
    """The functions that do a step, each with the releases whose it is.

    The first that a row names, where one calls the other.
    """
    found: dict[str, list[KernelRow]] = {}
    for row in kernels.RUNS_TDS:
        name = next(function.name for function in row.functions if does(function))
        found.setdefault(name, []).append(row)
    return ", ".join(f"{name}() in {kernels.spell_rows(rows)}" for name, rows in found.items())


def _holder(action: Action) -> str:
    return _functions(lambda function: action in function.holds)


_TRACK = "tdx_track()"


_CLEAR = f"linux {_READ}, {_functions(lambda function: function.action is Action.CLEAR)}"


_RFC = "20250313181629.17764-1-adrian.hunter@intel.com"


def _step(action: Action, function: str, *, key: Key = Key.TD, retried: bool = False) -> PlanStep:
    """A step as it was read in *function*."""
    return PlanStep(
        action=action,
        key=key,
        retried=retried,
        source=f"{_KVM}, {function}",
        certainty=Certainty.VERIFIED,
    )


_CLEARED = PlanStep(action=Action.CLEAR, source=_CLEAR, certainty=Certainty.VERIFIED)


def _reclaim(phase: Phase, scope: Scope, function: str, *then: PlanStep) -> Stage:
    """A stage that reclaims pages and clears each."""
    reclaimed = _step(Action.RECLAIM, function)
    return Stage(phase=phase, scope=scope, steps=(reclaimed, *then, _CLEARED))


_REMOVE_PAGES = Stage(
    phase=Phase.GUEST_PAGES,
    scope=Scope.GUEST_PAGE,
    steps=(
        _step(Action.BLOCK, _holder(Action.BLOCK), retried=True),
        # tdx_track() returns nothing: the REMOVE after it fails then.
        replace(_step(Action.TRACK, _TRACK, retried=True), goes_on=True),
        _step(Action.KICK, _TRACK),
        _step(Action.REMOVE, _holder(Action.REMOVE), retried=True),
        _step(Action.WBINVD, _holder(Action.WBINVD)),
        _CLEARED,
    ),
)


_RECLAIM_PAGES = Stage(
    phase=Phase.GUEST_PAGES,
    scope=Scope.GUEST_PAGE,
    steps=(
        PlanStep(action=Action.RECLAIM, source=_RFC, certainty=Certainty.VERIFIED),
        PlanStep(action=Action.CLEAR, source=_RFC, certainty=Certainty.VERIFIED),
    ),
)


_RELEASE_HKID = (
    Stage(
        phase=Phase.HKID,
        scope=Scope.VCPU,
        steps=(_step(Action.VP_FLUSH, "tdx_mmu_release_hkid()"),),
    ),
    Stage(
        phase=Phase.HKID,
        scope=Scope.TD,
        steps=(_step(Action.VPFLUSHDONE, "tdx_mmu_release_hkid()"),),
    ),
    Stage(
        phase=Phase.HKID,
        scope=Scope.PACKAGE,
        steps=(_step(Action.CACHE_WB, "tdx_mmu_release_hkid()"),),
    ),
    Stage(
        phase=Phase.HKID,
        scope=Scope.TD,
        steps=(_step(Action.FREEID, "tdx_mmu_release_hkid()"),),
    ),
)


_RECLAIM_CONTROL = (
    _reclaim(Phase.CONTROL_PAGES, Scope.VCPU_PAGE, "tdx_vcpu_free()"),
    _reclaim(Phase.CONTROL_PAGES, Scope.SEPT_PAGE, "tdx_sept_free_private_spt()"),
    _reclaim(Phase.CONTROL_PAGES, Scope.TDCS_PAGE, "tdx_reclaim_td_control_pages()"),
    _reclaim(
        Phase.CONTROL_PAGES,
        Scope.TDR,
        "tdx_reclaim_td_control_pages()",
        _step(Action.WBINVD, "tdx_reclaim_td_control_pages()", key=Key.GLOBAL),
    ),
)


_UPSTREAM = (_REMOVE_PAGES, *_RELEASE_HKID, *_RECLAIM_CONTROL)


def _plan_of(row: KernelRow) -> Plan:
    """The plan of a kernel row: what differs between releases is the row's."""
    return Plan(
        name=str(row.first),
        order=Order.UPSTREAM,
        clearing=_CLEARING[row.clearing],
        kernels=row.span,
        row=row,
        finds_poisoned_page=row.masks_mce_address,
        failed_page=row.failed_page or FailedPage.LEAKED,
        stages=_UPSTREAM,
        note=row.summary,
        certainty=row.certainty,
    )


_CLEARING = {
    kernels.Clearing.ALWAYS: ClearWhen.ALWAYS,
    kernels.Clearing.ON_ERRATUM: ClearWhen.ON_ERRATUM,
}


HKID_FIRST = Plan(
    name="hkid-first",
    order=Order.HKID_FIRST,
    # Its published times were taken in March 2025, before any kernel skipped.
    clearing=ClearWhen.ALWAYS,
    kernels="none",
    row=None,
    finds_poisoned_page=False,
    failed_page=FailedPage.LEAKED,
    stages=(*_RELEASE_HKID, _RECLAIM_PAGES, *_RECLAIM_CONTROL),
    note="in no release (KVM_TDX_TERMINATE_VM was dropped); emulation only",
    certainty=Certainty.VERIFIED,
)


PLANS = {plan.name: plan for plan in (*map(_plan_of, kernels.RUNS_TDS), HKID_FIRST)}
"""The plans by name: the first release of their kernels, and ``hkid-first``."""


PLAN_OF_ORDER = {Order.UPSTREAM: PLANS[str(kernels.FIRST_WITH_TDS)], Order.HKID_FIRST: HKID_FIRST}
"""A plan of each order, for whoever says the clearing himself."""


def plan_of(release: Version) -> Plan | None:
    """The plan of an upstream release, None if its row has none or there is no row."""
    row = kernels.find_kernel(release)
    return next((plan for plan in PLANS.values() if row is not None and plan.row is row), None)
