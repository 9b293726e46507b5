"""Findings as a line of a monitoring plugin: the worst one's severity is its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.errors import NagiosState
from tdxreclaim.report.check.nagios import line
from tdxreclaim.tables.findings.kind import Severity

if TYPE_CHECKING:
    from tdxreclaim.report.triage.summary import Triage

_STATES = {
    Severity.CRITICAL: NagiosState.CRITICAL,
    Severity.ERROR: NagiosState.WARNING,
    Severity.WARNING: NagiosState.WARNING,
}


def state(triage: Triage) -> NagiosState:
    """Return the status that the plugin ends with; what was not understood is UNKNOWN."""
    worst = max(
        (_STATES.get(finding.severity, NagiosState.OK) for finding in triage.findings),
        default=NagiosState.OK,
    )
    unclear = triage.not_read or triage.doubt is not None
    if unclear and worst is not NagiosState.CRITICAL:
        return NagiosState.UNKNOWN
    return worst


def render(triage: Triage) -> str:
    """Return one line: the headline, and the count of each severity."""
    counts = " ".join(
        f"{severity}={sum(finding.severity is severity for finding in triage.findings)};;;0"
        for severity in Severity
    )
    return line(state(triage), triage.headline, counts)
