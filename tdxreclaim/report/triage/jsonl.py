"""Findings as JSON on one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tdxreclaim.report.triage.json import document

if TYPE_CHECKING:
    from tdxreclaim.report.triage.summary import Triage


def render(triage: Triage) -> str:
    """Return the findings as one line of JSON."""
    return json.dumps(document(triage)) + "\n"
