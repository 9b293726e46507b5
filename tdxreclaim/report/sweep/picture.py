"""A sweep as a drawing: time against memory, a band for each policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report import chart
from tdxreclaim.report.chart import Axis, Extent, Mark, Series
from tdxreclaim.report.picture import Bar, Picture, bars
from tdxreclaim.report.sweep.summary import name_axis, show_axis
from tdxreclaim.report.sweep.text import headline, kernels
from tdxreclaim.units import Span, format_ns, format_range, format_size

if TYPE_CHECKING:
    from tdxreclaim.report.sweep.summary import Policy, Sweep
    from tdxreclaim.sweep.tally import Times

_TITLE = "tdxreclaim sweep"

# Round times, as an axis says them.
_UNITS = (("days", 86_400 * 10**9), ("h", 3600 * 10**9), ("min", 60 * 10**9), ("s", 10**9))
_TIMES = (
    *(10**n for n in range(9)),
    *(n * 10**9 for n in (1, 10, 60, 600, 3600, 4 * 3600)),
    *(10**n * 86_400 * 10**9 for n in range(9)),
)
_SIZES = tuple(1 << n for n in range(12, 53, 2))


def render_svg(sweep: Sweep) -> str:
    """Return the sweep as an SVG picture."""
    axes = "; ".join(f"{name_axis(axis)} {show_axis(axis)}" for axis in sweep.job.plan.axes)
    policies = " ".join(f"{_name(sweep, policy)}." for policy in sweep.policies)
    picture = Picture(_TITLE, f"{headline(sweep)} {policies}", chart.STYLE)
    picture.text(headline(sweep), "head")
    picture.text(f"Plan {sweep.job.plan.digest}: {axes}", "faint")
    picture.gap()
    if any(len(policy.sizes) > 1 for policy in sweep.policies):
        _against_memory(picture, sweep)
    else:
        _by_policy(picture, sweep)
    picture.gap()
    for caution in sweep.cautions:
        picture.text(caution, "faint")
    calibration = sweep.job.calibration
    picture.text(f"Calibration {calibration.name}: {calibration.origin}", "faint")
    return picture.svg()


def _name(sweep: Sweep, policy: Policy) -> str:
    times = format_range(_middle(sweep, policy.times))
    return f"kernel {kernels(policy)} {policy.name}; half up to {times}"


def _outer(sweep: Sweep, times: Times) -> tuple[int, int]:
    quantiles = sweep.job.plan.quantiles
    return times.quantile(quantiles[0]).low_ns, times.quantile(quantiles[-1]).high_ns


def _middle(sweep: Sweep, times: Times) -> Span:
    return times.quantile(_middle_of(sweep))


def _middle_of(sweep: Sweep) -> float:
    """The quantile in the middle of those that the plan asks for."""
    quantiles = sweep.job.plan.quantiles
    return quantiles[len(quantiles) // 2]


def _against_memory(picture: Picture, sweep: Sweep) -> None:
    series = [
        Series(_name(sweep, policy), [_mark(sweep, *at) for at in policy.sizes])
        for policy in sweep.policies
    ]
    marks = [mark for each in series for mark in each.marks]
    x = Axis(
        title="memory of a TD",
        low=min(mark.x for mark in marks),
        high=max(mark.x for mark in marks),
        candidates=_SIZES,
        show=lambda size: format_size(round(size / (1 << 20)) << 20 or size).partition(" (")[0],
    )
    y = Axis(
        title="time",
        low=min(mark.low for mark in marks),
        high=max(mark.high for mark in marks),
        candidates=_TIMES,
        show=_show_time,
    )
    scales = " and ".join(f"{a.title.split()[0]}" for a in (x, y) if a.is_log)
    picture.text("Time against memory, by what the kernel does", "sub")
    timed = [row.memory_bytes for row in sweep.job.calibration.rows]
    extent = Extent(min(timed), max(timed), "timed so far") if timed else None
    chart.draw(picture, series, x, y, extent)
    quantiles = sweep.job.plan.quantiles
    first, last, middle = (
        f"p{each:g}" for each in (quantiles[0], quantiles[-1], _middle_of(sweep))
    )
    picture.gap(4)
    picture.text(
        f"pale: from the low end of {first} to the high end of {last} of the trials at a size; "
        f"inside: the range of {middle}" + (f"; {scales}: logarithmic" if scales else ""),
        "faint",
    )


def _show_time(ns: int) -> str:
    for name, unit in _UNITS:
        if ns >= unit and ns % unit == 0:
            return f"{ns // unit:,} {'day' if ns == _UNITS[0][1] else name}"
    return format_ns(ns)


def _mark(sweep: Sweep, memory_bytes: int, times: Times) -> Mark:
    middle = _middle(sweep, times)
    return Mark(memory_bytes, *_outer(sweep, times), middle.low_ns, middle.high_ns)


def _by_policy(picture: Picture, sweep: Sweep) -> None:
    """Draw bars: with one size of memory there is nothing to draw time against."""
    picture.text("Time by what the kernel does", "sub")
    rows = []
    for policy in sweep.policies:
        low, high = _outer(sweep, policy.times)
        said = format_range(Span(low, _middle(sweep, policy.times).likely_ns, high))
        rows.append(Bar(f"{kernels(policy)}: {policy.clears}", low, high, said))
    bars(picture, rows)
    quantiles = sweep.job.plan.quantiles
    picture.text(f"each bar: p{quantiles[0]:g} to p{quantiles[-1]:g} of its trials", "faint")
