"""Step costs out of observed shutdowns, as far as those can tell them apart.

A shutdown's time is the sum over the steps of how often each is done
(`cost.step_counts`) times what it costs: linear in the costs.  `fit` solves for
them by least squares of the relative errors, and leaves a step at what is given
where the rows do not tell it from others, or from nothing.

Steps that are always done equally often (the five of a guest page in the
upstream order) are one unknown: their sum.  One wild row is found by leaving
out each in turn: without it the others fit, and it is far off.

Numbers are floats here: they end as integer nanoseconds, with a range.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.costs.calibration import Beyond, Calibration, Point, Provenance, Row, StepCost
from tdxreclaim.costs.estimate import step_counts
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLANS, Action, Clearing, Order
from tdxreclaim.units import Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdxreclaim.calibrate.observations import Observation, Observations

_NS = 1e9


# A column this much of which is not in the others' span counts as their sum.
_DEPENDENT = 1e-4


# A part of a step's time below this is not worth a name.
_SLIGHT = 0.02


# A shutdown that a fit is further off than this is not explained by it.  The
# published ones come out within 10 %.
_REPRODUCED = 0.15


# A wild row is off by more than this, and by this many times what the rest is.
_WILD_ERROR = 0.05


_WILD_TIMES = 6.0


_SLACK = 0.002


# Leaving out each of very many rows in turn takes too long: the worst ones will do.
_MOST_SUSPECTS = 40


class Solved(NamedTuple):
    """A cost that the rows tell."""

    actions: tuple[Action, ...]
    """More than one: only their sum is told."""
    vcpus: int | None
    """The number of vCPUs that it is for; None: for any."""
    growth: bool
    """Whether it is what each further vCPU adds."""
    ns: float
    error_ns: float
    """One standard error; of the rounding alone where no row is left over."""

    @property
    def label(self) -> str:
        """How prose names it."""
        name = " + ".join(self.actions)
        if self.growth:
            return f"{name}, each further vCPU"
        return name if self.vcpus is None else f"{name} at {self.vcpus} vCPUs"


class Untold(NamedTuple):
    """A step that the rows do not tell, and why."""

    action: Action
    why: str


class Residual(NamedTuple):
    """A row beside what the fit makes of it."""

    number: int
    """From 0, as in ``rows[0]``."""
    observed: Observation
    fitted_seconds: float
    wild: bool

    @property
    def error(self) -> float:
        """Fitted over observed, less one."""
        return self.fitted_seconds / self.observed.seconds - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What came out."""

    calibration: Calibration
    """The steps that were solved for or given; the others have to come from elsewhere."""
    solved: tuple[Solved, ...]
    untold: tuple[Untold, ...]
    residuals: tuple[Residual, ...]
    rows_left_over: int
    """Rows used, less costs solved for; 0: nothing is left to check the fit with."""

    @property
    def wild(self) -> Residual | None:
        """The row that was left out."""
        return next((each for each in self.residuals if each.wild), None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against using it: nothing solved for, rows that it does not reproduce."""
        said = [] if self.solved else ["no cost could be solved for: nothing was fitted"]
        missed = [
            each for each in self.residuals if not each.wild and abs(each.error) > _REPRODUCED
        ]
        if missed:
            rows = ", ".join(f"rows[{each.number}]" for each in missed)
            said.append(
                f"more than {_REPRODUCED:.0%} off: {rows}; the costs do not explain "
                "them. Are memory, vCPUs, kernel and order right, and were the TDs shut down one "
                "at a time?"
            )
        return tuple(said)


class _Column(NamedTuple):
    """An unknown cost: how often each row pays it."""

    actions: tuple[Action, ...]
    vcpus: int | None
    growth: bool
    counts: tuple[float, ...]
    prior_ns: float

    def at(self, rows: Sequence[int]) -> list[float]:
        return [self.counts[row] for row in rows]


class _Solution(NamedTuple):
    columns: tuple[_Column, ...]
    values: tuple[float, ...]
    errors: tuple[float, ...]
    dropped: tuple[tuple[_Column, str], ...]
    rms: float
    """Of the relative errors, with the rows left over for divisor."""
    left_over: int


class _Problem:
    """Observations as counts and times."""

    def __init__(self, observations: Observations, base: Calibration) -> None:
        self.given = observations
        self.base = base
        self.rows = observations.rows
        self.counts = [_counts(row) for row in self.rows]

    def prior(self, action: Action, row: int) -> float:
        cost = self.given.given.get(action) or self.base.steps[action]
        return cost.at(self.rows[row].shape.vcpus).likely_ns

    def columns(self) -> list[_Column]:
        solve = self.given.solve
        if not solve:
            free = [action for action in Action if action not in self.given.given]
            columns = [self._column(action) for action in free]
            if Action.KICK in free and len({row.shape.vcpus for row in self.rows}) > 1:
                columns.append(self._growth())
            return _by_weight(_grouped(columns), self.rows)
        return [
            self._column(action, vcpus)
            for action, sought in solve.items()
            for vcpus in (self._vcpus(action) if sought.by_vcpus else (None,))
        ]

    def _vcpus(self, action: Action) -> list[int]:
        return sorted(
            {
                row.shape.vcpus
                for row, counts in zip(self.rows, self.counts, strict=True)
                if counts[action]
            }
        )

    def _column(self, action: Action, vcpus: int | None = None) -> _Column:
        counts = tuple(
            float(counts[action]) if vcpus in (None, row.shape.vcpus) else 0.0
            for row, counts in zip(self.rows, self.counts, strict=True)
        )
        costs = [self.prior(action, row) for row in range(len(self.rows))]
        return _Column((action,), vcpus, growth=False, counts=counts, prior_ns=_mean(costs))

    def _growth(self) -> _Column:
        least = min(row.shape.vcpus for row in self.rows)
        counts = tuple(
            float(counts[Action.KICK]) * (row.shape.vcpus - least)
            for row, counts in zip(self.rows, self.counts, strict=True)
        )
        return _Column((Action.KICK,), None, growth=True, counts=counts, prior_ns=0.0)

    def rest_ns(self, row: int, solved: Sequence[_Column]) -> float:
        """What a row spends on all that is not solved for."""
        spent = 0.0
        for action, count in self.counts[row].items():
            covered = any(
                action in column.actions
                and not column.growth
                and column.vcpus in (None, self.rows[row].shape.vcpus)
                for column in solved
            )
            if not covered:
                spent += count * self.prior(action, row)
        return spent

    def rounding(self, row: int) -> float:
        """The relative standard error of a row's rounding to whole seconds, or a thousandth."""
        seconds = self.rows[row].seconds
        unit = 1.0 if seconds == int(seconds) else 0.001
        return unit / sqrt(12) / seconds

    def solve(self, columns: Sequence[_Column], rows: Sequence[int]) -> _Solution:
        """Solve for the columns that *rows* tell; the others are dropped, with the reason."""
        kept, dropped = self._independent(columns, rows)
        while True:
            weights = [sqrt(self.rows[row].n) / (self.rows[row].seconds * _NS) for row in rows]
            matrix = [
                [w * c for w, c in zip(weights, column.at(rows), strict=True)] for column in kept
            ]
            wanted = [
                w * (self.rows[row].seconds * _NS - self.rest_ns(row, kept))
                for w, row in zip(weights, rows, strict=True)
            ]
            values, unit_errors, square = _least_squares(matrix, wanted)
            left_over = len(rows) - len(kept)
            rms = sqrt(square / left_over) if left_over else 0.0
            noise = max(rms, _mean([self.rounding(row) for row in rows]))
            errors = [noise * each for each in unit_errors]
            worst = _least_told(values, errors)
            if worst is None or self.given.solve:
                return _Solution(
                    tuple(kept), tuple(values), tuple(errors), tuple(dropped), rms, left_over
                )
            column = kept.pop(worst)
            dropped.append(
                (column, "too small a part of these shutdowns, or lost in their scatter")
            )

    def _independent(
        self, columns: Sequence[_Column], rows: Sequence[int]
    ) -> tuple[list[_Column], list[tuple[_Column, str]]]:
        kept: list[_Column] = []
        dropped: list[tuple[_Column, str]] = []
        basis = _Basis()
        seconds = [self.rows[row].seconds / sqrt(self.rows[row].n) for row in rows]
        for column in columns:
            vector = [c / s for c, s in zip(column.at(rows), seconds, strict=True)]
            if not any(vector):
                dropped.append((column, "not done in these shutdowns"))
                continue
            parts = basis.add(vector)
            if parts is None:
                kept.append(column)
                continue
            others = self.made_of(column, kept, parts, rows)
            told = ", ".join(others) or "another number of vCPUs"
            dropped.append((column, f"not to be told from {told}"))
        return kept, dropped

    def made_of(
        self,
        column: _Column,
        others: Sequence[_Column],
        parts: Sequence[float],
        rows: Sequence[int],
    ) -> tuple[Action, ...]:
        """The other steps that look like *column*, given how it is made of *others*."""
        whole = _norm([column.counts[row] / self.rows[row].seconds for row in rows])
        found = [
            action
            for part, other in zip(parts, others, strict=True)
            if abs(part) * _norm([other.counts[row] / self.rows[row].seconds for row in rows])
            > _SLIGHT * whole
            for action in other.actions
            if action not in column.actions
        ]
        return tuple(dict.fromkeys(found))

    def looks_like(self, action: Action, solved: Sequence[_Column]) -> tuple[Action, ...] | None:
        """The solved steps that a given one is not to be told from; None: it could be told."""
        basis = _Basis()
        rows = range(len(self.rows))
        seconds = [row.seconds for row in self.rows]
        for each in solved:
            basis.add([c / s for c, s in zip(each.counts, seconds, strict=True)])
        column = self._column(action)
        parts = basis.add([c / s for c, s in zip(column.counts, seconds, strict=True)])
        return None if parts is None else self.made_of(column, solved, parts, rows)


def fit(observations: Observations, base: Calibration, *, name: str, origin: str) -> Fit:
    """Solve for the step costs; what is neither given nor told is as in *base*.

    One row is left out if without it the others fit and it is far off.
    """
    problem = _Problem(observations, base)
    columns = problem.columns()
    everything = list(range(len(observations.rows)))
    solution = problem.solve(columns, everything)
    wild = _find_wild(problem, columns, solution)
    if wild is not None:
        rows = [row for row in everything if row != wild]
        solution = problem.solve(columns, rows)
    steps, solved = _steps(problem, solution)
    record = observations.origin
    return Fit(
        calibration=Calibration(
            name=name,
            host=record.host,
            kernel=record.kernel,
            date=record.date,
            origin=origin,
            cpu=record.cpu,
            assumptions=observations.assumptions,
            leaves_out=observations.leaves_out,
            steps={action: steps[action] for action in Action if action in steps},
            rows=tuple(
                _as_row(row) for number, row in enumerate(observations.rows) if number != wild
            ),
        ),
        solved=solved,
        untold=_untold(problem, solution),
        residuals=tuple(
            Residual(
                row, observations.rows[row], _fitted_seconds(problem, solution, row), row == wild
            )
            for row in everything
        ),
        rows_left_over=solution.left_over,
    )


_PLAN = {Order.UPSTREAM: PLANS["6.16"], Order.HKID_FIRST: PLANS["hkid-first"]}


def _counts(row: Observation) -> dict[Action, int]:
    plan = _PLAN[row.order].with_clearing(Clearing.ALWAYS if row.clears else Clearing.NEVER)
    counts = step_counts(row.shape, plan, Platform(erratum=False, packages=row.packages))
    return {
        action: sum(n for (_, each), n in counts.items() if each is action) for action in Action
    }


def _as_row(row: Observation) -> Row:
    return Row(
        order=row.order,
        clearing=Clearing.ALWAYS if row.clears else Clearing.NEVER,
        vcpus=row.shape.vcpus,
        memory_bytes=row.shape.memory_bytes,
        seconds=row.seconds,
        source=row.source,
    )


def _grouped(columns: Sequence[_Column]) -> list[_Column]:
    """Steps that every row does equally often, as one column."""
    groups: list[_Column] = []
    for column in columns:
        for number, group in enumerate(groups):
            if not group.growth and not column.growth and _alike(group.counts, column.counts):
                groups[number] = group._replace(
                    actions=(*group.actions, *column.actions),
                    prior_ns=group.prior_ns + column.prior_ns,
                )
                break
        else:
            groups.append(column)
    return groups


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    return any(one) and all(
        abs(a - b) <= max(_DEPENDENT * max(a, b), 1.0 if max(a, b) > 1 / _DEPENDENT else 0.0)
        # One WBINVD of the TDR is no reason to part it from the pages'.
        or (min(a, b) == 0 and max(a, b) == 1 and max(*one, *other) > 1 / _DEPENDENT)
        for a, b in zip(one, other, strict=True)
    )


def _by_weight(columns: Sequence[_Column], rows: Sequence[Observation]) -> list[_Column]:
    """The most time first, so that the lesser of two that look alike is the one given up."""

    def weight(column: _Column) -> float:
        pays = zip(column.counts, rows, strict=True)
        return column.prior_ns * sum(count / row.seconds for count, row in pays)

    ordered = sorted((each for each in columns if not each.growth), key=weight, reverse=True)
    # What grows has no cost in a calibration to be weighed by; it is what it grows
    # from that matters.
    growing = [each for each in columns if each.growth]
    return [*ordered[:1], *growing, *ordered[1:]]


def _least_told(values: Sequence[float], errors: Sequence[float]) -> int | None:
    """The lightest cost that is negative or drowns in its error; None: all are told.

    Light ones first: what they get wrong is put on the heavy ones.
    """
    doubtful = [
        number
        for number, (value, error) in enumerate(zip(values, errors, strict=True))
        if value <= 0 or error > value / 2
    ]
    return doubtful[-1] if doubtful else None


def _find_wild(problem: _Problem, columns: Sequence[_Column], whole: _Solution) -> int | None:
    everything = range(len(problem.rows))
    if not whole.left_over:
        return None
    errors = {row: abs(_error(problem, whole, row)) for row in everything}
    suspects = sorted(everything, key=lambda row: -errors[row])[:_MOST_SUSPECTS]
    found: list[tuple[float, int]] = []
    for row in suspects:
        rest = [other for other in everything if other != row]
        solution = problem.solve(columns, rest)
        if not solution.left_over or len(solution.columns) < len(whole.columns):
            continue
        off = abs(_error(problem, solution, row))
        usual = max(solution.rms, problem.rounding(row), _SLACK)
        if off > _WILD_ERROR and off > _WILD_TIMES * usual:
            found.append((off / usual, row))
    return max(found)[1] if found else None


def _fitted_seconds(problem: _Problem, solution: _Solution, row: int) -> float:
    spent = problem.rest_ns(row, solution.columns)
    for column, value in zip(solution.columns, solution.values, strict=True):
        spent += column.counts[row] * value
    return spent / _NS


def _error(problem: _Problem, solution: _Solution, row: int) -> float:
    return _fitted_seconds(problem, solution, row) / problem.rows[row].seconds - 1


def _steps(
    problem: _Problem, solution: _Solution
) -> tuple[dict[Action, StepCost], tuple[Solved, ...]]:
    """Return what was given and what was solved for, as steps."""
    steps = dict(problem.given.given)
    solved = tuple(
        Solved(column.actions, column.vcpus, column.growth, value, error)
        for column, value, error in zip(
            solution.columns, solution.values, solution.errors, strict=True
        )
    )
    growth = next((each for each in solved if each.growth), None)
    least = min(row.shape.vcpus for row in problem.rows)
    for each in solved:
        if each.growth:
            continue
        priors = {
            action: _mean([problem.prior(action, row) for row in range(len(problem.rows))])
            for action in each.actions
        }
        for action, prior in priors.items():
            share = prior / sum(priors.values())
            span = _span(each.ns * share, each.error_ns * share, problem.given.spread)
            old = steps.get(action)
            points = old.points if old is not None and each.vcpus is not None else ()
            sought = problem.given.solve.get(action)
            steps[action] = StepCost(
                points=(*points, Point(each.vcpus or 1, span)),
                beyond=sought.beyond if sought else Beyond.HOLD,
                provenance=Provenance.DERIVED,
                source=sought.source if sought else _source(problem, each),
            )
    if growth is not None:
        kick = steps.get(Action.KICK) or problem.base.steps[Action.KICK]
        steps[Action.KICK] = _growing(problem, kick.at(least), growth, least)
    return steps, solved


def _source(problem: _Problem, solved: Solved) -> str:
    rows = len(problem.rows)
    if len(solved.actions) == 1:
        return f"fit of {rows} observed shutdowns"
    return (
        f"share of the sum of {' + '.join(solved.actions)}, fit of {rows} observed shutdowns; "
        f"the split is as in {problem.base.name}"
    )


def _growing(problem: _Problem, first: Span, growth: Solved, least: int) -> StepCost:
    points = []
    for vcpus in sorted({row.shape.vcpus for row in problem.rows}):
        more = _span(
            growth.ns * (vcpus - least), growth.error_ns * (vcpus - least), problem.given.spread
        )
        points.append(Point(vcpus, first.plus(more)))
    return StepCost(
        points=tuple(points),
        beyond=Beyond.RISE,
        provenance=Provenance.DERIVED,
        source=f"fit of {len(problem.rows)} observed shutdowns; all growth with vCPUs is put here",
    )


def _span(ns: float, error_ns: float, spread: tuple[int, int] | None) -> Span:
    """The range: what the observations say it is, else two standard errors, 1 % at least."""
    likely = round(ns)
    if spread is not None:
        return Span(round(ns * spread[0] / 100), likely, round(ns * spread[1] / 100))
    margin = max(2 * error_ns, ns / 100)
    return Span(max(0, round(ns - margin)), likely, round(ns + margin))


def _untold(problem: _Problem, solution: _Solution) -> tuple[Untold, ...]:
    base = problem.base.name
    said = []
    for action, cost in problem.given.given.items():
        alike = problem.looks_like(action, solution.columns)
        told = f": the rows do not tell it from {', '.join(alike)}" if alike else ""
        said.append(Untold(action, f"given ({cost.provenance}){told}"))
    for column, why in solution.dropped:
        if column.growth:
            said.append(Untold(Action.KICK, f"growth with vCPUs: {why}; taken as none"))
            continue
        where = "" if column.vcpus is None else f"at {column.vcpus} vCPUs "
        said.extend(Untold(action, f"{where}{why}; as in {base}") for action in column.actions)
    solved = {action for column in solution.columns for action in column.actions}
    said.extend(
        Untold(action, f"not asked for; as in {base}")
        for action in Action
        if problem.given.solve
        and action not in problem.given.given
        and action not in solved
        and action not in problem.given.solve
    )
    for column in solution.columns:
        if len(column.actions) > 1:
            said.extend(
                Untold(action, f"only in the sum {' + '.join(column.actions)}; split as in {base}")
                for action in column.actions
            )
    return tuple(said)


class _Basis:
    """Columns made orthogonal one by one (modified Gram-Schmidt)."""

    def __init__(self) -> None:
        self._units: list[list[float]] = []
        self._upper: list[list[float]] = []

    def add(self, vector: Sequence[float]) -> list[float] | None:
        """Take *vector* in, or return how it is made of the ones taken before."""
        left, parts = list(vector), []
        for unit in self._units:
            part = _dot(unit, left)
            parts.append(part)
            left = [a - part * b for a, b in zip(left, unit, strict=True)]
        size = _norm(left)
        if size <= _DEPENDENT * _norm(vector):
            return _back(self._upper, parts)
        self._units.append([each / size for each in left])
        self._upper.append([*parts, size])
        return None

    def project(self, vector: Sequence[float]) -> tuple[list[float], float]:
        """Return the combination nearest to *vector*, and the square of what is left."""
        left, parts = list(vector), []
        for unit in self._units:
            part = _dot(unit, left)
            parts.append(part)
            left = [a - part * b for a, b in zip(left, unit, strict=True)]
        return _back(self._upper, parts), _dot(left, left)

    def unit_errors(self) -> list[float]:
        """The standard error of each coefficient for noise of 1."""
        size = len(self._upper)
        squares = [0.0] * size
        for number in range(size):
            column = _back(self._upper, [float(number == row) for row in range(size)])
            squares = [a + b * b for a, b in zip(squares, column, strict=True)]
        return [sqrt(each) for each in squares]


def _back(upper: Sequence[Sequence[float]], parts: Sequence[float]) -> list[float]:
    """Solve the triangle: ``upper[j]`` is column j down to the diagonal."""
    found = list(parts)
    for column in range(len(parts) - 1, -1, -1):
        found[column] /= upper[column][column]
        for row in range(column):
            found[row] -= upper[column][row] * found[column]
    return found


def _least_squares(
    columns: Sequence[Sequence[float]], wanted: Sequence[float]
) -> tuple[list[float], list[float], float]:
    """Return the coefficients, their errors for noise of 1, and the square of what is left."""
    basis = _Basis()
    for column in columns:
        basis.add(column)
    values, square = basis.project(wanted)
    return values, basis.unit_errors(), square


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _norm(vector: Sequence[float]) -> float:
    return sqrt(_dot(vector, vector))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
