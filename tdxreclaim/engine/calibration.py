"""Calibrations: what each step costs, with where the number comes from.

A calibration is a TOML text; ``load`` reads one and names the bad field when
it cannot.  The caller opens the file; the shipped ones are
``calibrations/NAME.toml`` beside this module.

Format (``schema = "tdxreclaim.calibration/1"``)::

    [record]   name, host, kernel, date, origin; cpu if it is known;
               assumptions, leaves_out (lists)
    [steps.X]  for each step X: provenance, source, and either
               low_ns, likely_ns, high_ns, or beyond and points; of a step that
               was measured on something else stand_in, of a merged one
               taken_from
    [[steps.X.points]]  vcpus, low_ns, likely_ns, high_ns; ascending vcpus
    [[sources]]  of a merged calibration: name, host, kernel, date, origin, cpu
    [[rows]]   what was published or measured of whole teardowns:
               order, clearing, vcpus, memory_bytes, seconds, source

Times are integer nanoseconds, low <= likely <= high.  ``beyond`` says what
happens outside the points: ``hold`` keeps the nearest one, ``rise`` takes the
cost to grow with vCPUs (see ``StepCost.at``).
"""

from __future__ import annotations

import re
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
_ENDLESS = 1e15
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
    stand_in: str | None = None
    """What was measured in place of the step; None: the step itself."""
    taken_from: str | None = None
    """Which of the calibration's ``sources`` it is of; None: of the calibration itself."""

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
    seconds: float
    """Written as it was read: 72, not 72.0."""
    source: str


class Origin(NamedTuple):
    """Where and when numbers were taken."""

    name: str
    host: str
    kernel: str
    date: str
    origin: str
    cpu: str | None
    """``GenuineIntel 6/0x8f``; None: not stated."""


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
    cpu: str | None = None
    """The CPU as ``GenuineIntel 6/0x8f``; None: not stated."""
    sources: tuple[Origin, ...] = ()
    """The calibrations that it was merged from; empty: it was not merged."""

    @property
    def itself(self) -> Origin:
        """Its own record."""
        return Origin(self.name, self.host, self.kernel, self.date, self.origin, self.cpu)

    @property
    def stand_ins(self) -> dict[Action, str]:
        """The steps that were measured on something else, and on what."""
        return {
            action: cost.stand_in
            for action, cost in self.steps.items()
            if cost.stand_in is not None
        }

    def premises(self, *, cpu: str | None = None, kernel: str | None = None) -> tuple[str, ...]:
        """What whoever reads a time made with it must know: stand-ins and `strangers`."""
        said = (
            f"{action.label} is a stand-in, not the step itself: {what}"
            for action, what in self.stand_ins.items()
        )
        return (*said, *self.strangers(cpu=cpu, kernel=kernel))

    def strangers(self, *, cpu: str | None, kernel: str | None) -> tuple[str, ...]:
        """In what it is of another CPU or kernel than the ones asked about.

        A CPU or kernel that is not known, here or there, is no other one.
        """
        said = []
        for each in self.sources or (self.itself,):
            if cpu is not None and each.cpu is not None and each.cpu != cpu:
                said.append(f"calibration {each.name} is of CPU {each.cpu}, not of {cpu}")
            ours, theirs = _series(kernel), _series(each.kernel)
            if ours is not None and theirs is not None and ours != theirs:
                said.append(f"calibration {each.name} is of kernel {each.kernel}, not of {kernel}")
        return tuple(said)

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


def _series(kernel: str | None) -> str | None:
    """``6.18`` of ``6.18.2-1.fc43``; None where a text does not begin with a release."""
    match = re.match(r"\d+\.\d+", kernel or "", re.ASCII)
    return match[0] if match else None


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

    def at(self, name: str) -> str:
        """The path of a field."""
        return f"{self._path}.{name}" if self._path else name

    def bad(self, name: str, why: str) -> MalformedInputError:
        """The error that says what is wrong with a field."""
        return MalformedInputError(self._what, f"{self.at(name)}: {why}")

    def _take(self, name: str, kind: str) -> object:
        if name not in self._left:
            raise self.bad(name, f"missing, expected {kind}")
        return self._left.pop(name)

    def integer(self, name: str, least: int = 0) -> int:
        """Take an integer of *least* or more."""
        value = self._take(name, "integer")
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.bad(name, "expected integer")
        if value < least:
            raise self.bad(name, f"expected {least} or more")
        return value

    def number(self, name: str) -> float:
        """Take a number above 0."""
        value = self._take(name, "number")
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
        value = self._take(name, "string")
        if not isinstance(value, str) or not value:
            raise self.bad(name, "expected string")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Take a list of strings."""
        value = self._take(name, "list of strings")
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
        return Table(self._what, self.at(name), self._take(name, "table"))

    def tables(self, name: str) -> Iterator[Table]:
        """Take a list of tables."""
        value = self._take(name, "list of tables")
        if not isinstance(value, list):
            raise self.bad(name, "expected list of tables")
        for i, each in enumerate(value):
            yield Table(self._what, f"{self.at(name)}[{i}]", each)

    def has(self, name: str) -> bool:
        """Whether the field is there and was not taken."""
        return name in self._left

    def done(self) -> None:
        """Refuse what was not taken."""
        for name in self._left:
            raise self.bad(name, "unknown field")


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
    sources = tuple(_origin(each) for each in top.tables("sources")) if top.has("sources") else ()
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
        sources=sources,
    )
    names = {each.name for each in sources}
    for action, cost in calibration.steps.items():
        if cost.taken_from is not None and cost.taken_from not in names:
            raise MalformedInputError(what, f"steps.{action}.taken_from: no such name in sources")
    for table in (record, steps, top):
        table.done()
    return calibration


def _origin(table: Table) -> Origin:
    origin = Origin(
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
        points = tuple(_point(each) for each in table.tables("points"))
        if not points:
            raise table.bad("points", "expected at least one")
        for i, (left, right) in enumerate(pairwise(points)):
            if left.vcpus >= right.vcpus:
                raise table.bad(f"points[{i + 1}].vcpus", "expected ascending vcpus")
    else:
        beyond = Beyond.HOLD
        points = (Point(1, read_span(table)),)
    table.done()
    return StepCost(
        points=points,
        beyond=beyond,
        provenance=provenance,
        source=source,
        stand_in=stand_in,
        taken_from=taken_from,
    )


def _point(table: Table) -> Point:
    point = Point(table.integer("vcpus", 1), read_span(table))
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
        clearing=table.choice("clearing", Clearing),
        vcpus=table.integer("vcpus", 1),
        memory_bytes=table.integer("memory_bytes", PAGE_BYTES),
        seconds=table.number("seconds"),
        source=table.text("source"),
    )
    table.done()
    return row
