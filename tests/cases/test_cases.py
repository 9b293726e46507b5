"""The shared cases, by the tables that lie beside them; a new row needs no line here.

What only later work can make right stands in expected_failures.txt, a case a
line.  The list is strict: a case on it that passes fails the suite, and goes
from the list.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tdxreclaim.engine.module import Machine, Platform
from tdxreclaim.engine.pages import PageStore
from tdxreclaim.engine.states import Dirty, Health, Line, PageState, Use
from tdxreclaim.tables.kernels import Clearing
from tdxreclaim.tables.seamcalls import Leaf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunTool

SHARED = Path(__file__).parents[3] / "shared"
CASES = SHARED / "cases"
EXPECTED_FAILURES = Path(__file__).with_name("expected_failures.txt")


class Case(NamedTuple):
    """One row of a table: what it is called here, where it lies, and the row."""

    id: str
    folder: Path
    row: dict[str, str]


def _table(path: Path) -> Iterator[dict[str, str]]:
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as text:
            yield from csv.DictReader(text, delimiter="\t", quoting=csv.QUOTE_NONE)


def _logs(command: str) -> list[Case]:
    return [
        Case(f"{command} {name}/{row['file']}", CASES / name, row)
        for name in ("logs", "formats", "special")
        for row in _table(CASES / name / "expected.tsv")
        if row[f"{command}_exits"] != "-"
    ]


def _folder(name: str) -> list[Case]:
    folder = CASES / name
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [Case(f"{name}/{file}", folder, {"file": file}) for file in names]


def _kernels() -> list[Case]:
    return [
        Case(f"kernels/{one.row['file']}/{name.name}", one.folder / one.row["file"], {})
        for one in _folder("kernels")
        for name in sorted((one.folder / one.row["file"]).glob("kallsyms*"))
    ]


CHECK = _logs("check")
TRIAGE = _logs("triage")
HOSTILE = [
    Case(f"hostile/{row['file']}", CASES / "hostile", row)
    for row in _table(CASES / "hostile" / "manifest.tsv")
]
MACHINES = _folder("cpuinfo") + _folder("sysroots")
KERNELS = _kernels()
ORDERS = [Case(f"order {row['case']}", SHARED, row) for row in _table(SHARED / "wrong-orders.tsv")]

REST = [
    line
    for line in EXPECTED_FAILURES.read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def each(cases: list[Case]) -> pytest.MarkDecorator:
    """Parametrize with *cases*, those of the list as expected failures."""
    fails = pytest.mark.xfail(reason="expected_failures.txt", strict=True)
    return pytest.mark.parametrize(
        "case",
        [pytest.param(c, id=c.id, marks=[fails] if c.id in REST else []) for c in cases],
    )


def test_the_cases_are_there_in_ci() -> None:
    if not CASES.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{CASES} is required in CI")
        pytest.skip(f"no shared cases here ({CASES})")
    for cases in (CHECK, TRIAGE, HOSTILE, MACHINES, KERNELS, ORDERS):
        assert cases


def test_the_list_of_expected_failures_names_cases_once() -> None:
    if not CASES.is_dir():
        pytest.skip(f"no shared cases here ({CASES})")
    known = {case.id for case in (*CHECK, *TRIAGE, *HOSTILE, *MACHINES, *KERNELS, *ORDERS)}
    assert set(REST) <= known
    assert len(REST) == len(set(REST))


ANSWERS = {"check": {0, 1, 10, 12}, "triage": {0, 1, 20}}
"""What "U" (not understood) must not be: an answer, or our own bug."""


def _right(command: str, status: int, allowed: str) -> bool:
    exits = allowed.split(",")
    return str(status) in exits or ("U" in exits and status not in ANSWERS[command])


def _from(case: Case) -> list[str]:
    return [word for name in case.row["file"].split() for word in ("--from", name)]


@each(CHECK)
def test_check(case: Case, run: RunTool) -> None:
    ran = run("check", *_from(case), cwd=case.folder)

    assert _right("check", ran.status, case.row["check_exits"]), (case.row["human"], ran)


@each(TRIAGE)
def test_triage(case: Case, run: RunTool) -> None:
    ran = run("triage", *_from(case), "--format", "json", cwd=case.folder)

    assert _right("triage", ran.status, case.row["triage_exits"]), (case.row["human"], ran)
    if ran.status not in (0, 20):
        assert ran.err.startswith("tdxreclaim: ")
        return
    line = json.dumps(json.loads(ran.out))
    for pattern in filter(None, (case.row["must"] or "").split(" && ")):
        assert re.search(pattern, line), f"{case.row['human']}: no {pattern}"
    for pattern in filter(None, (case.row["mustnot"] or "").split(" && ")):
        assert not re.search(pattern, line), f"{case.row['human']}: {pattern}"


@each(HOSTILE)
def test_hostile(case: Case, run: RunTool) -> None:
    command = case.row["command"].replace("FILE", shlex.quote(case.row["file"]))
    if command.startswith("tdxreclaim ") and "|" not in command:
        status, out, err = run(*shlex.split(command)[1:], cwd=case.folder)
    else:  # a limit, a variable or a pipe: what the shell is for
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        shell = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            capture_output=True,
            cwd=case.folder,
            env=environment,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
        status, out, err = shell.returncode, shell.stdout, shell.stderr

    assert str(status) in case.row["statuses"].split(","), (case.row["why"], out, err)
    assert not re.search(case.row["absent"], out + err), case.row["why"]


# Cut in its flags: 11 is right.
CUT = {"linux-centos7-cascadelake"}


@each(MACHINES)
def test_no_tdx_host(case: Case, run: RunTool) -> None:
    ran = run("check", "--quiet", "--from", case.row["file"], cwd=case.folder)

    assert ran.status == (11 if case.row["file"] in CUT else 12)


CLEARING = {
    "always": Clearing.ALWAYS,
    "on-erratum": Clearing.ON_ERRATUM,
    "no-tdx-host": Clearing.NO_TDX_HOST,
}
GRANITE_RAPIDS = Path(__file__).parents[1] / "hosts" / "gnr-6.18-active" / "proc" / "cpuinfo"


@each(KERNELS)
def test_kernel(case: Case, run: RunTool, tmp_path: Path) -> None:
    facts = json.loads((case.folder / "facts.json").read_text())
    proc = tmp_path / "proc"
    (proc / "sys" / "kernel").mkdir(parents=True)
    (tmp_path / "boot").mkdir()
    shutil.copy(case.folder / case.id.rpartition("/")[2], proc / "kallsyms")
    shutil.copy(case.folder / "osrelease", proc / "sys" / "kernel" / "osrelease")
    cpuinfo = GRANITE_RAPIDS.read_text()
    if not facts["tdx_host_built_in"]:
        cpuinfo = cpuinfo.replace(" tdx_host_platform", "")
    (proc / "cpuinfo").write_text(cpuinfo)
    if (case.folder / "config").is_file():
        shutil.copy(case.folder / "config", tmp_path / "boot" / f"config-{facts['release']}")

    ran = run("check", "--from", str(tmp_path), "--format", "json")

    kernel = json.loads(ran.out)["kernel"]
    assert kernel["clearing"] == CLEARING[facts["clearing"]], kernel["because"]
    assert kernel["release"] == facts["release"]


PLACES = ("mapped", "blocked", "ept", "tdcx", "tdvpr", "tdr", "nda", "rsvd")


def _number(place: str) -> int:
    return PLACES.index(place) if place in PLACES else 0


@each(ORDERS)
def test_order_of_leaves(case: Case) -> None:
    line = Line(True, Health.MAC_FITS, Dirty.NONE)
    pages = PageStore(len(PLACES), PageState(Use.MAPPED, line).code)
    for number, place in enumerate(PLACES):
        pages[number] = PageState(Use[place.upper()], line).code
    machine = Machine(Platform(erratum=True), pages, vcpus=1, tdvprs=[PLACES.index("tdvpr")])
    for step in () if case.row["order"] == "-" else case.row["order"].split("; "):
        if step == "FATAL":
            machine.td.fatal = True
            continue
        name, _, place = step.partition(" ")
        machine.call(Leaf[f"TDH_{name.replace('.', '_')}"], _number(place))

    reply = machine.call(Leaf[case.row["leaf"].replace(".", "_")], _number(case.row["on"]))

    assert f"{reply.code:#018x}" == case.row["hex"], str(reply)
    if case.row["status"] != "TDX_SUCCESS":
        assert reply.status.name == case.row["status"]
