"""A sweep as text: times by policy, what varies most, and what that rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.page import Page
from tdxreclaim.report.sweep.summary import name_axis, show_axis
from tdxreclaim.sweep.plan import Command
from tdxreclaim.units import Span, format_percent, format_range

if TYPE_CHECKING:
    from tdxreclaim.report.sweep.summary import Policy, Sweep

_MOST_KERNELS = 3
_MOST_CAUTIONS = 6
# High over low.
_SAID_FROM = 1.05


def headline(sweep: Sweep) -> str:
    """Return the sentence to remember."""
    times = sweep.times
    what = "stop all TDs of a host" if sweep.job.plan.command is Command.DRAIN else "shut a TD down"
    whole = format_range(Span(times.least_ns, times.quantile(50).likely_ns, times.most_ns))
    trials = f"{times.trials:,} trial{'' if times.trials == 1 else 's'}"
    middle = format_range(times.quantile(50))
    return f"{whole} to {what}, in {trials}; half of them take up to {middle}."


def render(sweep: Sweep, *, width: int = 80, color: bool = False) -> str:
    """Return the text, *width* columns wide."""
    page = Page(width, color=color)
    plan = sweep.job.plan
    fixed = [f"{name_axis(a)} {show_axis(a)}" for a in plan.axes]
    page.paragraph(f"{headline(sweep)} [what-if: {'; '.join(fixed)}]", "bold")
    page.blank()
    titles = ["clears", "kernel", ">trials", *(f">p{percent:g}" for percent in plan.quantiles)]
    page.table(titles, [_row(sweep, policy) for policy in sweep.policies])
    page.blank()
    if sweep.explained:
        named = ", ".join(f"{each.name} {format_percent(each.share)}" for each in sweep.explained)
        page.labelled("varies by", f"{named} of the spread of likely times")
    if sweep.own_range > _SAID_FROM:
        page.labelled("range", f"a trial's high end is {sweep.own_range:.1f} times its low end")
    calibration = sweep.job.calibration
    page.labelled(
        "how sure",
        f"calibration {calibration.name}; hardware: {calibration.host}; "
        f"{format_percent(sweep.outside_share)} of the trials are outside what it timed.",
    )
    for caution in sweep.cautions[:_MOST_CAUTIONS]:
        page.labelled("but", caution, "bold red" if "UNSAFE" in caution else "", most=2)
    left = len(sweep.cautions) - _MOST_CAUTIONS
    if left > 0:
        page.labelled("", f"and {left} more: --format json")
    page.blank()
    drawn = f"random draws, seed {plan.seed}" if plan.drawn else "every combination"
    page.ends(f"plan {plan.digest}: {drawn}", "each trial: --format csv")
    return page.text()


def _row(sweep: Sweep, policy: Policy) -> tuple[str, ...]:
    times = policy.times
    shown = [format_range(times.quantile(percent)) for percent in sweep.job.plan.quantiles]
    return (policy.clears, kernels(policy), f"{times.trials:,}", *shown)


def kernels(policy: Policy) -> str:
    """Return the kernels of a policy, as many as there is room for."""
    named = policy.kernels[:_MOST_KERNELS]
    left = len(policy.kernels) - len(named)
    return ", ".join(named) + (f" +{left}" if left else "")
