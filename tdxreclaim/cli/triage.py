"""`tdxreclaim triage`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tdxreclaim.cli import completion
from tdxreclaim.cli.host_options import image_option, with_images
from tdxreclaim.cli.output import (
    calibration_option,
    color_option,
    emit,
    format_option,
    help_option,
    output_option,
    refuse_with_nagios,
    terminal_width,
    wants_color,
    write_whole,
)
from tdxreclaim.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.facts.logs.clock import Since
    from tdxreclaim.facts.logs.stack import LogEvent
    from tdxreclaim.policy.model import Decision
    from tdxreclaim.report.triage.summary import Triage
    from tdxreclaim.triage.time import Answer


@click.command(add_help_option=False, short_help="Find out why a TD is slow to shut down.")
@click.option(
    "--from",
    "from_",
    metavar="PATH",
    multiple=True,
    help="A captured host or a log of it; may be given several times, all of one host.",
)
@image_option
@click.option("--host", "host", metavar="NAME", help="Of a log of several hosts, the one to read.")
@click.option(
    "--since", metavar="WHEN", help="Leave out older lines: 2026-06-24, a log's stamp, 2h."
)
@click.option("--observed", metavar="TIME", help="How long the shutdown took: 517s, 9min, 1h32m.")
@click.option("--memory", metavar="SIZE", help="The TD's memory: 18G, 107GB, 400GiB.")
@click.option("--vcpus", metavar="N", help="The TD's vCPUs.")
@calibration_option
@format_option("text", "markdown", "json", "jsonl", "prometheus", "nagios")
@click.option("--explain", is_flag=True, help="Show every finding whole, notices too.")
@click.option(
    "--html",
    metavar="FILE",
    shell_complete=completion.files,
    help="Write a page with a time line into FILE too.",
)
@output_option
@color_option
@click.option(
    "--exit-zero", is_flag=True, help="Exit 0 whatever is found; errors still exit non-zero."
)
@help_option
@click.pass_context
def triage(
    ctx: click.Context,
    /,
    *,
    from_: tuple[str, ...],
    image: tuple[str, ...],
    host: str | None,
    since: str | None,
    observed: str | None,
    memory: str | None,
    vcpus: str | None,
    calibration: str,
    format_: str,
    explain: bool,
    html: str | None,
    output: str | None,
    color: str,
    exit_zero: bool,
) -> None:
    """Find out why a TD is slow to shut down, or what else is wrong with TDX on a host.

    Reads this host, or what was captured of one: sosreports, dmesg, journals
    (short, short-iso, json), /var/log/messages and kern.log, rotated and
    compressed, canonical/tdx's system-report.  Exit status 20: findings; 0:
    nothing that needs action.
    """
    if format_ == "nagios":
        refuse_with_nagios(ctx, exit_zero=exit_zero)
    if html == "-":
        raise UsageError("--html", "needs the name of a file")
    ask = _time_question(observed, memory, vcpus, calibration)
    result = run_triage(from_, since, ask, image, host)
    colored = wants_color(color)
    text = _render(result, format_, color=colored, explain=explain)
    emit(text, output, color=colored)
    if html is not None:
        from tdxreclaim.report.triage import html as triage_html

        write_whole(html, triage_html.render(result))
    if result.exit_status is ExitStatus.NOT_READ:
        whose = "none of its lines" if result.not_read else "not all that tells of the CPU"
        click.echo(f"tdxreclaim: {result.source}: not read: {whose} was understood", err=True)
    ctx.exit(0 if exit_zero else _status(result, format_))


def _status(result: Triage, format_: str) -> int:
    if format_ != "nagios":
        return result.exit_status
    from tdxreclaim.report.triage.nagios import state

    return state(result)


def run_triage(
    paths: tuple[str, ...],
    since: str | None,
    ask: Callable[[Decision], Answer] | None,
    image: tuple[str, ...] = (),
    host: str | None = None,
) -> Triage:
    """Return the findings about the host at *paths*, all of one host.

    Raises:
        HostReadError, MalformedInputError: a path cannot be read, or is of another host.

    """
    from tdxreclaim.cli.progress import Progress
    from tdxreclaim.facts.ticket import TicketReader
    from tdxreclaim.policy.decide import decide
    from tdxreclaim.report.triage.summary import Triage, time_finding
    from tdxreclaim.triage.collect import Collector, overflow
    from tdxreclaim.triage.judge import judge, worst_first

    collectors: dict[str, Collector] = {}

    def sink(path: str) -> Callable[[LogEvent], None]:
        collectors[path] = Collector(path)
        return collectors[path].add

    with Progress("triage") as progress:
        reader = TicketReader(sink, since=_since(since), host=host, progress=progress.show)
        ticket = reader.read(paths)
    if host is not None and all(log.host != host for log in ticket.logs):
        raise UsageError("--host", f"no line that was read is of {host!r}")
    facts = with_images(ticket.facts, image, ticket.name)
    decision = decide(facts)
    answer = ask(decision) if ask else None
    findings = judge(facts, collectors, ticket.logs, decision)
    if answer is not None:
        findings += (time_finding(answer),)
    return Triage(
        findings=worst_first(findings),
        decision=decision,
        source=ticket.name,
        form=ticket.form,
        logs=ticket.logs,
        unread=ticket.unread + overflow(collectors, facts.identity.origin),
        answer=answer,
    )


def _since(text: str | None) -> Since | None:
    from tdxreclaim.facts.logs.clock import parse_since

    if text is None:
        return None
    since = parse_since(text)
    if since is None:
        why = "is no date, stamp or span (2026-06-24, '2026-06-24 11:07:17', 2h)"
        raise UsageError("--since", f"{text!r} {why}")
    return since


def _time_question(
    observed: str | None, memory: str | None, vcpus: str | None, calibration: str
) -> Callable[[Decision], Answer] | None:
    """Return what to ask of the emulator, checked before any log is read."""
    if (observed, memory, vcpus) == (None, None, None):
        return None
    from tdxreclaim.cli.values import parse_number
    from tdxreclaim.costs.shipped import read_calibration
    from tdxreclaim.units import parse_duration, parse_size

    observed_ns = None if observed is None else parse_duration("--observed", observed)
    count = None if vcpus is None else parse_number("--vcpus", vcpus, 1 << 32)
    if memory is None:
        for option, value in (("--observed", observed), ("--vcpus", vcpus)):
            if value is not None:
                raise UsageError(option, "requires --memory")
        return None
    memory_bytes = parse_size("--memory", memory)
    record = read_calibration(calibration)

    def ask(decision: Decision) -> Answer:
        from tdxreclaim.cli.values import naming_options
        from tdxreclaim.triage.time import judge_time

        with naming_options():
            return judge_time(
                decision,
                record,
                memory_bytes=memory_bytes,
                vcpus=count,
                observed_ns=observed_ns,
            )

    return ask


def _render(result: Triage, format_: str, *, color: bool, explain: bool) -> str:
    match format_:
        case "json" | "jsonl" | "prometheus" | "nagios":
            from importlib import import_module

            module = import_module(f"tdxreclaim.report.triage.{format_}")
            rendered: str = module.render(result)
            return rendered
        case "markdown":
            from tdxreclaim.report.triage import text

            return text.render_markdown(result)
        case _:
            from tdxreclaim.report.triage import text

            return text.render(result, width=terminal_width(), color=color, explain=explain)
