"""Calibrations, and what they were made of, as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.calibrate.clear import saturates_at
from tdxreclaim.calibrate.merge import rank
from tdxreclaim.report.page import Page
from tdxreclaim.tables.teardown import Action
from tdxreclaim.units import format_ns, format_percent, format_range, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tdxreclaim.calibrate.causes import Explanation
    from tdxreclaim.calibrate.diff import Change
    from tdxreclaim.calibrate.fit import Fit
    from tdxreclaim.calibrate.recordings import Recording
    from tdxreclaim.costs.calibration import Calibration, HostRecord
    from tdxreclaim.facts.measure import Measured, Run

_BAR = 16


_SOLVED_AT = "by vCPUs"


def render_list(
    calibrations: Iterable[Calibration], *, width: int = 80, color: bool = False
) -> str:
    """Return the names of calibrations, a line or two each."""
    sheet = Page(width, color=color)
    for each in calibrations:
        sheet.paragraph(each.name, "bold")
        sheet.paragraph(f"{each.origin} ({each.date}); host: {each.host}", first="    ", indent=4)
    return sheet.text()


def render_calibration(
    calibration: Calibration, *, vcpus: int, width: int = 80, color: bool = False
) -> str:
    """Return a calibration: provenance, step costs with bars, what it assumes and leaves out."""
    sheet = Page(width, color=color)
    sheet.paragraph(f"Calibration {calibration.name}", "bold")
    _show(sheet, calibration, vcpus)
    return sheet.text()


def _show(sheet: Page, calibration: Calibration, vcpus: int) -> None:
    sheet.blank()
    _record(sheet, calibration.itself)
    rows = calibration.rows
    if rows:
        memory = [row.memory_bytes for row in rows]
        counts = [row.vcpus for row in rows]
        sheet.labelled(
            "range",
            f"{len(rows)} whole shutdowns: {min(counts)} to {max(counts)} vCPUs, "
            f"{format_size(min(memory))} to {format_size(max(memory))}",
        )
    else:
        sheet.labelled("range", "no whole shutdown was timed")
    for source in calibration.sources:
        sheet.heading(f"Source {source.name}")
        _record(sheet, source)
    sheet.heading(f"Steps, for a TD with {vcpus} vCPU{'' if vcpus == 1 else 's'}")
    steps = calibration.steps.items()
    # What is done once dwarfs what is done for each page: bars of the latter alone.
    most = max(
        (cost.at(vcpus).likely_ns for action, cost in steps if action not in _ONCE), default=0
    )
    sheet.table(
        ("step", ">likely", "range", "", "known by", "from"),
        (
            (
                action,
                format_ns(cost.at(vcpus).likely_ns),
                format_range(cost.at(vcpus)),
                "(once)"
                if action in _ONCE
                else "#" * max(round(cost.at(vcpus).likely_ns / max(most, 1) * _BAR), 1),
                cost.provenance if cost.stand_in is None else "stand-in",
                cost.taken_from or calibration.name,
            )
            for action, cost in steps
        ),
    )
    for action, instead in calibration.stand_ins.items():
        sheet.paragraph(f"{action.label} is a STAND-IN: {instead}.", "yellow", first="  ", indent=2)
    sheet.heading("Where each number comes from")
    for action, cost in sorted(steps, key=lambda step: rank(step[1])):
        several = f" ({len(cost.points)} points {_SOLVED_AT})" if len(cost.points) > 1 else ""
        sheet.item(f"{action}: {cost.source}{several}")
    for title, notes in (
        ("Assumed", calibration.assumptions),
        ("Left out", calibration.leaves_out),
    ):
        if notes:
            sheet.heading(title)
            for note in notes:
                sheet.item(note)


_ONCE = frozenset({Action.VP_FLUSH, Action.VPFLUSHDONE, Action.CACHE_WB, Action.FREEID})


def _record(sheet: Page, origin: HostRecord) -> None:
    cpu = f" ({origin.cpu})" if origin.cpu is not None else ""
    sheet.labelled("host", f"{origin.host}{cpu}")
    sheet.labelled("kernel", origin.kernel)
    sheet.labelled("date", origin.date)
    sheet.labelled("origin", origin.origin)


def render_clear(
    measured: Measured, calibration: Calibration, *, width: int = 80, color: bool = False
) -> str:
    """Return a measured clear."""
    sheet = Page(width, color=color)
    run = measured.cleared[0]
    instead = "; a STAND-IN: MOVDIR64B was not executed on this CPU"
    sheet.paragraph(
        f"Clearing a 4 KiB page took {format_ns(round(run.median_ns))} "
        f"({_range(run)}) with {measured.store.label}{instead if measured.is_stand_in else ''}.",
        "bold yellow" if measured.is_stand_in else "bold",
    )
    sheet.blank()
    cpu = f" ({measured.cpu})" if measured.cpu is not None else ""
    sheet.labelled("CPU", f"{measured.model_name}{cpu}")
    if measured.guest:
        sheet.labelled("host", "a virtual machine: its host's own clear may take less", "yellow")
    for each in measured.refused:
        said = f"the flags promise {each.label}, and this CPU does not execute it"
        sheet.labelled("flags", said, "yellow")
    sheet.labelled("kernel", measured.kernel)
    huge = (
        "how much of it huge is not known"
        if measured.huge_bytes is None
        else f"{format_size(measured.huge_bytes)} of it huge"
        if measured.huge_bytes
        else "none of it huge"
    )
    node = "" if measured.node is None else f", node {measured.node}"
    sheet.labelled(
        "memory", f"{format_size(measured.size_bytes)}, {measured.pages} pages, {huge}{node}"
    )
    sheet.labelled("rounds", f"{measured.rounds}, after one that does not count; median and range")
    sheet.heading("Measured")
    first = measured.cleared[0]
    fence = "with a fence a page" if measured.store.fenced else "without fences"
    sheet.table(
        ("what", ">threads", ">a page", "range", ">GiB/s", ">scale"),
        (
            *(
                _row(f"{measured.store}, {fence}", each, each.median_rate / first.median_rate)
                for each in measured.cleared
            ),
            _row(f"{measured.store}, one fence in all", measured.streamed, None),
            _row("memset of the C library", measured.plain, None),
        ),
    )
    sheet.paragraph(
        f"Best of its rounds, {measured.store} reaches {measured.ratio:.0%} of memset's bandwidth"
        f"{'; the difference above is the fence' if measured.store.fenced else ''}.",
        first="  ",
        indent=2,
    )
    limit = saturates_at(measured.cleared)
    if limit is not None:
        sheet.paragraph(
            f"It saturates at {limit} thread{'' if limit == 1 else 's'}: more add less than a "
            "tenth.",
            first="  ",
            indent=2,
        )
    _merged(sheet, calibration)
    return sheet.text()


def _row(what: str, run: Run, scale: float | None) -> tuple[str, ...]:
    return (
        what,
        str(run.threads),
        format_ns(round(run.median_ns)),
        _range(run),
        f"{run.median_rate / 2**30:.1f}",
        "" if scale is None else f"{scale:.2f} x",
    )


def _range(run: Run) -> str:
    return f"{format_ns(round(run.ns_a_page[0]))} to {format_ns(round(run.ns_a_page[-1]))}"


def render_trace(
    recording: Recording,
    calibration: Calibration,
    warnings: Sequence[str] = (),
    *,
    width: int = 80,
    color: bool = False,
) -> str:
    """Return what a recording holds."""
    sheet = Page(width, color=color)
    total = sum(times.samples for times in recording.times.values())
    sheet.paragraph(
        f"{total:,} times of {len(recording.times)} of {len(Action)} steps in {recording.form}.",
        "bold",
    )
    for warning in warnings:
        sheet.paragraph(f"Warning: {warning}.", "yellow")
    sheet.heading("Recorded")
    sheet.table(
        ("step", ">times", ">likely", "most of them"),
        (
            (
                action.label,
                f"{times.samples:,}",
                format_ns(times.span.likely_ns),
                format_range(times.span),
            )
            for action, times in recording.times.items()
        ),
    )
    sheet.heading("Left out")
    sheet.item(f"{recording.interrupted:,} in which an interrupt or another task was seen.")
    lost = f"{recording.lost_events:,} events in {recording.lost_notices:,} places"
    sheet.item(
        f"{recording.lost:,} without beginning or end; the tracer says that it lost "
        f"{lost if recording.lost_notices else 'nothing'}."
    )
    sheet.item(f"{recording.nested:,} inside another function for the same step.")
    sheet.item(f"{recording.other_functions:,} of functions that are no step.")
    if recording.cpus:
        cpus = ", ".join(f"{cpu} ({count:,})" for cpu, count in recording.cpus.items())
        sheet.item(f"None for its CPU: times are of CPU {cpus}.")
    if recording.kernels is not None:
        since, until = recording.kernels
        last = "on" if until is None else f"to {'.'.join(map(str, until))}"
        sheet.item(
            f"The functions seen are those of kernels from {'.'.join(map(str, since))} {last}."
        )
    _merged(sheet, calibration)
    return sheet.text()


def render_fit(fit: Fit, calibration: Calibration, *, width: int = 80, color: bool = False) -> str:
    """Return what a fit found, what it could not, and how far each row is off."""
    sheet = Page(width, color=color)
    used = len(fit.residuals) - (fit.outlier is not None)
    left = fit.used.left_over
    sheet.paragraph(
        f"A page cost {_us(fit.page.likely_ns)} ({_us(fit.page.low_ns)} to "
        f"{_us(fit.page.high_ns)}) in {used} shutdown{'' if used == 1 else 's'}; "
        + (f"{left} left over to check this with." if left else "none left over to check this."),
        "bold",
    )
    for said in fit.warnings:
        sheet.paragraph(f"WARNING: {said}", "bold yellow")
    if fit.outlier is not None:
        row = fit.outlier
        sheet.paragraph(
            f"{row.observed.where} is an outlier and was left out: {row.observed.row.seconds:g} s, "
            f"where the others make it {row.fitted_seconds:.4g} s.",
            "yellow",
        )
    sheet.heading("What a page's cost may grow with")
    sheet.table(
        ("cause", ">a page", ">each further", ">clear", ">worst", ""),
        [
            *(_cause(each, "used" if each is fit.used else "possible") for each in fit.causes),
            *(_cause(each, "excluded") for each in fit.excluded),
        ],
    )
    sheet.paragraph("a page: without the clear. worst: the row it is furthest off.", first="  ")
    sheet.heading("Not determined by these shutdowns")
    for each in fit.undetermined:
        sheet.item(f"{each.what}: {each.why}")
    sheet.heading("Residuals")
    sheet.table(
        ("row", ">vCPUs", ">memory", ">observed", ">fitted", ">error", ""),
        (
            (
                row.observed.where,
                str(row.observed.row.vcpus),
                format_size(row.observed.row.memory_bytes),
                f"{row.observed.row.seconds:g} s",
                f"{row.fitted_seconds:.4g} s",
                f"{row.error * 100:+.2f} %",
                "OUTLIER" if row.outlier else "",
            )
            for row in fit.residuals
        ),
    )
    _merged(sheet, calibration)
    return sheet.text()


def _us(ns: float) -> str:
    """Return a page's cost: where a tenth of a microsecond counts."""
    return f"{ns / 1000:.3g} us"


