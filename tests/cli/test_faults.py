"""What a system refuses: libraries, memory, file descriptors, a directory; one line and a status."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import RunTool

HOST = str(Path(__file__).parents[1] / "hosts" / "gnr-6.18-active")

# As where executable mappings are forbidden: what is not loaded yet cannot be.
_REFUSING = """
import runpy, sys
refused = {}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in refused:
            raise ImportError("failed to map segment", name=name, path=f"/lib/{{name}}.so")
sys.meta_path.insert(0, Refuse())
for name in refused:
    sys.modules.pop(name, None)
sys.argv[:] = ["tdxreclaim", *sys.argv[1:]]
runpy.run_module("tdxreclaim", run_name="__main__", alter_sys=True)
"""


def _run(
    *arguments: str, refused: tuple[str, ...] = (), before: Callable[[], object] | None = None
) -> subprocess.CompletedProcess[str]:
    code = _REFUSING.replace("refused = {}", f"refused = {refused!r}")
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=before,
    )


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (("calibrate", "clear"), "ctypes"),
        (("calibrate", "clear"), "mmap"),
        (("check",), "click"),
        (("check", "--from", HOST), "rich.console"),
    ],
)
def test_a_library_that_cannot_be_loaded_is_one_line(
    arguments: tuple[str, ...], refused: str
) -> None:
    ran = _run(*arguments, refused=(refused,))
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.startswith(f"tdxreclaim: {refused}: cannot be loaded (failed to map")
    assert len(ran.stderr.splitlines()) == 1


def test_without_a_process_of_its_own_there_is_no_cross_check() -> None:
    ran = _run("check", "--cross-check", "--explain", refused=("subprocess",))
    assert ran.returncode in (0, 10, 11, 12)
    assert "subprocess cannot be loaded" in " ".join(ran.stdout.split())


@pytest.mark.parametrize("argument", ["\0", "a\0b", "\ud83d"])
def test_what_no_shell_gives_is_refused(argument: str, run: RunTool) -> None:
    for arguments in (("check", "--from", argument), ("calibrate", "show", argument)):
        ran = run(*arguments)
        assert ran.status == 2
        assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("check", "--from", "{}"), ("explain", "{}"), ("{}",)])
def test_a_long_argument_is_not_said_whole(arguments: tuple[str, ...], run: RunTool) -> None:
    ran = run(*(each.format("9" * 100_000) for each in arguments))
    assert ran.status in (2, 3)
    assert len(ran.err) < 3000


def test_a_few_file_descriptors_are_enough() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))

    assert _run("check", "--from", HOST, before=limit).returncode == 0


def test_zeros_without_end_are_no_archive() -> None:
    ran = _run("check", "--from", "/dev/zero", "--from-format", "tar")
    assert ran.returncode == 3
    assert "more data after the end" in ran.stderr
