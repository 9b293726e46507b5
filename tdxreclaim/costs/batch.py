"""The closed form for many TDs: what `estimate` says of each, in a fraction of its time.

What does not depend on the TD is worked out once: the counts of the steps are
linear in guest pages, vCPUs and control pages, and a step's cost is a straight
line between two amounts of what it grows with.  Both agree with `estimate` to
the nanosecond (tested).
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import groupby
from operator import add, itemgetter, mul
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.costs.calibration import Beyond, CostCause
from tdxreclaim.costs.estimate import step_counts
from tdxreclaim.engine.faults import MAX_INJECTED, NOTHING, Injections
from tdxreclaim.engine.shape import count_control_pages
from tdxreclaim.tables.teardown import Action, Phase
from tdxreclaim.units import PAGE_BYTES, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tdxreclaim.costs.calibration import Calibration, StepCost
    from tdxreclaim.costs.estimate import Counts
    from tdxreclaim.engine.module import Platform
    from tdxreclaim.engine.plan import Plan

SHARE_BITS = 64
"""A share of a cost's range is a number of so many bits: 0 is its low."""

_CACHED = 1 << 12
# Below and above every cost: what a cause that a step does not grow with adds to an envelope.
_NEVER_LEAST, _NEVER_MOST = 1 << 256, -1


class _Line(NamedTuple):
    """``start + slope * (amount - origin) // whole``."""

    start: int
    slope: int
    origin: int
    whole: int


class _Piece(NamedTuple):
    """The lines of all steps between two amounts; of likely costs the least and the most."""

    low: tuple[_Line, ...]
    least: tuple[_Line, ...]
    most: tuple[_Line, ...]
    high: tuple[_Line, ...]


class _Columns(NamedTuple):
    """A cost a step."""

    low: Sequence[int]
    least: Sequence[int]
    most: Sequence[int]
    high: Sequence[int]


class Prices(NamedTuple):
    """What each step costs a TD, in the order of `Pricer.actions`; nanoseconds."""

    low: Sequence[int]
    likely: Sequence[int]
    high: Sequence[int]


