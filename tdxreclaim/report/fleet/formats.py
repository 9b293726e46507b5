"""Every format of `fleet`: to add one, a module with ``render(fleet) -> Iterator[str]``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.fleet.tally import Fleet

FORMATS = ("text", "markdown", "json", "jsonl", "csv", "prometheus", "html")


def render(fleet: Fleet, format_: str) -> Iterator[str]:
    """Return *fleet* in one of `FORMATS`, piece by piece."""
    module = import_module(f"tdxreclaim.report.fleet.{format_}")
    pieces: Iterator[str] = module.render(fleet)
    return pieces
