"""Log lines and facts in, findings out, worst first."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tdxreclaim.facts.evidence import ABSENT, Evidence
from tdxreclaim.policy.model import Decision, HostState, Posture, Silicon
from tdxreclaim.tables.findings import CATALOGUE, bringup, host, machine_checks, stuck, teardown
from tdxreclaim.tables.findings.kind import Cause, Kind, Severity
from tdxreclaim.tables.kernels import (
    KERNELS,
    Clearing,
    FailedPage,
    Kexec,
    Version,
    find_kernel,
    release_series,
    upstream_version,
)
from tdxreclaim.tables.seamcalls import Status
from tdxreclaim.tables.teardown import Phase
from tdxreclaim.triage.causes import group, link
from tdxreclaim.triage.collect import MOST_PLACES, Collector, Key, Place, Tally
from tdxreclaim.triage.erratum import weigh
from tdxreclaim.triage.finding import Finding, comes_before
from tdxreclaim.triage.stacks import names_tdx, phase_of
from tdxreclaim.triage.timeline import join_logs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tdxreclaim.facts.host import HostFacts
    from tdxreclaim.facts.logs.stack import Stack
    from tdxreclaim.facts.logs.voice import ScannedLog


@dataclass(frozen=True, kw_only=True, slots=True)
class _Boot:
    """A boot, by how many came after it, and what is known of it."""

    age: int
    boots: int
    release: str | None
    whole: bool
    options: tuple[str, ...]

    @property
    def number(self) -> int:
        """Return which it is, from 1."""
        return max(self.boots - self.age, 1)


class _Merged:
    """One finding, put together from the logs that have it."""

    def __init__(self) -> None:
        self.tallies: dict[int, list[Tally]] = {}

    def add(self, timeline: int, tally: Tally) -> None:
        self.tallies.setdefault(timeline, []).append(tally)

    def best(self) -> tuple[list[Tally], list[str]]:
        """Return the tallies of the log with most of it, and the other logs' names.

        Several logs of one host have the same lines, so counts are not added up.
        """
        counts = {i: sum(t.count for t in each) for i, each in self.tallies.items()}
        most = max(counts, key=lambda i: counts[i])
        others = [t.path for i, each in self.tallies.items() if i != most for t in each]
        return self.tallies[most], list(dict.fromkeys(others))


def judge(
    facts: HostFacts,
    collectors: Mapping[str, Collector],
    logs: Sequence[ScannedLog],
    decision: Decision,
) -> tuple[Finding, ...]:
    """Return what the logs and the host's facts come to, worst first: one finding a cause."""
    merged, boots = _merge(collectors, logs, decision)
    quoted = {log.path for log in logs if log.quoted}
    findings = [
        replace(finding, quoted=_all_in(finding, quoted))
        for finding in (
            _from_lines(key, each, boots[key.boot], decision) for key, each in merged.items()
        )
    ]
    findings += _module_never_came(findings, boots, decision)
    findings += judge_host(facts, decision, findings)
    findings = [
        _disable_matters(each, findings, decision).advised(boots[0].options) for each in findings
    ]
    return worst_first(link(weigh(group(findings), decision)))


def _all_in(finding: Finding, paths: set[str]) -> bool:
    return bool(finding.places) and all(place.path in paths for place in finding.places)


def _merge(
    collectors: Mapping[str, Collector], logs: Sequence[ScannedLog], decision: Decision
) -> tuple[dict[Key, _Merged], dict[int, _Boot]]:
    """Return the tallies of all logs by what they found in which boot, and the boots, by their age."""
    timelines = join_logs(logs)
    most = max((len(timeline.boots) for timeline in timelines), default=0)
    merged: dict[Key, _Merged] = {}
    options: dict[int, tuple[str, ...]] = {}
    releases: dict[int, str] = {}
    whole: defaultdict[int, bool] = defaultdict(bool)
    for number, timeline in enumerate(timelines):
        for age, boot in enumerate(reversed(timeline.boots)):
            whole[age] |= boot.whole
            if boot.release:
                releases.setdefault(age, boot.release)
        for path in timeline.offsets:
            for boot_number, told in collectors[path].options.items():
                options.setdefault(timeline.from_end(path, boot_number), told)
            for key, tally in collectors[path].tallies.items():
                from_end = key._replace(boot=timeline.from_end(path, key.boot))
                merged.setdefault(from_end, _Merged()).add(number, tally)
    releases.setdefault(0, decision.kernel.release or "")
    boots = {
        age: _Boot(
            age=age,
            boots=most,
            release=releases.get(age) or None,
            whole=whole[age],
            options=options.get(age, ()),
        )
        for age in {0, *(key.boot for key in merged)}
    }
    return merged, boots


