"""The workers of a Dask cluster: chunks, retries and lost workers are Dask's."""

from __future__ import annotations

import gc
import logging
import re
from concurrent.futures import CancelledError, Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import click

from tdxreclaim.cli.executors import Agreed, Differs, Lost, Pool, checked_result, difference
from tdxreclaim.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

_CONNECT_SECONDS = 10

# How often a silent cluster is asked whether it still has workers.
_ASK_SECONDS = 5

_ADDRESS = re.compile(r"((?:tcp|tls|ws|wss)://)?([^\s/:]+|\[[0-9a-fA-F:.%\w]+\]):(\d{1,5})")


class Cluster(Pool):
    """The workers of the Dask scheduler at ``[SCHEME://]HOST:PORT``, or of its ``FILE.json``."""

    def __init__(self, address: str, agreed: Agreed) -> None:
        self._name = f"dask:{address}"
        self._agreed = agreed
        self._client = _connect(self._name, address)
        self._executor = self._client.get_executor(pure=False)
        self._said = ""
        try:
            self._say(f"Dask's dashboard: {self._client.dashboard_link}")
            self._check_workers()
            self._count()
        except BaseException:
            self._client.close()
            raise

    def submit(self, work: Callable[[Chunk], Result], chunk: Chunk) -> Future[Result | Lost]:
        """Hand over one chunk."""
        future: Future[Result | Lost] = self._executor.submit(
            checked_result, work, chunk, self._agreed
        )
        return future

    def outcome(self, future: Future[Result | Lost]) -> tuple[Result | Lost] | None:
        """Return what came out, ``None`` if Dask gave the chunk up because workers died.

        Raises:
            ClusterError: a worker differs from us, or the scheduler is gone.

        """
        from distributed import KilledWorker
        from distributed.scheduler import NoWorkerError

        try:
            result = future.result()
        except KilledWorker:
            return None
        except (CancelledError, NoWorkerError) as error:
            raise ClusterError(self._name, f"the scheduler gave the work up ({error})") from error
        except Exception:
            # Is it a bug, or does the worker run another version?
            self._check_workers()
            raise
        if isinstance(result, Differs):
            self._check_workers()
            raise ClusterError(self._name, f"a worker has {result.theirs}; here: {result.ours}")
        return (result,)

    def wait(self, done: SimpleQueue[Future[Result | Lost]]) -> Future[Result | Lost]:
        """Return the next that is done; say so if there is nobody to do it."""
        while True:
            try:
                return done.get(timeout=_ASK_SECONDS)
            except Empty:
                self._count()

    def _count(self) -> None:
        if self._client.status == "running":
            threads = sum(self._client.nthreads().values())
            if not threads:
                self._say(f"{self._name}: no workers; waiting for some (Ctrl-C stops)")
            self.parallel = max(1, threads)

    def _check_workers(self) -> None:
        """Raise if a worker differs; one that cannot answer is asked again with its first chunk."""
        found = self._client.run(difference, self._agreed, on_error="return")
        for worker, said in found.items():
            theirs, ours = f"no tdxreclaim that fits ({said})", f"version {self._agreed.version}"
            if isinstance(said, Differs):
                theirs, ours = said
            elif not isinstance(said, ImportError | AttributeError | TypeError):
                continue
            raise ClusterError(self._name, f"worker {worker} has {theirs}; here: {ours}")

    def _say(self, line: str) -> None:
        if line != self._said:
            click.echo(line, err=True)
            self._said = line

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(wait=False)
        self._client.close()
        logging.disable(logging.NOTSET)


def _connect(name: str, address: str) -> Client:
    match = _ADDRESS.fullmatch(address)
    in_file = address.endswith(".json")
    # Dask would try for good to connect to a port that there is not.
    if not in_file and (match is None or not 0 < int(match[3]) < 1 << 16):
        raise UsageError("--executor", f"{name!r} is not dask:HOST:PORT, or dask:FILE.json")
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise UsageError(
            "--executor", f'needs Dask ({error}): pip install "tdxreclaim[cluster]"'
        ) from error
    # What Dask logs of its connections we say in a line.
    logging.disable(logging.CRITICAL)
    gc.enable()  # off since the start, see __main__
    where = {"scheduler_file": address} if in_file else {"address": address}
    try:
        return Client(**where, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(name, str(error)) from error
