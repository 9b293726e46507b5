"""One log in the shapes that programs and people give it: every line is read in each."""

from __future__ import annotations

import html
import io
import json
import textwrap
from typing import TYPE_CHECKING

import pytest

from tdxreclaim.facts.logs.clock import parse_since
from tdxreclaim.facts.logs.encoding import encoding_of, in_utf8
from tdxreclaim.facts.logs.scanner import LogScanner, scan_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.facts.logs.stack import LogEvent
    from tdxreclaim.facts.logs.voice import ScannedLog

LINES = (
    ("1.630945", "virt/tdx: BIOS enabled: private KeyID range [32, 64)"),
    (
        "2.932362",
        "smpboot: CPU0: Intel(R) Xeon(R) Platinum 8480CTDX (family: 0x6, model: 0x8f, stepping: 0x8)",
    ),
    ("9.124363", "virt/tdx: module initialized"),
    (
        "261.262866",
        "SEAMCALL (0x000000000000001c) failed: 0xc000030000000001 RCX 0x0000000000000000",
    ),
    (
        "300.100000",
        "WARNING: CPU: 76 PID: 2842 at arch/x86/kvm/vmx/tdx.c:275 __tdx_reclaim_page+0xac/0xe0 [kvm]",
    ),
    ("310.100000", "kvm_intel: tdh_mng_key_freeid() failed. HKID 65 is leaked."),
    ("615.100000", "INFO: task qemu-system-x86:4711 blocked for more than 122 seconds."),
    ("615.400000", "task:qemu-system-x86 state:D stack:0     pid:4711  tgid:4711  ppid:1"),
    ("615.660000", " kvm_gmem_release+0x10f/0x1d0 [kvm]"),
    ("615.690000", " </TASK>"),
)
MESSAGES = [message for _, message in LINES]
STAMPED = [f"[{seconds:>12}] {message}" for seconds, message in LINES]
DMESG = "".join(f"{line}\n" for line in STAMPED)
STACK = 6
# What is known of a line ends before its registers: no more is joined.
WANTED = [message.partition(" RCX")[0].rstrip(".") for message in MESSAGES[: STACK + 1]]


def each(show: Callable[[str], str], lines: list[str] = STAMPED) -> str:
    return "".join(f"{show(line)}\n" for line in lines)


def record(**fields: object) -> Callable[[str], str]:
    return lambda message: json.dumps({**fields, "message": message})


def wrapped(width: int, mark: str = "") -> str:
    return "".join(
        f"{mark}{part}\n"
        for line in STAMPED
        for part in textwrap.wrap(line, width, break_on_hyphens=False, break_long_words=False)
    )


