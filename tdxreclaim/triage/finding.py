"""A finding: a row of the catalogue, met on this host or in its logs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from tdxreclaim.facts.logs.line import Stamp
    from tdxreclaim.tables.findings.kind import Cause, Kind, Severity
    from tdxreclaim.triage.collect import Place


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One finding.  ``advice`` and ``meaning`` are the row's, unless this host's facts say more.

    ``boot`` says which of a log's boots, from 1, of ``boots``; 0 if it is no
    log's.  ``age`` is how many boots before the last one it was.  ``first`` and
    ``last`` are the stamps of its lines, ``None`` if they have none.  ``also``
    names other logs that have it.  ``under`` are findings of the same cause, and
    ``after`` the ids of what came before it and may have led to it.
    """

    kind: Kind
    severity: Severity
    sentence: str
    meaning: str
    advice: str
    cause: Cause | None = None
    boot: int = 0
    boots: int = 0
    age: int = 0
    times: int = 1
    first: Stamp | None = None
    last: Stamp | None = None
    quoted: bool = False
    """Of lines in other dress beside plain ones: of a host that is not known."""
    process: str | None = None
    """The process id of a stuck task, where it has one."""
    places: tuple[Place, ...] = ()
    also: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    under: tuple[Finding, ...] = ()
    after: tuple[str, ...] = ()

    @classmethod
    def of(cls, kind: Kind, values: dict[str, str] | None = None) -> Self:
        """Return the row's finding, *values* in its sentence."""
        return cls(
            kind=kind,
            severity=kind.severity,
            sentence=kind.sentence.format(**(values or {})),
            meaning=kind.meaning,
            advice=kind.advice,
            cause=kind.cause,
        )

    @property
    def line(self) -> tuple[str, int] | None:
        """File and number of its first line; ``None`` for what no line tells."""
        return next(((p.path, p.line) for p in self.places if p.line is not None), None)

    @property
    def all(self) -> tuple[Finding, ...]:
        """Itself and what is under it."""
        return (self, *self.under)

    def advised(self, options: tuple[str, ...]) -> Finding:
        """Return it with other advice where the command line has what the row asks for."""
        if not self.kind.option or self.kind.option not in options:
            return self
        return replace(self, advice=self.kind.then)


def comes_before(one: Finding, other: Finding) -> bool:
    """Whether *one* began before *other*, as far as lines of one file or stamps tell."""
    if one.age != other.age:
        return one.age > other.age
    here, there = one.line, other.line
    if here and there and here[0] == there[0]:
        return here[1] < there[1]
    if one.first is None or other.first is None:
        return False
    for left, right in (
        (one.first.seconds, other.first.seconds),
        (one.first.moment, other.first.moment),
    ):
        if left is not None and right is not None:
            return left < right
    return False
