"""Log lines and facts in, findings out, worst first.

A `Collector` takes the kernel's lines as they come by and keeps counts and a
few samples, never the lines themselves: a log may be larger than memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.evidence import ABSENT, Evidence, Origin, printable
from tdxreclaim.policy.model import Decision, HostState, Posture, Silicon, Verdict
from tdxreclaim.tables.findings import CATALOGUE, host, stuck
from tdxreclaim.tables.findings.bringup import BIOS_ON_NO_MODULE, TDX_ON_IN_BIOS
from tdxreclaim.tables.findings.kind import Kind, Severity
from tdxreclaim.tables.findings.machine_checks import MACHINE_CHECK
from tdxreclaim.tables.findings.teardown import KEXEC_REFUSED
from tdxreclaim.tables.kernels import Clearing, Kexec
from tdxreclaim.triage.match import match_event
from tdxreclaim.triage.stacks import names_tdx
from tdxreclaim.triage.timeline import join_logs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tdxreclaim.facts.host import HostFacts
    from tdxreclaim.facts.logs.line import Stamp
    from tdxreclaim.facts.logs.stack import LogEvent, Stack
    from tdxreclaim.facts.logs.voice import ScannedLog

_MOST_PLACES = 3


# Different HKIDs, tasks, functions: so many of one kind in one boot are told apart.
_MOST_ALIKE = 20


_MOST_TALLIES = 5000


_LONGEST_TEXT = 300


_OTHERS = "others"


class Place(NamedTuple):
    """Where something was found.  ``line`` is ``None`` for what is not a line."""

    path: str
    line: int | None
    stamp: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One finding.  ``boot`` says which of a log's boots; empty if it is no log's.

    ``first`` and ``last`` are stamps as they stand in the log, empty if it
    has none.  ``also`` names other logs that have it; ``age`` is how many boots
    before the last one it was.
    """

    kind: Kind
    severity: Severity
    sentence: str
    boot: str = ""
    times: int = 1
    first: str = ""
    last: str = ""
    places: tuple[Place, ...] = ()
    also: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    age: int = 0


class _Tally:
    """How often something was found in one boot of one log."""

    def __init__(self, values: Mapping[str, str], path: str, event: LogEvent) -> None:
        self.values = values
        self.path = path
        self.count = 0
        self.first = self.last = show_stamp(event.stamp)
        self.places: list[Place] = []
        self.stack = event.stack

    def add(self, event: LogEvent) -> None:
        self.count += 1
        stamp = show_stamp(event.stamp)
        self.last = stamp or self.last
        if len(self.places) < _MOST_PLACES:
            text = printable(event.text[:_LONGEST_TEXT])
            self.places.append(Place(self.path, event.number, stamp, text))


class _Key(NamedTuple):
    kind: Kind
    values: tuple[tuple[str, str], ...]
    boot: int


def show_stamp(stamp: Stamp) -> str:
    """Return when, as the log says it: the wall clock, else seconds since boot."""
    if stamp.when:
        return printable(stamp.when)
    return "" if stamp.seconds is None else f"[{stamp.seconds:.6f}]"


class Collector:
    """Takes the lines of one log."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._alike: dict[tuple[Kind, int], int] = {}
        self.tallies: dict[_Key, _Tally] = {}
        self.dropped = 0

    def add(self, event: LogEvent) -> None:
        """Match a line against the catalogue and count it."""
        found = match_event(event)
        if found is None:
            return
        kind, values = found
        key = _Key(kind, tuple(sorted(values.items())), event.boot)
        tally = self.tallies.get(key)
        if tally is None and len(self.tallies) >= _MOST_TALLIES:
            self.dropped += 1
            return
        if tally is None:
            alike = self._alike.get((kind, event.boot), 0)
            if alike >= _MOST_ALIKE:
                values = dict.fromkeys(values, _OTHERS)
                key = _Key(kind, tuple(sorted(values.items())), event.boot)
            self._alike[kind, event.boot] = alike + 1
            tally = self.tallies.setdefault(key, _Tally(values, self._path, event))
        tally.add(event)


def overflow(collectors: Mapping[str, Collector], origin: Origin) -> tuple[Evidence, ...]:
    """Return which logs have more different findings than are kept."""
    return tuple(
        Evidence(
            path,
            f"{each.dropped} lines after {_MOST_TALLIES} different findings: not listed",
            origin,
        )
        for path, each in collectors.items()
        if each.dropped
    )


class _Merged:
    """One finding, put together from the logs that have it."""

    def __init__(self) -> None:
        self.tallies: dict[int, list[_Tally]] = {}

    def add(self, timeline: int, tally: _Tally) -> None:
        self.tallies.setdefault(timeline, []).append(tally)

    def best(self) -> tuple[list[_Tally], list[str]]:
        """Return the tallies of the log with most of it, and the other logs' names.

        Several logs of one host have the same lines, so counts are not added up.
        """
        counts = {i: sum(t.count for t in each) for i, each in self.tallies.items()}
        most = max(counts, key=lambda i: counts[i])
        others = [t.path for i, each in self.tallies.items() if i != most for t in each]
        return self.tallies[most], list(dict.fromkeys(others))


def judge_logs(
    collectors: Mapping[str, Collector], logs: Sequence[ScannedLog], decision: Decision
) -> tuple[Finding, ...]:
    """Return what the logs' lines come to, in no order."""
    timelines = join_logs(logs)
    merged: dict[_Key, _Merged] = {}
    most_boots = max((len(timeline.boots) for timeline in timelines), default=0)
    for number, timeline in enumerate(timelines):
        for path in timeline.offsets:
            for key, tally in collectors[path].tallies.items():
                from_end = key._replace(boot=timeline.from_end(path, key.boot))
                merged.setdefault(from_end, _Merged()).add(number, tally)
    findings = [
        replace(
            _from_tallies(key.kind, each, _boot_label(key.boot, most_boots), decision),
            age=key.boot,
        )
        for key, each in merged.items()
    ]
    last = {key.kind for key in merged if key.boot == 0}
    findings += _module_never_came(last, merged, decision, most_boots)
    return tuple(findings)


