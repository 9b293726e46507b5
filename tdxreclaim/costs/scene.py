"""What a user asks of the emulator, turned into a plan and a platform.

The CPU and the kernel are the ones that `check` decides about: there is no
second table.  What the decision leaves open is assumed, and said.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.costs.estimate import Estimate, estimate
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import HKID_FIRST, PLANS, ClearWhen, Order, Plan, plan_of
from tdxreclaim.errors import UsageError
from tdxreclaim.policy.model import Decision, KernelFinding, Posture, Silicon, Verdict
from tdxreclaim.tables.errata import ANY
from tdxreclaim.tables.kernels import (
    FIRST_THAT_SKIPS,
    RUNS_TDS,
    Clearing,
    FailedPage,
    find_kernel,
    spell_rows,
)
from tdxreclaim.tables.releases import release_series, upstream_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.costs.calibration import Calibration
    from tdxreclaim.engine.shape import Shape


def _careful_plan(clearing: Clearing) -> Plan:
    """The plan of releases that clear so; of those that hand failed pages back, if some do."""
    plans = [PLANS[str(row.first)] for row in RUNS_TDS if row.clearing is clearing]
    return next((each for each in plans if each.failed_page is FailedPage.HANDED_BACK), plans[0])


# The plan for a kernel that is not known: it clears as every release since 6.18 does.
_DEFAULT_PLAN = _careful_plan(Clearing.ON_ERRATUM)


class Scene(NamedTuple):
    """What is torn down by whom on what; ``assumed`` says what was not known."""

    plan: Plan
    platform: Platform
    kernel: str
    cpu: str
    assumed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class WhatIf:
    """The same TD under another plan or on another CPU."""

    plan: Plan
    label: str
    affected: bool
    clears: bool
    estimate: Estimate
    current: bool


def set_scene(
    decision: Decision,
    *,
    packages: int,
    order: Order | None = None,
    clearing: ClearWhen | None = None,
) -> Scene:
    """Return the plan and the platform that a decision means, as far as it tells.

    Raises:
        UsageError: the kernel cannot run TDs, or the CPU has no TDX.

    """
    assumed: list[str] = []
    affected = _affected(decision, assumed)
    plan, kernel = _plan(decision, assumed)
    if decision.posture is Posture.AT_RISK or decision.kernel.ignores:
        plan = plan.with_clearing(ClearWhen.NEVER)
        assumed.append(f"nothing is cleared: {decision.posture_because}")
    if order is Order.HKID_FIRST:
        plan = HKID_FIRST.with_clearing(plan.clearing)
    if clearing is not None:
        plan = plan.with_clearing(clearing)
    return Scene(
        plan, Platform(erratum=affected, packages=packages), kernel, _cpu(decision), tuple(assumed)
    )


def name_errata(decision: Decision, *, affected: bool) -> str:
    """Say which errata the CPU of a scene has or, where it has none, could have."""
    if not affected:
        return f"without {ANY}"
    return f"with {' and '.join(each.id for each in decision.silicon.errata) or ANY}"


def identified_cpu(decision: Decision) -> str | None:
    """Vendor and number of the first processor that could be identified; None if none could."""
    for each in decision.silicon.processors:
        if each.group.identified:
            return f"{each.group.vendor} {each.group.number}"
    return None


def _affected(decision: Decision, assumed: list[str]) -> bool:
    match decision.verdict:
        case Verdict.CLEAR_REQUIRED:
            return True
        case Verdict.CLEAR_NOT_REQUIRED:
            return False
        case Verdict.UNDETERMINED:
            assumed.append(
                f"the CPU has {ANY}: it is not known ({decision.because}), and a careful "
                "host clears"
            )
            return True
        case _:
            return _stand_in(decision, assumed)


def _stand_in(decision: Decision, assumed: list[str]) -> bool:
    """Return whether the CPU has the erratum where the question does not arise on this host."""
    if decision.silicon.status is Silicon.NO_TDX:
        why = f"needed: there is no TDX CPU here ({decision.silicon.because})"
        raise UsageError("cpu", why)
    assumed.append(f"a host with this CPU: {decision.because}")
    return decision.silicon.status is not Silicon.NOT_AFFECTED


def _cpu(decision: Decision) -> str:
    for processor in decision.silicon.processors:
        if processor.silicon is decision.silicon.status:
            return processor.codename or processor.group.number
    return "an unknown CPU"


def _plan(decision: Decision, assumed: list[str]) -> tuple[Plan, str]:
    kernel = decision.kernel
    name = kernel.release or "an unknown kernel"
    match kernel.clearing:
        case Clearing.ALWAYS | Clearing.ON_ERRATUM:
            if len({row.failed_page for row in kernel.rows}) > 1:
                spans = " or ".join(row.span for row in kernel.rows)
                assumed.append(
                    f"{name} hands pages back whose removal fails: its code is that of {spans}, "
                    "which differ in it"
                )
            return _plan_of_kernel(kernel), name
        case Clearing.NO_TDX_HOST if decision.verdict is not Verdict.NOT_APPLICABLE:
            why = f"{name} cannot run TDs ({kernel.because}); name another release"
            raise UsageError("kernel", why)
        case _:
            assumed.append(
                f"{name} clears on the erratum alone, as {FIRST_THAT_SKIPS} and later do, and "
                "hands pages back whose removal fails: what it does is not known; name a release"
            )
            return _DEFAULT_PLAN, name


def _plan_of_kernel(kernel: KernelFinding) -> Plan:
    """The plan of the row whose code a kernel has; a careful one, if not known."""
    version = kernel.row.first if kernel.row else release_series(kernel.release)
    plan = plan_of(version) if version else None
    careful = _careful_plan(kernel.clearing)
    return plan if plan is not None and plan.clearing is careful.clearing else careful


# Releases that clear alike take as long: all go through the same steps.
_ALIKE = [tuple(rows) for _, rows in groupby(RUNS_TDS, key=lambda row: row.clearing)]


def _comparable() -> Iterator[tuple[str, Plan, str]]:
    for rows in _ALIKE:
        name = str(rows[0].first)
        yield name, PLANS[name], spell_rows(rows)
    yield HKID_FIRST.name, HKID_FIRST.with_clearing(ClearWhen.ON_ERRATUM), "HKID first (no release)"


# What can be compared, and how it is called.
COMPARABLE = {name: (plan, label) for name, plan, label in _comparable()}


def find_comparable(name: str) -> str | None:
    """Return which of `COMPARABLE` an upstream release, or its own name, means; None if none."""
    version = upstream_version(name)
    if version is None or find_kernel(version) is None:
        return name if name in COMPARABLE else None
    earlier = [str(rows[0].first) for rows in _ALIKE if rows[0].first <= version]
    return earlier[-1] if earlier else None


def compare(
    shape: Shape, scene: Scene, calibration: Calibration, names: tuple[str, ...]
) -> tuple[WhatIf, ...]:
    """Return each named plan on a CPU without and with the erratum.

    The scene's own plan is added in front if none of them is the same.
    """
    plans = [COMPARABLE[name] for name in names]
    alike = [_same(plan, scene.plan) for plan, _ in plans]
    if names and not any(alike):
        plans.insert(0, (scene.plan, "as asked"))
    return tuple(
        WhatIf(
            plan=plan,
            label=label,
            affected=affected,
            clears=plan.clearing.clears(erratum=affected),
            estimate=estimate(
                shape,
                plan,
                Platform(erratum=affected, packages=scene.platform.packages),
                calibration,
            ),
            current=_same(plan, scene.plan) and affected is scene.platform.erratum,
        )
        for plan, label in plans
        for affected in (False, True)
    )


def _same(one: Plan, other: Plan) -> bool:
    """Whether both take the same time."""
    return (one.stages, one.clearing) == (other.stages, other.clearing)
