"""A watched shutdown as a table that is drawn again and again, or a line a VM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.costs.watched import State
from tdxreclaim.report.page import Page
from tdxreclaim.report.watch.sentences import (
    NEVER_OBSERVED,
    advice,
    meaning,
    page_cost,
    result,
)
from tdxreclaim.units import format_ns, format_percent, format_range, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdxreclaim.calibrate.recorded import Measured
    from tdxreclaim.costs.watch import Followed, Watch
    from tdxreclaim.units import Span

_TITLES = ("VM", "process", ">pages left", ">pages/s", ">a page", ">done", ">left")

_STYLES = {State.STANDING: "yellow", State.ZERO: "yellow", State.COUNTING_DOWN: "bold"}


def render_table(
    watch: Watch, holders: Sequence[str] = (), *, width: int = 80, color: bool = False
) -> str:
    """Return all VMs as they are now."""
    page = Page(width, color=color)
    if not watch.followed:
        page.paragraph("No VM yet.")
    else:
        page.table(_TITLES, (_cells(each) for each in watch.followed.values()))
        page.blank()
    for each in watch.followed.values():
        page.labelled(
            each.vm.name,
            f"{each.watched.state}: {meaning(each)}; {_kind(each)}",
            _STYLES.get(each.watched.state, ""),
        )
    _advise(page, watch, holders)
    return page.text()


def render_advice(
    watch: Watch, holders: Sequence[str], *, width: int = 80, color: bool = False
) -> str:
    """Return what to look at, empty where nothing is stuck or failed."""
    page = Page(width, color=color)
    _advise(page, watch, holders)
    return page.text()


def _advise(page: Page, watch: Watch, holders: Sequence[str]) -> None:
    for said in advice(watch, holders):
        page.paragraph(said, "bold yellow")


def render_lines(watch: Watch) -> str:
    """Return a line a VM, for what is no terminal."""
    lines = [_line(watch.seconds, each) for each in watch.followed.values()]
    if watch.hidden_pages:
        lines.append(f"{watch.seconds:9.1f} s  without a folder  {watch.hidden_pages:,} pages")
    return "".join(f"{line}\n" for line in lines)


def _line(seconds: float, each: Followed) -> str:
    names = (" pages", "/s", " a page", " done", " left")
    said = [f"{cell}{name}" for cell, name in zip(_cells(each)[2:], names, strict=True) if cell]
    return f"{seconds:9.1f} s  {each.vm.name}  {', '.join(said)}  {each.watched.state}"


def _cells(each: Followed) -> tuple[str, ...]:
    watched = each.watched
    recent, left = watched.recent(), watched.left()
    return (
        each.vm.name,
        each.vm.command or "?",
        f"{watched.pages or 0:,}",
        "" if recent is None else f"{recent.pages_a_second:,.0f}",
        "" if recent is None else format_ns(recent.page.likely_ns),
        "" if watched.done is None else format_percent(watched.done),
        "" if left is None else format_range(left),
    )


def render_vms(watch: Watch, *, width: int = 80, color: bool = False) -> str:
    """Return what is known of the VMs: once, before the first line."""
    page = Page(width, color=color)
    for each in watch.followed.values():
        size = each.memory_bytes
        about = [
            f"{each.vm.command or 'a process'} {each.vm.pid}" if each.vm.pid else "process gone",
            "size not known" if size is None else format_size(size),
            _vcpus(each.vcpus),
            _kind(each),
        ]
        page.labelled(each.vm.name, ", ".join(about))
    return page.text()


def _vcpus(number: int | None) -> str:
    if number is None:
        return "vCPUs not known"
    return f"{number} vCPU{'' if number == 1 else 's'}"


def _kind(each: Followed) -> str:
    return f"a TD: {each.td}" if each.td else "not known to be a TD"


def render_end(
    watch: Watch,
    measured: Measured | None,
    published: Span,
    holders: Sequence[str] = (),
    *,
    width: int = 80,
    color: bool = False,
) -> str:
    """Return how it ended, and what it measured."""
    page = Page(width, color=color)
    for each in watch.followed.values():
        page.labelled(each.vm.name, f"{each.watched.state}: {meaning(each)}")
        rate = each.watched.rate()
        if rate is not None:
            coarse = "; too few looks to measure by" if rate.coarse else ""
            page.labelled(
                "",
                f"{rate.pages:,} pages in {format_ns(round(rate.seconds * 1e9))}, "
                f"{page_cost(rate.page)} a page{coarse}",
            )
    if not watch.followed:
        page.paragraph("Nothing to watch: no VM.")
    _advise(page, watch, holders)
    cost = result(measured, published)
    if cost is not None:
        page.paragraph(cost, "bold")
    page.paragraph(NEVER_OBSERVED, "dim")
    return page.text()
