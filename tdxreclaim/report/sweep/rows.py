"""Trials as rows: CSV, JSON lines, or columns for Parquet.

A name says the unit.  What a command has no use for is empty.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from tdxreclaim.report.markup import cell
from tdxreclaim.sweep.kinds import ALL
from tdxreclaim.sweep.plan import Command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tdxreclaim.sweep.trials import Job, Outcome

SCHEMA = "tdxreclaim.sweep-row/1"

FORMS = ("csv", "jsonl", "parquet")
"""Formats of rows."""

Cell = int | str | bool | None

COLUMNS: tuple[tuple[str, type], ...] = (
    ("schema", str),
    ("plan_digest", str),
    ("seed", int),
    ("trial", int),
    ("calibration", str),
    ("cpu", str),
    ("affected", bool),
    ("kernel", str),
    ("order", str),
    ("clearing", str),
    ("clears", bool),
    ("memory_bytes", int),
    ("mapped_bytes", int),
    ("vcpus", int),
    ("cause", str),
    ("cost", str),
    ("busy_pages", int),
    ("reclaim_fails_pages", int),
    ("fatal", bool),
    ("tds", int),
    ("at_once", int),
    ("cpus", int),
    ("bandwidth_bytes_per_second", int),
    ("time_low_ns", int),
    ("time_likely_ns", int),
    ("time_high_ns", int),
    ("clear_low_ns", int),
    ("clear_likely_ns", int),
    ("clear_high_ns", int),
    ("outside_timed", bool),
)

NAMES = tuple(name for name, _ in COLUMNS)


def rows(job: Job, outcomes: Iterable[Outcome]) -> Iterator[tuple[Cell, ...]]:
    """Return a row a trial, in the order of `COLUMNS`."""
    plan = job.plan
    drain = plan.command is Command.DRAIN
    head = (SCHEMA, plan.digest, plan.seed)
    for outcome in outcomes:
        trial, setting = outcome.trial, outcome.setting
        tds, at_once, cpus, bandwidth = trial.load
        busy, reclaim_fails, fatal = trial.faults
        yield (
            *head,
            outcome.number,
            job.calibration.name,
            setting.cpu,
            setting.affected,
            setting.kernel,
            setting.order.value,
            setting.clearing.value,
            setting.clears,
            trial.td.memory_bytes,
            trial.td.mapped_bytes,
            trial.td.vcpus,
            *trial.priced,
            busy,
            reclaim_fails,
            bool(fatal),
            tds,
            (tds if at_once == ALL else at_once) if drain else None,
            cpus,
            bandwidth,
            *outcome.time,
            *(outcome.clear or (None, None, None)),
            outcome.outside,
        )


def render_csv(found: Iterable[tuple[Cell, ...]]) -> str:
    """Return rows as CSV, without the header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(_shown, found))
    return text.getvalue()


def _shown(row: tuple[Cell, ...]) -> list[object]:
    return [
        str(value).lower()
        if isinstance(value, bool)
        else cell(value)
        if isinstance(value, str)
        else value
        for value in row
    ]


def render_jsonl(found: Iterable[tuple[Cell, ...]]) -> str:
    """Return rows as JSON lines."""
    return "".join([f"{json.dumps(dict(zip(NAMES, row, strict=True)))}\n" for row in found])


def render_columns(found: Iterable[tuple[Cell, ...]]) -> str:
    """Return rows as a JSON list of columns."""
    return json.dumps(list(zip(*found, strict=True)))


RENDERERS = {"csv": render_csv, "jsonl": render_jsonl, "parquet": render_columns}

HEADERS = {"csv": ",".join(NAMES) + "\n", "jsonl": ""}
"""What stands before the rows."""
