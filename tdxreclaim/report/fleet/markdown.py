"""A fleet as Markdown, for a ticket or a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.policy.model import Posture
from tdxreclaim.report.fleet import summary
from tdxreclaim.report.markup import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.fleet.tally import Fleet

MOST_LINES = 100


def render(fleet: Fleet) -> Iterator[str]:
    """Return the Markdown."""
    for line in _lines(fleet):
        yield line + "\n"


def _lines(fleet: Fleet) -> Iterator[str]:
    yield "## tdxreclaim fleet"
    yield ""
    yield f"**{plain(summary.headline(fleet))}**"
    yield ""
    at_risk = summary.hosts_of(fleet.of(Posture.AT_RISK))
    if at_risk:
        yield f"- at risk: {plain(summary.names(at_risk, None))}"
    for name, answers in fleet.contradictory[:MOST_LINES]:
        yield f"- contradictory: {plain(name)}: {' or '.join(a.verdict for a in answers)}"
    for rule, count in summary.missing(fleet):
        yield f"- not known: `{rule}`, {summary.plural(count, 'host')}"
    if fleet.of(Posture.CLEARS_NEEDLESSLY):
        yield f"- clears needlessly: {plain(summary.needless(fleet))}"
    yield ""
    yield "| hosts | CPU | kernel | posture | verdict |"
    yield "|--:|---|---|---|---|"
    for group in fleet.groups[:MOST_LINES]:
        cells = (summary.cpu(group), summary.kernel(group), group.answer.posture)
        yield f"| {len(group.names):,} | {' | '.join(map(plain, cells))} | {group.answer.verdict} |"
    if len(fleet.groups) > MOST_LINES:
        yield ""
        yield f"{len(fleet.groups) - MOST_LINES:,} more groups are left out."
    if fleet.findings:
        yield ""
        yield "| hosts | severity | finding |"
        yield "|--:|---|---|"
        for finding in fleet.findings:
            yield f"| {len(finding.hosts):,} | {finding.severity} | `{finding.id}` |"
    yield ""
    yield f"{summary.plural(len(fleet.sources), 'source')} read, {fleet.refused_count:,} refused."
    yield ""
    for refused in fleet.refused[:MOST_LINES]:
        yield f"- refused: {plain(refused.what)}: {plain(refused.why)}"
