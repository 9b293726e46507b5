"""A calibration as TOML, read and written."""

from __future__ import annotations

import json
import tomllib
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from tdxreclaim.costs.calibration import (
    _ENDLESS,
    SCHEMA,
    Beyond,
    Calibration,
    CostCause,
    CostPoint,
    HostRecord,
    Provenance,
    Row,
    StepCost,
)
from tdxreclaim.engine.plan import ClearWhen, Order
from tdxreclaim.errors import MalformedInputError
from tdxreclaim.tables.teardown import Action
from tdxreclaim.units import PAGE_BYTES, Span, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

_E = TypeVar("_E", bound=StrEnum)

# Of a name that somebody else chose, so much is said.
_LONGEST_NAME = 60


def dump(calibration: Calibration) -> str:
    """Return the calibration as the text of a TOML file; reading it gives it back."""
    return "\n".join(_lines(calibration)) + "\n"


def digest_of(calibration: Calibration) -> str:
    """Return what tells a calibration from others: 16 hexadecimal digits of what it says."""
    from hashlib import blake2b

    return blake2b(dump(calibration).encode(), digest_size=8).hexdigest()


def _lines(calibration: Calibration) -> Iterator[str]:
    yield "# Written by tdxreclaim calibrate; see tdxreclaim-calibrate(1) for what is in it."
    yield ""
    yield f"schema = {text(SCHEMA)}"
    yield ""
    yield "[record]"
    yield from _host_lines(calibration.itself)
    yield from _list("assumptions", calibration.assumptions)
    yield from _list("leaves_out", calibration.leaves_out)
    if calibration.fitted is not None:
        yield f"fitted = {calibration.fitted}"
    for source in calibration.sources:
        yield from ("", "[[sources]]", *_host_lines(source))
    for action, cost in calibration.steps.items():
        yield from _step_lines(action, cost)
    for row in calibration.rows:
        yield from _row_lines(row)


def text(value: str) -> str:
    r"""Return a TOML basic string; JSON's escapes are TOML's, but for DEL.

    >>> print(text('a "b"'), text(chr(127)))
    "a \"b\"" "\u007f"
    """
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(name: str, values: tuple[str, ...]) -> Iterator[str]:
    if not values:
        yield f"{name} = []"
        return
    yield f"{name} = ["
    for value in values:
        yield f"  {text(value)},"
    yield "]"


def _host_lines(origin: HostRecord) -> Iterator[str]:
    for name, value in origin.fields().items():
        if value is not None:
            yield f"{name} = {text(value)}"


def _step_lines(action: Action, cost: StepCost) -> Iterator[str]:
    yield from ("", f"[steps.{action}]")
    yield f"provenance = {text(cost.provenance)}"
    yield f"source = {text(cost.source)}"
    if cost.stand_in is not None:
        yield f"stand_in = {text(cost.stand_in)}"
    if cost.taken_from is not None:
        yield f"taken_from = {text(cost.taken_from)}"
    if cost.is_plain:
        yield from _span(cost.points[0].cost)
        return
    yield f"beyond = {text(cost.beyond)}"
    yield f"grows_with = [{', '.join(text(each) for each in cost.grows_with)}]"
    for point in cost.points:
        yield from ("", f"[[steps.{action}.points]]")
        if point.vcpus is not None:
            yield f"vcpus = {point.vcpus}"
        if point.memory_bytes is not None:
            yield _memory_line(point.memory_bytes)
        yield from _span(point.cost)


def _memory_line(memory_bytes: int) -> str:
    return f"memory_bytes = {memory_bytes:_} # {format_size(memory_bytes)}"


def _span(span: Span) -> Iterator[str]:
    for name, value in span._asdict().items():
        yield f"{name} = {value:_}"


def _row_lines(row: Row) -> Iterator[str]:
    yield from ("", "[[rows]]")
    yield f"order = {text(row.order)}"
    yield f"clearing = {text(row.clearing)}"
    yield f"vcpus = {row.vcpus}"
    yield _memory_line(row.memory_bytes)
    yield f"seconds = {row.seconds}"
    yield f"source = {text(row.source)}"


