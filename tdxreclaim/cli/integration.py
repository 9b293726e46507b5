"""`tdxreclaim integration`."""

from __future__ import annotations

import click

from tdxreclaim.cli.output import emit, help_option
from tdxreclaim.report.integration import INTEGRATIONS


@click.command(add_help_option=False, short_help="Print a file that connects the tool to another.")
@click.argument("name", required=False, metavar="[NAME]", type=click.Choice(tuple(INTEGRATIONS)))
@help_option
def integration(*, name: str | None) -> None:
    """List the integrations, or print NAME: a unit, a rule, a playbook, a snippet.

    They are made from the same tables as the answers.
    """
    if name is None:
        emit(_listing())
        return
    from tdxreclaim.report.integration import render

    emit(render(name))


def _listing() -> str:
    widest = max(map(len, INTEGRATIONS))
    lines = []
    for name, one in INTEGRATIONS.items():
        lines += [f"{name:<{widest}}  {one.summary}", f"{'':<{widest}}  -> {one.place}"]
    return "\n".join(lines) + "\n"
