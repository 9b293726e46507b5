"""JSON: schemas ``tdxreclaim.check/2`` and ``tdxreclaim.error/1``.

Every key is spelt out here.  Keys may be added; a key whose meaning changes
makes a second version, in a module of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.document import coverage, dump, tool

if TYPE_CHECKING:
    from tdxreclaim.policy.model import Processor
    from tdxreclaim.report.check.report import Report

CHECK_SCHEMA = "tdxreclaim.check/2"


def render(report: Report) -> str:
    """Return the report as one JSON object, two spaces deep."""
    return dump(document(report))


def document(report: Report) -> dict[str, object]:
    """Return the report as what JSON is made of."""
    decision = report.decision
    found: dict[str, object] = {
        "schema": CHECK_SCHEMA,
        "tool": tool(),
        "source": {
            "name": report.source,
            "format": report.form,
            "origins": list(report.origins),
            "faked": report.faked,
        },
        "verdict": decision.verdict,
        "must_clear": decision.verdict.must_clear,
        "rule": decision.rule,
        "because": decision.because,
        "exit_status": int(decision.verdict.exit_status),
        "posture": decision.posture,
        "posture_because": decision.posture_because,
        "silicon": {
            "status": decision.silicon.status,
            "rule": decision.silicon.rule,
            "because": decision.silicon.because,
            "origin": decision.silicon.origin,
            "processors": [_processor(processor) for processor in decision.silicon.processors],
        },
        "host": {
            "state": decision.host.state,
            "rule": decision.host.rule,
            "because": decision.host.because,
            "origin": decision.host.origin,
            "erratum_flag": decision.host.erratum_flag,
            "module_version": decision.host.module_version,
        },
        "kernel": {
            "clearing": decision.kernel.clearing,
            "rule": decision.kernel.rule,
            "because": decision.kernel.because,
            "origin": decision.kernel.origin,
            "release": decision.kernel.release,
            "certainty": decision.kernel.certainty,
            "kexec": decision.kernel.kexec,
            "kexec_because": decision.kernel.kexec_because,
        },
        "coverage": coverage(decision.coverage),
        "warnings": list(decision.warnings),
        "advice": list(decision.advice),
        "evidence": [
            {"path": piece.path, "observed": piece.observed, "origin": piece.origin}
            for piece in decision.evidence
        ],
        "citations": [
            {"source": citation.source, "locator": citation.locator}
            for citation in decision.citations
        ],
    }
    if decision.next_kernel is not None:
        found["next_kernel"] = {
            "release": decision.next_kernel.release,
            "clearing": decision.next_kernel.clearing,
            "certainty": decision.next_kernel.certainty,
            "rule": decision.next_kernel.rule,
            "because": decision.next_kernel.because,
        }
    if report.explain:
        found["weighed"] = [
            {"rule": step.rule, "fired": step.fired, "because": step.because}
            for step in decision.weighed
        ]
    return found


def _processor(processor: Processor) -> dict[str, object]:
    group = processor.group
    return {
        "vendor": group.vendor,
        "family": group.family,
        "model": group.model,
        "stepping": group.stepping,
        "microcode": _hex(group.microcode),
        "signature": _hex(group.signature),
        "count": group.size,
        "codename": processor.codename,
        "status": processor.silicon,
        "rule": processor.rule,
        "because": processor.because,
    }


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#010x}"
