"""The short way to read this host's log: where it answers, the reader of any log says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.facts.logs import bringup
from tdxreclaim.facts.logs.needles import HOST_BEGINNINGS
from tdxreclaim.facts.logs.reading import LogReading
from tdxreclaim.facts.logs.ring import read_ring
from tdxreclaim.facts.logs.whole import parse_kernel_log
from tdxreclaim.tables.beginnings import beginnings_of

TESTS = Path(__file__).parents[2]
LOGS = sorted(TESTS.glob("hosts/*/var/log/dmesg"))
CAPTURED = sorted((TESTS.parents[1] / "shared" / "cases" / "logs").glob("*.log"))

MESSAGES = (
    "Linux version 6.18.2 (user@host) (gcc) #1 SMP",
    "Linux version 6.17.0-5-generic",
    "Command line: BOOT_IMAGE=/vmlinuz-6.18.2 clearcpuid=smap",
    "Kernel command line: BOOT_IMAGE=/vmlinuz-6.16.1 quiet",
    "smpboot: CPU0: Intel(R) Xeon(R) Platinum 8480C (family: 0x6, model: 0x8f, stepping: 0x8)",
    "smpboot: CPU0: Intel 06/ad (family: 0x6, model: 0xad, stepping: 0x1)",
    "virt/tdx: BIOS enabled: private KeyID range [64, 128)",
    "virt/tdx: module initialized",
    "virt/tdx: module initialization failed (-12)",
    "tdx: Guest detected",
    "kexec: Not allowed on platform with tdx_pw_mce bug",
    "mce: [Hardware Error]: TDX private memory error. Possible kernel bug.",
    "TDX private memory error. Possible kernel bug.",
    "[Hardware Error]: PROCESSOR 0:806f8 TIME 1 SOCKET 0 APIC 0 microcode 2b",
    "{1}[Hardware Error]: event severity: fatal",
    "Hypervisor detected: KVM",
    "DMI: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 1.0",
    "CPU: 3 PID: 1 Comm: qemu Not tainted 6.18.0 #1",
    "  CPU: 3 PID: 1 Comm: qemu Tainted: G        W 6.18.0 #1",
    "WARNING: CPU: 3 PID: 1 at arch/x86/kvm/vmx/tdx.c:1 tdx_reclaim_page+0x1/0x2 [kvm_intel]",
    "kvm_intel: TDX not supported by the host platform",
    "INFO: task qemu:123 blocked for more than 122 seconds.",
    "ACPI: PCI Root Bridge [PC00] (domain 0000 [bus 00-14])",
    "NET: Registered PF_NETLINK/PF_ROUTE protocol family",
    "vendor: Intel Xeon Platinum 8592+ found",
    "",
    "...",
    " </TASK>",
)
# What another head, a dress or a colour may be.
ODD = (
    *("<6>", "[    5.000000] ", "[   T12] ", "kern  :info  : ", "pci :warn: ", "kernel: "),
    *("host kernel: ", "Nov 25 10:00:01 ", "2026-11-25T10:00:01 ", "1732530000.5 ", "> ", '"'),
    *("\x1b[1m", "[0m", "&lt;", "</td><td>", "<br>", "\\_", "\\n[    1.000000] ", "\r", "\0"),
    *("é", "\xa0", "{", " [s=1;i=2;", "`"),
)

_line = st.tuples(
    st.integers(0, 200), st.sampled_from(MESSAGES), st.just("") | st.sampled_from(ODD)
)


def _spell(lines: list[tuple[int, str, str]], *, ordered: bool) -> str:
    stamps = [seconds for seconds, _, _ in lines]
    stamps = sorted(stamps) if ordered else stamps
    return "".join(
        f"[{stamp:5d}.000001] {odd}{message}\n"
        for stamp, (_, message, odd) in zip(stamps, lines, strict=True)
    )


def _agrees(text: str) -> bool:
    ours = read_ring(text)
    if ours is None:
        return False
    theirs = parse_kernel_log(text, watches=False)
    assert ours == theirs
    return True


@given(st.lists(_line, max_size=8), st.booleans())
def test_where_it_answers_the_reader_of_any_log_says_the_same(
    lines: list[tuple[int, str, str]], ordered: bool
) -> None:
    _agrees(_spell(lines, ordered=ordered))


@given(st.lists(_line.map(lambda line: (*line[:2], "")), max_size=8))
def test_a_plain_boot_is_answered(lines: list[tuple[int, str, str]]) -> None:
    """Whoever slows a common log down shall notice."""
    common = [line for line in lines if not line[1].startswith("Linux version")]
    assert _agrees(_spell([(0, MESSAGES[0], ""), (0, MESSAGES[4], ""), *common], ordered=True))


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.parents[2].name)
def test_the_log_of_each_host_is_answered(path: Path) -> None:
    assert _agrees(path.read_text())


def _as_kmsg(text: str) -> str:
    """The lines with a stamp, what is not printable written as /dev/kmsg does."""
    lines = re.findall(r"\[ *\d+\.\d{6}\] .*", text)
    return "".join(
        re.sub(r"[^ -\[\]-~]", lambda c: "".join(f"\\x{b:02x}" for b in c[0].encode()), line) + "\n"
        for line in lines
    )


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.name)
def test_a_captured_log_is_read_alike(path: Path) -> None:
    _agrees(_as_kmsg(path.read_text(errors="replace")))


def test_every_message_that_tells_of_the_host_is_looked_for() -> None:
    known = [
        text
        for pattern in (bringup._MESSAGES, bringup._OPTIONS, bringup._TAINTED)
        for text in beginnings_of(pattern.pattern)
    ]
    assert len(known) > 20
    assert [text for text in known if not f"{text} ".startswith(HOST_BEGINNINGS)] == []


def test_nothing_is_told_of_an_empty_log() -> None:
    assert read_ring("\n") is None or read_ring("\n") == LogReading()
