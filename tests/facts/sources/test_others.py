"""What the rest of a capture says of the CPU: searched wherever it lies, and not kept."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.evidence import Part
from tdxreclaim.facts.host import read_host
from tdxreclaim.facts.sources import others as others_module
from tdxreclaim.facts.sources import tar as tar_module
from tdxreclaim.facts.sources.others import Others
from tdxreclaim.facts.sources.recognise import open_capture
from tdxreclaim.facts.witness import Witness, witness_at
from tdxreclaim.policy.decide import decide
from tdxreclaim.policy.model import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from tdxreclaim.policy.model import Decision

GNR = (
    "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 173\n"
    "model name\t: Intel(R) Xeon(R)\nstepping\t: 1\n"
    "flags\t\t: fpu movdir64b tdx_host_platform\nbugs\t\t: spectre_v1\nbogomips\t: 4000.00\n\n"
)
GUEST = GNR.replace("tdx_host_platform", "hypervisor")
CPU0 = "kernel: smpboot: CPU0: Intel(R) Xeon(R) (family: 0x6, model: 0x8f, stepping: 0x8)\n"


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _decided(tmp_path: Path, *members: tuple[str, str | bytes], form: str = "tar") -> Decision:
    path = tmp_path / form
    if form == "tree":
        for name, text in members:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    else:
        with tarfile.open(path, "w") as tar:
            for name, text in members:
                data = text.encode() if isinstance(text, str) else text
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    source = open_capture(str(path)).source
    try:
        return decide(read_host(source))
    finally:
        source.close()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("sos_commands/processor/lscpu_-ae", Witness.LISTING),
        ("b/proc/cpuinfo.gz", Witness.LISTING),
        ("node1_cpuid.txt", Witness.LISTING),
        ("var/log/messages-20260101.gz", Witness.LOG),
        ("x/sos_commands/logs/journalctl_--no-pager_--boot_-1", Witness.LOG),
        ("sos_strings/logs/var.log.messages.tailed", Witness.LOG),
        ("var/crash/1/vmcore-dmesg.txt", Witness.LOG),
        ("case.tar.xz", Witness.ARCHIVE),
        # A program, its documentation, and what an installer saw of another machine.
        ("usr/bin/lscpu", None),
        ("usr/share/man/man1/lscpu.1.gz", None),
        ("var/log/anaconda/syslog", None),
        ("etc/passwd", None),
        ("proc/kmsg", None),
    ],
)
def test_a_witness_is_told_by_its_name(path: str, expected: Witness | None) -> None:
    assert witness_at(path) is expected


@pytest.mark.parametrize("form", ["tar", "tree"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("var/log/messages.1", f"Jan  1 00:00:00 node1 {CPU0}"),
        ("b/sos_commands/kernel/dmesg", f"[    0.3] {CPU0.removeprefix('kernel: ')}"),
        ("b/c/d/var/log/kern.log", "x kernel: [Hardware Error]: PROCESSOR 0:806f8 TIME 1\n"),
        ("var/log/dmesg.0", "[ 1.0] kexec: Not allowed on platform with tdx_pw_mce bug\n"),
        (
            "var/log/syslog",
            "mce: [Hardware Error]: TDX private memory error. Possible kernel bug.\n",
        ),
        ("var/log/messages", "x kernel: smpboot: CPU0: Intel(R) Xeon(R) Plat\n"),
        (
            "sos_commands/processor/cpuid",
            " (family synth) = 0x6 (6)\n (model synth) = 0x8f (143)\n",
        ),
        ("b/proc/cpuinfo.gz", _packed(GNR.replace("173", "143").encode())),
        ("b/proc/cpuinfo.gz", _packed(GNR.partition("model\t\t")[0].encode())),
    ],
)
def test_another_cpu_anywhere_is_no_whole_evidence(
    name: str, text: str | bytes, form: str, tmp_path: Path
) -> None:
    decision = _decided(tmp_path, ("proc/cpuinfo", GNR), (name, text), form=form)
    assert decision.verdict is Verdict.UNDETERMINED
    assert decision.coverage.gaps[0].place.startswith(name)
    assert decision.advice


@pytest.mark.parametrize("form", ["tar", "tree"])
@pytest.mark.parametrize("folder", ["b", "b/c/d/e/f"])
def test_another_host_at_any_depth(folder: str, form: str, tmp_path: Path) -> None:
    members = (("a/proc/cpuinfo", GNR), (f"{folder}/proc/cpuinfo", GNR.replace("173", "143")))
    try:
        said = _decided(tmp_path, *members, form=form).because
    except MalformedInputError as error:
        said = error.why
    assert "captured hosts are in it" in said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("var/log/messages", f"Jan  1 00:00:00 n {CPU0.replace('0x8f', '0xad')}"),
        ("var/log/messages", "n sudo: COMMAND=/bin/grep tdx_pw_mce /proc/cpuinfo\n"),
        ("var/log/messages", "n kernel: smpboot: CPU0: Thermal monitoring enabled (TM1)\n"),
        ("var/log/messages", ("n kernel: x\n" * 40_000 + f"n {CPU0}").replace("0x8f", "0xad")),
        ("var/log/messages-1.gz", _packed(b"n kernel: x\n" * 9)[:-9]),
        ("var/log/anaconda/syslog", CPU0),
        ("usr/share/doc/lscpu.txt", "CPU family: 6\nModel: 143\n"),
        ("sos_commands/processor/lscpu_-ae", "CPU NODE\n  0    0\n"),
    ],
)
def test_what_contradicts_nothing_keeps_the_answer(
    name: str, text: str | bytes, tmp_path: Path
) -> None:
    decision = _decided(tmp_path, ("proc/cpuinfo", GNR), (name, text))
    assert decision.verdict is Verdict.CLEAR_NOT_REQUIRED


def test_a_log_that_cannot_be_unpacked_is_said(tmp_path: Path) -> None:
    packed = _packed(b"n kernel: x\n" * 9)[:-9]
    decision = _decided(tmp_path, ("proc/cpuinfo", GNR), ("var/log/messages-1.gz", packed))
    assert [gap.part for gap in decision.coverage.gaps] == [Part.LOG]


@pytest.mark.parametrize(
    ("boots", "status"), [("n kernel: Hypervisor detected: KVM\n", 12), ("", 11)]
)
def test_a_guest_may_have_had_another_cpu_in_each_boot(
    boots: str, status: int, tmp_path: Path
) -> None:
    decision = _decided(tmp_path, ("proc/cpuinfo", GUEST), ("var/log/messages", f"{boots}n {CPU0}"))
    assert decision.verdict.exit_status == status


def test_a_trace_across_two_pieces_is_seen(tmp_path: Path) -> None:
    for before in range(0, 120, 7):
        filler = "n systemd[1]: x\n" * ((1 << 20) // 16 - 1) + "y" * before + "\n"
        decision = _decided(tmp_path, ("proc/cpuinfo", GNR), ("var/log/messages", filler + CPU0))
        assert decision.verdict is Verdict.UNDETERMINED


def test_what_is_searched_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(others_module, "SEARCHED_LIMIT_BYTES", 1 << 12)
    decision = _decided(tmp_path, ("proc/cpuinfo", GNR), ("var/log/messages", "n: x\n" * 4096))
    assert decision.verdict is Verdict.UNDETERMINED
    assert "not all searched" in decision.because


def test_a_tar_without_end_is_read_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_module, "ARCHIVE_LIMIT_BYTES", 1 << 16)
    decision = _decided(tmp_path, ("proc/cpuinfo", GNR), ("filler", "x" * (1 << 17)))
    assert "longer than 0 GiB" in decision.because


def test_archives_in_each_other_are_bounded() -> None:
    data = b""
    for name in ("dmesg", *(f"{depth}.tar" for depth in range(5))):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        data = out.getvalue()
    others = Others()
    others.look("case.tar", lambda: io.BufferedReader(io.BytesIO(data)))
    assert "archives in each other" in others.survey().gaps[0].why