def _from_tallies(kind: Kind, merged: _Merged, boot: str, decision: Decision) -> Finding:
    tallies, also = merged.best()
    values = dict(tallies[0].values)
    stack = tallies[0].stack
    no_tdx = decision.host.state in (HostState.OFF, HostState.GUEST)
    if kind in stuck.ROWS and no_tdx and stack is not None and not names_tdx(stack):
        # Without TDX it is another guest's memory, and not a TD's.
        kind = stuck.STUCK_ELSEWHERE
    severity = kind.severity
    if kind is MACHINE_CHECK:
        affected = decision.silicon.status is Silicon.AFFECTED
        values["erratum"] = (
            " on a CPU with tdx_pw_mce, which may be the erratum" if affected else ""
        )
        severity = kind.severity if affected else Severity.WARNING
    return Finding(
        kind=kind,
        severity=severity,
        sentence=kind.sentence.format(**values),
        boot=boot,
        times=sum(tally.count for tally in tallies),
        first=next((tally.first for tally in tallies if tally.first), ""),
        last=next((tally.last for tally in reversed(tallies) if tally.last), ""),
        places=tuple(place for tally in tallies for place in tally.places)[:_MOST_PLACES],
        also=tuple(also),
        details=_stack_details(tallies[0].stack),
    )


def _stack_details(stack: Stack | None) -> tuple[str, ...]:
    """Return the functions of a stack that tell, innermost first."""
    if stack is None or not stack.frames:
        return ()
    telling = [name for name in stack.frames if name.startswith(_TELLING)]
    return (f"stack: {' < '.join((telling or list(stack.frames))[:_MOST_FUNCTIONS])}",)


_TELLING = ("kvm_", "__kvm_", "tdx_", "__tdx_", "tdh_", "tdp_", "vt_", "__mutex", "rwsem_", "down_")


_MOST_FUNCTIONS = 8


def _boot_label(from_end: int, boots: int) -> str:
    if boots <= 1:
        return "the only boot in the log"
    if from_end == 0:
        return f"the last of {boots} boots"
    return f"boot {max(boots - from_end, 1)} of {boots}"


def _module_never_came(
    last: set[Kind],
    merged: Mapping[_Key, _Merged],
    decision: Decision,
    boots: int,
) -> list[Finding]:
    if TDX_ON_IN_BIOS not in last or any(kind.brings_up for kind in last):
        return []
    if decision.host.state is HostState.INITIALIZED:
        return []
    kind = BIOS_ON_NO_MODULE
    lines = next(
        each for key, each in merged.items() if key.kind is TDX_ON_IN_BIOS and key.boot == 0
    )
    places = tuple(place for tally in lines.best()[0] for place in tally.places)
    return [
        Finding(
            kind=kind,
            severity=kind.severity,
            sentence=kind.sentence,
            boot=_boot_label(0, boots),
            places=places[:_MOST_PLACES],
        )
    ]


def judge_host(
    facts: HostFacts, decision: Decision, found: Iterable[Finding]
) -> tuple[Finding, ...]:
    """Return what the host's facts come to; *found* is what its logs did."""
    findings: list[Finding] = []

    def add(kind: Kind, because: str, *evidence: Evidence) -> None:
        places = tuple(
            Place(piece.path, None, "", piece.observed)
            for piece in evidence
            if piece.observed not in ("", ABSENT)
        )
        sentence = kind.sentence.format(because=because)
        findings.append(
            Finding(kind=kind, severity=kind.severity, sentence=sentence, places=places)
        )

    identity = facts.identity
    match decision.posture:
        case Posture.CLEARS_NEEDLESSLY:
            add(
                host.CLEARS_NEEDLESSLY, "", identity, facts.symbols.evidence, facts.release.evidence
            )
        case Posture.AT_RISK:
            add(host.AT_RISK, "", identity, facts.pw_mce.evidence, facts.symbols.evidence)
        case Posture.IDLE:
            add(host.TDX_IDLE, decision.posture_because, identity, facts.tdx_host_platform.evidence)
        case Posture.NOT_APPLICABLE:
            add(host.NOT_A_TDX_HOST, decision.because, identity)
        case _:
            pass
    if (
        decision.kernel.clearing is Clearing.UNKNOWN
        and facts.release.value is not None
        and decision.verdict is not Verdict.NOT_APPLICABLE
    ):
        add(host.KERNEL_UNKNOWN, decision.kernel.because, facts.release.evidence)
    if facts.kvm_parameter.value is False and decision.host.state is HostState.BIOS_ENABLED:
        add(host.KVM_TDX_OFF, "", facts.kvm_parameter.evidence)
    refused = any(finding.kind is KEXEC_REFUSED for finding in found)
    if decision.kernel.kexec is Kexec.REFUSED and not refused:
        add(host.NO_KDUMP, decision.kernel.kexec_because, facts.release.evidence, identity)
    return tuple(findings)


_SEVERITIES = tuple(Severity)


_ORDER = {kind: number for number, kind in enumerate(CATALOGUE)}


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings in the order in which they are shown."""
    return tuple(
        sorted(
            findings,
            key=lambda finding: (
                _SEVERITIES.index(finding.severity),
                finding.age,
                _ORDER[finding.kind],
                finding.sentence,
            ),
        )
    )
