"""Every format of `check`: a name, the module that renders it, and for whom it is.

To add one: a module here with ``render(report) -> str``, and its line below.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tdxreclaim.report.check.report import Report


class Format(NamedTuple):
    """``module`` is imported when the format is asked for."""

    module: str
    summary: str


FORMATS = {
    "text": Format("tdxreclaim.report.check.text", "for people"),
    "plain": Format("tdxreclaim.report.check.plain", "the verdict, one word"),
    "markdown": Format("tdxreclaim.report.check.markdown", "to paste into a ticket"),
    "json": Format("tdxreclaim.report.check.json", "one document, with a JSON Schema"),
    "jsonl": Format("tdxreclaim.report.check.jsonl", "the same on one line"),
    "csv": Format("tdxreclaim.report.check.csv", "a header and a row"),
    "shell": Format("tdxreclaim.report.shell", "assignments to eval"),
    "prometheus": Format(
        "tdxreclaim.report.check.prometheus", "node_exporter's textfile collector"
    ),
    "nagios": Format("tdxreclaim.report.check.nagios", "a monitoring plugin; its own statuses"),
    "nfd": Format("tdxreclaim.report.check.nfd", "a feature file of Node Feature Discovery"),
}


def render(report: Report, format_: str) -> str:
    """Return *report* in one of `FORMATS`, newline at the end."""
    rendered: str = import_module(FORMATS[format_].module).render(report)
    return rendered
