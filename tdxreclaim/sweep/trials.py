"""The trials of a sweep: each is priced by the closed form, and depends on nothing but itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.costs.batch import Batch, Costs, Pricer
from tdxreclaim.costs.calibration import CostCause
from tdxreclaim.costs.drain import drain_alike
from tdxreclaim.engine.faults import Injections
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLAN_OF_ORDER, ClearWhen, Order
from tdxreclaim.sweep.draws import Asked, Size, Trial, Trials
from tdxreclaim.sweep.kinds import OPEN, Taken
from tdxreclaim.sweep.plan import Command
from tdxreclaim.tables.teardown import Action
from tdxreclaim.units import PAGE_BYTES, Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tdxreclaim.costs.calibration import Calibration
    from tdxreclaim.sweep.plan import SweepPlan

_MOST_KEPT = 256


class Setting(NamedTuple):
    """What is decided of a host that was asked about."""

    cpu: str
    kernel: str
    affected: bool
    order: Order
    clearing: ClearWhen

    @property
    def clears(self) -> bool:
        """Whether it clears."""
        return self.clearing.clears(erratum=self.affected)

    @property
    def unsafe(self) -> bool:
        """Whether it leaves out clearing that its CPU needs."""
        return self.affected and not self.clears

    @property
    def policy(self) -> tuple[Order, ClearWhen]:
        """What times are told apart by."""
        return self.order, self.clearing


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All that a worker needs to know."""

    plan: SweepPlan
    calibration: Calibration
    settings: Mapping[Asked, Setting]
    assumed: tuple[str, ...]
    """What was not known of the hosts."""

    @property
    def policies(self) -> tuple[tuple[Order, ClearWhen], ...]:
        """The policies, in a fixed order."""
        found = {setting.policy for setting in self.settings.values()}
        return tuple((o, c) for o in Order for c in ClearWhen if (o, c) in found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A trial and what came of it."""

    number: int
    trial: Trial
    where: Sequence[int]
    """On each axis that is varied: its draw, or the number of its value."""
    setting: Setting
    costs: Costs
    """Of each TD, with the whole ranges unless they are drawn."""
    time: Span
    outside: bool
    """Whether the TD is outside what the calibration timed."""

    @property
    def clear(self) -> Span | None:
        """What skipping the clear saves; None of a drain."""
        if self.trial.load.tds is not None:
            return None
        return _taken(self.costs.clear, self.trial.priced.cost)


class Runner:
    """Does trials; what several have in common is worked out once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._trials = Trials(job.plan)
        self._pricers: dict[str, Pricer] = {}
        self._batches: dict[tuple[object, ...], Batch] = {}
        rows = job.calibration.rows
        # Where nothing was timed, everything is outside.
        vcpus, sizes = [row.vcpus for row in rows] or [0], [row.memory_bytes for row in rows] or [0]
        self._vcpus, self._sizes = (min(vcpus), max(vcpus)), (min(sizes), max(sizes))

    def run(self, start: int, stop: int) -> Iterator[Outcome]:
        """Do the trials from *start* up to *stop*."""
        drain = self._job.plan.command is Command.DRAIN
        for index in range(start, stop):
            trial, where = self._trials.at(index)
            setting = self._job.settings[trial.host]
            costs = self._costs(index, trial, setting)
            time = _drained(trial, setting, costs) if drain else costs.total
            yield Outcome(
                number=index,
                trial=trial,
                where=where,
                setting=setting,
                costs=costs,
                time=_taken(time, trial.priced.cost),
                outside=self._outside(trial.td),
            )

    def _outside(self, td: Size) -> bool:
        least, most = self._sizes
        inside = least <= td.mapped_bytes <= most
        return not (inside and self._vcpus[0] <= td.vcpus <= self._vcpus[1])

    def _costs(self, index: int, trial: Trial, setting: Setting) -> Costs:
        batch = self._batch(trial, setting)
        shares: Sequence[int] = ()
        actions = batch.pricer.actions
        if trial.priced.cost == Taken.DRAWN_TOGETHER:
            shares = self._trials.cost_draws(index, 1) * len(actions)
        elif trial.priced.cost == Taken.DRAWN_APART:
            drawn = dict(zip(Action, self._trials.cost_draws(index, len(Action)), strict=True))
            shares = [drawn[action] for action in actions]
        return batch.at(trial.td.mapped_bytes, trial.td.vcpus, shares)

    def _batch(self, trial: Trial, setting: Setting) -> Batch:
        key = (setting.order, setting.clears, trial.priced.cause, trial.faults)
        batch = self._batches.get(key)
        if batch is None:
            if len(self._batches) >= _MOST_KEPT:
                self._batches.clear()
            batch = self._batches[key] = self._make(trial, setting)
        return batch

    def _make(self, trial: Trial, setting: Setting) -> Batch:
        busy, reclaim_fails, fatal = trial.faults
        clearing = ClearWhen.ALWAYS if setting.clears else ClearWhen.NEVER
        return Batch(
            PLAN_OF_ORDER[setting.order].with_clearing(clearing),
            Platform(erratum=setting.affected),
            self._pricer(trial.priced.cause),
            Injections(busy=busy, reclaim_fails=reclaim_fails, fatal=bool(fatal)),
        )

    def _pricer(self, cause: str) -> Pricer:
        pricer = self._pricers.get(cause)
        if pricer is None:
            alone = None if cause == OPEN else CostCause(cause)
            pricer = self._pricers[cause] = Pricer(self._job.calibration, alone)
        return pricer


_PARTS = {Taken.LOW.value: 0, Taken.LIKELY.value: 1, Taken.HIGH.value: 2}


def _taken(time: Span, cost: str) -> Span:
    part = _PARTS.get(cost)
    return time if part is None else Span(time[part], time[part], time[part])


def _drained(trial: Trial, setting: Setting, costs: Costs) -> Span:
    tds, at_once, cpus, bandwidth = trial.load
    pages = trial.td.mapped_bytes // PAGE_BYTES * (tds or 1)
    return drain_alike(
        costs.phases,
        tds or 1,
        at_once=at_once if isinstance(at_once, int) else None,
        cpus=cpus,
        # Each page is written back, and cleared where the kernel does.
        moved_bytes=pages * PAGE_BYTES * (1 + setting.clears),
        bandwidth=bandwidth,
    )


class Chunk(NamedTuple):
    """Trials that are done together: from *start* up to *stop*."""

    number: int
    start: int
    stop: int


# A hundred chunks keep many workers busy, and handing them over costs little; none takes long.
_CHUNKS = 100
_LEAST_TRIALS, _MOST_TRIALS = 250, 4000


def chunk_size(trials: int) -> int:
    """Return how many trials a chunk has: of the number of trials alone."""
    return min(max(-(-trials // _CHUNKS), _LEAST_TRIALS), _MOST_TRIALS)


def cut(trials: int, part: int = 1, of: int = 1) -> list[Chunk]:
    """Return the chunks of part *part* (from 1) of *of*."""
    size = chunk_size(trials)
    return [
        Chunk(number, start, min(start + size, trials))
        for number, start in enumerate(range(0, trials, size))
        if number % of == part - 1
    ]
