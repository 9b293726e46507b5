"""CSV: a header and a row.  Columns may be added at the end; a changed meaning changes SCHEMA."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from tdxreclaim.report.markup import cell

if TYPE_CHECKING:
    from tdxreclaim.report.check.report import Report

SCHEMA = "tdxreclaim.csv/1"


def render(report: Report) -> str:
    """Return header and row; several processors stand in one cell, ``; `` between them."""
    values = row(report)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(values), lineterminator="\n")
    writer.writeheader()
    writer.writerow(values)
    return text.getvalue()


def row(report: Report) -> dict[str, str]:
    """Return the columns of one host, in their order."""
    decision = report.decision
    must_clear = decision.verdict.must_clear
    values = {
        "schema": SCHEMA,
        "source": report.source,
        "verdict": decision.verdict,
        "posture": decision.posture,
        "must_clear": "" if must_clear is None else str(must_clear).lower(),
        "rule": decision.rule,
        "silicon": decision.silicon.status,
        "cpu": "; ".join(p.group.number for p in decision.silicon.processors),
        "codename": "; ".join(p.codename or "" for p in decision.silicon.processors),
        "host": decision.host.state,
        "module_version": decision.host.module_version or "",
        "kernel": decision.kernel.clearing,
        "kernel_release": decision.kernel.release or "",
        "kexec": decision.kernel.kexec,
        "origins": "; ".join(report.origins),
        "because": decision.because,
        "gaps": "; ".join(f"{gap.place}: {gap.why}" for gap in decision.coverage.gaps),
    }
    return {name: cell(str(value)) for name, value in values.items()}
