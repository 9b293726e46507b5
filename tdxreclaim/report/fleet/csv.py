"""A fleet as CSV, a host a row, worst first; what was refused has its reason instead."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from tdxreclaim.report.markup import cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tdxreclaim.fleet.answer import Answer
    from tdxreclaim.fleet.tally import Fleet

SCHEMA = "tdxreclaim.fleet-csv/1"

COLUMNS = (
    "schema",
    "host",
    "posture",
    "verdict",
    "rule",
    "cpu",
    "kernel",
    "clearing",
    "missing",
    "memory_bytes",
    "contradictory",
    "refused",
)


def render(fleet: Fleet) -> Iterator[str]:
    """Return header and rows, a few at a time."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in _rows(fleet):
        writer.writerow(row)
        if text.tell() > 1 << 16:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _rows(fleet: Fleet) -> Iterator[Iterable[str]]:
    for name, answers in fleet.contradictory:
        for answer in answers:
            yield _row(fleet, name, _cells(answer), contradictory=True)
    for group in fleet.groups:
        cells = _cells(group.answer)
        for name in group.names:
            yield _row(fleet, name, cells, contradictory=False)
    for one in fleet.refused:
        blank = ("",) * (len(COLUMNS) - 3)
        yield (SCHEMA, cell(one.what), *blank, cell(one.why))


def _cells(answer: Answer) -> tuple[str, ...]:
    return (
        answer.posture,
        answer.verdict,
        cell(answer.rule),
        cell(answer.cpu),
        cell(answer.kernel),
        answer.clearing,
        cell(" ".join(answer.missing)),
    )


def _row(
    fleet: Fleet, name: str, cells: tuple[str, ...], *, contradictory: bool
) -> tuple[str, ...]:
    memory = fleet.memory_of(name)
    shown = "" if memory is None else str(memory)
    return (SCHEMA, cell(name), *cells, shown, str(contradictory).lower(), "")
