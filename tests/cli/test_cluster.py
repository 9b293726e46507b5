"""A real Dask scheduler with two worker processes, on loopback."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tdxreclaim import __version__
from tdxreclaim.cli.executors import Lost, open_workers
from tdxreclaim.cli.fleet_captures import check_captures
from tdxreclaim.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunTool

pytest.importorskip("distributed", reason="the extra cluster")

HOSTS = Path(__file__).parents[1] / "hosts"

# Reads captures, and kills its worker for some: once, or each time.
WORKER = """
import os
from tdxreclaim.cli import fleet_captures

HERE = os.path.dirname(__file__)

def check_captures(names, **how):
    if any(name.endswith("killer") for name in names):
        os.kill(os.getpid(), 9)
    if any(name.endswith("half-way") for name in names):
        try:
            os.mkdir(os.path.join(HERE, "killed"))
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), 9)
    return fleet_captures.check_captures(names, **how)
"""


class Dask:
    """Processes of Dask, all of which end with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.address = f"dask:{self.file}"
        self._began: list[subprocess.Popen[bytes]] = []
        (folder / "killing_worker.py").write_text(WORKER)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        local = ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(self.file))
        environment = os.environ | {
            "PYTHONPATH": str(self.folder),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
        }
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, *local],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._began.append(process)
        return process

    @contextlib.contextmanager
    def worker(self, *arguments: str) -> Iterator[None]:
        """Add a worker for a while."""
        process = self.start("worker", "--nthreads", "1", *arguments)
        try:
            yield
        finally:
            self._kill(process)

    def stop(self) -> None:
        for process in self._began:
            self._kill(process)

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        """Kill it, its nannies' workers included."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    began = Dask(tmp_path_factory.mktemp("dask"))
    try:
        scheduler = began.start("scheduler", "--port", "0")
        while not began.file.exists() and scheduler.poll() is None:
            time.sleep(0.05)
        began.start("worker", "--nthreads", "1", "--nworkers", "2")
        yield began
    finally:
        began.stop()


@pytest.fixture
def forty(tmp_path: Path) -> Path:
    """Return a folder of forty captures, two of them damaged."""
    folder = tmp_path / "captures"
    folder.mkdir()
    names = sorted(path.name for path in HOSTS.iterdir())[:19]
    for name in names:
        shutil.copytree(HOSTS / name, folder / name)
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as tar:
            tar.add(HOSTS / name, name)
    whole = (folder / f"{names[0]}.tar.gz").read_bytes()
    (folder / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.bin").write_bytes(bytes(range(256)) * 40)
    return folder


@pytest.fixture
def killing(dask: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers die of captures by their names."""
    monkeypatch.syspath_prepend(dask.folder)
    worker = importlib.import_module("killing_worker")
    monkeypatch.setattr("tdxreclaim.cli.fleet_captures.check_captures", worker.check_captures)


@pytest.mark.parametrize("format_", ["json", "csv"])
def test_a_cluster_says_what_one_machine_says(
    dask: Dask, forty: Path, run: RunTool, format_: str
) -> None:
    alone = run("fleet", forty.name, "-f", format_, "--jobs", "1", cwd=forty.parent)
    there = run("fleet", forty.name, "-f", format_, "--executor", dask.address, cwd=forty.parent)

    assert there.out == alone.out
    assert there.status == alone.status == 20
    assert there.err.startswith("Dask's dashboard: http://127.0.0.1:")


@pytest.mark.usefixtures("killing")
def test_a_worker_that_dies_half_way_changes_nothing(dask: Dask, forty: Path, run: RunTool) -> None:
    shutil.copytree(HOSTS / "icx", forty / "half-way")
    alone = run("fleet", str(forty), "-f", "json", "--jobs", "2").out
    (dask.folder / "killed").rmdir()
    there = run("fleet", str(forty), "-f", "json", "--executor", dask.address).out

    assert (dask.folder / "killed").is_dir()
    assert there == alone
    assert json.loads(there)["hosts"] == 39


