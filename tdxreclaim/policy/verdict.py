"""The rules of the verdict: must this host clear?  The first that fires decides.

What is strictest stands first, so that of processors that disagree the one
that needs clearing decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.evidence import Part
from tdxreclaim.policy.model import (
    HostFinding,
    HostState,
    Processor,
    Silicon,
    SiliconFinding,
    SiliconRule,
    Step,
    Verdict,
    VerdictRule,
)
from tdxreclaim.policy.silicon import flag_of
from tdxreclaim.policy.state import in_guest, shows_module
from tdxreclaim.policy.trail import Outcome, fires, passes, try_rules
from tdxreclaim.tables.errata import ERRATA, NO_ERRATUM_CITATIONS, Erratum

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.facts.evidence import Evidence
    from tdxreclaim.facts.host import HostFacts

    _Rule = tuple[str, Callable[["Case"], Outcome], Verdict]


class Case(NamedTuple):
    """What the rules look at."""

    facts: HostFacts
    silicon: SiliconFinding
    host: HostFinding

    def with_rule(self, rule: SiliconRule) -> list[Processor]:
        """Return the processors that a rule told of."""
        return [p for p in self.silicon.processors if p.rule == rule]


def _not_x86(case: Case) -> Outcome:
    if case.silicon.rule is SiliconRule.NOT_X86:
        return fires(case.silicon.because, [case.facts.identity])
    return passes("the architecture is x86, or not told")


def _kernel_flag(case: Case) -> Outcome:
    set_ = [each for each in case.silicon.errata if flag_of(case.facts, each)]
    flagged = ", ".join(each.id for each in set_)
    if flagged and case.silicon.status is not Silicon.AFFECTED:
        return fires(
            f"the kernel has set {flagged} on this CPU, which no table here lists as affected; "
            "the kernel's word counts",
            [_flag_evidence(case), case.facts.identity],
            tuple(dict.fromkeys(each.citations[0] for each in set_)),
        )
    if flagged:
        return passes(f"the kernel has set {flagged}, and the table agrees")
    return passes("the kernel has set no erratum's flag, which alone proves nothing")


def _flag_evidence(case: Case) -> Evidence:
    """Return where the flag was seen: the log tells of tdx_pw_mce alone."""
    fact = case.facts.pw_mce
    return fact.evidence if fact.value else case.facts.identity


def _guest_td(case: Case) -> Outcome:
    if in_guest(case.facts) and case.facts.tdx_guest.value:
        return fires(
            "this is a TD, which has no TDX pages to reclaim; the CPU that it sees may be "
            "faked by the hypervisor",
            [case.facts.tdx_guest.evidence, case.facts.identity],
        )
    return passes(_no_guest(case))


def _guest_vm(case: Case) -> Outcome:
    if in_guest(case.facts):
        return fires(
            "this is a virtual machine, which is no TDX host; the CPU that it sees may be "
            "faked by the hypervisor",
            [case.facts.hypervisor.evidence, case.facts.identity],
        )
    return passes(_no_guest(case))


def _no_guest(case: Case) -> str:
    if case.facts.hypervisor.value or case.facts.tdx_guest.value:
        names = ", ".join(each.id for each in case.silicon.errata if flag_of(case.facts, each))
        return f"the flags say guest, and the kernel's {names} says otherwise, which counts more"
    return "no sign of being a guest"


def _erratum_rule(erratum: Erratum) -> _Rule:
    def test(case: Case) -> Outcome:
        affected = [p for p in case.silicon.processors if erratum in p.errata]
        if affected and in_guest(case.facts):
            return passes("a guest's CPU is what the hypervisor shows of it")
        if not affected:
            return passes(f"no processor is in the list of {erratum.id}")
        names = ", ".join(
            dict.fromkeys(f"{p.codename or 'the CPU'} ({p.group.number})" for p in affected)
        )
        return fires(
            f"{names} has the erratum {erratum.id}: {erratum.summary}, and {erratum.consequence}",
            [*_identity(case), case.facts.pw_mce.evidence],
            erratum.citations,
        )

    return erratum.id, test, Verdict.CLEAR_REQUIRED


def _identity(case: Case) -> list[Evidence]:
    return [case.facts.identity, *(evidence for _, evidence in case.facts.witnesses)]


def _module_contradicts(case: Case) -> Outcome:
    if shows_module(case.facts):
        from tdxreclaim.policy.module import NOTES, contradicted_by_module

        told = contradicted_by_module(case.facts, case.silicon)
        if told:
            return fires(told[0], [told[1], *_identity(case)], [NOTES])
    return passes("the TDX module is not known, or is one for this CPU")


def _cpu_unknown(case: Case) -> Outcome:
    vague = case.with_rule(SiliconRule.CPU_INCOMPLETE)
    if vague:
        return fires(f"not every processor is known: {vague[0].because}", _identity(case))
    if not case.silicon.processors and case.silicon.rule is not SiliconRule.NOT_X86:
        return _cpu_unread(case)
    return passes("every processor says what it is")


def _cpu_unread(case: Case) -> Outcome:
    if shows_module(case.facts):
        from tdxreclaim.policy.module import NOTES, told_by_module

        told = told_by_module(case.facts)
        if told:
            said, evidence = told
            return fires(f"{case.silicon.because}; {said}", [evidence, *_identity(case)], [NOTES])
    return fires(case.silicon.because, _identity(case))


def _vendor_unknown(case: Case) -> Outcome:
    for processor in case.with_rule(SiliconRule.VENDOR_UNKNOWN):
        return fires(
            f"{processor.because}, so it may be Intel's with its name garbled", _identity(case)
        )
    return passes("the vendor is a known one")


def _vendors_differ(case: Case) -> Outcome:
    vendors = {p.group.vendor for p in case.silicon.processors}
    if len(vendors) > 1:
        return fires(
            f"{len(vendors)} vendors in one machine: the facts are corrupted or mixed",
            _identity(case),
        )
    return passes("one vendor")


def _not_intel(case: Case) -> Outcome:
    others = case.with_rule(SiliconRule.NOT_INTEL)
    if others:
        return fires(others[0].because, _identity(case))
    return passes("the vendor is Intel")


_UNLISTED = (SiliconRule.CPU_UNLISTED, SiliconRule.NO_MOVDIR64B)


def _unlisted(case: Case) -> list[Processor]:
    return [p for p in case.silicon.processors if p.rule in _UNLISTED]


def _no_movdir64b(case: Case) -> Outcome:
    without = case.with_rule(SiliconRule.NO_MOVDIR64B)
    if without and len(without) == len(case.silicon.processors):
        return fires(without[0].because, [case.facts.movdir64b.evidence, *_identity(case)])
    return passes("it has MOVDIR64B, or is a known TDX CPU, or that is not told")


def _no_tdx_sign(case: Case) -> Outcome:
    unlisted = _unlisted(case)
    alone = bool(unlisted) and len(unlisted) == len(case.silicon.processors)
    if alone and case.host.state is HostState.OFF:
        return fires(
            f"{unlisted[0].because}, and the host shows no sign of TDX: {case.host.because}",
            [*_identity(case), case.facts.tdx_host_platform.evidence],
        )
    return passes("a known TDX CPU, or the host is not known to be without TDX")


def _cpu_unlisted(case: Case) -> Outcome:
    unlisted = _unlisted(case)
    if unlisted:
        return fires(
            f"{unlisted[0].because}, and what else is known does not settle it",
            [*_identity(case), case.facts.pw_mce.evidence, case.facts.tdx_host_platform.evidence],
        )
    return passes("every processor is listed, or settled by the kernel's own list")


def _incomplete(case: Case) -> Outcome:
    gaps = case.facts.coverage.of(Part.IDENTITY)
    if not gaps:
        return passes("the evidence of the CPU's identity is whole")
    first = gaps[0]
    more = f", and {len(gaps) - 1} more" if len(gaps) > 1 else ""
    return fires(
        f"the evidence of the CPU's identity is not whole: {first.place}: {first.why}{more}",
        _identity(case),
    )


def _closed_list(case: Case) -> Outcome:
    settled = case.with_rule(SiliconRule.KERNEL_CLOSED_LIST)
    if settled:
        evidence = [case.facts.tdx_host_platform.evidence, case.facts.pw_mce.evidence]
        return fires(settled[0].because, [*evidence, *_identity(case)], NO_ERRATUM_CITATIONS)
    return passes("every processor is listed")


def _no_erratum(case: Case) -> Outcome:
    processor = case.silicon.processors[0]
    return fires(processor.because, _identity(case), NO_ERRATUM_CITATIONS)


def _rules(errata: tuple[Erratum, ...]) -> tuple[_Rule, ...]:
    return (*_BEFORE_ERRATA, *map(_erratum_rule, errata), *_AFTER_ERRATA)


_BEFORE_ERRATA: tuple[_Rule, ...] = (
    (VerdictRule.NOT_X86, _not_x86, Verdict.NOT_APPLICABLE),
    (VerdictRule.KERNEL_FLAG, _kernel_flag, Verdict.CLEAR_REQUIRED),
    (VerdictRule.GUEST_TD, _guest_td, Verdict.NOT_APPLICABLE),
    (VerdictRule.GUEST_VM, _guest_vm, Verdict.NOT_APPLICABLE),
)


_AFTER_ERRATA: tuple[_Rule, ...] = (
    (VerdictRule.CPU_UNKNOWN, _cpu_unknown, Verdict.UNDETERMINED),
    (VerdictRule.VENDOR_UNKNOWN, _vendor_unknown, Verdict.UNDETERMINED),
    (VerdictRule.VENDORS_DIFFER, _vendors_differ, Verdict.UNDETERMINED),
    (VerdictRule.NOT_INTEL, _not_intel, Verdict.NOT_APPLICABLE),
    (VerdictRule.MODULE_CONTRADICTS, _module_contradicts, Verdict.UNDETERMINED),
    (VerdictRule.NO_MOVDIR64B, _no_movdir64b, Verdict.NOT_APPLICABLE),
    (VerdictRule.NO_TDX_SIGN, _no_tdx_sign, Verdict.NOT_APPLICABLE),
    (VerdictRule.CPU_UNLISTED, _cpu_unlisted, Verdict.UNDETERMINED),
    (VerdictRule.EVIDENCE_INCOMPLETE, _incomplete, Verdict.UNDETERMINED),
    (VerdictRule.KERNEL_CLOSED_LIST, _closed_list, Verdict.CLEAR_NOT_REQUIRED),
    (VerdictRule.NO_ERRATUM, _no_erratum, Verdict.CLEAR_NOT_REQUIRED),
)


VERDICT_RULES = tuple(rule for rule, _, _ in _rules(ERRATA))


# What scripts take for "no clearing here", and so never said on a part of the evidence.
_SAFE = (Verdict.CLEAR_NOT_REQUIRED, Verdict.NOT_APPLICABLE)


def _only_if_whole(test: Callable[[Case], Outcome], verdict: Verdict) -> Callable[[Case], Outcome]:
    """Return *test*, which cannot fire for a safe verdict while evidence of the CPU has gaps."""
    if verdict not in _SAFE:
        return test

    def guarded(case: Case) -> Outcome:
        outcome = test(case)
        if outcome.fired and not case.facts.coverage.whole:
            return passes(f"{outcome.because}; but not all that tells of the CPU was understood")
        return outcome

    return guarded


def judge_verdict(
    case: Case, errata: tuple[Erratum, ...]
) -> tuple[Verdict, Step, tuple[Step, ...]]:
    """Return the verdict, the rule that decided, and all that were tried."""
    rules = _rules(errata)
    tests = [(rule, _only_if_whole(test, verdict)) for rule, test, verdict in rules]
    decided, steps = try_rules(tests, case)
    return next(verdict for rule, _, verdict in rules if rule == decided.rule), decided, steps
