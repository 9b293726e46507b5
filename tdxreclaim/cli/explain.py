"""`tdxreclaim explain`."""

from __future__ import annotations

import click

from tdxreclaim.cli import completion
from tdxreclaim.cli.output import (
    color_option,
    emit,
    help_option,
    terminal_width,
    text_or_json_option,
    wants_color,
)
from tdxreclaim.errors import UsageError


@click.command(
    add_help_option=False, short_help="Explain a verdict, finding, erratum, status or other word."
)
@click.argument("topic", metavar="[TOPIC]", required=False, shell_complete=completion.topics)
@text_or_json_option
@color_option
@help_option
def explain(*, topic: str | None, format_: str, color: str) -> None:
    """Explain a word that an output names; without TOPIC, list them all.

    TOPIC is a verdict, posture, rule, erratum, finding, step, scenario,
    calibration or exit status, a kernel release, a CPU, a status of the TDX
    module or the number of a SEAMCALL leaf; or a kind of these (postures).
    """
    from tdxreclaim.report.explain import topics

    found = topics.all_topics() if topic is None else topics.find(topic)
    if not found and topic is not None:
        near = topics.nearest(topic)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise UsageError("TOPIC", f"nothing is called {topic!r}{hint} (tdxreclaim explain)")
    if format_ == "json":
        from tdxreclaim.report.explain import json as explain_json

        emit(explain_json.render(found))
        return
    from tdxreclaim.report.explain import text

    colored = wants_color(color)
    render = text.render_list if topic is None else text.render
    emit(render(found, width=terminal_width(), color=colored), color=colored)
