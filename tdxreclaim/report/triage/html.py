"""A triage as an HTML page: the answer, a time line, findings that unfold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.picture import Mark, Picture, element, page, time_line, unfolding
from tdxreclaim.report.triage.summary import log_line
from tdxreclaim.report.triage.text import details, place_line, short_stamp, under_line, when
from tdxreclaim.units import format_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.report.triage.summary import Triage
    from tdxreclaim.triage.finding import Finding

_TITLE = "tdxreclaim triage"


def render(triage: Triage) -> str:
    """Return the page; it loads nothing from elsewhere."""
    return page(_TITLE, _body(triage))


def _body(triage: Triage) -> Iterator[str]:
    yield element("h1", triage.headline)
    yield element("p", triage.host)
    for log in triage.logs:
        yield element("p", log_line(log), "faint")
    for line in triage.skipped:
        yield element("p", f"not read: {line}", "warning")
    yield from _picture(triage)
    yield element("h2", "Findings")
    for finding in _in_order(triage):
        yield _unfolding(finding)


def _in_order(triage: Triage) -> list[Finding]:
    told = [finding for finding in triage.timeline if finding in triage.findings]
    return [finding for finding in triage.findings if finding not in told] + told


def _picture(triage: Triage) -> Iterator[str]:
    """Yield the time line of the last boot, where it has two moments or more."""
    marks = [
        Mark(finding.first.seconds, str(finding.severity), finding.kind.id)
        for finding in triage.timeline
        if finding.first is not None and finding.first.seconds is not None and not finding.age
    ]
    if len({mark.at for mark in marks}) > 1:
        picture = Picture(_TITLE)
        time_line(
            picture,
            sorted(marks, key=lambda mark: mark.at),
            lambda seconds: f"{format_ns(round(seconds * 1e9))} after boot",
        )
        yield picture.svg(alone=False)


def _unfolding(finding: Finding) -> str:
    severity = element("span", f"{finding.severity} ", f"severity {finding.severity}")
    stamp = f" ({short_stamp(finding.first)})" if finding.first else ""
    summary = f"{severity}{element('span', f'{finding.kind.id}: {finding.sentence}{stamp}')}"
    return unfolding(summary, ["<dl>", *_lines(finding), "</dl>"], opened=finding.severity.counts)


def _lines(finding: Finding) -> Iterator[str]:
    told = [("when", when(finding))] if finding.boot else []
    told += [("detail", detail) for detail in details(finding)]
    told += [("seen", place_line(place)) for place in finding.places]
    told += [("with it", under_line(each)) for each in finding.under]
    if finding.after:
        told.append(("after", ", ".join(finding.after)))
    told += [("means", finding.meaning), ("do", finding.advice)]
    told += [("versions", finding.kind.versions), ("known", str(finding.kind.certainty))]
    told += [("source", str(citation)) for citation in finding.kind.citations]
    for label, text in told:
        yield element("dt", label)
        yield element("dd", text)
