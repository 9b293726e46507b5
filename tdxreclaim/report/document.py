"""A JSON document: its tool, its schema, and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.check.report import TOOL, VERSION

if TYPE_CHECKING:
    from tdxreclaim.errors import TdxReclaimError
    from tdxreclaim.facts.evidence import Coverage

ERROR_SCHEMA = "tdxreclaim.error/1"


def render_error(error: TdxReclaimError) -> str:
    """Return an error as one JSON object."""
    return dump(error_document(error))


def error_document(error: TdxReclaimError) -> dict[str, object]:
    """Return an error as what JSON is made of."""
    return {
        "schema": ERROR_SCHEMA,
        "tool": tool(),
        "error": {
            "kind": error.kind,
            "what": error.what,
            "why": error.why,
            "exit_status": int(error.exit_status),
        },
    }


def dump(document: dict[str, object]) -> str:
    """Return *document* as text, ASCII, with a newline at the end."""
    import json

    return json.dumps(document, indent=2) + "\n"


def dump_line(document: dict[str, object]) -> str:
    """Return *document* as one line, for output that has one line an object."""
    import json

    return json.dumps(document) + "\n"


def tool() -> dict[str, str]:
    """Return what made a document: the tool and its version."""
    return {"name": TOOL, "version": VERSION}


def coverage(read: Coverage) -> dict[str, object]:
    """Return how much of the evidence was read, and what was not."""
    return {
        "whole": read.whole,
        "gaps": [{"part": gap.part, "place": gap.place, "why": gap.why} for gap in read.gaps],
    }
