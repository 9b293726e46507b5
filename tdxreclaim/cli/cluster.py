"""The workers of a Dask cluster: chunks, retries and lost workers are Dask's."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import re
import time
from concurrent.futures import CancelledError, Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import click

from tdxreclaim import __version__
from tdxreclaim.cli.executors import Lost, OtherVersion, Pool, checked_result, other_version
from tdxreclaim.errors import ClusterError, MalformedInputError, UsageError
from tdxreclaim.facts.sources.base import read_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

_CONNECT_SECONDS = 10

# How often the workers are counted; while there are none, more often.
_ASK_SECONDS = 5
_JOIN_SECONDS = 0.5

_ADDRESS = re.compile(r"((?:tcp|tls|ws|wss)://)?([^\s/:]+|\[[0-9a-fA-F:.%\w]+\]):(\d{1,5})")


class Cluster(Pool):
    """The workers of the Dask scheduler at ``[SCHEME://]HOST:PORT``, or of its ``FILE.json``."""

    # A worker has its next chunk before it asks for one.
    ahead = 2

    def __init__(self, address: str) -> None:
        self._name = f"dask:{address}"
        self._client = _connect(self._name, address)
        self._executor = self._client.get_executor(pure=False)
        self._said = ""
        self._threads = 0
        self._counted = 0.0
        self.folder = os.getcwd()
        try:
            self._say(f"Dask's dashboard: {self._client.dashboard_link}")
            self._count()
            while not self._threads:
                time.sleep(_JOIN_SECONDS)
                self._count()
            self._check_workers()
        except BaseException:
            self._client.close()
            raise

    def submit(self, work: Callable[[Chunk], Result], chunk: Chunk) -> Future[Result | Lost]:
        """Hand over one chunk."""
        future: Future[Result | Lost] = self._executor.submit(
            checked_result, work, chunk, __version__
        )
        return future

    def outcome(self, future: Future[Result | Lost]) -> tuple[Result | Lost] | None:
        """Return what came out, ``None`` if Dask gave the chunk up because workers died.

        Raises:
            ClusterError: a worker is of another version, or the scheduler is gone.

        """
        from distributed import KilledWorker
        from distributed.scheduler import NoWorkerError

        try:
            result = future.result()
        except KilledWorker:
            return None
        except (CancelledError, NoWorkerError) as error:
            raise self._gone(error) from error
        except Exception:
            # Is it a bug, or does the worker run another version?
            self._check_workers()
            raise
        if isinstance(result, OtherVersion):
            self._check_workers()
            raise self._other("a worker", result)
        return (result,)

    def wait(self, done: SimpleQueue[Future[Result | Lost]]) -> Future[Result | Lost]:
        """Return the next that is done; say so if there is nobody to do it."""
        while True:
            if time.monotonic() - self._counted > _ASK_SECONDS:
                self._count()
            with contextlib.suppress(Empty):
                return done.get(timeout=_ASK_SECONDS)

    def _count(self) -> None:
        """See how many workers there are: they come and go."""
        if self._client.status == "running":
            try:
                self._threads = sum(self._client.nthreads().values())
            except OSError as error:
                raise self._gone(error) from error
            if not self._threads:
                self._say(f"{self._name}: no workers; waiting for some (Ctrl-C stops)")
            self.parallel = max(1, self._threads)
        self._counted = time.monotonic()

    def _check_workers(self) -> None:
        """Raise if a worker is of another version; who does not answer is asked again by its first chunk."""
        try:
            found = self._client.run(other_version, __version__, on_error="return")
        except OSError as error:
            raise self._gone(error) from error
        for worker, said in found.items():
            # What it could not even import comes as an exception of whatever kind.
            if said is not None and not isinstance(said, OSError):
                raise self._other(f"worker {worker}", said)

    def _gone(self, error: BaseException) -> ClusterError:
        why = str(error) or type(error).__name__
        return ClusterError(self._name, f"the scheduler went away, or gave the work up ({why})")

    def _other(self, worker: str, said: OtherVersion | Exception) -> ClusterError:
        has = said.version if isinstance(said, OtherVersion) else f"none that fits ({said})"
        return ClusterError(
            self._name, f"tdxreclaim {__version__} is here, {worker} has {has}: install the same"
        )

    def _say(self, line: str) -> None:
        if line != self._said:
            click.echo(line, err=True)
            self._said = line

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(wait=False)
        self._client.close()
        logging.disable(logging.NOTSET)


def _connect(name: str, address: str) -> Client:
    match = _ADDRESS.fullmatch(_in_file(address) if address.endswith(".json") else address)
    # Dask would try for good to connect to a port that there is not.
    if match is None or not 0 < int(match[3]) < 1 << 16:
        raise UsageError("--executor", f"{name!r} is not dask:HOST:PORT or dask:FILE.json")
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise UsageError(
            "--executor", f'needs Dask ({error}): pip install "tdxreclaim[cluster]"'
        ) from error
    # What Dask logs of its connections we say in a line.
    logging.disable(logging.CRITICAL)
    gc.enable()  # off since the start, see __main__
    try:
        return Client(match[0], timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(name, str(error)) from error


def _in_file(path: str) -> str:
    """Return the address in a file of ``dask scheduler --scheduler-file``.

    Raises:
        TdxReclaimError: it cannot be read, or has none.

    """
    try:
        return str(json.loads(read_file(path))["address"])
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedInputError(
            path, f"not what dask --scheduler-file writes ({error})"
        ) from error
