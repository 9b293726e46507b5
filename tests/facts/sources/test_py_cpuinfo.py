"""Asking py-cpuinfo runs the one that is installed, and nothing else that lies about."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cpuinfo
import pytest

INSTALLED = Path(cpuinfo.__file__).parent

# Leaves a mark in the folder in which it lies.
TRAP = "import os\nopen(os.path.join(os.path.dirname(__file__), 'executed'), 'w').close()\n"

# What an installed script does.
SCRIPT = "from tdxreclaim.__main__ import run; run()"

# Asks as `check --cross-check` does; prints where the answer came from.
ASK = """
import sys
from tdxreclaim.facts.sources.live import _find_py_cpuinfo, read_py_cpuinfo
print(_find_py_cpuinfo())
print(read_py_cpuinfo().text("arch_string_raw"))
"""


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """Return a folder with every module of ours and py-cpuinfo's that one could plant."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in ("cpuinfo", "json", "argparse", "platform", "sitecustomize", "usercustomize"):
        (folder / f"{name}.py").write_text(TRAP)
    return folder


def ask(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not (cwd / "executed").exists(), "a file of the current directory was executed"
    return run


@pytest.mark.parametrize("started_as", [("-m", "tdxreclaim"), ("-P", "-c", SCRIPT)], ids=str)
def test_cross_check_executes_nothing_of_the_current_directory(
    trap: Path, started_as: tuple[str, ...]
) -> None:
    run = ask(*started_as, "check", "--cross-check", "--format", "json", cwd=trap)
    assert run.returncode in (0, 10, 11, 12), run.stderr
    assert "py-cpuinfo" in run.stdout


def test_pythonpath_and_its_kin_are_not_looked_at_by_the_child(trap: Path) -> None:
    environment = {"PYTHONPATH": str(trap), "PYTHONHOME": "", "PYTHONSTARTUP": str(trap)}
    script = f"import sys; sys.path.remove({str(trap)!r}); sys.path_importer_cache.clear()\n"
    for name in ("json", "argparse", "platform", "sitecustomize", "usercustomize"):
        (trap / f"{name}.py").unlink()  # our own process would take these
    run = ask("-c", script + ASK, cwd=trap, **environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0] == str(INSTALLED.parent)


def test_a_user_install_is_found(tmp_path: Path) -> None:
    # What a user install is: a folder that only our own path names.
    shutil.copytree(INSTALLED, tmp_path / "user" / "cpuinfo")
    script = f"import sys; sys.path.insert(0, {str(tmp_path / 'user')!r})\n"
    run = ask("-c", script + ASK, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0] == str(tmp_path / "user")


def test_a_single_file_is_found(tmp_path: Path) -> None:
    archive = tmp_path / "tool.pyz"
    with zipfile.ZipFile(archive, "w") as file:
        for path in INSTALLED.glob("*.py"):
            file.write(path, f"cpuinfo/{path.name}")
    run = ask("-c", f"import sys; sys.path.insert(0, {str(archive)!r})\n" + ASK, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0] == str(archive)


def test_none_installed_is_said(tmp_path: Path) -> None:
    script = f"import sys; sys.path.remove({str(INSTALLED.parent)!r})\n"
    source = Path(__file__).parents[3]
    run = ask("-c", f"{script}sys.path.append({str(source)!r})\n{ASK}", cwd=tmp_path)
    assert "HostReadError" in run.stderr
    assert "not installed" in run.stderr
