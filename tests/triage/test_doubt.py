"""What `triage` says of a text is what `check` says of it, other machines in it too."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunTool

CPUINFO = (
    "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 173\nstepping\t: 1\n"
    "flags\t\t: fpu movdir64b tdx_host_platform\nbugs\t\t: spectre_v1\nbogomips\t: 4000.00\n\n"
)
LOG = (
    "[    0.000000] Linux version 6.18.2 (gcc) #1 SMP\n"
    "[    0.300000] smpboot: CPU0: Intel(R) Xeon(R) (family: 0x6, model: 0xad, stepping: 0x1)\n"
)
RECORD = "mce: [Hardware Error]: PROCESSOR 0:806f8 TIME 1764000000 SOCKET 0 APIC 0 microcode 2b\n"
FOREIGN = (
    RECORD,
    "microcode: sig=0x806f8, pf=0x10\n",
    "Signature: Type 0, Family 6, Model 143, Stepping 8\n",
    "[    0.2] smpboot: CPU0: Intel(R) Xeon(R) (fam: 06, model: 8f, stepping: 08)\n",
)


def _verdicts(run: RunTool, folder: Path) -> tuple[int, int, str, str]:
    checked = run("check", "--from", "in", "-f", "json", cwd=folder)
    triaged = run("triage", "--from", "in", "-f", "json", cwd=folder)
    told = json.loads(triaged.out)
    return (
        checked.status,
        triaged.status,
        json.loads(checked.out)["verdict"],
        told["host"]["verdict"],
    )


@pytest.mark.parametrize("whole", [CPUINFO, LOG], ids=["cpuinfo", "log"])
def test_a_whole_host_has_nothing_in_doubt(whole: str, run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "in").write_text(whole)
    status, triaged, verdict, told = _verdicts(run, tmp_path)
    assert (status, triaged) == (0, 0)
    assert verdict == told


@pytest.mark.parametrize("whole", [CPUINFO, LOG], ids=["cpuinfo", "log"])
@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_line_of_another_host(foreign: str, whole: str, run: RunTool, tmp_path: Path) -> None:
    for text in (whole + foreign, foreign + whole):
        (tmp_path / "in").write_text(text)
        if foreign is RECORD and whole is CPUINFO:
            # Two hosts, each in a form that is read.
            assert run("check", "--from", "in", cwd=tmp_path).status == 10
            assert run("triage", "--from", "in", cwd=tmp_path).status == 3
            continue
        status, triaged, verdict, told = _verdicts(run, tmp_path)
        assert status in (10, 11)
        assert verdict == told
        assert triaged != 0


def test_what_is_in_doubt_is_said(run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "in").write_text(CPUINFO + FOREIGN[1])
    ran = run("triage", "--from", "in", cwd=tmp_path)
    assert ran.status == 13
    assert "Nothing needs action" not in ran.out
    assert "Which CPU this is about is not settled: in" in " ".join(ran.out.split())
    assert ran.err == "tdxreclaim: in: not read: not all that tells of the CPU was understood\n"
    assert run("triage", "--from", "in", "--exit-zero", cwd=tmp_path).status == 0


def test_the_kernels_lines_in_a_listing_are_read(run: RunTool, tmp_path: Path) -> None:
    line = "[  261.3] SEAMCALL (0x000000000000001c) failed: 0xc000030000000001\n"
    (tmp_path / "in").write_text(CPUINFO + line)
    ran = run("triage", "--from", "in", "-f", "json", cwd=tmp_path)
    assert ran.status == 20 or json.loads(ran.out)["logs"]


def test_several_logs_with_another_machine_in_one(run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(LOG)
    (tmp_path / "b").write_text(LOG + FOREIGN[2])
    assert run("triage", "--from", "a", "--from", "a", cwd=tmp_path).status == 0
    assert run("triage", "--from", "a", "--from", "b", cwd=tmp_path).status == 13


def test_a_packed_log_that_is_damaged_is_read_as_far_as_it_goes(
    run: RunTool, tmp_path: Path
) -> None:
    noise = "".join(f"[{number / 7:12.6f}] {number * 7919}\n" for number in range(20_000))
    data = gzip.compress((LOG + noise).encode())
    (tmp_path / "in").write_bytes(data[: len(data) // 2])
    ran = run("triage", "--from", "in", "-f", "json", cwd=tmp_path)
    told = json.loads(ran.out)
    assert told["logs"][0]["lines"] > 1000
    assert "cut short" in ran.out


def test_a_log_too_long_for_check_is_searched_for_no_other_machine(
    run: RunTool, tmp_path: Path
) -> None:
    with (tmp_path / "in").open("w") as log:
        log.write(LOG)
        line = "[    1.000000] " + "x" * 1000 + "\n"
        for _ in range(34):
            log.write(line * 1024)
    ran = run("triage", "--from", "in", "-f", "json", cwd=tmp_path)
    assert ran.status == 0
    assert json.loads(ran.out)["host"]["verdict"] == "undetermined"
    assert "longer than 32 MiB" in ran.out
