"""All that a simulation rests on: phases, steps, what-ifs, leftovers, assumptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.costs.scene import name_errata
from tdxreclaim.engine.reuse import Hazard
from tdxreclaim.engine.states import describe
from tdxreclaim.tables.errata import ANY
from tdxreclaim.units import format_ns, format_percent, format_range, format_size, format_span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.costs.estimate import Estimate
    from tdxreclaim.costs.scene import WhatIf
    from tdxreclaim.engine.recorder import Event
    from tdxreclaim.engine.teardown import FailedPages
    from tdxreclaim.report.page import Page
    from tdxreclaim.report.simulate.simulation import Simulation

from tdxreclaim.report.simulate.text import PHASE_NAMES, many

_MOST_LISTED = 8


def draw(sheet: Page, simulation: Simulation, *, whole: bool) -> None:
    """Add what was asked for step by step and, if *whole*, all that the answer rests on."""
    result = simulation.result
    if whole:
        _rests_on(sheet, simulation)
    if result.events:
        sheet.heading(f"The first {len(result.events)} steps")
        _events(sheet, result.events)
    for pfn, life in result.lives.items():
        sheet.heading(f"The life of page {pfn:#x}")
        _events(sheet, life)


def _rests_on(sheet: Page, simulation: Simulation) -> None:
    result, scene = simulation.result, simulation.scene
    sheet.heading("What was asked")
    sheet.labelled("TD", _size(simulation))
    errata = name_errata(simulation.decision, affected=scene.platform.erratum)
    sheet.labelled("CPU", f"{scene.cpu}, {errata}; {many(scene.platform.packages, 'package')}")
    does = "clears" if result.clears else "does not clear"
    sheet.labelled("kernel", f"{scene.kernel}: {scene.plan.order} order, {does} here")
    rule = f"{simulation.decision.verdict} (rule {simulation.decision.rule})"
    sheet.labelled("verdict", f"{rule}; facts from {simulation.source}")
    sheet.heading("Time, by phase")
    _phases(sheet, result.estimate)
    sheet.heading("Time, by step")
    _steps(sheet, result.estimate)
    if simulation.what_ifs:
        sheet.heading("What if (* is the TD above)")
        _what_ifs(sheet, simulation.what_ifs)
    sheet.heading("Afterwards")
    _afterwards(sheet, simulation)
    sheet.heading("What these numbers rest on")
    calibration = simulation.calibration
    for caution in simulation.cautions:
        sheet.item(caution)
    sheet.item(f"Calibration {calibration.name}: {calibration.origin} ({calibration.date}).")
    sheet.item(f"Measured on: {calibration.host}; kernel: {calibration.kernel}.")
    for contradiction in result.estimate.contradictions:
        sheet.item(f"Open contradiction: {contradiction}.")
    for caveat in simulation.caveats[len(simulation.cautions) :]:
        sheet.item(caveat)


def _size(simulation: Simulation) -> str:
    shape = simulation.shape
    return (
        f"{format_size(shape.memory_bytes)} ({many(shape.guest_pages, 'page')} of 4 KiB), "
        f"{many(shape.vcpus, 'vCPU')}, {many(shape.control_pages, 'control and Secure-EPT page')}"
    )


def _count(number: int) -> str:
    return f"{number:,}"


def _phases(sheet: Page, estimate: Estimate) -> None:
    total = estimate.total.likely_ns
    room = max(sheet.width - 66, 10)
    rows = []
    for phase, name in PHASE_NAMES.items():
        span = estimate.phase(phase)
        share = span.likely_ns / total
        rows.append(
            (f"{phase} {name}", format_span(span), format_percent(share), "#" * round(share * room))
        )
    sheet.table(("phase", "time", "share", ""), rows)


def _steps(sheet: Page, estimate: Estimate) -> None:
    total = estimate.total.likely_ns
    sheet.table(
        ("step", ">times", ">each", ">likely", ">share", "known by"),
        (
            (
                f"{step.phase} {step.action.label}",
                _count(step.count),
                format_ns(step.each.likely_ns),
                format_ns(step.total.likely_ns),
                format_percent(step.total.likely_ns / total),
                step.provenance if step.stand_in is None else "stand-in",
            )
            for step in estimate.steps
        ),
    )


def _what_ifs(sheet: Page, what_ifs: tuple[WhatIf, ...]) -> None:
    rows: dict[str, dict[bool, WhatIf]] = {}
    for what_if in what_ifs:
        rows.setdefault(what_if.label, {})[what_if.affected] = what_if
    sheet.table(
        ("kernel", f"CPU without {ANY}", f"CPU with {ANY}"),
        ((label, _cell(cells[False]), _cell(cells[True])) for label, cells in rows.items()),
    )


def _cell(what_if: WhatIf) -> str:
    mark = " *" if what_if.current else ""
    time = format_range(what_if.estimate.total).replace(" to ", "-")
    if what_if.clears:
        return f"{time}, clears {format_percent(what_if.estimate.clearing_share)}{mark}"
    return f"{time}, skips{': UNSAFE' if what_if.affected else ''}{mark}"


def _afterwards(sheet: Page, simulation: Simulation) -> None:
    result = simulation.result
    sheet.item(
        f"{_count(result.pages_reclaimed)} of {_count(result.pages_in)} pages came back, "
        f"{_count(result.pages_leaked)} leaked"
        + (
            f", {_count(result.pages_handed_back)} were handed back while the TD owns them."
            if result.handed_back
            else "."
        )
    )
    for failed in result.leaked:
        sheet.item(f"{_failed(failed)}: leaked until the next reboot.")
    for failed in result.handed_back:
        sheet.item(f"{_failed(failed)}: handed back as it was, uncleared and still the TD's.")
    if result.handed_back:
        _handed_back(sheet, simulation)
    for hazard, pages in result.hazards.items():
        if pages and hazard is not Hazard.STILL_THE_TDS:
            harmless = (
                hazard is Hazard.TD_OWNED
                and not simulation.scene.platform.erratum
                and not result.handed_back
            )
            remark = f"; harmless without {ANY}, where any write converts them"
            handed = f"{many(pages, 'page')} {_HAZARDS[hazard]}{remark if harmless else ''}"
            sheet.item(f"Handed over as reusable: {handed}.")
    written = many(result.partial_writes, "partial write")
    sheet.item(f"The host then used the memory again, {written} among its accesses.")
    if result.contested_reads:
        sheet.item(
            f"{many(result.contested_reads, 'line')} had the TD Owner bit when the host read "
            "them: zeros by the specification's prose and Linux, which is taken; an unofficial "
            "note says poison, and each would be a machine check. See scenario keyid0-reads-zeros."
        )
    if not result.machine_check_count:
        sheet.item("No machine check.")
        return
    sheet.item(
        f"Poison was consumed in {many(result.machine_check_count, 'line')}: each is a machine check. "
        "The first addresses:"
    )
    for check in result.machine_checks[:_MOST_LISTED]:
        cause = check.cause.name.removeprefix("POISON_").lower()
        sheet.paragraph(
            f"{check.address:#014x} (page {check.pfn:#x}, line {check.line}): {cause} poison, "
            f"read by the {check.by} with the {check.key} KeyID",
            first="      ",
            indent=8,
        )


def _failed(failed: FailedPages) -> str:
    """Which pages failed, at which step and with what."""
    failure = failed.failure
    if failure.action is None:
        return f"{many(failed.pages, failure.scope)}, {failure.reason}"
    return f"{many(failed.pages, failure.scope)}, {failure.action.label} -> {failure.reply}"


def _handed_back(sheet: Page, simulation: Simulation) -> None:
    """What a host meets that hands out pages which a TD owns, and what to do."""
    result, affected = simulation.result, simulation.scene.platform.erratum
    sheet.item(
        "Inferred from the kernel's code, not observed on a host "
        f"({simulation.handed_back_source})."
    )
    if affected:
        sheet.item(
            "The next partial write to such a page poisons a line; its next read is a machine check."
        )
    if result.overwritten_lines:
        sheet.item(
            f"Up to {many(result.overwritten_lines, 'line')} are still in the caches and are "
            "written back for the TD later: what the host has put there by then is lost."
        )
    sheet.item("A TD that is given such a page is killed: TDX_PAGE_METADATA_INCORRECT.")
    kexec = " Use no kexec: this CPU is affected." if affected else ""
    sheet.item(f"Do: stop the other TDs, take the host out of service and reboot it.{kexec}")


_HAZARDS = {
    Hazard.TD_OWNED: "with TD-owned lines",
    Hazard.PRIVATE_DIRTY: "with lines still cached under a private KeyID",
    Hazard.POISON_INTEGRITY: "with integrity poison",
    Hazard.POISON_HARDWARE: "with hardware poison",
}


def _events(sheet: Page, events: Iterable[Event]) -> None:
    for event in events:
        sheet.paragraph(_event(event), first="  ", indent=14)


def _event(event: Event) -> str:
    what = "fault" if event.did is None else getattr(event.did, "label", event.did)
    where = f" page {event.pfn:#x}" if event.pfn is not None else ""
    if event.pfn is None and event.scope is not None:
        where = f" {event.scope} {event.number}"
    if event.line is not None:
        where += f" line {event.line}"
    said = f"{format_ns(event.at_ns):>9}  {event.phase} {what}{where}"
    if event.reply is not None:
        said += f" -> {event.reply}"
    if event.seen is not None:
        said += f" ({event.seen})"
    if event.after is not None:
        said += f": {describe(event.after)}"
    return said
