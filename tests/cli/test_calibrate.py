"""`calibrate`: what a user makes of it, and how it gets into an estimate."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest

from tdxreclaim.calibrate import recordings
from tdxreclaim.calibrate.merge import merge
from tdxreclaim.calibrate.recordings import FUNCTIONS
from tdxreclaim.cli import main, progress
from tdxreclaim.costs.shipped import read_calibration, read_shipped_calibration
from tdxreclaim.costs.toml import dump, load
from tdxreclaim.report.schemas import read_schema
from tdxreclaim.tables.teardown import Action

if TYPE_CHECKING:
    from conftest import RunTool

    from tdxreclaim.costs.calibration import Calibration

HOSTS = Path(__file__).parents[1] / "hosts"
CLEAR = ("calibrate", "clear", "--size", "4MiB", "--rounds", "2", "--pages", "4k")
CSV = """memory,vcpus,kernel,seconds,affected
64GiB,8,6.17,300.5,no
64GiB,8,6.18.2,270.2,no
128GiB,8,6.17,601.5,no
128GiB,8,6.18.2,539.8,no
"""
QUESTION = ("--memory", "18GiB", "--vcpus", "4", "--cpu", "gnr", "--kernel", "6.17")


def _valid(text: str) -> dict[str, object]:
    """Check JSON against its schema, and the calibration in it against that one's."""
    document: dict[str, object] = json.loads(text)
    jsonschema.validate(document, json.loads(read_schema("calibrate")))
    if "calibration" in document:
        jsonschema.validate(document["calibration"], json.loads(read_schema("calibration")))
    return document


