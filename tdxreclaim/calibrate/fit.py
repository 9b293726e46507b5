"""What a page costs on a host, out of the shutdowns that were timed there.

A shutdown's time is a page's cost times its pages, plus what does not depend on
them, which is small and as in the base.  For each cause that may drive a page's
cost (nothing, vCPUs, memory) `fit` solves for one cost, by least squares of the
relative errors.  The steps of a page share it as in the base: rows tell no more
than the sum.

Numbers are floats here: they end as integer nanoseconds, with a range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple, assert_never

from tdxreclaim.costs.calibration import Beyond, Calibration, Origin, Point, Provenance, StepCost
from tdxreclaim.costs.estimate import estimate
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLANS, Order
from tdxreclaim.engine.shape import Shape
from tdxreclaim.errors import MalformedInputError
from tdxreclaim.tables.teardown import Action, Phase
from tdxreclaim.units import PAGE_BYTES, Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tdxreclaim.calibrate.observations import Observed
    from tdxreclaim.costs.calibration import Row

_PAGE_STEPS = (Action.BLOCK, Action.TRACK, Action.KICK, Action.REMOVE, Action.WBINVD)


_PLAN = next(plan for plan in PLANS.values() if plan.order is Order.UPSTREAM)


# A cause is not excluded by rows that it misses by this much, or by twice what
# the best cause misses.
_SCATTER = 0.03


_BETTER = 2.0


# Shutdowns that no cause brings closer than this are not explained.
_EXPLAINED = 0.15


# An outlier is off by more than this, and by this many times what the rest is.
_OUTLIER_ERROR = 0.05


_OUTLIER_TIMES = 6.0


_SLACK = 0.002


# Of fewer rows nobody can say which one is wrong.
_FEWEST = 4


# Leaving out each of very many rows in turn takes too long: the worst ones will do.
_MOST_SUSPECTS = 40


# A column this much of which is not in the others' span is their combination.
_DEPENDENT = 1e-3


class Cause(StrEnum):
    """What the cost of a page may grow with."""

    NOTHING = "nothing"
    VCPUS = "vcpus"
    MEMORY = "memory"

    def amount(self, row: Row) -> float:
        """How much of it a shutdown had: vCPUs, or GiB."""
        match self:
            case Cause.NOTHING:
                return 0.0
            case Cause.VCPUS:
                return row.vcpus
            case Cause.MEMORY:
                return row.memory_bytes / 2**30
            case _:
                assert_never(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """What a page costs if one cause drives it."""

    cause: Cause
    page_ns: float
    """Without the clear, at the least amount of the cause that was seen."""
    growth_ns: float
    """What each further vCPU or GiB adds; 0 of NOTHING."""
    clear_ns: float
    clear_told: bool
    """Whether the rows tell the clear; else it is the base's."""
    least: float
    """The least amount of the cause that was seen."""
    worst: float
    """The largest relative error of the rows that it was made of."""
    rms: float
    left_over: int
    """Rows less unknown costs; 0: nothing is left to check it with."""

    def seconds(self, timed: _Timed) -> float:
        """What it makes of a shutdown."""
        page = self.page_ns + self.growth_ns * (self.cause.amount(timed.row) - self.least)
        page += self.clear_ns * timed.clears
        return (page * timed.pages + timed.rest_ns) / 1e9

    def error(self, timed: _Timed) -> float:
        """What it is off by."""
        return self.seconds(timed) / timed.row.seconds - 1


class Undetermined(NamedTuple):
    """What the rows cannot tell, and why."""

    what: str
    why: str


class Residual(NamedTuple):
    """A shutdown beside what the fit makes of it."""

    observed: Observed
    fitted_seconds: float
    outlier: bool

    @property
    def error(self) -> float:
        """Fitted over observed, less one."""
        return self.fitted_seconds / self.observed.row.seconds - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What came out."""

    calibration: Calibration
    """The steps of a page; the others have to come from elsewhere."""
    page: Span
    """What a page cost over all rows that were used, nanoseconds."""
    causes: tuple[Explanation, ...]
    """Those that the rows do not exclude; the first one was used."""
    excluded: tuple[Explanation, ...]
    undetermined: tuple[Undetermined, ...]
    residuals: tuple[Residual, ...]

    @property
    def used(self) -> Explanation:
        """The explanation that the calibration is made of."""
        return self.causes[0]

    @property
    def outlier(self) -> Residual | None:
        """The row that was left out."""
        return next((each for each in self.residuals if each.outlier), None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against using it."""
        if self.used.worst <= _EXPLAINED:
            return ()
        off = f"no cause explains these shutdowns: the best is {self.used.worst:.0%} off"
        return (
            f"{off}. Are memory, vCPUs and kernel right, and were the TDs shut down one at a time?",
        )


class _Timed(NamedTuple):
    """A shutdown as the cost of a page."""

    row: Row
    rest_ns: int
    """What it spent after its guest pages, by the base."""

    @property
    def pages(self) -> int:
        return self.row.memory_bytes // PAGE_BYTES

    @property
    def clears(self) -> bool:
        return self.row.clearing.clears(erratum=False)

    @property
    def page_ns(self) -> float:
        """The clear included."""
        return (self.row.seconds * 1e9 - self.rest_ns) / self.pages


