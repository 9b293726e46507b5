"""`tdxreclaim fleet`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tdxreclaim.cli.executors import executor_option, jobs_option, open_workers
from tdxreclaim.cli.output import (
    emit_chunks,
    format_option,
    help_option,
    output_option,
    terminal_width,
    wants_color,
)
from tdxreclaim.errors import ExitStatus, UsageError
from tdxreclaim.report.fleet.formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.cli.fleet_reader import Shard
    from tdxreclaim.fleet.tally import Fleet
    from tdxreclaim.units import Span

MERGE = "merge"


@click.command(add_help_option=False, short_help="Answer for many hosts at once.")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@format_option(*FORMATS)
@click.option("--triage", is_flag=True, help="Run triage on each capture and rank the findings.")
@click.option("--shard", metavar="I/N", help="Do only part I of N, to be merged later.")
@jobs_option
@executor_option
@output_option
@click.option(
    "--exit-zero", is_flag=True, help="Exit 0 whatever is found; errors still exit non-zero."
)
@help_option
@click.pass_context
def fleet(
    ctx: click.Context,
    /,
    *,
    sources: tuple[str, ...],
    format_: str,
    triage: bool,
    shard: str | None,
    jobs: int | None,
    executor: str | None,
    output: str | None,
    exit_zero: bool,
) -> None:
    """Answer for many hosts at once, and say who needs what.

    A SOURCE is a JSONL of check, a CSV or JSON inventory (host, vendor, family,
    model, kernel, memory), a capture, sosreport, cpuinfo or log, a directory of
    these, or - for rows on standard input.  "merge FILE..." puts the parts of
    --shard together.  Exit status 20: a host is at risk, not known, answered
    in two ways, or a source was refused.
    """
    from tdxreclaim.cli.fleet_reader import Reader
    from tdxreclaim.cli.progress import Progress
    from tdxreclaim.fleet.tally import Tally

    part = _parse_shard(shard)
    if shard is not None and format_ != "jsonl":
        raise UsageError("--shard", "needs --format jsonl, which merge reads")
    merging = sources[0] == MERGE
    if merging and (triage or shard or executor):
        raise UsageError(MERGE, "takes no --triage, no --shard and no --executor")
    tally = Tally()
    with open_workers(executor, jobs) as workers, Progress("fleet", "hosts") as progress:
        reader = Reader(tally, part, progress.show, workers, triage=triage)
        if merging:
            reader.merge(sources[1:])
        else:
            reader.read(sources)
    found = tally.finish(_clearing())
    emit_chunks(_pieces(found, format_, part), output)
    if reader.interrupted:
        click.echo("tdxreclaim: fleet: interrupted: the rest counts as refused", err=True)
        ctx.exit(ExitStatus.INTERRUPTED)
    ctx.exit(ExitStatus.FINDINGS if found.needs_action and not exit_zero else 0)


def _pieces(found: Fleet, format_: str, part: Shard) -> Iterator[str]:
    if format_ == "text":
        from tdxreclaim.report.fleet import text

        return text.render(found, width=terminal_width(), color=wants_color("auto"))
    if format_ == "jsonl":
        from tdxreclaim.report.fleet import jsonl

        return jsonl.render(found, part)
    from tdxreclaim.report.fleet.formats import render

    return render(found, format_)


def _clearing() -> Span:
    """Return what clearing a page takes, by the published calibration."""
    from tdxreclaim.costs.shipped import read_calibration
    from tdxreclaim.tables.teardown import Action

    return read_calibration("published").steps[Action.CLEAR].at(1)


def _parse_shard(text: str | None) -> Shard:
    from tdxreclaim.cli.fleet_reader import Shard
    from tdxreclaim.cli.values import parse_part

    return Shard() if text is None else Shard(*parse_part("--shard", text))
