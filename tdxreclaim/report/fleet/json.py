"""A fleet as JSON: schema ``tdxreclaim.fleet/1``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.fleet.answer import write_row
from tdxreclaim.policy.model import Posture
from tdxreclaim.report.document import dump, tool
from tdxreclaim.report.fleet import summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.fleet.tally import Fleet, Group

SCHEMA = "tdxreclaim.fleet/1"

MOST_NAMES = 1000
"""Names in a group, and sources; hosts at risk and contradictory ones are all named."""


def render(fleet: Fleet) -> Iterator[str]:
    """Return one JSON object."""
    yield dump(
        {
            "schema": SCHEMA,
            "tool": tool(),
            "hosts": fleet.hosts,
            "needs_action": fleet.needs_action,
            "postures": {posture: fleet.count(posture) for posture in Posture},
            "at_risk": list(summary.hosts_of(fleet.of(Posture.AT_RISK))),
            "contradictory": [
                {"host": name, "answers": [write_row(answer) for answer in answers]}
                for name, answers in fleet.contradictory
            ],
            "missing": [{"rule": rule, "hosts": n} for rule, n in summary.missing(fleet)],
            "needless": _needless(fleet),
            "groups": [_group(group) for group in fleet.groups],
            "findings": [
                {"id": f.id, "severity": f.severity, "hosts": list(f.hosts)} for f in fleet.findings
            ],
            "sources": {
                "read": len(fleet.sources),
                "answers": sum(count for _, count in fleet.sources),
                "refused": fleet.refused_count,
                "duplicates": fleet.duplicates,
                "names": [
                    {"source": name, "answers": count} for name, count in fleet.sources[:MOST_NAMES]
                ],
            },
            "duplicated": list(fleet.duplicated),
            "refused": [{"source": one.what, "why": one.why} for one in fleet.refused],
        }
    )


def _needless(fleet: Fleet) -> dict[str, object]:
    groups = fleet.of(Posture.CLEARS_NEEDLESSLY)
    saving = fleet.saving
    return {
        "hosts": fleet.count(Posture.CLEARS_NEEDLESSLY),
        "with_memory": sum(group.with_memory for group in groups),
        "memory_bytes": sum(group.memory_bytes for group in groups),
        "saving_ns": {
            "low": saving.low_ns,
            "likely": saving.likely_ns,
            "high": saving.high_ns,
        },
    }


def _group(group: Group) -> dict[str, object]:
    return {
        "hosts": len(group.names),
        **write_row(group.answer),
        "memory_bytes": group.memory_bytes if group.with_memory else None,
        "names": list(group.names[:MOST_NAMES]),
    }
