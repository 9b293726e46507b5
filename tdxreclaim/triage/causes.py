"""One cause, one finding; and what came of what."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from tdxreclaim.tables.findings.kind import Cause, Severity
from tdxreclaim.triage.finding import comes_before

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tdxreclaim.triage.finding import Finding

_SEVERITIES = tuple(Severity)


# Without the root these are different things, and stay apart.
_NEED_THE_ROOT = frozenset((Cause.STUCK, Cause.HKID))


def group(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings, those of one cause in one boot under the one that is its root."""
    alone: list[Finding] = []
    causes: defaultdict[tuple[Cause, int, bool], list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.cause is None:
            alone.append(finding)
        else:
            causes[finding.cause, finding.age, finding.quoted].append(finding)
    for (cause, _, _), members in causes.items():
        alone += _of_one_cause(cause, members)
    return tuple(alone)


def _of_one_cause(cause: Cause, members: list[Finding]) -> list[Finding]:
    least = min(member.kind.rank for member in members)
    roots = [member for member in members if member.kind.rank == least]
    others = [member for member in members if member.kind.rank != least]
    if least and cause in _NEED_THE_ROOT:
        return members
    # Several roots are several HKIDs, pages, tasks; what follows is put to the first,
    # or to the task that it names.
    if cause is Cause.BRING_UP:
        others += roots[1:]
        roots = roots[:1]
    grouped: defaultdict[int, list[Finding]] = defaultdict(list)
    for other in others:
        grouped[_root_of(other, roots)].append(other)
    return [_lead(root, grouped[number]) for number, root in enumerate(roots)]


def _root_of(other: Finding, roots: Sequence[Finding]) -> int:
    named = [number for number, root in enumerate(roots) if _share_a_process(other, root)]
    return named[0] if named else 0


def _share_a_process(one: Finding, other: Finding) -> bool:
    return one.process is not None and one.process == other.process


def _lead(root: Finding, others: list[Finding]) -> Finding:
    worst = min((root, *others), key=lambda each: _SEVERITIES.index(each.severity))
    return replace(root, severity=worst.severity, under=tuple(others))


def link(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the findings, each with the ids of those before it that may have led to it."""
    return tuple(
        replace(each, after=tuple(dict.fromkeys(_causes_of(each, findings)))) for each in findings
    )


def _causes_of(finding: Finding, findings: Sequence[Finding]) -> Iterable[str]:
    wanted = {kind_id for each in finding.all for kind_id in each.kind.follows}
    for other in findings:
        if other is finding or other.age != finding.age:
            continue
        for each in other.all:
            if each.kind.id in wanted and comes_before(each, finding):
                yield other.kind.id
