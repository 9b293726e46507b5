"""Observed shutdowns: what somebody timed, as TOML or CSV.

TOML (``schema = "tdxreclaim.observations/1"``)::

    [record]   name, host, kernel, date, origin; cpu; assumptions, leaves_out
    [spread]   low_percent, high_percent: the range to give to what is solved for
    [given.X]  step X is not solved for: provenance, source, low_ns, likely_ns, high_ns
    [solve.X]  step X is: source; vary (vcpus: one cost for each number of
               vCPUs; none), beyond (hold, rise)
    [[rows]]   memory_bytes, vcpus, order, seconds; kernel or clearing; packages,
               affected, n, source

Without ``given`` and ``solve`` every step is looked for (`fit.fit`).  A CSV has
a line of names and a line for each row; its memory column is ``memory`` (18GiB)
or ``memory_bytes``.

When a row cleared follows from its kernel, and from 6.18 on from the CPU too:
then ``affected`` says whether that has tdx_pw_mce (yes, no).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.costs.calibration import Beyond, Origin, Point, Provenance, StepCost
from tdxreclaim.costs.toml import Table, parse_toml, read_span
from tdxreclaim.engine.plan import PLANS, Action, Clearing, Order
from tdxreclaim.engine.shape import Shape
from tdxreclaim.errors import MalformedInputError, UsageError
from tdxreclaim.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = "tdxreclaim.observations/1"


_MOST_ROWS = 10_000


class Observation(NamedTuple):
    """A shutdown that was timed, or several alike."""

    shape: Shape
    order: Order
    clears: bool
    packages: int
    seconds: float
    """The mean of *n*."""
    n: int
    source: str


class Sought(NamedTuple):
    """A step to solve for."""

    by_vcpus: bool
    """A cost for each number of vCPUs that was observed, not one for all."""
    beyond: Beyond
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Observations:
    """What was timed, where, and what is taken as given."""

    origin: Origin
    assumptions: tuple[str, ...] = ()
    leaves_out: tuple[str, ...] = ()
    spread: tuple[int, int] | None = None
    """Percent of the likely value that low and high are; None: from the residuals."""
    given: Mapping[Action, StepCost] = field(default_factory=dict)
    solve: Mapping[Action, Sought] = field(default_factory=dict)
    rows: tuple[Observation, ...]


def parse(text: str, what: str, *, origin: Origin) -> Observations:
    """Read observations; *origin* is of a CSV, which cannot say it.

    Raises:
        MalformedInputError: ``why`` starts with the field's path.
    """
    if re.search(r"^\s*\[", text, re.MULTILINE) or "schema" in text.partition("\n")[0]:
        return _parse_toml(text, what)
    return Observations(origin=origin, rows=_parse_csv(text, what))


def _parse_toml(text: str, what: str) -> Observations:
    parsed = parse_toml(text, what)
    top = Table(what, "", parsed)
    if top.text("schema") != SCHEMA:
        raise top.bad("schema", f"expected {SCHEMA}")
    record = top.table("record")
    spread = _spread(top.table("spread")) if top.has("spread") else None
    given, solve = _steps(top, "given"), _steps(top, "solve")
    for action in given.keys() & solve.keys():
        raise top.bad(f"solve.{action}", "it is given too")
    observations = Observations(
        origin=Origin(
            name=record.text("name"),
            host=record.text("host"),
            kernel=record.text("kernel"),
            date=record.text("date"),
            origin=record.text("origin"),
            cpu=record.optional("cpu"),
        ),
        assumptions=record.texts("assumptions") if record.has("assumptions") else (),
        leaves_out=record.texts("leaves_out") if record.has("leaves_out") else (),
        spread=spread,
        given={action: _given(table) for action, table in given.items()},
        solve={action: _sought(table) for action, table in solve.items()},
        rows=tuple(_row(each, what) for each in top.tables("rows")),
    )
    record.done()
    top.done()
    if not observations.rows:
        raise top.bad("rows", "expected at least one")
    return observations


def _steps(top: Table, name: str) -> dict[Action, Table]:
    if not top.has(name):
        return {}
    table = top.table(name)
    found = {action: table.table(action) for action in Action if table.has(action)}
    table.done()
    return found


def _spread(table: Table) -> tuple[int, int]:
    low, high = table.integer("low_percent"), table.integer("high_percent")
    if not low <= 100 <= high:  # noqa: PLR2004  (percent)
        raise table.bad("low_percent", "expected low_percent <= 100 <= high_percent")
    table.done()
    return low, high


def _given(table: Table) -> StepCost:
    cost = StepCost(
        provenance=table.choice("provenance", Provenance),
        source=table.text("source"),
        beyond=Beyond.HOLD,
        points=(Point(1, read_span(table)),),
    )
    table.done()
    return cost


def _sought(table: Table) -> Sought:
    vary = table.text("vary") if table.has("vary") else "none"
    if vary not in ("vcpus", "none"):
        raise table.bad("vary", "expected one of vcpus, none")
    beyond = table.choice("beyond", Beyond) if table.has("beyond") else Beyond.HOLD
    sought = Sought(vary == "vcpus", beyond, table.text("source"))
    table.done()
    return sought


def _row(table: Table, what: str) -> Observation:
    if table.has("memory"):
        memory = _size(table, table.text("memory"))
    else:
        memory = table.integer("memory_bytes", 1)
    observation = Observation(
        shape=_shape(table, what, memory, table.integer("vcpus", 1)),
        packages=table.integer("packages", 1) if table.has("packages") else 1,
        seconds=table.number("seconds"),
        n=table.integer("n", 1) if table.has("n") else 1,
        order=table.choice("order", Order),
        source=table.optional("source") or "observed",
        clears=_clears(table, table.optional("kernel")),
    )
    table.done()
    return observation


def _shape(table: Table, what: str, memory: int, vcpus: int) -> Shape:
    try:
        return Shape(memory_bytes=memory, vcpus=vcpus)
    except UsageError as error:
        field = table.at("memory_bytes" if error.what == "memory" else error.what)
        raise MalformedInputError(what, f"{field}: {error.why}") from error


def _size(table: Table, text: str) -> int:
    try:
        return parse_size("memory", text)
    except UsageError as error:
        raise table.bad("memory", error.why) from error


_AFFECTED = {"yes": True, "no": False}


def _clears(table: Table, kernel: str | None) -> bool:
    """Whether the shutdown cleared its pages."""
    affected = None
    if table.has("affected"):
        word = table.text("affected")
        if word not in _AFFECTED:
            raise table.bad("affected", "expected yes or no")
        affected = _AFFECTED[word]
    clearing = table.choice("clearing", Clearing) if table.has("clearing") else None
    if clearing is None:
        clearing = _clearing_of(table, kernel)
    if clearing is Clearing.ON_ERRATUM and affected is None:
        raise table.bad(
            "affected", "missing: this kernel clears only on a CPU with tdx_pw_mce (yes, no)"
        )
    return clearing.clears(erratum=bool(affected))


def _clearing_of(table: Table, kernel: str | None) -> Clearing:
    if kernel is None:
        raise table.bad("kernel", "missing, expected string, or clearing")
    release = re.match(r"(\d+)\.(\d+)", kernel, re.ASCII)
    if release is None:
        raise table.bad("kernel", "not a kernel release (6.17, 6.18.2); say clearing instead")
    series = int(release[1]), int(release[2])
    if series < (6, 16):
        raise table.bad("kernel", "no release before 6.16 shuts TDs down; say clearing instead")
    return PLANS["6.16" if series < (6, 18) else "6.18"].clearing


_NAMES = frozenset(
    {"memory", "memory_bytes", "vcpus", "packages", "kernel", "order", "seconds", "n"}
    | {"affected", "clearing", "source"}
)


_WHOLE = frozenset({"memory_bytes", "vcpus", "packages", "n"})


def _parse_csv(text: str, what: str) -> tuple[Observation, ...]:
    import csv

    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise MalformedInputError(what, "it is empty")
    if len(lines) > _MOST_ROWS:
        raise MalformedInputError(what, f"more than {_MOST_ROWS} rows")
    try:
        names, *records = csv.reader(lines, strict=True, skipinitialspace=True)
    except csv.Error as error:
        raise MalformedInputError(what, f"not CSV: {error}") from error
    names = [name.strip() for name in names]
    for name in names:
        if name not in _NAMES:
            raise MalformedInputError(what, f"line 1: {name!r} is no column")
    if len(set(names)) < len(names):
        raise MalformedInputError(what, "line 1: a column is there twice")
    if not records:
        raise MalformedInputError(what, "it has no rows")
    rows = []
    for number, record in enumerate(records):
        if len(record) != len(names):
            raise MalformedInputError(
                what, f"rows[{number}]: {len(record)} values for {len(names)} columns"
            )
        values = {
            name: _value(name, value.strip())
            for name, value in zip(names, record, strict=True)
            if value.strip()
        }
        rows.append(_row(Table(what, f"rows[{number}]", values), what))
    return tuple(rows)


def _value(name: str, text: str) -> object:
    """Return what a TOML file would hold; text that is no number stays, to be refused by name."""
    if name in _WHOLE and re.fullmatch(r"\d{1,18}", text, re.ASCII):
        return int(text)
    if name == "seconds" and re.fullmatch(r"\d{1,12}(\.\d{1,12})?", text, re.ASCII):
        return float(text) if "." in text else int(text)
    return text