ISO = "2026-06-24T11:07:18.630945"
SHAPES: dict[str, str | bytes] = {
    "dmesg": DMESG,
    "dmesg -t": each(str, MESSAGES),
    "dmesg -x": each(lambda line: f"kern  :warn  : {line}"),
    "dmesg -r": each(lambda line: f"<4>{line}"),
    "dmesg -H": each(lambda line: f"[Jun24 11:07] {line}", MESSAGES),
    "dmesg -T, Arabic": each(lambda line: f"[الأربعاء يونيو 24 11:07:18 2026] {line}", MESSAGES),
    "kmsg": each(lambda line: f"6,1,1630945,-,caller=T1;{line}\n SUBSYSTEM=pci", MESSAGES),
    "short-unix": each(lambda line: f"1782299238.630945 host1 kernel: {line}", MESSAGES),
    "verbose": each(
        lambda line: (
            f"Wed 2026-06-24 11:07:18.630945 UTC [s=abc;i=1;b=aa;m=1;t=1;x=1]\n"
            f"    _TRANSPORT=kernel\n    _HOSTNAME=host1\n    MESSAGE={line}\n    PRIORITY=4"
        ),
        MESSAGES,
    ),
    "export": each(
        lambda line: f"__CURSOR=s=1\nMESSAGE={line}\n_TRANSPORT=kernel\n_HOSTNAME=host1\n", MESSAGES
    ),
    "RFC 5424": each(lambda line: f'<4>1 {ISO}Z host1 kernel - - [m n="1"] \ufeff{line}', MESSAGES),
    "French syslog": each(lambda line: f"juin 24 11:07:18 host1 kernel: {line}", MESSAGES),
    "German syslog": each(lambda line: f"24. Jun 11:07:18 host1 kernel: {line}", MESSAGES),
    "relayed": each(lambda line: f"{ISO}Z Jun 24 11:07:18 fe80::1 kernel: {line}"),
    "CRI": each(lambda line: f"{ISO}Z stdout F {line}"),
    "docker": each(lambda line: json.dumps({"log": f"{line}\n", "stream": "stdout", "time": ISO})),
    "compose": each(lambda line: f"debug-1  | {line}"),
    "stern": each(lambda line: f"node-debugger-x7 debugger {line}"),
    "kubectl": each(lambda line: f"[pod/nd-x/debugger] {ISO}Z {line}"),
    "talosctl": each(lambda line: f"10.0.0.2: kern: warning: [{ISO}Z]: {line}", MESSAGES),
    "Elastic": each(record(host={"name": "host1"}, process={"name": "kernel"}), MESSAGES),
    "Elastic hits": json.dumps(
        {"hits": {"hits": [{"_source": {"message": line}} for line in STAMPED]}}, indent=2
    ),
    "Loki": json.dumps(
        {
            "data": {
                "result": [
                    {"stream": {"host": "h"}, "values": [["1782299238630945024", line]]}
                    for line in MESSAGES
                ]
            }
        }
    ),
    "logcli": each(lambda line: f'{ISO}Z {{host="h", job="kernel"}} {line}', MESSAGES),
    "fluentd": each(
        lambda line: f"{ISO}+00:00\tkern\t{json.dumps({'ident': 'kernel', 'message': line})}",
        MESSAGES,
    ),
    "Splunk": '"_time","host","_raw"\n'
    + each(lambda line: f'"{ISO}","host1","Jun 24 11:07:18 host1 kernel: {line}"', MESSAGES),
    "Ansible": "ok: [host1] => {\n"
    + json.dumps({"out.stdout_lines": STAMPED}, indent=4)[1:]
    + "\n",
    "YAML": "log:\n" + each(lambda line: f"  - '{line}'"),
    "pdsh": each(lambda line: f"host1: {line}"),
    "grep -n": each(lambda line: f"12:{line}"),
    "zgrep": each(lambda line: f"/var/log/kern.log.2.gz:Jun 24 11:07:18 host1 kernel: {line}"),
    "table": "| log |\n|---|\n" + each(lambda line: f"| `{line}` |"),
    "two columns": each(lambda line: f"| {line[:14]} | {line[15:]} |"),
    "a list": each(lambda line: f"1. {line}"),
    "a fence": f"See:\n\n```\n{DMESG}```\n",
    "fence on the line": f"```{DMESG}```\n",
    "quoted twice": each(lambda line: f"> > {line}"),
    "quoted fence": "> ```\n" + each(lambda line: f"> {line}") + "> ```\n",
    "a patch": each(lambda line: f"+{line}"),
    "wrapped at 68": wrapped(68),
    "wrapped at 80": wrapped(80),
    "wrapped and quoted": wrapped(74, "> "),
    "broken at 80": each(lambda line: "\n".join(line[i : i + 80] for i in range(0, len(line), 80))),
    "HTML": f"<pre><code>\n{html.escape(DMESG)}</code></pre>\n",
    "HTML paragraphs": "".join(f"<p>{html.escape(line)}</p>" for line in STAMPED),
    "HTML table": each(lambda line: f"<tr><td>1</td><td>{html.escape(line)}</td></tr>"),
    "non-breaking": DMESG.replace(" ", "\u00a0"),
    "carriage returns": DMESG.replace("\n", "\r"),
    "a console": DMESG.replace("\n", "\r\r\n"),
    "coloured": each(lambda line: f"\x1b[32m{line[:14]}\x1b[0m \x1b[1m{line[15:]}\x1b[0m"),
    "colours without escapes": each(lambda line: f"[32m{line[:14]}[0m {line[15:]}[0m"),
    "colours in octal": each(lambda line: f"#033[32m{line[:14]}#033[0m {line[15:]}"),
    "lost beginnings": each(lambda line: line[6:]),
    "escaped for Markdown": DMESG.replace("_", "\\_").replace("[", "\\[").replace("]", "\\]"),
    "a console in JSON": json.dumps({"Output": f"BIOS\r\n{DMESG}"}),
    "crash log -m": each(lambda line: f"{line[:14]} <4>{line[15:]}"),
    "BBCode": f"[code]{DMESG}[/code]\n",
    "dates alone": each(lambda line: f"2026-06-24 11:07:18.630945 {line}", MESSAGES),
    "UTF-16": DMESG.encode("utf-16"),
    "UTF-16, unmarked": DMESG.encode("utf-16-be"),
    "zeros around": bytes(4096) + DMESG.encode() + bytes(512),
    "a JSON string": json.dumps({"result": {"kernel_log": DMESG}}, indent=1),
    "a Python list": "[" + ",\n ".join(repr(line) for line in STAMPED) + "]\n",
}


