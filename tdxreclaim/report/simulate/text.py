"""A simulated teardown as text: the answer, phases, what-ifs, faults, caveats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.costs.calibration import Cause
from tdxreclaim.costs.estimate import degrees_of_freedom
from tdxreclaim.engine.plan import PLANS, Clearing, Order
from tdxreclaim.engine.reuse import Hazard
from tdxreclaim.engine.states import describe
from tdxreclaim.report.check.text import faked_note
from tdxreclaim.report.page import Page as Sheet
from tdxreclaim.tables.kernels import FIRST_THAT_SKIPS
from tdxreclaim.tables.kernels import Clearing as KernelClearing
from tdxreclaim.tables.sources import Certainty
from tdxreclaim.tables.teardown import Action, Phase
from tdxreclaim.units import format_ns, format_percent, format_range, format_size, format_span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.costs.calibration import Calibration
    from tdxreclaim.costs.estimate import Estimate, Validation
    from tdxreclaim.costs.scene import WhatIf
    from tdxreclaim.engine.recorder import Event
    from tdxreclaim.engine.scenarios import Scenario
    from tdxreclaim.engine.script import Act
    from tdxreclaim.engine.teardown import FailedPages
    from tdxreclaim.report.simulate.simulation import Simulation

PHASE_NAMES = {
    Phase.GUEST_PAGES: "guest pages",
    Phase.HKID: "release HKID",
    Phase.CONTROL_PAGES: "control pages",
}


_MOST_LISTED = 8


def render(simulation: Simulation, *, width: int = 80, color: bool = False) -> str:
    """Return the simulation as text of *width* columns."""
    sheet = Sheet(width, color=color)
    draw(sheet, simulation)
    return sheet.text()


def draw(sheet: Sheet, simulation: Simulation) -> None:
    """Put the simulation on a sheet."""
    result, scene = simulation.result, simulation.scene
    sheet.paragraph(f"{headline(simulation)}{faked_note(simulation.report)}", "bold")
    for cause, span in simulation.causes.items():
        sheet.paragraph(f"{_IF[cause]:<32}{format_range(span)}", first="  ", indent=4)
    if simulation.causes:
        sheet.paragraph(SETTLES)
    sheet.blank()
    sheet.labelled("TD", _size(simulation))
    cpu = f"{scene.cpu}, {'with' if scene.platform.erratum else 'without'} tdx_pw_mce"
    sheet.labelled("CPU", f"{cpu}; {_many(scene.platform.packages, 'package')}")
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
    if result.events:
        sheet.heading(f"The first {len(result.events)} steps")
        _events(sheet, result.events)
    for pfn, life in result.lives.items():
        sheet.heading(f"The life of page {pfn:#x}")
        _events(sheet, life)
    sheet.heading("What these numbers rest on")
    calibration = simulation.calibration
    for premise in simulation.premises:
        sheet.item(premise)
    sheet.item(f"Calibration {calibration.name}: {calibration.origin} ({calibration.date}).")
    sheet.item(f"Measured on: {calibration.host}; kernel: {calibration.kernel}.")
    for contradiction in result.estimate.contradictions:
        sheet.item(f"Open contradiction: {contradiction}.")
    for caveat in simulation.caveats[len(simulation.premises) :]:
        sheet.item(caveat)


_IF = {
    Cause.VCPUS: "if the cost grows with vCPUs",
    Cause.MEMORY: "if it grows with memory",
}


SETTLES = (
    "The timed shutdowns cannot tell which. Two of one memory size with different vCPUs, or of "
    "different sizes with the same vCPUs, would: tdxreclaim calibrate fit."
)


def headline(simulation: Simulation) -> str:
    """Return the answer in a sentence or two."""
    result, scene = simulation.result, simulation.scene
    shape = simulation.shape
    size = format_size(shape.memory_bytes)
    if shape.mapped is not None:
        size += f" ({format_size(shape.mapped)} of it mapped)"
    article = "An" if size.startswith(("8", "11 ", "18 ", "11.", "18.")) else "A"
    said = (
        f"{article} {size} TD with {_many(shape.vcpus, 'vCPU')} takes "
        f"{format_span(result.estimate.total)} to shut down {_where(simulation)}"
    )
    clear = result.estimate.action(Action.CLEAR)
    share = ""
    if result.estimate.has_likely:
        share = f" ({format_percent(result.estimate.clearing_share)} of this order)"
    if clear.likely_ns and scene.platform.erratum:
        said += f", of which the clearing that this CPU needs is {format_range(clear)}{share}"
    elif clear.likely_ns:
        always = scene.plan.row is not None and scene.plan.row.clearing is KernelClearing.ALWAYS
        who = f"{FIRST_THAT_SKIPS} and later save" if always else "without it one saves"
        said += f"; {who} the clearing, {format_range(clear)}{share}"
    said += "."
    if clear.likely_ns and Action.CLEAR in simulation.calibration.stand_ins:
        said += " The clearing is priced by a stand-in, not by MOVDIR64B."
    if result.machine_check_count:
        said += f" Using the memory again then raises {result.machine_check_count:,} #MC."
    elif simulation.unsafe_pages and not result.handed_back:
        said += f" {_many(simulation.unsafe_pages, 'page')} come back that are not safe to use."
    if result.handed_back:
        said += (
            f" {_many(result.pages_handed_back, 'page')} go back to the host uncleared while the "
            "TD owns them: reboot it."
        )
    if result.pages_leaked:
        leak = "leaks" if result.pages_leaked == 1 else "leak"
        said += f" {_many(result.pages_leaked, 'page')} {leak}."
    if scene.assumed:
        said += " What is not known is assumed: see below."
    if result.estimate.extrapolates:
        said += " This extrapolates beyond what was timed."
    return said


def _where(simulation: Simulation) -> str:
    scene = simulation.scene
    kernel = f"kernel {scene.kernel}" if scene.kernel[:1].isdigit() else scene.kernel
    if scene.plan.order is not Order.UPSTREAM:
        return f"with the HKID released first, which no release does, on {scene.cpu}"
    if scene.plan.clearing is not PLANS[scene.plan.name].clearing:
        return f"on {kernel}, clearing {_WHEN[scene.plan.clearing]}, on {scene.cpu}"
    return f"on {kernel} on {scene.cpu}"


_WHEN = {
    Clearing.ALWAYS: "on every CPU",
    Clearing.ON_ERRATUM: "on affected CPUs alone",
    Clearing.NEVER: "never",
}


def _many(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _size(simulation: Simulation) -> str:
    shape = simulation.shape
    return (
        f"{format_size(shape.memory_bytes)} ({_many(shape.guest_pages, 'page')} of 4 KiB), "
        f"{_many(shape.vcpus, 'vCPU')}, {_many(shape.control_pages, 'control and Secure-EPT page')}"
    )


def _count(number: int) -> str:
    return f"{number:,}"


def _phases(sheet: Sheet, estimate: Estimate) -> None:
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


def _steps(sheet: Sheet, estimate: Estimate) -> None:
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


def _what_ifs(sheet: Sheet, what_ifs: tuple[WhatIf, ...]) -> None:
    rows: dict[str, dict[bool, WhatIf]] = {}
    for what_if in what_ifs:
        rows.setdefault(what_if.label, {})[what_if.affected] = what_if
    sheet.table(
        ("kernel", "CPU without tdx_pw_mce", "CPU with tdx_pw_mce"),
        ((label, _cell(cells[False]), _cell(cells[True])) for label, cells in rows.items()),
    )


def _cell(what_if: WhatIf) -> str:
    mark = " *" if what_if.current else ""
    time = format_range(what_if.estimate.total).replace(" to ", "-")
    if what_if.clears:
        return f"{time}, clears {format_percent(what_if.estimate.clearing_share)}{mark}"
    return f"{time}, skips{': UNSAFE' if what_if.affected else ''}{mark}"


def _afterwards(sheet: Sheet, simulation: Simulation) -> None:
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
            remark = "; harmless without tdx_pw_mce, where any write converts them"
            handed = f"{_many(pages, 'page')} {_HAZARDS[hazard]}{remark if harmless else ''}"
            sheet.item(f"Handed over as reusable: {handed}.")
    written = _many(result.partial_writes, "partial write")
    sheet.item(f"The host then used the memory again, {written} among its accesses.")
    if result.contested_reads:
        sheet.item(
            f"{_many(result.contested_reads, 'line')} had the TD Owner bit when the host read "
            "them: zeros by the specification's prose and Linux, which is taken; an unofficial "
            "note says poison, and each would be a #MC. See scenario keyid0-reads-zeros."
        )
    if not result.machine_check_count:
        sheet.item("No machine check.")
        return
    sheet.item(
        f"Poison was consumed in {_many(result.machine_check_count, 'line')}: each is a #MC. "
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
        return f"{_many(failed.pages, failure.scope)}, {failure.reason}"
    return f"{_many(failed.pages, failure.scope)}, {failure.action.label} -> {failure.reply}"


def _handed_back(sheet: Sheet, simulation: Simulation) -> None:
    """What a host meets that hands out pages which a TD owns, and what to do."""
    result, affected = simulation.result, simulation.scene.platform.erratum
    sheet.item(
        "Inferred from the kernel's code, not observed on a host "
        f"({simulation.handed_back_source})."
    )
    if affected:
        sheet.item("The next partial write to such a page poisons a line; its next read is a #MC.")
    if result.overwritten_lines:
        sheet.item(
            f"Up to {_many(result.overwritten_lines, 'line')} are still in the caches and are "
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


def _events(sheet: Sheet, events: Iterable[Event]) -> None:
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


def render_validation(
    calibration: Calibration,
    rows: tuple[Validation, ...],
    *,
    width: int = 80,
    color: bool = False,
) -> str:
    """Return published and emulated totals side by side."""
    sheet = Sheet(width, color=color)
    sheet.paragraph("Published teardowns beside the emulated ones", "bold")
    sheet.blank()
    sheet.table(
        ("order", ">vCPUs", ">memory taken", ">published", ">emulated"),
        (
            (
                each.row.order,
                str(each.row.vcpus),
                format_size(each.row.memory_bytes),
                f"{each.row.seconds} s",
                f"{each.emulated.likely_ns / 1e9:.1f} s",
            )
            for each in rows
        ),
    )
    sheet.blank()
    for said in calibration.premises():
        sheet.paragraph(f"WARNING: {said}.", "yellow")
    sheet.paragraph(f"{_freedom(calibration, rows)} The published sizes are in GB, taken for GiB.")
    return sheet.text()


def _freedom(calibration: Calibration, rows: tuple[Validation, ...]) -> str:
    """What it is worth that the rows come out."""
    worst = max(abs(each.error) for each in rows)
    free = degrees_of_freedom(calibration)
    if free is None:
        return f"How many numbers were fitted to them is not stated; the worst is {worst:.1%} off."
    said = (
        f"{free} degree{'' if free == 1 else 's'} of freedom: {_number(len(rows))} totals by "
        f"{_number(calibration.fitted or 0)} fitted numbers"
    )
    if free == 0:
        return (
            f"{said}. They come out because they were put in; they prove nothing of another host."
        )
    return f"{said}. The worst is {worst:.1%} off."


def _number(count: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return words[count] if count < len(words) else str(count)


def render_scenario(scenario: Scenario, *, width: int = 80, color: bool = False) -> str:
    """Return a scenario as it played, platform by platform."""
    sheet = Sheet(width, color=color)
    sheet.paragraph(f"{scenario.name}: {scenario.says}.", "bold")
    for act in scenario.run():
        platform = act.platform
        erratum = "with" if platform.erratum else "without"
        packages = f", {platform.packages} packages" if platform.packages > 1 else ""
        seam = "" if platform.seam_nr else ", no SEAM_NR"
        sheet.heading(f"{platform.mode}, {erratum} tdx_pw_mce{seam}{packages}{_reading(act)}")
        for step in act.steps:
            outcome = [str(each) for each in (step.reply, step.seen) if each is not None]
            if step.machine_check:
                outcome.append("#MC")
            arrow = f" -> {', '.join(outcome)}" if outcome else ""
            sheet.paragraph(f"{step.did}{arrow}", first="  - ", indent=4)
            if step.note:
                sheet.paragraph(step.note, first="      ", indent=6)
            page = f"{step.page_type.name}, entry {step.sept}"
            line = f"line {describe(step.line)}"
            sheet.paragraph(f"{page}; {line}", first="      ", indent=6)
            sheet.paragraph(f"[{step.certainty}] {step.source}", "dim", first="      ", indent=6)
    return sheet.text()


def _reading(act: Act) -> str:
    """Whose reading of a contested cell the act plays, if it meets one."""
    if all(step.certainty is not Certainty.CONTESTED for step in act.steps):
        return ""
    if act.platform.owned_reads_poison:
        return ", as an unofficial note has it"
    return ", as the specification's prose has it"


def render_scenarios(scenarios: Iterable[Scenario], *, width: int = 80, color: bool = False) -> str:
    """Return the list of scenarios."""
    sheet = Sheet(width, color=color)
    for scenario in scenarios:
        sheet.paragraph(scenario.name, "bold")
        sheet.paragraph(scenario.says, first="    ", indent=4)
    return sheet.text()
