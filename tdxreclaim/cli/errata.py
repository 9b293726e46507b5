"""`tdxreclaim errata`."""

from __future__ import annotations

import click

from tdxreclaim.cli.output import (
    color_option,
    emit,
    help_option,
    terminal_width,
    text_or_json_option,
    wants_color,
)
from tdxreclaim.errors import UsageError


@click.command(add_help_option=False, short_help="Print the tables of errata, CPUs and kernels.")
@click.argument("name", metavar="[NAME]", required=False)
@text_or_json_option
@color_option
@help_option
def errata(*, name: str | None, format_: str, color: str) -> None:
    """Print the tables of errata, CPUs and kernels, with their sources.

    NAME is one row of them: an erratum (tdx_pw_mce), a CPU (gnr), an upstream
    kernel release (6.17) or a TDX module (2.0.18).
    """
    from tdxreclaim.report import tables

    rows = tables.ALL if name is None else tables.select(name)
    if rows is None:
        raise UsageError(
            "NAME", f"{name!r} is no erratum, CPU, TDX module or upstream release in the tables"
        )
    if format_ == "json":
        emit(tables.render_json(rows))
    else:
        colored = wants_color(color)
        emit(
            tables.render_text(rows, width=terminal_width(), color=colored),
            color=colored,
        )
