"""What a worker does of a sweep: a chunk of trials, as a tally and as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tdxreclaim.sweep.tally import Tally
from tdxreclaim.sweep.trials import Runner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tdxreclaim.sweep.trials import Chunk, Job, Outcome


class Done(NamedTuple):
    """What came of a chunk."""

    tally: dict[str, Any]
    rows: str
    """In the form that was asked for; empty if in none."""


def do_chunk(job: Job, form: str | None, chunk: Chunk) -> Done:
    """Do the trials of a chunk; depends on nothing else, whoever does it and when."""
    tally = Tally(job.plan)
    outcomes = _counted(tally, job, Runner(job).run(chunk.start, chunk.stop))
    if form is None:
        for _ in outcomes:
            pass
        return Done(tally.write(), "")
    from tdxreclaim.report.sweep.rows import RENDERERS, rows

    shown = RENDERERS[form](rows(job, outcomes))
    return Done(tally.write(), shown)


def _counted(tally: Tally, job: Job, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    numbers = {policy: number for number, policy in enumerate(job.policies)}
    for outcome in outcomes:
        tally.add(numbers[outcome.setting.policy], outcome)
        yield outcome
