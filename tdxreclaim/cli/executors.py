"""Work that can be cut anywhere, and the engines that do it: this process, processes, Dask.

What comes out does not depend on the engine.  A chunk that was run twice counts
once; one whose worker died is tried again alone, and is lost if it dies again.
"""

from __future__ import annotations

import contextlib
import os
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from tdxreclaim import __version__
from tdxreclaim.cli import completion
from tdxreclaim.errors import TdxReclaimError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Executor, Future
    from contextlib import AbstractContextManager
    from queue import SimpleQueue

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

_MOST_JOBS = 1024

_ADDRESS_PREFIX = "dask:"

_KILLED = "it killed the process that worked on it (out of memory?)"


executor_option = click.option(
    "--executor",
    metavar="dask:ADDRESS",
    shell_complete=completion.executors,
    help="Work on the cluster of this Dask scheduler, not on this machine.",
)


def _parse_jobs(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    from tdxreclaim.cli.values import parse_number

    return max(1, parse_number("--jobs", text, _MOST_JOBS))


jobs_option = click.option(
    "--jobs",
    metavar="N",
    callback=_parse_jobs,
    help="How many processes of this machine work; default: the CPUs.",
)


class Lost(NamedTuple):
    """There is no result of a chunk: its worker died, or one of our errors was raised."""

    why: str


class OtherVersion(NamedTuple):
    """A worker is of another version than who asks."""

    version: str


def open_workers(executor: str | None, jobs: int | None) -> AbstractContextManager[Workers]:
    """Return the workers that ``--executor`` and ``--jobs`` (``None``: the CPUs) ask for.

    Raises:
        UsageError: an option makes no sense.
        ClusterError: it cannot be reached, or a worker of it is of another version.

    """
    if executor is not None:
        if not executor.startswith(_ADDRESS_PREFIX):
            raise UsageError("--executor", f"{executor!r} is not dask:ADDRESS")
        if jobs is not None:
            raise UsageError("--jobs", "has no effect with --executor, whose workers are there")
        from tdxreclaim.cli.cluster import Cluster

        return Cluster(executor.removeprefix(_ADDRESS_PREFIX))
    count = len(os.sched_getaffinity(0)) if jobs is None else jobs
    # Under -E a new process would look into the current directory first, see _clean_start.
    unsafe = sys.flags.ignore_environment and not sys.flags.safe_path
    return Workers() if count < 2 or unsafe else Processes(count)  # noqa: PLR2004


class Workers(contextlib.AbstractContextManager["Workers"]):
    """This process alone, and what every engine does."""

    parallel = 1
    """How many chunks are worked on at once, as far as it is known."""

    folder = ""
    """What relative paths are relative to, for a worker; empty: it is where we are."""

    def each(
        self,
        work: Callable[[Chunk], Result],
        chunks: Iterable[Chunk],
        *,
        split: Callable[[Chunk], Iterable[Chunk]] | None = None,  # noqa: ARG002 - only we die of it
    ) -> Iterator[tuple[Chunk, Result | Lost]]:
        """Give each chunk with its result as it is done; takes *chunks* only as it goes on.

        *work* is a function of a module (or a ``partial`` of one): workers
        import it.  A bug in it is raised here.  *split* cuts a chunk whose
        worker died: its pieces come in its place, so that only one is lost.
        """
        for chunk in chunks:
            yield chunk, _result(work, chunk)

    def __exit__(self, *_: object) -> None:
        pass


class Pool(Workers):
    """Workers behind a `concurrent.futures.Executor`, which may die."""

    ahead = 1
    """Chunks handed over, for each that is worked on."""

    def each(
        self,
        work: Callable[[Chunk], Result],
        chunks: Iterable[Chunk],
        *,
        split: Callable[[Chunk], Iterable[Chunk]] | None = None,
    ) -> Iterator[tuple[Chunk, Result | Lost]]:
        """Give each chunk with its result as it is done; see `Workers.each`."""
        suspects: list[Chunk] = []
        for chunk, result in self._together(work, iter(chunks)):
            if result is not None:
                yield chunk, result[0]
            elif split is None:
                suspects.append(chunk)
            else:
                suspects += split(chunk)
        # It may have died of what ran beside it, or for want of memory: alone, it shows.
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
                for chunk in islice(chunks, max(0, self.ahead * self.parallel - len(running))):
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
    """Processes of this machine, started as they are needed.

    Each is an executor of its own with one chunk at a time: one that dies
    takes no other with it, and it is known what it had.
    """

    def __init__(self, jobs: int) -> None:
        self.parallel = jobs
        self._idle: list[Executor] = []
        self._busy: dict[Future[Any], Executor] = {}

    def submit(self, work: Callable[[Chunk], Result], chunk: Chunk) -> Future[Result | Lost]:
        """Hand over one chunk."""
        from concurrent.futures import BrokenExecutor
        from multiprocessing import resource_tracker

        with _clean_start():
            if not self._idle:
                # Before the next line: it lets signals through as it starts.
                resource_tracker.ensure_running()
            with _undisturbed():
                process = self._idle.pop() if self._idle else _start()
                try:
                    future = process.submit(_result, work, chunk)
                except BrokenExecutor:  # killed while it had nothing to do
                    process = _start()
                    future = process.submit(_result, work, chunk)
                self._busy[future] = process
        return future

    def outcome(self, future: Future[Result | Lost]) -> tuple[Result | Lost] | None:
        """Return what came out, ``None`` if the process died."""
        from concurrent.futures import BrokenExecutor

        process = self._busy.pop(future)
        if isinstance(future.exception(), BrokenExecutor):
            process.shutdown()
            return None
        self._idle.append(process)
        return (future.result(),)

    def __exit__(self, *_: object) -> None:
        with _undisturbed():
            self._end()

    def _end(self) -> None:
        import gc
        from multiprocessing import active_children

        if self._busy:
            # What still runs is not wanted any more, and nothing is left half done by it.
            for child in active_children():
                child.kill()
        while self._idle or self._busy:
            process = self._idle.pop() if self._idle else self._busy.popitem()[1]
            process.shutdown(cancel_futures=True)
            del process
        # What they shared goes with them: __main__ ends without a word to whoever keeps count.
        gc.collect()


def _start() -> Executor:
    import gc
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    gc.enable()  # off since the start, see __main__
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(1, context, _obey_parent)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put Ctrl-C and the like off until it is done; what starts meanwhile has them blocked."""
    import signal

    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGHUP})
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


def other_version(version: str) -> OtherVersion | None:
    """Return which version this is, ``None`` if it is *version*."""
    return None if version == __version__ else OtherVersion(__version__)


def checked_result(
    work: Callable[[Chunk], Result], chunk: Chunk, version: str
) -> Result | Lost | OtherVersion:
    """Return the result of *chunk*, unless this worker is not of *version*."""
    other = other_version(version)
    return _result(work, chunk) if other is None else other
