"""Work that can be cut anywhere, and the engines that do it: this process, processes, Dask.

What comes out does not depend on the engine.  A chunk that was run twice counts
once; one whose worker died is tried again alone, and is lost if it dies again.
"""

from __future__ import annotations

import contextlib
import os
import sys
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import click

from tdxreclaim import __version__
from tdxreclaim.errors import TdxReclaimError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Executor, Future
    from contextlib import AbstractContextManager
    from multiprocessing.process import BaseProcess
    from queue import SimpleQueue

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

_MOST_JOBS = 1024

_ADDRESS_PREFIX = "dask:"

# Chunks at work or waiting, for each that is worked on: a worker never waits for the next.
_AHEAD = 2

_KILLED = "it killed the process that worked on it (out of memory?)"


executor_option = click.option(
    "--executor",
    metavar="dask:ADDRESS",
    help="Work on the cluster of this Dask scheduler, not on this machine.",
)


jobs_option = click.option(
    "--jobs", metavar="N", help="How many processes of this machine work; default: the CPUs."
)


class Lost(NamedTuple):
    """There is no result of a chunk: its worker died, or one of our errors was raised."""

    why: str


class Agreed(NamedTuple):
    """What has to be the same on every worker."""

    version: str
    calibration: str | None = None
    """Name or absolute path."""
    digest: str | None = None


class Differs(NamedTuple):
    """What a worker has in place of what was agreed."""

    theirs: str
    ours: str


def parse_jobs(text: str | None) -> int:
    """Return the number of processes that ``--jobs`` asks for, at least 1.

    Raises:
        UsageError: it is no number.

    """
    if text is None:
        return len(os.sched_getaffinity(0))
    from tdxreclaim.cli.values import parse_number

    return max(1, parse_number("--jobs", text, _MOST_JOBS))


def open_workers(
    executor: str | None, jobs: int, *, calibration: str | None = None
) -> AbstractContextManager[Workers]:
    """Return the workers of ``--executor``; ``None``: *jobs* processes of this machine.

    *calibration* is what the work reads, a name or an absolute path: it has to
    be the same on every worker.

    Raises:
        UsageError: *executor* is none.
        ClusterError: it cannot be reached, or a worker of it differs from us.

    """
    if executor is not None:
        if not executor.startswith(_ADDRESS_PREFIX) or executor == _ADDRESS_PREFIX:
            raise UsageError("--executor", f"{executor!r} is not dask:ADDRESS")
        from tdxreclaim.cli.cluster import Cluster

        return Cluster(executor.removeprefix(_ADDRESS_PREFIX), agree(calibration))
    # Under -E a new process would look into the current directory first, see _clean_start.
    unsafe = sys.flags.ignore_environment and not sys.flags.safe_path
    return Workers() if jobs < 2 or unsafe else Processes(jobs)  # noqa: PLR2004


class Workers(contextlib.AbstractContextManager["Workers"]):
    """This process alone, and what every engine does."""

    parallel = 1
    """How many chunks are worked on at once, as far as it is known."""

    def each(
        self, work: Callable[[Chunk], Result], chunks: Iterable[Chunk]
    ) -> Iterator[tuple[Chunk, Result | Lost]]:
        """Give each chunk with its result as it is done; takes *chunks* only as it goes on.

        *work* is a function of a module (or a ``partial`` of one): workers
        import it.  A bug in it is raised here.
        """
        for chunk in chunks:
            yield chunk, _result(work, chunk)

    def __exit__(self, *_: object) -> None:
        pass


