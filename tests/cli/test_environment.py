"""The environment says how things look, and never what is so."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from tdxreclaim.cli import cli
from tdxreclaim.cli.output import Variable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunTool

ALLOWED = {
    "--format": Variable.FORMAT,
    "--color": Variable.COLOR,
    "--calibration": Variable.CALIBRATION,
}
ROOT = Path(__file__).parents[2]


def _commands(group: click.Group, context: click.Context) -> Iterator[click.Command]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from _commands(command, context)


def test_only_looks_come_from_the_environment() -> None:
    context = click.Context(cli)
    assert context.auto_envvar_prefix is None
    for command in (cli, *_commands(cli, context)):
        for parameter in command.params:
            if parameter.envvar is not None:
                assert ALLOWED[parameter.opts[0]] == parameter.envvar
    for name in ALLOWED:
        assert any(
            parameter.envvar
            for command in _commands(cli, context)
            for parameter in command.params
            if name in parameter.opts
        )


def test_the_environment_is_read_in_one_place() -> None:
    reads = re.compile(r"\b(?:environ|getenv)\b")
    found = {
        path.name
        for path in (ROOT / "tdxreclaim").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and reads.fullmatch(node.attr)
    }
    # Workers get a variable of Python's, which is put back.
    assert found == {"output.py", "executors.py"}


def test_the_manual_names_every_variable() -> None:
    page = (ROOT / "man/tdxreclaim.1").read_text()
    section = page.partition(".Sh ENVIRONMENT\n")[2].partition("\n.Sh ")[0]
    items = re.findall(r"^\.It Ev (.+)$", section, re.MULTILINE)
    assert {name for item in items for name in item.split(" , ")} == set(Variable)


def test_a_format(run: RunTool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TDXRECLAIM_FORMAT", "json")
    assert json.loads(run("check", "--cpu", "gnr").out)["verdict"] == "clear-not-required"
    assert run("check", "--cpu", "gnr", "--format", "text").out[0] != "{"
    assert json.loads(run("check", "--from", "does-not-exist").out)["error"]


def test_a_format_does_not_contradict_quiet(run: RunTool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TDXRECLAIM_FORMAT", "json")
    ran = run("check", "--cpu", "spr", "--quiet")
    assert (ran.status, ran.out, ran.err) == (10, "", "")


def test_a_format_that_a_command_lacks(run: RunTool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TDXRECLAIM_FORMAT", "markdown")
    ran = run("errata")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("tdxreclaim: TDXRECLAIM_FORMAT: 'markdown'")


@pytest.mark.parametrize(
    ("wanted", "option", "colored"),
    [("always", (), True), ("never", (), False), ("always", ("--color", "never"), False)],
)
def test_a_colour(
    wanted: str,
    option: tuple[str, ...],
    colored: bool,
    run: RunTool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TDXRECLAIM_COLOR", wanted)
    assert ("\x1b[" in run("check", "--cpu", "gnr", *option).out) is colored


@pytest.mark.parametrize(("columns", "widest"), [("60", 60), ("300", 100)])
def test_the_terminal_s_width_up_to_100(
    columns: str, widest: int, run: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = run("check", "--cpu", "spr", "--kernel", "6.17", "--explain").out.splitlines()
    assert max(map(len, lines)) <= widest


def test_a_width_of_its_own(run: RunTool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TDXRECLAIM_WIDTH", "150")
    lines = run("check", "--cpu", "spr", "--kernel", "6.17", "--explain").out.splitlines()
    assert 100 < max(map(len, lines)) <= 150


@pytest.mark.parametrize("wanted", ["0", "39", "1001", "x", "-80", "9" * 5000, "٨٠"])
def test_a_width_that_is_none(wanted: str, run: RunTool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TDXRECLAIM_WIDTH", wanted)
    ran = run("check", "--cpu", "spr")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "tdxreclaim: TDXRECLAIM_WIDTH: expected 40 to 1000 columns\n"


def test_a_calibration(run: RunTool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TDXRECLAIM_CALIBRATION", "none-such.toml")
    ran = run("simulate", "--memory", "1GiB", "--vcpus", "1")
    assert ran.status == 3
    assert "none-such.toml" in ran.err
