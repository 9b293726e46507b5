"""Observed shutdowns: a table that somebody wrote down, or the rows of calibrations.

CSV: a line of names, then a line a shutdown.  Columns: ``memory`` (18GiB) or
``memory_bytes``, ``vcpus``, ``seconds``, ``kernel`` or ``clearing``; if wanted
``affected``, ``order``, ``source``.

When a shutdown cleared its pages follows from its kernel, and from 6.18 on from
the CPU too: ``affected`` says whether that has tdx_pw_mce (yes, no).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.costs.calibration import Row
from tdxreclaim.costs.toml import Table
from tdxreclaim.engine.plan import ClearWhen, Order
from tdxreclaim.engine.shape import Shape
from tdxreclaim.errors import MalformedInputError, UsageError
from tdxreclaim.tables.errata import ANY
from tdxreclaim.tables.kernels import Clearing, find_kernel
from tdxreclaim.tables.releases import release_series
from tdxreclaim.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST_ROWS = 1_000


class Observed(NamedTuple):
    """A shutdown that was timed, and where that is written."""

    where: str
    """``rows[0]``; with several files ``FILE rows[0]``."""
    row: Row


def is_table(text: str) -> bool:
    """Whether *text* is a CSV, and not a calibration's TOML."""
    return not re.search(r"^\s*(\[|schema\b)", text, re.MULTILINE)


def together(files: Iterable[tuple[str, Iterable[Row]]]) -> tuple[Observed, ...]:
    """Number the rows of several files; of none twice, as merged calibrations repeat them.

    Raises:
        MalformedInputError: they have no rows, or too many.
    """
    given = [(name, tuple(rows)) for name, rows in files]
    found: dict[Row, str] = {}
    for name, rows in given:
        if not rows:
            raise MalformedInputError(name, "rows: it holds no timed shutdown")
        for number, row in enumerate(rows):
            found.setdefault(row, f"{name} " * (len(given) > 1) + f"rows[{number}]")
    if len(found) > MOST_ROWS:
        raise MalformedInputError(given[-1][0], f"more than {MOST_ROWS} rows")
    return tuple(Observed(where, row) for row, where in found.items())


_NAMES = frozenset(
    ("memory", "memory_bytes", "vcpus", "kernel", "clearing", "affected", "order", "seconds")
) | {"source"}


_WHOLE = frozenset({"memory_bytes", "vcpus"})


def parse_csv(text: str, what: str) -> tuple[Row, ...]:
    """Read a table of shutdowns.

    Raises:
        MalformedInputError: ``why`` starts with the row and the column.
    """
    import csv

    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise MalformedInputError(what, "it is empty")
    if len(lines) > MOST_ROWS + 1:
        raise MalformedInputError(what, f"more than {MOST_ROWS} rows")
    try:
        names, *records = csv.reader(lines, strict=True, skipinitialspace=True)
    except csv.Error as error:
        raise MalformedInputError(what, f"not CSV: {error}") from error
    names = [name.strip() for name in names]
    for name in names:
        if name not in _NAMES:
            raise MalformedInputError(what, f"line 1: {name[:80]!r} is no column")
    if len(set(names)) < len(names):
        raise MalformedInputError(what, "line 1: a column is there twice")
    if not records:
        raise MalformedInputError(what, "it has no rows")
    return tuple(_rows(names, records, what))


def _rows(names: list[str], records: list[list[str]], what: str) -> Iterator[Row]:
    for number, record in enumerate(records):
        where = f"rows[{number}]"
        if len(record) != len(names):
            why = f"{where}: {len(record)} values for {len(names)} columns"
            raise MalformedInputError(what, why)
        values = {
            name: _value(name, value.strip())
            for name, value in zip(names, record, strict=True)
            if value.strip()
        }
        yield _row(Table(what, where, values), what)


def _value(name: str, text: str) -> object:
    """Return what a TOML file would hold; text that is no number stays, to be refused by name."""
    if name in _WHOLE and re.fullmatch(r"\d{1,18}", text, re.ASCII):
        return int(text)
    if name == "seconds" and re.fullmatch(r"\d{1,12}(\.\d{1,12})?", text, re.ASCII):
        return float(text) if "." in text else int(text)
    return text


def _row(table: Table, what: str) -> Row:
    if table.has("memory"):
        memory = _size(table, table.text("memory"))
    else:
        memory = table.integer("memory_bytes", 1)
    shape = _shape(table, what, memory, table.integer("vcpus", 1))
    row = Row(
        order=table.choice("order", Order) if table.has("order") else Order.UPSTREAM,
        clearing=ClearWhen.ALWAYS if _clears(table) else ClearWhen.NEVER,
        vcpus=shape.vcpus,
        memory_bytes=shape.memory_bytes,
        seconds=table.number("seconds"),
        source=table.optional("source") or "observed",
    )
    table.done()
    return row


def _shape(table: Table, what: str, memory: int, vcpus: int) -> Shape:
    try:
        return Shape(memory_bytes=memory, vcpus=vcpus)
    except UsageError as error:
        field = table.at("memory_bytes" if error.what == "memory" else error.what)
        raise MalformedInputError(what, f"{field}: {error.why}") from error


def _size(table: Table, text: str) -> int:
    try:
        return parse_size("memory", text)
    except UsageError as error:
        raise table.bad("memory", error.why) from error


_AFFECTED = {"yes": True, "no": False}


def _clears(table: Table) -> bool:
    """Whether the shutdown cleared its pages."""
    affected = None
    if table.has("affected"):
        word = table.text("affected")
        if word not in _AFFECTED:
            raise table.bad("affected", "expected yes or no")
        affected = _AFFECTED[word]
    kernel = table.optional("kernel")
    clearing = table.choice("clearing", ClearWhen) if table.has("clearing") else None
    if clearing is None:
        clearing = _clearing_of(table, kernel)
    if clearing is ClearWhen.ON_ERRATUM and affected is None:
        raise table.bad(
            "affected", f"missing: this kernel clears only on a CPU with {ANY} (yes, no)"
        )
    return clearing.clears(erratum=bool(affected))


def _clearing_of(table: Table, kernel: str | None) -> ClearWhen:
    if kernel is None:
        raise table.bad("kernel", "missing, expected string, or clearing")
    series = release_series(kernel)
    if series is None:
        raise table.bad("kernel", "not a kernel release (6.17, 6.18.2); say clearing instead")
    known = find_kernel(series)
    match known.clearing if known else Clearing.UNKNOWN:
        case Clearing.ALWAYS:
            return ClearWhen.ALWAYS
        case Clearing.ON_ERRATUM:
            return ClearWhen.ON_ERRATUM
        case Clearing.NO_TDX_HOST:
            raise table.bad("kernel", "this release cannot run TDs; say clearing instead")
        case _:
            raise table.bad("kernel", "newer than what is known; say clearing instead")
