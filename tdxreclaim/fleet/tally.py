"""All hosts together, in memory that a million of them fit into.

A host is its name and one integer: which answer, and how much memory.  What
comes out does not depend on the order in which hosts came in.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.policy.model import Posture
from tdxreclaim.tables.findings.kind import Severity
from tdxreclaim.units import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tdxreclaim.fleet.answer import Answer
    from tdxreclaim.units import Span

# Distinct answers; a kernel beyond them is not told apart any more.
MOST_ANSWERS = 1 << 16
OTHER = "(others)"

MOST_LISTED = 1000
"""Refusals and duplicates that are kept one by one; all are counted."""

# A host's integer: the answer's number, whether the host came again, MiB.
_NUMBER = (1 << 20) - 1
_AGAIN = 1 << 20
_MEMORY_AT = 21
_MIB = 1 << 20

WORST_FIRST = (
    Posture.AT_RISK,
    Posture.UNKNOWN,
    Posture.CLEARS_NEEDLESSLY,
    Posture.CLEARS_AS_REQUIRED,
    Posture.SKIPS_SAFELY,
    Posture.IDLE,
    Posture.NOT_APPLICABLE,
)


class Group(NamedTuple):
    """Hosts with one answer, their names sorted; ``memory_bytes`` of those that tell it."""

    answer: Answer
    names: tuple[str, ...]
    memory_bytes: int
    with_memory: int


class Refused(NamedTuple):
    """A source, or a row of one, that gave no answer, and why."""

    what: str
    why: str


class Finding(NamedTuple):
    """What triage found, and on which hosts."""

    id: str
    severity: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """What is said of all hosts."""

    groups: tuple[Group, ...]
    contradictory: tuple[tuple[str, tuple[Answer, ...]], ...]
    """Hosts with more than one answer; they are in no group."""
    duplicates: int
    """Rows beyond the first of a host."""
    duplicated: tuple[str, ...]
    sources: tuple[tuple[str, int], ...]
    """Each source that was read, and how many answers it gave."""
    refused: tuple[Refused, ...]
    refused_count: int
    findings: tuple[Finding, ...]
    clearing_a_page: Span
    """What clearing a page of 4 KiB takes."""
    _values: Mapping[str, int] = field(default_factory=dict)

    def memory_of(self, host: str) -> int | None:
        """Return the memory of *host* in bytes, whole MiB."""
        return (self._values.get(host, 0) >> _MEMORY_AT) * _MIB or None

    @property
    def saving(self) -> Span:
        """What clearing all memory of the hosts takes that clear it needlessly."""
        groups = self.of(Posture.CLEARS_NEEDLESSLY)
        return self.clearing_a_page.times(sum(g.memory_bytes for g in groups) // PAGE_BYTES)

    @property
    def hosts(self) -> int:
        """How many hosts, each counted once."""
        return sum(len(group.names) for group in self.groups) + len(self.contradictory)

    def of(self, *postures: Posture) -> tuple[Group, ...]:
        """Return the groups of these postures."""
        return tuple(group for group in self.groups if group.answer.posture in postures)

    def count(self, *postures: Posture) -> int:
        """Return how many hosts have one of these postures."""
        return sum(len(group.names) for group in self.of(*postures))

    @property
    def needs_action(self) -> bool:
        """Whether anything is at risk, not known, contradictory or refused."""
        open_ = self.count(Posture.AT_RISK, Posture.UNKNOWN)
        return bool(open_ or self.contradictory or self.refused_count)


@dataclass(slots=True)
class Tally:
    """Takes hosts in, any order, and gives a `Fleet`."""

    answers: dict[Answer, int] = field(default_factory=dict)
    _hosts: dict[str, int] = field(default_factory=dict)
    _several: dict[str, set[int]] = field(default_factory=dict)
    _sources: Counter[str] = field(default_factory=Counter)
    _refused: list[Refused] = field(default_factory=list)
    _refused_count: int = 0
    _duplicate_count: int = 0
    _findings: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def source(self, name: str, answers: int = 0) -> None:
        """Note that *name* was read, and gave so many answers."""
        self._sources[name] += answers

    def refuse(self, what: str, why: str) -> None:
        """Note what gave no answer."""
        self._refused_count += 1
        self._refused.append(Refused(what, why))
        if len(self._refused) > 2 * MOST_LISTED:
            # The first by name, not the first to come.
            self._refused = sorted(self._refused)[:MOST_LISTED]

    def duplicate(self, count: int) -> None:
        """Note rows that another run found to be of a host it had."""
        self._duplicate_count += count

    def finding(self, id_: str, severity: str, hosts: Iterable[str]) -> None:
        """Note a finding of triage."""
        self._findings.setdefault((id_, severity), set()).update(hosts)

    def number(self, answer: Answer) -> int:
        """Return the number of *answer*, for `add_number`."""
        number = self.answers.get(answer)
        if number is None:
            if len(self.answers) >= MOST_ANSWERS and answer.kernel != OTHER:
                from dataclasses import replace

                return self.number(replace(answer, kernel=OTHER))
            number = self.answers[answer] = len(self.answers)
        return number

    def add(self, host: str, answer: Answer, memory_bytes: int | None = None) -> None:
        """Take in one host."""
        self.add_number(host, self.number(answer), memory_bytes)

    def add_number(self, host: str, number: int, memory_bytes: int | None) -> None:
        """Take in one host whose answer has this number."""
        mib = 0 if memory_bytes is None else max(1, memory_bytes // _MIB)
        hosts = self._hosts
        if host not in hosts:
            hosts[host] = mib << _MEMORY_AT | number
            return
        known = hosts[host]
        if known & _NUMBER != number:
            self._several.setdefault(host, {known & _NUMBER}).add(number)
        self._duplicate_count += 1
        hosts[host] = max(mib, known >> _MEMORY_AT) << _MEMORY_AT | _AGAIN | known & _NUMBER

    def finish(self, clearing_a_page: Span) -> Fleet:
        """Return all of it; *clearing_a_page* is what clearing 4 KiB takes."""
        names: list[list[str]] = [[] for _ in self.answers]
        memory, with_memory = [0] * len(names), [0] * len(names)
        again: list[str] = []
        for host, value in self._hosts.items():
            if host in self._several:
                continue
            number = value & _NUMBER
            names[number].append(host)
            if value >> _MEMORY_AT:
                memory[number] += (value >> _MEMORY_AT) * _MIB
                with_memory[number] += 1
            if value & _AGAIN:
                again.append(host)
        groups = (
            Group(answer, tuple(sorted(names[n])), memory[n], with_memory[n])
            for answer, n in self.answers.items()
            if names[n]
        )
        answers = list(self.answers)
        return Fleet(
            groups=tuple(sorted(groups, key=_rank)),
            contradictory=tuple(
                (host, tuple(sorted((answers[n] for n in numbers), key=_key)))
                for host, numbers in sorted(self._several.items())
            ),
            duplicates=self._duplicate_count,
            duplicated=tuple(sorted(again)[:MOST_LISTED]),
            sources=tuple(sorted(self._sources.items())),
            refused=tuple(sorted(self._refused)[:MOST_LISTED]),
            refused_count=self._refused_count,
            findings=_ranked(self._findings),
            clearing_a_page=clearing_a_page,
            _values=self._hosts,
        )


def _key(answer: Answer) -> tuple[object, ...]:
    return (
        WORST_FIRST.index(answer.posture),
        answer.verdict,
        answer.cpu,
        answer.kernel,
        answer.clearing,
        answer.rule,
        answer.missing,
    )


def _rank(group: Group) -> tuple[object, ...]:
    """Worst first, then the larger group."""
    posture, *rest = _key(group.answer)
    return (posture, -len(group.names), *rest)


def _ranked(findings: dict[tuple[str, str], set[str]]) -> tuple[Finding, ...]:
    """Return findings worst first, then by how many hosts have them."""
    order = list(Severity)
    rows = (
        Finding(id_, severity, tuple(sorted(hosts))) for (id_, severity), hosts in findings.items()
    )
    return tuple(
        sorted(rows, key=lambda f: (order.index(Severity(f.severity)), -len(f.hosts), f.id))
    )
