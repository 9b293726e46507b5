"""What may drive the cost of a page, solved for out of timed shutdowns.

For each cause one cost, by least squares of the relative errors.  Numbers are
floats here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple, assert_never

from tdxreclaim.costs.calibration import Calibration, CostCause
from tdxreclaim.costs.estimate import estimate
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLANS, Order
from tdxreclaim.engine.shape import Shape
from tdxreclaim.tables.teardown import Phase
from tdxreclaim.units import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdxreclaim.costs.calibration import Row

_PLAN = next(plan for plan in PLANS.values() if plan.order is Order.UPSTREAM)


# A cause is not excluded by rows that it misses by this much, or by twice what
# the best cause misses.
SCATTER = 0.03


BETTER = 2.0


# An outlier is off by more than this, and by this many times what the rest is.
_OUTLIER_ERROR = 0.05


_OUTLIER_TIMES = 6.0


_SLACK = 0.002


# Of fewer rows nobody can say which one is wrong.
_FEWEST = 4


# Leaving out each of very many rows in turn takes too long: the worst ones will do.
_MOST_SUSPECTS = 40


_GIB = 1 << 30


# A column this much of which is not in the others' span is their combination.
_DEPENDENT = 1e-3


def amount(cause: CostCause, row: Row) -> float:
    """How much of a cause a shutdown had: vCPUs, or GiB."""
    match cause:
        case CostCause.NOTHING:
            return 0.0
        case CostCause.VCPUS:
            return row.vcpus
        case CostCause.MEMORY:
            return row.memory_bytes / _GIB
        case _:
            assert_never(cause)


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """What a page costs if one cause drives it."""

    cause: CostCause
    page_ns: float
    """Without the clear, at the least amount of the cause that was seen."""
    growth_ns: float
    """What each further vCPU or GiB adds; 0 of NOTHING."""
    clear_ns: float
    clear_determined: bool
    """Whether the rows tell the clear; else it is the base's."""
    least: float
    """The least amount of the cause that was seen."""
    worst: float
    """The largest relative error of the rows that it was made of."""
    rms: float
    left_over: int
    """Rows less unknown costs; 0: nothing is left to check it with."""

    def seconds(self, timed: Timed) -> float:
        """What it makes of a shutdown."""
        page = self.page_ns + self.growth_ns * (amount(self.cause, timed.row) - self.least)
        page += self.clear_ns * timed.clears
        return (page * timed.pages + timed.rest_ns) / 1e9

    def error(self, timed: Timed) -> float:
        """What it is off by."""
        return self.seconds(timed) / timed.row.seconds - 1


class Timed(NamedTuple):
    """A shutdown as the cost of a page."""

    row: Row
    rest_ns: int
    """What it spent after its guest pages, by the base."""

    @property
    def pages(self) -> int:
        """Guest pages."""
        return self.row.memory_bytes // PAGE_BYTES

    @property
    def clears(self) -> bool:
        """Whether it cleared them."""
        return self.row.clearing.clears(erratum=False)

    @property
    def page_ns(self) -> float:
        """The clear included."""
        return (self.row.seconds * 1e9 - self.rest_ns) / self.pages


def rest_ns(row: Row, base: Calibration) -> int:
    """Return what a shutdown spends after its guest pages, by *base*."""
    whole = estimate(
        Shape(memory_bytes=row.memory_bytes, vcpus=row.vcpus),
        _PLAN.with_clearing(row.clearing),
        Platform(erratum=False),
        base,
    )
    return sum(whole.phase(each).likely_ns for each in (Phase.HKID, Phase.CONTROL_PAGES))


