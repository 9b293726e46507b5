"""A sweep's plan as TOML: what is varied over what, how often, and from which seed.

Format (``schema = "tdxreclaim.sweep-plan/1"``)::

    command    simulate or drain
    trials     how many random draws; without it every combination of the axes
    seed       of the draws; 0 unless given
    quantiles  in percent; [10, 50, 90] unless given
    [axes]     NAME = a value, a list of values, or a range { from, to, scale, steps }
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from math import prod

from tdxreclaim.costs.toml import Table, parse_toml
from tdxreclaim.engine.shape import Shape
from tdxreclaim.errors import MalformedInputError, UsageError
from tdxreclaim.sweep.axes import Axis, read_axes
from tdxreclaim.sweep.kinds import KINDS, Value
from tdxreclaim.units import PAGE_BYTES, Share, format_size

SCHEMA = "tdxreclaim.sweep-plan/1"

MOST_TRIALS = 10_000_000

MOST_BYTES = 1 << 20
"""Of the text of a plan."""

QUANTILES = (10.0, 50.0, 90.0)

_MOST_QUANTILES = 9
_MOST_SEED = (1 << 63) - 1


class Command(StrEnum):
    """What is done in a trial."""

    SIMULATE = "simulate"
    DRAIN = "drain"


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPlan:
    """What is varied over what."""

    command: Command
    trials: int
    drawn: bool
    """Whether trials are random draws; else every combination of the axes, the last one fastest."""
    seed: int
    quantiles: tuple[float, ...]
    """Percent, ascending."""
    axes: tuple[Axis, ...]
    text: str
    """As it was written."""

    @property
    def digest(self) -> str:
        """What tells it from other plans: of what it means, not of how it is written."""
        meaning = json.dumps(
            [SCHEMA, self.command, self.trials, self.drawn, self.seed, self.quantiles, self.axes]
        )
        return blake2b(meaning.encode(), digest_size=8).hexdigest()

    def values(self, name: str) -> tuple[Value, ...]:
        """Return the values of an axis, the ends of a range, or what it is unless varied."""
        for axis in self.axes:
            if axis.name == name:
                return axis.ends()
        return (KINDS[name].default,)

    def numbers(self, name: str) -> list[int]:
        """Return those of them that are numbers."""
        return [value for value in self.values(name) if isinstance(value, int)]

    @property
    def varied(self) -> tuple[Axis, ...]:
        """The axes with more than one value."""
        return tuple(axis for axis in self.axes if axis.varies)


def read_plan(text: str, what: str) -> SweepPlan:
    """Read a plan from the text of a TOML file; *what* names it in errors.

    Raises:
        MalformedInputError: it is not TOML, a field is missing, unknown or
            wrong, or no TD can be so; ``why`` starts with the field's path.
    """
    top = Table(what, "", parse_toml(text, what))
    if top.text("schema") != SCHEMA:
        raise top.bad("schema", f"expected {SCHEMA}")
    command = top.choice("command", Command)
    drawn = top.has("trials")
    trials = _bounded(top, "trials", 1, MOST_TRIALS) if drawn else 0
    seed = _bounded(top, "seed", 0, _MOST_SEED) if top.has("seed") else 0
    quantiles = _quantiles(top) if top.has("quantiles") else QUANTILES
    table = top.table("axes")
    top.done()
    axes = read_axes(table, drain=command is Command.DRAIN, grid=not drawn)
    if not drawn:
        trials = prod(len(axis.values) for axis in axes)
        if trials > MOST_TRIALS:
            many = " x ".join(str(len(axis.values)) for axis in axes if axis.varies)
            raise MalformedInputError(
                what, f"axes: {many} combinations: at most {MOST_TRIALS:,} (trials draws some)"
            )
    plan = SweepPlan(
        command=command,
        trials=trials,
        drawn=drawn,
        seed=seed,
        quantiles=quantiles,
        axes=axes,
        text=text,
    )
    _check_sizes(plan, table)
    return plan


def _bounded(table: Table, name: str, least: int, most: int) -> int:
    number = table.integer(name, least)
    if number > most:
        raise table.bad(name, f"expected up to {most:,}")
    return number


def _quantiles(table: Table) -> tuple[float, ...]:
    value = table.take("quantiles", "list of percentages")
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_QUANTILES:
        raise table.bad("quantiles", f"expected a list of 1 to {_MOST_QUANTILES} percentages")
    for i, each in enumerate(value):
        if not isinstance(each, int | float) or isinstance(each, bool) or not 0 <= each <= 100:  # noqa: PLR2004 - percent
            raise table.bad(f"quantiles[{i}]", "expected 0 to 100")
        if i and each <= value[i - 1]:
            raise table.bad(f"quantiles[{i}]", "expected more than the one before")
    return tuple(map(float, value))


def _check_sizes(plan: SweepPlan, axes: Table) -> None:
    """See that every trial's TD can be, so that none fails."""
    memory = plan.numbers("memory")
    try:
        Shape(memory_bytes=max(memory), vcpus=max(plan.numbers("vcpus")))
    except UsageError as error:
        raise axes.bad(error.what, error.why) from error
    shares = [value for value in plan.values("mapped") if isinstance(value, Share)]
    for share in shares:
        if share.of(min(memory)) > min(memory):
            size = format_size(share.of(min(memory)))
            why = f"{size} is more than the least memory, {format_size(min(memory))}"
            raise axes.bad("mapped", why)
    pages = min(share.of(min(memory)) for share in shares) // PAGE_BYTES
    faults = max(plan.numbers("busy")) + max(plan.numbers("reclaim-fails"))
    if faults > pages:
        name = "busy" if max(plan.numbers("busy")) else "reclaim-fails"
        raise axes.bad(name, f"with reclaim-fails {faults} pages: the smallest TD has {pages}")
