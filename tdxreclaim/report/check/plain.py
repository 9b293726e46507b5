"""One word: the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdxreclaim.report.check.report import Report


def render(report: Report) -> str:
    """Return the verdict and a newline."""
    return f"{report.decision.verdict}\n"
