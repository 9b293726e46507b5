"""A line of a monitoring plugin (Nagios, Icinga, Checkmk, Zabbix, …) and its status.

What matters to a monitor is the posture: a host that must clear and does is
well.  Where the posture does not tell, the statuses' table decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.errors import NagiosState
from tdxreclaim.policy.model import Posture, Verdict

if TYPE_CHECKING:
    from tdxreclaim.errors import TdxReclaimError
    from tdxreclaim.policy.model import Decision
    from tdxreclaim.report.check.report import Report

_BY_POSTURE = {
    Posture.AT_RISK: NagiosState.CRITICAL,
    Posture.CLEARS_AS_REQUIRED: NagiosState.OK,
    Posture.IDLE: NagiosState.OK,
}


def state(decision: Decision) -> NagiosState:
    """Return the status that the plugin ends with."""
    by_verdict = decision.verdict.exit_status.nagios
    if decision.verdict is not Verdict.CLEAR_REQUIRED:
        return by_verdict
    return _BY_POSTURE.get(decision.posture, by_verdict)


def render(report: Report) -> str:
    """Return one line: state, verdict and posture, why, and performance data."""
    decision = report.decision
    must_clear = int(decision.verdict.must_clear or False)
    cpus = sum(processor.group.size or 0 for processor in decision.silicon.processors)
    faked = " (faked)" if report.faked else ""
    return line(
        state(decision),
        f"{decision.verdict}, {decision.posture}{faked}: {decision.posture_because}",
        f"must_clear={must_clear};;;0;1 at_risk={int(decision.posture is Posture.AT_RISK)};;;0;1 "
        f"evidence_whole={int(decision.coverage.whole)};;;0;1 processors={cpus};;;0",
    )


def render_error(error: TdxReclaimError) -> str:
    """Return a failure, which is UNKNOWN whatever it is."""
    return line(NagiosState.UNKNOWN, f"{error.what}: {error.why}")


def line(state: NagiosState, text: str, data: str = "") -> str:
    """Return the plugin's line: *text*, and *data* for its graphs."""
    from tdxreclaim.facts.evidence import flat

    # A bar would begin the performance data.
    said = flat(text).replace("|", "/")
    return f"TDXRECLAIM {state.name} - {said}" + (f" | {data}" if data else "") + "\n"
