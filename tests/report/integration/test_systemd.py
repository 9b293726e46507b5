"""The units, checked by systemd itself where it is installed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tdxreclaim.report.integration import render
from tdxreclaim.report.integration.systemd_service import DIRECTORY, PROGRAM

if TYPE_CHECKING:
    from conftest import RunTool

# systemd's own scale: 10 is unsafe; its OK begins below 5.
MOST_EXPOSED = 3.0


def command() -> list[str]:
    (line,) = re.findall(r"^ExecStart=(.*)$", render("systemd-service"), re.MULTILINE)
    return shlex.split(line)


def test_the_command_works_and_writes_the_metrics(run: RunTool, tmp_path: Path) -> None:
    program, *arguments = command()
    assert program == PROGRAM
    target = str(tmp_path / "tdxreclaim.prom")
    replaced = [argument.replace(f"{DIRECTORY}/tdxreclaim.prom", target) for argument in arguments]
    assert target in replaced

    ran = run(*replaced)

    assert (ran.status, ran.out) == (0, "")
    assert "tdxreclaim_verdict" in Path(target).read_text()


def test_the_timer_starts_the_service_of_its_name() -> None:
    assert "Unit=" not in render("systemd-timer")
    assert "[Timer]" in render("systemd-timer")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    service = render("systemd-service").replace(
        PROGRAM, str(Path(sys.executable).with_name("tdxreclaim"))
    )
    (tmp_path / "tdxreclaim.service").write_text(service)
    (tmp_path / "tdxreclaim.timer").write_text(render("systemd-timer"))
    return tmp_path


def analyze(*arguments: str) -> str:
    program = shutil.which("systemd-analyze")
    assert program, "Debian: systemd"
    ran = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.mark.consumer
def test_systemd_takes_the_units(units: Path) -> None:
    said = analyze(
        "verify", "--man=no", str(units / "tdxreclaim.service"), str(units / "tdxreclaim.timer")
    )
    assert "tdxreclaim" not in said, said


@pytest.mark.consumer
def test_the_service_is_sandboxed(units: Path) -> None:
    said = analyze("security", "--offline=yes", "--no-pager", str(units / "tdxreclaim.service"))
    found = re.search(r"Overall exposure level.*: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) < MOST_EXPOSED, said
