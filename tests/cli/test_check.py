"""The command line: statuses, errors in every format, files written whole."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import jsonschema
import pytest
from click.testing import CliRunner

from tdxreclaim.cli import cli, main, say_bug
from tdxreclaim.cli.output import requested_format, wants_color, write_whole
from tdxreclaim.errors import ExitStatus, OutputError, UsageError
from tdxreclaim.facts.evidence import flat
from tdxreclaim.facts.sources.recognise import CaptureFormat
from tdxreclaim.policy.model import Verdict
from tdxreclaim.report.schemas import VERSIONS, read_schema
from tdxreclaim.tables.errata import ERRATA

if TYPE_CHECKING:
    from conftest import RunTool

HOSTS = Path(__file__).parents[1] / "hosts"
TOOL = (sys.executable, "-m", "tdxreclaim")


@pytest.mark.parametrize(
    ("arguments", "status", "posture", "kexec"),
    [
        (("--cpu", "spr", "--kernel", "6.17"), 10, "clears-as-required", "not-built"),
        (("--cpu", "gnr", "--kernel", "6.17"), 0, "clears-needlessly", "not-built"),
        (("--cpu", "gnr", "--kernel", "6.18"), 0, "skips-safely", "allowed"),
        (("--cpu", "emr", "--kernel", "7.0"), 10, "clears-as-required", "refused"),
        (("--cpu", "emr", "--kernel", "7.2"), 10, "clears-as-required", "allowed-after-disable"),
        (("--cpu", "19/1"), 0, "unknown", "unknown"),
        (("--cpu", "0x806F8"), 10, "unknown", "unknown"),
        (("--cpu", "06-8f-08", "--kernel", "6.12"), 10, "idle", "not-built"),
        (("--family", "6", "--model", "0xcf", "--stepping", "2"), 10, "unknown", "unknown"),
        (("--family", "25", "--model", "17", "--vendor", "amd"), 12, "not-applicable", "allowed"),
        (("--cpu", "6/0x6a"), 11, "unknown", "unknown"),
        (("--cpu", "spr", "--kernel", "6.17.0-5-generic"), 10, "unknown", "unknown"),
    ],
)
def test_faked(
    arguments: tuple[str, ...], status: int, posture: str, kexec: str, run: RunTool
) -> None:
    ran = run("check", *arguments, "--format", "json")
    document = json.loads(ran.out)

    jsonschema.validate(document, json.loads(read_schema("check")))
    assert ran.status == status == document["exit_status"]
    assert (document["posture"], document["kernel"]["kexec"]) == (posture, kexec)
    assert document["source"]["faked"] is True
    assert document["source"]["origins"] == ["faked"]
    text = run("check", *arguments)
    assert text.status == status
    assert "[what-if: CPU" in " ".join(text.out.split())


def test_faked_parts_over_a_capture_name_what_was_faked(run: RunTool) -> None:
    base = ("check", "--from", "gnr-6.17-active")
    newer = run(*base, "--kernel", "6.18", cwd=HOSTS)
    assert newer.status == 0
    assert "[what-if: kernel from the command line]" in " ".join(newer.out.split())
    other = json.loads(run(*base, "--cpu", "emr", "--format", "json", cwd=HOSTS).out)
    assert other["verdict"] == "clear-required"
    assert other["source"]["origins"] == ["captured", "faked"]
    assert other["kernel"]["clearing"] == "clears-always"
    model = json.loads(run(*base, "--model", "0x8f", "--format", "json", cwd=HOSTS).out)
    assert [p["model"] for p in model["silicon"]["processors"]] == [0x8F]
    assert model["silicon"]["processors"][0]["count"] == 4


def test_live_in_this_process_has_an_answer(run: RunTool) -> None:
    ran = run("check", "--format", "json")
    document = json.loads(ran.out)

    jsonschema.validate(document, json.loads(read_schema("check")))
    assert ran.status == document["exit_status"]
    assert document["source"]["name"] == "this host"
    over = json.loads(run("check", "--live", "--cpu", "spr", "--format", "json").out)
    assert "live" in over["source"]["origins"]
    assert "faked" in over["source"]["origins"]


# What is wrong, the status, and what the one line names.
WRONG = [
    (("check", "--cpu", "0x1000806F8"), 2, "--cpu"),
    (("check", "--cpu", "6/300"), 2, "--cpu"),
    (("check", "--family", "6", "--model", "300"), 2, "--model"),
    (("check", "--family", "six", "--model", "1"), 2, "--family"),
    (("check", "--model", "1"), 2, "--family"),
    (("check", "--family", "6"), 2, "--model"),
    (("check", "--vendor", "GenuineIntle", "--family", "6", "--model", "1"), 2, "--vendor"),
    (("check", "--cpu", "spr", "--model", "1"), 2, "--model"),
    (("check", "--cpu", "06-8f-08", "--stepping", "3"), 2, "--stepping"),
    (("check", "--cpu", "spr", "--stepping", "16"), 2, "--stepping"),
    (("check", "--kernel", "latest"), 2, "--kernel"),
    (("check", "--cpu", "spr", "--kernel", "6.17\n"), 2, "--kernel"),
    (("check", "--from", "x", "--live"), 2, "--live"),
    (("check", "--from", "x", "--from", "y"), 2, "--from"),
    (("check", "--cpu", "spr", "--cpu", "gnr"), 2, "--cpu"),
    (("check", "--from", ""), 2, "--from"),
    (("check", "--from", "no\nsuch\x1b[2J"), 3, "no\N{REPLACEMENT CHARACTER}such"),
    (("check", "--kernel", "06.17"), 2, "--kernel"),
    (("check", "--quiet", "--exit-zero"), 2, "--quiet"),
    (("check", "--from-format", "tar"), 2, "--from-format"),
    (("check", "--from", "x", "--cross-check"), 2, "--cross-check"),
    (("check", "--cpu", "spr", "--cross-check"), 2, "--cross-check"),
    (("check", "--quiet", "--explain"), 2, "--quiet"),
    (("check", "--quiet", "--format", "json"), 2, "--quiet"),
    (("check", "--quiet", "--output", "x"), 2, "--quiet"),
    (("check", "--format", "yaml"), 2, "--format"),
    (("check", "--nope"), 2, "--nope"),
    (("check", "--from"), 2, "--from"),
    (("check", "stray"), 2, "usage"),
    (("chekc",), 2, "chekc"),
    (("schema", "nope"), 2, "NAME"),
    (("check", "--from", "does-not-exist"), 3, "does-not-exist"),
]


@pytest.mark.parametrize(("arguments", "status", "what"), WRONG, ids=lambda v: str(v)[:60])
def test_wrong_input_gets_one_line_and_its_status(
    arguments: tuple[str, ...], status: int, what: str, run: RunTool
) -> None:
    ran = run(*arguments)

    assert ran.status == status
    assert ("json" in arguments) is (ran.out != "")
    assert ran.err.startswith(f"tdxreclaim: {what}")
    assert ran.err.count("\n") == 1
    assert ran.err.count(": ") >= 2


@pytest.mark.parametrize(("arguments", "status", "what"), WRONG, ids=lambda v: str(v)[:60])
def test_wrong_input_in_json_is_json_too(
    arguments: tuple[str, ...], status: int, what: str, run: RunTool
) -> None:
    if "--format" in arguments or arguments[-1] == "--from":
        pytest.skip("its format is what is wrong")
    ran = run(*arguments, "--format=json")
    document = json.loads(ran.out)

    jsonschema.validate(document, json.loads(read_schema("error")))
    assert document["error"]["exit_status"] == ran.status == status
    assert flat(document["error"]["what"]).startswith(what) or ran.status == 2
    assert ran.err.startswith("tdxreclaim: ")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), "text"),
        (("-f", "json"), "json"),
        (("-fjson",), "json"),
        (("--format=shell", "--format", "json"), "json"),
        (("--", "--format=json"), "text"),
        (("--format",), "text"),
    ],
)
def test_requested_format(arguments: tuple[str, ...], wanted: str) -> None:
    assert requested_format(arguments) == wanted


def test_statuses_of_the_contract() -> None:
    assert {status.name: status.value for status in ExitStatus} == {
        "NOT_REQUIRED": 0,
        "BUG": 1,
        "USAGE": 2,
        "BAD_INPUT": 3,
        "REQUIRED": 10,
        "UNDETERMINED": 11,
        "NOT_APPLICABLE": 12,
        "NOT_READ": 13,
        "FINDINGS": 20,
        "INTERRUPTED": 130,
        "CLOSED_PIPE": 141,
    }
    statuses = {verdict: verdict.exit_status for verdict in Verdict}
    assert [verdict for verdict, status in statuses.items() if status == 0] == [
        Verdict.CLEAR_NOT_REQUIRED
    ]
    assert len(set(statuses.values())) == len(Verdict)


def test_help_lists_every_status(run: RunTool) -> None:
    words = run("--help").out.split()
    assert all(str(status.value) in words for status in ExitStatus)


@pytest.mark.parametrize(
    "command", ["check", "simulate", "scenario", "errata", "schema", "calibrate"]
)
def test_every_command_has_help(command: str, run: RunTool) -> None:
    ran = run(command, "--help")
    assert ran.status == 0
    assert ran.out.startswith(f"Usage: tdxreclaim {command}")
    assert run(command, "-h").out == ran.out


def test_no_command_shows_help_on_stderr(run: RunTool) -> None:
    ran = run()
    assert (ran.status, ran.out) == (2, "")
    assert "check" in ran.err


@pytest.mark.parametrize(
    "name",
    VERSIONS,
)
def test_schema_is_a_valid_schema(name: str, run: RunTool) -> None:
    schema = json.loads(run("schema", name).out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"tdxreclaim.{name}/{VERSIONS[name]}"


def test_from_format_names_are_the_forms_that_captures_have() -> None:
    help_text = CliRunner().invoke(cli, ["check", "--help"]).output
    shown = re.search(r"--from-format \[([^\]]+)\]", help_text)
    assert shown is not None
    assert shown[1].split("|") == list(CaptureFormat)


def test_explain_shows_rules_that_did_not_fire(run: RunTool) -> None:
    ran = run("check", "--cpu", "gnr", "--explain")
    assert "+ no-erratum" in ran.out
    assert "- tdx_pw_mce" in ran.out
    weighed = json.loads(run("check", "--cpu", "gnr", "--explain", "-f", "json").out)["weighed"]
    assert {step["fired"] for step in weighed} == {True, False}
    assert "weighed" not in json.loads(run("check", "--cpu", "gnr", "-f", "json").out)


# Colour.


@pytest.mark.parametrize(
    ("choice", "environment", "colored"),
    [
        ("auto", {}, False),
        ("auto", {"FORCE_COLOR": "1"}, True),
        ("auto", {"FORCE_COLOR": ""}, False),
        ("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ("auto", {"FORCE_COLOR": "1", "NO_COLOR": ""}, True),
        ("always", {"NO_COLOR": "1"}, True),
        ("never", {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colour_rule(
    choice: str, environment: dict[str, str], *, colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert wants_color(choice) is colored
    result = CliRunner().invoke(cli, ["check", "--cpu", "spr", "--color", choice])
    assert ("\x1b[" in result.output) is colored


def test_text_without_colour_is_the_same_text(run: RunTool) -> None:
    plain = run("check", "--cpu", "spr", "--kernel", "6.17").out
    colored = run("check", "--cpu", "spr", "--kernel", "6.17", "--color", "always").out
    assert "\x1b[" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain


@pytest.mark.parametrize("columns", ["1", "40", "60", "200"])
def test_text_of_any_width_says_the_same_words(
    columns: str, run: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = run("check", "--cpu", "emr", "--kernel", "7.0").out.split()
    monkeypatch.setenv("COLUMNS", columns)
    ran = run("check", "--cpu", "emr", "--kernel", "7.0")
    assert max(map(len, ran.out.splitlines())) <= max(int(columns), 40)
    assert "".join(ran.out.split()) == "".join(words)


# Files.


def test_output_is_written_whole_and_keeps_the_mode(tmp_path: Path, run: RunTool) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")
    target.chmod(0o600)
    ran = run("check", "--cpu", "spr", "--format", "json", "--output", str(target))

    assert (ran.status, ran.out) == (10, "")
    assert json.loads(target.read_text())["verdict"] == "clear-required"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_output_through_a_link_leaves_the_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    link.symlink_to(real)
    write_whole(str(link), "text")
    assert link.is_symlink()
    assert real.read_text() == "text"


def test_output_to_a_device_does_not_replace_it(run: RunTool) -> None:
    ran = run("check", "--cpu", "spr", "--output", "/dev/null")
    assert ran.status == 10
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_output_dash_prints(run: RunTool) -> None:
    assert run("check", "--cpu", "spr", "-o", "-").out == run("check", "--cpu", "spr").out


@pytest.mark.parametrize("target", ["no/such/folder/x", "."])
def test_output_that_cannot_be_written(target: str, tmp_path: Path, run: RunTool) -> None:
    ran = run("check", "--cpu", "spr", "--output", target, cwd=tmp_path)
    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith(f"tdxreclaim: {target}: ")
    assert list(tmp_path.iterdir()) == []


def test_a_write_is_whole_or_not_at_all(tmp_path: Path) -> None:
    # The name of a file that is not UTF-8 comes as a surrogate; 255 bytes is the longest.
    target = tmp_path / ("x" * 255)
    target.write_text("old")
    write_whole(str(target), "half \ud800")
    assert target.read_text() == "half ?"
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    with pytest.raises(UsageError):
        write_whole("", "text")
    with pytest.raises(OutputError):
        write_whole(str(tmp_path), "text")


# In a process of its own: pipes, full disks, interrupts.


def _spawn(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [*TOOL, *arguments], stderr=subprocess.PIPE, check=False, **options
    )


@pytest.mark.parametrize(
    "arguments", [("check",), ("check", "-f", "json"), ("errata",), ("--help",)], ids=" ".join
)
def test_a_closed_pipe_ends_quietly(arguments: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    ran = _spawn(*arguments, stdout=write)
    os.close(write)
    assert (ran.returncode, ran.stderr) == (ExitStatus.CLOSED_PIPE, b"")


@pytest.mark.parametrize("arguments", [("check",), ("errata",), ("--help",)], ids=" ".join)
def test_a_full_disk_is_one_line(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = _spawn(*arguments, stdout=full)
    assert ran.returncode == ExitStatus.BAD_INPUT
    assert ran.stderr == b"tdxreclaim: standard output: No space left on device\n"


def test_what_is_no_failure_of_standard_output_is_not_called_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("tdxreclaim.cli.cli.main", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        main(["check"])
    assert say_bug(caught.value, []) == ExitStatus.BUG


def test_too_little_memory_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert say_bug(MemoryError(), []) == ExitStatus.BAD_INPUT
    assert capsys.readouterr().err == "tdxreclaim: memory: there is not enough for this input\n"


def test_a_deleted_directory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(OutputError, match="No such file or directory"):
        write_whole("x", "text")


def test_names_that_are_not_utf8_are_one_line(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/a\xff")
    Path(name).write_text("nothing\n")
    for arguments in (["--from", name], ["--cpu", "s\udcff"], ["--from", name, "--host", "\udcff"]):
        ran = _spawn("check", *arguments, stdout=subprocess.PIPE)
        assert ran.returncode in (ExitStatus.USAGE, ExitStatus.BAD_INPUT, ExitStatus.NOT_READ)
        assert ran.stderr.count(b"\n") == 1
        assert b"Traceback" not in ran.stderr
    assert _spawn("check", "--cpu", "spr", "-o", f"{name}.out").returncode == ExitStatus.REQUIRED
    assert Path(f"{name}.out").read_bytes()


def test_an_unset_term_is_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TERM", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert not wants_color("auto")
    monkeypatch.setenv("TERM", "xterm")
    assert wants_color("auto")


def test_a_closed_stdout_is_one_line_unless_nothing_is_printed() -> None:
    for arguments, status, said in (
        (["check", "--cpu", "spr"], 3, "tdxreclaim: standard output: it is closed\n"),
        (["check", "--cpu", "spr", "--quiet"], 10, ""),
        (["check", "--cpu", "spr", "--output", "/dev/null"], 10, ""),
    ):
        closing = ["sh", "-c", 'exec "$@" >&-', "sh", *TOOL, *arguments]
        ran = subprocess.run(closing, stderr=subprocess.PIPE, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (status, said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_is_130(tmp_path: Path, number: signal.Signals) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [*TOOL, "check", "--from", str(fifo)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    # Opening for writing waits until the tool has opened it for reading.
    with fifo.open("wb"):
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == ExitStatus.INTERRUPTED
    assert out == b""
    assert b"Traceback" not in err


def test_standard_input_is_read(tmp_path: Path) -> None:
    text = (HOSTS / "spr-6.18-active" / "proc" / "cpuinfo").read_bytes()
    ran = _spawn("check", "--from", "-", "-f", "json", input=text, stdout=subprocess.PIPE)
    assert ran.returncode == ExitStatus.REQUIRED
    assert json.loads(ran.stdout)["source"]["name"] == "standard input"
    closed = _spawn(
        "check", "--from", "-", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=tmp_path
    )
    assert closed.returncode == ExitStatus.BAD_INPUT
    assert closed.stderr == b"tdxreclaim: standard input: empty\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    ran = _spawn(
        env={**os.environ, "_TDXRECLAIM_COMPLETE": f"{shell}_source"}, stdout=subprocess.PIPE
    )
    assert ran.returncode == 0
    assert b"_TDXRECLAIM_COMPLETE" in ran.stdout


def test_completion_offers_commands_and_options() -> None:
    def complete(words: str) -> set[str]:
        environment = {
            **os.environ,
            "_TDXRECLAIM_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        ran = _spawn(env=environment, stdout=subprocess.PIPE)
        return {line.partition(",")[2] for line in ran.stdout.decode().splitlines()}

    commands = set(cli.list_commands(click.Context(cli)))
    assert complete("tdxreclaim ") == commands
    assert {"--from", "--from-format", "--format"} <= complete("tdxreclaim check --f")


# The reader's thirty seconds: a terminal of 80 by 24 keeps the prompt and the answer.
@pytest.mark.parametrize("host", sorted(path.name for path in HOSTS.iterdir()))
def test_the_answer_fits_a_screen(host: str, run: RunTool) -> None:
    lines = run("check", "--from", host, cwd=HOSTS).out.splitlines()
    # Each further erratum may wrap a line.
    assert len(lines) <= 14 + len(ERRATA)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("host", ["gnr-6.17-active", "spr-6.18-at-risk", "gnr-truncated"])
def test_explain_adds_to_the_answer_and_changes_none_of_it(host: str, run: RunTool) -> None:
    short = run("check", "--from", host, cwd=HOSTS).out.rstrip().rpartition("\n\n")[0].splitlines()
    long = run("check", "--from", host, "--explain", cwd=HOSTS).out.splitlines()
    assert long[: len(short)] == short
    for heading in ("Why", "Evidence", "All that was weighed"):
        assert heading in long


@pytest.mark.parametrize("kernel", ["6.17", "6.18", "7.1", "7.3"])
@pytest.mark.parametrize("cpu", ["spr", "emr", "gnr", "cwf", "6/0x6a"])
def test_a_what_if_fits_a_screen(cpu: str, kernel: str, run: RunTool) -> None:
    assert len(run("check", "--cpu", cpu, "--kernel", kernel).out.splitlines()) <= 15


def test_private_keyids_that_a_ticket_counts_show_tdx_on_in_the_bios(
    run: RunTool, tmp_path: Path
) -> None:
    ticket = tmp_path / "ticket.md"
    ticket.write_text(
        "My host\n\n```\nLinux version 6.18.2 (x)\n"
        "smpboot: CPU0: Intel(R) Xeon(R) (family: 0x6, model: 0xcf, stepping: 0x2)\n```\n\n"
        "```\nNUM_TDX_PRIV_KEYS: 32\nTDX on\n```\n"
    )
    ran = run("check", "--from", str(ticket), "--format", "json")
    document = json.loads(ran.out)
    assert document["host"]["state"] == "bios-enabled"
    assert "NUM_TDX_PRIV_KEYS" in json.dumps(document["evidence"])

    ticket.write_text(ticket.read_text().replace("KEYS: 32", "KEYS: 0"))
    again = json.loads(run("check", "--from", str(ticket), "--format", "json").out)
    assert again["host"]["state"] == "unknown"