class _Curve:
    """What every growing step costs if one cause drives it."""

    def __init__(self, cause: CostCause, steps: Sequence[tuple[StepCost, bool]]) -> None:
        curves = [step.curve(cause) if grows else [] for step, grows in steps]
        self._amounts = sorted({amount for curve in curves for amount, _ in curve})
        rises = [step.beyond is Beyond.RISE for step, _ in steps]
        self._pieces = [
            _piece([_lines(*each, amount) for each in zip(curves, rises, strict=True)])
            for amount in (*self._amounts, None)
        ]

    def at(self, amount: int) -> _Columns:
        low, least, most, high = self._pieces[bisect_left(self._amounts, amount)]
        middle = [a + b * (amount - x) // w for a, b, x, w in least]
        return _Columns(
            [a + b * (amount - x) // w for a, b, x, w in low],
            middle,
            # Of one likely line the least is the most.
            middle if most is least else [a + b * (amount - x) // w for a, b, x, w in most],
            [a + b * (amount - x) // w for a, b, x, w in high],
        )


def _piece(steps: list[tuple[_Line, _Line, _Line, _Line]]) -> _Piece:
    low, least, most, high = zip(*steps, strict=True)
    return _Piece(low, least, least if most == least else most, high)


def _lines(
    curve: list[tuple[int, Span]], rises: bool, amount: int | None
) -> tuple[_Line, _Line, _Line, _Line]:
    """The lines of a step's curve up to *amount* from the point before; None: past the last."""
    if not curve:
        return (_flat(_NEVER_LEAST),) * 2 + (_flat(_NEVER_MOST),) * 2
    place = len(curve) if amount is None else bisect_left(curve, amount, key=itemgetter(0))
    if 0 < place < len(curve):
        (x, left), (end, right) = curve[place - 1], curve[place]
        low, likely, high = (_Line(a, b - a, x, end - x) for a, b in zip(left, right, strict=True))
        return low, likely, likely, high
    low, likely, high = map(_flat, curve[min(place, len(curve) - 1)][1])
    if place == 0 or not rises or len(curve) == 1:
        return low, likely, likely, high
    (x, before), (end, last) = curve[-2:]
    # One that falls does not go on.
    rising = [_Line(b, max(0, b - a), end, end - x) for a, b in zip(before, last, strict=True)]
    return low, likely, rising[1], rising[2]


def _flat(cost: int) -> _Line:
    return _Line(cost, 0, 0, 1)


class Pricer:
    """What the steps cost a TD, if *cause* alone drives the costs, where it is given."""

    def __init__(self, calibration: Calibration, cause: CostCause | None = None) -> None:
        causes = {
            action: (cause,) if cause in step.grows_with else step.grows_with
            for action, step in calibration.steps.items()
        }
        growing = [
            action
            for action, step in calibration.steps.items()
            if len(step.points) > 1 and causes[action]
        ]
        plain = [action for action in calibration.steps if action not in growing]
        self.actions = (*growing, *plain)
        costs = [calibration.steps[each].points[0].cost for each in plain]
        self._plain = Prices(*([cost[part] for cost in costs] for part in range(3)))
        self._curves = [
            (
                each,
                _Curve(each, [(calibration.steps[a], each in causes[a]) for a in growing]),
            )
            for each in CostCause
            if any(each in causes[action] for action in growing)
        ]
        self._by_vcpus: dict[int, _Columns] = {}

    def at(self, vcpus: int, mapped_bytes: int) -> Prices:
        """Return the cost of each step."""
        columns = [
            self._of_vcpus(curve, vcpus)
            if cause is not CostCause.MEMORY
            else curve.at(mapped_bytes)
            for cause, curve in self._curves
        ]
        if not columns:
            return self._plain
        low, least, most, high = columns[0]
        for other in columns[1:]:
            low = list(map(min, low, other.low))
            least = list(map(min, least, other.least))
            most = list(map(max, most, other.most))
            high = list(map(max, high, other.high))
        likely = [(a + b) >> 1 for a, b in zip(least, most, strict=True)]
        plain = self._plain
        return Prices([*low, *plain.low], [*likely, *plain.likely], [*high, *plain.high])

    def _of_vcpus(self, curve: _Curve, vcpus: int) -> _Columns:
        """Of vCPUs there are few values and many TDs."""
        found = self._by_vcpus.get(vcpus)
        if found is None:
            if len(self._by_vcpus) >= _CACHED:
                self._by_vcpus.clear()
            found = self._by_vcpus[vcpus] = curve.at(vcpus)
        return found


class _Sizes(NamedTuple):
    """A TD in what its counts of steps depend on."""

    guest_pages: int
    vcpus: int
    control_pages: int


class _Count(NamedTuple):
    """How often a step is done: so often a guest page, a vCPU, a control page, and anyway."""

    page: int
    vcpu: int
    control_page: int
    anyway: int


# More pages than faults can be put into.
_SOME = _Sizes(4 * MAX_INJECTED, 1, 1)


def _counts(
    plan: Plan, platform: Platform, injections: Injections
) -> dict[tuple[Phase, Action], _Count]:
    """The counts of `step_counts`, which is linear: from its values at four places."""

    def at(pages: int, vcpus: int, control_pages: int) -> Counts:
        sizes = _Sizes(*map(add, _SOME, (pages, vcpus, control_pages)))
        return step_counts(sizes, plan, platform, injections)

    base, *ones = at(0, 0, 0), at(1, 0, 0), at(0, 1, 0), at(0, 0, 1)
    found = {}
    for key, count in base.items():
        page, vcpu, control = (each[key] - count for each in ones)
        anyway = count - sum(map(mul, (page, vcpu, control), _SOME))
        found[key] = _Count(page, vcpu, control, anyway)
    return found


class _Sum:
    """The time of some steps for any TD."""

    def __init__(self, actions: Sequence[Action], counts: Iterable[tuple[Action, _Count]]) -> None:
        summed = dict.fromkeys(actions, _Count(0, 0, 0, 0))
        for action, count in counts:
            summed[action] = _Count(*map(add, summed[action], count))
        # Neighbours that are done equally often are one term.
        self._terms: list[tuple[slice, _Count]] = []
        start = 0
        for count, alike in groupby(summed.values()):
            stop = start + sum(1 for _ in alike)
            if any(count):
                self._terms.append((slice(start, stop), count))
            start = stop

    def of(self, prices: Prices, td: _Sizes) -> Span:
        low = likely = high = 0
        lows, likelies, highs = prices
        pages, vcpus, control_pages = td
        for steps, (page, vcpu, control, anyway) in self._terms:
            count = page * pages + vcpu * vcpus + control * control_pages + anyway
            low += count * sum(lows[steps])
            likely += count * sum(likelies[steps])
            high += count * sum(highs[steps])
        return Span(low, likely, high)


class Costs(NamedTuple):
    """What a TD's teardown costs."""

    batch: Batch
    prices: Prices
    td: _Sizes

    @property
    def total(self) -> Span:
        """All of it."""
        return self.batch.total.of(self.prices, self.td)

    @property
    def clear(self) -> Span:
        """What skipping the clear saves."""
        return self.batch.clear.of(self.prices, self.td)

    @property
    def phases(self) -> tuple[Span, ...]:
        """Phases A, B and C."""
        return tuple(each.of(self.prices, self.td) for each in self.batch.phases)


class Batch:
    """The closed form of one plan on one platform with one set of faults."""

    def __init__(
        self, plan: Plan, platform: Platform, pricer: Pricer, injections: Injections = NOTHING
    ) -> None:
        counts = _counts(plan, platform, injections)
        actions = pricer.actions
        self.pricer = pricer
        self.total = _Sum(actions, ((action, n) for (_, action), n in counts.items()))
        self.clear = _Sum(
            actions,
            ((action, n) for (_, action), n in counts.items() if action is Action.CLEAR),
        )
        self.phases = tuple(
            _Sum(actions, ((action, n) for (phase, action), n in counts.items() if phase is each))
            for each in (Phase.GUEST_PAGES, Phase.HKID, Phase.CONTROL_PAGES)
        )

    def totals(self, tds: Iterable[tuple[int, int]]) -> Iterator[Span]:
        """Return what `estimate` says of TDs of so many mapped bytes and vCPUs in all."""
        for mapped_bytes, vcpus in tds:
            yield self.at(mapped_bytes, vcpus).total

    def at(self, mapped_bytes: int, vcpus: int, shares: Sequence[int] = ()) -> Costs:
        """Return the costs of a TD, which must have as many pages as faults.

        With *shares*, of `SHARE_BITS` and one for each of the pricer's actions, each
        step costs so much of its range and not the whole range.
        """
        prices = self.pricer.at(vcpus, mapped_bytes)
        if shares:
            drawn = [
                low + ((high - low) * share >> SHARE_BITS)
                for low, high, share in zip(prices.low, prices.high, shares, strict=True)
            ]
            prices = Prices(drawn, drawn, drawn)
        pages = mapped_bytes // PAGE_BYTES
        td = _Sizes(pages, vcpus, count_control_pages(pages, vcpus))
        return Costs(self, prices, td)
