"""Findings as JSON (``tdxreclaim.triage/2``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.facts.cpu import encode_signature
from tdxreclaim.facts.evidence import printable
from tdxreclaim.facts.logs.clock import iso
from tdxreclaim.report.document import dump, tool

if TYPE_CHECKING:
    from tdxreclaim.facts.logs.line import Stamp
    from tdxreclaim.facts.logs.voice import Unread
    from tdxreclaim.report.triage.summary import Triage
    from tdxreclaim.triage.finding import Finding
    from tdxreclaim.triage.time import Answer

SCHEMA = "tdxreclaim.triage/2"


def render(triage: Triage) -> str:
    """Return the findings as one JSON object."""
    return dump(document(triage))


def document(triage: Triage) -> dict[str, object]:
    """Return the findings as what JSON is made of."""
    decision = triage.decision
    return {
        "schema": SCHEMA,
        "tool": tool(),
        "source": {"name": triage.source, "format": triage.form},
        "exit_status": int(triage.exit_status),
        "headline": triage.headline,
        "host": {
            "verdict": decision.verdict,
            "posture": decision.posture,
            "silicon": decision.silicon.status,
            "codenames": list(
                dict.fromkeys(p.codename for p in decision.silicon.processors if p.codename)
            ),
            "state": decision.host.state,
            "kernel": decision.kernel.release,
            "clearing": decision.kernel.clearing,
            "kexec": decision.kernel.kexec,
            "names": list(triage.hosts),
            "signatures": signatures(triage),
            "module_version": triage.module_version,
            "options": list(triage.options),
        },
        "coverage": {"whole": not triage.skipped, "gaps": list(triage.skipped)},
        "findings": [_finding(finding) for finding in triage.findings],
        "timeline": [
            {"id": each.kind.id, "boot": each.boot, "first": _stamp(each.first)}
            for each in triage.timeline
        ],
        "time": None if triage.answer is None else _time(triage.answer),
        "logs": [
            {
                "path": log.path,
                "lines": log.lines,
                "bytes": log.size,
                "kernel_lines": log.kernel_lines,
                "understood": log.understood,
                "host": log.host or None,
                "quoted": log.quoted,
                "not_understood": None if log.unread is None else _unread(log.unread),
                "boots": [
                    {"whole": boot.whole, "line": boot.line, "release": boot.release}
                    for boot in log.boots
                ],
                "skipped": list(log.skipped),
            }
            for log in triage.logs
        ],
        "unread": [{"path": piece.path, "why": piece.observed} for piece in triage.unread],
    }


def signatures(triage: Triage) -> list[str]:
    """Return CPUID.01H:EAX of the processors that are wholly known."""
    found = []
    for processor in triage.decision.silicon.processors:
        group = processor.group
        family, model, stepping = group.family, group.model, group.stepping
        if family is not None and model is not None and stepping is not None:
            found.append(f"{encode_signature(family, model, stepping):#x}")
    return list(dict.fromkeys(found))


def _unread(unread: Unread) -> dict[str, object]:
    return {
        "lines": unread.lines,
        "first_line": unread.number,
        "text": printable(unread.text[:_MOST_SHOWN]),
        "looks_like": unread.looks_like,
        "command": unread.command,
    }


_MOST_SHOWN = 300


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "id": finding.kind.id,
        "severity": finding.severity,
        "sentence": finding.sentence,
        "boot": finding.boot or None,
        "boots_ago": finding.age if finding.boot else None,
        "quoted": finding.quoted,
        "count": finding.times,
        "first": _stamp(finding.first),
        "last": _stamp(finding.last),
        "evidence": [
            {
                "path": place.path,
                "line": place.line,
                "stamp": _stamp(place.stamp),
                "text": place.text,
            }
            for place in finding.places
        ],
        "also_in": list(finding.also),
        "details": list(finding.details),
        "same_cause": [_finding(each) for each in finding.under],
        "after": list(finding.after),
        "meaning": finding.meaning,
        "advice": finding.advice,
        "versions": finding.kind.versions,
        "certainty": finding.kind.certainty,
        "citations": [str(citation) for citation in finding.kind.citations],
    }


def _stamp(stamp: Stamp | None) -> dict[str, object] | None:
    """Return when: seconds since boot, ISO 8601, or both; the text that is neither as it stands."""
    if stamp is None or (stamp.seconds is None and not stamp.when):
        return None
    known = stamp.moment is not None
    return {
        "seconds": stamp.seconds,
        "time": iso(stamp.moment) if stamp.moment is not None else None,
        "text": None if known or not stamp.when else printable(stamp.when),
    }


def _time(answer: Answer) -> dict[str, object]:
    return {
        "finding": answer.kind.id,
        "because": answer.because or None,
        "observed_ns": answer.observed_ns,
        "memory_bytes": answer.memory_bytes,
        "vcpus": answer.vcpus,
        "expected": answer.expected and answer.expected._asdict(),
        "causes": {each: span._asdict() for each, span in (answer.causes or {}).items()},
        "explained_by": list(answer.explained_by),
        "hkid_first": answer.hkid_first and answer.hkid_first._asdict(),
        "shares": {name: round(share, 4) for name, share in answer.shares.items()},
        "assumed": list(answer.scene.assumed) if answer.scene else [],
    }
