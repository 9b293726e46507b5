"""`tdxreclaim sweep`."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import click

from tdxreclaim import __version__
from tdxreclaim.cli import completion
from tdxreclaim.cli.executors import executor_option, jobs_option, open_workers
from tdxreclaim.cli.output import (
    calibration_option,
    color_option,
    emit,
    emit_bytes_chunks,
    emit_chunks,
    format_option,
    help_option,
    output_option,
    terminal_width,
    wants_color,
    write_whole,
)
from tdxreclaim.cli.values import parse_part
from tdxreclaim.errors import UsageError

if TYPE_CHECKING:
    from tdxreclaim.cli.sweep_run import Results, Shard
    from tdxreclaim.sweep.trials import Job

MERGE = "merge"


@click.command(add_help_option=False, short_help="Many what-ifs at once, from a plan.")
@click.argument("plan", metavar="PLAN", nargs=-1, required=True, shell_complete=completion.files)
@format_option("text", "json", "csv", "jsonl", "parquet")
@output_option
@click.option(
    "--svg", metavar="FILE", shell_complete=completion.files, help="Draw it into FILE too."
)
@calibration_option
@click.option("--shard", metavar="I/N", help="Do only part I of N, to be merged later.")
@jobs_option
@executor_option
@color_option
@help_option
def sweep(
    *,
    plan: tuple[str, ...],
    format_: str,
    output: str | None,
    svg: str | None,
    calibration: str,
    shard: str | None,
    jobs: int | None,
    executor: str | None,
    color: str,
) -> None:
    """Ask simulate or drain many times over: a grid of what-ifs, or random draws.

    PLAN is a TOML file: what is varied over what; tdxreclaim-sweep(1) has an
    example.  Text and JSON sum the trials up, CSV, JSON lines and Parquet have
    each.  With --output an interrupted sweep goes on where it ended, when the
    same command is run again.  "merge FILE..." puts the parts of --shard together.
    """
    from tdxreclaim.cli.sweep_run import Shard

    form = _form(format_, output)
    if shard is not None and output in (None, "-"):
        raise UsageError("--shard", "needs --output, a file that merge reads")
    if shard is not None and svg is not None:
        raise UsageError("--svg", "has no effect with --shard: merge draws")
    if svg in ("", "-"):
        raise UsageError("--svg", "needs the name of a file")
    show = _Shown(format_, form, output, svg, wants_color(color, output))
    if plan[0] == MERGE:
        for name in ("shard", "jobs", "executor", "calibration"):
            source = click.get_current_context().get_parameter_source(name)
            if source is click.core.ParameterSource.COMMANDLINE:
                raise UsageError(MERGE, f"takes no --{name}")
        _merge(plan[1:], show)
        return
    if len(plan) > 1:
        raise UsageError(plan[1], "one plan at a time (or merge FILE...)")
    part = None if shard is None else Shard(*parse_part("--shard", shard))
    job = _read_job(plan[0], calibration)
    _run(job, part, show, executor=executor, jobs=jobs)


class _Shown(NamedTuple):
    """What is made of the results."""

    format: str
    rows: str | None
    output: str | None
    svg: str | None
    color: bool


def _form(format_: str, output: str | None) -> str | None:
    """Return the form of rows that a format needs, None if it needs none."""
    from tdxreclaim.report.sweep.rows import FORMS

    if format_ == "parquet":
        from tdxreclaim.report.sweep.parquet import need_pyarrow

        if output in (None, "-"):
            raise UsageError("--output", "needed: Parquet is no text")
        need_pyarrow()
    return format_ if format_ in FORMS else None


def _read_job(path: str, calibration: str) -> Job:
    from tdxreclaim.cli.sweep_job import make_job
    from tdxreclaim.costs.shipped import read_calibration
    from tdxreclaim.facts.sources.base import read_file
    from tdxreclaim.sweep.plan import MOST_BYTES, read_plan

    what = "standard input" if path == "-" else path
    plan = read_plan(read_file(path, MOST_BYTES), what)
    return make_job(plan, read_calibration(calibration), what)


def _run(
    job: Job, shard: Shard | None, show: _Shown, *, executor: str | None, jobs: int | None
) -> None:
    from tdxreclaim.cli import parts
    from tdxreclaim.cli.sweep_run import Results, Shard, do_missing, header_of, keep

    part = shard or Shard()
    with keep(show.output, header_of(job, show.rows, part)) as kept:
        with open_workers(executor, jobs) as workers:
            do_missing(job, show.rows, part, kept, workers)
        if shard is None:
            _show(Results(job, [kept.file], [part]), show)
        else:
            emit_chunks(kept.file.lines(), show.output)
        if kept.resumes:
            parts.remove(kept.file.path)


def _merge(paths: tuple[str, ...], show: _Shown) -> None:
    from tdxreclaim.cli.sweep_job import make_job
    from tdxreclaim.cli.sweep_run import Parts, Results
    from tdxreclaim.costs.toml import load
    from tdxreclaim.sweep.plan import read_plan

    if not paths:
        raise UsageError(MERGE, "needs the files that sweep --shard wrote")
    with Parts(paths) as parts:
        header, path = parts.header, paths[0]
        if show.rows not in (None, header.get("rows")):
            made = header.get("rows") or "no"
            why = f"{made} rows are in the parts; --format {made} or text, json (or do them anew)"
            raise UsageError("--format", why)
        plan = read_plan(str(header.get("plan_text")), path)
        job = make_job(plan, load(str(header.get("calibration_text")), path), path)
        _show(Results(job, parts.files, parts.shards), show)


def _show(results: Results, show: _Shown) -> None:
    if show.rows == "parquet":
        _write_parquet(results, str(show.output))
    elif show.rows is not None:
        from tdxreclaim.report.sweep.rows import HEADERS

        emit_chunks(chain((HEADERS[show.rows],), results.rows()), show.output)
    if show.rows is None or show.svg is not None:
        _sum_up(results, show)


def _write_parquet(results: Results, output: str) -> None:
    from tempfile import TemporaryFile

    from tdxreclaim.costs.toml import digest_of
    from tdxreclaim.report.sweep import parquet

    plan, calibration = results.job.plan, results.job.calibration
    provenance = {
        "tdxreclaim": __version__,
        "plan": plan.text,
        "calibration": f"{calibration.name} {digest_of(calibration)}",
    }
    with TemporaryFile() as file:
        parquet.write(results.rows(), file, provenance)
        file.seek(0)
        emit_bytes_chunks(iter(lambda: file.read(1 << 20), b""), output)


def _sum_up(results: Results, show: _Shown) -> None:
    from tdxreclaim.costs.toml import digest_of
    from tdxreclaim.report.sweep.summary import Sweep

    job = results.job
    found = Sweep(job=job, tally=results.tally(), calibration_digest=digest_of(job.calibration))
    if show.format == "text":
        from tdxreclaim.report.sweep import text

        shown = text.render(found, width=terminal_width(), color=show.color)
        emit(shown, show.output, color=show.color)
    elif show.format == "json":
        from tdxreclaim.report.sweep import json

        emit(json.render(found), show.output)
    if show.svg is not None:
        from tdxreclaim.report.sweep import picture

        write_whole(show.svg, picture.render_svg(found))
