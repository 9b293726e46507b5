"""Kernel lines that are no finding by themselves, and say something about others."""

from __future__ import annotations

from typing import NamedTuple


class Note(NamedTuple):
    """What such a line begins with, matched from the beginning of a message."""

    pattern: str
    samples: tuple[str, ...]


COMMAND_LINE = Note(
    r"(?:Kernel command|Command) line: (?P<options>.*)",
    (
        "Command line: BOOT_IMAGE=/vmlinuz-7.1.0 ro kvm_intel.tdx=1 nohibernate",
        "Kernel command line: ro kvm_intel.tdx=1",
    ),
)


PROCESSOR = Note(
    r"(?:mce: )?\[Hardware Error\]: PROCESSOR (?P<vendor>\d{1,3}):(?P<signature>[0-9a-f]{1,8})",
    ("mce: [Hardware Error]: PROCESSOR 0:806f8 TIME 1719220037 SOCKET 0 APIC 18",),
)


# The module's answer, in the registers of a warning.
RAX = Note(
    r"RAX: (?P<rax>[0-9a-f]{16})\b",
    ("RAX: c000030000000001 RBX: ff4d1d2a0f3c0000 RCX: 0000000000000000",),
)


# Lines that go with others, or that every such host prints.
KNOWN = Note(
    r"(?:virt/)?tdx: (?:RAX|RCX|R09|additional output|CMR|Guest detected|Disable Kexec)\b",
    (
        "virt/tdx: RAX 0x0000000000000000",
        "virt/tdx: RCX 0x0000000000000000 RDX 0x9100000100000008 R08 0x0000000000000000",
        "virt/tdx: R09 0x0000000000000000 R10 0x0000000000000000 R11 0x0000000000000000",
        "tdx: additional output: rcx 0x0, rdx 0x0, r8 0x0, r9 0x0, r10 0x0, r11 0x0.",
        "virt/tdx: CMR: [0x100000, 0x77800000)",
        "tdx: Guest detected",
        "virt/tdx: Disable Kexec. Turn off TDX in the BIOS to use KEXEC.",
    ),
)


NOTES = (COMMAND_LINE, PROCESSOR, RAX, KNOWN)
