"""`tdxreclaim findings`."""

from __future__ import annotations

import click

from tdxreclaim.cli import completion
from tdxreclaim.cli.output import (
    color_option,
    emit,
    format_option,
    help_option,
    terminal_width,
    wants_color,
)
from tdxreclaim.errors import UsageError


@click.command(add_help_option=False, short_help="Print the catalogue of what triage finds.")
@click.argument("name", metavar="[ID]", required=False, shell_complete=completion.findings)
@format_option("text", "json")
@color_option
@help_option
def findings(*, name: str | None, format_: str, color: str) -> None:
    """Print the catalogue of what triage finds, or the one finding ID."""
    show(name, format_, color)


def show(name: str | None, format_: str, color: str) -> None:
    """Print the row *name* of the catalogue, or all of it.

    Raises:
        UsageError: there is no such row.

    """
    from tdxreclaim.tables.findings import CATALOGUE, find_kind

    kinds = CATALOGUE
    if name is not None:
        kind = find_kind(name)
        if kind is None:
            raise UsageError("ID", f"{name!r} is no finding (tdxreclaim findings lists them)")
        kinds = (kind,)
    if format_ == "json":
        from tdxreclaim.report.findings import json

        emit(json.render(kinds))
        return
    from tdxreclaim.report.findings import text

    colored = wants_color(color)
    emit(text.render(kinds, width=terminal_width(), color=colored), color=colored)
