"""Fills the tally of a fleet: rows as they come, captures side by side."""

from __future__ import annotations

import csv
import json
import zlib
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.cli.fleet_captures import check_all
from tdxreclaim.errors import MalformedInputError, TdxReclaimError, UsageError
from tdxreclaim.facts.sources.rows import (
    Form,
    column,
    delimiter_of,
    documents,
    expand,
    lines,
    open_rows,
)
from tdxreclaim.fleet import inventory
from tdxreclaim.fleet.documents import (
    FindingRow,
    HostRow,
    PartRow,
    RefusedRow,
    Said,
    SourceRow,
    read_document,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.cli.executors import Workers
    from tdxreclaim.cli.fleet_captures import Checked
    from tdxreclaim.facts.sources.rows import Rows
    from tdxreclaim.fleet.tally import Tally

_TOLD_EVERY = 1 << 12
_MOST_KINDS = 1 << 14


class Shard(NamedTuple):
    """Part *part* (from 1) of *of*."""

    part: int = 1
    of: int = 1

    def has(self, name: str) -> bool:
        """Whether *name* is this part's, whatever else there is."""
        if self.of == 1:
            return True
        return zlib.crc32(name.encode("utf-8", "surrogateescape")) % self.of == self.part - 1


class Reader:
    """Fills a tally; what it holds in the end does not depend on the order."""

    def __init__(
        self,
        tally: Tally,
        shard: Shard,
        told: Callable[[int, int | None], None],
        workers: Workers,
        *,
        triage: bool,
    ) -> None:
        self._tally = tally
        self._shard = shard
        self._told = told
        self._workers = workers
        self._triage = triage
        self.interrupted = False
        """Whether captures were left out by Ctrl-C; they are refused."""
        self._done = 0
        self._parts: list[PartRow] = []

    def read(self, given: tuple[str, ...]) -> None:
        """Read what *given* names; what cannot be read is refused, and counted."""
        captures = []
        for name in dict.fromkeys(expand(given)):
            try:
                rows = open_rows(name)
            except TdxReclaimError as error:
                if self._shard.has(name):
                    self._tally.refuse(name, error.why)
                continue
            if rows is not None:
                self._rows(name, rows)
            elif self._shard.has(name):
                captures.append(name)
        self._captures(captures)

    def merge(self, files: tuple[str, ...]) -> None:
        """Read the parts of --shard, all of them.

        Raises:
            MalformedInputError: a part is missing, there twice, or is none.

        """
        if not files:
            raise UsageError("merge", "needs the files that fleet --shard wrote")
        for name in files:
            before = len(self._parts)
            rows = open_rows(name)
            if rows is not None:
                with rows.file, rows.text:
                    if rows.form is Form.LINES:
                        self._lines(name, rows)
            if len(self._parts) != before + 1:
                raise MalformedInputError(name, "not what fleet --shard writes")
        counts = {row.of for row in self._parts}
        if len(counts) != 1:
            raise MalformedInputError("merge", f"parts of {sorted(counts)}: not of one run")
        indexes = [row.part for row in self._parts]
        for index in range(1, counts.pop() + 1):
            if indexes.count(index) != 1:
                times = "missing" if index not in indexes else "there twice"
                raise MalformedInputError("merge", f"part {index} is {times}")

    def _captures(self, names: list[str]) -> None:
        left = dict.fromkeys(names)
        try:
            for name, checked in check_all(self._workers, names, triage=self._triage):
                self._capture(name, checked)
                del left[name]
                self._tell(len(names))
        except KeyboardInterrupt:
            if len(left) == len(names):
                raise
            self.interrupted = True
        for name in left:
            self._tally.refuse(name, "not read: interrupted")

    def _capture(self, name: str, checked: Checked) -> None:
        if checked.why:
            self._tally.refuse(checked.what, checked.why)
        if checked.answer is not None:
            self._tally.source(name, 1)
            self._tally.add(name, checked.answer)
            for id_, severity in checked.findings:
                self._tally.finding(id_, severity, [name])

    def _tell(self, total: int | None = None) -> None:
        self._done += 1
        self._told(self._done, total)

    def _rows(self, name: str, rows: Rows) -> None:
        read = {Form.CSV: self._csv, Form.LINES: self._lines, Form.DOCUMENT: self._documents}
        self._tally.source(name)
        with rows.file, rows.text:
            try:
                read[rows.form](name, rows)
            except TdxReclaimError as error:
                self._tally.refuse(name, error.why)

    def _csv(self, name: str, rows: Rows) -> None:
        text = lines(rows.text, name)
        header = next(text)
        reader = csv.reader(text, delimiter=delimiter_of(header))
        titles = [
            column(title) for title in next(csv.reader([header], delimiter=delimiter_of(header)))
        ]
        take = self._inventory_row(inventory.find_columns(titles, name))
        taken = 0
        while True:
            try:
                values = next(reader)
                if values:
                    taken += take(values)
            except StopIteration:
                break
            except (TdxReclaimError, IndexError, csv.Error) as error:
                self._refuse_row(name, reader.line_num + 1, error)
            if not reader.line_num & (_TOLD_EVERY - 1):
                self._told(self._done + reader.line_num, None)
        self._done += reader.line_num
        self._tally.source(name, taken)

    def _inventory_row(self, at: inventory.Columns) -> Callable[[list[str]], int]:
        """Return what takes one row in: hosts of one kind are many, so their answer is kept."""
        known: dict[tuple[str, ...], int] = {}
        tally, shard = self._tally, self._shard
        kind = [at.vendor, at.family, at.model, at.stepping, at.kernel]

        def take(values: list[str]) -> int:
            key = tuple(["" if index is None else values[index] for index in kind])
            number = known.get(key)
            if number is None:
                if len(known) > _MOST_KINDS:
                    known.clear()
                number = known[key] = tally.number(inventory.answer(*key))
            memory = inventory.memory(values[at.memory]) if at.memory is not None else None
            host = values[at.host]
            if not host:
                raise MalformedInputError("host", "empty")
            if not shard.has(host):
                return 0
            tally.add_number(host, number, memory)
            return 1

        return take

    def _lines(self, name: str, rows: Rows) -> None:
        for number, line in enumerate(lines(rows.text, name), 1):
            if line.isspace():
                continue
            try:
                document = json.loads(line)
            except (ValueError, RecursionError) as error:
                self._refuse_row(name, number, MalformedInputError(name, f"no JSON ({error})"))
            else:
                self._document(name, number, document)

    def _documents(self, name: str, rows: Rows) -> None:
        for number, document in enumerate(documents(rows.text, name), 1):
            self._document(name, number, document)

    def _document(self, name: str, number: int, document: object) -> None:
        try:
            said = read_document(document, f"{name}:{number}")
        except TdxReclaimError as error:
            self._refuse_row(name, number, error)
            return
        self._take(name, said)
        self._tell()

    def _take(self, name: str, said: Said) -> None:
        match said:
            case HostRow(host, answer, memory):
                if self._shard.has(host):
                    self._tally.add(host, answer, memory)
                    if not self._parts:
                        self._tally.source(name, 1)
            case RefusedRow(what, why):
                if self._shard.has(what):
                    self._tally.refuse(what, why)
            case PartRow():
                self._parts.append(said)
                self._tally.duplicate(said.duplicates)
            case SourceRow(source, answers):
                self._tally.source(source, answers)
            case FindingRow():
                self._tally.finding(said.id, said.severity, said.hosts)

    def _refuse_row(self, name: str, number: int, error: Exception) -> None:
        where = f"{name}:{number}"
        if not self._shard.has(where):
            return
        if isinstance(error, TdxReclaimError):
            own = error.what in (name, where)
            self._tally.refuse(where, error.why if own else f"{error.what}: {error.why}")
        else:
            why = "fewer columns than the header" if isinstance(error, IndexError) else str(error)
            self._tally.refuse(where, why)
