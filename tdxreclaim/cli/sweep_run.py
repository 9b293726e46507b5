"""A sweep from its job to what is printed: what is done is kept, what is missing is done."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tdxreclaim import __version__
from tdxreclaim.cli import parts
from tdxreclaim.cli.executors import Lost
from tdxreclaim.cli.progress import Progress
from tdxreclaim.cli.sweep_work import do_chunk
from tdxreclaim.costs.toml import digest_of, dump
from tdxreclaim.errors import (
    ClusterError,
    InterruptedWorkError,
    MalformedInputError,
    OutputError,
    UsageError,
)
from tdxreclaim.sweep.tally import Tally
from tdxreclaim.sweep.trials import cut

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tdxreclaim.cli.executors import Workers
    from tdxreclaim.cli.parts import Part
    from tdxreclaim.sweep.trials import Job

PART_SCHEMA = "tdxreclaim.sweep-part/1"


MOST_SHARDS = 999_999


class Shard(NamedTuple):
    """Part *part* (from 1) of *of*."""

    part: int = 1
    of: int = 1


class Results:
    """All results of a job, in one file or several.

    Raises:
        MalformedInputError: some are missing.
    """

    def __init__(self, job: Job, files: Sequence[Part], shards: Sequence[Shard]) -> None:
        self.job = job
        self._of: dict[int, Part] = {}
        for file, shard in zip(files, shards, strict=True):
            chunks = [chunk.number for chunk in cut(job.plan.trials, *shard)]
            missing = len(set(chunks) - file.chunks)
            if missing:
                why = f"not whole, {missing} of {len(chunks)} chunks are missing: run its command again"
                raise MalformedInputError(file.path, why)
            self._of.update(dict.fromkeys(chunks, file))

    def tally(self) -> Tally:
        """Return what all trials come to.

        Raises:
            MalformedInputError: somebody else wrote them.
        """
        tally = Tally(self.job.plan)
        for number, file in sorted(self._of.items(), key=itemgetter(0)):
            try:
                tally.read(file.chunk(number)["tally"])
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise MalformedInputError(file.path, f"chunk {number} is none of sweep") from error
        return tally

    def rows(self) -> Iterator[str]:
        """Return the rows of each chunk in turn."""
        for number, file in sorted(self._of.items(), key=itemgetter(0)):
            yield str(file.chunk(number).get("rows"))


def header_of(job: Job, form: str | None, shard: Shard) -> dict[str, Any]:
    """Return of what the results are."""
    return {
        "schema": PART_SCHEMA,
        "version": __version__,
        "plan": job.plan.digest,
        "seed": job.plan.seed,
        "calibration": f"{job.calibration.name} {digest_of(job.calibration)}",
        "rows": form,
        "shard": list(shard),
        "plan_text": job.plan.text,
        "calibration_text": dump(job.calibration),
    }


_ALIKE = {
    "schema": "format",
    "version": "tdxreclaim",
    "plan": "plan",
    "seed": "seed",
    "calibration": "calibration",
    "rows": "rows",
    "shard": "shard",
}


def differences(
    theirs: dict[str, Any], ours: dict[str, Any], *, but: tuple[str, ...] = ()
) -> list[str]:
    """Return in what the results of two headers are not of one run, both named."""
    return [
        f"{name} {_shown(theirs.get(key))}, not {_shown(ours.get(key))}"
        for key, name in _ALIKE.items()
        if key not in but and theirs.get(key) != ours.get(key)
    ]


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "/".join(map(str, value))
    return "none" if value is None else str(value)[:80]


class Kept(NamedTuple):
    """Where results are kept while there are not all of them."""

    file: Part
    resumes: bool
    """Whether who runs the same command again finds them."""


@contextlib.contextmanager
def keep(output: str | None, header: dict[str, Any]) -> Iterator[Kept]:
    """Open the results beside *output*, those of an earlier run with them; without it, for now.

    Raises:
        OutputError: they cannot be written, or are of another run.
    """
    path = _beside(output)
    if path is None:
        opened = parts.temporary("the temporary file of sweep")
    else:
        opened = parts.open_to_write(path)
    with opened as file:
        if file.header and (found := differences(file.header, header)):
            why = f"is of another run: {'; '.join(found)}: remove it, or give another --output"
            raise OutputError(file.path, why)
        file.start(header)
        yield Kept(file, path is not None)


def _beside(output: str | None) -> str | None:
    """The name of the file for results so far; None where none can stand beside the output."""
    if output is None or output == "-":
        return None
    if not output:
        raise UsageError("--output", "the name is empty")
    path = os.path.realpath(output)
    with contextlib.suppress(OSError):
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise OutputError(output, "is a directory")
        if not stat.S_ISREG(mode):
            return None
    return f"{path}.partial"


def do_missing(job: Job, form: str | None, shard: Shard, kept: Kept, workers: Workers) -> None:
    """Do the chunks of a shard that are not there yet, and keep each as it comes.

    Raises:
        InterruptedWorkError: Ctrl-C; says where what is done is kept.
        ClusterError: some are lost.
    """
    chunks = cut(job.plan.trials, *shard)
    total = sum(chunk.stop - chunk.start for chunk in chunks)
    missing = [chunk for chunk in chunks if chunk.number not in kept.file.chunks]
    done = total - sum(chunk.stop - chunk.start for chunk in missing)
    if done and kept.resumes:
        click.echo(
            f"tdxreclaim: {kept.file.path}: goes on at {done:,} of {total:,} trials", err=True
        )
    lost: list[str] = []
    try:
        with Progress("sweep", "trials") as progress:
            progress.show(done, total)
            for chunk, result in workers.each(partial(do_chunk, job, form), missing):
                if isinstance(result, Lost):
                    lost.append(f"trials {chunk.start} to {chunk.stop - 1}: {result.why}")
                    continue
                kept.file.add(chunk.number, result._asdict())
                done += chunk.stop - chunk.start
                progress.show(done, total)
    except InterruptedWorkError as error:
        raise InterruptedWorkError(error.what, error.why + _go_on(kept)) from error
    if lost:
        first = f"{len(lost)} of {len(chunks)} chunks lost, the first: {lost[0]}"
        raise ClusterError("sweep", first + _go_on(kept))


def _go_on(kept: Kept) -> str:
    if not kept.resumes:
        return "; with --output the rest can be done later"
    return f"; {kept.file.path} keeps what is done: run the same command to go on"


class Parts(contextlib.ExitStack):
    """The files of all shards of one run.

    Raises:
        MalformedInputError, HostReadError: one is missing, there twice, of
            another run, not whole, or no such file.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__()
        self.files: list[Part] = []
        try:
            for path in paths:
                self.files.append(self.enter_context(parts.open_to_read(path)))
            self._check()
        except BaseException:
            self.close()
            raise

    @property
    def header(self) -> dict[str, Any]:
        """What all of them are of."""
        return self.files[0].header

    @property
    def shards(self) -> list[Shard]:
        """Which part each is."""
        return [_shard_of(file) for file in self.files]

    def _check(self) -> None:
        first, *others = self.files
        if first.header.get("schema") != PART_SCHEMA:
            raise MalformedInputError(first.path, "not what sweep --shard writes")
        if (version := first.header.get("version")) != __version__:
            why = f"written by tdxreclaim {_shown(version)}, not {__version__}"
            raise MalformedInputError(first.path, why)
        for other in others:
            found = differences(other.header, first.header, but=("shard",))
            if found:
                why = f"not of the run of {first.path}: {'; '.join(found)}"
                raise MalformedInputError(other.path, why)
        shards = self.shards
        if len({shard.of for shard in shards}) > 1:
            named = ", ".join(sorted({f"1/{shard.of}" for shard in shards}))
            raise MalformedInputError("merge", f"shards of {named}: not of one run")
        there = Counter(shard.part for shard in shards)
        for number in range(1, shards[0].of + 1):
            if there[number] != 1:
                times = "there twice" if there[number] else "missing"
                raise MalformedInputError("merge", f"part {number} of {shards[0].of} is {times}")


def _shard_of(file: Part) -> Shard:
    shard = file.header.get("shard")
    match shard:
        case [int(part), int(of)] if 1 <= part <= of <= MOST_SHARDS:
            return Shard(part, of)
    raise MalformedInputError(file.path, "not what sweep --shard writes")