def scan(data: bytes) -> tuple[list[LogEvent], tuple[ScannedLog, ...]]:
    events: list[LogEvent] = []
    scanner = LogScanner("log", lambda _: events.append)
    stream = in_utf8(io.BufferedReader(io.BytesIO(data)), data)
    return events, scan_log(stream, scanner, (), lambda _count: None)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_line_is_read_in_every_shape(shape: str) -> None:
    text = SHAPES[shape]
    events, logs = scan(text if isinstance(text, bytes) else text.encode())

    for message in WANTED:
        found = [event for event in events if " ".join(event.text.split()).startswith(message)]
        assert len(found) == 1, message
    stack = next(event.stack for event in events if event.stack)
    assert stack is not None
    assert stack.frames == ("kvm_gmem_release",)
    (log,) = logs
    assert (len(log.boots), log.quoted, log.understood) == (1, False, True)
    assert log.reading.group is not None
    assert log.reading.group.model == 0x8F


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_are_told(codec: str) -> None:
    assert encoding_of(DMESG.encode(codec)) is not None


@pytest.mark.parametrize("data", [b"", b"\0" * 4096, DMESG.encode(), b"\0\0ab" * 100])
def test_what_is_no_utf_16_is_left_alone(data: bytes) -> None:
    assert encoding_of(data) is None


PLAIN = "[    9.124363] virt/tdx: module initialized\n"
LEAKED = "[  310.100000] kvm_intel: tdh_mng_key_freeid() failed. HKID 65 is leaked.\n"


def test_lines_in_other_dress_are_another_witness() -> None:
    _, logs = scan(f"> {LEAKED}\nOn my host:\n\n{PLAIN}".encode())
    assert [(log.quoted, log.kernel_lines) for log in logs] == [(True, 1), (False, 1)]
    assert len({log.path for log in logs}) == 2


def test_two_dresses_and_no_plain_line_are_nobodys_log() -> None:
    _, logs = scan(f"> {LEAKED}>> {PLAIN}".encode())
    assert [log.quoted for log in logs] == [True, True]


def test_hosts_are_told_apart() -> None:
    lines = [
        f"Jun 24 11:07:18 {host} kernel: virt/tdx: module not loaded\n"
        for host in ("localhost", "node-a", "node-b", "node-a.example.org")
    ]
    _, logs = scan("".join(lines).encode())
    assert [(log.host, log.kernel_lines) for log in logs] == [("node-a", 3), ("node-b", 1)]


def test_one_host_of_several_is_chosen() -> None:
    events: list[LogEvent] = []
    scanner = LogScanner("log", lambda _: events.append, host="node-b")
    for host in ("node-a", "node-b"):
        scanner.feed(f"Jun 24 11:07:18 {host} kernel: virt/tdx: module not loaded\n".encode())
    (log,) = scanner.finish()
    assert (log.host, len(events)) == ("node-b", 1)
    assert log.skipped == ("1 kernel lines that do not name node-b: left out",)


def test_a_cut_log_that_says_a_line_twice_has_it_once() -> None:
    events, (log,) = scan(f"{PLAIN}{LEAKED}...\n{PLAIN}{LEAKED}".encode())
    assert len(events) == 2
    assert len(log.boots) == 1


def test_a_guest_says_so_before_its_version() -> None:
    guest = "[    0.000000] tdx: Guest detected\n[    0.000000] Linux version 6.12.0 (a) #1\n"
    _, (log,) = scan(f"{guest}[    5.000000] kvm-guest: PV\n{guest}".encode())
    assert len(log.boots) == 2
    assert log.reading.guest is not None
    assert log.reading.release == (5, "6.12.0")