def _from_lines(key: Key, merged: _Merged, boot: _Boot, decision: Decision) -> Finding:
    tallies, also = merged.best()
    stack = tallies[0].stack
    times = sum(tally.count for tally in tallies)
    finding = Finding.of(_kind(key, stack, decision), _sentence_values(dict(key.values), times))
    values = tallies[0].values
    finding = replace(
        finding,
        cause=_cause(finding, values),
        boot=boot.number,
        boots=boot.boots,
        age=boot.age,
        times=times,
        first=next((tally.first for tally in tallies), None),
        last=tallies[-1].last,
        process=values.get("pid") or values.get("process"),
        places=tuple(place for tally in tallies for place in tally.places)[:MOST_PLACES],
        also=tuple(also),
        details=(*_stack_details(stack), *_answers(tallies), *_meanings(finding)),
    )
    if key.kind is bringup.UNKNOWN_TDX_LINES and boot.release:
        finding = replace(finding, details=(f"kernel {boot.release}",))
    if values.get("left_over"):
        finding = replace(
            finding,
            cause=None,
            severity=Severity.WARNING,
            sentence=f"from before this boot, most likely: {finding.sentence}",
            meaning="It was found in the banks while the CPUs came up: the machine went down with "
            "it, or the firmware left it there.",
        )
    return _by_kernel(finding, boot)


def _kind(key: Key, stack: Stack | None, decision: Decision) -> Kind:
    no_tdx = decision.host.state in (HostState.OFF, HostState.GUEST)
    if key.kind in stuck.ROWS and no_tdx and stack is not None and not names_tdx(stack):
        # Without TDX it is another guest's memory, and not a TD's.
        return stuck.STUCK_ELSEWHERE
    return key.kind


# What a warning is about, by the phase of the function that warned.
_CAUSES = {Phase.GUEST_PAGES: Cause.REMOVAL, Phase.HKID: Cause.HKID}


def _cause(finding: Finding, values: Mapping[str, str]) -> Cause | None:
    phase = phase_of(values.get("function", ""))
    if finding.kind is teardown.RECLAIM_WARNING and phase in _CAUSES:
        return _CAUSES[phase]
    return finding.cause


def _sentence_values(values: dict[str, str], times: int) -> dict[str, str]:
    return {**values, "count": "a" if times == 1 else f"{times:,}", "plural": "s"[: times > 1]}


def _by_kernel(finding: Finding, boot: _Boot) -> Finding:
    """Return the finding with the advice for what this kernel does with a page that failed."""
    if finding.cause is not Cause.REMOVAL:
        return finding
    advice = {
        FailedPage.LEAKED: teardown.LEAKED_ADVICE,
        FailedPage.HANDED_BACK: teardown.HANDED_BACK_ADVICE,
        None: teardown.EITHER_ADVICE,
    }[failed_page(boot.release)]
    return replace(finding, advice=advice)


def failed_page(release: str | None) -> FailedPage | None:
    """Return what a kernel does with a page whose removal failed; ``None`` if that is not known.

    A distribution's kernel of a series that hands pages back is taken to do so;
    one of an earlier series may have got the change since.
    """
    series = release_series(release)
    row = find_kernel(series) if series else None
    if row is None:
        newer = series is not None and series > _LAST
        return FailedPage.HANDED_BACK if newer else None
    plain = upstream_version(release or "") is not None
    return row.failed_page if plain or row.failed_page is FailedPage.HANDED_BACK else None


