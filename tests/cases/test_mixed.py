"""Two hosts, or two readings, in one input: no command takes the first and is silent."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunTool

BLOCK = (
    "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: {model}\n"
    "model name\t: Intel(R) Xeon(R)\nstepping\t: 1\n"
    "flags\t\t: fpu movdir64b tdx_host_platform\nbugs\t\t: spectre_v1 {bug}\n"
    "bogomips\t: 4000.00\n\n"
)
GNR = BLOCK.format(model=173, bug="swapgs")
SPR = BLOCK.format(model=143, bug="tdx_pw_mce")
LOG = (
    "[    0.000000] Linux version 6.18.2 (gcc) #1 SMP\n"
    "[    0.300000] smpboot: CPU0: Intel(R) Xeon(R) (family: 0x6, model: 0xad, stepping: 0x1)\n"
)


def _tar(*members: tuple[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in members:
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


TWO_HOSTS = {
    "below": _tar(("proc/cpuinfo", GNR), ("b/proc/cpuinfo", SPR)),
    "twice": _tar(("proc/cpuinfo", GNR), ("proc/cpuinfo", SPR)),
    "joined": _tar(("proc/cpuinfo", GNR)) + _tar(("proc/cpuinfo", SPR)),
    "text": (GNR + SPR.replace("processor\t: 0", "processor\t: 1")).encode(),
    "forms": (GNR + LOG.replace("0xad", "0x8f")).encode(),
}


@pytest.mark.parametrize("command", ["check", "triage", "capture"])
@pytest.mark.parametrize("name", TWO_HOSTS)
def test_two_hosts_in_one_input(name: str, command: str, run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(TWO_HOSTS[name])
    output = ("-o", "out.tar.gz") if command == "capture" else ()
    status = run(command, "--from", "in", *output, cwd=tmp_path).status
    assert status not in (1, 12)
    if status == 0 and command == "capture":
        assert run("check", "--from", "out.tar.gz", cwd=tmp_path).status not in (0, 12)
    elif (name, command) != ("text", "triage"):
        assert status != 0


# A line that cannot be what a kernel prints, in a text that is whole otherwise.
DOUBTS = {
    "joined": GNR.replace("\nbugs\t\t: ", " bugs : spectre_v1 tdx_pw_mce\nbugs\t\t: "),
    "in flags": GNR.replace("tdx_host_platform", "tdx_host_platform tdx_pw_mce"),
    "in a name": GNR.replace("Xeon(R)", "Xeon(R) processor : 9 cpu family : 6 model : 143"),
    "cut word": GNR.replace("swapgs", "tdx_pw_"),
    "nameless": GNR + "model name\t: Intel(R) Xeon(R) Platinum 8480+\nphysical id\t: 1\n\n",
}


@pytest.mark.parametrize("name", DOUBTS)
def test_a_doubtful_line_is_no_whole_evidence(name: str, run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(DOUBTS[name])
    assert run("check", "--from", "cpuinfo", cwd=tmp_path).status in (10, 11)


UNLISTED = GNR.replace("173", "200")


def test_an_empty_bugs_line_settles_nothing(run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(UNLISTED)
    assert run("check", "--from", "cpuinfo", cwd=tmp_path).status == 0
    (tmp_path / "cpuinfo").write_text(UNLISTED.replace("spectre_v1 swapgs", ""))
    assert run("check", "--from", "cpuinfo", cwd=tmp_path).status == 11


# Lines of another machine in a form that nothing reads.
NOTES = (
    "# microcode: sig=0x806f8, pf=0x10",
    "Signature: Type 0, Family 6, Model 143, Stepping 8",
    "other : GenuineIntel-6-8F-8",
    "bugs: tdx_pw_mce",
)
DUMP = (
    "CPUID 00000000: 00000020-756E6547-6C65746E-49656E69\n"
    "CPUID 00000001: 000A06D1-00800800-7FFEFBFF-BFEBFBFF\n"
)
LSCPU = "Architecture: x86_64\nCPU(s): 1\nVendor ID: GenuineIntel\nCPU family: 6\nModel: 173\n"


@pytest.mark.parametrize("whole", [GNR, LOG, DUMP, LSCPU], ids=["cpuinfo", "log", "dump", "lscpu"])
@pytest.mark.parametrize("note", NOTES)
def test_a_note_about_an_affected_cpu(note: str, whole: str, run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "in").write_text(whole)
    assert run("check", "--from", "in", cwd=tmp_path).status == 0
    for text in (f"{note}\n{whole}", f"{whole}{note}\n"):
        (tmp_path / "in").write_text(text)
        assert run("check", "--from", "in", cwd=tmp_path).status in (10, 11)
        ran = run("capture", "--from", "in", "-o", "out.tar.gz", cwd=tmp_path)
        if ran.status == 0:
            assert run("check", "--from", "out.tar.gz", cwd=tmp_path).status not in (0, 12)


def test_a_cut_boot_stays_cut_when_captured(run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "in").write_text(LOG.replace("SMP\n", "SMP\n[snip]\n"))
    assert run("check", "--from", "in", cwd=tmp_path).status == 11
    if run("capture", "--from", "in", "-o", "out.tar.gz", cwd=tmp_path).status == 0:
        assert run("check", "--from", "out.tar.gz", cwd=tmp_path).status == 11


def test_a_byte_order_mark_is_no_line(run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("\ufeff" + GNR)
    assert run("check", "--from", "cpuinfo", cwd=tmp_path).status == 0


def test_a_capture_says_no_more_than_what_it_was_made_of(run: RunTool, tmp_path: Path) -> None:
    odd = "\x1b[32m[    0.3] \x1b[0msmpboot: CPU0: Intel(R) Xeon(R) (family: 0x6, model: 0x8f)\n"
    (tmp_path / "log").write_text(LOG + odd)
    assert run("check", "--from", "log", cwd=tmp_path).status in (10, 11)
    ran = run("capture", "--from", "log", "-o", "out.tar.gz", cwd=tmp_path)
    if ran.status == 0:
        assert run("check", "--from", "out.tar.gz", cwd=tmp_path).status in (10, 11)


def test_a_cpu_line_that_is_broken_in_two_is_seen(run: RunTool, tmp_path: Path) -> None:
    broken = "[    0.3] smpboot: CP\nU0: Intel(R) (family: 0x6, model: 0x8f, stepping: 0x8)\n"
    (tmp_path / "log").write_text(broken + LOG)
    assert run("check", "--from", "log", cwd=tmp_path).status in (10, 11)
