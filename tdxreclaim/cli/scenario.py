"""`tdxreclaim scenario`."""

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


@click.command(add_help_option=False, short_help="List the scenarios, or play one step by step.")
@click.argument("name", metavar="[NAME]", required=False, shell_complete=completion.scenarios)
@text_or_json_option
@color_option
@help_option
def scenario(*, name: str | None, format_: str, color: str) -> None:
    """List the scenarios, or play one step by step.

    A scenario is run on the emulated machine, step by step; every outcome says
    how well it is known.
    """
    from tdxreclaim.engine import scenarios

    chosen = scenarios.SCENARIOS.values() if name is None else (scenarios.scenario(name),)
    if format_ == "json":
        from tdxreclaim.report.simulate import json as simulation_json

        emit(simulation_json.render_scenarios(chosen, played=name is not None))
        return
    from tdxreclaim.report.simulate import text as simulation_text

    colored, width = wants_color(color), terminal_width()
    if name is None:
        text = simulation_text.render_scenarios(chosen, width=width, color=colored)
    else:
        text = simulation_text.render_scenario(*chosen, width=width, color=colored)
    emit(text, color=colored)
