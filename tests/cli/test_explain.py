"""Whatever an output names can be looked up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest

from tdxreclaim.costs.watched import State
from tdxreclaim.errors import ExitStatus
from tdxreclaim.policy.model import HostState, Posture, Silicon, Verdict
from tdxreclaim.policy.verdict import VERDICT_RULES
from tdxreclaim.report.explain.topics import all_topics, find
from tdxreclaim.report.schemas import read_schema
from tdxreclaim.tables.errata import ERRATA
from tdxreclaim.tables.findings import CATALOGUE
from tdxreclaim.tables.glossary import WORDS
from tdxreclaim.tables.kernels import Clearing, Kexec

if TYPE_CHECKING:
    from conftest import RunTool

    from tdxreclaim.tables.findings.kind import Kind

HOSTS = Path(__file__).parents[1] / "hosts"
VALUES = [*Verdict, *Posture, *Silicon, *HostState, *Clearing, *Kexec, *State]


@pytest.mark.parametrize("value", sorted({str(value) for value in VALUES}))
def test_every_value_of_an_answer_is_explained(value: str) -> None:
    assert find(value)


def test_every_rule_that_a_host_can_meet_is_explained(run: RunTool) -> None:
    rules = set(VERDICT_RULES) - {erratum.id for erratum in ERRATA}
    for host in HOSTS.iterdir():
        ran = run("check", "--from", str(host), "--format", "json", "--explain")
        document = json.loads(ran.out)
        rules |= {step["rule"] for step in document["weighed"]}
    rules -= {erratum.id for erratum in ERRATA}
    assert rules <= {word.id for word in WORDS if word.kind == "rule"}


def test_no_word_is_explained_that_nothing_prints() -> None:
    said = {str(value) for value in VALUES}
    assert {word.id for word in WORDS if word.kind not in ("rule", "term")} == said


@pytest.mark.parametrize("kind", CATALOGUE, ids=lambda kind: kind.id)
def test_a_finding_is_explained_by_its_row(kind: Kind) -> None:
    (topic,) = [t for t in find(kind.id) if t.kind == "finding"]
    assert ("means", kind.meaning) in topic.lines


@pytest.mark.parametrize("status", ExitStatus)
def test_an_exit_status_is_explained(status: ExitStatus, run: RunTool) -> None:
    assert status.meaning.split()[0] in run("explain", f"exit {status.value}").out
    assert any(t.kind == "exit status" for t in find(str(status.value)))


@pytest.mark.parametrize(
    ("topic", "part"),
    [
        ("0xc000030000000001", "TDX_PAGE_METADATA_INCORRECT"),
        ("28", "TDH.PHYMEM.PAGE.RECLAIM"),
        ("TDH.MEM.TRACK", "step"),
        ("tdx_pw_mce", "Sapphire Rapids"),
        ("TDX-PW-MCE", "Sapphire Rapids"),
        ("6.17", "clears-always"),
        ("gnr", "Granite Rapids"),
        ("0x806F8", "Sapphire Rapids"),
        ("published", "calibration"),
        ("partial-write-affected", "scenario"),
        ("postures", "at-risk"),
        ("Exit Status", "141"),
    ],
)
def test_a_topic(topic: str, part: str, run: RunTool) -> None:
    ran = run("explain", topic)
    assert (ran.status, ran.err) == (0, "")
    assert part in ran.out


@pytest.mark.parametrize(
    ("topic", "nearest"), [("atrisk", "at-risk"), ("hkid-leak", "hkid-leaked")]
)
def test_an_unknown_topic_gets_the_nearest(topic: str, nearest: str, run: RunTool) -> None:
    ran = run("explain", topic)
    assert (ran.status, ran.out) == (2, "")
    assert nearest in ran.err


@pytest.mark.parametrize("topic", ["", "0x" + "f" * 200, "9" * 5000, "\0", "zzzzzz"])
def test_a_topic_that_is_none_is_one_line(topic: str, run: RunTool) -> None:
    ran = run("explain", "--", topic)
    assert (ran.status, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1


def test_without_a_topic_all_are_listed(run: RunTool) -> None:
    out = " ".join(run("explain").out.split())
    assert all(topic.id in out for topic in all_topics())


def test_json_fits_its_schema(run: RunTool) -> None:
    document = json.loads(run("explain", "at-risk", "--format", "json").out)
    jsonschema.validate(document, json.loads(read_schema("explain")))
    assert {topic["kind"] for topic in document["topics"]} == {"posture", "finding"}


@pytest.mark.parametrize(("typed", "meant"), [("chek", "check"), ("simulat", "simulate")])
def test_an_unknown_command_gets_the_nearest(typed: str, meant: str, run: RunTool) -> None:
    ran = run(typed)
    assert (ran.status, ran.out) == (2, "")
    assert f"nearest: {meant}" in ran.err
