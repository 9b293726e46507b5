"""The shipped completion scripts, in the shells that they are for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tdxreclaim

SCRIPTS = Path(tdxreclaim.__file__).parent / "completions"

ASKS = [
    ("tdxreclaim chec", {"check"}),
    ("tdxreclaim check --cpu spr", {"spr"}),
    ("tdxreclaim check --kernel 6.1", {"6.15", "6.16", "6.17", "6.18"}),
    ("tdxreclaim scenario partial-write-a", {"partial-write-affected"}),
    ("tdxreclaim explain hkid-l", {"hkid-leaked"}),
    ("tdxreclaim findings hkid-l", {"hkid-leaked"}),
    ("tdxreclaim simulate --calibration publ", {"published"}),
    ("tdxreclaim fleet --executor da", {"dask:"}),
]
# zsh's own functions run only in its line editor, which takes a terminal.
RUN = {
    "bash": """
source {script}
words=({line})
COMP_WORDS=("${{words[@]}}"); COMP_CWORD=$((${{#words[@]}} - 1)); COMPREPLY=()
_tdxreclaim_completion tdxreclaim "${{words[-1]}}" "${{words[-2]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    "fish": "source {script}; complete -C '{line}'",
}
FILES = {"bash": "tdxreclaim.bash", "fish": "tdxreclaim.fish"}


@pytest.mark.parametrize(("line", "expected"), ASKS, ids=[line for line, _ in ASKS])
@pytest.mark.parametrize("shell", RUN)
def test_completion(shell: str, line: str, expected: set[str], tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} on this machine")
    command = tmp_path / "tdxreclaim"
    command.write_text(
        f"#!{sys.executable}\nfrom tdxreclaim.__main__ import run\nrun()\n", encoding="utf-8"
    )
    command.chmod(0o755)
    text = RUN[shell].format(script=SCRIPTS / FILES[shell], line=line)
    ran = subprocess.run(
        [program, "-c", text],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    offered = {entry.partition("\t")[0] for entry in ran.stdout.split("\n") if entry}
    assert expected <= offered
    assert all(entry.startswith(line.rpartition(" ")[2]) for entry in offered)


def test_every_script_is_installed_where_its_shell_looks() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for script in SCRIPTS.iterdir():
        assert f'"tdxreclaim/completions/{script.name}" = "share/' in project
