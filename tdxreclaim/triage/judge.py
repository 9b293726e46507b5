"""Log lines and facts in, findings out, worst first."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from tdxreclaim.policy.model import Decision, HostState, Silicon
from tdxreclaim.tables.findings import CATALOGUE, bringup, machine_checks, teardown
from tdxreclaim.tables.findings.kind import Severity
from tdxreclaim.tables.kernels import BRINGS_UP_SINCE
from tdxreclaim.tables.releases import release_series
from tdxreclaim.tables.seamcalls import Status
from tdxreclaim.triage.causes import group, link
from tdxreclaim.triage.erratum import weigh
from tdxreclaim.triage.finding import Finding, comes_before
from tdxreclaim.triage.fromlines import BootFacts, Merged, from_lines
from tdxreclaim.triage.hostfacts import judge_host
from tdxreclaim.triage.timeline import join_logs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tdxreclaim.facts.host import HostFacts
    from tdxreclaim.facts.logs.voice import ScannedLog
    from tdxreclaim.triage.collect import Collector, Key


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
            from_lines(key, each, boots[key.boot], decision) for key, each in merged.items()
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
) -> tuple[dict[Key, Merged], dict[int, BootFacts]]:
    """Return the tallies of all logs by what they found in which boot, and the boots, by their age."""
    timelines = join_logs(logs)
    most = max((len(timeline.boots) for timeline in timelines), default=0)
    merged: dict[Key, Merged] = {}
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
                merged.setdefault(from_end, Merged()).add(number, tally)
    releases.setdefault(0, decision.kernel.release or "")
    boots = {
        age: BootFacts(
            age=age,
            boots=most,
            release=releases.get(age) or None,
            whole=whole[age],
            options=options.get(age, ()),
        )
        for age in {0, *(key.boot for key in merged)}
    }
    return merged, boots


def _module_never_came(
    findings: Sequence[Finding], boots: Mapping[int, BootFacts], decision: Decision
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


def _silence(boot: BootFacts) -> str:
    series = release_series(boot.release)
    if series is not None and series >= BRINGS_UP_SINCE:
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
