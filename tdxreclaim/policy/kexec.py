"""What the erratum does to kexec, and so to kdump, on a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.policy.kernel import distribution_of, listed_row
from tdxreclaim.policy.model import (
    HostState,
    KernelFinding,
    KernelRule,
    SiliconFinding,
    Verdict,
)
from tdxreclaim.policy.silicon import flag_of
from tdxreclaim.tables.kernels import Clearing, KernelRow, Kexec
from tdxreclaim.tables.sources import Certainty

if TYPE_CHECKING:
    from tdxreclaim.facts.host import HostFacts
    from tdxreclaim.tables.errata import Erratum


def judge_kexec(
    facts: HostFacts,
    kernel: KernelFinding,
    verdict: Verdict,
    silicon: SiliconFinding,
    state: HostState,
) -> KernelFinding:
    """Return *kernel* with what the erratum does to kexec and kdump on this host."""
    kexec, because = _kexec(facts, kernel, verdict, silicon, state)
    return kernel._replace(kexec=kexec, kexec_because=because)


def _kexec(
    facts: HostFacts,
    kernel: KernelFinding,
    verdict: Verdict,
    silicon: SiliconFinding,
    state: HostState,
) -> tuple[Kexec, str]:
    if facts.log_kexec.value:
        return Kexec.REFUSED, "the kernel log has kexec refused for the erratum"
    if verdict is Verdict.NOT_APPLICABLE:
        return Kexec.ALLOWED, "the erratum plays no part here"
    if kernel.rule in _NOT_BUILT:
        return Kexec.ALLOWED, "a kernel without TDX host support does not ask for the erratum"
    if kernel.rule is KernelRule.DISTRIBUTION_LISTED:
        return _kexec_of_distribution(facts, verdict, silicon, state)
    row = kernel.row
    if row is None and state is HostState.OFF and not facts.pw_mce.value:
        return Kexec.ALLOWED, "the kernel has not activated TDX; with TDX active it may differ"
    if row is None or (row.clearing is not Clearing.ON_ERRATUM and row is not listed_row(facts)):
        # An old function in a distribution's kernel does not tell how kexec was patched.
        return Kexec.UNKNOWN, "it is not known which generation of the code this kernel has"
    if row.clearing is not Clearing.ON_ERRATUM:
        return _kexec_before_the_refusal(row, state)
    return _kexec_by_erratum(facts, kernel, row, verdict, silicon, state)


def _kexec_by_erratum(
    facts: HostFacts,
    kernel: KernelFinding,
    row: KernelRow,
    verdict: Verdict,
    silicon: SiliconFinding,
    state: HostState,
) -> tuple[Kexec, str]:
    if verdict is Verdict.UNDETERMINED:
        return Kexec.UNKNOWN, "it depends on whether the CPU is affected"
    if not silicon.errata:
        return Kexec.ALLOWED, "the CPU is not affected"
    if not all(each.kexec_asks for each in silicon.errata):
        return Kexec.UNKNOWN, f"how it deals with {_deaf(silicon.errata)} is not known"
    if len({each.kexec for each in kernel.rows}) > 1:
        return Kexec.UNKNOWN, f"releases from {kernel.rows[0].first} on differ in it"
    return _kexec_on_affected(facts, kernel, row, silicon.errata, state)


def _deaf(errata: tuple[Erratum, ...]) -> str:
    return ", ".join(each.id for each in errata if not each.kexec_asks)


_NOT_BUILT = (
    KernelRule.IMAGE_NO_TDX_HOST,
    KernelRule.SYMBOLS_NO_TDX_HOST,
    KernelRule.CONFIG_NO_TDX_HOST,
)


def _kexec_of_distribution(
    facts: HostFacts, verdict: Verdict, silicon: SiliconFinding, state: HostState
) -> tuple[Kexec, str]:
    known = distribution_of(facts)
    if known is None or known.kexec is Kexec.UNKNOWN:
        return Kexec.UNKNOWN, "it is not known how this distribution deals with kexec"
    if not all(each.kexec_asks for each in silicon.errata):
        return Kexec.UNKNOWN, f"how it deals with {_deaf(silicon.errata)} is not known"
    if known.kexec is Kexec.ALLOWED or (verdict is Verdict.CLEAR_NOT_REQUIRED):
        return Kexec.ALLOWED, f"{known.name}'s kernels allow it here (inferred)"
    if verdict is Verdict.UNDETERMINED:
        return Kexec.UNKNOWN, "it depends on whether the CPU is affected"
    unset = any(flag_of(facts, each) is False for each in silicon.errata)
    if state is HostState.OFF or (unset and state is not HostState.UNKNOWN):
        return Kexec.ALLOWED, "the kernel has not set the erratum's flag"
    return known.kexec, f"{known.name}'s kernels of this series do so (inferred)"


def _kexec_on_affected(
    facts: HostFacts,
    kernel: KernelFinding,
    row: KernelRow,
    errata: tuple[Erratum, ...],
    state: HostState,
) -> tuple[Kexec, str]:
    unset = [each.id for each in errata if flag_of(facts, each) is False]
    if unset and state is not HostState.UNKNOWN:
        # Both the refusal and its successor ask for the flag, not for the CPU.
        return Kexec.ALLOWED, f"the kernel has not set {', '.join(unset)}"
    if state is HostState.OFF:
        return Kexec.ALLOWED, "the kernel has not activated TDX; with TDX active it would differ"
    if kernel.ignores:
        names = ", ".join(erratum.id for erratum in kernel.ignores)
        return Kexec.UNKNOWN, f"this kernel knows nothing of {names}"
    if kernel.newer:
        return row.kexec, f"{row.kexec_summary} (inferred from {row.span}: this one is newer)"
    if row.kexec_certainty is Certainty.VERIFIED:
        return row.kexec, row.kexec_summary
    return row.kexec, f"{row.kexec_summary} (inferred, not read in a released kernel)"


def _kexec_before_the_refusal(row: KernelRow, state: HostState) -> tuple[Kexec, str]:
    """Return what kernels do that know no tdx_pw_mce in kexec: up to 6.17."""
    if row.kexec is not Kexec.NOT_BUILT:
        return row.kexec, row.kexec_summary
    if state is HostState.OFF:
        return Kexec.UNKNOWN, f"{row.kexec_summary}, and which of them this one has is not known"
    return Kexec.NOT_BUILT, f"{row.kexec_summary}: no kexec and no kdump on a TDX host"
