#!/usr/bin/env python3
"""One worker of a Dask cluster against two, and a worker that is killed half way.

    python benchmarks/cluster.py [TRIALS]       # 200,000 unless told otherwise

Forty captures are read many times over, and a sweep is done; the time is of the
work, without the client's start.  Exits 1 if an answer differs from that of one
process, or two workers are less than 1.7 times as fast as one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tdxreclaim.cli.executors import open_workers
from tdxreclaim.cli.fleet_captures import check_captures
from tdxreclaim.cli.sweep_job import make_job
from tdxreclaim.cli.sweep_work import do_chunk
from tdxreclaim.costs.shipped import read_calibration
from tdxreclaim.sweep.plan import read_plan
from tdxreclaim.sweep.trials import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOSTS = Path(__file__).parents[1] / "tests" / "hosts"
SYSROOTS = Path(__file__).parents[2] / "shared" / "cases" / "sysroots"
CAPTURES = 40
TIMES = 15
ROUNDS = 3
LEAST_RATIO = 1.7

PLAN = """\
schema = "tdxreclaim.sweep-plan/1"
command = "simulate"
trials = {trials}
seed = 1

[axes]
memory = {{ from = "16GiB", to = "4TiB", scale = "log" }}
mapped = {{ from = "25%", to = "100%" }}
vcpus = [8, 32, 128]
cpu = ["spr", "gnr"]
kernel = ["6.17", "7.3"]
"""


class Cluster:
    """A scheduler on loopback, and its workers."""

    def __init__(self, folder: Path, workers: int) -> None:
        folder.mkdir()
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.address = f"dask:{self.file}"
        scheduler = self._start("scheduler", "--port", "0")
        self.workers = [self._start("worker", "--nthreads", "1") for _ in range(workers)]
        self._all = [scheduler, *self.workers]

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        local = ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(self.file))
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, *local],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        while not self.file.exists():
            time.sleep(0.1)

    def kill(self, *processes: subprocess.Popen[bytes]) -> None:
        """Kill these, nannies and workers alike; by default all."""
        for process in processes or self._all:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    started = Cluster(folder, workers)
    try:
        started.wait()
        yield started
    finally:
        started.kill()


def captures(folder: Path) -> list[str]:
    """Copy forty captures of hosts there, and return their names."""
    folder.mkdir()
    found = [*sorted(HOSTS.iterdir()), *sorted(SYSROOTS.glob("*.tar.gz"))][:CAPTURES]
    for path in found:
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, folder / path.name)
    return sorted(str(path) for path in folder.iterdir())


def fleet(address: str, names: list[str]) -> float:
    work = partial(check_captures, triage=False, folder="")
    chunks = [tuple(names)] * TIMES
    with open_workers(address, None) as workers:
        began = time.perf_counter()
        done = sum(1 for _ in workers.each(work, chunks))
        seconds = time.perf_counter() - began
    assert done == TIMES  # noqa: S101 - or the time is of less
    return seconds


def sweep(address: str, plan: str) -> float:
    job = make_job(read_plan(plan, "plan"), read_calibration("published"), "plan")
    with open_workers(address, None) as workers:
        began = time.perf_counter()
        for _ in workers.each(partial(do_chunk, job, None), cut(job.plan.trials, 1, 1)):
            pass
        return time.perf_counter() - began


def compare(what: str, task: Callable[[str], float], one: Cluster, two: Cluster) -> float:
    """Return how many times as fast two workers are, the best rounds of each, taken in turn."""
    pairs = [(task(one.address), task(two.address)) for _ in range(ROUNDS)]
    alone, both = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
    print(f"{what:<24}{alone:8.2f} s{both:8.2f} s{alone / both:8.2f}    want >= {LEAST_RATIO}")
    return alone / both


def tool(*arguments: str) -> bytes:
    command = [sys.executable, "-m", "tdxreclaim", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout


def killed(folder: Path, *arguments: str) -> tuple[bool, float]:
    """Return whether it is equal with a worker killed half way, and when that was, in seconds."""
    alone = tool(*arguments, "--jobs", "1")
    with cluster(folder, 2) as both:
        began = time.perf_counter()
        tool(*arguments, "--executor", both.address)
        half = (time.perf_counter() - began) / 2
        command = [sys.executable, "-m", "tdxreclaim", *arguments, "--executor", both.address]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
            time.sleep(half)
            both.kill(both.workers[0])
            out, _ = running.communicate()
    return out == alone, half


def main() -> int:
    # However it is ended, no cluster stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = captures(folder / "captures")
        plan = folder / "plan.toml"
        plan.write_text(PLAN.format(trials=trials))
        equal = []
        for number, arguments in enumerate(
            (("fleet", str(folder / "captures")), ("sweep", str(plan)))
        ):
            same, seconds = killed(folder / f"killed{number}", *arguments, "-f", "json")
            equal.append(same)
            print(f"{arguments[0]}: a worker killed after {seconds:.1f} s: equal {same}")
        with cluster(folder / "one", 1) as one, cluster(folder / "two", 2) as two:
            print(f"{'':<24}{'1 worker':>10}{'2':>10}{'ratio':>8}    load {os.getloadavg()[0]:.1f}")
            ratios = (
                compare(f"{TIMES * len(names)} captures", partial(fleet, names=names), one, two),
                compare(f"{trials:,} trials", partial(sweep, plan=plan.read_text()), one, two),
            )
    return int(min(ratios) < LEAST_RATIO or not all(equal))


if __name__ == "__main__":
    raise SystemExit(main())
