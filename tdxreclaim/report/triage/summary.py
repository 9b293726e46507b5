"""What a ticket comes to, ready to be said: the same for every format."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tdxreclaim.errors import ExitStatus
from tdxreclaim.facts.evidence import Part, printable
from tdxreclaim.policy.model import Decision, HostState, Verdict
from tdxreclaim.tables.findings.kind import Severity
from tdxreclaim.tables.findings.times import TIME_EXPECTED
from tdxreclaim.triage.finding import Finding
from tdxreclaim.units import format_ns, format_percent, format_range, format_size, format_span

if TYPE_CHECKING:
    from tdxreclaim.facts.evidence import Evidence, Gap
    from tdxreclaim.facts.logs.line import Stamp
    from tdxreclaim.facts.logs.voice import ScannedLog, Unread
    from tdxreclaim.tables.findings.kind import Kind
    from tdxreclaim.triage.time import Answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Triage:
    """The findings, worst first, and what was read for them."""

    findings: tuple[Finding, ...]
    decision: Decision
    source: str
    form: str
    logs: tuple[ScannedLog, ...]
    unread: tuple[Evidence, ...]
    answer: Answer | None = None

    @property
    def not_read(self) -> bool:
        """Whether there were logs, and nothing of them, or of one that was given, was understood."""
        given = self.source.split(", ")
        lost = [log for log in self.logs if not log.understood and log.lines]
        return bool(lost) and (
            len(lost) == len(self.logs) or any(log.path in given for log in lost)
        )

    @property
    def doubt(self) -> Gap | None:
        """What leaves open which CPU this is about: there, and not understood or contradictory."""
        return next((gap for gap in self._open if not gap.absent), None)

    @property
    def _open(self) -> tuple[Gap, ...]:
        """What leaves open which CPU this is about."""
        undetermined = self.decision.verdict is Verdict.UNDETERMINED
        return self.decision.coverage.of(Part.IDENTITY) if undetermined else ()

    @property
    def exit_status(self) -> ExitStatus:
        """20 if there is something to act on; 13 in place of 0 where what was given was not understood."""
        if any(finding.severity.counts for finding in self.findings):
            return ExitStatus.FINDINGS
        unclear = self.not_read or self.doubt is not None
        return ExitStatus.NOT_READ if unclear else ExitStatus.NOT_REQUIRED

    @property
    def headline(self) -> str:
        """The answer in a sentence or two: to what was asked, then what else there is."""
        said = (self._asked(), self._not_read(), self._found(), self._doubt())
        return " ".join(filter(None, said))

    def _asked(self) -> str:
        if self.answer is None:
            return ""
        sentence = next(f.sentence for f in self.findings if f.kind is self.answer.kind)
        return f"{sentence[:1].upper()}{sentence[1:]}."

    def _not_read(self) -> str:
        if not self.not_read:
            return ""
        lines = sum(log.lines for log in self.logs if not log.understood)
        return (
            f"NOT READ: {counted(lines, 'line')}, none understood. This is no clean bill of health."
        )

    def _doubt(self) -> str:
        doubt = self.doubt
        if doubt is None:
            return ""
        return f"Which CPU this is about is not settled: {doubt.place}: {doubt.why}."

    def _found(self) -> str:
        asked = self.answer.kind if self.answer else None
        rest = [finding for finding in self.findings if finding.kind is not asked]
        numbers = [
            f"{number} {severity}"
            if severity is not Severity.WARNING
            else counted(number, severity.value)
            for severity in Severity
            if severity.counts and (number := sum(f.severity is severity for f in rest))
        ]
        others = sum(not finding.severity.counts for finding in rest)
        notices = f"; {counted(others, 'notice')}" if others else ""
        if numbers:
            return (
                f"{counted(len(self.to_act_on(asked)), 'finding')}: {', '.join(numbers)}{notices}."
            )
        if self.not_read:
            return f"{counted(others, 'notice')}." if others else ""
        if self.doubt is not None:
            return f"Nothing found in what was understood{notices}."
        return f"Nothing {'else ' if asked else ''}needs action{notices}."

    def to_act_on(self, asked: Kind | None = None) -> list[Finding]:
        """Return the findings that count, but for the answer to what was asked."""
        return [f for f in self.findings if f.severity.counts and f.kind is not asked]

    @property
    def timeline(self) -> tuple[Finding, ...]:
        """The findings that a log tells, and what is under them, in the order in which they began."""
        told = [each for finding in self.findings for each in finding.all if each.line is not None]
        return tuple(sorted(told, key=_began))

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of hosts that the logs have."""
        return tuple(dict.fromkeys(log.host for log in self.logs if log.host))

    @property
    def options(self) -> tuple[str, ...]:
        """What of the kernel's command line matters here."""
        told = [log.reading.options.text for log in self.logs if log.reading.options is not None]
        words = told[-1].split() if told else []
        return tuple(dict.fromkeys(word for word in words if word.startswith(_OPTIONS)))

    @property
    def module_version(self) -> str | None:
        """The TDX module's version, of the host's files or its log."""
        told = [log.reading.module.text for log in self.logs if log.reading.module is not None]
        return self.decision.host.module_version or (told[-1] if told else None)

    @property
    def host(self) -> str:
        """What is known of the host, in a line."""
        decision = self.decision
        parts = [
            f"{processor.codename or 'CPU'} ({processor.group.describe()})"
            for processor in decision.silicon.processors
        ]
        cpu = ", ".join(dict.fromkeys(parts)) or "CPU not known"
        kernel = decision.kernel.release or "not known"
        guest = decision.host.state is HostState.GUEST
        state = "a guest" if guest else f"TDX {decision.host.state}"
        return f"{cpu}; kernel {kernel}; {state}; {decision.verdict}"

    @property
    def skipped(self) -> tuple[str, ...]:
        """What was there and not read or not used, a line each."""
        lines = [f"{piece.path}: {piece.observed}" for piece in self.unread]
        lines += [f"{log.path}: {why}" for log in self.logs for why in log.skipped]
        lines += [f"{gap.place}: {gap.why}" for gap in self._open]
        # Several witnesses of one file have one remainder.
        remainders = {log.unread: log.path for log in reversed(self.logs) if log.unread}
        lines += [f"{path}: {unread_line(each)}" for each, path in remainders.items()]
        return tuple(lines)


