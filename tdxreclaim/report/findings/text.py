"""The catalogue as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.page import Page

if TYPE_CHECKING:
    from tdxreclaim.tables.findings.kind import Kind


def render(kinds: tuple[Kind, ...], *, width: int = 80, color: bool = False) -> str:
    """Return rows of the catalogue as text of *width* columns."""
    page = Page(width, color=color)
    for number, kind in enumerate(kinds):
        if number:
            page.blank()
        page.paragraph(f"{kind.id} ({kind.severity})", "bold")
        page.labelled("says", _with_gaps(kind.sentence))
        for sample in kind.samples:
            page.labelled("line", sample)
        page.labelled("means", kind.meaning)
        page.labelled("do", kind.advice)
        page.labelled("versions", kind.versions)
        page.labelled("known", kind.certainty)
        for citation in kind.citations:
            page.labelled("source", str(citation))
    return page.text()


def _with_gaps(sentence: str) -> str:
    return sentence.replace("{", "<").replace("}", ">")