def test_clear_makes_a_calibration_that_simulate_takes(run: RunTool, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    ran = run(*CLEAR, "-o", str(mine))
    assert (ran.status, ran.err) == (0, "")
    assert "memset" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80

    record = load(mine.read_text(), "mine")
    assert record.steps[Action.CLEAR].taken_from == "clear"
    assert record.steps[Action.KICK].taken_from == "published"
    simulated = run("simulate", *QUESTION, "--calibration", str(mine), "-f", "json")
    document = json.loads(simulated.out)
    jsonschema.validate(document, json.loads(read_schema("simulate")))
    steps = {step["step"]: step for step in document["estimate"]["steps"]}
    assert steps["clear"]["provenance"] == "measured"
    if record.stand_ins:
        assert "MOVDIR64B was not executed" in steps["clear"]["stand_in"]
        assert any("stand-in" in each for each in document["warnings"])
        text = run("simulate", *QUESTION, "--calibration", str(mine)).out
        assert "priced by a stand-in, not by MOVDIR64B" in " ".join(text.split())
        assert "STAND-IN" in run("calibrate", "show", str(mine)).out
        assert "steps.clear: a stand-in" in run("calibrate", "check", str(mine)).out
        assert "STAND-IN" in ran.out


def test_clear_as_json_and_toml(run: RunTool) -> None:
    document = _valid(run(*CLEAR, "-f", "json").out)
    measured = document["measured"]
    assert isinstance(measured, dict)
    assert measured["size_bytes"] == 4 << 20
    text = run(*CLEAR, "-f", "toml", "--name", "mine").out
    assert load(text, "x").name == "mine"


TRACED = ("tdh_mem_range_block", "tdh_mem_track", "tdh_mem_page_remove", "tdx_quirk_reset_page")


def _recorded(folder: Path) -> str:
    path = folder / "shutdown.trace"
    path.write_text(
        "".join(f" 3)   1.{n:03d} us    |  {name}();\n" for n, name in enumerate(TRACED))
    )
    return str(path)


def test_trace_and_clear_are_merged_by_step(run: RunTool, tmp_path: Path) -> None:
    mine, host = tmp_path / "mine.toml", tmp_path / "host.toml"
    assert run(*CLEAR, "-o", str(mine)).status == 0
    arguments = ("--vcpus", "8", "--cpu", "spr", "--kernel", "6.18.2", "--over", str(mine))
    ran = run("calibrate", "trace", _recorded(tmp_path), *arguments, "-o", str(host))

    assert (ran.status, ran.err) == (0, "")
    assert max(map(len, ran.out.splitlines())) <= 80
    record = load(host.read_text(), "host")
    assert {each.name for each in record.sources} == {"trace", "published"}
    assert record.steps[Action.CLEAR].taken_from == "trace"
    assert record.steps[Action.FREEID].taken_from == "published"
    assert record.cpu == "GenuineIntel 6/0x8f"
    assert record.rows, "the published shutdowns still say what was timed"


def test_a_calibration_of_another_host_is_used_with_a_warning(run: RunTool, tmp_path: Path) -> None:
    host = tmp_path / "host.toml"
    recorded = ("calibrate", "trace", _recorded(tmp_path), "--cpu", "spr", "--kernel", "6.18.2")
    run(*recorded, "-o", str(host))

    def warnings(cpu: str, kernel: str) -> list[str]:
        question = ("--memory", "1GiB", "--vcpus", "8", "--cpu", cpu, "--kernel", kernel)
        ran = run("simulate", *question, "--calibration", str(host), "-f", "json")
        found: list[str] = json.loads(ran.out)["warnings"]
        return found

    assert warnings("spr", "6.18.9") == []
    assert warnings("emr", "7.0") == [
        "calibration trace is of CPU GenuineIntel 6/0x8f, not of GenuineIntel 6/0xcf",
        "calibration trace is of kernel 6.18.2, not of 7.0",
    ]
    published = json.loads(run("simulate", *QUESTION, "-f", "json").out)
    assert published["warnings"] == []


def test_trace_warns_of_functions_of_another_kernel(run: RunTool, tmp_path: Path) -> None:
    ran = run("calibrate", "trace", _recorded(tmp_path), "--kernel", "6.17")
    assert "not those of kernel 6.17" in ran.out
    document = _valid(run("calibrate", "trace", _recorded(tmp_path), "-f", "json").out)
    recording = document["recording"]
    assert isinstance(recording, dict)
    assert recording["kernels"] == {"since": "6.18", "until": "7.1"}
    assert document["warnings"] == []


def test_trace_says_when_no_one_kernel_has_the_functions(run: RunTool, tmp_path: Path) -> None:
    path = tmp_path / "mixed.trace"
    path.write_text(
        " 0)   1.0 us    |  tdx_clear_page();\n 0)   1.0 us    |  tdx_quirk_reset_page();\n"
    )
    assert "no one kernel has all" in run("calibrate", "trace", str(path)).out
    document = _valid(run("calibrate", "trace", str(path), "-f", "json").out)
    assert document["recording"]["kernels"] is None  # type: ignore[index]


def test_fit_of_a_csv(run: RunTool, tmp_path: Path) -> None:
    path = tmp_path / "observed.csv"
    path.write_text(CSV)
    document = _valid(run("calibrate", "fit", str(path), "--cpu", "gnr", "-f", "json").out)
    fit = document["fit"]
    assert isinstance(fit, dict)
    assert (fit["cause"], fit["outlier"], len(fit["residuals"])) == ("nothing", None, 4)
    assert fit["causes"][0]["clear_determined"] is True
    text = run("calibrate", "fit", str(path))
    assert text.out.startswith(
        "A page cost 17.9 us (16.1 us to 17.9 us) in 4 shutdowns; 2 left over"
    )
    assert "Not determined by these shutdowns" in text.out
    assert max(map(len, text.out.splitlines())) <= 80


def test_fit_joins_files_and_simulate_takes_the_result(run: RunTool, tmp_path: Path) -> None:
    first, second, both = (tmp_path / name for name in ("a.csv", "b.toml", "both.toml"))
    first.write_text(CSV)
    made = ("calibrate", "fit", str(first), "--host", "node-a", "--cpu", "gnr")
    assert run(*made, "--kernel", "6.18.2", "-o", str(second)).status == 0
    more = tmp_path / "more.csv"
    more.write_text("memory,vcpus,kernel,seconds\n256GiB,64,6.17,1210\n")
    ran = run("calibrate", "fit", str(second), str(more), "--name", "both", "-o", str(both))
    assert (ran.status, ran.err) == (0, "")
    record = load(both.read_text(), "both")
    assert (record.host, record.cpu) == ("node-a", "GenuineIntel 6/0xad")
    assert [row.seconds for row in record.rows] == [300.5, 270.2, 601.5, 539.8, 1210]
    again = run("calibrate", "fit", str(both), "-f", "json").out
    assert len(_valid(again)["fit"]["residuals"]) == 5  # type: ignore[index]
    asked = ("simulate", *QUESTION, "--calibration", str(both), "-f", "json")
    assert json.loads(run(*asked).out)["estimate"]["total"]["likely_ns"] > 0


def test_fit_refuses_the_shutdowns_of_two_cpus(run: RunTool, tmp_path: Path) -> None:
    for name in ("spr", "gnr"):
        (tmp_path / "a.csv").write_text(CSV)
        made = ("calibrate", "fit", str(tmp_path / "a.csv"), "--cpu", name)
        assert run(*made, "-o", str(tmp_path / f"{name}.toml")).status == 0
    ran = run("calibrate", "fit", *(str(tmp_path / f"{name}.toml") for name in ("spr", "gnr")))
    assert (ran.status, ran.out) == (2, "")
    assert "shutdowns of several CPUs" in ran.err


def test_list_show_check_diff(run: RunTool, tmp_path: Path) -> None:
    assert "published" in run("calibrate", "list").out.split()
    _valid(run("calibrate", "list", "-f", "json").out)
    shown = run("calibrate", "show", "published", "--vcpus", "64")
    assert "####" in shown.out
    assert "assumed" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    document = json.loads(run("calibrate", "show", "published", "-f", "json").out)
    jsonschema.validate(document, json.loads(read_schema("calibration")))
    assert "6 shutdowns the worst comes out" in run("calibrate", "check", "published").out
    other = tmp_path / "other.toml"
    text = read_shipped_calibration("published")
    other.write_text(text.replace('name = "published"', 'name = "other"').replace("1_900", "1_980"))
    compared = run("calibrate", "diff", "published", str(other))
    assert "1.04 x" in compared.out
    document = _valid(run("calibrate", "diff", "published", str(other), "-f", "json").out)
    diff = document["diff"]
    assert isinstance(diff, dict)
    ratios = {each["step"]: each["ratio"] for each in diff["steps"]}
    assert ratios["clear"] == round(1980 / 1900, 4)


def test_a_stand_in_is_said_wherever_it_is_used(run: RunTool, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    text = read_shipped_calibration("published").replace('name = "published"', 'name = "other"')
    head, clear = text.split("[steps.clear]\n", 1)
    clear = 'stand_in = "vmovntdq on user memory"\n' + clear
    other.write_text(f"{head}[steps.clear]\n{clear}")
    for command in (
        ["calibrate", "diff", "published", str(other)],
        ["calibrate", "show", str(other)],
        ["simulate", "--validate", "--calibration", str(other)],
        ["simulate", *QUESTION, "--calibration", str(other)],
        [
            "triage",
            "--from",
            str(HOSTS / "gnr-7.0-active"),
            "--memory",
            "64G",
            "--calibration",
            str(other),
        ],
    ):
        for form in ("text", "json"):
            said = run(*command, "-f", form).out
            assert "vmovntdq on user memory" in " ".join(said.split()), (command, form)
    validated = json.loads(run("simulate", "--validate", "-f", "json").out)
    jsonschema.validate(validated, json.loads(read_schema("validate")))
    assert validated["warnings"] == []


def test_the_schema_of_a_calibration_is_what_the_reader_wants() -> None:
    schema = json.loads(read_schema("calibration"))
    good = tomllib.loads(read_shipped_calibration("published"))
    jsonschema.validate(good, schema)
    assert set(schema["properties"]["steps"]["required"]) == set(Action)
    for path, value in (
        (("record", "host"), 3),
        (("record", "colour"), "red"),
        (("steps", "block", "likely_ns"), "much"),
        (("steps", "kick", "beyond"), "wish"),
        (("rows",), [{}]),
        (("schema",), "x"),
    ):
        bad = tomllib.loads(read_shipped_calibration("published"))
        inner = bad
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


def _without(calibration: Calibration, *actions: Action) -> Calibration:
    import dataclasses

    steps = {action: cost for action, cost in calibration.steps.items() if action not in actions}
    return dataclasses.replace(calibration, steps=steps)


def test_what_is_written_is_read_back(run: RunTool) -> None:
    for record in (read_calibration("published"), load(run(*CLEAR, "-f", "toml").out, "x")):
        assert load(dump(record), "x") == record
        assert tomllib.loads(dump(record))["schema"] == "tdxreclaim.calibration/1"


def test_merging_takes_the_best_of_each_step_and_of_equals_the_first() -> None:
    import dataclasses

    from tdxreclaim.costs.calibration import Provenance

    base = read_calibration("published")

    def with_clear(name: str, provenance: Provenance, stand_in: str | None = None) -> Calibration:
        cost = dataclasses.replace(
            base.steps[Action.CLEAR], provenance=provenance, stand_in=stand_in
        )
        part = _without(base, *(set(Action) - {Action.CLEAR}))
        return dataclasses.replace(part, name=name, steps={Action.CLEAR: cost})

    measured = with_clear("measured", Provenance.MEASURED)
    instead = with_clear("instead", Provenance.MEASURED, "a fill")
    printed = with_clear("printed", Provenance.PUBLISHED)
    felt = with_clear("felt", Provenance.ASSUMED)
    for given, best in (
        ([instead, measured, base], "measured"),
        ([printed, instead, base], "instead"),
        ([felt, printed, base], "printed"),
        ([felt, base], "published"),
        ([dataclasses.replace(measured, name="m2"), measured, base], "m2"),
    ):
        merged = merge(given, name="all", origin="o")
        assert merged.steps[Action.CLEAR].taken_from == best
        assert {each.name for each in merged.sources} == {best, "published"}


WRONG = [
    (("clear", "--size", "0"), 2, "--size: "),
    (("clear", "--threads", "0"), 2, "--threads: 0: at least 1"),
    (("clear", "--threads", "1,x"), 2, "--threads: "),
    (("clear", "--rounds", "0"), 2, "--rounds: "),
    (("clear", "--node", "65000"), 2, "--node: 65000: "),
    (("clear", "--size", "4PiB"), 2, "--size: "),
    (("clear", "--over", "nowhere.toml"), 3, "nowhere.toml: "),
    (("clear", "--size", "1MiB", "--rounds", "1", "-o", "no/such/x.toml"), 3, "no/such/x.toml: "),
    (("clear", "--size", "1MiB", "--rounds", "1", "-o", "-"), 2, "--output: "),
    (("trace",), 2, "FILES: "),
    (("trace", "nowhere"), 3, "nowhere: "),
    (("trace", "bad.txt"), 3, "bad.txt: neither function_graph"),
    (("trace", "bad.txt", "--vcpus", "0"), 2, "--vcpus: "),
    (("trace", "bad.txt", "--kernel", "new"), 2, "--kernel: "),
    (("trace", "bad.txt", "--cpu", "zen"), 2, "--cpu: "),
    (("fit", "nowhere"), 3, "nowhere: "),
    (("fit", "bad.txt"), 3, "bad.txt: line 1: 'hello' is no column"),
    (("fit", "long.csv"), 3, "long.csv: rows[0].kernel: not a kernel release"),
    (("fit", "empty.toml"), 3, "empty.toml: it is empty"),
    (("recipe", "perf"), 2, "TOOL: "),
    (("recipe", "ftrace", "--kernel", "6.12"), 2, "--kernel: "),
    (("show", "nowhere"), 3, "nowhere: "),
    (("check", "bad.txt"), 3, "bad.txt: "),
    (("check", "empty.toml"), 3, "empty.toml: schema: missing"),
    (("diff", "published"), 2, "B: "),
    (("nap",), 2, "usage: "),
]


@pytest.mark.parametrize(("arguments", "status", "said"), WRONG, ids=lambda v: str(v)[:50])
def test_what_is_wrong_gets_one_line(
    arguments: tuple[str, ...], status: int, said: str, run: RunTool, tmp_path: Path
) -> None:
    (tmp_path / "bad.txt").write_text("hello\n")
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "long.csv").write_text(f"memory,vcpus,kernel,seconds\n1GiB,2,{'9' * 5000}.1,3\n")
    ran = run("calibrate", *arguments, cwd=tmp_path)

    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith(f"tdxreclaim: {said}")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("command", ["check", "fit"])
@pytest.mark.parametrize(
    "text", ["schema = " + "1" * 9000, "schema = " + "[" * 20_000, 'schema = "\\ud800"']
)
def test_toml_without_end_is_refused(command: str, text: str, run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "long.toml").write_text(text)
    ran = run("calibrate", command, "long.toml", cwd=tmp_path)
    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith("tdxreclaim: long.toml: ")
    assert ran.err.count("\n") == 1


class Terminal(io.StringIO):
    """What a terminal gets."""

    def isatty(self) -> bool:
        return True


def test_what_takes_long_shows_a_bar_with_rate_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", -1.0)
    monkeypatch.setattr(progress, "_REDRAW_SECONDS", -1.0)
    monkeypatch.setattr(recordings, "_TELL_EVERY", 40)
    for arguments in (["trace", _recorded(tmp_path)], CLEAR[1:]):
        err = Terminal()
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            assert main(["calibrate", *arguments]) == 0
        said = re.sub(r"\x1b\[[0-9;?]*\w", "", err.getvalue())
        assert f"calibrate {arguments[0]}" in said
        assert "/s" in said
        assert re.search(r"-:--:--|\d:\d\d:\d\d", said)


def test_an_output_that_was_there_is_untouched_by_a_failure(run: RunTool, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("old")
    assert run("calibrate", "trace", "nowhere", "-o", str(mine)).status == 3
    assert mine.read_text() == "old"


# Recipes.

KERNELS = ("6.17", "6.18", "7.1", "7.2")


def _tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine: the recipe was not checked by it")
    return found


@pytest.mark.parametrize("kernel", KERNELS)
def test_shellcheck_finds_nothing_in_the_ftrace_recipe(kernel: str, run: RunTool) -> None:
    script = run("calibrate", "recipe", "ftrace", "--kernel", kernel).out
    ran = subprocess.run(
        [_tool("shellcheck"), "-"], input=script, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "")


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_shell_parses_the_ftrace_recipe(kernel: str, run: RunTool) -> None:
    script = run("calibrate", "recipe", "ftrace", "--kernel", kernel).out
    subprocess.run([_tool("sh"), "-n"], input=script, text=True, check=True)


def test_bpftrace_parses_its_recipe(run: RunTool, tmp_path: Path) -> None:
    program = tmp_path / "recipe.bt"
    program.write_text(run("calibrate", "recipe", "bpftrace").out)
    ran = subprocess.run(
        [_tool("bpftrace"), "-d", str(program)], capture_output=True, text=True, check=False
    )
    if ran.returncode and "root" in ran.stdout + ran.stderr:
        pytest.skip("bpftrace wants root even to parse: the recipe was not checked by it")
    assert "syntax error" not in ran.stdout + ran.stderr
    assert ran.returncode == 0


def test_the_bpftrace_recipe_is_balanced_and_clears_all_that_it_begins(run: RunTool) -> None:
    for kernel in KERNELS:
        program = run("calibrate", "recipe", "bpftrace", "--kernel", kernel).out
        assert program.count("{") == program.count("}")
        began = set(re.findall(r"^kprobe:(\w+)", program, re.MULTILINE))
        assert began == set(re.findall(r"^kretprobe:(\w+)", program, re.MULTILINE))
        assert began == set(re.findall(r"clear\(@began_(\w+)\)", program))


@pytest.mark.parametrize("tool", ["ftrace", "bpftrace"])
def test_recipes_trace_what_the_kernel_has_and_name_nothing_of_this_machine(
    tool: str, run: RunTool
) -> None:
    old = run("calibrate", "recipe", tool, "--kernel", "6.17").out
    new = run("calibrate", "recipe", tool, "--kernel", "7.2").out
    assert "tdx_clear_page" in old
    assert "tdx_clear_page" not in new
    assert "tdx_quirk_reset_paddr" in new
    assert set(TRACED) - {"tdx_quirk_reset_page"} <= set(re.split(r"\W+", old))
    assert str(Path.home()) not in old
    assert os.getcwd() not in old
    names = {each.function for each in FUNCTIONS}
    assert set(re.findall(r"\btd[hx]_\w+", new)) <= names