_LAST = KERNELS[-1].last


def _meanings(finding: Finding) -> tuple[str, ...]:
    """Return what the statuses in a finding of the bring-up meant where they were met."""
    if finding.cause is not Cause.BRING_UP:
        return ()
    return tuple(
        f"{status.name}: {meaning}"
        for status, meaning in bringup.STATUS_MEANINGS.items()
        if f"({status.name}" in finding.sentence
    )


def _answers(tallies: Iterable[Tally]) -> tuple[str, ...]:
    answers = sorted({answer for tally in tallies for answer in tally.answers})
    return tuple(f"the module's answer (RAX): {answer}" for answer in answers)


def _stack_details(stack: Stack | None) -> tuple[str, ...]:
    """Return the functions of a stack that tell, innermost first."""
    if stack is None or not stack.frames:
        return ()
    telling = [name for name in stack.frames if name.startswith(_TELLING)]
    return (f"stack: {' < '.join((telling or list(stack.frames))[:_MOST_FUNCTIONS])}",)


_TELLING = ("kvm_", "__kvm_", "tdx_", "__tdx_", "tdh_", "tdp_", "vt_", "__mutex", "rwsem_", "down_")


_MOST_FUNCTIONS = 8


# The core brings the module up at boot from this release on.
_CORE_BRINGS_UP = Version(7, 1)


def _module_never_came(
    findings: Sequence[Finding], boots: Mapping[int, _Boot], decision: Decision
) -> list[Finding]:
    last = [finding for finding in findings if finding.age == 0]
    told = next((each for each in last if each.kind is bringup.TDX_ON_IN_BIOS), None)
    if told is None or any(each.kind.brings_up for each in last):
        return []
    if decision.host.state is HostState.INITIALIZED:
        return []
    boot = boots[0]
    finding = Finding.of(bringup.BIOS_ON_NO_MODULE, {"because": _silence(boot)})
    return [
        replace(
            finding,
            boot=told.boot,
            boots=told.boots,
            first=told.first,
            last=told.last,
            places=told.places,
        )
    ]


def _silence(boot: _Boot) -> str:
    series = release_series(boot.release)
    if series is not None and series >= _CORE_BRINGS_UP:
        if boot.whole:
            return f"{boot.release} failed to bring the module up without a word"
        return f"{boot.release} says nothing of the module (this log lacks the boot's beginning)"
    if bringup.BIOS_ON_NO_MODULE.option in boot.options:
        return "the module never came up although kvm_intel.tdx=1 is set"
    return "the log of that boot says nothing of the TDX module"


def _disable_matters(finding: Finding, findings: Sequence[Finding], decision: Decision) -> Finding:
    """Return a failed TDH.SYS.DISABLE as an error where another kernel meets the poison."""
    if finding.kind is not teardown.SYS_DISABLE_FAILED:
        return finding
    panics = (machine_checks.KERNEL_PANIC, machine_checks.FATAL_MACHINE_CHECK)
    same = [each for each in findings if each.age == finding.age]
    into_another = any(
        (each.kind is teardown.KEXEC_STARTED and comes_before(finding, each))
        or (each.kind in panics and comes_before(each, finding))
        for each in same
    )
    if decision.silicon.status is Silicon.AFFECTED and into_another:
        return replace(
            finding,
            severity=Severity.ERROR,
            sentence=f"{finding.sentence}; another kernel took over with poison left in memory",
        )
    if Status.TDX_OPERAND_INVALID.name not in finding.sentence:
        return replace(finding, severity=Severity.WARNING)
    return finding


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


_SEVERITIES = tuple(Severity)


_ORDER = {kind: number for number, kind in enumerate(CATALOGUE)}


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings in the order in which they are shown."""
    return tuple(
        sorted(
            findings,
            key=lambda finding: (
                _SEVERITIES.index(finding.severity),
                finding.age,
                _ORDER[finding.kind],
                finding.sentence,
            ),
        )
    )
