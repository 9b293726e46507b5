"""What a page costs on a host, out of the shutdowns that were timed there.

A shutdown's time is a page's cost times its pages, plus what does not depend on
them, which is small and as in the base.  For each cause that may drive a page's
cost (nothing, vCPUs, memory) `fit` solves for one cost, by least squares of the
relative errors.  The steps of a page share it as in the base: rows tell no more
than the sum.  A cause that the rows leave open stays open: its curve is the
base's, through these rows.

Numbers are floats here: they end as integer nanoseconds, with a range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple, assert_never

from tdxreclaim.costs.calibration import (
    Beyond,
    Calibration,
    Cause,
    Origin,
    Point,
    Provenance,
    StepCost,
)
from tdxreclaim.costs.estimate import estimate
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLANS, Order
from tdxreclaim.engine.shape import Shape
from tdxreclaim.errors import MalformedInputError
from tdxreclaim.tables.teardown import Action, Phase
from tdxreclaim.units import PAGE_BYTES, Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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


# A curve is one from so many points on.
_LEAST_OF_A_CURVE = 2


_GIB = 1 << 30


# A column this much of which is not in the others' span is their combination.
_DEPENDENT = 1e-3


def _amount(cause: Cause, row: Row) -> float:
    """How much of a cause a shutdown had: vCPUs, or GiB."""
    match cause:
        case Cause.NOTHING:
            return 0.0
        case Cause.VCPUS:
            return row.vcpus
        case Cause.MEMORY:
            return row.memory_bytes / _GIB
        case _:
            assert_never(cause)


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
        page = self.page_ns + self.growth_ns * (_amount(self.cause, timed.row) - self.least)
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
    least = min(_amount(cause, timed.row) for timed in rows)
    told = len({timed.clears for timed in rows}) > 1
    columns = [[1.0 for _ in rows]]
    if told:
        columns.append([float(timed.clears) for timed in rows])
    if cause is not Cause.NOTHING:
        columns.append([_amount(cause, timed.row) - least for timed in rows])
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
        if len({_amount(cause, timed.row) for timed in rows}) == 1:
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
    curves = _curves(rows, possible, base)
    assumptions = [
        "all of a TD's memory was private and mapped, and TDs were shut down one at a time",
        "how the steps of a page share its cost: only the sum was measured",
        *_said_of(curves, base),
    ]
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
                grows_with=tuple(curves) if len(points) > 1 else (Cause.VCPUS,),
                provenance=Provenance.DERIVED,
                source=source,
            )
            for action, points in _points(rows, best, curves, base, margin).items()
        },
        rows=tuple(timed.row for timed in rows),
        fitted=len(rows) - best.left_over,
    )


class _Curve(NamedTuple):
    """What a page costs without its clear, in ns, at amounts of a cause."""

    costs: Mapping[int, float]
    measured: bool
    """Whether its shape was; else it is the base's, through these rows."""


def _curves(
    rows: Sequence[_Timed], possible: Sequence[Explanation], base: Calibration
) -> dict[Cause, _Curve]:
    """The causes that these rows leave open, each with what a page costs by it.

    One cause drives the cost.  What the rows varied and what made nothing
    dearer is out, unless it would by the base's shape have gone unnoticed; what
    they did not vary is out where another cause explains them.
    """
    by_cause = {each.cause: each for each in possible}
    enough = max(_SCATTER, _BETTER * possible[0].worst)
    found = {}
    for cause in (Cause.VCPUS, Cause.MEMORY):
        varied = len({_amount(cause, timed.row) for timed in rows}) > 1
        line = by_cause.get(cause)
        if Cause.NOTHING not in by_cause:
            if varied and line is not None:
                found[cause] = _Curve(_line(rows, line), measured=True)
            continue
        costs, worst = _scaled(rows, cause, possible[0].clear_ns, base)
        if costs and worst <= enough:
            found[cause] = _Curve(costs, measured=False)
    return found


def _line(rows: Sequence[_Timed], line: Explanation) -> dict[int, float]:
    return {
        _exact(line.cause, timed.row): line.page_ns
        + line.growth_ns * (_amount(line.cause, timed.row) - line.least)
        for timed in rows
    }


def _scaled(
    rows: Sequence[_Timed], cause: Cause, clear_ns: float, base: Calibration
) -> tuple[dict[int, float], float]:
    """The base's curve of a cause through these rows, and by how much it misses them.

    Empty where the base has no such curve.
    """
    steps = [base.steps[action] for action in _PAGE_STEPS]
    amounts = {point.amount(cause) for step in steps for point in step.points} - {None}
    known = sorted(each for each in amounts if each is not None)
    if len(known) < _LEAST_OF_A_CURVE:
        return {}, 0.0

    def page(amount: int) -> float:
        at = min(amount, known[-1])
        costs = (step.at(at, at, cause=cause) for step in steps)
        return float(sum(cost.likely_ns for cost in costs))

    shape = [page(_exact(cause, timed.row)) for timed in rows]
    wanted = [timed.page_ns - clear_ns * timed.clears for timed in rows]
    weights = [timed.pages / (timed.row.seconds * 1e9) for timed in rows]
    left, right = _weigh(weights, shape), _weigh(weights, wanted)
    factor = _dot(left, right) / _dot(left, left)
    worst = max(abs(factor * a - b) for a, b in zip(left, right, strict=True))
    return {amount: factor * page(amount) for amount in known}, worst


def _exact(cause: Cause, row: Row) -> int:
    return row.memory_bytes if cause is Cause.MEMORY else row.vcpus


def _said_of(curves: Mapping[Cause, _Curve], base: Calibration) -> Iterator[str]:
    if not curves:
        return
    names = " or ".join(cause.label for cause in curves)
    shape = "" if all(each.measured for each in curves.values()) else f", as in {base.name}"
    yield f"a page's cost grows with {names}{shape}: these shutdowns leave that open"


def _points(
    rows: Sequence[_Timed],
    best: Explanation,
    curves: Mapping[Cause, _Curve],
    base: Calibration,
    least_margin: float,
) -> dict[Action, tuple[Point, ...]]:
    """What a page costs, in the base's shares: by each cause that is open, or once."""
    # Whole seconds were rounded.
    rounded = [0.5 / row.seconds for row, *_ in rows if row.seconds == int(row.seconds)]
    margin = max(best.worst, least_margin, *rounded)

    def point(vcpus: int | None, cost: float, memory_bytes: int | None = None) -> Point:
        low, high = cost * max(0, 1 - margin), cost * (1 + margin)
        return Point(vcpus, Span(round(low), round(cost), round(high)), memory_bytes)

    shares = {action: base.steps[action].points[0].cost.likely_ns for action in _PAGE_STEPS}
    whole = sum(shares.values())
    found = {}
    for action, share in shares.items():
        each = share / whole
        points = []
        if Cause.MEMORY in curves:
            costs = curves[Cause.MEMORY].costs
            points += [point(None, costs[size] * each, size) for size in sorted(costs)]
        if Cause.VCPUS in curves:
            costs = curves[Cause.VCPUS].costs
            points += [point(vcpus, costs[vcpus] * each) for vcpus in sorted(costs)]
        found[action] = tuple(points) or (point(1, best.page_ns * each),)
    if best.clear_told:
        found[Action.CLEAR] = (point(1, best.clear_ns),)
    return found


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
