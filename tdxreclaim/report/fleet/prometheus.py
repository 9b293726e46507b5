"""A fleet as metrics: counts alone, no series a host."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tdxreclaim.policy.model import Posture, Verdict
from tdxreclaim.report.check.prometheus import family, series
from tdxreclaim.report.fleet import summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.fleet.tally import Fleet


def render(fleet: Fleet) -> Iterator[str]:
    """Return the metrics."""
    for line in _lines(fleet):
        yield line + "\n"


def _lines(fleet: Fleet) -> Iterator[str]:
    for kind, values in (("posture", Posture), ("verdict", Verdict)):
        counts = Counter[str]()
        for group in fleet.groups:
            counts[getattr(group.answer, kind)] += len(group.names)
        yield from family(f"fleet_{kind}_hosts", f"Hosts by {kind}; contradictory ones are apart.")
        for value in values:
            yield series(f"fleet_{kind}_hosts", counts[value], **{kind: value})
    yield from family("fleet_missing_hosts", "Hosts of which something is not known, by rule.")
    for rule, count in summary.missing(fleet):
        yield series("fleet_missing_hosts", count, rule=rule)
    singles = {
        "fleet_contradictory_hosts": ("Hosts with more than one answer.", len(fleet.contradictory)),
        "fleet_sources": ("Sources that were read.", len(fleet.sources)),
        "fleet_refused_sources": ("Sources and rows that gave no answer.", fleet.refused_count),
    }
    for name, (text, number) in singles.items():
        yield from family(name, text)
        yield series(name, number)
    yield from family("fleet_finding_hosts", "Hosts with a finding of triage.")
    for found in fleet.findings:
        yield series(
            "fleet_finding_hosts", len(found.hosts), finding=found.id, severity=found.severity
        )
