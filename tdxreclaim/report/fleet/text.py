"""A fleet as text: who is at risk first, then what else, then the groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.policy.model import Posture
from tdxreclaim.report.fleet import summary
from tdxreclaim.report.page import Page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.fleet.tally import Fleet

MOST_GROUPS = 40
MOST_LINES = 20


# The postures whose hosts are named.
_NAMED = (Posture.AT_RISK, Posture.UNKNOWN, Posture.CLEARS_NEEDLESSLY)


def render(fleet: Fleet, *, width: int = 80, color: bool = False) -> Iterator[str]:
    """Return the text, *width* columns wide."""
    page = Page(width, color=color)
    page.paragraph(summary.headline(fleet), "bold red" if fleet.needs_action else "bold green")
    if fleet.contradictory or any(fleet.of(posture) for posture in _NAMED):
        page.blank()
    at_risk = summary.hosts_of(fleet.of(Posture.AT_RISK))
    if at_risk:
        page.labelled("at risk", summary.names(at_risk, None), "red")
    for name, answers in fleet.contradictory[:MOST_LINES]:
        page.labelled("two ways", f"{name}: {' or '.join(_short(a.verdict) for a in answers)}")
    _more(page, len(fleet.contradictory))
    unknown = summary.hosts_of(fleet.of(Posture.UNKNOWN))
    if unknown:
        missing = ", ".join(f"{rule} ({count:,})" for rule, count in summary.missing(fleet))
        page.labelled("not known", f"{len(unknown):,}: {summary.names(unknown)}", "yellow")
        page.labelled("missing", f"{missing}. What a rule means: tdxreclaim explain RULE")
    if fleet.of(Posture.CLEARS_NEEDLESSLY):
        page.labelled("needless", summary.needless(fleet))
    _groups(page, fleet)
    if fleet.findings:
        page.heading("Findings of triage")
        rows = [(f"{len(f.hosts):,}", f.severity, f.id, f.hosts[0]) for f in fleet.findings]
        page.table((">hosts", "severity", "finding", "one of them"), rows)
    _sources(page, fleet)
    yield page.text()


def _short(verdict: str) -> str:
    return verdict.removeprefix("clear-")


def _more(page: Page, count: int) -> None:
    if count > MOST_LINES:
        page.labelled("", f"and {count - MOST_LINES:,} more: --format csv")


def _groups(page: Page, fleet: Fleet) -> None:
    if not fleet.groups:
        return
    page.heading("Groups")
    rows = [
        (
            f"{len(group.names):,}",
            summary.cpu(group),
            summary.kernel(group),
            group.answer.posture,
        )
        for group in fleet.groups[:MOST_GROUPS]
    ]
    page.table((">hosts", "CPU", "kernel", "posture"), rows)
    if len(fleet.groups) > MOST_GROUPS:
        page.item(f"{len(fleet.groups) - MOST_GROUPS:,} more groups: --format csv")


def _sources(page: Page, fleet: Fleet) -> None:
    page.heading("Sources")
    answers = sum(count for _, count in fleet.sources)
    said = f"{len(fleet.sources):,} read, {summary.plural(answers, 'answer')}"
    page.item(f"{said}; {fleet.refused_count:,} refused; {fleet.duplicates:,} duplicates")
    for refused in fleet.refused[:MOST_LINES]:
        page.item(f"refused  {refused.what}: {refused.why}")
    _more(page, fleet.refused_count)
