"""A machine check on an affected host: what speaks for the erratum, and what against it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tdxreclaim.policy.model import Decision, HostState, Posture, Silicon
from tdxreclaim.tables.findings import machine_checks, teardown
from tdxreclaim.tables.findings.kind import Cause, Severity
from tdxreclaim.triage.finding import comes_before
from tdxreclaim.triage.match import find_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tdxreclaim.tables.findings.kind import Kind
    from tdxreclaim.triage.finding import Finding
    from tdxreclaim.triage.machinecheck import Record

_HANDS_BACK = (teardown.TD_FATAL, teardown.PAGE_REMOVAL_FAILED)


def weigh(findings: Sequence[Finding], decision: Decision) -> tuple[Finding, ...]:
    """Return the findings, the machine checks with what speaks for the erratum and against it.

    On a CPU that is not known to be affected a machine check is no more than a warning,
    unless it was fatal.
    """
    return tuple(
        _weighed(each, findings, decision) if each.cause is Cause.MACHINE_CHECK else each
        for each in findings
    )


def _weighed(finding: Finding, findings: Sequence[Finding], decision: Decision) -> Finding:
    fatal = any(each.kind is machine_checks.FATAL_MACHINE_CHECK for each in finding.under)
    end = "; the kernel panicked" if fatal else ""
    records = tuple(
        dict.fromkeys(f"{each.where}: {' '.join(each.flags)}" for each in _records(finding))
    )
    finding = replace(
        finding, sentence=f"{finding.sentence}{end}", details=(*finding.details, *records)
    )
    if decision.silicon.status is not Silicon.AFFECTED:
        return _elsewhere(finding, decision)
    fatal = fatal or finding.kind is machine_checks.FATAL_MACHINE_CHECK
    severity = Severity.CRITICAL if fatal else finding.severity
    details = [f"for the erratum: {each}" for each in _for(finding, findings, decision)]
    details += [f"against it: {each}" for each in _against(finding, findings, decision)]
    details.append(
        "would settle it: whether the address (ADDR) lies in memory that a TD had, and whether "
        "the DIMM fails a test"
    )
    return replace(finding, severity=severity, details=(*finding.details, *details))


def _elsewhere(finding: Finding, decision: Decision) -> Finding:
    """Return a machine check of a CPU that is not affected, or not known to be."""
    stays = (machine_checks.FATAL_MACHINE_CHECK, machine_checks.PRIVATE_MEMORY)
    severity = finding.severity if _is(finding, stays) else Severity.WARNING
    return replace(finding, severity=severity, details=(*finding.details, *_not_affected(decision)))


def _not_affected(decision: Decision) -> tuple[str, ...]:
    if decision.silicon.status is Silicon.UNKNOWN:
        return ("whether this CPU has the erratum is not known",)
    return ("this CPU does not have the erratum: it is not that",)


def _records(finding: Finding) -> list[Record]:
    texts = [place.text for each in finding.all for place in each.places]
    return [record for text in texts if (record := find_record(text)) is not None]


def _for(finding: Finding, findings: Sequence[Finding], decision: Decision) -> Iterator[str]:
    state = decision.host.state
    on = state in (HostState.INITIALIZED, HostState.BIOS_ENABLED)
    yield "the CPU has it" + (", and TDX is on" if on else "")
    records = _records(finding)
    if any(record.consumes for record in records):
        yield "an uncorrected load, as a read of poisoned memory is"
    if any(each.kind is machine_checks.PRIVATE_MEMORY for each in finding.all):
        yield "the kernel says that the address is TDX private memory"
    if _not_removed(finding, findings):
        yield "pages of a TD could not be removed before it"
    if decision.posture is Posture.AT_RISK:
        yield "this kernel does not clear reclaimed pages"


def _against(finding: Finding, findings: Sequence[Finding], decision: Decision) -> Iterator[str]:
    if decision.host.state in (HostState.OFF, HostState.GUEST):
        yield "TDX is not on: no TD ever had this memory"
    if decision.posture is Posture.CLEARS_AS_REQUIRED and not _not_removed(finding, findings):
        yield "this kernel clears every page that it reclaims"
    records = _records(finding)
    if records and not any(record.consumes for record in records):
        yield "no load wanted the bad data"
    if any(record.from_memory_controller for record in records):
        yield "the memory controller met it, as it does where a DIMM fails"
    same = [each for each in findings if each.age == finding.age]
    if any(each.kind is machine_checks.EDAC_UNCORRECTED for each in same):
        yield "the memory controller reports uncorrected errors"
    corrected = (machine_checks.CORRECTED, machine_checks.EDAC_CORRECTED)
    if any(_is(each, corrected) for each in same):
        yield "corrected errors stand beside it: memory that begins to fail"


def _not_removed(finding: Finding, findings: Sequence[Finding]) -> bool:
    return any(_is(each, _HANDS_BACK) and comes_before(each, finding) for each in findings)


def _is(finding: Finding, kinds: tuple[Kind, ...]) -> bool:
    return any(each.kind in kinds for each in finding.all)
