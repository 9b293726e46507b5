"""Text for people: the answer in a few lines; all that led to it with ``--explain``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, assert_never

from tdxreclaim.facts.evidence import (
    ABSENT,
    NOT_GIVEN,
    NOT_KNOWN_OF_FAKED,
    NOT_NEEDED,
    Evidence,
    Gap,
    Origin,
    Part,
    flat,
)
from tdxreclaim.policy.model import Decision, HostState, Posture, Silicon, Verdict
from tdxreclaim.report.page import Page
from tdxreclaim.tables.errata import ANY
from tdxreclaim.tables.kernels import Clearing, Kexec
from tdxreclaim.tables.sources import Certainty

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tdxreclaim.policy.model import KernelFinding, Processor
    from tdxreclaim.report.check.report import Report

_VERDICT_STYLE = {
    Verdict.CLEAR_REQUIRED: "bold red",
    Verdict.CLEAR_NOT_REQUIRED: "bold green",
    Verdict.UNDETERMINED: "bold yellow",
    Verdict.NOT_APPLICABLE: "bold",
}
_MOST_CPU_LINES = 2
_MOST_GAPS = 3
# Facts are cut to fit the screen; --explain has them whole.
_MOST_LINES = 2
_CUT_FROM_WIDTH = 80


def render(report: Report, *, width: int = 80, color: bool = False) -> str:
    """Return the report as text of *width* columns (40 at least)."""
    page = Page(width, color=color)
    _summary(page, report)
    if report.explain:
        _explanation(page, report)
    page.blank()
    decision = report.decision
    page.ends(
        f"{_ids(decision)} (exit {int(decision.verdict.exit_status)})",
        f"rule {decision.rule}" if report.explain else "why, evidence: --explain",
    )
    return page.text()


def _ids(decision: Decision) -> str:
    ids = dict.fromkeys((str(decision.verdict), str(decision.posture)))
    return ", ".join(ids)


def _summary(page: Page, report: Report) -> None:
    decision = report.decision
    page.paragraph(headline(report), _VERDICT_STYLE[decision.verdict])
    page.blank()
    if report.kernel_alone:
        page.labelled("kernel", _kernel_alone(decision))
    for label, text in () if report.kernel_alone else _facts(decision):
        page.labelled(label, text, most=_MOST_LINES if page.width >= _CUT_FROM_WIDTH else None)
    gaps = decision.coverage.gaps if report.explain else _first_gaps(decision)
    for number, gap in enumerate(gaps):
        page.labelled("" if number else "not read", f"{flat(gap.place)}: {gap.why}", "yellow")
    for number, warning in enumerate(decision.warnings):
        page.labelled("" if number else "warning", warning, "yellow")
    advices = (_ADD_A_CPU,) if report.kernel_alone else decision.advice
    if advices:
        page.blank()
    for number, advice in enumerate(advices):
        page.labelled("" if number else "do", advice)


def _first_gaps(decision: Decision) -> tuple[Gap, ...]:
    """Return the gaps that fit a screen: of the CPU's identity first, if it matters."""
    gaps = sorted(decision.coverage.gaps, key=lambda gap: gap.part is not Part.IDENTITY)
    if decision.verdict is Verdict.CLEAR_REQUIRED:
        # What else the CPU may be does not make it need less.
        gaps = [gap for gap in gaps if gap.part is not Part.IDENTITY]
    if len(gaps) <= _MOST_GAPS:
        return tuple(gaps)
    return (*gaps[:_MOST_GAPS], Gap(f"{len(gaps) - _MOST_GAPS} more", "--explain"))


def headline(report: Report) -> str:
    """Return the answer in a sentence that can be read aloud, and what was faked."""
    if report.kernel_alone:
        return (
            f"{_capital(_kernel_does(report.decision))}.  No CPU was given, so there is no verdict."
        )
    first, _, rest = _answer(report).partition(". ")
    return f"{first}{'.' if rest else ''}{faked_note(report)}{f' {rest}' if rest else ''}"


def _answer(report: Report) -> str:
    decision = report.decision
    here = "on the captured host" if Origin.CAPTURED in report.origins else "here"
    match decision.verdict:
        case Verdict.NOT_APPLICABLE:
            return f"NOT APPLICABLE: {_sentence(decision.because)}"
        case Verdict.UNDETERMINED:
            host = "the captured host" if Origin.CAPTURED in report.origins else "this host"
            why = _capital(_sentence(decision.because))
            return f"UNDETERMINED: treat {host} as one that must clear. {why}"
        case Verdict.CLEAR_REQUIRED:
            if decision.posture is Posture.IDLE:
                return f"Clearing would be REQUIRED {here}, but {_idle(decision)}."
            return f"Clearing is REQUIRED {here}{_and_the_kernel(decision)}."
        case Verdict.CLEAR_NOT_REQUIRED:
            return f"Clearing is NOT needed {here}{_and_the_kernel(decision)}."
        case _:
            assert_never(decision.verdict)


