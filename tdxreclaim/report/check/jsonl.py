"""JSON on one line: the same document, to be put below those of other hosts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tdxreclaim.report import document as errors
from tdxreclaim.report.check.json import document

if TYPE_CHECKING:
    from tdxreclaim.errors import TdxReclaimError
    from tdxreclaim.report.check.report import Report


def render(report: Report) -> str:
    """Return the report as one line of JSON."""
    return json.dumps(document(report)) + "\n"


def render_error(error: TdxReclaimError) -> str:
    """Return an error as one line of JSON."""
    return json.dumps(errors.error_document(error)) + "\n"
