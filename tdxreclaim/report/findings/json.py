"""The catalogue as JSON (``tdxreclaim.findings/2``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.document import dump, tool

if TYPE_CHECKING:
    from tdxreclaim.tables.findings.kind import Kind

SCHEMA = "tdxreclaim.findings/2"


def render(kinds: tuple[Kind, ...]) -> str:
    """Return rows of the catalogue as one JSON object."""
    return dump(
        {
            "schema": SCHEMA,
            "tool": tool(),
            "findings": [
                {
                    "id": kind.id,
                    "severity": kind.severity,
                    "sentence": kind.sentence,
                    "meaning": kind.meaning,
                    "advice": kind.advice,
                    "versions": kind.versions,
                    "certainty": kind.certainty,
                    "citations": [str(citation) for citation in kind.citations],
                    "samples": list(kind.samples),
                }
                for kind in kinds
            ],
        }
    )
