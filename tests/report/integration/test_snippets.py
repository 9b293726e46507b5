"""The shell, Python and pod snippets handle every status, in the real interpreters."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from tdxreclaim.errors import ExitStatus
from tdxreclaim.report.integration import render

if TYPE_CHECKING:
    from pathlib import Path

SAFE = {0, 12}
CAREFUL = {10, 11}
STATUSES = sorted({*ExitStatus, 77, 127})
SHELLS = [name for name in ("sh", "dash", "bash", "zsh") if shutil.which(name)]


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    """Return a folder with a tdxreclaim that ends with $STATUS."""
    program = tmp_path / "tdxreclaim"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *nagios*) exit "${NAGIOS:-3}" ;; esac\nexit "$STATUS"\n'
    )
    program.chmod(0o755)
    return tmp_path


def environment(tool: Path, status: int, nagios: int = 3) -> dict[str, str]:
    return {"PATH": f"{tool}:/usr/bin:/bin", "STATUS": str(status), "NAGIOS": str(nagios)}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("status", STATUSES)
def test_the_shell_function_skips_on_two_statuses_only(shell: str, status: int, tool: Path) -> None:
    ran = subprocess.run(
        [shell, "-eu" if shell != "zsh" else "-e", "-c", render("shell")],
        env=environment(tool, status),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == ("skip\n" if status in SAFE else "clear\n")


def test_the_shell_function_clears_where_there_is_no_tool(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["/bin/sh", "-c", render("shell")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout == "clear\n"


@pytest.mark.parametrize("status", STATUSES)
def test_the_python_function_answers_or_raises(status: int, tool: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", render("python")],
        env=environment(tool, status),
        capture_output=True,
        text=True,
        check=False,
    )
    if status in SAFE | CAREFUL:
        assert ran.stdout == ("skip\n" if status in SAFE else "clear\n")
    else:
        assert (ran.returncode, ran.stdout) == (1, "")
        assert "RuntimeError" in ran.stderr


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("nagios", [0, 1, 2, 3])
def test_a_pod_starts_only_where_nothing_is_at_risk(status: int, nagios: int, tool: Path) -> None:
    pod = yaml.safe_load(render("init-container"))
    (container,) = pod["spec"]["initContainers"]
    ran = subprocess.run(
        [*container["command"], *container["args"]],
        env=environment(tool, status, nagios),
        capture_output=True,
        check=False,
    )
    starts = status in SAFE or (status == 10 and nagios == 0)
    assert (ran.returncode == 0) == starts
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["spec"]["volumes"]}
