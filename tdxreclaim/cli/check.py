"""`tdxreclaim check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tdxreclaim.cli.host_options import host_options, read_chosen_host
from tdxreclaim.cli.output import (
    color_option,
    emit,
    format_option,
    help_option,
    output_option,
    refuse_with_nagios,
    terminal_width,
    wants_color,
)
from tdxreclaim.errors import ExitStatus, UsageError
from tdxreclaim.report.check.formats import FORMATS

if TYPE_CHECKING:
    from tdxreclaim.policy.model import Decision
    from tdxreclaim.report.check.report import Report


@click.command(add_help_option=False)
@host_options
@format_option(*FORMATS)
@click.option("--expires", metavar="DURATION", help="With nfd: when the features are dropped.")
@click.option(
    "--explain", is_flag=True, help="Show evidence, sources, and every rule that was weighed."
)
@output_option
@color_option
@click.option("--quiet", "-q", is_flag=True, help="Print nothing: the exit status is the answer.")
@click.option(
    "--exit-zero", is_flag=True, help="Exit 0 whatever the answer is; errors still exit non-zero."
)
@help_option
@click.pass_context
def check(
    ctx: click.Context,
    /,
    *,
    format_: str,
    expires: str | None,
    explain: bool,
    output: str | None,
    color: str,
    quiet: bool,
    exit_zero: bool,
    **host: Any,  # noqa: ANN401
) -> None:
    """Say whether a host must clear reclaimed TDX pages, and why.

    Without an option this host is read; no root is needed.  Exit status 0
    means "positively safe to skip" and nothing else: 10 required, 11
    undetermined, 12 not applicable.
    """
    from tdxreclaim.policy.decide import decide
    from tdxreclaim.report.check.report import Report

    if quiet:
        _refuse_with_quiet(ctx)
    if format_ == "nagios":
        refuse_with_nagios(ctx, exit_zero=exit_zero)
    until = _expiry(expires, format_)
    chosen = read_chosen_host(symbols=not quiet, **host)
    decision = decide(chosen.facts)
    if not quiet:
        colored = wants_color(color, output)
        report = Report(decision, chosen.source, chosen.form, explain, until)
        emit(_render(report, format_, color=colored), output, color=colored)
    ctx.exit(ExitStatus.NOT_REQUIRED if exit_zero else _status(decision, format_))


def _status(decision: Decision, format_: str) -> int:
    if format_ != "nagios":
        return decision.verdict.exit_status
    from tdxreclaim.report.check.nagios import state

    return state(decision)


def _expiry(duration: str | None, format_: str) -> str | None:
    """Return when what is printed is to be forgotten, RFC 3339."""
    if duration is None:
        return None
    if format_ != "nfd":
        raise UsageError("--expires", "needs --format nfd")
    import time

    from tdxreclaim.units import parse_duration

    until = time.time() + parse_duration("--expires", duration) / 1e9
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))


def _refuse_with_quiet(ctx: click.Context) -> None:
    contradicting = {
        "format_": "--format",
        "explain": "--explain",
        "output": "--output",
        "exit_zero": "--exit-zero",
    }
    for name, option in contradicting.items():
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise UsageError("--quiet", f"contradicts {option}: the exit status is all it gives")


def _render(report: Report, format_: str, *, color: bool) -> str:
    if format_ == "text":
        from tdxreclaim.report.check import text

        return text.render(report, width=terminal_width(), color=color)
    from tdxreclaim.report.check.formats import render

    return render(report, format_)