def _cause(found: Explanation, standing: str) -> tuple[str, ...]:
    growth = format_ns(round(found.growth_ns)) if found.growth_ns > 0 else "none"
    unit = {"vcpus": " a vCPU", "memory": " a GiB"}.get(found.cause, "")
    return (
        found.cause,
        _us(found.page_ns),
        f"{growth}{unit}",
        format_ns(round(found.clear_ns)) if found.clear_determined else "as given",
        format_percent(found.worst),
        standing,
    )


def _merged(sheet: Page, calibration: Calibration) -> None:
    """Add which step of the calibration that results comes from where."""
    sources: dict[str, list[str]] = {}
    for action, cost in calibration.steps.items():
        stand_in = ", stand-in" if cost.stand_in is not None else ""
        origin = f"{cost.taken_from or calibration.name}, {cost.provenance}{stand_in}"
        sources.setdefault(origin, []).append(action)
    sheet.heading("The calibration")
    for origin, actions in sources.items():
        sheet.item(f"{origin}: {', '.join(actions)}")


def render_diff(
    one: Calibration,
    other: Calibration,
    changes: Iterable[Change],
    *,
    vcpus: int,
    width: int = 80,
    color: bool = False,
) -> str:
    """Return two calibrations step by step."""
    sheet = Page(width, color=color)
    sheet.paragraph(
        f"{one.name} and {other.name}, for a TD with {vcpus} vCPU{'' if vcpus == 1 else 's'}",
        "bold",
    )
    sheet.blank()
    sheet.table(
        ("step", f">{one.name}", "", f">{other.name}", "", ">ratio"),
        (
            (
                each.action.label,
                format_ns(each.one.likely_ns),
                each.one_known if each.one_instead is None else "stand-in",
                format_ns(each.other.likely_ns),
                each.other_known if each.other_instead is None else "stand-in",
                "" if each.ratio is None else f"{each.ratio:.3g} x",
            )
            for each in changes
        ),
    )
    sheet.paragraph(f"ratio: {other.name} over {one.name}.", first="  ", indent=2)
    for calibration in (one, other):
        for said in calibration.warnings():
            sheet.paragraph(f"{calibration.name}: {said}.", "yellow", first="  ", indent=2)
    return sheet.text()
