"""`drain`: the sentence to act on, where TDs come from, what is wrong."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from tdxreclaim.report.schemas import read_schema

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunTool

HOST = ("--cpu", "gnr", "--kernel", "6.18")
QEMU = "/usr/bin/qemu-system-x86_64 -m size={}G -smp {},sockets=1 -object"
TD = QEMU + ' {{"qom-type":"tdx-guest","id":"tdx0"}}'


def _json(run: RunTool, *arguments: str) -> dict[str, Any]:
    ran = run("drain", *arguments, "--format", "json")
    assert (ran.status, ran.err) == (0, "")
    document: dict[str, Any] = json.loads(ran.out)
    jsonschema.validate(document, json.loads(read_schema("drain")))
    return document


def test_one_td_is_what_simulate_says(run: RunTool) -> None:
    document = _json(run, "--td", "400GiB:64", *HOST)
    asked = ("--memory", "400GiB", "--vcpus", "64", *HOST, "--format", "json")
    alone = json.loads(run("simulate", *asked).out)["estimate"]["total"]
    assert document["tds"][0]["alone"] == alone
    assert {json.dumps(each["total"]) for each in document["schedules"]} == {json.dumps(alone)}
    text = run("drain", "--td", "400GiB:64", *HOST).out
    assert " to stop this TD" in text.splitlines()[0]
    assert "one by one" not in text


def test_ten_alike_and_twenty_different(run: RunTool) -> None:
    ten = _json(run, "--td", "18GiB:4x10", "--at-once", "3", *HOST)
    assert [each["rule"] for each in ten["schedules"]] == ["together", "3-at-once", "one-by-one"]
    together, three, in_turn = (each["total"]["likely_ns"] for each in ten["schedules"])
    longest = ten["bounds"]["longest"]["likely_ns"]
    assert longest <= together < longest * 1.01
    assert three == pytest.approx(4 * longest, rel=0.01)
    assert in_turn == ten["bounds"]["sum"]["likely_ns"] == 10 * longest
    mixed = [argument for n in range(1, 21) for argument in ("--td", f"{n * 7}GiB:{n}")]
    twenty = _json(run, *mixed, "--cpus", "4", *HOST)
    assert len(twenty["tds"]) == 20
    assert twenty["schedules"][0]["at_once"] == 4
    text = run("drain", *mixed, "--at-once", "5", *HOST).out
    assert text.startswith("Stop them together: ")
    first = " ".join(text.partition("\n\n")[0].split())
    assert ". [what-if: CPU and kernel from the command line]" in first
    assert "  5 at once: " in text.partition("\n\n")[0].replace("\n", " ")
    assert "and 4 more, shorter ones" in text
    assert max(map(len, text.splitlines())) <= 80


def test_causes_that_nobody_can_tell_apart_are_named(run: RunTool) -> None:
    asked = ("--td", "1TiB:8", "--td", "64GiB:8x4", *HOST)
    text = " ".join(run("drain", *asked).out.split())
    assert "if the cost grows with vCPUs" in text
    assert "if the cost grows with memory" in text
    together = _json(run, *asked)["schedules"][0]
    spans, total = together["by_cause"].values(), together["total"]
    # But for milliseconds of the lock, which other TDs hold at other times.
    assert total["low_ns"] == pytest.approx(min(span["low_ns"] for span in spans), rel=1e-4)
    assert total["high_ns"] == pytest.approx(max(span["high_ns"] for span in spans), rel=1e-4)
    assert "if the cost grows" not in run("drain", "--td", "400GiB:64", *HOST).out


def test_what_a_reboot_adds_is_said_without_a_number(run: RunTool) -> None:
    for kernel, said in (("6.18", False), ("7.1", False), ("7.2", True)):
        text = run("drain", "--td", "1GiB:1", "--cpu", "gnr", "--kernel", kernel).out
        assert ("TDH.SYS.DISABLE" in text) is said


def test_a_bound_on_bandwidth_is_shown(run: RunTool) -> None:
    text = run("drain", "--td", "18GiB:4x10", "--bandwidth", "1GB", *HOST).out
    assert "by the memory's bandwidth" in text


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, line in (("10-1", TD.format(4, 2)), ("20-2", QEMU.format(8, 4) + " memory-x")):
        folder = tmp_path / "sys/kernel/debug/kvm" / name
        folder.mkdir(parents=True)
        process = tmp_path / "proc" / name.split("-")[0]
        process.mkdir(parents=True)
        for where in (folder, folder.parent):
            (where / "pages_4k").write_text("1000\n")
        (process / "status").write_text(f"Tgid:\t{process.name}\n")
        (process / "cmdline").write_text(line.replace(" ", "\0"))
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nvendor_id\t: GenuineIntel\n")
    return tmp_path


def test_the_tds_of_a_tree(run: RunTool, tree: Path) -> None:
    document = _json(run, "--from", str(tree), *HOST)
    assert [(td["name"], td["memory_bytes"], td["vcpus"]) for td in document["tds"]] == [
        ("10-1", 4 << 30, 2)
    ]
    assert document["source"] == str(tree)


def test_the_tds_in_lines_of_watch(run: RunTool, tmp_path: Path) -> None:
    lines = tmp_path / "run.jsonl"
    vm = {
        "name": "10-1", "pid": 10, "command": "qemu", "memory_bytes": 4 << 30, "vcpus": 2,
        "td": "tdx-guest on its command line", "process": "alive", "pages": 9,
    }  # fmt: skip
    sample = {"schema": "tdxreclaim.watch/1", "event": "sample", "seconds": 0.0, "vms": [vm]}
    lines.write_text(json.dumps({**sample, "total_pages": 9, "broken": None}) + "\n")
    document = _json(run, "--from", str(lines), *HOST)
    assert [td["memory_bytes"] for td in document["tds"]] == [4 << 30]


def test_the_tds_in_a_sosreport(run: RunTool, tmp_path: Path) -> None:
    report = tmp_path / "sosreport.tar"
    processes = (
        f"root 1 init\nroot 4711 99 {TD.format(64, 8)}\nroot 4712 99 {QEMU.format(2, 1)} x\n"
    )
    members = {
        "sos-x/sos_commands/process/ps_auxwww": processes,
        "sos-x/proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n"
        "model\t\t: 173\nstepping\t: 1\nflags\t\t: fpu movdir64b\nbugs\t\t: spectre_v1\n"
        "bogomips\t: 4000\n\n",
    }
    with tarfile.open(report, "w") as tar:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    document = _json(run, "--from", str(report), "--kernel", "6.18")
    assert [(td["name"], td["memory_bytes"], td["vcpus"]) for td in document["tds"]] == [
        ("4711", 64 << 30, 8)
    ]


WRONG = [
    (("--td", "lots"), 2, "--td: 'lots' is not a TD"),
    (("--td", "1GiB"), 2, "--td: '1GiB' is not a TD"),
    (("--td", "1GiB:4x0"), 2, "--td: 0 TDs"),
    (("--td", "1GiB:4x99999"), 2, "--td: 99999 TDs"),
    (("--td", "1GiB:0"), 2, "vcpus: 0 is not between"),
    (("--td", "0:4"), 2, "--td: "),
    (("--td", "1GiB:4x4096", "--td", "1GiB:4"), 2, "--td: 4097 TDs: at most 4096"),
    (("--td", "1GiB:4", "--at-once", "0"), 2, "--at-once: 0 is out of range"),
    (("--td", "1GiB:4", "--cpus", "x"), 2, "--cpus: "),
    (("--td", "1GiB:4", "--bandwidth", "fast"), 2, "--bandwidth: "),
    (("--from", "-"), 2, "--from: - is read once"),
    (("--from", "nowhere"), 3, "nowhere: "),
]


@pytest.mark.parametrize(("arguments", "status", "said"), WRONG, ids=lambda v: str(v)[:50])
def test_what_is_wrong_gets_one_line(
    arguments: tuple[str, ...], status: int, said: str, run: RunTool
) -> None:
    ran = run("drain", *arguments, *HOST)
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith(f"tdxreclaim: {said}")
    assert ran.err.count("\n") == 1


def test_a_host_without_tds_says_what_to_do(run: RunTool, tree: Path) -> None:
    (tree / "proc/10/cmdline").write_text("qemu")
    ran = run("drain", "--from", str(tree), *HOST)
    assert (ran.status, ran.out) == (3, "")
    assert "no TD of known size; say them with --td SIZE:VCPUS" in ran.err


def test_tds_that_are_alike_are_one_row(run: RunTool) -> None:
    text = run("drain", "--td", "400GiB:64", "--td", "18GiB:4x40", *HOST).out
    rows = text.partition("When each ends")[2].partition("How sure")[0]
    assert "40 x 18GiB:4" in rows
    assert "400GiB:64" in rows
    assert "#1" not in rows
    assert "more, shorter ones" not in rows


def test_the_json_says_how_whole_the_evidence_is(run: RunTool, tmp_path: Path) -> None:
    assert _json(run, "--td", "1GiB:1", *HOST)["coverage"] == {"whole": True, "gaps": []}
    cut = tmp_path / "cpuinfo"
    cut.write_text(
        "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 173\n????\n"
    )
    read = _json(run, "--td", "1GiB:1", "--from", str(cut), "--kernel", "6.18")
    assert read["coverage"]["whole"] is False
    assert read["coverage"]["gaps"][0]["part"] == "identity"
