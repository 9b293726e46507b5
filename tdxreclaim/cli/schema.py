"""`tdxreclaim schema`."""

from __future__ import annotations

import click

from tdxreclaim.cli.output import emit, help_option
from tdxreclaim.report.schemas import VERSIONS


@click.command(add_help_option=False, short_help="Print the JSON Schema of what a command prints.")
@click.argument(
    "name",
    type=click.Choice(tuple(VERSIONS)),
)
@help_option
def schema(*, name: str) -> None:
    """Print the JSON Schema of what a command prints with --format json."""
    from tdxreclaim.report.schemas import read_schema

    emit(read_schema(name))