def _explain(cause: CostCause, rows: Sequence[Timed], clear_ns: float) -> Explanation | None:
    """Solve for one cause; None: the rows do not tell its costs apart."""
    least = min(amount(cause, timed.row) for timed in rows)
    both_kinds = len({timed.clears for timed in rows}) > 1
    columns = [[1.0 for _ in rows]]
    if both_kinds:
        columns.append([float(timed.clears) for timed in rows])
    if cause is not CostCause.NOTHING:
        columns.append([amount(cause, timed.row) - least for timed in rows])
    # Relative errors of the whole time: what is known already weighs too.
    weights = [timed.pages / (timed.row.seconds * 1e9) for timed in rows]
    wanted = [timed.page_ns - (0 if both_kinds else clear_ns * timed.clears) for timed in rows]
    values = _least_squares([weigh(weights, column) for column in columns], weigh(weights, wanted))
    if values is None:
        return None
    found = Explanation(
        cause=cause,
        page_ns=values[0],
        growth_ns=0.0 if cause is CostCause.NOTHING else values[-1],
        clear_ns=values[1] if both_kinds else clear_ns,
        clear_determined=both_kinds,
        least=least,
        worst=0.0,
        rms=0.0,
        left_over=len(rows) - len(columns),
    )
    errors = [found.error(timed) for timed in rows]
    rms = sqrt(sum(each * each for each in errors) / max(found.left_over, 1))
    return replace(found, worst=max(map(abs, errors)), rms=rms)


def weigh(weights: Sequence[float], column: Sequence[float]) -> list[float]:
    """Return each times its weight."""
    return [a * b for a, b in zip(weights, column, strict=True)]


def find_causes(
    rows: Sequence[Timed], clear_ns: float
) -> tuple[tuple[Explanation, ...], tuple[Explanation, ...]]:
    """Return the causes that the rows leave possible, the one to use first, and the others."""
    found = (_explain(cause, rows, clear_ns) for cause in CostCause)
    solved = [each for each in found if each is not None]
    # A cost that falls is no cause; that nothing grows always is one.
    sound = [each for each in solved if min(each.growth_ns, each.page_ns, each.clear_ns) >= 0]
    sound = sound or solved[:1]
    enough = max(SCATTER, BETTER * min(each.worst for each in sound))
    possible = [each for each in sound if each.worst <= enough]
    possible.sort(key=lambda each: (each.cause is not CostCause.NOTHING, each.rms))
    return tuple(possible), tuple(each for each in solved if each not in possible)


def find_outlier(rows: Sequence[Timed], clear_ns: float) -> int | None:
    """Return the one row without which the others fit and which is far off; None: there is none."""
    whole = find_causes(rows, clear_ns)[0][0]
    if whole.worst <= _OUTLIER_ERROR or len(rows) < _FEWEST:
        return None
    suspects = sorted(range(len(rows)), key=lambda number: -abs(whole.error(rows[number])))
    found: list[tuple[float, int]] = []
    for number in suspects[:_MOST_SUSPECTS]:
        rest = [timed for other, timed in enumerate(rows) if other != number]
        best = find_causes(rest, clear_ns)[0][0]
        off, usual = abs(best.error(rows[number])), max(best.rms, _SLACK)
        if best.left_over and off > max(_OUTLIER_ERROR, _OUTLIER_TIMES * usual):
            found.append((off / usual, number))
    return max(found)[1] if found else None


def _least_squares(
    columns: Sequence[Sequence[float]], wanted: Sequence[float]
) -> list[float] | None:
    """Return the coefficients; None: the columns do not tell them apart."""
    units: list[list[float]] = []
    upper: list[list[float]] = []
    for column in columns:
        left, parts = list(column), []
        for unit in units:
            parts.append(dot(unit, left))
            left = [a - parts[-1] * b for a, b in zip(left, unit, strict=True)]
        size = sqrt(dot(left, left))
        if size <= _DEPENDENT * sqrt(dot(column, column)):
            return None
        units.append([each / size for each in left])
        upper.append([*parts, size])
    found = [dot(unit, wanted) for unit in units]
    for number in reversed(range(len(found))):
        found[number] /= upper[number][number]
        for above in range(number):
            found[above] -= upper[number][above] * found[number]
    return found


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the sum of the products."""
    return sum(a * b for a, b in zip(one, other, strict=True))
