"""What a ticket comes to, ready to be said: the same for every format."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tdxreclaim.errors import ExitStatus
from tdxreclaim.facts.evidence import printable
from tdxreclaim.policy.model import Decision, HostState
from tdxreclaim.tables.findings.kind import Severity
from tdxreclaim.tables.findings.times import TIME_EXPECTED
from tdxreclaim.triage.finding import Finding
from tdxreclaim.triage.time import Answer, shares
from tdxreclaim.units import format_ns, format_percent, format_range, format_size, format_span

if TYPE_CHECKING:
    from tdxreclaim.facts.evidence import Evidence
    from tdxreclaim.facts.logs.line import Stamp
    from tdxreclaim.facts.logs.voice import ScannedLog


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
    def exit_status(self) -> ExitStatus:
        """20 if there is something to act on; notices and benign lines are not."""
        found = any(finding.severity.counts for finding in self.findings)
        return ExitStatus.FINDINGS if found else ExitStatus.NOT_REQUIRED

    @property
    def headline(self) -> str:
        """The answer in a sentence."""
        counted = [finding for finding in self.findings if finding.severity.counts]
        others = len(self.findings) - len(counted)
        rest = f"{others} to know of" if others else ""
        if not counted:
            return f"Nothing found that needs action{f'; {rest}' if rest else ''}."
        numbers = [
            f"{number} {severity}"
            for severity in Severity
            if (number := sum(finding.severity is severity for finding in counted))
        ]
        count = f"{len(counted)} finding{'s' if len(counted) > 1 else ''}"
        return f"{count}: {', '.join(numbers)}{f'; {rest}' if rest else ''}."

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
        return tuple(lines)


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
    counted = f"{log.path}: {log.lines:,} lines, {log.kernel_lines:,} of them looked at; {boots}"
    if log.lines and not log.kernel_lines:
        counted += (
            "; no kernel line about the CPU, KVM or TDX was recognised: if there are some, their "
            "form is not one that is read"
        )
    return counted


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
    share = {name: format_percent(value) for name, value in shares(answer).items()}
    details.append(
        f"kernel {scene.kernel} on {scene.cpu}: {scene.plan.order} order, "
        f"{'clears' if scene.plan.clearing.clears(erratum=scene.platform.erratum) else 'does not clear'} here"
    )
    details += [f"WARNING: {each}" for each in answer.premises]
    clearing = (
        f"clearing {share['clearing']}"
        if shares(answer)["clearing"] > 0
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