class Table:
    """A TOML table that knows where it is, for errors.

    Whatever is wrong raises `MalformedInputError`, with the field's path.
    """

    def __init__(self, what: str, path: str, value: object) -> None:
        if not isinstance(value, dict):
            raise MalformedInputError(what, f"{path}: expected table")
        self._what = what
        self._path = path
        self._left = dict(value)
        self._asked: dict[str, None] = {}

    def at(self, name: str) -> str:
        """The path of a field."""
        shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
        return f"{self._path}.{shown}" if self._path else shown

    def bad(self, name: str, why: str) -> MalformedInputError:
        """The error that says what is wrong with a field."""
        return MalformedInputError(self._what, f"{self.at(name)}: {why}")

    def take(self, name: str, kind: str) -> object:
        """Take a value of whatever type; *kind* is what is expected."""
        if not self.has(name):
            raise self.bad(name, f"missing, expected {kind}")
        return self._left.pop(name)

    def integer(self, name: str, least: int = 0) -> int:
        """Take an integer of *least* or more."""
        value = self.take(name, "integer")
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.bad(name, "expected integer")
        if value < least:
            raise self.bad(name, f"expected {least} or more")
        return value

    def number(self, name: str) -> float:
        """Take a number above 0."""
        value = self.take(name, "number")
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.bad(name, "expected number")
        if not 0 < value < _ENDLESS:
            raise self.bad(name, "expected a number above 0")
        return value

    def optional(self, name: str) -> str | None:
        """Take a string, or None if there is none."""
        return self.text(name) if self.has(name) else None

    def text(self, name: str) -> str:
        """Take a string that is not empty."""
        value = self.take(name, "string")
        if not isinstance(value, str) or not value:
            raise self.bad(name, "expected string")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Take a list of strings."""
        value = self.take(name, "list of strings")
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.bad(name, "expected list of strings")
        return tuple(value)

    def choice(self, name: str, kind: type[_E]) -> _E:
        """Take one of the values of *kind*."""
        value = self.text(name)
        try:
            return kind(value)
        except ValueError as error:
            raise self.bad(name, f"expected one of {', '.join(kind)}") from error

    def table(self, name: str) -> Table:
        """Take a table."""
        return self.within(name, self.take(name, "table"))

    def within(self, name: str, value: object) -> Table:
        """Return a value that was taken as the table that it is."""
        return Table(self._what, self.at(name), value)

    def tables(self, name: str) -> Iterator[Table]:
        """Take a list of tables."""
        value = self.take(name, "list of tables")
        if not isinstance(value, list):
            raise self.bad(name, "expected list of tables")
        for i, each in enumerate(value):
            yield Table(self._what, f"{self.at(name)}[{i}]", each)

    def has(self, name: str) -> bool:
        """Whether the field is there and was not taken."""
        self._asked[name] = None
        return name in self._left

    def done(self) -> None:
        """Refuse what was not taken."""
        for name in self._left:
            from difflib import get_close_matches

            near = get_close_matches(name[:_LONGEST_NAME].lower(), self._asked, n=1)
            raise self.bad(name, f"unknown field; nearest: {near[0]}" if near else "unknown field")


def parse_toml(text: str, what: str) -> dict[str, object]:
    """Parse TOML.

    Raises:
        MalformedInputError: it is not TOML, or too much for a file of this kind.
    """
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and int()'s of a number without end
        raise MalformedInputError(what, str(error)) from error
    except RecursionError as error:
        raise MalformedInputError(what, "nested too deep") from error


def load(text: str, what: str) -> Calibration:
    """Read a calibration from the text of a TOML file; *what* names it in errors.

    Raises:
        MalformedInputError: it is not TOML, or a field is missing, unknown or
            wrong; ``why`` starts with the field's path.
    """
    parsed = parse_toml(text, what)
    top = Table(what, "", parsed)
    if top.text("schema") != SCHEMA:
        raise top.bad("schema", f"expected {SCHEMA}")
    record = top.table("record")
    steps = top.table("steps")
    sources = (
        tuple(_host_record(each) for each in top.tables("sources")) if top.has("sources") else ()
    )
    calibration = Calibration(
        name=record.text("name"),
        host=record.text("host"),
        kernel=record.text("kernel"),
        date=record.text("date"),
        origin=record.text("origin"),
        assumptions=record.texts("assumptions"),
        leaves_out=record.texts("leaves_out"),
        steps={action: _step(steps.table(action)) for action in Action},
        rows=tuple(_row(each) for each in top.tables("rows")) if top.has("rows") else (),
        cpu=record.optional("cpu"),
        fitted=record.integer("fitted", 0) if record.has("fitted") else None,
        sources=sources,
    )
    names = {each.name for each in sources}
    for action, cost in calibration.steps.items():
        if cost.taken_from is not None and cost.taken_from not in names:
            raise MalformedInputError(what, f"steps.{action}.taken_from: no such name in sources")
    for table in (record, steps, top):
        table.done()
    return calibration


def _host_record(table: Table) -> HostRecord:
    origin = HostRecord(
        name=table.text("name"),
        host=table.text("host"),
        kernel=table.text("kernel"),
        date=table.text("date"),
        origin=table.text("origin"),
        cpu=table.optional("cpu"),
    )
    table.done()
    return origin


def _step(table: Table) -> StepCost:
    provenance = table.choice("provenance", Provenance)
    source = table.text("source")
    stand_in, taken_from = table.optional("stand_in"), table.optional("taken_from")
    if table.has("points"):
        beyond = table.choice("beyond", Beyond)
        grows_with = _grows_with(table)
        points = tuple(_point(each) for each in table.tables("points"))
        _check_points(table, points, grows_with)
    else:
        beyond, grows_with = Beyond.HOLD, (CostCause.VCPUS,)
        points = (CostPoint(1, read_span(table)),)
    table.done()
    return StepCost(
        points=points,
        beyond=beyond,
        grows_with=grows_with,
        provenance=provenance,
        source=source,
        stand_in=stand_in,
        taken_from=taken_from,
    )


def _grows_with(table: Table) -> tuple[CostCause, ...]:
    if not table.has("grows_with"):
        return (CostCause.VCPUS,)
    named = table.texts("grows_with")
    able = [cause.value for cause in CostCause if cause is not CostCause.NOTHING]
    if not set(named) <= set(able) or len(set(named)) < len(named):
        raise table.bad("grows_with", f"expected a list of {' and '.join(able)}")
    return tuple(CostCause(each) for each in named)


def _check_points(
    table: Table, points: tuple[CostPoint, ...], causes: tuple[CostCause, ...]
) -> None:
    if not points:
        raise table.bad("points", "expected at least one")
    keys = [(point.vcpus or 0, point.memory_bytes or 0) for point in points]
    for i, (left, right) in enumerate(pairwise(keys)):
        if left >= right:
            raise table.bad(f"points[{i + 1}].vcpus", "expected ascending vcpus, then memory_bytes")
    for cause in causes:
        if all(point.amount(cause) is None for point in points):
            raise table.bad("grows_with", f"no point says at which {cause.label} it is")


def _point(table: Table) -> CostPoint:
    vcpus = table.integer("vcpus", 1) if table.has("vcpus") else None
    memory = table.integer("memory_bytes", PAGE_BYTES) if table.has("memory_bytes") else None
    if vcpus is None and memory is None:
        raise table.bad("vcpus", "missing, expected integer")
    point = CostPoint(vcpus, read_span(table), memory)
    table.done()
    return point


def read_span(table: Table) -> Span:
    """Read low_ns, likely_ns and high_ns, in order."""
    span = Span(table.integer("low_ns"), table.integer("likely_ns"), table.integer("high_ns"))
    if not span.low_ns <= span.likely_ns <= span.high_ns:
        raise table.bad("likely_ns", "expected low_ns <= likely_ns <= high_ns")
    return span


def _row(table: Table) -> Row:
    row = Row(
        order=table.choice("order", Order),
        clearing=table.choice("clearing", ClearWhen),
        vcpus=table.integer("vcpus", 1),
        memory_bytes=table.integer("memory_bytes", PAGE_BYTES),
        seconds=table.number("seconds"),
        source=table.text("source"),
    )
    table.done()
    return row
