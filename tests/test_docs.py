"""README and manual against the code: options, statuses, rules, real output."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from tdxreclaim.cli import cli
from tdxreclaim.cli.examples import EXAMPLES
from tdxreclaim.errors import ExitStatus
from tdxreclaim.policy.model import HostState, Posture, Silicon, Verdict
from tdxreclaim.policy.verdict import VERDICT_RULES
from tdxreclaim.report import shell
from tdxreclaim.report.check.formats import FORMATS
from tdxreclaim.report.integration import INTEGRATIONS
from tdxreclaim.tables.kernels import KERNELS, Clearing, Kexec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunTool

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "man").glob("*.1"))
COMMANDS = cli.list_commands(click.Context(cli))


def _page(name: str) -> str:
    return (ROOT / "man" / name).read_text()


def _plain(mdoc: str) -> str:
    """Return a page's words, without the macros between them."""
    text = re.sub(r"^\.\\\".*$", "", mdoc, flags=re.MULTILINE)
    text = re.sub(r"^\.(?:[A-Z][a-z] )?", " ", text, flags=re.MULTILINE)
    text = re.sub(r"\b(?:Li|Cm|Ev|Ic|Pa|Ar) ", " ", text)
    return " ".join(text.split())


def _command(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_page_with_all_its_options_and_no_other(name: str) -> None:
    page = _page(f"tdxreclaim-{name}.1")
    command = _command(name)
    # A group's page explains its commands' options too.
    parts = [command, *getattr(command, "commands", {}).values()]
    options = {
        option
        for part in parts
        for parameter in part.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    items = "\n".join(re.findall(r"^\.It Fl .*$", page, re.MULTILINE))
    explained = {f"--{o}" for o in re.findall(r"\bFl Fl ([a-z-]+)", items)}
    explained |= {f"-{o}" for o in re.findall(r"\bFl ([a-z])\b", items)}
    assert explained == options
    synopsis = page.partition(".Sh SYNOPSIS")[2].partition(".Sh")[0]
    assert all(f"Fl Fl {option[2:]}" in synopsis for option in options if option[:2] == "--")
    assert f".It Ic {name}\n" in _page("tdxreclaim.1")


def test_pages_refer_to_pages_that_exist() -> None:
    for page in PAGES:
        for reference in re.findall(r"\.Xr (tdxreclaim[a-z-]*) 1", page.read_text()):
            assert (ROOT / "man" / f"{reference}.1").is_file()


def test_statuses_are_the_same_in_the_manual_the_readme_and_the_code() -> None:
    expected = {status.value: status.meaning for status in ExitStatus}
    section = _page("tdxreclaim.1").partition(".Sh EXIT STATUS")[2].partition(".El")[0]
    items = re.findall(r"^\.It (\d+)\n(.*?)(?=^\.It|\Z)", section, re.MULTILINE | re.DOTALL)
    in_page = {
        int(status): " ".join(re.sub(r"^\.Nm ?", "tdxreclaim", text, flags=re.MULTILINE).split())
        for status, text in items
    }
    in_readme = {
        int(status): text
        for status, text in re.findall(
            r"^\| (\d+) \| (.*) \| .* \|$", README.read_text(), re.MULTILINE
        )
    }
    assert in_readme == expected
    assert {s: t.lower().rstrip(" .") for s, t in in_page.items()} == {
        s: t.lower() for s, t in expected.items()
    }


@pytest.mark.parametrize(
    "values",
    [Verdict, Posture, Silicon, HostState, Clearing, Kexec, VERDICT_RULES],
    ids=["Verdict", "Posture", "Silicon", "HostState", "Clearing", "Kexec", "rules"],
)
def test_the_manual_explains_every_value(values: tuple[str, ...]) -> None:
    words = set(re.split(r"[^a-z0-9_-]+", _plain(_page("tdxreclaim-check.1"))))
    assert set(values) <= words


def test_the_manual_says_with_which_release_the_tables_end() -> None:
    assert f"end with Linux {KERNELS[-1].last};" in _page("tdxreclaim.1")


def test_the_readme_tells_what_a_monitor_gets() -> None:
    rows = re.findall(r"^\| (\d+) \| .* \| (\w+).* \|$", README.read_text(), re.MULTILINE)
    assert rows == [(str(status.value), status.nagios.name) for status in ExitStatus]


def test_the_manual_explains_every_format_of_check() -> None:
    formats = _page("tdxreclaim-check.1").partition(".Sh OUTPUT FORMATS")[2].partition(".Sh")[0]
    assert sorted(re.findall(r"^\.It Cm (\w+)$", formats, re.MULTILINE)) == sorted(FORMATS)


def test_the_manual_explains_every_integration() -> None:
    page = _page("tdxreclaim-integration.1")
    listed = " ".join(re.findall(r"^\.It Cm (.*)$", page, re.MULTILINE))
    assert listed.replace(" ,", "").split() == list(INTEGRATIONS)


def test_the_manual_lists_every_shell_name_in_order() -> None:
    names = re.findall(r"\.Ev TDXRECLAIM_([A-Z_]+)", _page("tdxreclaim-check.1"))
    assert tuple(names) == shell.NAMES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_finds_nothing(page: Path) -> None:
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        if os.environ.get("CI") == "true":
            pytest.fail("mandoc is required in CI")
        pytest.skip("no mandoc on this machine")
    lint = subprocess.run(
        [mandoc, "-Tlint", "-W", "warning", str(page)], capture_output=True, text=True, check=False
    )
    assert (lint.returncode, lint.stdout) == (0, "")


def test_the_readme_shows_real_output(run: RunTool, request: pytest.FixtureRequest) -> None:
    text = README.read_text()

    def real(match: re.Match[str]) -> str:
        program, *arguments = shlex.split(match[1])
        assert program == "tdxreclaim"
        return f"```console\n$ {match[1]}\n{run(*arguments).out}```"

    fresh, count = re.subn(r"```console\n\$ ([^\n]*)\n.*?```", real, text, flags=re.DOTALL)
    assert count >= 1
    if request.config.getoption("--accept"):
        README.write_text(fresh)
    assert README.read_text() == fresh


def test_the_readme_s_picture_is_what_simulate_draws(
    run: RunTool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    (name,) = re.findall(r"!\[[^]]*\]\(([^)]*)\)", README.read_text())
    svg = tmp_path / "readme.svg"
    question = ("--memory", "400GiB", "--vcpus", "64", "--cpu", "gnr", "--kernel", "6.17")
    run("simulate", *question, "--svg", str(svg))
    if request.config.getoption("--accept"):
        (ROOT / name).write_text(svg.read_text())
    assert (ROOT / name).read_text() == svg.read_text()


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) < 200


def test_the_readme_says_how_to_run_it_and_its_tests_in_one_line_each() -> None:
    lines = [line for line in README.read_text().splitlines() if line.startswith("python3 -m venv")]
    assert len(lines) == 2
    assert lines[0].endswith("tdxreclaim check")
    assert lines[1].endswith("-m pytest")


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    named = set(re.findall(r"`((?:tdxreclaim|tests|man|benchmarks)/[\w./-]+)`", text))
    named |= {target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target}
    assert named
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_readme_of_the_benchmarks_names_every_script() -> None:
    folder = ROOT / "benchmarks"
    text = (folder / "README.md").read_text()
    assert [script.name for script in folder.glob("*.py") if script.name not in text] == []


def _contexts(
    command: click.Command, name: str, parent: click.Context | None
) -> Iterator[tuple[str, click.Context]]:
    context = click.Context(command, info_name=name, parent=parent)
    yield context.command_path.partition(" ")[2], context
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from _contexts(found, inner, context)


def test_every_command_has_an_example_that_parses_and_is_in_its_page() -> None:
    contexts = dict(_contexts(cli, "tdxreclaim", None))
    assert set(EXAMPLES) == set(contexts) - {""}
    for path, example in EXAMPLES.items():
        words = shlex.split(example)
        if not isinstance(contexts[path].command, click.Group):
            assert words[: 1 + len(path.split())] == ["tdxreclaim", *path.split()]
            arguments = words[1 + len(path.split()) :]
            # Raises if an option or a value is none.
            contexts[path].command.make_context(path, arguments, parent=contexts[path].parent)
        assert example in _page(f"tdxreclaim-{path.split()[0]}.1").replace("\\", "")


@pytest.mark.parametrize("path", EXAMPLES)
def test_help_ends_with_the_example(path: str, run: RunTool) -> None:
    lines = run(*path.split(), "--help").out.splitlines()
    assert lines[-2:] == ["Example:", f"  {EXAMPLES[path]}"]
