"""One seam, several engines: nothing lost, nothing doubled, whatever dies."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tdxreclaim.cli.executors import Lost, open_workers
from tdxreclaim.errors import HostReadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTS = Path(__file__).parents[1] / "hosts"

# Every chunk is a Python expression, and `eval` the work: a function that any
# process can import.
KILLER = "__import__('os').kill(__import__('os').getpid(), 9)"
OWN_ERROR = "__import__('tdxreclaim.facts.sources.base').facts.sources.base.read_file('absent')"
BUG = "1 / 0"


@pytest.mark.parametrize("jobs", [0, 1, 2, 3])
def test_every_chunk_comes_back_once(jobs: int) -> None:
    chunks = [f"{number} + 1" for number in range(50)]
    with open_workers(None, jobs) as workers:
        found = list(workers.each(eval, chunks))

    assert sorted(found) == sorted((f"{number} + 1", number + 1) for number in range(50))


def test_of_endless_chunks_only_those_are_taken_that_are_needed() -> None:
    taken = count()

    def chunks() -> Iterator[str]:
        while True:
            yield f"{next(taken)}"

    with open_workers(None, 2) as workers:
        found = workers.each(eval, chunks())
        for _ in range(20):
            next(found)
        assert next(taken) <= 20 + 2 * workers.parallel

    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("killers", [1, 3])
def test_a_chunk_that_kills_its_worker_is_lost_and_no_other(killers: int) -> None:
    chunks = [f"{number}" for number in range(30)]
    for at in range(killers):
        chunks[7 * at] = KILLER + " " * at
    with open_workers(None, 2) as workers:
        found = dict(workers.each(eval, chunks))

    assert found.keys() == set(chunks)
    lost = {chunk for chunk, result in found.items() if isinstance(result, Lost)}
    assert lost == {chunk for chunk in chunks if KILLER in chunk}
    assert all(found[chunk] == int(chunk) for chunk in found.keys() - lost)


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_of_our_errors_is_a_result(jobs: int) -> None:
    with open_workers(None, jobs) as workers:
        ((_, lost),) = workers.each(eval, [OWN_ERROR])

    assert isinstance(lost, Lost)
    assert lost.why == "absent: No such file or directory"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bug_is_raised(jobs: int) -> None:
    with open_workers(None, jobs) as workers, pytest.raises(ZeroDivisionError):
        list(workers.each(eval, ["1", BUG, "2"]))

    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("flags", [(), ("-E",)], ids=repr)
def test_processes_run_nothing_of_the_current_directory(
    flags: tuple[str, ...], tmp_path: Path
) -> None:
    for name in ("multiprocessing", "click", "signal"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    command = [sys.executable, *flags, "-m", "tdxreclaim", "fleet", str(HOSTS), "--jobs", "2"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)

    assert (ran.returncode, ran.stderr) == (20, b"")
    assert not (tmp_path / "executed").exists()


def test_an_error_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(HostReadError("cpuinfo", "denied", 13)))  # noqa: S301

    assert isinstance(error, HostReadError)
    assert (error.what, error.why, error.errno) == ("cpuinfo", "denied", 13)
    assert str(error) == "cpuinfo: denied"


@pytest.mark.parametrize("executor", ["", "dask", "dask:", "slurm:x", "processes"])
def test_another_executor_is_refused(executor: str) -> None:
    with pytest.raises(UsageError, match="--executor"):
        open_workers(executor, 1)


def test_without_dask_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r'pip install "tdxreclaim\[cluster\]"'):
        open_workers("dask:127.0.0.1:8786", None)


def test_jobs_are_not_those_of_a_cluster() -> None:
    with pytest.raises(UsageError, match="--jobs: has no effect with --executor"):
        open_workers("dask:127.0.0.1:8786", 2)
