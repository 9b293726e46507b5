"""Kernel logs: what the kernel wrote counts, and nothing that a program wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.facts.cpu import CpuGroup
from tdxreclaim.facts.logs.bringup import vendor_of_brand
from tdxreclaim.facts.logs.reading import LogReading
from tdxreclaim.facts.logs.whole import looks_like_kernel_log, parse_kernel_log

CPU0 = "smpboot: CPU0: Intel(R) Xeon(R) Platinum 8480CTDX (family: 0x6, model: 0x8f, stepping: 0x8)"
BANNER = "Linux version 6.18.2 (build@host) (gcc 14) #1 SMP"
ENABLED = "virt/tdx: BIOS enabled: private KeyID range [64, 128)"
READY = "virt/tdx: module initialized"
KEXEC = "kexec: Not allowed on platform with tdx_pw_mce bug"
MESSAGES = (BANNER, ENABLED, CPU0, READY, KEXEC)

PREFIXES = [
    pytest.param("", id="dmesg -t"),
    pytest.param("[    1.234567] ", id="dmesg"),
    pytest.param("[    1.234567] [    T1] ", id="caller"),
    pytest.param("[    1.234567][    T1] ", id="caller without a space"),
    pytest.param("[    1.234567] [ C12] ", id="caller in an interrupt"),
    pytest.param("[Sat Nov 22 11:49:00 2025] ", id="dmesg -T"),
    pytest.param("[Sa Nov 22 11:49:00 2025] ", id="dmesg -T in German"),
    pytest.param("[六 11月 22 11:49:00 2025] ", id="dmesg -T in Chinese"),
    pytest.param("[Nov22 11:49] ", id="dmesg -H"),
    pytest.param("[  +0.000012] ", id="dmesg -H, later"),
    pytest.param("[    1.234567 <    0.000003>] ", id="dmesg -d"),
    pytest.param("2025-11-22T11:49:00,123456+01:00 ", id="dmesg --time-format iso"),
    pytest.param("kern  :info  : [    1.234567] ", id="dmesg -x"),
    pytest.param("kern  :notice: [Sat Nov 22 11:49:00 2025] ", id="dmesg -x -T"),
    pytest.param("<6>", id="dmesg -r -t"),
    pytest.param("<6>[    1.234567] ", id="dmesg -r"),
    pytest.param("Nov 22 11:49:00 host kernel: ", id="journalctl"),
    pytest.param("Nov 22 11:49:00 host.example.org kernel: [    1.234567] ", id="syslog"),
    pytest.param("2025-11-22T11:49:00+0000 host kernel: ", id="journalctl -o short-iso"),
    pytest.param("Nov 22 11:49:00.123456 host kernel: ", id="journalctl -o short-precise"),
    pytest.param("[    1.234567] host kernel: ", id="journalctl -o short-monotonic"),
    pytest.param("1763812140.123456 host kernel: ", id="journalctl -o short-unix"),
    pytest.param("Sat 2025-11-22 11:49:00 UTC host kernel: ", id="journalctl -o short-full"),
]

FORGED = [
    pytest.param("Nov 22 host qemu: ", id="a program"),
    pytest.param("Nov 22 11:49:00 host qemu[123]: ", id="a program with its number"),
    pytest.param("Nov 22 11:49:00 host bash[1]: kernel: ", id="a program that quotes the kernel"),
    pytest.param("Nov 22 11:49:00 host logger: saw kernel: [    1.2] ", id="a quote with a stamp"),
    pytest.param("Nov 22 11:49:00 host guest-kernel: ", id="another kernel's console"),
    pytest.param("[    1.234567] foo: ", id="another driver"),
    pytest.param("[    1.234567] systemd[1]: ", id="systemd, through kmsg"),
    pytest.param("user  :notice: [    1.234567] ", id="dmesg -x of what a user wrote"),
    pytest.param("daemon:info  : [    1.234567] ", id="dmesg -x of a daemon"),
    pytest.param("<14>", id="dmesg -r of what a user wrote"),
    pytest.param("<30>[    1.234567] ", id="dmesg -r of a daemon"),
    pytest.param("[qemu] ", id="a program's own bracket"),
    pytest.param('"', id="a quotation mark"),
    pytest.param("[" * 300, id="brackets"),
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_the_kernel_wrote_counts_under_every_stamp(prefix: str) -> None:
    text = "".join(f"{prefix}{message}\n" for message in MESSAGES)
    reading = parse_kernel_log(text)
    assert looks_like_kernel_log(text)
    assert reading.boots == 1
    assert reading.release == (1, "6.18.2")
    assert reading.enabled == (2, ENABLED)
    assert reading.cpu == (3, CPU0)
    assert reading.group == CpuGroup(vendor="GenuineIntel", family=6, model=0x8F, stepping=8)
    assert reading.ready == (4, READY)
    assert reading.kexec == (5, KEXEC)


@pytest.mark.parametrize("prefix", FORGED)
@pytest.mark.parametrize("message", MESSAGES)
def test_what_a_program_wrote_does_not_count(prefix: str, message: str) -> None:
    assert parse_kernel_log(f"{prefix}{message}\n") == LogReading()


def test_a_forged_line_does_not_undo_the_kernels() -> None:
    text = f"[    1.000000] {ENABLED}\n[    2.000000] foo: {BANNER}\n"
    assert parse_kernel_log(text).enabled == (1, ENABLED)


def test_foreign_line_ends() -> None:
    text = "".join(f"[    1.234567] {message}\n" for message in MESSAGES)
    assert parse_kernel_log(text.replace("\n", "\r\n")) == parse_kernel_log(text)


def test_of_two_boots_the_last_counts() -> None:
    first = f"[    0.000000] {BANNER}\n[    0.100000] {ENABLED}\n[    0.200000] {CPU0}\n[    8.000000] {READY}\n"
    second = "[    0.000000] Linux version 6.17.0-1 (x)\n[    0.200000] smpboot: CPU0: AMD EPYC 9654 (family: 0x19, model: 0x11, stepping: 0x0)\n"
    reading = parse_kernel_log(first + second)
    assert reading.boots == 2
    assert reading.release == (5, "6.17.0-1")
    assert reading.group == CpuGroup(vendor="AuthenticAMD", family=25, model=17, stepping=0)
    assert (reading.enabled, reading.ready) == (None, None)


def test_a_log_whose_beginning_is_lost_is_still_read() -> None:
    reading = parse_kernel_log(f"[    8.000000] {READY}\n")
    assert (reading.boots, reading.release, reading.ready) == (0, None, (1, READY))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("virt/tdx: TDX-Module initialized", "ready"),
        ("virt/tdx: module initialization failed (-5)", "failed"),
        ("virt/tdx: TDX-Module initialization failed (-19)", "failed"),
        ("virt/tdx: module not loaded", "failed"),
        ("virt/tdx: initialization failed: too few private KeyIDs available.", "refused"),
        ("virt/tdx: initialization failed: Hibernation support is enabled", "refused"),
        ("virt/tdx: initialization failed: register_memory_notifier() failed (-12)", "refused"),
        ("virt/tdx: TDX not supported by the host platform", "unsupported"),
        ("tdx: not enabled by BIOS.", "unsupported"),
        ("Hypervisor detected: KVM", "hypervisor"),
        ("Booting paravirtualized kernel on KVM", "hypervisor"),
        ("kvm-guest: PV spinlocks enabled", "hypervisor"),
        ("tdx: Guest detected", "guest"),
        (KEXEC, "kexec"),
    ],
)
def test_each_message_is_told_apart(message: str, field: str) -> None:
    reading = parse_kernel_log(f"[    1.000000] {message}\n")
    said = {name for name, value in vars(reading).items() if value}
    assert said == {field}


@pytest.mark.parametrize(
    "message",
    [
        "virt/tdx: initialization failed: TDMRs exhausted.",
        "virt/tdx: 1050636 KB allocated for PAMT",
        "virt/tdx: Disable ACPI S3. Turn off TDX in the BIOS to use ACPI S3.",
        "smpboot: CPU1: Intel(R) Xeon(R) (family: 0x6, model: 0x8f, stepping: 0x8)",
        "smpboot: CPU0: Intel(R) Xeon(R) (family: 0x6, model: 0x8",
        "Linux version 6.1",
        "Linux version unknown ",
    ],
)
def test_what_tells_nothing_or_is_cut_off(message: str) -> None:
    assert parse_kernel_log(f"[    1.000000] {message}") == LogReading()


@pytest.mark.parametrize(
    ("numbers", "group"),
    [
        ("family: 0x0, model: 0x0, stepping: 0x0", (0, 0, 0)),
        ("family: 0x13, model: 0x1", (19, 1, None)),
        ("family: 0x6, model: 0x12c, stepping: 0x10", (6, None, None)),
        ("family: 0x6, model: 0x000000008f, stepping: 0x0", (6, None, 0)),
        ("family: 0x10f, model: 0xff, stepping: 0xf", (None, 255, 15)),
    ],
)
def test_numbers_out_of_range_are_unknown(
    numbers: str, group: tuple[int | None, int | None, int | None]
) -> None:
    reading = parse_kernel_log(f"smpboot: CPU0: Intel(R) Xeon(R) ({numbers})\n")
    assert reading.group == CpuGroup(
        vendor="GenuineIntel", family=group[0], model=group[1], stepping=group[2]
    )


@pytest.mark.parametrize(
    ("brand", "vendor"),
    [
        ("Intel(R) Xeon(R) Platinum 8480CTDX", "GenuineIntel"),
        ("INTEL(R) XEON(R) PLATINUM 8558", "GenuineIntel"),
        ("Genuine Intel(R) CPU 0000%@", "GenuineIntel"),
        ("AMD EPYC 9654 96-Core Processor", "AuthenticAMD"),
        ("Hygon C86 7285 32-core Processor", "HygonGenuine"),
        ("QEMU Virtual CPU version 2.5+", None),
        ("Intelligent Processor", None),
        ("AMD or Intel", None),
        ("", None),
    ],
)
def test_vendor_of_brand(brand: str, vendor: str | None) -> None:
    assert vendor_of_brand(brand) == vendor


@pytest.mark.parametrize(
    "text", ["", "hello\n", "processor : 0\nvendor_id : x\n", '{"kernel: ": 1}\n']
)
def test_other_texts_do_not_look_like_a_log(text: str) -> None:
    assert not looks_like_kernel_log(text)


@pytest.mark.parametrize(
    "line",
    [
        "[    1.000000] usb 1-1: new device\n",
        "kern  :info  : [    1.000000] usb\n",
        "<6>[    1.000000] usb\n",
        "[Sat Nov 22 11:49:00 2025] usb 1-1: new device\n",
        "Nov 22 11:49:00 host kernel: usb\n",
    ],
)
def test_a_log_with_nothing_to_tell_is_one_still(line: str) -> None:
    assert looks_like_kernel_log(line)


def test_a_line_of_megabytes_is_not_gone_over_for_each_hit() -> None:
    # A test that hangs is how this fails.
    assert parse_kernel_log("smpboot: CPU0: " * 40_000) == LogReading()
    assert parse_kernel_log("x" * 1000 + READY) == LogReading()
    assert parse_kernel_log("[11:11:11] " * 30 + "x " + READY) == LogReading()
    assert parse_kernel_log("[11:11:11] " * 30 + "x " + READY + "\n") == LogReading()


LOG = "".join(f"[    1.234567] {message}\n" for message in MESSAGES)


@given(st.integers(0, len(LOG)), st.integers(0, 30), st.text(max_size=30))
def test_any_mangled_log_gives_a_reading(at: int, gone: int, put: str) -> None:
    text = LOG[:at] + put + LOG[at + gone :]
    looks_like_kernel_log(text)
    assert parse_kernel_log(text).boots <= 2


@given(st.integers(0, len(LOG)))
def test_a_cut_anywhere_invents_nothing(at: int) -> None:
    reading, whole = parse_kernel_log(LOG[:at]), parse_kernel_log(LOG)
    # A brand name whose numbers are cut off tells a generation all the same.
    reading = reading._replace(told=None)
    for ours, theirs in zip(vars(reading).values(), vars(whole).values(), strict=True):
        assert not ours or ours == theirs


def test_lines_that_only_a_flagged_kernel_prints_are_read() -> None:
    kexec = "[    9.000000] kexec: Not allowed on platform with tdx_pw_mce bug\n"
    check = "[   10.000000] mce: [Hardware Error]: TDX private memory error. Possible kernel bug.\n"
    reading = parse_kernel_log(kexec + check)
    assert reading.kexec is not None
    assert reading.check is not None
    assert reading.check.number == 2
    assert (
        parse_kernel_log("[    1.000000] foo: TDX private memory error. Possible\n").check is None
    )


def test_the_cpus_of_earlier_boots_are_kept() -> None:
    def boot(model: str) -> str:
        return (
            "[    0.000000] Linux version 6.18.2 (x) #1\n[    0.100000] smpboot: CPU0: "
            f"Intel(R) Xeon(R) (family: 0x6, model: {model}, stepping: 0x8)\n"
        )

    reading = parse_kernel_log(boot("0x8f") + boot("0x8f") + boot("0xad"))
    assert reading.group is not None
    assert reading.group.model == 0xAD
    assert [group.model for _, group in reading.earlier] == [0x8F]
    assert reading.boots == 3