def _and_the_kernel(decision: Decision) -> str:
    match decision.posture:
        case Posture.CLEARS_AS_REQUIRED:
            return ", and this kernel does it"
        case Posture.CLEARS_NEEDLESSLY:
            return ", but this kernel clears every page anyway"
        case Posture.SKIPS_SAFELY:
            return ", and this kernel skips it"
        case Posture.AT_RISK:
            return ", and this kernel does NOT clear"
        case Posture.IDLE:
            return f", and {_idle(decision)}"
        case Posture.UNKNOWN:
            return "; what this kernel does is not known"
        case Posture.NOT_APPLICABLE:
            return ""
        case _:
            assert_never(decision.posture)


def _idle(decision: Decision) -> str:
    off = decision.host.state is HostState.OFF
    return "TDX is off" if off else "this kernel cannot run TDs"


def faked_note(report: Report) -> str:
    """Return which parts were given on the command line, in brackets; empty if none was."""
    decision = report.decision
    parts = {
        "CPU": decision.silicon.origin,
        "TDX state": decision.host.origin,
        "kernel": decision.kernel.origin,
    }
    given = [name for name, origin in parts.items() if origin is Origin.FAKED]
    if not given:
        return ""
    if len(given) == len(parts):
        # Of no machine: what was not given is unknown, which is not given either.
        given = ["CPU", "kernel"] if decision.kernel.release else ["CPU"]
    return f" [what-if: {' and '.join(given)} from the command line]"


_ADD_A_CPU = (
    "For a verdict add a CPU: --cpu NAME, a capture of the host (--from), or --live for this host."
)


def _kernel_does(decision: Decision) -> str:
    match decision.kernel.clearing:
        case Clearing.ALWAYS:
            return "this kernel clears every reclaimed page, on every CPU"
        case Clearing.ON_ERRATUM:
            return f"this kernel clears reclaimed pages only on a CPU with {ANY}"
        case Clearing.NO_TDX_HOST:
            return "this kernel cannot run TDs, so it has no page to clear"
        case Clearing.UNKNOWN:
            return "what this kernel does with reclaimed pages is not known"
        case _:
            assert_never(decision.kernel.clearing)


def _kernel_alone(decision: Decision) -> str:
    kernel = decision.kernel
    certainty = f" ({kernel.certainty})" if kernel.certainty is not None else ""
    release = flat(kernel.release) if kernel.release else "release unknown"
    return f"{release}: {flat(kernel.because)}{certainty}"


def _facts(decision: Decision) -> Iterator[tuple[str, str]]:
    """Yield what the answer rests on, a label and its text each."""
    yield from _cpus(decision)
    kernel, host = decision.kernel, decision.host
    yield (
        "kernel",
        f"{flat(kernel.release) if kernel.release else 'release unknown'}: {_kernel(decision)}",
    )
    if decision.next_kernel is not None:
        newest = decision.next_kernel
        yield "", f"after a reboot into {flat(newest.release or '')}: {_newest(newest)}"
    yield "TDX", _tdx(decision)
    if kernel.kexec in _NO_KDUMP and host.state is not HostState.GUEST:
        yield "kdump", _NO_KDUMP[kernel.kexec]


_NO_KDUMP = {
    Kexec.REFUSED: "not possible while TDX is on in the BIOS: the kernel refuses kexec",
    Kexec.NOT_BUILT: "not possible: this kernel has TDX host support or kexec, not both",
}


def _cpus(decision: Decision) -> Iterator[tuple[str, str]]:
    counted: Counter[tuple[str, str]] = Counter()
    for processor in decision.silicon.processors:
        counted[_name(processor), _status(processor)] += processor.group.size or 0
    if not counted:
        yield "CPU", decision.silicon.because
    shown = list(counted.items())[:_MOST_CPU_LINES]
    for number, ((name, status), size) in enumerate(shown):
        more = len(counted) - len(shown) if number == len(shown) - 1 else 0
        others = f"; and {more} other kinds: --explain" if more else ""
        yield "" if number else "CPU", f"{f'{size} x ' if size else ''}{name}: {status}{others}"


def _name(processor: Processor) -> str:
    group = processor.group
    if processor.codename:
        return f"{processor.codename} ({group.number})"
    return f"{flat(group.vendor) if group.vendor else 'unknown vendor'} {group.number}"


