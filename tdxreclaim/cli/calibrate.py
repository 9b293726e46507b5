"""`tdxreclaim calibrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tdxreclaim.cli.output import (
    color_option,
    emit,
    format_option,
    help_option,
    terminal_width,
    wants_color,
    write_whole,
)
from tdxreclaim.costs.shipped import read_calibration
from tdxreclaim.errors import UsageError
from tdxreclaim.tables.kernels import FIRST_THAT_SKIPS, FIRST_WITH_TDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.costs.calibration import Calibration, HostRecord, Row

_NOT_STATED = "not stated"


_MOST_THREADS = 1024


_MOST_ROUNDS = 1000


_MOST_VCPUS = 4096


def _result_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a command that makes a calibration."""
    options = (
        click.option(
            "--over",
            metavar="NAME|FILE",
            multiple=True,
            help="Lay the result over this calibration, step by step the better; may be given "
            "several times, published comes last.",
        ),
        click.option("--name", metavar="NAME", help="What the result is called."),
        click.option(
            "--output", "-o", metavar="FILE", help="Write the calibration to FILE atomically."
        ),
        format_option("text", "json", "toml"),
        color_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _record_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what a recording or a table cannot."""
    options = (
        click.option("--host", metavar="TEXT", help="The host that it is of, for people."),
        click.option("--cpu", metavar="CPU", help="Its CPU: spr, 6/0x8f, a CPUID signature."),
        click.option("--kernel", metavar="RELEASE", help="Its kernel release, such as 6.18.2."),
        click.option("--date", metavar="DATE", help="When it was taken."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(add_help_option=False)
@help_option
def calibrate() -> None:
    """Make, show and compare what the steps of a shutdown cost.

    An estimate is as good as its calibration.  clear measures this host; trace
    reads what a TDX host's kernel recorded; fit takes observed shutdowns apart.
    """


@calibrate.command(add_help_option=False)
@click.option("--size", metavar="SIZE", default="1GiB", show_default=True, help="How much memory.")
@click.option(
    "--threads", metavar="N[,…]", default="1", show_default=True, help="How many threads at once."
)
@click.option("--node", metavar="N", help="Memory and CPUs of one NUMA node.")
@click.option(
    "--pages",
    type=click.Choice(("4k", "thp", "hugetlb")),
    default="thp",
    show_default=True,
    help="What the memory is mapped with.",
)
@click.option("--rounds", metavar="N", default="7", show_default=True, help="How often.")
@_result_options
@help_option
def clear(
    *,
    size: str,
    threads: str,
    node: str | None,
    pages: str,
    rounds: str,
    over: tuple[str, ...],
    name: str | None,
    output: str | None,
    format_: str,
    color: str,
) -> None:
    """Clear memory of this host as the kernel does, and time it.

    With MOVDIR64B where the CPU has it; else with the nearest store that it
    has, as a stand-in, which the calibration and simulate say.  Needs no
    privilege.
    """
    import time

    from tdxreclaim.calibrate import clear as clearing
    from tdxreclaim.cli.progress import Progress
    from tdxreclaim.cli.values import parse_number
    from tdxreclaim.facts.measure import Pages, measure_clear
    from tdxreclaim.facts.sources.live import Live, kernel_release, machine
    from tdxreclaim.units import parse_size

    bases = _bases(over)
    with Progress("calibrate clear") as progress:
        measured = measure_clear(
            Live(),
            size_bytes=parse_size("--size", size),
            threads=_parse_threads(threads),
            pages=Pages(pages),
            rounds=_at_least_one("--rounds", rounds, _MOST_ROUNDS),
            node=None if node is None else parse_number("--node", node, 1 << 16),
            machine=machine(),
            kernel=kernel_release() or _NOT_STATED,
            seen=progress.show,
        )
    origin = f"tdxreclaim calibrate clear --size {size} --threads {threads} --pages {pages}"
    part = clearing.calibration(
        measured, name="clear", date=time.strftime("%Y-%m-%d"), origin=origin
    )
    whole = _lay_over(part, bases, name or "clear", output)

    def text(**look: Any) -> str:  # noqa: ANN401
        from tdxreclaim.report.calibrate import text as calibration_text

        return calibration_text.render_clear(measured, whole, **look)

    def json() -> str:
        from tdxreclaim.report.calibrate import json as calibration_json

        return calibration_json.render_clear(measured, whole)

    _say(whole, text, json, format_, color)


def _parse_threads(text: str) -> tuple[int, ...]:
    counts = [_at_least_one("--threads", part.strip(), _MOST_THREADS) for part in text.split(",")]
    return tuple(sorted(set(counts)))


def _at_least_one(option: str, text: str, largest: int) -> int:
    from tdxreclaim.cli.values import parse_number

    number = parse_number(option, text, largest)
    if number < 1:
        raise UsageError(option, f"{text}: at least 1")
    return number


@calibrate.command(add_help_option=False)
@click.argument("files", metavar="FILE…", nargs=-1, required=True)
@click.option("--vcpus", metavar="N", help="How many vCPUs the TD had.")
@_record_options
@_result_options
@help_option
def trace(
    *,
    files: tuple[str, ...],
    vcpus: str | None,
    host: str | None,
    cpu: str | None,
    kernel: str | None,
    date: str | None,
    over: tuple[str, ...],
    name: str | None,
    output: str | None,
    format_: str,
    color: str,
) -> None:
    """Read step times out of what a kernel recorded of a shutdown.

    FILEs are ftrace's function_graph, trace-cmd report, or maps that bpftrace
    printed; see calibrate recipe.
    """
    from tdxreclaim.calibrate import recordings as kernel_trace
    from tdxreclaim.cli.progress import Progress
    from tdxreclaim.facts.sources.base import RECORDING_LIMIT_BYTES, read_file

    bases = _bases(over)
    count = None if vcpus is None else _at_least_one("--vcpus", vcpus, _MOST_VCPUS)
    origin = f"tdxreclaim calibrate trace {' '.join(files)}"
    record = _stated("trace", host, cpu, kernel, date, origin)
    texts = ((file, read_file(file, RECORDING_LIMIT_BYTES)) for file in files)
    with Progress("calibrate trace") as progress:
        recording = kernel_trace.read(texts, progress.show)
    warnings = _strange_functions(recording, kernel)
    part = kernel_trace.calibration(recording, record, vcpus=count)
    whole = _lay_over(part, bases, name or "trace", output)

    def text(**look: Any) -> str:  # noqa: ANN401
        from tdxreclaim.report.calibrate import text as calibration_text

        return calibration_text.render_trace(recording, whole, warnings, **look)

    def json() -> str:
        from tdxreclaim.report.calibrate import json as calibration_json

        return calibration_json.render_trace(recording, whole, warnings)

    _say(whole, text, json, format_, color)


def _strange_functions(recording: Any, kernel: str | None) -> tuple[str, ...]:  # noqa: ANN401
    """Say where the functions seen are not those of the kernel that was named."""
    if recording.kernels is None:
        return ("no one kernel has all the functions seen: these may be recordings of several",)
    if kernel is None:
        return ()
    from tdxreclaim.cli.values import parse_kernel

    since, until = recording.kernels
    series = parse_kernel(kernel).series
    if series < since or (until is not None and series > until):
        return (f"the functions seen are not those of kernel {kernel}",)
    return ()


def _stated(
    name: str,
    host: str | None,
    cpu: str | None,
    kernel: str | None,
    date: str | None,
    origin: str,
) -> HostRecord:
    from tdxreclaim.cli.values import parse_cpu, parse_kernel
    from tdxreclaim.costs.calibration import HostRecord
    from tdxreclaim.tables.cpus import INTEL

    known = None
    if cpu is not None:
        found = parse_cpu(cpu)
        known = f"{found.vendor or INTEL} {found.family}/{found.model or 0:#04x}"
    return HostRecord(
        name=name,
        host=host or _NOT_STATED,
        kernel=_NOT_STATED if kernel is None else str(parse_kernel(kernel)),
        date=date or _NOT_STATED,
        origin=origin,
        cpu=known,
    )


@calibrate.command(add_help_option=False)
@click.argument("files", metavar="FILE…", nargs=-1, required=True)
@_record_options
@_result_options
@help_option
def fit(
    *,
    files: tuple[str, ...],
    host: str | None,
    cpu: str | None,
    kernel: str | None,
    date: str | None,
    over: tuple[str, ...],
    name: str | None,
    output: str | None,
    format_: str,
    color: str,
) -> None:
    """Solve timed shutdowns for what a page costs.

    FILEs are CSV (memory, vcpus, kernel, seconds, affected) or calibrations that
    hold timed shutdowns, such as those of watch --record; several are joined.
    """
    from tdxreclaim.calibrate.fit import fit as solve
    from tdxreclaim.calibrate.observations import together

    bases = _bases(over)
    stated = _stated("fit", host, cpu, kernel, date, f"tdxreclaim calibrate fit {' '.join(files)}")
    given = [_timed(file) for file in dict.fromkeys(files)]
    observed = together((file, rows) for file, rows, _ in given)
    origin = _common([each for _, _, each in given if each is not None], stated)
    found = solve(observed, bases[0], origin=origin)
    whole = _lay_over(found.calibration, bases, name or "fit", output)

    def text(**look: Any) -> str:  # noqa: ANN401
        from tdxreclaim.report.calibrate import text as calibration_text

        return calibration_text.render_fit(found, whole, **look)

    def json() -> str:
        from tdxreclaim.report.calibrate import json as calibration_json

        return calibration_json.render_fit(found, whole)

    _say(whole, text, json, format_, color)


def _timed(file: str) -> tuple[str, tuple[Row, ...], HostRecord | None]:
    """Return the shutdowns in a file, and of a calibration its record."""
    from tdxreclaim.calibrate.observations import is_table, parse_csv
    from tdxreclaim.costs.calibration import SHIPPED
    from tdxreclaim.costs.toml import load
    from tdxreclaim.facts.sources.base import read_file

    if file in SHIPPED:
        record = read_calibration(file)
        return file, record.rows, record.itself
    text = read_file(file)
    if is_table(text):
        return file, parse_csv(text, file), None
    record = load(text, file)
    others = {row for name in SHIPPED for row in read_calibration(name).rows}
    return file, tuple(row for row in record.rows if row not in others), record.itself


def _common(records: list[HostRecord], stated: HostRecord) -> HostRecord:
    """Return what all records say of their host, under what was stated.

    Raises:
        UsageError: they are of several CPUs.
    """
    from dataclasses import replace

    cpus = {each.cpu for each in records if each.cpu is not None}
    if stated.cpu is None and len(cpus) > 1:
        raise UsageError("FILE", f"shutdowns of several CPUs are no one host's: {sorted(cpus)}")
    for name, value in stated.fields().items():
        said = {getattr(each, name) for each in records}
        if name in ("host", "kernel", "date", "cpu") and value in (_NOT_STATED, None):
            stated = replace(stated, **{name: said.pop() if len(said) == 1 else value})
    return stated


def _named(calibration: Calibration, name: str | None) -> Calibration:
    import dataclasses

    return calibration if name is None else dataclasses.replace(calibration, name=name)


def _bases(over: tuple[str, ...]) -> list[Calibration]:
    """Return the calibrations to lay a result over, before anything takes time."""
    return [read_calibration(name) for name in dict.fromkeys((*over, "published"))]


def _lay_over(
    part: Calibration, bases: list[Calibration], name: str, output: str | None
) -> Calibration:
    """Merge, write if asked to, and return it."""
    from tdxreclaim.calibrate.merge import merge

    # Two sources of one name could not be told apart in the result.
    taken = {each.name for base in bases for each in base.sources or (base.itself,)}
    own = part.name
    number = 2
    while own in taken:
        own, number = f"{part.name}-{number}", number + 1
    whole = merge([_named(part, own), *bases], name=name, origin=part.origin)
    _write(whole, output)
    return whole


def _write(calibration: Calibration, output: str | None) -> None:
    if output is None:
        return
    from tdxreclaim.costs.toml import dump

    if output == "-":
        raise UsageError("--output", "- would mix with the report; print it with --format toml")
    write_whole(output, dump(calibration))


def _say(
    calibration: Calibration,
    text: Callable[..., str],
    json: Callable[[], str],
    format_: str,
    color: str,
) -> None:
    if format_ == "json":
        emit(json())
        return
    if format_ == "toml":
        from tdxreclaim.costs.toml import dump

        emit(dump(calibration))
        return
    colored = wants_color(color)
    emit(text(width=terminal_width(), color=colored), color=colored)


@calibrate.command(add_help_option=False)
@click.argument("tool", type=click.Choice(("ftrace", "bpftrace")))
@click.option(
    "--kernel",
    metavar="RELEASE",
    default=str(FIRST_THAT_SKIPS),
    show_default=True,
    help="The TDX host's kernel.",
)
@help_option
def recipe(*, tool: str, kernel: str) -> None:
    """Print how to record a shutdown on a TDX host; nothing is run."""
    from tdxreclaim.calibrate.recordings import functions_of
    from tdxreclaim.cli.values import parse_kernel
    from tdxreclaim.report.calibrate import recipes

    series = parse_kernel(kernel).series
    if series < FIRST_WITH_TDS:
        raise UsageError("--kernel", f"{kernel}: no release before {FIRST_WITH_TDS} runs TDs")
    functions = functions_of(series)
    release = str(series)
    if tool == "ftrace":
        emit(recipes.render_ftrace(functions, release))
    else:
        emit(recipes.render_bpftrace(functions, release))


@calibrate.command("list", add_help_option=False)
@format_option("text", "json")
@color_option
@help_option
def list_(*, format_: str, color: str) -> None:
    """List the calibrations that come with the package."""
    from tdxreclaim.costs.calibration import SHIPPED

    records = [read_calibration(name) for name in SHIPPED]
    if format_ == "json":
        from tdxreclaim.report.calibrate import json as calibration_json

        emit(calibration_json.render_list(records))
        return
    from tdxreclaim.report.calibrate import text as calibration_text

    colored = wants_color(color)
    text = calibration_text.render_list(records, width=terminal_width(), color=colored)
    emit(text, color=colored)


_vcpus_option = click.option(
    "--vcpus", metavar="N", default="32", show_default=True, help="Costs for a TD with N vCPUs."
)


@calibrate.command(add_help_option=False)
@click.argument("name", metavar="NAME|FILE")
@_vcpus_option
@format_option("text", "json")
@color_option
@help_option
def show(*, name: str, vcpus: str, format_: str, color: str) -> None:
    """Show a calibration: provenance, range, costs by step."""
    count = _at_least_one("--vcpus", vcpus, _MOST_VCPUS)
    record = read_calibration(name)
    if format_ == "json":
        from tdxreclaim.report.calibrate import json as calibration_json

        emit(calibration_json.render_calibration(record))
        return
    from tdxreclaim.report.calibrate import text as calibration_text

    colored = wants_color(color)
    text = calibration_text.render_calibration(
        record, vcpus=count, width=terminal_width(), color=colored
    )
    emit(text, color=colored)


@calibrate.command(add_help_option=False)
@click.argument("file", metavar="FILE")
@help_option
def check(*, file: str) -> None:
    """Read a calibration, and say what is wrong with it, by field."""
    from tdxreclaim.costs.estimate import validate

    record = read_calibration(file)
    rows = validate(record)
    said = f"{file}: a calibration of {len(record.steps)} steps"
    if rows:
        worst = max(rows, key=lambda row: abs(row.error))
        said += f"; of its {len(rows)} shutdowns the worst comes out {worst.error * 100:+.2f} %"
    emit(said + "\n")
    for action, instead in record.stand_ins.items():
        emit(f"{file}: steps.{action}: a stand-in: {instead}\n")


@calibrate.command(add_help_option=False)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@_vcpus_option
@format_option("text", "json")
@color_option
@help_option
def diff(*, a: str, b: str, vcpus: str, format_: str, color: str) -> None:
    """Show two calibrations side by side, step by step."""
    from tdxreclaim.calibrate.diff import compare

    count = _at_least_one("--vcpus", vcpus, _MOST_VCPUS)
    first, second = read_calibration(a), read_calibration(b)
    changes = compare(first, second, vcpus=count)
    if format_ == "json":
        from tdxreclaim.report.calibrate import json as calibration_json

        emit(calibration_json.render_diff(first, second, changes, vcpus=count))
        return
    from tdxreclaim.report.calibrate import text as calibration_text

    colored = wants_color(color)
    text = calibration_text.render_diff(
        first, second, changes, vcpus=count, width=terminal_width(), color=colored
    )
    emit(text, color=colored)
