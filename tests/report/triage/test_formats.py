"""The formats of triage that programs read."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from conftest import RunTool

HOSTS = Path(__file__).parents[2] / "hosts"
NAMES = sorted(path.name for path in HOSTS.iterdir())
TICKET = "sosreport-spr-6.18-ticket"


def document(run: RunTool, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("triage", "--from", name, "-f", "json", cwd=HOSTS).out)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_line_says_what_json_says(name: str, run: RunTool) -> None:
    ran = run("triage", "--from", name, "-f", "jsonl", cwd=HOSTS)
    assert ran.out.count("\n") == 1
    assert json.loads(ran.out) == document(run, name)


@pytest.mark.parametrize("name", NAMES)
def test_metrics_count_the_findings(name: str, run: RunTool) -> None:
    out = run("triage", "--from", name, "-f", "prometheus", cwd=HOSTS).out
    samples = [s for f in text_string_to_metric_families(out) for s in f.samples]
    counts = Counter(finding["severity"] for finding in document(run, name)["findings"])

    found = {
        s.labels["severity"]: s.value for s in samples if s.name == "tdxreclaim_triage_findings"
    }
    assert {severity: count for severity, count in found.items() if count} == counts


@pytest.mark.parametrize("name", NAMES)
def test_a_plugin_ends_with_the_worst(name: str, run: RunTool) -> None:
    ran = run("triage", "--from", name, "-f", "nagios", cwd=HOSTS)
    told = document(run, name)
    severities = {finding["severity"] for finding in told["findings"]}

    expected = 2 if "critical" in severities else 1 if severities & {"error", "warning"} else 0
    if told["exit_status"] == 13:
        expected = 3
    assert ran.status == expected
    word = ("OK", "WARNING", "CRITICAL", "UNKNOWN")[expected]
    assert ran.out.startswith(f"TDXRECLAIM {word} - ")
    assert ran.out.count("\n") == 1


def test_a_log_that_was_not_understood_is_unknown(run: RunTool, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("nothing of a kernel\n" * 5)
    ran = run("triage", "--from", str(log), "-f", "nagios")
    assert ran.status == 3
    assert ran.out.startswith("TDXRECLAIM UNKNOWN - ")
    assert run("triage", "--from", TICKET, "-f", "nagios", "--exit-zero", cwd=HOSTS).status == 3


@pytest.mark.consumer
@pytest.mark.parametrize("name", [TICKET, "gnr-6.18-active"])
def test_promtool_finds_nothing(name: str, run: RunTool) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "Debian: prometheus"
    out = run("triage", "--from", name, "-f", "prometheus", cwd=HOSTS).out
    lint = subprocess.run(
        [promtool, "check", "metrics"], input=out, capture_output=True, text=True, check=False
    )
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")
