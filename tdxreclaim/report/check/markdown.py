"""Markdown for a ticket: the answer, a table, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.check.text import headline
from tdxreclaim.report.markup import code, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.report.check.report import Report


def render(report: Report) -> str:
    """Return the report as Markdown; what was read stands in code spans."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    decision = report.decision
    yield "## tdxreclaim check"
    yield ""
    yield f"**{plain(headline(report))}**"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, value in _table(report):
        yield f"| {name} | {value} |"
    for title, sentences in (("Warnings", decision.warnings), ("What to do", decision.advice)):
        if sentences:
            yield ""
            yield f"### {title}"
            yield ""
            yield from (f"- {plain(sentence)}" for sentence in sentences)
    if decision.coverage.gaps:
        yield ""
        yield "### Not read"
        yield ""
        yield from (f"- {code(gap.place)}: {plain(gap.why)}" for gap in decision.coverage.gaps)
    yield ""
    yield "### Evidence"
    yield ""
    for piece in decision.evidence:
        yield f"- {code(piece.path)} ({piece.origin}): {code(piece.observed)}"
    if decision.citations:
        yield ""
        yield "### Sources"
        yield ""
        yield from (f"- {plain(str(citation))}" for citation in decision.citations)


def _table(report: Report) -> Iterator[tuple[str, str]]:
    decision = report.decision
    yield "verdict", f"`{decision.verdict}`: {plain(decision.because)}"
    yield "posture", f"`{decision.posture}`: {plain(decision.posture_because)}"
    yield "source", f"{_cell(report.source)} ({report.form})"
    for processor in decision.silicon.processors:
        name = f" ({processor.codename})" if processor.codename else ""
        yield "CPU", f"{plain(processor.group.describe() + name)}: `{processor.silicon}`"
    yield "TDX", f"`{decision.host.state}`: {plain(decision.host.because)}"
    yield "kernel", f"`{decision.kernel.clearing}`: {plain(decision.kernel.because)}"
    yield "kexec", f"`{decision.kernel.kexec}`: {plain(decision.kernel.kexec_because)}"


def _cell(text: str) -> str:
    """Return a code span for a table, where even there a bar ends the cell."""
    return code(text).replace("|", "\\|")
