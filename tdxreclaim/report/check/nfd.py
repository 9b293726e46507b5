"""A feature file of Node Feature Discovery: ``key=value`` lines in its ``features.d``.

They become node labels ``feature.node.kubernetes.io/tdxreclaim.…``, so values
are what a label may hold.  ``# +expiry-time`` makes NFD drop those below it
when the file was not written again in time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdxreclaim.report.check.report import Report

PREFIX = "feature.node.kubernetes.io/tdxreclaim."
_LONGEST = 63


def render(report: Report) -> str:
    """Return the features; one that is not known is left out."""
    decision = report.decision
    must_clear = decision.verdict.must_clear
    features = {
        "verdict": decision.verdict,
        "must-clear": None if must_clear is None else str(must_clear).lower(),
        "posture": decision.posture,
        "silicon": decision.silicon.status,
        "tdx": decision.host.state,
        "module-version": decision.host.module_version,
        "kernel-clearing": decision.kernel.clearing,
        "kexec": decision.kernel.kexec,
        "evidence-whole": str(decision.coverage.whole).lower(),
        "faked": "true" if report.faked else None,
    }
    head = f"# +expiry-time={report.expires}\n" if report.expires else ""
    return head + "".join(
        f"{PREFIX}{name}={_label(value)}\n" for name, value in features.items() if value
    )


def _label(value: str) -> str:
    """Return *value* as a label's value: 63 of ``A-Za-z0-9_.-``, alphanumeric at both ends.

    >>> _label("2.0.08 (debug)")
    '2.0.08-debug'
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", value)[:_LONGEST].strip("-_.")
