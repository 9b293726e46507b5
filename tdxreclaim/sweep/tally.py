"""What trials come to, in numbers that add up: no order of adding them matters.

Times are counted by the scale of `step_of`: 1024 steps from a power of two to
the next, so that a quantile is right to 0.1 % and memory does not grow with the
number of trials.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from copy import copy
from fractions import Fraction
from itertools import pairwise
from math import ceil, isqrt
from operator import add
from typing import TYPE_CHECKING, Any

from tdxreclaim.sweep.axes import DRAW_BITS, Axis
from tdxreclaim.units import Span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.sweep.plan import SweepPlan
    from tdxreclaim.sweep.trials import Outcome

STEP_BITS = 10
_STEPS = 1 << STEP_BITS

_MOST_LISTED = 64
"""Values of an axis that are told apart; of more, or of a range, so many parts."""

_PARTS = 16


def step_of(value: int) -> int:
    """Return where a number is on a scale that is a logarithm's, straight between powers of two.

    >>> [step_of(n) for n in (0, 1, 2, 3, 4)]
    [0, 1024, 2048, 2560, 3072]
    """
    length = value.bit_length()
    shift = length - 1 - STEP_BITS
    head = value >> shift if shift >= 0 else value << -shift
    return (length << STEP_BITS) + head - _STEPS if value else 0


def least_of(step: int) -> int:
    """Return the least number at a step.

    >>> all(least_of(step_of(n)) == n for n in range(2048))
    True
    """
    if step < _STEPS:
        return 0
    length, rest = divmod(step, _STEPS)
    shift = length - 1 - STEP_BITS
    head = _STEPS + rest
    return head << shift if shift >= 0 else -(-head >> -shift)


def greatest_of(step: int) -> int:
    """Return the greatest number at a step."""
    return max(0, least_of(step + 1) - 1) if step else 0


class Bins:
    """Parts of an axis that are told apart."""

    def __init__(self, axis: Axis, *, drawn: bool) -> None:
        few = 0 < len(axis.values) <= _MOST_LISTED
        self.count = len(axis.values) if few else _PARTS
        self._whole = 1 << DRAW_BITS if drawn else len(axis.values)

    def at(self, where: int) -> int:
        """Return the part of a draw, or of the number of a value."""
        return where * self.count // self._whole


class MemoryBins:
    """Sizes of memory that are told apart: each that is listed, or parts of the range."""

    def __init__(self, plan: SweepPlan) -> None:
        self.sizes = sorted(plan.numbers("memory"))
        self._edges = self.sizes
        axis = next(axis for axis in plan.axes if axis.name == "memory")
        self.listed = not axis.is_range and len(self.sizes) <= _MOST_LISTED
        if not self.listed:
            edges = [self.sizes[0], self.sizes[-1] + 1]
            while len(edges) <= _PARTS:
                # Each is as many times the one before it.
                edges = sorted((*edges, *(isqrt(a * b) for a, b in pairwise(edges))))
            self._edges = edges[:-1]
            self.sizes = [isqrt(a * b) for a, b in pairwise(edges)]

    def at(self, memory_bytes: int) -> int:
        """Return the number of a size's part."""
        return bisect_right(self._edges, memory_bytes) - 1


class Times:
    """Times of trials that belong together, by their steps."""

    def __init__(self) -> None:
        self.parts: tuple[Counter[int], ...] = (Counter(), Counter(), Counter())
        """Of the low, likely and high ends of the ranges."""
        self.least_ns = self.most_ns = 0
        """The lowest low and the highest high."""

    @property
    def trials(self) -> int:
        """How many there are."""
        return self.parts[0].total()

    def add(self, time: Span, steps: Iterable[int]) -> None:
        """Count a trial, whose times are at these steps."""
        self._widen(time.low_ns, time.high_ns)
        for part, step in zip(self.parts, steps, strict=True):
            part[step] += 1

    def merge(self, other: Times) -> None:
        """Count the trials of another."""
        if other.trials:
            self._widen(other.least_ns, other.most_ns)
            for part, more in zip(self.parts, other.parts, strict=True):
                part.update(more)

    def _widen(self, least_ns: int, most_ns: int) -> None:
        self.least_ns = min(self.least_ns, least_ns) if self.trials else least_ns
        self.most_ns = max(self.most_ns, most_ns)

    def quantile(self, percent: float) -> Span:
        """Return the range that so many percent of the trials are not above.

        Of each part of the ranges by itself; rounded outwards by up to 0.1 %.
        """
        low, likely, high = (_at_rank(part, percent) for part in self.parts)
        return Span(
            max(least_of(low), self.least_ns),
            least_of(likely),
            min(greatest_of(high), self.most_ns),
        )