# Options of the kernel that change what is said here.
_OPTIONS = (
    "kvm_intel.",
    "kvm.",
    "nohibernate",
    "crashkernel=",
    "setcpuid=",
    "clearcpuid=",
    "mce=",
    "nosmp",
    "maxcpus=",
)


def _began(finding: Finding) -> tuple[int, float, str, int]:
    path, line = finding.line or ("", 0)
    seconds = finding.first.seconds if finding.first else None
    moment = finding.first.moment if finding.first else None
    when = seconds if seconds is not None else moment
    return -finding.age, when if when is not None else float("inf"), path, line


def counted(number: int, word: str) -> str:
    """Return a number and its word.

    >>> counted(1, "line"), counted(1200, "line")
    ('1 line', '1,200 lines')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def unread_line(unread: Unread) -> str:
    """Return what was not understood of a log, in a line."""
    first = printable(unread.text[:_MOST_SHOWN])
    return (
        f"about {counted(unread.lines, 'line')} not understood, which look like "
        f"{unread.looks_like}; the first is line {unread.number}: {first}"
    )


_MOST_SHOWN = 120


def show_stamp(stamp: Stamp | None) -> str:
    """Return when, as the log says it: the wall clock, else seconds since boot."""
    if stamp is None:
        return ""
    if stamp.when:
        return printable(stamp.when)
    return "" if stamp.seconds is None else f"[{stamp.seconds:.6f}]"


def boot_label(finding: Finding) -> str:
    """Return which boot of the log a finding is of; empty for what is no log's."""
    if not finding.boot:
        return ""
    if finding.boots <= 1:
        return "the only boot in the log"
    if finding.age == 0:
        return f"the last of {finding.boots} boots"
    return f"boot {finding.boot} of {finding.boots}"


