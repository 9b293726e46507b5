"""Text for people: the verdict in a sentence, then why, evidence, advice."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from tdxreclaim.facts.evidence import (
    ABSENT,
    NOT_GIVEN,
    NOT_KNOWN_OF_FAKED,
    NOT_NEEDED,
    Evidence,
    Origin,
    flat,
)
from tdxreclaim.policy.model import Decision, Posture, Verdict
from tdxreclaim.report.page import Page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.report.check.report import Report

_VERDICT_STYLE = {
    Verdict.CLEAR_REQUIRED: "bold red",
    Verdict.CLEAR_NOT_REQUIRED: "bold green",
    Verdict.UNDETERMINED: "bold yellow",
    Verdict.NOT_APPLICABLE: "bold",
}


def render(report: Report, *, width: int = 80, color: bool = False) -> str:
    """Return the report as text of *width* columns (40 at least)."""
    decision = report.decision
    page = Page(width, color=color)
    page.paragraph(headline(report), _VERDICT_STYLE[decision.verdict])
    if report.faked:
        page.paragraph(faked_line(report), "yellow")
    page.blank()
    page.labelled("verdict", f"{decision.verdict} (rule {decision.rule})")
    page.labelled("posture", f"{decision.posture}: {decision.posture_because}")
    page.labelled("source", _source(report))

    page.heading("Why")
    page.paragraph(_capital(_sentence(decision.because)), first="  ", indent=2)
    silicon, host, kernel = decision.silicon, decision.host, decision.kernel
    # The rule that decided has been said; another one has not.
    said = silicon.rule == decision.rule
    page.labelled("silicon", silicon.status + ("" if said else f": {silicon.because}"))
    for processor in silicon.processors:
        group = processor.group
        counted = f"{group.size} x " if group.size else ""
        name = f" ({processor.codename})" if processor.codename else ""
        page.labelled("", f"{counted}{group.describe()}{name}: {processor.silicon}")
    page.labelled("host", f"{host.state}: {host.because}")
    page.labelled("kernel", f"{kernel.clearing}: {_kernel(decision)}")
    page.labelled("kexec", f"{kernel.kexec}: {kernel.kexec_because}")

    if decision.warnings:
        page.heading("Warnings")
        for warning in decision.warnings:
            page.item(warning)
    if decision.advice:
        page.heading("Advice")
        for advice in decision.advice:
            page.item(advice)
    page.heading("Evidence")
    _evidence(page, decision.evidence)
    if decision.citations:
        page.heading("Sources")
        for citation in decision.citations:
            page.item(str(citation))
    if report.explain:
        page.heading("All that was weighed")
        for step in decision.weighed:
            mark = "+" if step.fired else "-"
            page.paragraph(f"{step.rule}: {step.because}", first=f"  {mark} ", indent=4)
    return page.text()


def headline(report: Report) -> str:
    """Return the answer in a sentence that can be read aloud."""
    decision = report.decision
    host = _subject(report)
    match decision.verdict:
        case Verdict.NOT_APPLICABLE:
            return f"There are no TDX pages to clear on {host}: {_sentence(decision.because)}"
        case Verdict.UNDETERMINED:
            return (
                f"It is not known whether {host} must clear reclaimed TDX pages; "
                "clear them until it is."
            )
        case Verdict.CLEAR_REQUIRED:
            answer = f"{_capital(host)} must clear reclaimed TDX pages"
        case Verdict.CLEAR_NOT_REQUIRED:
            answer = f"{_capital(host)} need not clear reclaimed TDX pages"
        case _:
            assert_never(decision.verdict)
    return f"{answer}{_and_the_kernel(decision)}."


def _and_the_kernel(decision: Decision) -> str:
    match decision.posture:
        case Posture.CLEARS_AS_REQUIRED:
            return ", and its kernel does"
        case Posture.CLEARS_NEEDLESSLY:
            return ", but its kernel clears them all the same"
        case Posture.SKIPS_SAFELY:
            return ", and its kernel does not"
        case Posture.AT_RISK:
            return ", and its kernel does NOT"
        case Posture.IDLE:
            return f"; there are none now: {decision.posture_because}"
        case Posture.UNKNOWN:
            return "; what its kernel does is not known"
        case Posture.NOT_APPLICABLE:
            return ""
        case _:
            assert_never(decision.posture)


def _subject(report: Report) -> str:
    if Origin.LIVE in report.origins:
        return "this host"
    if Origin.CAPTURED in report.origins:
        return "the captured host"
    return "such a host"


def faked_line(report: Report) -> str:
    """Return which parts of the facts were given on the command line, in a sentence."""
    decision = report.decision
    parts = {
        "CPU": decision.silicon.origin,
        "host state": decision.host.origin,
        "kernel": decision.kernel.origin,
    }
    faked = [name for name, origin in parts.items() if origin is Origin.FAKED]
    if len(faked) == len(parts):
        return "FAKED: this is about what was given on the command line, not about any machine."
    were = "was" if len(faked) == 1 else "were"
    return f"FAKED in part: the {' and the '.join(faked)} {were} given on the command line."


def _source(report: Report) -> str:
    origins = ", ".join(report.origins)
    return f"{flat(report.source)} ({report.form}; facts {origins})"


def _kernel(decision: Decision) -> str:
    kernel = decision.kernel
    because = kernel.because
    if kernel.certainty is not None and kernel.rule != "release-listed":
        because += f" ({kernel.certainty})"
    return because


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