def fit(
    observed: Sequence[Observed], base: Calibration, *, origin: Origin, margin: float = 0.01
) -> Fit:
    """Solve for what a page costs; what is not of a page is as in *base*.

    One row is left out if without it the others fit and it is far off.  Rows of
    an order that no release has are not used.  *margin* is the least range that
    a page's cost gets, as a share of it.

    Raises:
        MalformedInputError: no row is of an order that a release has, or one
            is shorter than what does not depend on its pages.
    """
    given = [each for each in observed if each.row.order is Order.UPSTREAM]
    if not given:
        raise MalformedInputError(origin.name, "rows: none in the order of a release (upstream)")
    clear = base.steps[Action.CLEAR].at(1).likely_ns
    rows = [_Timed(each.row, rest_ns(each.row, base)) for each in given]
    for each, timed in zip(given, rows, strict=True):
        if timed.page_ns <= clear * timed.clears:
            why = f"{each.where}.seconds: less than what this takes beside its pages"
            raise MalformedInputError(origin.name, why)
    outlier = _find_outlier(rows, clear)
    used = [timed for number, timed in enumerate(rows) if number != outlier]
    possible, excluded = _causes(used, clear)
    costs = sorted(round(each.page_ns) for each in used)
    return Fit(
        calibration=_calibration(used, possible, base, origin, margin),
        page=Span(costs[0], costs[len(costs) // 2], costs[-1]),
        causes=possible,
        excluded=excluded,
        undetermined=tuple(_undetermined(used, possible)),
        residuals=tuple(
            Residual(each, possible[0].seconds(timed), number == outlier)
            for number, (each, timed) in enumerate(zip(given, rows, strict=True))
        ),
    )


def rest_ns(row: Row, base: Calibration) -> int:
    """Return what a shutdown spends after its guest pages, by *base*."""
    whole = estimate(
        Shape(memory_bytes=row.memory_bytes, vcpus=row.vcpus),
        _PLAN.with_clearing(row.clearing),
        Platform(erratum=False),
        base,
    )
    return sum(whole.phase(each).likely_ns for each in (Phase.HKID, Phase.CONTROL_PAGES))


def _explain(cause: Cause, rows: Sequence[_Timed], clear_ns: float) -> Explanation | None:
    """Solve for one cause; None: the rows do not tell its costs apart."""
    least = min(cause.amount(timed.row) for timed in rows)
    told = len({timed.clears for timed in rows}) > 1
    columns = [[1.0 for _ in rows]]
    if told:
        columns.append([float(timed.clears) for timed in rows])
    if cause is not Cause.NOTHING:
        columns.append([cause.amount(timed.row) - least for timed in rows])
    # Relative errors of the whole time: what is known already weighs too.
    weights = [timed.pages / (timed.row.seconds * 1e9) for timed in rows]
    wanted = [timed.page_ns - (0 if told else clear_ns * timed.clears) for timed in rows]
    values = _least_squares(
        [_weigh(weights, column) for column in columns], _weigh(weights, wanted)
    )
    if values is None:
        return None
    found = Explanation(
        cause=cause,
        page_ns=values[0],
        growth_ns=0.0 if cause is Cause.NOTHING else values[-1],
        clear_ns=values[1] if told else clear_ns,
        clear_told=told,
        least=least,
        worst=0.0,
        rms=0.0,
        left_over=len(rows) - len(columns),
    )
    errors = [found.error(timed) for timed in rows]
    rms = sqrt(sum(each * each for each in errors) / max(found.left_over, 1))
    return replace(found, worst=max(map(abs, errors)), rms=rms)


def _weigh(weights: Sequence[float], column: Sequence[float]) -> list[float]:
    return [a * b for a, b in zip(weights, column, strict=True)]


def _causes(
    rows: Sequence[_Timed], clear_ns: float
) -> tuple[tuple[Explanation, ...], tuple[Explanation, ...]]:
    """Return the causes that the rows leave possible, the one to use first, and the others."""
    found = (_explain(cause, rows, clear_ns) for cause in Cause)
    solved = [each for each in found if each is not None]
    # A cost that falls is no cause; that nothing grows always is one.
    sound = [each for each in solved if min(each.growth_ns, each.page_ns, each.clear_ns) >= 0]
    sound = sound or solved[:1]
    enough = max(_SCATTER, _BETTER * min(each.worst for each in sound))
    possible = [each for each in sound if each.worst <= enough]
    possible.sort(key=lambda each: (each.cause is not Cause.NOTHING, each.rms))
    return tuple(possible), tuple(each for each in solved if each not in possible)


def _find_outlier(rows: Sequence[_Timed], clear_ns: float) -> int | None:
    whole = _causes(rows, clear_ns)[0][0]
    if whole.worst <= _OUTLIER_ERROR or len(rows) < _FEWEST:
        return None
    suspects = sorted(range(len(rows)), key=lambda number: -abs(whole.error(rows[number])))
    found: list[tuple[float, int]] = []
    for number in suspects[:_MOST_SUSPECTS]:
        rest = [timed for other, timed in enumerate(rows) if other != number]
        best = _causes(rest, clear_ns)[0][0]
        off, usual = abs(best.error(rows[number])), max(best.rms, _SLACK)
        if best.left_over and off > max(_OUTLIER_ERROR, _OUTLIER_TIMES * usual):
            found.append((off / usual, number))
    return max(found)[1] if found else None


def _undetermined(
    rows: Sequence[_Timed], possible: Sequence[Explanation]
) -> Iterator[Undetermined]:
    for cause, name in ((Cause.VCPUS, "vCPUs"), (Cause.MEMORY, "memory")):
        if len({cause.amount(timed.row) for timed in rows}) == 1:
            why = f"all of these had the same {name}: time one with other {name}"
            yield Undetermined(f"whether a page costs more with {name}", why)
    if len(possible) > 1 and possible[0].cause is not Cause.NOTHING:
        yield Undetermined(
            f"whether {' or '.join(each.cause for each in possible)} makes a page dearer",
            "both grow together here: time two TDs of one size with different vCPUs",
        )
    if not possible[0].clear_told:
        kind = "clear" if rows[0].clears else "do not clear"
        why = f"all of these {kind}: time one under a kernel of the other kind, or calibrate clear"
        yield Undetermined("the clear", why)
    yield Undetermined(
        "how the steps of a page share its cost", "a shutdown tells the sum: calibrate trace"
    )


def _calibration(
    rows: Sequence[_Timed],
    possible: Sequence[Explanation],
    base: Calibration,
    origin: Origin,
    margin: float,
) -> Calibration:
    best = possible[0]
    assumptions = [
        "all of a TD's memory was private and mapped, and TDs were shut down one at a time",
        "how the steps of a page share its cost: only the sum was measured",
    ]
    if best.cause is not Cause.NOTHING:
        others = ", ".join(each.cause for each in possible[1:])
        also = f"; {others} would explain these shutdowns too" if others else ""
        assumptions.append(f"a page's cost grows with {best.cause}{also}")
    source = (
        f"{len(rows)} timed shutdown{'s' if len(rows) > 1 else ''}; the split among the steps is "
        f"as in {base.name}"
    )
    return Calibration(
        **origin._asdict(),
        assumptions=tuple(assumptions),
        leaves_out=(),
        steps={
            action: StepCost(
                points=points,
                beyond=Beyond.RISE if len(points) > 1 else Beyond.HOLD,
                provenance=Provenance.DERIVED,
                source=source,
            )
            for action, points in _points(rows, best, base, margin).items()
        },
        rows=tuple(timed.row for timed in rows),
    )


def _points(
    rows: Sequence[_Timed], best: Explanation, base: Calibration, least_margin: float
) -> dict[Action, tuple[Point, ...]]:
    """The base's shares of what a page costs here; what grows is put into the kick."""
    # Whole seconds were rounded.
    rounded = [0.5 / row.seconds for row, *_ in rows if row.seconds == int(row.seconds)]
    margin = max(best.worst, least_margin, *rounded)
    fewest = min(timed.row.vcpus for timed in rows)
    shares = {action: base.steps[action].at(fewest).likely_ns for action in _PAGE_STEPS}
    scale = best.page_ns / sum(shares.values())
    costs = {action: {1: [share * scale]} for action, share in shares.items()}
    if best.clear_told:
        costs[Action.CLEAR] = {1: [best.clear_ns]}
    if best.growth_ns:
        (kick,) = costs[Action.KICK].pop(1)
        for timed in rows:
            more = best.growth_ns * (best.cause.amount(timed.row) - best.least)
            costs[Action.KICK].setdefault(timed.row.vcpus, []).append(kick + more)
    return {
        action: tuple(
            Point(
                vcpus,
                Span(
                    round(min(each) * max(0, 1 - margin)),
                    round(sum(each) / len(each)),
                    round(max(each) * (1 + margin)),
                ),
            )
            for vcpus, each in sorted(costs[action].items())
        )
        for action in Action
        if action in costs
    }


def _least_squares(
    columns: Sequence[Sequence[float]], wanted: Sequence[float]
) -> list[float] | None:
    """Return the coefficients; None: the columns do not tell them apart."""
    units: list[list[float]] = []
    upper: list[list[float]] = []
    for column in columns:
        left, parts = list(column), []
        for unit in units:
            parts.append(_dot(unit, left))
            left = [a - parts[-1] * b for a, b in zip(left, unit, strict=True)]
        size = sqrt(_dot(left, left))
        if size <= _DEPENDENT * sqrt(_dot(column, column)):
            return None
        units.append([each / size for each in left])
        upper.append([*parts, size])
    found = [_dot(unit, wanted) for unit in units]
    for number in reversed(range(len(found))):
        found[number] /= upper[number][number]
        for above in range(number):
            found[above] -= upper[number][above] * found[number]
    return found


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
