"""Calibrations laid over each other, step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tdxreclaim.costs.calibration import Calibration, Provenance, StepCost
from tdxreclaim.tables.teardown import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    _Key = Callable[[Calibration], int]
    _Notes = Callable[[Calibration], tuple[str, ...]]

# What beats what; a stand-in was measured, but is no measurement of the step.
_RANK = {
    Provenance.MEASURED: 0,
    Provenance.PUBLISHED: 2,
    Provenance.DERIVED: 3,
    Provenance.ASSUMED: 4,
}


_STAND_IN = 1


MIXED = (
    "steps of different sources were not timed together: what was derived, was derived with "
    "that source's own costs of the other steps"
)


def rank(cost: StepCost) -> int:
    """How good the number is: measured, a stand-in, published, derived, assumed.

    >>> cost = StepCost(points=(), beyond="hold", provenance=Provenance.MEASURED, source="x")
    >>> rank(cost), rank(replace(cost, stand_in="a plain fill"))
    (0, 1)
    """
    if cost.provenance is Provenance.MEASURED and cost.stand_in is not None:
        return _STAND_IN
    return _RANK[cost.provenance]


def merge(calibrations: Iterable[Calibration], *, name: str, origin: str) -> Calibration:
    """For each step the best of the *calibrations*; of two as good the earlier one's.

    The first calibration's host, CPU, kernel and date become the result's; its
    ``sources`` are all that a step was taken from, and each step says from
    which.  A calibration need not have every step; one of them has to.
    """
    given = tuple(calibrations)
    first = given[0]
    steps: dict[Action, StepCost] = {}
    for action in Action:
        best = min((each for each in given if action in each.steps), key=_ranked(action))
        cost = best.steps[action]
        steps[action] = replace(cost, taken_from=cost.taken_from or best.name)
    used = {cost.taken_from for cost in steps.values()}
    origins = {
        each.name: each
        for calibration in given
        for each in calibration.sources or (calibration.itself,)
        if each.name in used
    }
    parts = [each for each in given if _is_used(each, used)]
    return Calibration(
        name=name,
        host=first.host,
        kernel=first.kernel,
        date=first.date,
        origin=origin,
        cpu=first.cpu,
        assumptions=(*((MIXED,) if len(origins) > 1 else ()), *_notes(parts, _assumptions)),
        leaves_out=_notes(parts, _leaves_out),
        steps=steps,
        # Never of two hosts: whole shutdowns are compared with each other.
        rows=next((each.rows for each in parts if each.rows), ()),
        sources=tuple(origins.values()),
    )


def _ranked(action: Action) -> _Key:
    return lambda calibration: rank(calibration.steps[action])


def _is_used(calibration: Calibration, used: set[str | None]) -> bool:
    return any(each.name in used for each in calibration.sources or (calibration.itself,))


def _assumptions(calibration: Calibration) -> tuple[str, ...]:
    return calibration.assumptions


def _leaves_out(calibration: Calibration) -> tuple[str, ...]:
    return calibration.leaves_out


def _notes(parts: list[Calibration], of: _Notes) -> tuple[str, ...]:
    """Return all notes, each after the name of its calibration, unless that was merged before."""
    said = [
        note if each.sources or len(parts) == 1 else f"{each.name}: {note}"
        for each in parts
        for note in of(each)
        if note != MIXED
    ]
    return tuple(dict.fromkeys(said))
