"""A boot is whole where every line up to its CPU0 line is one, in order: nothing else is."""

from __future__ import annotations

import tracemalloc

import pytest

from tdxreclaim.facts.host import read_host
from tdxreclaim.facts.logs import whole
from tdxreclaim.facts.logs.whole import parse_kernel_log
from tdxreclaim.facts.sources.recognise import CaptureFormat, as_text, files_of

BANNER = "Linux version 6.18.2 (gcc) #1 SMP"
BETWEEN = ("Command line: kvm_intel.tdx=1", "BIOS-e820: usable", "", "*" * 60, "** a notice **")
CPU0 = "smpboot: CPU0: Intel(R) Xeon(R) (family: 0x6, model: 0xad, stepping: 0x1)"
MESSAGES = (BANNER, *BETWEEN, CPU0)


def _log(head: str, messages: tuple[str, ...] = MESSAGES) -> str:
    return "".join(
        head.format(seconds=number / 10) + message + "\n" for number, message in enumerate(messages)
    )


HEADS = {
    "dmesg": "[{seconds:12.6f}] ",
    "caller": "[{seconds:12.6f}][    T0] ",
    "priority": "<6>[{seconds:12.6f}] ",
    "dmesg -x": "kern  :info  : [{seconds:12.6f}] ",
    "dmesg -T": "[Sun Nov 22 11:49:00 2026] ",
    "journal": "Nov 22 11:49:00 node1 kernel: ",
    "syslog": "Nov 22 11:49:00 node1 kernel: [{seconds:12.6f}] ",
    "short-iso": "2026-11-22T11:49:00+0000 node1 kernel: ",
    "quoted": "> [{seconds:12.6f}] ",
    "grep": "/var/log/kern.log:Nov 22 11:49:00 node1 kernel: ",
    "pdsh": "node1: [{seconds:12.6f}] ",
}


@pytest.mark.parametrize("head", HEADS)
def test_a_whole_boot(head: str) -> None:
    reading = parse_kernel_log(_log(HEADS[head]))
    assert reading.whole
    assert reading.group is not None
    assert reading.group.model == 0xAD


def test_a_line_without_a_stamp_cannot_be_placed() -> None:
    assert not parse_kernel_log(_log("")).whole


@pytest.mark.parametrize(
    "cut",
    [
        *("...", "[...]", "[snip]", "<cut>", "(truncated)", " ⋮ ", "…", "--", "-- Reboot --"),
        *("** 12 printk messages dropped **", "-- Boot 0123 --", "~", "```", "/* 120 lines */"),
        "[    0.200000] ** 734 printk messages dropped ** [    0.2] and more",
        *("[    0.200000] [snip]", "[    0.200000] ...", "[    0.200000] (120 lines omitted)"),
        "[    0.900000] a line of later",
        "a line of nobody's",
        "Nov 22 11:49:00 node2 kernel: [    0.200000] a line of another host",
        "node2: [    0.200000] a line of another host",
        "Nov 22 11:49:00 node1 systemd-journald[400]: Missed 42 kernel messages",
        "> [    0.200000] a line in another dress",
        "==> /var/log/kern.log.1 <==",
    ],
)
def test_a_boot_that_may_be_cut(cut: str) -> None:
    lines = _log(HEADS["dmesg"]).splitlines()
    assert not parse_kernel_log("\n".join([*lines[:2], cut, *lines[2:]]) + "\n").whole
    # Before and after it is no part of the boot.
    assert parse_kernel_log("\n".join([cut, *lines]) + "\n").whole or "kernel:" in cut


def test_a_line_that_is_not_read_to_its_end() -> None:
    messages = (BANNER, "x" * 70_000, CPU0)
    assert not parse_kernel_log(_log(HEADS["priority"], messages)).whole


@pytest.mark.parametrize("mark", ["[snip]", "--", "<cut> by hand"])
def test_a_mark_where_a_wrapped_line_may_go_on(mark: str) -> None:
    for width in range(40, 90):
        banner = BANNER.ljust(width - 15, "x")
        lines = _log(HEADS["dmesg"], (banner, *BETWEEN, CPU0)).splitlines()
        assert not parse_kernel_log("\n".join([lines[0], mark, *lines[1:]]) + "\n").whole


def test_a_later_boot_without_its_first_line() -> None:
    first = _log("[{seconds:12.6f}] ", (BANNER, CPU0)) + "[  900.000000] virt/tdx: x\n"
    later = _log("[{seconds:12.6f}] ", ("x", CPU0))
    assert parse_kernel_log(first).whole
    assert not parse_kernel_log(first + later).whole


def test_a_wall_clock_that_goes_back() -> None:
    lines = _log(HEADS["journal"]).splitlines()
    lines[2] = lines[2].replace("11:49:00", "11:52:00")
    assert not parse_kernel_log("\n".join(lines) + "\n").whole


def test_a_boot_without_end_is_not_watched_for_ever() -> None:
    messages = (BANNER, *["x"] * 20_001, CPU0)
    assert not parse_kernel_log(_log(HEADS["dmesg"], messages)).whole
    assert parse_kernel_log(_log(HEADS["dmesg"], messages[:19_000] + messages[-1:])).whole


def test_a_log_of_too_many_lines_that_matter_is_not_read_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = _log(HEADS["dmesg"]) + "[    1.000000] virt/tdx: x\n" * 20_000
    assert not parse_kernel_log(text).unended
    monkeypatch.setattr(whole, "MOST_LOOKED_AT", 1000)
    assert parse_kernel_log(text).unended
    gaps = read_host(files_of(text, "log", CaptureFormat.KERNEL_LOG), symbols=False).coverage.gaps
    assert "not read to its end" in gaps[0].why


def test_braces_without_end_take_no_memory() -> None:
    tracemalloc.start()
    try:
        parse_kernel_log(_log(HEADS["dmesg"]) + "{\n" * 300_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20


def test_a_long_text_takes_two_bytes_a_letter_at_most() -> None:
    data = ("\ufeffa\U0001f600\u20ac" * 400_000).encode()
    text = as_text(data)
    assert text == ("a\ufffd\u20ac\ufeff" * 400_000).removesuffix("\ufeff")
    assert as_text(data[:100]) == data[:100].decode("utf-8", "replace").removeprefix("\ufeff")
