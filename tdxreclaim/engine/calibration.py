"""Calibrations: what each step costs, with where the number comes from.

A calibration is a TOML text; ``load`` reads one and names the bad field when
it cannot.  The caller opens the file; the shipped ones are
``calibrations/NAME.toml`` beside this module.

Format (``schema = "tdxreclaim.calibration/1"``)::

    [record]   name, host, kernel, date, origin; assumptions, leaves_out (lists)
    [steps.X]  for each step X: provenance, source, and either
               low_ns, likely_ns, high_ns, or beyond and points
    [[steps.X.points]]  vcpus, low_ns, likely_ns, high_ns; ascending vcpus
    [[rows]]   what was published or measured of whole teardowns:
               order, clearing, vcpus, memory_bytes, seconds, source

Times are integer nanoseconds, low <= likely <= high.  ``beyond`` says what
happens outside the points: ``hold`` keeps the nearest one, ``rise`` takes the
cost to grow with vCPUs (see ``StepCost.at``).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tdxreclaim.engine.plan import Action, Clearing, Order
from tdxreclaim.engine.states import PAGE_BYTES
from tdxreclaim.errors import MalformedInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_E = TypeVar("_E", bound=StrEnum)

SCHEMA = "tdxreclaim.calibration/1"
SHIPPED = ("published",)
"""Names of the calibrations in the package."""


class Provenance(StrEnum):
    """Where a number comes from."""

    MEASURED = "measured"
    PUBLISHED = "published"
    DERIVED = "derived"
    """Arithmetic on published or measured numbers."""
    ASSUMED = "assumed"


class Span(NamedTuple):
    """A time and its range, in integer nanoseconds; low <= likely <= high."""

    low_ns: int
    likely_ns: int
    high_ns: int

    def times(self, count: int) -> Span:
        """It, *count* times over; the whole range moves together."""
        return Span(self.low_ns * count, self.likely_ns * count, self.high_ns * count)

    def plus(self, other: Span) -> Span:
        """Both; lows add up to the low, highs to the high."""
        return Span(
            self.low_ns + other.low_ns,
            self.likely_ns + other.likely_ns,
            self.high_ns + other.high_ns,
        )


ZERO = Span(0, 0, 0)


class Beyond(StrEnum):
    """What a cost does outside its points."""

    HOLD = "hold"
    RISE = "rise"


class Point(NamedTuple):
    """A cost at one number of vCPUs."""

    vcpus: int
    cost: Span


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCost:
    """What one step costs, by the TD's number of vCPUs."""

    points: tuple[Point, ...]
    """One point where the number of vCPUs does not matter."""
    beyond: Beyond
    provenance: Provenance
    source: str

    def at(self, vcpus: int) -> Span:
        """The cost at *vcpus*.

        At a point, the point's.  Between two points the likely cost is on the
        straight line between them, and all that a monotone cost could be is in
        range: low to high of both.  Outside, HOLD keeps the nearest point;
        RISE keeps likely and high below the first point and lets low fall to
        0, and past the last point continues the last line as likely, with no
        growth as low and growth twice as steep as high.
        """
        first, last = self.points[0], self.points[-1]
        if vcpus <= first.vcpus:
            rises = vcpus < first.vcpus and self.beyond is Beyond.RISE
            return first.cost._replace(low_ns=0) if rises else first.cost
        if vcpus >= last.vcpus:
            if vcpus == last.vcpus or self.beyond is Beyond.HOLD or len(self.points) == 1:
                return last.cost
            before = self.points[-2]
            slope = max(0, last.cost.likely_ns - before.cost.likely_ns)
            growth = slope * (vcpus - last.vcpus) // (last.vcpus - before.vcpus)
            low, likely, high = last.cost
            return Span(low, likely + growth, high + 2 * growth)
        left, right = next(
            pair for pair in pairwise(self.points) if pair[0].vcpus <= vcpus < pair[1].vcpus
        )
        if vcpus == left.vcpus:
            return left.cost
        rise = right.cost.likely_ns - left.cost.likely_ns
        return Span(
            min(left.cost.low_ns, right.cost.low_ns),
            left.cost.likely_ns + rise * (vcpus - left.vcpus) // (right.vcpus - left.vcpus),
            max(left.cost.high_ns, right.cost.high_ns),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A whole teardown that somebody timed."""

    order: Order
    clearing: Clearing
    vcpus: int
    memory_bytes: int
    seconds: int
    source: str


class Extrapolation(NamedTuple):
    """A respect in which a TD lies outside what a calibration timed."""

    what: str
    """``vcpus`` or ``memory_bytes``."""
    value: int
    timed_from: int | None
    """None: no whole teardown was timed."""
    timed_to: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Step costs and where they come from."""

    name: str
    host: str
    kernel: str
    date: str
    origin: str
    """The command that measured it, or the publication."""
    assumptions: tuple[str, ...]
    leaves_out: tuple[str, ...]
    steps: Mapping[Action, StepCost]
    rows: tuple[Row, ...]

    def extrapolates(self, *, vcpus: int, memory_bytes: int) -> tuple[Extrapolation, ...]:
        """In what respects a TD lies outside what was timed; empty if in none."""
        asked = {"vcpus": vcpus, "memory_bytes": memory_bytes}
        timed = {
            "vcpus": [row.vcpus for row in self.rows],
            "memory_bytes": [row.memory_bytes for row in self.rows],
        }
        return tuple(
            Extrapolation(
                what, value, min(timed[what], default=None), max(timed[what], default=None)
            )
            for what, value in asked.items()
            if not timed[what] or not min(timed[what]) <= value <= max(timed[what])
        )


class _Table:
    """A TOML table that knows where it is, for errors."""

    def __init__(self, what: str, path: str, value: object) -> None:
        if not isinstance(value, dict):
            raise MalformedInputError(what, f"{path}: expected table")
        self._what = what
        self._path = path
        self._left = dict(value)

    def at(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def bad(self, name: str, why: str) -> MalformedInputError:
        return MalformedInputError(self._what, f"{self.at(name)}: {why}")

    def _take(self, name: str, kind: str) -> object:
        if name not in self._left:
            raise self.bad(name, f"missing, expected {kind}")
        return self._left.pop(name)

    def integer(self, name: str, least: int = 0) -> int:
        value = self._take(name, "integer")
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.bad(name, "expected integer")
        if value < least:
            raise self.bad(name, f"expected {least} or more")
        return value

    def text(self, name: str) -> str:
        value = self._take(name, "string")
        if not isinstance(value, str) or not value:
            raise self.bad(name, "expected string")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._take(name, "list of strings")
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.bad(name, "expected list of strings")
        return tuple(value)

    def choice(self, name: str, kind: type[_E]) -> _E:
        value = self.text(name)
        try:
            return kind(value)
        except ValueError as error:
            raise self.bad(name, f"expected one of {', '.join(kind)}") from error

    def table(self, name: str) -> _Table:
        return _Table(self._what, self.at(name), self._take(name, "table"))

    def tables(self, name: str) -> Iterator[_Table]:
        value = self._take(name, "list of tables")
        if not isinstance(value, list):
            raise self.bad(name, "expected list of tables")
        for i, each in enumerate(value):
            yield _Table(self._what, f"{self.at(name)}[{i}]", each)

    def has(self, name: str) -> bool:
        return name in self._left

    def done(self) -> None:
        for name in self._left:
            raise self.bad(name, "unknown field")


def load(text: str, what: str) -> Calibration:
    """Read a calibration from the text of a TOML file; *what* names it in errors.

    Raises:
        MalformedInputError: it is not TOML, or a field is missing, unknown or
            wrong; ``why`` starts with the field's path.
    """
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MalformedInputError(what, str(error)) from error
    top = _Table(what, "", parsed)
    if top.text("schema") != SCHEMA:
        raise top.bad("schema", f"expected {SCHEMA}")
    record = top.table("record")
    steps = top.table("steps")
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
    )
    for table in (record, steps, top):
        table.done()
    return calibration


def _step(table: _Table) -> StepCost:
    provenance = table.choice("provenance", Provenance)
    source = table.text("source")
    if table.has("points"):
        beyond = table.choice("beyond", Beyond)
        points = tuple(_point(each) for each in table.tables("points"))
        if not points:
            raise table.bad("points", "expected at least one")
        for i, (left, right) in enumerate(pairwise(points)):
            if left.vcpus >= right.vcpus:
                raise table.bad(f"points[{i + 1}].vcpus", "expected ascending vcpus")
    else:
        beyond = Beyond.HOLD
        points = (Point(1, _span(table)),)
    table.done()
    return StepCost(points=points, beyond=beyond, provenance=provenance, source=source)


def _point(table: _Table) -> Point:
    point = Point(table.integer("vcpus", 1), _span(table))
    table.done()
    return point


def _span(table: _Table) -> Span:
    span = Span(table.integer("low_ns"), table.integer("likely_ns"), table.integer("high_ns"))
    if not span.low_ns <= span.likely_ns <= span.high_ns:
        raise table.bad("likely_ns", "expected low_ns <= likely_ns <= high_ns")
    return span


def _row(table: _Table) -> Row:
    row = Row(
        order=table.choice("order", Order),
        clearing=table.choice("clearing", Clearing),
        vcpus=table.integer("vcpus", 1),
        memory_bytes=table.integer("memory_bytes", PAGE_BYTES),
        seconds=table.integer("seconds", 1),
        source=table.text("source"),
    )
    table.done()
    return row
