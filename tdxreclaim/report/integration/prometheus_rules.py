"""Prometheus alerts: one for each posture that calls for something, and for silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.policy.model import Posture, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

STALE_SECONDS = 3 * 60 * 60
"""Three runs of the timer."""


class Alert(NamedTuple):
    """``wait`` is how long it must hold, as Prometheus writes it."""

    name: str
    expression: str
    wait: str
    severity: str
    summary: str


def _state(kind: str, value: str) -> str:
    return f'tdxreclaim_{kind}{{{kind}="{value}"}} == 1'


ALERTS = (
    Alert(
        "TdxReclaimAtRisk",
        _state("posture", Posture.AT_RISK),
        "0m",
        "critical",
        "must clear reclaimed TDX pages and does not: stop starting TDs",
    ),
    Alert(
        "TdxReclaimUndetermined",
        f"{_state('verdict', Verdict.UNDETERMINED)} or "
        f"({_state('verdict', Verdict.CLEAR_REQUIRED)} and on (instance) "
        f"{_state('posture', Posture.UNKNOWN)})",
        "2h",
        "warning",
        "it is not known whether reclaimed TDX pages are cleared as they must be",
    ),
    Alert(
        "TdxReclaimClearsNeedlessly",
        _state("posture", Posture.CLEARS_NEEDLESSLY),
        "1d",
        "info",
        "clears reclaimed TDX pages for nothing: a newer kernel shortens shutdowns",
    ),
    Alert(
        "TdxReclaimStale",
        f'time() - node_textfile_mtime_seconds{{file=~".*tdxreclaim[.]prom"}} > {STALE_SECONDS}',
        "15m",
        "warning",
        "tdxreclaim has not written its metrics for three hours",
    ),
)


def render() -> str:
    """Return the rule file as YAML."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "groups:"
    yield "  - name: tdxreclaim"
    yield "    rules:"
    for alert in ALERTS:
        yield f"      - alert: {alert.name}"
        yield f"        expr: '{alert.expression}'"
        yield f"        for: {alert.wait}"
        yield "        labels:"
        yield f"          severity: {alert.severity}"
        yield "        annotations:"
        yield f"          summary: '{{{{ $labels.instance }}}}: {alert.summary}'"
