"""Many hosts at once: every source counted, nothing that depends on order or number."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tdxreclaim.report.fleet.formats import FORMATS
from tdxreclaim.report.schemas import read_schema

if TYPE_CHECKING:
    from conftest import RunTool

HOSTS = Path(__file__).parents[1] / "hosts"
NAMES = sorted(path.name for path in HOSTS.iterdir())

INVENTORY = """\
host,vendor,family,model,kernel,memory
spr,GenuineIntel,6,143,6.17.3,512GiB
gnr,Intel,6,0xad,6.17.3,1TiB
gnr2,Intel,6,173,6.17.1,1TiB
new,Intel,6,173,6.18.2,1TiB
amd,AuthenticAMD,25,17,,
"""


def told(run: RunTool, *arguments: str, cwd: Path | None = None) -> dict[str, Any]:
    here = () if "--jobs" in arguments else ("--jobs", "1")
    ran = run("fleet", *arguments, *here, "--format", "json", cwd=cwd)
    document: dict[str, Any] = json.loads(ran.out)
    jsonschema.validate(document, json.loads(read_schema("fleet")))
    assert ran.status == (20 if document["needs_action"] else 0)
    return document


def postures(document: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in document["postures"].items() if count}


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "inventory.csv"
    path.write_text(INVENTORY)
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Return a folder of forty captures of different kinds, two of them damaged."""
    folder = tmp_path / "captures"
    folder.mkdir()
    for name in NAMES[:20]:
        shutil.copytree(HOSTS / name, folder / name)
    for name in NAMES[:12]:
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as tar:
            tar.add(HOSTS / name, name)
    for name in NAMES[:6]:
        text = HOSTS / name / "proc" / "cpuinfo"
        source = text if text.exists() else HOSTS / "icx" / "proc" / "cpuinfo"
        shutil.copy(source, folder / f"{name}.txt")
    whole = (folder / f"{NAMES[0]}.tar.gz").read_bytes()
    (folder / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.bin").write_bytes(bytes(range(256)) * 40)
    return folder


def test_an_inventory(inventory: Path, run: RunTool) -> None:
    document = told(run, str(inventory))

    assert postures(document) == {
        "clears-as-required": 1,
        "clears-needlessly": 2,
        "skips-safely": 1,
        "not-applicable": 1,
    }
    needless = document["needless"]
    assert (needless["hosts"], needless["memory_bytes"]) == (2, 2 << 40)
    saving = needless["saving_ns"]
    assert 0 < saving["low"] <= saving["likely"] <= saving["high"]
    assert document["sources"]["answers"] == document["hosts"] == 5


def test_an_inventory_in_every_writing_says_the_same(
    inventory: Path, tmp_path: Path, run: RunTool
) -> None:
    rows = list(csv.DictReader(INVENTORY.splitlines()))
    array, lines = tmp_path / "array.json", tmp_path / "rows.jsonl"
    array.write_text(json.dumps(rows, indent=1))
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = tmp_path / "other.csv"
    other.write_text("\ufeff" + INVENTORY.replace(",", ";").replace("host;", "Hostname;", 1))
    expected = told(run, str(inventory))["groups"]

    for path in (array, lines, other):
        assert told(run, str(path))["groups"] == expected, path


def test_forty_captures_two_of_them_damaged(mixed: Path, run: RunTool) -> None:
    document = told(run, str(mixed))

    assert document["hosts"] == document["sources"]["answers"] == 38
    assert document["sources"]["refused"] == 2
    refused = " ".join(one["source"] for one in document["refused"])
    assert "cut.tar.gz" in refused
    assert "noise.bin" in refused


def test_neither_order_nor_number_of_processes_matters(mixed: Path, run: RunTool) -> None:
    alone = run("fleet", str(mixed), "-f", "json", "--jobs", "1").out
    names = [str(mixed / name) for name in sorted(os.listdir(mixed), reverse=True)]

    assert run("fleet", *names, "-f", "json", "--jobs", "3").out == alone


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_parts_merge_to_the_whole(
    parts: int, mixed: Path, inventory: Path, tmp_path: Path, run: RunTool
) -> None:
    sources = (str(mixed), str(inventory))
    whole = run("fleet", *sources, "-f", "json", "--jobs", "1").out
    files = []
    for part in range(1, parts + 1):
        files.append(str(tmp_path / f"{part}.jsonl"))
        arguments = ("--shard", f"{part}/{parts}", "-f", "jsonl", "-o", files[-1], "--jobs", "1")
        assert run("fleet", *sources, *arguments).status in (0, 20)

    assert run("fleet", "merge", *reversed(files), "-f", "json").out == whole


def test_a_part_that_is_missing_or_there_twice_is_not_merged(
    inventory: Path, tmp_path: Path, run: RunTool
) -> None:
    one, other = tmp_path / "1", tmp_path / "2"
    for number, path in ((1, one), (2, other)):
        run("fleet", str(inventory), "--shard", f"{number}/2", "-f", "jsonl", "-o", str(path))

    assert "part 2 is missing" in run("fleet", "merge", str(one)).err
    assert "part 1 is there twice" in run("fleet", "merge", str(one), str(one)).err
    assert "not what fleet --shard writes" in run("fleet", "merge", str(inventory)).err
    assert run("fleet", "merge", str(one), str(tmp_path / "none")).status == 3


def test_a_jsonl_of_check_says_what_the_captures_say(tmp_path: Path, run: RunTool) -> None:
    lines = [run("check", "--from", name, "-f", "jsonl", cwd=HOSTS).out for name in NAMES]
    path = tmp_path / "all.jsonl"
    path.write_text("".join(lines))

    reports = told(run, str(path))
    captures = told(run, *NAMES, cwd=HOSTS)

    assert reports["groups"] == captures["groups"]


def test_a_host_that_was_not_reached_is_counted(tmp_path: Path, run: RunTool) -> None:
    path = tmp_path / "all.jsonl"
    error = {"kind": "unreachable", "what": "node-7", "why": "no route", "exit_status": 3}
    path.write_text(
        json.dumps({"schema": "tdxreclaim.error/1", "error": error, "host_name": "node-7"}) + "\n"
    )

    assert told(run, str(path))["refused"] == [{"source": "node-7", "why": "no route"}]


def test_an_older_report_is_refused_by_its_version(tmp_path: Path, run: RunTool) -> None:
    path = tmp_path / "old.jsonl"
    line = run("check", "--cpu", "gnr", "-f", "jsonl").out
    path.write_text(line.replace("tdxreclaim.check/2", "tdxreclaim.check/1"))
    (refused,) = told(run, str(path))["refused"]

    assert "tdxreclaim.check/1" in refused["why"]


def test_duplicates_and_contradictions_are_named(tmp_path: Path, run: RunTool) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "host,family,model,kernel\n"
        "same,6,173,6.18\nsame,6,173,6.18\ntwo,6,173,6.18\ntwo,6,143,6.18\nthree,6,173,6.18\n"
    )
    document = told(run, str(path))

    assert document["duplicated"] == ["same"]
    (two,) = document["contradictory"]
    assert two["host"] == "two"
    assert {answer["verdict"] for answer in two["answers"]} == {
        "clear-required",
        "clear-not-required",
    }
    assert sum(group["hosts"] for group in document["groups"]) == 2
    assert document["hosts"] == 3