@pytest.mark.cluster
@pytest.mark.usefixtures("killing")
def test_a_capture_that_kills_its_workers_is_refused_and_no_other(
    dask: Dask, forty: Path, run: RunTool
) -> None:
    shutil.copytree(HOSTS / "icx", forty / "killer")
    ran = run("fleet", str(forty), "-f", "json", "--executor", dask.address)
    document = json.loads(ran.out)

    refused = {one["source"]: one["why"] for one in document["refused"]}
    assert refused.pop(str(forty / "killer")).startswith("it killed the process")
    assert sorted(refused) == [str(forty / "cut.tar.gz"), str(forty / "noise.bin")]
    assert document["hosts"] == 38


@pytest.mark.cluster
def test_a_worker_of_another_version_is_refused_when_it_joins_and_before(
    dask: Dask, tmp_path: Path
) -> None:
    other = tmp_path / "other_version.py"
    other.write_text("import tdxreclaim\ntdxreclaim.__version__ = '0.0.9'\n")
    both = rf"tdxreclaim {__version__} is here, worker tcp://\S+ has 0.0.9"
    with open_workers(dask.address, None) as workers:
        assert sorted(workers.each(eval, "123")) == [("1", 1), ("2", 2), ("3", 3)]
        with dask.worker("--preload", str(other)):
            with pytest.raises(ClusterError, match=both):
                # Until one of them is given to the worker that joined.
                list(workers.each(eval, iter(lambda: "1", None)))
            with pytest.raises(ClusterError, match=both):
                open_workers(dask.address, None)


@pytest.mark.cluster
def test_a_worker_without_us_is_refused(dask: Dask, tmp_path: Path) -> None:
    without = tmp_path / "without.py"
    without.write_text("import sys\nsys.modules['tdxreclaim'] = None\n")

    def open_until_it_has_joined() -> None:
        while True:
            with open_workers(dask.address, None):
                pass

    with (
        dask.worker("--preload", str(without)),
        pytest.raises(ClusterError, match="none that fits"),
    ):
        open_until_it_has_joined()


def test_an_error_is_a_result_and_a_bug_is_raised(dask: Dask) -> None:
    own = "__import__('tdxreclaim.facts.sources.base').facts.sources.base.read_file('absent')"
    with open_workers(dask.address, None) as workers:
        assert dict(workers.each(eval, [own])) == {own: Lost("absent: No such file or directory")}
        with pytest.raises(ZeroDivisionError):
            list(workers.each(eval, ["1", "1 / 0"]))


def test_a_file_that_a_worker_does_not_see_is_refused_by_name() -> None:
    hostname = Path("/proc/sys/kernel/hostname").read_text().strip()
    (checked,) = check_captures(("no/host",), triage=False, folder="/")

    assert checked.what == "no/host"
    assert checked.why.startswith(f"not there on worker {hostname}")


@pytest.mark.cluster
def test_a_scheduler_that_dies_is_said(tmp_path: Path) -> None:
    own = Dask(tmp_path)
    try:
        scheduler = own.start("scheduler", "--port", "0")
        while not own.file.exists() and scheduler.poll() is None:
            time.sleep(0.05)
        own.start("worker", "--nthreads", "1", "--no-nanny")
        with open_workers(own.address, None) as workers:
            found = workers.each(eval, iter(lambda: "1", None))
            next(found)
            scheduler.kill()
            with pytest.raises(ClusterError, match="the scheduler went away"):
                list(found)
    finally:
        own.stop()


@pytest.mark.parametrize(
    ("address", "status", "what"),
    [
        ("dask:", 2, "--executor"),
        ("dask:nowhere", 2, "--executor"),
        ("dask:127.0.0.1:0", 2, "--executor"),
        ("dask:127.0.0.1:70000", 2, "--executor"),
        ("dask:http://127.0.0.1:80", 2, "--executor"),
        ("dask:127.0.0.1:1", 3, "dask:127.0.0.1:1"),
        ("dask:tls://127.0.0.1:1", 3, "dask:tls://127.0.0.1:1"),
        ("dask:absent.json", 3, "absent.json"),
        ("dask:empty.json", 3, "empty.json"),
    ],
)
def test_an_address_where_nobody_is(
    address: str,
    status: int,
    what: str,
    run: RunTool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tdxreclaim.cli.cluster._CONNECT_SECONDS", 0.2)
    (tmp_path / "empty.json").write_text("{}")
    ran = run("fleet", str(HOSTS), "--executor", address, cwd=tmp_path)

    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith(f"tdxreclaim: {what}: ")
    assert len(ran.err.splitlines()) == 1
