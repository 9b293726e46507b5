"""What a worker does for a fleet: answers for captures, a few at a time."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.cli.executors import Lost
from tdxreclaim.errors import TdxReclaimError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tdxreclaim.cli.executors import Workers
    from tdxreclaim.fleet.answer import Answer

# Enough to outweigh handing them over, few enough for all workers to end together.
_MOST_AT_ONCE = 32
_ROUNDS = 8


class Checked(NamedTuple):
    """What a worker says of one capture: an answer and findings, or why there is none."""

    answer: Answer | None
    findings: tuple[tuple[str, str], ...] = ()
    what: str = ""
    why: str = ""


def check_all(
    workers: Workers, names: Sequence[str], *, triage: bool
) -> Iterator[tuple[str, Checked]]:
    """Give each name with what is said of it, in any order."""
    work = partial(check_captures, triage=triage, folder=workers.folder)
    size = max(1, min(_MOST_AT_ONCE, len(names) // (_ROUNDS * workers.parallel)))
    chunks = (tuple(names[at : at + size]) for at in range(0, len(names), size))
    for chunk, result in workers.each(work, chunks, split=_one_by_one):
        if isinstance(result, Lost):
            yield from ((name, Checked(None, what=name, why=result.why)) for name in chunk)
        else:
            yield from zip(chunk, result, strict=True)


def _one_by_one(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return ((name,) for name in names)


def check_captures(names: Sequence[str], *, triage: bool, folder: str) -> tuple[Checked, ...]:
    """Return the answers for the captured hosts of these *names*; never raises but for our bugs.

    *folder* is where relative ones are, on a machine that is not the user's.
    """
    return tuple(
        Checked(None, what=name, why=f"not there on worker {_machine()}: use a shared file system")
        if folder and not os.path.lexists(os.path.join(folder, name))
        else _check(name, os.path.join(folder, name), triage=triage)
        for name in names
    )


def _machine() -> str:
    from tdxreclaim.facts.sources.live import Live

    return (Live().read("proc/sys/kernel/hostname") or "").strip()


def _check(name: str, path: str, *, triage: bool) -> Checked:
    """Return the answer for the captured host at *path*, which the user called *name*."""
    from tdxreclaim.facts.host import read_host
    from tdxreclaim.facts.sources.recognise import open_capture
    from tdxreclaim.fleet.answer import answer_of
    from tdxreclaim.policy.decide import decide

    try:
        with contextlib.closing(open_capture(path).source) as source:
            answer = answer_of(decide(read_host(source)))
    except TdxReclaimError as error:
        what, why = (said.replace(path, name) for said in (error.what, error.why))
        return Checked(None, what=what, why=why)
    if not triage:
        return Checked(answer)
    try:
        return Checked(answer, _findings(path))
    except TdxReclaimError as error:
        return Checked(answer, what=name, why=f"triage: {error.why.replace(path, name)}")


def _findings(path: str) -> tuple[tuple[str, str], ...]:
    from tdxreclaim.cli.triage import run_triage

    found = run_triage((path,), None, None)
    return tuple((f.kind.id, str(f.severity)) for f in found.findings if f.severity.counts)