class Pool(Workers):
    """Workers behind a `concurrent.futures.Executor`, which may die."""

    def each(
        self, work: Callable[[Chunk], Result], chunks: Iterable[Chunk]
    ) -> Iterator[tuple[Chunk, Result | Lost]]:
        """Give each chunk with its result as it is done; see `Workers.each`."""
        suspects: list[Chunk] = []
        for chunk, result in self._together(work, iter(chunks)):
            if result is None:
                suspects.append(chunk)
            else:
                yield chunk, result[0]
        # Any of those that were under way may have been at fault: alone, it shows.
        for suspect in suspects:
            for chunk, result in self._together(work, iter((suspect,))):
                yield chunk, Lost(_KILLED) if result is None else result[0]

    def _together(
        self, work: Callable[[Chunk], Result], chunks: Iterator[Chunk]
    ) -> Iterator[tuple[Chunk, tuple[Result | Lost] | None]]:
        """Give each chunk with its result, ``None`` if its worker died."""
        from queue import SimpleQueue

        done: SimpleQueue[Future[Result | Lost]] = SimpleQueue()
        running: dict[Future[Result | Lost], Chunk] = {}
        try:
            while True:
                for chunk in islice(chunks, max(0, _AHEAD * self.parallel - len(running))):
                    future = self.submit(work, chunk)
                    running[future] = chunk
                    future.add_done_callback(done.put)
                if not running:
                    return
                future = self.wait(done)
                yield running.pop(future), self.outcome(future)
        finally:
            for future in running:
                future.cancel()

    def submit(self, work: Callable[[Chunk], Result], chunk: Chunk) -> Future[Result | Lost]:
        """Hand over one chunk."""
        raise NotImplementedError

    def outcome(self, future: Future[Result | Lost]) -> tuple[Result | Lost] | None:
        """Return what came out, ``None`` if the worker died."""
        raise NotImplementedError

    def wait(self, done: SimpleQueue[Future[Result | Lost]]) -> Future[Result | Lost]:
        """Return the next that is done."""
        return done.get()


class Processes(Pool):
    """Processes of this machine, started as they are needed."""

    def __init__(self, jobs: int) -> None:
        self.parallel = jobs
        self._pool: Executor | None = None
        self._others: set[BaseProcess] = set()

    def submit(self, work: Callable[[Chunk], Result], chunk: Chunk) -> Future[Result | Lost]:
        """Hand over one chunk, to new processes if one of those before died."""
        from concurrent.futures import BrokenExecutor

        with _clean_start():
            try:
                return self._open().submit(_result, work, chunk)
            except BrokenExecutor:
                self._close()
                return self._open().submit(_result, work, chunk)

    def outcome(self, future: Future[Result | Lost]) -> tuple[Result | Lost] | None:
        """Return what came out, ``None`` if a process died: which one had it, nobody knows."""
        from concurrent.futures import BrokenExecutor

        try:
            return (future.result(),)
        except BrokenExecutor:
            return None

    def _open(self) -> Executor:
        if self._pool is None:
            import gc
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor

            gc.enable()  # off since the start, see __main__
            self._others = set(multiprocessing.active_children())
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            self._pool = ProcessPoolExecutor(self.parallel, context, _obey_parent)
        return self._pool

    def _close(self) -> None:
        if self._pool is not None:
            import multiprocessing

            # What still runs is not wanted any more: reading does no harm by half.
            for process in {*multiprocessing.active_children()} - self._others:
                process.kill()
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __exit__(self, *_: object) -> None:
        self._close()


@contextlib.contextmanager
def _clean_start() -> Iterator[None]:
    """Start processes that import nothing from the current directory, nor run our script again."""
    main = sys.modules["__main__"].__dict__
    hidden = {name: main[name] for name in main.keys() & {"__file__", "__spec__"}}
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    main.pop("__file__", None)
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _obey_parent() -> None:
    """Leave Ctrl-C to the parent, and end with it, however it ends."""
    import multiprocessing
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _result(work: Callable[[Chunk], Result], chunk: Chunk) -> Result | Lost:
    try:
        return work(chunk)
    except TdxReclaimError as error:
        return Lost(str(error))
    except MemoryError:
        return Lost("there is not enough memory for it")


def agree(calibration: str | None) -> Agreed:
    """Return what this installation has."""
    if calibration is None:
        return Agreed(__version__)
    from tdxreclaim.costs.shipped import digest

    return Agreed(__version__, calibration, digest(calibration))


def difference(agreed: Agreed) -> Differs | None:
    """Return how this installation differs from the one that asks, ``None``: in nothing."""
    if agreed.version != __version__:
        return Differs(f"tdxreclaim {__version__}", f"tdxreclaim {agreed.version}")
    if agreed.calibration is None:
        return None
    try:
        own = agree(agreed.calibration)
    except TdxReclaimError as error:
        return Differs(str(error), f"calibration {agreed.calibration}")
    if own == agreed:
        return None
    name = f"calibration {agreed.calibration}"
    return Differs(f"{name} of digest {own.digest}", f"digest {agreed.digest}")


def checked_result(
    work: Callable[[Chunk], Result], chunk: Chunk, agreed: Agreed
) -> Result | Lost | Differs:
    """Return the result of *chunk*, unless this worker is not what was agreed."""
    differs = difference(agreed)
    return _result(work, chunk) if differs is None else differs
