"""An axis of a plan: a list of values, or a range that random draws fall into."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.errors import UsageError
from tdxreclaim.sweep.kinds import KINDS, NO_AXIS, Value, WrongValueError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.costs.toml import Table

DRAW_BITS = 64
"""A draw is a number of so many bits."""

MOST_VALUES = 1000
"""Values of one axis that are listed, or steps of its range."""

_REST = (1 << DRAW_BITS) - 1
# A logarithmic range is of so many straight pieces.
_PIECES = 256
# Numbers on the edges of pieces have so many binary places.
_PLACES = 20
_LINEAR, _LOG = "linear", "log"


class Axis(NamedTuple):
    """What one thing is varied over."""

    name: str
    values: tuple[Value, ...] = ()
    edges: tuple[int, ...] = ()
    """Of a range, which has no values: its pieces, each as likely as any other."""

    @property
    def place(self) -> int:
        """The number of its draw in a trial."""
        return list(KINDS).index(self.name)

    @property
    def varies(self) -> bool:
        """Whether it has more than one value."""
        return len(self.values) != 1

    @property
    def is_range(self) -> bool:
        """Whether its values are not listed."""
        return not self.values

    def at(self, draw: int) -> Value:
        """Return the value that a draw means."""
        if self.values:
            return self.values[draw * len(self.values) >> DRAW_BITS]
        place = draw * (len(self.edges) - 1)
        piece = place >> DRAW_BITS
        low, high = self.edges[piece], self.edges[piece + 1]
        number = low + ((high - low) * (place & _REST) >> DRAW_BITS)
        return KINDS[self.name].value(number >> _PLACES)

    def ends(self) -> tuple[Value, ...]:
        """Return all values of a list; the least and the greatest of a range."""
        return self.values or (self.at(0), self.at(_REST))


def read_axes(table: Table, *, drain: bool, grid: bool) -> tuple[Axis, ...]:
    """Read the axes of a plan, in the order of `KINDS`.

    Raises:
        MalformedInputError: one is missing, unknown or wrong; with its path.
    """
    found = []
    for name, kind in KINDS.items():
        if table.has(name):
            if kind.drain and not drain:
                raise table.bad(name, 'only with command = "drain"')
            found.append(_read_axis(table, name, grid=grid))
    for name, why in NO_AXIS.items():
        if table.has(name):
            raise table.bad(name, f"no axis: {why}")
    for name in ("memory", "vcpus", *(("tds",) if drain else ())):
        if all(axis.name != name for axis in found):
            raise table.bad(name, "missing, expected a value, a list of values or a range")
    table.done()
    return tuple(found)


def _read_axis(table: Table, name: str, *, grid: bool) -> Axis:
    value = table.take(name, "a value, a list of values or a range")
    if isinstance(value, dict):
        return _read_range(table.within(name, value), name, grid=grid)
    if not isinstance(value, list):
        return Axis(name, (_read(table, name, name, value),))
    if not 1 <= len(value) <= MOST_VALUES:
        raise table.bad(name, f"expected 1 to {MOST_VALUES} values")
    values = [_read(table, name, f"{name}[{i}]", each) for i, each in enumerate(value)]
    for i, each in enumerate(values):
        if each in values[:i]:
            raise table.bad(f"{name}[{i}]", "there twice")
    return Axis(name, tuple(values))


def _read(table: Table, name: str, field: str, value: object) -> Value:
    try:
        return KINDS[name].read(value)
    except WrongValueError as error:
        raise table.bad(field, str(error)) from error
    except UsageError as error:
        raise table.bad(field, error.why) from error


def _read_range(table: Table, name: str, *, grid: bool) -> Axis:
    first, last = (_number(table, name, end) for end in ("from", "to"))
    if first >= last:
        raise table.bad("to", "expected more than from")
    scale = table.text("scale") if table.has("scale") else _LINEAR
    if scale not in (_LINEAR, _LOG):
        raise table.bad("scale", f"expected one of {_LINEAR}, {_LOG}")
    if scale == _LOG and first == 0:
        raise table.bad("from", "expected more than 0 with a log scale")
    if grid and not table.has("steps"):
        raise table.bad("steps", "missing, a grid needs it (or give trials, for random draws)")
    steps = table.integer("steps", 2) if table.has("steps") else 0
    if steps > MOST_VALUES:
        raise table.bad("steps", f"expected up to {MOST_VALUES}")
    table.done()
    spread = _logarithmic if scale == _LOG else _straight
    if steps:
        half = 1 << _PLACES >> 1
        numbers = [edge + half >> _PLACES for edge in spread(first, last, steps - 1)]
        return Axis(name, tuple(map(KINDS[name].value, dict.fromkeys(numbers))))
    # Numbers are whole: the last one's chance is that of the stretch up to the next.
    pieces = _PIECES if scale == _LOG else 1
    return Axis(name, edges=tuple(spread(first, last + 1, pieces)))


def _number(table: Table, name: str, end: str) -> int:
    value = _read(table, name, end, table.take(end, "a value"))
    try:
        return KINDS[name].number(value)
    except WrongValueError as error:
        raise table.bad(end, str(error)) from error


def _straight(first: int, last: int, pieces: int) -> Iterator[int]:
    for i in range(pieces + 1):
        yield (first << _PLACES) + ((last - first << _PLACES) * i // pieces)


def _logarithmic(first: int, last: int, pieces: int) -> Iterator[int]:
    """Spread numbers evenly by their logarithms; Decimal is the same everywhere, float is not."""
    with localcontext(prec=50):
        low, high = Decimal(first).ln(), Decimal(last).ln()
        for i in range(pieces + 1):
            number = (low + (high - low) * i / pieces).exp() * (1 << _PLACES)
            yield int(number.to_integral_value())