@pytest.mark.parametrize(
    ("since", "kept"),
    [
        ("2h", [3]),
        ("1 day ago", [2, 3]),
        ("yesterday", [2, 3]),
        ("Jun 24 10:30:00", [3]),
        ("@", None),
        ("2 fortnights", None),
    ],
)
def test_since_is_a_span_or_a_stamp(since: str, kept: list[int] | None) -> None:
    now = 1782302400.0  # 2026-06-24 12:00 UTC
    parsed = parse_since(since, now)
    if kept is None:
        assert parsed is None
        return
    events: list[LogEvent] = []
    scanner = LogScanner("log", lambda _: events.append, since=parsed)
    for stamp in ("Jun 22 09:00:00", "Jun 24 09:00:00", "Jun 24 11:00:00"):
        scanner.feed(f"{stamp} h kernel: virt/tdx: module not loaded\n".encode())
    scanner.finish()
    assert [event.number for event in events] == kept


def test_since_boot() -> None:
    events: list[LogEvent] = []
    scanner = LogScanner("log", lambda _: events.append, since=parse_since("[  100.0]"))
    scanner.feed(f"{PLAIN}{LEAKED}".encode())
    scanner.finish()
    assert [event.number for event in events] == [2]


CONSOLES = (
    'Jun 24 11:07:18 h containerd[1]: level=debug vmconsole="[    9.1] virt/tdx: module not loaded"',
    f"Jun 24 11:07:18 h qemu[3]: {PLAIN.strip()}",
    json.dumps({"level": "debug", "msg": "reading guest console", "vmconsole": PLAIN}),
    json.dumps({"SYSLOG_IDENTIFIER": "containerd", "message": PLAIN}),
    json.dumps({"_TRANSPORT": "stdout", "MESSAGE": "virt/tdx: module not loaded"}),
    json.dumps({"facility": "daemon", "message": "virt/tdx: module not loaded"}),
    f'2026-06-24T11:07:18Z {{job="vm-console"}} {PLAIN.strip()}',
    "the kernel said: virt/tdx: module not loaded",
)


@pytest.mark.parametrize("line", CONSOLES)
def test_what_a_program_quotes_is_not_the_hosts(line: str) -> None:
    events, logs = scan(f"{line}\n".encode())
    assert events == []
    assert logs[0].kernel_lines == 0


@pytest.mark.parametrize("text", ["y\n" * 1000, "\0" * 5000, "Once upon a time\nthere was\n"])
def test_what_is_no_log_is_not_understood(text: str) -> None:
    _, (log,) = scan(text.encode())
    assert not log.understood


def test_words_in_the_wrong_place_are_no_clean_bill() -> None:
    _, (log,) = scan(f"[    1.000000]  (3)[1:init]{MESSAGES[0]}\n".encode())
    assert not log.understood
    assert "elsewhere than at their beginning" in log.skipped[0]


UNKNOWN = (
    "2026-06-24T11:07:18Z warn [    1.630945] {}",
    "2026-06-24 11:07:18 | host1 | kernel | {}",
    "I0624 11:07:18.000000       1 kmsg.go:1] {}",
    "[11:07, 24/6/2026] Alice: [    1.630945] {}",
)


@pytest.mark.parametrize("shape", UNKNOWN)
def test_a_shape_that_is_not_known_is_said_to_be(shape: str) -> None:
    events, logs = scan("".join(f"{shape.format(message)}\n" for message in MESSAGES[:5]).encode())
    assert events == []
    assert not logs[0].understood


def test_a_program_that_quotes_a_kernel_is_said() -> None:
    _, (log,) = scan(f"Jun 24 11:07:18 h qemu[3]: {PLAIN}".encode())
    assert log.understood
    assert log.skipped == (
        "1 line of other programs that quote a kernel, maybe a guest's: not used",
    )


@pytest.mark.parametrize("name", ["QEMU Standard PC (Q35 + ICH9, 2009)", "Xen HVM domU"])
def test_the_firmware_names_a_guest(name: str) -> None:
    _, (log,) = scan(f"[    0.000000] DMI: {name}, BIOS 1\n".encode())
    assert log.reading.hypervisor is not None


def test_a_stream_of_nothing_is_not_read_for_ever() -> None:
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            buffer[:] = b"y\n" * (len(buffer) // 2) + b"y" * (len(buffer) % 2)
            return len(buffer)

    scanner = LogScanner("log", lambda _: lambda _event: None)
    stream = io.BufferedReader(Endless())  # type: ignore[type-var]
    (log,) = scan_log(stream, scanner, (), lambda _count: None)
    assert "nothing was understood in the first 64 MiB" in log.skipped[0]
