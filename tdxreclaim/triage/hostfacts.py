"""What a host's facts come to: findings that no line tells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tdxreclaim.facts.evidence import ABSENT, Evidence
from tdxreclaim.policy.model import Decision, HostState, Posture, Silicon
from tdxreclaim.tables.findings import host, teardown
from tdxreclaim.tables.findings.kind import Kind, Severity
from tdxreclaim.tables.kernels import (
    Clearing,
    Kexec,
)
from tdxreclaim.triage.collect import Place
from tdxreclaim.triage.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.facts.host import HostFacts


def judge_host(
    facts: HostFacts, decision: Decision, found: Iterable[Finding]
) -> tuple[Finding, ...]:
    """Return what the host's facts come to; *found* is what its logs did."""
    findings: list[Finding] = []

    def add(kind: Kind, because: str, *evidence: Evidence) -> Finding:
        places = tuple(
            Place(piece.path, None, None, piece.observed)
            for piece in evidence
            if piece.observed not in ("", ABSENT)
        )
        findings.append(replace(Finding.of(kind, {"because": because}), places=places))
        return findings[-1]

    identity = facts.identity
    match decision.posture:
        case Posture.CLEARS_NEEDLESSLY:
            add(
                host.CLEARS_NEEDLESSLY,
                "",
                identity,
                facts.symbols.evidence,
                facts.release.evidence,
            )
        case Posture.AT_RISK:
            add(host.AT_RISK, "", identity, facts.pw_mce.evidence, facts.symbols.evidence)
        case Posture.IDLE:
            add(
                host.TDX_IDLE,
                decision.posture_because,
                identity,
                facts.tdx_host_platform.evidence,
            )
        case Posture.NOT_APPLICABLE:
            add(host.NOT_A_TDX_HOST, decision.because, identity)
        case _:
            pass
    if _flag_is_missing(facts, decision):
        flag = (facts.tdx_host_platform.evidence, facts.pw_mce.evidence)
        finding = add(host.ERRATUM_FLAG_MISSING, _clears_all_the_same(decision), identity, *flag)
        if decision.kernel.clearing is Clearing.ALWAYS:
            findings[-1] = replace(finding, severity=Severity.WARNING)
    if (
        decision.kernel.clearing is Clearing.UNKNOWN
        and facts.release.value is not None
        and decision.posture not in (Posture.NOT_APPLICABLE, Posture.IDLE)
    ):
        add(host.KERNEL_UNKNOWN, decision.kernel.because, facts.release.evidence)
    if facts.kvm_parameter.value is False and decision.host.state is HostState.BIOS_ENABLED:
        add(host.KVM_TDX_OFF, "", facts.kvm_parameter.evidence)
    refused = any(finding.kind is teardown.KEXEC_REFUSED for finding in found)
    if decision.kernel.kexec is Kexec.REFUSED and not refused:
        add(host.NO_KDUMP, decision.kernel.kexec_because, facts.release.evidence, identity)
    return tuple(findings)


def _flag_is_missing(facts: HostFacts, decision: Decision) -> bool:
    """Whether an affected CPU has TDX on and the kernel did not say so in bugs.

    A posture of at-risk is a finding of its own, which says it.
    """
    return (
        decision.silicon.status is Silicon.AFFECTED
        and bool(facts.tdx_host_platform.value)
        and facts.pw_mce.value is False
        and decision.posture is not Posture.AT_RISK
    )


def _clears_all_the_same(decision: Decision) -> str:
    match decision.kernel.clearing:
        case Clearing.ALWAYS:
            return "this kernel clears all the same"
        case Clearing.ON_ERRATUM:
            return "this kernel clears on that flag, so it does not clear"
        case Clearing.NO_TDX_HOST:
            return "and this kernel is not known to run TDs"
        case _:
            return "a kernel that clears on that flag would not clear"