ROWS = [
    ("h,GenuineIntel,6,300,,", "model"),
    ("h,GenuinIntel,6,143,,", "vendor"),
    ("h,GenuineIntel,-6,143,,", "family"),
    ("h,GenuineIntel,,143,,", "family"),
    ("h,GenuineIntel,6,143,6.18,lots", "memory"),
    (",GenuineIntel,6,143,6.18,", "host"),
    ("h,GenuineIntel,6", "fewer columns"),
    ("h,GenuineIntel,\u0661,143,,", "family"),
]


@pytest.mark.parametrize(("row", "why"), ROWS, ids=repr)
def test_a_wrong_row_is_refused_and_the_next_is_read(
    row: str, why: str, tmp_path: Path, run: RunTool
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"host,vendor,family,model,kernel,memory\n{row}\ngood,,6,173,6.18,\n")
    document = told(run, str(path))

    (refused,) = document["refused"]
    assert refused["source"] == f"{path}:2"
    assert why in refused["why"]
    assert document["hosts"] == 1


DAMAGED = {
    "cut.json": '[{"host": "a", "family": 6, "model": 173}, {"host": "b", "fam',
    "deep.jsonl": '{"host": "a", "family": 6, "model": 173}\n' + "[" * 100_000 + "\n",
    "wrong.jsonl": '{"host": "a", "family": 6, "model": 173}\n"text"\n',
    "shape.jsonl": '{"schema": "tdxreclaim.check/2", "silicon": 3}\n',
    "other.jsonl": '{"schema": "tdxreclaim.simulate/2"}\n',
    "empty.csv": "",
    "nohost.csv": "vendor,family,model\nGenuineIntel,6,143\n",
    "nul.csv": 'host,family,model\n"a\0b,6,173\n',
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_is_refused(name: str, tmp_path: Path, run: RunTool) -> None:
    (tmp_path / name).write_text(DAMAGED[name])
    document = told(run, str(tmp_path / name))

    assert document["refused"], document
    assert document["hosts"] <= 1


def test_what_is_not_there_is_refused(run: RunTool) -> None:
    document = told(run, "does-not-exist", "no*match")
    assert [one["source"] for one in document["refused"]] == ["does-not-exist", "no*match"]


def test_rows_on_standard_input() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tdxreclaim", "fleet", "-", "-f", "json"],
        input=INVENTORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(ran.stdout)["hosts"] == 5
    assert (ran.returncode, ran.stderr) == (0, "")


def test_triage_ranks_findings(run: RunTool) -> None:
    names = ("sosreport-spr-6.18-ticket", "spr-hibernation", "gnr-6.18-active")
    findings = told(run, *names, "--triage", cwd=HOSTS)["findings"]

    order = ["critical", "error", "warning", "notice"]
    ranks = [order.index(finding["severity"]) for finding in findings]
    assert ranks == sorted(ranks)
    assert ranks[0] == 0
    assert all(set(finding["hosts"]) <= set(names) for finding in findings)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("x", "--shard", "0/2"), "--shard"),
        (("x", "--shard", "3/2"), "--shard"),
        (("x", "--shard", "1/2"), "--shard"),
        (("merge", "x", "--triage"), "merge"),
        (("merge",), "merge"),
        (("x", "--jobs", "many"), "--jobs"),
        ((), "SOURCES"),
    ],
)
def test_usage(arguments: tuple[str, ...], what: str, run: RunTool) -> None:
    ran = run("fleet", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"tdxreclaim: {what}: ")


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_names_who_is_at_risk_or_counts_them(format_: str, run: RunTool) -> None:
    ran = run("fleet", *NAMES, "--format", format_, "--jobs", "1", cwd=HOSTS)

    assert (ran.status, ran.err) == (20, "")
    if format_ == "prometheus":
        samples = {
            tuple(s.labels.values()): s.value
            for f in text_string_to_metric_families(ran.out)
            for s in f.samples
            if s.name == "tdxreclaim_fleet_posture_hosts"
        }
        assert samples["at-risk",] == 1
    else:
        assert "spr-6.18-at-risk" in ran.out
    few = ("spr-6.18-at-risk", "--jobs", "1")
    assert run("fleet", *few, "--format", format_, "--exit-zero", cwd=HOSTS).status == 0


