"""Findings as metrics: how many of each severity, and which that count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.check.prometheus import family, series
from tdxreclaim.tables.findings.kind import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.report.triage.summary import Triage


def render(triage: Triage) -> str:
    """Return the metrics."""
    return "\n".join(_lines(triage)) + "\n"


def _lines(triage: Triage) -> Iterator[str]:
    yield from family("triage_findings", "Findings, by severity.")
    for severity in Severity:
        count = sum(finding.severity is severity for finding in triage.findings)
        yield series("triage_findings", count, severity=severity)
    yield from family(
        "triage_finding_occurrences", "How often each that calls for action was seen."
    )
    times: dict[tuple[str, str], int] = {}
    for finding in triage.findings:
        if finding.severity.counts:
            key = (finding.kind.id, finding.severity)
            times[key] = times.get(key, 0) + finding.times
    for (id_, severity_), count in times.items():
        yield series("triage_finding_occurrences", count, finding=id_, severity=severity_)
    yield from family("triage_understood", "0: logs were given, and none of them was understood.")
    yield series("triage_understood", int(not triage.not_read))
