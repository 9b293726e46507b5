"""What is handed out, built for real: the single file, the wheel and the sdist.

Each is built twice; the bytes have to be the same.  These ask the package index.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

pytestmark = pytest.mark.packages

ROOT = Path(__file__).parents[2]
HOST = ROOT / "tests" / "hosts" / "gnr-6.17-active"


def _copy(target: Path) -> Path:
    """Return a copy of what git knows of the checkout."""
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    for name in filter(None, files):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
        os.utime(target / name, (0, 0))
    return target


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the single file, the second of two that are the same."""
    digests = set()
    target = tmp_path_factory.mktemp("one") / "tdxreclaim.pyz"
    for name in ("a", "another-path"):
        root = _copy(tmp_path_factory.mktemp(name))
        subprocess.run(
            [sys.executable, "packaging/onefile.py", str(target)],
            cwd=root,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        digests.add(_digest(target))
    assert len(digests) == 1, "two builds differ"
    return target


def _run(single: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(single), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", **environment},
        cwd="/",
    )


COMMANDS = [
    (("--version",), 0),
    (("--help",), 0),
    (("check", "--from", str(HOST)), 0),
    (("check", "--from", str(HOST), "--format", "json"), 0),
    (("check", "--cpu", "spr", "--format", "prometheus"), 10),
    (("simulate", "--memory", "1GiB", "--vcpus", "1", "--cpu", "gnr", "--kernel", "6.17"), 0),
    (("simulate", "--validate"), 0),
    (("calibrate", "show", "published"), 0),
    (("schema", "check"), 0),
    (("scenario", "partial-write-affected"), 0),
    (("findings",), 0),
    (("integration", "shell"), 0),
    (("fleet", str(HOST), str(HOST.with_name("icx")), "--jobs", "2"), 0),
    (("triage", "--from", str(HOST)), 20),
]


@pytest.mark.parametrize(("arguments", "status"), COMMANDS, ids=str)
def test_the_single_file_does_what_the_package_does(
    arguments: tuple[str, ...], status: int, single: Path
) -> None:
    ran = _run(single, *arguments)

    assert (ran.returncode, ran.stderr) == (status, "")
    assert ran.stdout
    installed = subprocess.run(
        [sys.executable, "-m", "tdxreclaim", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
        cwd="/",
    )
    assert ran.stdout == installed.stdout


def test_the_single_file_needs_no_home_and_no_tmp(single: Path) -> None:
    ran = _run(single, "check", "--cpu", "spr", HOME="/nonexistent", TMPDIR="/proc")
    assert (ran.returncode, ran.stderr) == (10, "")


def test_the_single_file_asks_the_py_cpuinfo_that_it_carries(single: Path) -> None:
    document = json.loads(_run(single, "check", "--cross-check", "--format", "json").stdout)
    assert not [one for one in document["warnings"] if "No cross-check" in one]


def test_the_single_file_completes(single: Path) -> None:
    assert "tdxreclaim" in _run(single, _TDXRECLAIM_COMPLETE="bash_source").stdout


def _others() -> list[str]:
    """Return the other Pythons of this machine."""
    found = [f"python3.{minor}" for minor in range(6, 31)] + ["python2"]
    pyenv = shutil.which("pyenv")
    if pyenv:
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout
        found += [str(path) for path in Path(root.strip(), "versions").glob("*/bin/python")]
    return [one for one in found if _version(one)]


def _version(python: str) -> tuple[int, ...]:
    try:
        ran = subprocess.run(
            [python, "-c", "import sys; print(sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ()
    major, minor = ran.stdout.strip().strip("()").split(",")
    return (int(major), int(minor))


def test_every_python_of_this_machine_runs_it_or_says_one_line(single: Path) -> None:
    for python in _others():
        ran = subprocess.run(
            [python, str(single), "check", "--cpu", "spr", "--quiet"],
            capture_output=True,
            text=True,
            check=False,
        )
        if _version(python) >= (3, 11):
            assert (ran.returncode, ran.stderr) == (10, ""), python
        else:
            assert ran.returncode == 3, python
            assert ran.stderr.startswith("tdxreclaim: Python 3.11 or newer is needed; this is ")
            assert ran.stderr.count("\n") == 1


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with wheel and sdist, the second of two that are the same."""
    digests: list[dict[str, str]] = []
    folder = tmp_path_factory.mktemp("dist")
    for name in ("a", "another-path"):
        root = _copy(tmp_path_factory.mktemp(name))
        subprocess.run(
            [sys.executable, "-m", "build", "--outdir", str(folder)],
            cwd=root,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        digests.append({path.name: _digest(path) for path in folder.iterdir()})
    assert digests[0] == digests[1], "two builds differ"
    return folder


def test_the_wheel_has_pages_completions_and_metadata(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        fields = message_from_string(archive.read(metadata).decode())
    pages = {path.name for path in (ROOT / "man").glob("*.1")}
    assert {Path(name).name for name in names if "/share/man/man1/" in name} == pages
    for place in ("bash-completion/completions/tdxreclaim", "site-functions/_tdxreclaim"):
        assert any(name.endswith(place) for name in names)
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields["License-File"] == "LICENSE"
    assert fields["Requires-Python"] == ">=3.11"


def test_the_sdist_has_what_git_has(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("tdxreclaim", "tests", "man", "packaging"):
        files = subprocess.run(
            ["git", "ls-files", folder], cwd=ROOT, capture_output=True, check=True, text=True
        ).stdout.split()
        assert set(files) <= inside