def test_csv_has_every_host(mixed: Path, run: RunTool) -> None:
    out = run("fleet", str(mixed), "-f", "csv").out
    rows = list(csv.DictReader(io.StringIO(out)))

    assert len(rows) == 40
    assert sum(bool(row["refused"]) for row in rows) == 2


def test_text_fits_80_columns(mixed: Path, run: RunTool) -> None:
    out = run("fleet", str(mixed.name), cwd=mixed.parent).out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.consumer
def test_promtool_finds_nothing(mixed: Path, run: RunTool) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "Debian: prometheus"
    out = run("fleet", str(mixed), "-f", "prometheus").out
    lint = subprocess.run(
        [promtool, "check", "metrics"], input=out, capture_output=True, text=True, check=False
    )
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")


HOSTILE = "</script><img src=x onerror=alert(1)>\"'&`|"


@pytest.mark.parametrize("format_", ["html", "markdown"])
def test_a_hostile_name_stays_text(format_: str, tmp_path: Path, run: RunTool) -> None:
    rows = [
        {"host": HOSTILE, "family": 6, "model": 143, "kernel": HOSTILE},
        {"host": HOSTILE + "2", "family": HOSTILE, "model": 143},
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    out = run("fleet", str(path), "--format", format_).out

    assert "<img" not in out.replace(r"\<img", "")


def page(run: RunTool, tmp_path: Path, script: str) -> str:
    """Return the DOM of the page after *script* ran in it, in a real browser."""
    browser = shutil.which("chromium")
    assert browser, "Debian: chromium"
    html = run("fleet", *NAMES, "--format", "html", cwd=HOSTS).out
    path = tmp_path / "fleet.html"
    path.write_text(html.replace("</html>", f"<script>{script}</script></html>"))
    options = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync"
    )
    ran = subprocess.run(
        [
            browser,
            *options.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return ran.stdout


FIRST = "document.title = document.querySelector('#hosts tbody').innerText.split('\\n')[0]"


@pytest.mark.browser
def test_the_page_sorts_and_filters(run: RunTool, tmp_path: Path) -> None:
    worst = page(run, tmp_path, FIRST)
    assert "<title>spr-6.18-at-risk" in worst
    click = "document.querySelectorAll('#hosts th button')[0].click();"
    assert f"<title>{NAMES[0]}" in page(run, tmp_path, click + FIRST)
    assert f"<title>{NAMES[-1]}" in page(run, tmp_path, click * 2 + FIRST)
    typing = (
        "const box = document.getElementById('filter'); box.value = 'granite 7.0';"
        "box.dispatchEvent(new Event('input'));"
    )
    filtered = page(run, tmp_path, typing)
    assert f"1 of {len(NAMES)} hosts" in filtered


WORKER = """
import os
from tdxreclaim.cli import fleet_captures

def check_captures(names, **how):
    if any(name.startswith("gnr-6") for name in names):
        os.kill(os.getpid(), 9)
    return fleet_captures.check_captures(names, **how)
"""


@pytest.mark.parametrize("together", [1, 3, 100])
def test_a_capture_that_kills_its_worker_is_refused_and_no_other(
    together: int, run: RunTool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "killing_worker.py").write_text(WORKER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "killing_worker", raising=False)
    worker = importlib.import_module("killing_worker")
    monkeypatch.setattr("tdxreclaim.cli.fleet_captures.check_captures", worker.check_captures)
    monkeypatch.setattr("tdxreclaim.cli.fleet_captures._MOST_AT_ONCE", together)
    document = told(run, *NAMES, "--jobs", "2", cwd=HOSTS)

    refused = [one["source"] for one in document["refused"]]
    assert refused == [name for name in NAMES if name.startswith("gnr-6")]
    assert "killed the process" in document["refused"][0]["why"]
    assert document["hosts"] == len(NAMES) - len(refused)


def test_an_empty_folder_and_a_host_whose_triage_fails_are_counted(
    run: RunTool, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    log = tmp_path / "two.log"
    lines = (
        "Jun 24 11:00:00 node-a kernel: virt/tdx: module initialized\n"
        "Jun 24 11:00:01 node-b kernel: virt/tdx: module initialized\n"
    )
    log.write_text(lines)
    document = told(run, str(tmp_path / "empty"), str(log), "--triage")
    sources = [one["source"] for one in document["refused"]]
    assert str(tmp_path / "empty") in sources
    assert str(log) in sources


def test_a_fleet_with_nobody_to_name_has_one_empty_line_before_its_groups(run: RunTool) -> None:
    lines = run("fleet", str(HOSTS / "gnr-6.18-active")).out.splitlines()
    assert lines[1:3] == ["", "Groups"]
