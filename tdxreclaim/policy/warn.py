"""What does not fit together in the facts, or limits the answer: one rule, one warning."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.policy.kernel import release_disagrees
from tdxreclaim.policy.model import (
    HostFinding,
    HostState,
    KernelFinding,
    KernelRule,
    Silicon,
    SiliconFinding,
    SiliconRule,
)
from tdxreclaim.policy.silicon import flag_of
from tdxreclaim.tables.releases import upstream_version
from tdxreclaim.tables.sources import Certainty

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.facts.host import HostFacts


class _Case(NamedTuple):
    facts: HostFacts
    silicon: SiliconFinding
    host: HostFinding
    kernel: KernelFinding

    @property
    def flagged(self) -> str:
        """The errata whose flag the kernel has set."""
        return ", ".join(each.id for each in self.silicon.errata if flag_of(self.facts, each))

    @property
    def affected(self) -> bool:
        return self.silicon.status is Silicon.AFFECTED


def warn(
    facts: HostFacts, silicon: SiliconFinding, host: HostFinding, kernel: KernelFinding
) -> tuple[str, ...]:
    """Return the warnings, in the order of the rules."""
    case = _Case(facts, silicon, host, kernel)
    return tuple(warning for rule in _RULES for warning in rule(case))


def _flag_without_row(case: _Case) -> Iterable[str]:
    if case.flagged and not case.affected:
        yield (
            f"The kernel has set {case.flagged} on a CPU that the table does not list as affected; "
            "the kernel is believed."
        )


def _row_without_flag(case: _Case) -> Iterable[str]:
    unset = [each.id for each in case.silicon.errata if flag_of(case.facts, each) is False]
    if case.affected and unset and case.host.active:
        yield (
            "TDX is active on an affected CPU, yet the kernel has not set "
            f"{', '.join(unset)}; the table is believed."
        )


def _flagged_guest(case: _Case) -> Iterable[str]:
    if case.flagged and (case.facts.hypervisor.value or case.facts.tdx_guest.value):
        yield (
            f"The flags indicate a guest, but the kernel set {case.flagged}, which takes precedence: "
            "judged as a host."
        )


def _guest(case: _Case) -> Iterable[str]:
    if case.host.state is HostState.GUEST and case.silicon.status is not Silicon.NO_TDX:
        yield "A guest sees the CPU that its hypervisor chose to show; the host's may be another."


def _caveats(case: _Case) -> Iterable[str]:
    told = case.host.state not in (HostState.OFF, HostState.UNKNOWN)
    for processor in case.silicon.processors:
        if processor.note and not (told and processor.silicon is Silicon.AFFECTED):
            yield f"{processor.codename}: {processor.note}."


def _closed_list(case: _Case) -> Iterable[str]:
    if any(p.rule is SiliconRule.KERNEL_CLOSED_LIST for p in case.silicon.processors):
        yield (
            "This rests on the kernel's list of affected CPUs alone, which cannot hold a CPU newer "
            "than the kernel."
        )


def _forced_flags(case: _Case) -> Iterable[str]:
    if case.facts.forcing:
        yield (
            f"{case.facts.forcing} changes the flags that the kernel shows; nothing rests on "
            "those it may concern. A boot without it, or a CPUID dump (cpuid -r), settles them."
        )


def _hidden_movdir64b(case: _Case) -> Iterable[str]:
    if case.facts.movdir64b.value is not False or case.host.state is HostState.GUEST:
        return
    named = [p for p in case.silicon.processors if p.codename and p.silicon is not Silicon.NO_TDX]
    for codename in dict.fromkeys(
        p.codename for p in named if p.rule is not SiliconRule.CPU_UNLISTED
    ):
        yield (
            f"{codename} has MOVDIR64B, and this host does not show it: a hypervisor may hide it, "
            "or the flags were changed (clearcpuid=)."
        )


def _belied(case: _Case) -> Iterable[str]:
    if case.kernel.rule is KernelRule.RELEASE_BELIED:
        yield (
            "KVM has TDX on, which the upstream kernel of this release cannot do; the host's state is "
            "believed."
        )


def _processors_disagree(case: _Case) -> Iterable[str]:
    whole = [p.group for p in case.silicon.processors if p.group.identified]
    if len({(group.vendor, group.family, group.model) for group in whole}) > 1:
        yield "The processors disagree; the strictest counts."


def _no_cross_check(case: _Case) -> Iterable[str]:
    for value, evidence in case.facts.witnesses:
        if not value:
            yield f"No cross-check: {evidence.observed}."


def _no_platform_flag(case: _Case) -> Iterable[str]:
    if case.facts.tdx_host_platform.value is False and case.host.active:
        yield (
            "TDX is active without tdx_host_platform among the flags: an out-of-tree kernel, or a "
            "capture of several boots."
        )


def _symbols_disagree(case: _Case) -> Iterable[str]:
    if release_disagrees(case.facts, case.kernel):
        yield (
            f"The kernel's code does not fit its release {case.kernel.release}; the code is "
            "believed."
        )


def _newer(case: _Case) -> Iterable[str]:
    row = case.kernel.row
    if case.kernel.newer and row is not None:
        yield (
            f"{case.kernel.release} is newer than what is known here ({row.last}): its functions fit, "
            f"so it is judged like {row.span} (inferred)."
        )


def _partial_backport(case: _Case) -> Iterable[str]:
    release = case.facts.release.value
    if (
        case.kernel.rule in (KernelRule.SYMBOLS_ON_ERRATUM, KernelRule.IMAGE_ON_ERRATUM)
        and case.kernel.certainty is Certainty.INFERRED
        and not (release and upstream_version(release))
    ):
        yield (
            "A distribution may have taken the new names without the test of the flag; then this "
            "kernel clears on every CPU. kvm_intel's code tells."
        )


def _livepatched(case: _Case) -> Iterable[str]:
    if case.facts.livepatches:
        yield (
            "A livepatch is loaded, and may have changed what this kernel does: "
            "/sys/kernel/livepatch."
        )


_RULES = (
    _flag_without_row,
    _row_without_flag,
    _flagged_guest,
    _guest,
    _caveats,
    _closed_list,
    _forced_flags,
    _hidden_movdir64b,
    _belied,
    _processors_disagree,
    _no_cross_check,
    _no_platform_flag,
    _symbols_disagree,
    _newer,
    _partial_backport,
    _livepatched,
)