def _status(processor: Processor) -> str:
    match processor.silicon:
        case Silicon.AFFECTED:
            return f"affected by {processor.rule}"
        case Silicon.NOT_AFFECTED:
            return f"not affected by {ANY}"
        case Silicon.NO_TDX:
            return "cannot host TDs"
        case Silicon.UNKNOWN:
            return processor.because.removeprefix(f"{_name(processor)} is ")
        case _:
            assert_never(processor.silicon)


def _newest(kernel: KernelFinding) -> str:
    does = {
        Clearing.ALWAYS: "clears every page, on every CPU",
        Clearing.ON_ERRATUM: f"skips, but on CPUs with {ANY}",
        Clearing.NO_TDX_HOST: "cannot run TDs",
        Clearing.UNKNOWN: "not known",
    }[kernel.clearing]
    return does if kernel.certainty is Certainty.VERIFIED else f"{does} ({kernel.certainty})"


def _kernel(decision: Decision) -> str:
    kernel = decision.kernel
    match kernel.clearing:
        case Clearing.ALWAYS:
            said = "clears every page, on every CPU"
        case Clearing.ON_ERRATUM:
            flag = decision.host.erratum_flag
            state = {True: ", and it is", False: ", and it is not", None: ""}[flag]
            names = " or ".join(each.id for each in decision.silicon.errata) or ANY
            said = f"clears only where {names} is set{state}"
            if kernel.ignores:
                ignored = ", ".join(each.id for each in kernel.ignores)
                said = f"does not clear for {ignored}"
        case Clearing.NO_TDX_HOST:
            said = "cannot run TDs"
        case Clearing.UNKNOWN:
            return kernel.because.removeprefix(f"{kernel.release} is ")
        case _:
            assert_never(kernel.clearing)
    inferred = kernel.certainty is not None and kernel.certainty is not Certainty.VERIFIED
    return f"{said} ({kernel.certainty})" if inferred else said


def _tdx(decision: Decision) -> str:
    host = decision.host
    match host.state:
        case HostState.GUEST:
            return "this is a guest"
        case HostState.OFF:
            return f"off: {host.because}"
        case HostState.BIOS_ENABLED:
            return "on in the BIOS; not known to be initialized"
        case HostState.INITIALIZED:
            version = f" {flat(host.module_version)}" if host.module_version else ""
            return f"on, module{version} initialized"
        case HostState.UNKNOWN:
            return "not known to be on or off"
        case _:
            assert_never(host.state)


def _explanation(page: Page, report: Report) -> None:
    decision = report.decision
    page.heading("Why")
    page.labelled("verdict", f"{decision.verdict}: {_sentence(decision.because)}")
    page.labelled("posture", f"{decision.posture}: {decision.posture_because}")
    page.labelled("source", _source(report))
    silicon, host, kernel = decision.silicon, decision.host, decision.kernel
    page.labelled("silicon", f"{silicon.status}: {silicon.because}")
    for processor in silicon.processors:
        group = processor.group
        counted = f"{group.size} x " if group.size else ""
        name = f" ({processor.codename})" if processor.codename else ""
        page.labelled("", f"{counted}{group.describe()}{name}: {processor.silicon}")
    page.labelled("TDX", f"{host.state}: {host.because}")
    certainty = f" ({kernel.certainty})" if kernel.certainty is not None else ""
    page.labelled("kernel", f"{kernel.clearing}: {kernel.because}{certainty}")
    page.labelled("kexec", f"{kernel.kexec}: {kernel.kexec_because}")
    page.heading("Evidence")
    _evidence(page, decision.evidence)
    if decision.citations:
        page.heading("Sources")
        for citation in decision.citations:
            page.item(str(citation))
    page.heading("All that was weighed")
    for step in decision.weighed:
        mark = "+" if step.fired else "-"
        page.paragraph(f"{step.rule}: {step.because}", first=f"  {mark} ", indent=4)


def _source(report: Report) -> str:
    origins = ", ".join(report.origins)
    return f"{flat(report.source)} ({report.form}; facts {origins})"


_NOT_LOOKED_AT = (NOT_NEEDED, NOT_GIVEN, NOT_KNOWN_OF_FAKED)


def _evidence(page: Page, evidence: Iterable[Evidence]) -> None:
    """Add what was found, file by file; what was not there comes last, together."""
    found: dict[tuple[str, str], list[str]] = {}
    missing: list[str] = []
    for piece in evidence:
        if piece.observed in _NOT_LOOKED_AT:
            continue
        if piece.observed == ABSENT:
            missing.append(piece.path)
        else:
            found.setdefault((piece.path, piece.origin), []).append(piece.observed)
    for (path, origin), observed in found.items():
        page.paragraph(f"{path} [{origin}]", first="  ", indent=4)
        page.paragraph("; ".join(observed), first="      ", indent=6)
    if missing:
        page.paragraph(f"absent: {', '.join(dict.fromkeys(missing))}", first="  ", indent=4)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
