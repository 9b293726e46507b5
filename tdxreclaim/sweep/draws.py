"""Trials: what each of them is, by its index alone.

A trial's draws are a hash of the seed and its index: the same in every version
of Python, on every machine, in whatever order and on whatever engine trials are
run.  Each axis has a draw of its own, so that varying one thing more moves no
other.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import islice
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from tdxreclaim.sweep.axes import DRAW_BITS
from tdxreclaim.sweep.kinds import KINDS, Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tdxreclaim.sweep.plan import SweepPlan
    from tdxreclaim.units import Share

_BLOCK = Struct("<8Q")
_INDEX = Struct("<QH")
# The draws of costs come after those of any axes there will ever be.
_COSTS = 16


class Draws:
    """The draws of a sweep."""

    def __init__(self, seed: int) -> None:
        self._key = seed.to_bytes(8, "little")

    def block(self, trial: int, number: int) -> tuple[int, ...]:
        """Return eight draws, numbers of `DRAW_BITS`."""
        data = _INDEX.pack(trial, number)
        digest = blake2b(data, digest_size=64, key=self._key, person=b"tdxreclaim sweep")
        return _BLOCK.unpack(digest.digest())

    def costs(self, trial: int, count: int) -> list[int]:
        """Return the draws for so many steps."""
        drawn: list[int] = []
        while len(drawn) < count:
            drawn += self.block(trial, _COSTS + len(drawn) // _BLOCK_SIZE)
        return drawn[:count]


_BLOCK_SIZE = DRAW_BITS // 8


class Size(NamedTuple):
    """How large a TD is."""

    memory_bytes: int
    mapped: Share
    vcpus: int

    @property
    def mapped_bytes(self) -> int:
        """Private memory that is mapped."""
        return self.mapped.of(self.memory_bytes)


class Asked(NamedTuple):
    """A host as a plan names it."""

    cpu: str | None
    kernel: str | None
    order: str
    clear: str


class Priced(NamedTuple):
    """How the calibration is taken."""

    cause: str
    cost: str


class Faults(NamedTuple):
    """What goes wrong: numbers of pages, and whether the TD is FATAL."""

    busy: int
    reclaim_fails: int
    fatal: int


class Load(NamedTuple):
    """What else a drain depends on."""

    tds: int | None
    at_once: int | str
    cpus: int | None
    bandwidth: int | None


class Trial(NamedTuple):
    """What is asked in one trial: the values of the axes, in the order of `KINDS`."""

    td: Size
    host: Asked
    priced: Priced
    faults: Faults
    load: Load


class Trials:
    """The trials of a plan, by their index."""

    def __init__(self, plan: SweepPlan) -> None:
        self._drawn = plan.drawn
        self._draws = Draws(plan.seed)
        self._fixed: list[Value] = [plan.values(name)[0] for name in KINDS]
        self._axes = plan.varied
        self._places = [axis.place for axis in self._axes]
        self._blocks = sorted({place // _BLOCK_SIZE for place in self._places})

    def at(self, index: int) -> tuple[Trial, Sequence[int]]:
        """Return a trial, and where on each axis that is varied it is: a draw, or a value's number."""
        values = list(self._fixed)
        where = self._draw(index) if self._drawn else self._digits(index)
        for axis, place, each in zip(self._axes, self._places, where, strict=True):
            values[place] = axis.at(each) if self._drawn else axis.values[each]
        return _trial(iter(values)), where

    def _draw(self, index: int) -> list[int]:
        drawn = {number: self._draws.block(index, number) for number in self._blocks}
        return [drawn[place // _BLOCK_SIZE][place % _BLOCK_SIZE] for place in self._places]

    def _digits(self, index: int) -> list[int]:
        """The index in mixed radix."""
        digits = []
        for axis in reversed(self._axes):
            index, digit = divmod(index, len(axis.values))
            digits.append(digit)
        return digits[::-1]

    def cost_draws(self, index: int, count: int) -> list[int]:
        """Return the draws for the costs of so many steps."""
        return self._draws.costs(index, count)


def _trial(values: Iterator[Any]) -> Trial:
    return Trial._make(part._make(islice(values, len(part._fields))) for part in _PARTS)


_PARTS = (Size, Asked, Priced, Faults, Load)
