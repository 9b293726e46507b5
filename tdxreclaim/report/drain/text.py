"""How long it takes to empty a host, as text."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from tdxreclaim.costs.scene import name_errata
from tdxreclaim.report.check.report import Report
from tdxreclaim.report.check.text import faked_note
from tdxreclaim.report.page import Page
from tdxreclaim.report.simulate.text import SETTLES
from tdxreclaim.units import format_ns, format_range, format_size

if TYPE_CHECKING:
    from tdxreclaim.costs.drain import Slot
    from tdxreclaim.report.drain.plan import DrainPlan
    from tdxreclaim.units import Span

_BAR = 30

_MOST_BARS = 16

# High over low from which on each cause is named.
_APART = 1.5


def headline(plan: DrainPlan) -> str:
    """Return the sentence to act on."""
    drain = plan.drain
    together, in_turn = _time(drain.together.total), _time(drain.one_by_one.total)
    if len(drain.tds) == 1:
        return f"{together} to stop this TD."
    asked = drain.asked
    middle = f"  {asked.at_once} at once: {_time(asked.total)}." if asked else ""
    return f"Stop them together: {together}.{middle}  One by one: {in_turn}."


def _time(span: Span) -> str:
    if span.is_wide:
        return format_range(span)
    if format_ns(span.low_ns) == format_ns(span.high_ns):
        return format_ns(span.likely_ns)
    return f"{format_ns(span.likely_ns)} ({format_range(span)})"


def render(plan: DrainPlan, *, width: int = 80, color: bool = False) -> str:
    """Return the plan as text of *width* columns."""
    page = Page(width, color=color)
    drain, scene = plan.drain, plan.scene
    note = faked_note(Report(plan.decision, plan.source, ""))
    page.paragraph(f"{headline(plan)}{note}", "bold")
    _causes(page, plan)
    page.blank()
    memory = format_size(sum(td.memory_bytes for td in drain.tds))
    number = f"{len(drain.tds)} TD{'' if len(drain.tds) == 1 else 's'}"
    page.labelled("TDs", f"{number}, {memory} together; from {plan.source}")
    errata = name_errata(plan.decision, affected=scene.platform.erratum)
    page.labelled("host", f"{scene.cpu}, {errata}; kernel {scene.kernel}")
    if len(drain.tds) > 1:
        _table(page, plan)
    _bars(page, plan)
    page.heading("How sure")
    for said in plan.cautions:
        page.item(f"{said}.")
    page.item(f"Calibration {plan.calibration.name}: each TD alone is what simulate says.")
    return page.text()


def _table(page: Page, plan: DrainPlan) -> None:
    page.blank()
    rows = [
        (
            name,
            str(schedule.at_once),
            _time(schedule.total),
            "by the memory's bandwidth" if schedule.limited else "",
        )
        for name, schedule in plan.schedules
    ]
    rows.append(("no less", "", _time(plan.drain.longest), "the longest alone (certain)"))
    rows.append(("no more", "", _time(plan.drain.sum), "all in turn (certain)"))
    page.table(("", ">at once", "time", ""), rows)


def _causes(page: Page, plan: DrainPlan) -> None:
    """Say each cause's times where the causes are far apart."""
    total = plan.drain.together.total
    if total.high_ns <= _APART * total.low_ns:
        return
    turns = dict(plan.drain.one_by_one.by_cause)
    for cause, span in plan.drain.together.by_cause:
        first = f"if the cost grows with {cause.label}"
        in_turn = f"; one by one {format_range(turns[cause])}" if len(plan.drain.tds) > 1 else ""
        page.paragraph(f"{first:<32}{format_range(span)}{in_turn}", first="  ", indent=4)
    if plan.drain.together.by_cause:
        page.paragraph(SETTLES)


def _bars(page: Page, plan: DrainPlan) -> None:
    """Draw when each TD is stopped, under the rule that was asked for or all together."""
    drain = plan.drain
    shown = drain.asked or drain.together
    whole = max(slot.end_ns for slot in shown.slots)
    times = "the middle of wide ranges" if shown.total.is_wide else "likely times"
    page.heading(f"When each ends, {shown.at_once} at once ({times})")

    def kind(slot: Slot) -> tuple[int, int, str]:
        td = drain.tds[slot.number]
        return td.memory_bytes, td.vcpus, format_ns(slot.end_ns)

    alike = [list(slots) for _, slots in groupby(shown.slots, kind)]
    rows = []
    for slots in alike[:_MOST_BARS]:
        first, *_ = slots
        begin = round(first.start_ns / whole * _BAR)
        length = max(1, round(first.end_ns / whole * _BAR) - begin)
        name = _together([drain.tds[slot.number].name for slot in slots])
        rows.append((name, format_ns(first.end_ns), " " * begin + "#" * length))
    page.table(("TD", ">ends after", ""), rows)
    left = sum(map(len, alike[_MOST_BARS:]))
    if left:
        page.paragraph(f"and {left} more, shorter ones: --format json", first="  ", indent=2)


def _together(names: list[str]) -> str:
    """Return one name for TDs that are alike.

    >>> _together(["18GiB:4 #1", "18GiB:4 #2"]), _together(["77-12", "78-12"]), _together(["a"])
    ('2 x 18GiB:4', '77-12 and 1 alike', 'a')
    """
    shapes = {name.rpartition(" #")[0] for name in names}
    if len(names) == 1:
        return names[0]
    if len(shapes) == 1 and "" not in shapes:
        return f"{len(names)} x {shapes.pop()}"
    return f"{names[0]} and {len(names) - 1} alike"
