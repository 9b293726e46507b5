"""The shell format, evaluated by real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.report import shell

if TYPE_CHECKING:
    from conftest import RunTool

SHELLS = ("sh", "dash", "bash", "zsh")


@pytest.fixture(params=SHELLS)
def program(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    path = shutil.which(name)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is required in CI")
        pytest.skip(f"no {name} on this machine")
    return path


def _evaluate(program: str, text: str, names: tuple[str, ...]) -> list[str]:
    # Every value ends with a byte that no value has.
    printing = "".join(f'printf "%s\\001" "$TDXRECLAIM_{name}"\n' for name in names)
    script = f'eval "$1"\n{printing}'
    run = subprocess.run(
        [program, "-c", script, program, text], capture_output=True, check=True, env={"PATH": "/"}
    )
    assert run.stderr == b""
    return run.stdout.decode().split("\1")[:-1]


def test_values_arrive(program: str, run: RunTool) -> None:
    out = run("check", "--cpu", "emr", "--kernel", "7.0", "--format", "shell").out
    values = dict(zip(shell.NAMES, _evaluate(program, out, shell.NAMES), strict=True))

    assert values["VERDICT"] == "clear-required"
    assert values["MUST_CLEAR"] == "1"
    assert values["CPU"] == "6/0xcf"
    assert values["CODENAME"] == "Emerald Rapids"
    assert values["KERNEL_RELEASE"] == "7.0"
    assert values["KEXEC"] == "refused"
    assert values["FAKED"] == "1"
    assert values["ERROR"] == ""
    assert values["BECAUSE"].endswith("safe to reuse")


def test_an_error_clears_the_verdict_of_an_earlier_run(program: str, run: RunTool) -> None:
    earlier = run("check", "--cpu", "gnr", "--format", "shell").out
    failed = run("check", "--from", "no'such $(file)", "--format", "shell").out
    both = earlier + failed
    values = dict(zip(shell.NAMES, _evaluate(program, both, shell.NAMES), strict=True))

    assert values["VERDICT"] == values["POSTURE"] == ""
    assert values["MUST_CLEAR"] == "1", "whoever does not know clears"
    assert values["EXIT_STATUS"] == "3"
    assert values["ERROR"] == "no'such $(file): No such file or directory"


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\1"), max_size=40)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(_TEXT, min_size=1, max_size=8))
def test_nothing_in_a_value_is_run(program: str, texts: list[str]) -> None:
    for text in (*texts, "'; exit 1 #", "$(exit 1)`exit 1`", "\\", "!!", "a\nb"):
        rendered = shell.render_error(MalformedInputError("x", text))
        assert _evaluate(program, rendered, ("ERROR",)) == [f"x: {text}"]


def test_every_name_is_set_once_and_quoted(run: RunTool) -> None:
    lines = run("check", "--cpu", "spr", "--format", "shell").out.splitlines()
    assert [line.partition("=")[0] for line in lines] == [f"TDXRECLAIM_{n}" for n in shell.NAMES]
    assert all(line.partition("=")[2][0] == line[-1] == "'" for line in lines)


@pytest.mark.parametrize(("cpu", "skips"), [("gnr", True), ("spr", False), ("6/0x6a", False)])
def test_the_provisioning_idiom_fails_safe(cpu: str, *, skips: bool) -> None:
    script = 'if tdxreclaim check --quiet "$@"; then echo skip; else echo clear; fi'
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    for arguments in (["--cpu", cpu], ["--cpu", cpu, "--no-such-option"]):
        ran = subprocess.run(
            ["sh", "-c", script, "sh", *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        assert ran.stdout == ("skip\n" if skips and len(arguments) == 2 else "clear\n")
