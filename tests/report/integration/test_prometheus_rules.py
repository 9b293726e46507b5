"""The alerts fire on our own metrics, and on nothing else: asked of promtool."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tdxreclaim.report.integration import render
from tdxreclaim.report.integration.prometheus_rules import ALERTS, STALE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunTool

# What is checked, how long it has to hold, and the alerts that follow.
HOSTS = [
    (("--from", "spr-6.18-at-risk"), "1m", {"TdxReclaimAtRisk"}),
    (("--from", "gnr-6.17-active"), "2d", {"TdxReclaimClearsNeedlessly"}),
    (("--from", "gnr-6.17-active"), "2h", set()),
    (("--from", "spr-6.18-active"), "2d", set()),
    (("--from", "gnr-6.18-active"), "2d", set()),
    (("--cpu", "6/0x6a"), "3h", {"TdxReclaimUndetermined"}),
    (("--cpu", "spr"), "3h", {"TdxReclaimUndetermined"}),
    (("--cpu", "spr"), "1h", set()),
]


def promtool(*arguments: str, cwd: Path) -> None:
    program = shutil.which("promtool")
    assert program, "Debian: prometheus"
    ran = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, cwd=cwd
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_series_in_an_alert_is_written(run: RunTool) -> None:
    import re

    out = run("check", "--cpu", "spr", "--format", "prometheus").out
    written = {
        (s.name, *s.labels.items()) for f in text_string_to_metric_families(out) for s in f.samples
    }
    for alert in ALERTS:
        for name, kind, value in re.findall(
            r'(tdxreclaim_\w+)\{(\w+)="([^"]+)"\}', alert.expression
        ):
            assert (name, (kind, value)) in written


@pytest.mark.consumer
def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(render("prometheus-rules"))
    promtool("check", "rules", "rules.yml", cwd=tmp_path)


@pytest.mark.consumer
@pytest.mark.parametrize(("arguments", "after", "alerts"), HOSTS, ids=repr)
def test_alerts_follow_the_answer(
    arguments: tuple[str, ...], after: str, alerts: set[str], run: RunTool, tmp_path: Path
) -> None:
    from pathlib import Path

    hosts = Path(__file__).parents[2] / "hosts"
    out = run("check", *arguments, "--format", "prometheus", cwd=hosts).out
    series = []
    for family in text_string_to_metric_families(out):
        for one in family.samples:
            labels = {name: value for name, value in one.labels.items() if value}
            shown = ",".join(f'{k}="{v}"' for k, v in {**labels, "instance": "h"}.items())
            series += [f"{one.name}{{{shown}}}"] if one.value == 1 else []
    summaries = {alert.name: f"h: {alert.summary}" for alert in ALERTS}
    test: dict[str, Any] = {
        "interval": "10m",
        "input_series": [{"series": one, "values": "1x400"} for one in series],
        "alert_rule_test": [
            {"eval_time": after, "alertname": alert.name, "exp_alerts": []} for alert in ALERTS
        ],
    }
    for case in test["alert_rule_test"]:
        if case["alertname"] in alerts:
            alert = next(a for a in ALERTS if a.name == case["alertname"])
            labels = {"severity": alert.severity, "instance": "h", **_label(alert.name)}
            case["exp_alerts"] = [
                {
                    "exp_labels": labels,
                    "exp_annotations": {"summary": summaries[alert.name]},
                }
            ]
            if alert.name == "TdxReclaimUndetermined":
                verdict = "clear-required" if "spr" in arguments else "undetermined"
                labels["verdict"] = verdict
    (tmp_path / "rules.yml").write_text(render("prometheus-rules"))
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "10m", "tests": [test]})
    )
    promtool("test", "rules", "test.yml", cwd=tmp_path)


def _label(name: str) -> dict[str, str]:
    return {
        "TdxReclaimAtRisk": {"posture": "at-risk"},
        "TdxReclaimClearsNeedlessly": {"posture": "clears-needlessly"},
    }.get(name, {})


@pytest.mark.consumer
def test_a_file_that_grows_old_is_noticed(tmp_path: Path) -> None:
    file = "/var/lib/prometheus/node-exporter/tdxreclaim.prom"
    labels = {"file": file, "instance": "h", "severity": "warning"}
    summary = "h: tdxreclaim has not written its metrics for three hours"
    test = {
        "interval": "10m",
        "input_series": [
            {
                "series": f'node_textfile_mtime_seconds{{file="{file}",instance="h"}}',
                "values": "0x99",
            }
        ],
        "alert_rule_test": [
            {
                "eval_time": f"{STALE_SECONDS - 60}s",
                "alertname": "TdxReclaimStale",
                "exp_alerts": [],
            },
            {
                "eval_time": f"{STALE_SECONDS + 3600}s",
                "alertname": "TdxReclaimStale",
                "exp_alerts": [{"exp_labels": labels, "exp_annotations": {"summary": summary}}],
            },
        ],
    }
    (tmp_path / "rules.yml").write_text(render("prometheus-rules"))
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "10m", "tests": [test]})
    )
    promtool("test", "rules", "test.yml", cwd=tmp_path)
