"""One grammar for kernel lines: every command sees the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.facts.collect import filter_log
from tdxreclaim.facts.logs.scanner import LogScanner
from tdxreclaim.facts.logs.whole import looks_like_kernel_log, parse_kernel_log

if TYPE_CHECKING:
    from tdxreclaim.facts.logs.stack import LogEvent

# By what `check` must find: the field of its reading.
MESSAGES = {
    "Linux version 6.18.2 (build@host) (gcc 14) #1 SMP": "release",
    "virt/tdx: BIOS enabled: private KeyID range [64, 128)": "enabled",
    "virt/tdx: module initialized": "ready",
    "virt/tdx: module not loaded": "failed",
    "kexec: Not allowed on platform with tdx_pw_mce bug": "kexec",
    "smpboot: CPU0: Intel(R) Xeon(R) (family: 0x6, model: 0x8f, stepping: 0x8)": "cpu",
    "tdx: Guest detected": "guest",
}

STAMPS = st.sampled_from(
    [
        "",
        "[    1.234567] ",
        "[    1.234567][    T1] ",
        "[Sat Nov 22 11:49:00 2025] ",
        "[  +0.000012] ",
        "[    1.234567 <    0.000003>] ",
        "<6>[    1.234567] ",
        "<14>[    1.234567] ",
        "kern  :info  : [    1.234567] ",
        "user  :info  : [    1.234567] ",
        "6,12,1234567,-;",
        "[qemu] ",
        "[drm] ",
    ]
)
CLOCKS = st.sampled_from(
    [
        "",
        "Nov 22 11:49:00 ",
        "Nov. 22 11:49:00.123456 ",
        "22. Nov 11:49:00 ",
        "2025-11-22T11:49:00+0100 ",
        "2025-11-22T11:49:00,123456+01:00 ",
        "Sat 2025-11-22 11:49:00 UTC ",
        "1763812140.123456 ",
        "<6>Nov 22 11:49:00 ",
        "<30>Nov 22 11:49:00 ",
        "[    1.234567] ",
    ]
)
TAGS = st.sampled_from(
    [
        *("", "host kernel: ", "kernel: ", "host kern.warn kernel: ", "host daemon.info kernel: "),
        *("host qemu[3]: ", "host logger: kernel: ", "host guest-kernel: ", "host app: "),
    ]
)
NOISE = st.text(st.characters(codec="ascii", exclude_characters="\n\r"), max_size=12)
HEADS = st.one_of(
    st.tuples(CLOCKS, TAGS, STAMPS).map("".join), st.tuples(NOISE, STAMPS).map("".join), NOISE
)


@given(HEADS, st.sampled_from(sorted(MESSAGES)))
def test_every_command_sees_the_same_line(head: str, message: str) -> None:
    line = f"{head}{message}"
    events: list[LogEvent] = []
    scanner = LogScanner("log", lambda _: events.append)
    scanner.feed(f"{line}\n".encode())
    scanner.finish()
    in_triage = bool(events)
    in_check = getattr(parse_kernel_log(f"{line}\n"), MESSAGES[message]) is not None

    assert in_triage == in_check
    if in_triage:
        assert looks_like_kernel_log(f"{line}\n")
        assert [event.text for event in events] == [message]


@given(CLOCKS, TAGS, STAMPS, st.sampled_from(sorted(MESSAGES)))
def test_what_a_capture_keeps_is_what_is_read(
    clock: str, tag: str, stamps: str, message: str
) -> None:
    line = f"{clock}{tag}{stamps}{message}\n"
    field = MESSAGES[message]
    before = getattr(parse_kernel_log(line), field)
    after = getattr(parse_kernel_log(filter_log(line)), field)
    assert (before is None) == (after is None)
