"""A simulated teardown as text: the answer, phases, what-ifs, faults, caveats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.costs.calibration import CostCause
from tdxreclaim.costs.estimate import degrees_of_freedom
from tdxreclaim.engine.plan import PLANS, ClearWhen, Order
from tdxreclaim.engine.states import describe
from tdxreclaim.errors import ExitStatus
from tdxreclaim.report.check.text import faked_note
from tdxreclaim.report.page import Page
from tdxreclaim.tables.errata import PW_MCE
from tdxreclaim.tables.kernels import FIRST_THAT_SKIPS, Clearing
from tdxreclaim.tables.sources import Certainty
from tdxreclaim.tables.teardown import Action, Phase
from tdxreclaim.units import format_ns, format_percent, format_range, format_size, format_span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.costs.calibration import Calibration
    from tdxreclaim.costs.estimate import Estimate, Validation
    from tdxreclaim.engine.scenarios import Scenario
    from tdxreclaim.engine.script import Act
    from tdxreclaim.report.simulate.simulation import Simulation
    from tdxreclaim.units import Span

PHASE_NAMES = {
    Phase.GUEST_PAGES: "guest pages",
    Phase.HKID: "release HKID",
    Phase.CONTROL_PAGES: "control pages",
}


def render(
    simulation: Simulation,
    *,
    width: int = 80,
    color: bool = False,
    blocks: bool = False,
    explain: bool = False,
) -> str:
    """Return the simulation as text of *width* columns: the answer, or all with *explain*.

    *blocks*: bars may be block characters.
    """
    sheet = Page(width, color=color)
    _summary(sheet, simulation, "█" if blocks else "#")
    if explain or simulation.result.events or simulation.result.lives:
        from tdxreclaim.report.simulate import explained

        explained.draw(sheet, simulation, whole=explain)
    sheet.blank()
    sheet.ends(
        f"exit {int(simulation.exit_status)}",
        "" if explain else "steps, assumptions, sources: --explain",
    )
    return sheet.text()


def _summary(sheet: Page, simulation: Simulation, block: str) -> None:
    sheet.paragraph(f"{headline(simulation)}{faked_note(simulation.report)}", "bold")
    for cause, span in simulation.causes.items():
        sheet.paragraph(f"{_IF[cause]:<32}{format_range(span)}", first="  ", indent=4)
    if simulation.causes:
        sheet.paragraph(SETTLES)
    sheet.blank()
    _where_the_time_goes(sheet, simulation.result.estimate, block)
    _other_kernels(sheet, simulation)
    if simulation.exit_status is ExitStatus.NOT_REQUIRED:
        sheet.paragraph(_all_well(simulation), first="  ", indent=2)
    sheet.blank()
    for warning in simulation.warnings:
        sheet.labelled("warning", f"{warning}.", "yellow")
    for contradiction in simulation.result.estimate.contradictions:
        sheet.labelled("but", f"{contradiction}.", "yellow")
    if simulation.result.handed_back:
        kexec = " Use no kexec." if simulation.scene.platform.erratum else ""
        sheet.labelled("do", f"Stop the host's other TDs, then reboot it.{kexec}")
    elif simulation.unsafe_pages and not simulation.result.clears:
        sheet.labelled("do", "Let the kernel clear: on this CPU its pages are not safe otherwise.")
    calibration = simulation.calibration
    sheet.labelled(
        "how sure",
        f"calibration {calibration.name}; hardware: {calibration.host}; "
        f"{len(simulation.caveats)} assumptions and gaps. "
        "Measure here: tdxreclaim watch --record",
    )


def _where_the_time_goes(sheet: Page, estimate: Estimate, block: str) -> None:
    total = estimate.total.likely_ns
    for phase, name in PHASE_NAMES.items():
        span = estimate.phase(phase)
        _bar(sheet, f"{phase} {name}", span, span.likely_ns / total, estimate, block)
        if phase is Phase.GUEST_PAGES:
            for step in estimate.steps:
                if step.phase is phase and step.action is Action.CLEAR:
                    share = step.total.likely_ns / total
                    _bar(sheet, "  of it clearing", step.total, share, estimate, block)


_BAR = 20


def _bar(sheet: Page, name: str, span: Span, share: float, estimate: Estimate, block: str) -> None:
    if not estimate.has_likely:
        sheet.paragraph(f"  {name:<22}{format_range(span):>18}")
        return
    bar = block * round(share * _BAR)
    line = f"  {name:<22}{format_ns(span.likely_ns):>10}  {format_percent(share):>9}  {bar}"
    sheet.paragraph(line.rstrip())


def _other_kernels(sheet: Page, simulation: Simulation) -> None:
    affected = simulation.scene.platform.erratum
    cells = []
    for each in simulation.what_ifs:
        if each.affected is not affected:
            continue
        time = format_range(each.estimate.total).replace(" to ", "-")
        does = "clears" if each.clears else f"skips{': UNSAFE' if affected else ''}"
        label = "this kernel" if each.current else each.label
        cells.append(f"{label} {time}, {does}")
    if cells:
        sheet.paragraph(" | ".join(cells), first="  ", indent=2)


_IF = {
    CostCause.VCPUS: "if the cost grows with vCPUs",
    CostCause.MEMORY: "if it grows with memory",
}


SETTLES = (
    "Two timed shutdowns of one memory size with different vCPUs, or the reverse, would tell: "
    "tdxreclaim calibrate fit."
)


def _all_well(simulation: Simulation) -> str:
    """That nothing bad follows, and what that rests on."""
    said = "Nothing leaks and no machine check follows"
    if not simulation.result.contested_reads:
        return f"{said}."
    return (
        f"{said}, if KeyID 0 reads a TD-owned line as zeros in Ci: Linux relies on it, an "
        "unofficial note has a machine check there (scenario keyid0-reads-zeros)."
    )


def headline(simulation: Simulation) -> str:
    """Return the answer in a sentence or two."""
    result, scene = simulation.result, simulation.scene
    shape = simulation.shape
    size = format_size(shape.memory_bytes)
    if shape.mapped is not None:
        size += f" ({format_size(shape.mapped)} of it mapped)"
    article = "An" if size.startswith(("8", "11 ", "18 ", "11.", "18.")) else "A"
    said = ""
    if result.handed_back:
        said = (
            f"{many(result.pages_handed_back, 'page')} go back to the host uncleared while the "
            "TD owns them (inferred from the kernel's code, not observed): reboot it. "
        )
    said += (
        f"{article} {size} TD with {many(shape.vcpus, 'vCPU')} takes "
        f"{format_span(result.estimate.total)} to shut down {_where(simulation)}"
    )
    clear = result.estimate.action(Action.CLEAR)
    share = ""
    if result.estimate.has_likely:
        share = f" ({format_percent(result.estimate.clearing_share)} of this order)"
    if clear.likely_ns and scene.platform.erratum:
        said += f", of which the clearing that this CPU needs is {format_range(clear)}{share}"
    elif clear.likely_ns:
        always = scene.plan.row is not None and scene.plan.row.clearing is Clearing.ALWAYS
        who = f"{FIRST_THAT_SKIPS} and later save" if always else "without it one saves"
        said += f"; {who} the clearing, {format_range(clear)}{share}"
    said += "."
    if clear.likely_ns and Action.CLEAR in simulation.calibration.stand_ins:
        said += " The clearing is priced by a stand-in, not by MOVDIR64B."
    if result.machine_check_count:
        said += f" Using the memory again then raises {many(result.machine_check_count, 'machine check')}."
    elif simulation.unsafe_pages and not result.handed_back:
        said += f" {many(simulation.unsafe_pages, 'page')} come back that are not safe to use."
    if result.pages_leaked:
        leak = "leaks" if result.pages_leaked == 1 else "leak"
        said += f" {many(result.pages_leaked, 'page')} {leak}."
    if scene.assumed:
        said += f" Assumed: {'; '.join(scene.assumed)}."
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
    ClearWhen.ALWAYS: "on every CPU",
    ClearWhen.ON_ERRATUM: "on affected CPUs alone",
    ClearWhen.NEVER: "never",
}


def many(number: int, thing: str) -> str:
    """Return a number and what it counts: ``1 page``, ``2 pages``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def render_validation(
    calibration: Calibration,
    rows: tuple[Validation, ...],
    *,
    width: int = 80,
    color: bool = False,
) -> str:
    """Return published and emulated totals side by side."""
    sheet = Page(width, color=color)
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
    for said in calibration.warnings():
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
    sheet = Page(width, color=color)
    sheet.paragraph(f"{scenario.name}: {scenario.says}.", "bold")
    for act in scenario.run():
        platform = act.platform
        erratum = "with" if platform.erratum else "without"
        packages = f", {platform.packages} packages" if platform.packages > 1 else ""
        seam = "" if platform.seam_nr else ", no SEAM_NR"
        sheet.heading(f"{platform.mode}, {erratum} {PW_MCE}{seam}{packages}{_reading(act)}")
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
    sheet = Page(width, color=color)
    for scenario in scenarios:
        sheet.paragraph(scenario.name, "bold")
        sheet.paragraph(scenario.says, first="    ", indent=4)
    return sheet.text()