def _at_rank(steps: Counter[int], percent: float) -> int:
    rank = max(1, ceil(Fraction(percent) * steps.total() / 100))
    for step in sorted(steps):
        rank -= steps[step]
        if rank <= 0:
            return step
    raise ValueError("no trials")


class Tally:
    """What all trials come to."""

    def __init__(self, plan: SweepPlan) -> None:
        self._bins = [Bins(axis, drawn=plan.drawn) for axis in plan.varied]
        self._memory = MemoryBins(plan)
        self.times: dict[tuple[int, int], Times] = {}
        """By number of policy and part of memory."""
        self.outside = 0
        """Trials outside what the calibration timed."""
        self.width = 0
        """Steps from low to high, added up."""
        self.sum = self.square = 0
        """Steps of likely times, and their squares, added up."""
        self.axes = [[[0, 0] for _ in range(bins.count)] for bins in self._bins]
        """By axis that is varied and part of it: trials, and their steps added up."""

    def add(self, policy: int, outcome: Outcome) -> None:
        """Count a trial."""
        low, likely, high = steps = tuple(map(step_of, outcome.time))
        key = policy, self._memory.at(outcome.trial.td.memory_bytes)
        times = self.times.get(key)
        if times is None:
            times = self.times[key] = Times()
        times.add(outcome.time, steps)
        self.outside += outcome.outside
        self.width += high - low
        self.sum += likely
        self.square += likely * likely
        for parts, bins, where in zip(self.axes, self._bins, outcome.where, strict=True):
            part = parts[bins.at(where)]
            part[0] += 1
            part[1] += likely

    def merge(self, other: Tally) -> None:
        """Count the trials of another tally of the same plan."""
        for key, times in other.times.items():
            self.times.setdefault(key, Times()).merge(times)
        self.outside += other.outside
        self.width += other.width
        self.sum += other.sum
        self.square += other.square
        for ours, theirs in zip(self.axes, other.axes, strict=True):
            for part, more in zip(ours, theirs, strict=True):
                part[:] = map(add, part, more)

    @property
    def trials(self) -> int:
        """How many were counted."""
        return sum(times.trials for times in self.times.values())

    def shares(self) -> list[float]:
        """Return how much of the spread of (the logarithm of) the times each varied axis explains.

        The variance between its parts over all variance, 0 to 1; what axes do
        together is left over.
        """
        trials = self.trials
        centre = Fraction(self.sum * self.sum, trials)
        spread = self.square - centre
        if not spread:
            return [0.0] * len(self.axes)
        return [
            float((sum(Fraction(s * s, n) for n, s in parts if n) - centre) / spread)
            for parts in self.axes
        ]

    def write(self) -> dict[str, Any]:
        """Return it as what JSON is made of."""
        return {
            "outside": self.outside,
            "width": self.width,
            "sum": self.sum,
            "square": self.square,
            "axes": self.axes,
            "times": [
                [*key, times.least_ns, times.most_ns, *(sorted(p.items()) for p in times.parts)]
                for key, times in sorted(self.times.items())
            ],
        }

    def read(self, written: dict[str, Any]) -> None:
        """Count what was written of the same plan."""
        other = copy(self)
        other.outside, other.width = written["outside"], written["width"]
        other.sum, other.square = written["sum"], written["square"]
        other.axes, other.times = written["axes"], {}
        for policy, size, least_ns, most_ns, *parts in written["times"]:
            times = other.times[policy, size] = Times()
            times.parts = tuple(Counter(dict(part)) for part in parts)
            times.least_ns, times.most_ns = least_ns, most_ns
        self.merge(other)
