"""Every format of check, for every captured host, read back by what reads it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tdxreclaim.cli import say_bug
from tdxreclaim.facts.evidence import Evidence, Origin
from tdxreclaim.facts.fake import nothing_known
from tdxreclaim.policy.decide import decide
from tdxreclaim.policy.model import Posture, Verdict
from tdxreclaim.report.check.formats import FORMATS, render
from tdxreclaim.report.check.nfd import _label
from tdxreclaim.report.check.report import Report

if TYPE_CHECKING:
    from conftest import Compare, RunTool

HOSTS = Path(__file__).parents[2] / "hosts"
NAMES = sorted(path.name for path in HOSTS.iterdir())
NEW = [name for name in FORMATS if name not in ("text", "json", "shell")]


def answer(run: RunTool, name: str) -> dict[str, object]:
    document: dict[str, object] = json.loads(
        run("check", "--from", name, "--format", "json", cwd=HOSTS).out
    )
    return document


@pytest.mark.parametrize("format_", NEW)
@pytest.mark.parametrize("name", ["spr-6.18-at-risk", "gnr-6.17-active", "mixed-sockets"])
def test_a_host_in_every_format(name: str, format_: str, run: RunTool, golden: Compare) -> None:
    ran = run("check", "--from", name, "--format", format_, cwd=HOSTS)

    assert ran.err == ""
    golden(f"format-{name}.{format_}", ran.golden)


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_one_hot_and_without_time(name: str, run: RunTool) -> None:
    expected = answer(run, name)
    out = run("check", "--from", name, "--format", "prometheus", cwd=HOSTS).out
    samples = [s for f in text_string_to_metric_families(out) for s in f.samples]

    assert len({(s.name, tuple(sorted(s.labels.items()))) for s in samples}) == len(samples)
    assert all(s.timestamp is None for s in samples)
    for kind, values in (("verdict", Verdict), ("posture", Posture)):
        found = {s.labels[kind]: s.value for s in samples if s.name == f"tdxreclaim_{kind}"}
        assert found == {value: float(value == expected[kind]) for value in values}


@pytest.mark.consumer
@pytest.mark.parametrize("name", NAMES)
def test_promtool_finds_nothing(name: str, run: RunTool) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "Debian: prometheus"
    out = run("check", "--from", name, "--format", "prometheus", cwd=HOSTS).out
    lint = subprocess.run(
        [promtool, "check", "metrics"], input=out, capture_output=True, text=True, check=False
    )
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")


PLUGIN = re.compile(
    r"TDXRECLAIM (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+"
    r"(\| (\w+=\d+(;[^; ]*){0,4} ?)+)?\n"
)


@pytest.mark.parametrize("name", NAMES)
def test_a_plugin_ends_with_its_state(name: str, run: RunTool) -> None:
    ran = run("check", "--from", name, "--format", "nagios", cwd=HOSTS)
    match = PLUGIN.fullmatch(ran.out)

    assert match, ran.out
    assert ("OK", "WARNING", "CRITICAL", "UNKNOWN")[ran.status] == match[1]
    expected = answer(run, name)
    if expected["posture"] == "at-risk":
        assert ran.status == 2
    if expected["verdict"] == "undetermined":
        assert ran.status == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("--from", "does-not-exist"),
        ("--from", "a|b\nc"),
        ("--no-such-option",),
        ("--cpu", "6/300"),
        ("--exit-zero",),
        ("--from", "/dev/null"),
    ],
    ids=repr,
)
def test_every_failure_of_a_plugin_is_unknown(arguments: tuple[str, ...], run: RunTool) -> None:
    ran = run("check", *arguments, "--format", "nagios")

    assert ran.status == 3
    assert PLUGIN.fullmatch(ran.out), ran.out


def test_our_own_bug_is_unknown_to_a_monitor(run: RunTool, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("tdxreclaim.policy.decide.decide", broken)
    with pytest.raises(RuntimeError) as caught:
        run("check", "--cpu", "spr", "-f", "nagios")
    # What the one guard, in __main__, says of it.
    assert say_bug(caught.value, ["check", "-f", "nagios"]) == 3
    assert say_bug(caught.value, ["check"]) == 1


def test_the_environment_cannot_change_the_status(
    run: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TDXRECLAIM_FORMAT", "nagios")
    ran = run("check", "--cpu", "spr", "--kernel", "6.17")
    assert (ran.status, ran.out) == (2, "")


@pytest.mark.parametrize("name", NAMES)
def test_features_are_labels(name: str, run: RunTool) -> None:
    out = run("check", "--from", name, "--format", "nfd", cwd=HOSTS).out
    assert not out.startswith("#")
    for line in out.splitlines():
        key, _, value = line.partition("=")
        prefix, _, label = key.partition("/")
        assert prefix == "feature.node.kubernetes.io"
        assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", label)
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", value), line
    assert f"/tdxreclaim.verdict={answer(run, name)['verdict']}\n" in out


def test_a_feature_expires(run: RunTool) -> None:
    first = run("check", "--cpu", "spr", "-f", "nfd", "--expires", "2h").out.splitlines()[0]
    assert re.fullmatch(r"# \+expiry-time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first)
    assert run("check", "--cpu", "spr", "--expires", "2h").status == 2


@pytest.mark.parametrize("value", ["x" * 70, "-a-", "ümlaut", "2.0.08\n"])
def test_any_value_becomes_a_label(value: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", _label(value))


@pytest.mark.parametrize("name", NAMES)
def test_a_line_a_row_and_a_word_say_what_json_says(name: str, run: RunTool) -> None:
    expected = answer(run, name)
    line = run("check", "--from", name, "--format", "jsonl", cwd=HOSTS).out
    word = run("check", "--from", name, "--format", "plain", cwd=HOSTS).out
    rows = run("check", "--from", name, "--format", "csv", cwd=HOSTS).out
    (row,) = csv.DictReader(rows.splitlines())

    assert line.count("\n") == 1
    assert json.loads(line) == expected
    assert word == f"{expected['verdict']}\n"
    assert (row["verdict"], row["posture"]) == (expected["verdict"], expected["posture"])


HOSTILE = 'x"\\\n|=`*<b>{},\N{RIGHT-TO-LEFT OVERRIDE}'


@pytest.mark.parametrize("format_", NEW)
def test_a_hostile_release_and_name_stay_data(format_: str) -> None:
    facts = nothing_known()
    release = facts.release._replace(value=HOSTILE)
    noted = Evidence(HOSTILE, HOSTILE, Origin.CAPTURED)
    decision = decide(facts._replace(release=release, notes=(noted,)))
    text = render(Report(decision, "=" + HOSTILE, "tree"), format_)

    if format_ == "prometheus":
        samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
        assert HOSTILE in {s.labels.get("release") for s in samples}
    elif format_ == "csv":
        (row,) = csv.DictReader(text.splitlines(keepends=True))
        assert row["source"] == "'=" + HOSTILE
    elif format_ == "nagios":
        assert PLUGIN.fullmatch(text)
    elif format_ == "markdown":
        assert "<b>" not in re.sub(r"(`+)(?!`)[^\n]*?(?<!`)\1(?!`)", "", text)
    else:
        assert text.count("\n") == len(text.splitlines())


def test_an_error_on_one_line(run: RunTool) -> None:
    ran = run("check", "--from", "does-not-exist", "--format", "jsonl")
    assert ran.status == 3
    assert json.loads(ran.out)["error"]["what"] == "does-not-exist"
    assert ran.out.count("\n") == 1