def log_line(log: ScannedLog) -> str:
    """Return what was read of a log, in a line."""
    boots = f"{len(log.boots)} boot{'s' if len(log.boots) != 1 else ''}"
    cut = sum(not boot.whole for boot in log.boots)
    if cut and len(log.boots) == 1:
        boots += ", its beginning is not in it"
    elif cut:
        boots += f", {cut} without a beginning"
    line = (
        f"{log.path}: {counted(log.lines, 'line')}, {log.kernel_lines:,} of them looked at; {boots}"
    )
    if log.lines and not log.kernel_lines:
        line += (
            "; no kernel line about the CPU, KVM or TDX was recognised: if there are some, their "
            "form is not one that is read"
        )
    return line


def time_finding(answer: Answer) -> Finding:
    """Return what the time comes to, with the shares and what would change it."""
    kind = answer.kind
    expected = answer.expected
    if expected is None:
        expectation = "not to be estimated"
    elif answer.vcpus is None:
        expectation = f"{format_range(expected)} (1 to 64 vCPUs)"
    else:
        expectation = format_span(expected)
    observed = "" if answer.observed_ns is None else format_ns(answer.observed_ns)
    values = {
        "observed": observed,
        "expected": expectation,
        "because": answer.because or _causes(answer),
    }
    finding = replace(Finding.of(kind, values), details=tuple(_details(answer)))
    if kind is TIME_EXPECTED and expected is None:
        return replace(finding, sentence=f"no time can be expected: {answer.because}")
    return finding


def _causes(answer: Answer) -> str:
    """Each cause with its time, those that explain the observed one first."""
    if not answer.causes or answer.observed_ns is None:
        return ""
    said = [
        f"a cost that grows with {cause.label} explains it ({format_range(answer.causes[cause])})"
        for cause in answer.explained_by
    ]
    for cause, span in answer.causes.items():
        if cause not in answer.explained_by:
            side = "less" if span.high_ns < answer.observed_ns else "more"
            said.append(f"one that grows with {cause.label} takes {side} ({format_range(span)})")
    return ", ".join(said)


def _details(answer: Answer) -> list[str]:
    scene, bill = answer.scene, answer.estimate
    vcpus = "an unknown number of vCPUs" if answer.vcpus is None else f"{answer.vcpus} vCPUs"
    details = [f"TD: {format_size(answer.memory_bytes)}, {vcpus}"]
    if scene is None or bill is None or answer.expected is None:
        return details
    share = {name: format_percent(value) for name, value in answer.shares.items()}
    details.append(
        f"kernel {scene.kernel} on {scene.cpu}: {scene.plan.order} order, "
        f"{'clears' if scene.plan.clearing.clears(erratum=scene.platform.erratum) else 'does not clear'} here"
    )
    details += [f"WARNING: {each}" for each in answer.warnings]
    clearing = (
        f"clearing {share['clearing']}"
        if answer.shares["clearing"] > 0
        else "clearing none, so it is not the reason"
    )
    details.append(
        f"where the time goes: removal of guest pages {share['removal']} (block, track, remove, "
        f"write back and kick the vCPUs; how they share it is not known), {clearing}, HKID {share['hkid']}, control pages "
        f"{share['control_pages']}"
    )
    if answer.hkid_first is not None:
        details.append(
            "what would change it: the HKID released first, which no release does: "
            f"{format_range(answer.hkid_first)}; less memory that is mapped"
        )
    if answer.causes:
        details += [
            f"if the cost grows with {cause.label}: {format_range(span)}"
            for cause, span in answer.causes.items()
        ]
        details.append(
            "what would settle it: two shutdowns of one memory size with different vCPUs, or of "
            "different sizes with the same vCPUs (tdxreclaim calibrate fit)"
        )
    details += [f"open contradiction: {each}" for each in bill.contradictions]
    details += [f"assumed: {each}" for each in scene.assumed]
    for what, value, low, high in bill.extrapolates:
        if answer.vcpus is None and what == "vcpus":
            continue
        name = {"vcpus": "vCPUs", "memory_bytes": "memory"}[what]
        show = format_size if what == "memory_bytes" else str
        timed = (
            "none were timed"
            if low is None or high is None
            else f"{show(low)} to {show(high)} were timed"
        )
        details.append(f"extrapolated: {show(value)} of {name}; {timed}")
    details.append(
        f"calibration {bill.calibration}: its hardware may be another, so an observation counts "
        "as fitting up to a quarter outside the range"
    )
    return details
