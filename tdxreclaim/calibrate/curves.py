"""Timed shutdowns as a calibration: what a page costs, by the causes that they leave open.

The steps of a page share its cost as in the base: a shutdown tells no more than
the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.calibrate.causes import BETTER, SCATTER, Explanation, Timed, amount, dot, weigh
from tdxreclaim.costs.calibration import (
    Beyond,
    Calibration,
    CostCause,
    CostPoint,
    HostRecord,
    Provenance,
    StepCost,
)
from tdxreclaim.tables.teardown import Action
from tdxreclaim.units import Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tdxreclaim.costs.calibration import Row


_PAGE_STEPS = (Action.BLOCK, Action.TRACK, Action.KICK, Action.REMOVE, Action.WBINVD)


# A curve is one from so many points on.
_LEAST_OF_A_CURVE = 2


def calibration_of(
    rows: Sequence[Timed],
    possible: Sequence[Explanation],
    base: Calibration,
    origin: HostRecord,
    margin: float,
) -> Calibration:
    """Return the steps of a page, with the rows; *margin* is the least range, as a share."""
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
        **origin.fields(),
        assumptions=tuple(assumptions),
        leaves_out=(),
        steps={
            action: StepCost(
                points=points,
                beyond=Beyond.RISE if len(points) > 1 else Beyond.HOLD,
                grows_with=tuple(curves) if len(points) > 1 else (CostCause.VCPUS,),
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

    costs: Mapping[int, tuple[float, float]]
    """The least and the most at each amount."""
    measured: bool
    """Whether its shape was; else it is the base's, through these rows."""


def _curves(
    rows: Sequence[Timed], possible: Sequence[Explanation], base: Calibration
) -> dict[CostCause, _Curve]:
    """The causes that these rows leave open, each with what a page costs by it.

    One cause drives the cost.  What the rows varied and what made nothing
    dearer is out, unless it would by the base's shape have gone unnoticed; what
    they did not vary is out where another cause explains them.
    """
    by_cause = {each.cause: each for each in possible}
    enough = max(SCATTER, BETTER * possible[0].worst)
    found = {}
    for cause in (CostCause.VCPUS, CostCause.MEMORY):
        varied = len({amount(cause, timed.row) for timed in rows}) > 1
        line = by_cause.get(cause)
        if CostCause.NOTHING not in by_cause:
            if varied and line is not None:
                # A line through as many rows as it has unknowns tells no shape:
                # the base's may be it.
                costs, worst = _scaled(rows, cause, line.clear_ns, base)
                bent = costs if not line.left_over and worst <= enough else {}
                found[cause] = _Curve(_line(rows, line, bent), measured=not bent)
            continue
        costs, worst = _scaled(rows, cause, possible[0].clear_ns, base)
        if costs and worst <= enough:
            found[cause] = _Curve({at: (ns, ns) for at, ns in costs.items()}, measured=False)
    return found


def _line(
    rows: Sequence[Timed], line: Explanation, bent: Mapping[int, float]
) -> dict[int, tuple[float, float]]:
    """The line at the rows' amounts; and from it to *bent* at those of *bent* between them."""
    at = {_exact(line.cause, timed.row): amount(line.cause, timed.row) for timed in rows}
    first, last = min(at), max(at)
    for between in bent:
        if first < between < last:
            at[between] = at[first] + (at[last] - at[first]) * (between - first) / (last - first)
    straight = {
        exact: line.page_ns + line.growth_ns * (many - line.least) for exact, many in at.items()
    }
    return {
        exact: (min(ns, bent.get(exact, ns)), max(ns, bent.get(exact, ns)))
        for exact, ns in straight.items()
    }


def _scaled(
    rows: Sequence[Timed], cause: CostCause, clear_ns: float, base: Calibration
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
    left, right = weigh(weights, shape), weigh(weights, wanted)
    factor = dot(left, right) / dot(left, left)
    worst = max(abs(factor * a - b) for a, b in zip(left, right, strict=True))
    return {amount: factor * page(amount) for amount in known}, worst


def _exact(cause: CostCause, row: Row) -> int:
    return row.memory_bytes if cause is CostCause.MEMORY else row.vcpus


def _said_of(curves: Mapping[CostCause, _Curve], base: Calibration) -> Iterator[str]:
    if not curves:
        return
    names = " or ".join(cause.label for cause in curves)
    shape = "" if all(each.measured for each in curves.values()) else f", as in {base.name}"
    yield f"a page's cost grows with {names}{shape}: these shutdowns leave that open"


def _points(
    rows: Sequence[Timed],
    best: Explanation,
    curves: Mapping[CostCause, _Curve],
    base: Calibration,
    least_margin: float,
) -> dict[Action, tuple[CostPoint, ...]]:
    """What a page costs, in the base's shares: by each cause that is open, or once."""
    # Whole seconds were rounded.
    rounded = [0.5 / row.seconds for row, *_ in rows if row.seconds == int(row.seconds)]
    margin = max(best.worst, least_margin, *rounded)

    def span(costs: tuple[float, float], part: float) -> Span:
        low, high = (cost * part for cost in costs)
        return Span(
            round(low * max(0, 1 - margin)), round((low + high) / 2), round(high * (1 + margin))
        )

    shares = {action: base.steps[action].points[0].cost.likely_ns for action in _PAGE_STEPS}
    whole = sum(shares.values())
    found = {}
    for action, share in shares.items():
        each = share / whole
        points = []
        if CostCause.MEMORY in curves:
            costs = curves[CostCause.MEMORY].costs
            points += [CostPoint(None, span(costs[at], each), at) for at in sorted(costs)]
        if CostCause.VCPUS in curves:
            costs = curves[CostCause.VCPUS].costs
            points += [CostPoint(at, span(costs[at], each)) for at in sorted(costs)]
        found[action] = tuple(points) or (CostPoint(1, span((best.page_ns,) * 2, each)),)
    if best.clear_determined:
        found[Action.CLEAR] = (CostPoint(1, span((best.clear_ns,) * 2, 1.0)),)
    return found
