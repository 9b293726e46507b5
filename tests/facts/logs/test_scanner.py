"""Logs as they come: every form, dirty, cut, packed, of several boots."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tdxreclaim.cli.progress import Progress
from tdxreclaim.errors import InterruptedWorkError
from tdxreclaim.facts.logs.boots import MOST_BOOTS
from tdxreclaim.facts.logs.clock import parse_since
from tdxreclaim.facts.logs.scanner import CHUNK_BYTES, LogScanner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import RunTool

    from tdxreclaim.facts.logs.stack import LogEvent
    from tdxreclaim.facts.logs.voice import ScannedLog

MESSAGE = "virt/tdx: module not loaded"


def scan(
    data: bytes, *, piece: int = 1 << 20, since: str | None = None
) -> tuple[list[LogEvent], ScannedLog]:
    """Return the events and the first witness of a log."""
    events, logs = witnesses(data, piece=piece, since=since)
    return events, logs[0] if logs else LogScanner("log", lambda _: events.append).finish()[0]


def witnesses(
    data: bytes, *, piece: int = 1 << 20, since: str | None = None, host: str | None = None
) -> tuple[list[LogEvent], tuple[ScannedLog, ...]]:
    events: list[LogEvent] = []
    moment = parse_since(since) if since else None
    scanner = LogScanner("log", lambda _: events.append, since=moment, host=host)
    for start in range(0, len(data), piece):
        scanner.feed(data[start : start + piece])
    return events, scanner.finish()


def as_json(message: str | list[int], **fields: str) -> str:
    record: dict[str, object] = {
        "__CURSOR": "s=1;i=2",
        "__REALTIME_TIMESTAMP": "1782299237000000",
        "_TRANSPORT": "kernel",
        "_BOOT_ID": "0f" * 16,
        "MESSAGE": message,
        **fields,
    }
    return json.dumps(record, separators=(",", ":"))


FORMS = {
    "dmesg": f"[   10.798766] {MESSAGE}",
    "dmesg without stamps": MESSAGE,
    "dmesg with caller": f"[   10.798766] [T1234] {MESSAGE}",
    "dmesg -T": f"[Wed Jun 24 11:07:17 2026] {MESSAGE}",
    "dmesg -T, localised": f"[mer. juin 24 11:07:17 2026] {MESSAGE}",
    "dmesg -x": f"kern  :err   : [   10.798766] {MESSAGE}",
    "dmesg -r": f"<3>[   10.798766] {MESSAGE}",
    "short": f"Jun 24 11:07:17 host kernel: {MESSAGE}",
    "short, localised": f"jun 24 11:07:17 host kernel: {MESSAGE}",
    "short-iso": f"2026-06-24T11:07:17+0200 host kernel: {MESSAGE}",
    "short-iso-precise": f"2026-06-24T11:07:17.123456+02:00 host kernel: {MESSAGE}",
    "short-full": f"Wed 2026-06-24 11:07:17 CEST host kernel: {MESSAGE}",
    "short-monotonic": f"[   10.798766] host kernel: {MESSAGE}",
    "messages": f"Jun 24 11:07:17 host kernel: [   10.798766] {MESSAGE}",
    "rfc 5424": f"<3>1 2026-06-24T11:07:17Z host kernel - - - {MESSAGE}",
    "json": as_json(MESSAGE),
    "json, bytes": as_json(list(MESSAGE.encode())),
    "indented in a report": f"    [   10.798766] {MESSAGE}",
    "carriage return": f"[   10.798766] {MESSAGE}\r",
}


@pytest.mark.parametrize("form", [name for name in FORMS if name != "rfc 5424"])
def test_every_form_of_a_kernel_line_is_recognised(form: str) -> None:
    text = f"first line\nsecond\n{FORMS[form]}\nlast\n"
    events, scanned = scan(text.encode())

    assert [(event.number, event.text) for event in events] == [(3, MESSAGE)]
    assert scanned.lines == 4
    assert scanned.skipped == ()


NOT_THE_KERNELS = (
    f"Jun 24 11:07:17 host sshd[812]: {MESSAGE}",
    f"Jun 24 11:07:17 host sshd[812]: error: kernel: {MESSAGE}",
    f"Jun 24 11:07:17 host sudo[9]: TTY=pts/0 ; COMMAND=/bin/grep kernel: {MESSAGE}",
    f"2026-06-24T11:07:17+0200 host app[1]: [   10.79] {MESSAGE}",
    f"somebody wrote: {MESSAGE}",
    f"user  :err   : [   10.798766] {MESSAGE}",
    as_json(MESSAGE, _TRANSPORT="stdout"),
    as_json(MESSAGE, _TRANSPORT="syslog", SYSLOG_IDENTIFIER="kernel"),
    as_json(MESSAGE, _TRANSPORT="syslog", SYSLOG_IDENTIFIER="kernel", _PID="12"),
    f"[   10.798766] audit: op={MESSAGE}",
    "[   10.798766] x86: tdx_pw_mce and __tdx_reclaim_page+0x1 WARNING tdx.c are only words",
)


@pytest.mark.parametrize("line", NOT_THE_KERNELS)
def test_a_line_that_quotes_the_kernel_is_not_the_kernels(line: str) -> None:
    assert scan(f"{line}\n".encode())[0] == []


def test_two_boots_are_told_apart() -> None:
    log = (
        "[    0.000000] Linux version 6.17.0 (a@b)\n"
        f"[   10.000000] {MESSAGE}\n"
        "[    0.000000] Linux version 6.18.0 (a@b)\n"
        "[   10.000000] virt/tdx: module initialized\n"
    )
    events, scanned = scan(log.encode())

    assert [(event.boot, event.text[:9]) for event in events if "tdx" in event.text] == [
        (0, "virt/tdx:"),
        (1, "virt/tdx:"),
    ]
    assert [boot.release for boot in scanned.boots] == ["6.17.0", "6.18.0"]
    assert scanned.reading.ready is not None
    assert scanned.reading.failed is None


def test_a_boot_without_its_first_line_begins_where_the_stamps_do() -> None:
    log = f"[ 9000.000000] {MESSAGE}\n[    3.000000] {MESSAGE}\n[    2.990000] {MESSAGE}\n"
    assert [event.boot for event in scan(log.encode())[0]] == [0, 1, 1]


def test_a_clock_that_jumps_begins_no_boot() -> None:
    log = "".join(
        f"{stamp} host kernel: {MESSAGE}\n"
        for stamp in ("Jun 24 11:07:17", "Jan  1 00:00:01", "Jun 24 11:07:19")
    )
    events, scanned = scan(log.encode())

    assert [event.boot for event in events] == [0, 0, 0]
    assert len(scanned.boots) == 1


def test_json_boots_are_told_by_their_id() -> None:
    lines = [as_json(MESSAGE, _BOOT_ID=boot) for boot in ("aa", "bb", "aa")]
    events, _ = scan("\n".join(lines).encode())
    assert [event.boot for event in events] == [0, 1, 0]


def test_since_leaves_out_what_is_older_and_says_so() -> None:
    log = (
        f"2026-06-23T11:07:17+00:00 host kernel: {MESSAGE}\n"
        f"Jun 23 10:00:00 host kernel: {MESSAGE}\n"
        f"Jun 24 10:00:00 host kernel: {MESSAGE}\n"
        f"czerwca 24 10:00:00 host kernel: {MESSAGE}\n"
    )
    events, scanned = scan(log.encode(), since="2026-06-24")

    assert [event.number for event in events] == [3, 4]
    assert any("older than --since" in each for each in scanned.skipped)
    assert any("date is not told" in each for each in scanned.skipped)


def test_a_december_line_is_before_a_january_since() -> None:
    log = f"Dec 31 23:00:00 host kernel: {MESSAGE}\nJan  2 00:00:00 host kernel: {MESSAGE}\n"
    assert [e.number for e in scan(log.encode(), since="2026-01-01")[0]] == [2]


def test_dirt_is_read_around_and_said() -> None:
    good = f"[   10.798766] {MESSAGE}".encode()
    log = b"".join(
        (
            b"\0" * 5000 + good + b"\n",
            b"\xff\xfe bytes\n",
            good + b" \xff\n",
            b"x" * (10 << 20) + b"kernel: " + MESSAGE.encode() + b"\n",
            good + b"\0\0\0" + good + b"\n",
            b'{"MESSAGE":"virt/tdx: module not lo\n',
            good,
        )
    )
    events, scanned = scan(log)

    assert [event.number for event in events] == [1, 3, 5, 5, 7]
    assert scanned.lines == 7
    said = " | ".join(scanned.skipped)
    for word in ("NUL", "UTF-8", "lines of more than 64 KiB", "JSON"):
        assert word in said


def test_a_line_of_ten_megabytes_takes_no_memory_to_speak_of() -> None:
    scanner = LogScanner("log", lambda _: lambda _event: None)
    for _ in range(40):
        scanner.feed(b"x" * (1 << 18))
        assert len(scanner._carry) <= CHUNK_BYTES
    assert scanner.finish()[0].lines == 1


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_long_line_is_counted_once(end: bytes) -> None:
    _, scanned = scan(b"x kernel: virt/tdx: " * 300_000 + end)
    assert scanned.lines == 1
    assert scanned.kernel_lines == 0
    assert [each.partition(" ")[0] for each in scanned.skipped] == ["1"]


@pytest.mark.parametrize("piece", [1, 7, 64, 4096])
def test_the_pieces_that_a_log_is_read_in_do_not_matter(piece: int) -> None:
    log = ("\n".join(FORMS.values()) + "\n").encode()
    assert scan(log, piece=piece) == scan(log)


STACK = """\
[ 5161.300000] INFO: task qemu-system-x86:4711 blocked for more than 122 seconds.
[ 5161.300006] "echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.
[ 5161.300008] task:qemu-system-x86 state:D stack:0     pid:4711  tgid:4711  ppid:1
[ 5161.300012] Call Trace:
[ 5161.300013]  <TASK>
[ 5161.300015]  __schedule+0x42b/0x1560
[ 5161.300017] virt/tdx: module not loaded
[ 5161.300018]  ? tdx_quirk_reset_page+0x20/0x70
[ 5161.300032]  kvm_gmem_release+0x6b/0xf0 [kvm]
[ 5161.300040]  </TASK>
[ 5161.300041]  not_of_it+0x1/0x2
"""


def test_a_stack_is_put_together_around_other_cpus_lines() -> None:
    events, _ = scan(STACK.encode())

    stacks = [event for event in events if event.stack]
    assert [event.number for event in stacks] == [1]
    stack = stacks[0].stack
    assert stack is not None
    assert (stack.task, stack.pid, stack.seconds) == ("qemu-system-x86", 4711, 122)
    assert stack.frames == ("__schedule", "kvm_gmem_release")
    assert [event.number for event in events if not event.stack] == [7]


def test_stacks_of_two_cpus_are_taken_apart_where_the_kernel_says_whose_they_are() -> None:
    one = [line.replace("]", "][   T11]", 1) for line in STACK.splitlines()]
    two = [
        line.replace("]", "][    C5]", 1).replace("4711", "999").replace("kvm_gmem", "kvm_other")
        for line in STACK.splitlines()
    ]
    log = "\n".join(line for pair in zip(one, two, strict=True) for line in pair)
    events, _ = scan(log.encode())

    stacks = {event.stack.pid: event.stack.frames for event in events if event.stack}
    assert stacks == {
        4711: ("__schedule", "kvm_gmem_release"),
        999: ("__schedule", "kvm_other_release"),
    }


def test_a_soft_lockup_begins_with_where_the_cpu_was() -> None:
    log = (
        "[ 10.0] watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [qemu-system-x86:4711]\n"
        "[ 10.0] RIP: 0010:tdx_quirk_reset_paddr+0x41/0x80\n"
        "[ 10.0] Call Trace:\n"
        "[ 10.0]  tdx_sept_remove_private_spte+0x1/0x2 [kvm_intel]\n"
    )
    (event,) = scan(log.encode())[0]
    assert event.stack is not None
    assert event.stack.frames == ("tdx_quirk_reset_paddr", "tdx_sept_remove_private_spte")
    assert event.stack.seconds == 26


LINES = st.lists(
    st.one_of(
        st.binary(max_size=80),
        st.sampled_from([form.encode() for form in FORMS.values()]),
        st.sampled_from([line.encode() for line in STACK.splitlines()]),
        st.sampled_from([line.encode() for line in NOT_THE_KERNELS]),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(LINES, st.integers(1, 200))
def test_no_dirt_is_fatal_and_pieces_never_matter(lines: list[bytes], piece: int) -> None:
    log = b"\n".join(lines)
    events, scanned = scan(log, piece=piece)

    assert scanned.lines == len(log.split(b"\n")) - (log.endswith(b"\n") or not log)
    assert all(1 <= event.number <= scanned.lines for event in events)
    # What was not understood is known by samples, and those by the pieces.
    whole_events, whole = scan(log)
    assert events == whole_events
    assert replace(scanned, unread=None) == replace(whole, unread=None)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            # "..." says that lines are left out, and what comes again after it is one line.
            st.binary(max_size=60).map(lambda b: b.replace(b"\n", b"").replace(b"..", b"")),
            st.sampled_from(["dmesg", "short", "json", "short-iso"]),
        ),
        max_size=20,
    )
)
def test_no_kernel_line_is_lost_among_dirt(pairs: list[tuple[bytes, str]]) -> None:
    lines: list[bytes] = []
    wanted: list[int] = []
    for dirt, form in pairs:
        lines += [dirt, FORMS[form].encode()]
        wanted.append(len(lines))
    found = {event.number for event in scan(b"\n".join(lines) + b"\n")[0]}
    assert set(wanted) <= found


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_logs_are_read(suffix: str, run: RunTool, tmp_path: Path) -> None:
    path = tmp_path / f"messages.{suffix}"
    path.write_bytes(PACKERS[suffix](f"{FORMS['short']}\n".encode()))
    ran = run("triage", "--from", path.name, cwd=tmp_path)

    assert (ran.status, ran.err) == (20, "")
    assert ran.out.count(" :1\n") == 1


def test_a_log_cut_in_its_gzip_is_read_as_far_as_it_goes(run: RunTool, tmp_path: Path) -> None:
    noise = io.StringIO()
    for number in range(20_000):
        noise.write(f"Jun 24 11:07:17 host app[{number}]: {number * 7919 % 104729}\n")
    packed = gzip.compress(f"{FORMS['short']}\n{noise.getvalue()}".encode())
    (tmp_path / "log.gz").write_bytes(packed[: len(packed) // 2])
    ran = run("triage", "--from", "log.gz", cwd=tmp_path)

    assert ran.status == 20
    assert "module-not-loaded" in ran.out
    assert "cut short or damaged after line" in ran.out


def test_a_number_without_end_in_json_is_no_time() -> None:
    line = as_json(MESSAGE).replace('"1782299237000000"', "9" * 400)
    (event,) = scan(f"{line}\n".encode())[0]
    assert event.stamp.moment is None


def test_a_version_line_without_a_version_is_a_boot_without_a_release() -> None:
    _, scanned = scan(b"[ 0.0] Linux version \n")
    assert [boot.release for boot in scanned.boots] == [None]


def test_boots_without_end_are_counted_as_the_last_that_is_kept() -> None:
    log = "[ 0.0] Linux version 6.18.0\n" * (MOST_BOOTS + 5)
    events, scanned = scan(log.encode())
    assert len(scanned.boots) == MOST_BOOTS
    assert events[-1].boot == MOST_BOOTS - 1
    assert any("boots after" in each for each in scanned.skipped)


def test_a_bar_appears_on_a_terminal_after_half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress("triage") as progress:
        progress.show(1000, 5000)
        assert terminal.getvalue() == ""
        progress._began -= 1
        progress.show(2000, 5000)
    assert "triage" in terminal.getvalue()


def test_an_interrupt_says_how_far_it_got() -> None:
    def interrupted() -> None:
        with Progress("triage") as progress:
            progress.show(2000, None)
            raise KeyboardInterrupt

    with pytest.raises(InterruptedWorkError, match="2,000 bytes"):
        interrupted()
