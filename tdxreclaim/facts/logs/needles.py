"""How a kernel message that matters begins, and how to find one in a block of a log, fast.

The beginnings are those of the catalogue of findings, derived from its
patterns, and of the lines that tell of the host.
"""

from __future__ import annotations

import re
from functools import cache

# Lines that tell of the host, its boot, or what a machine check means.
HOST_BEGINNINGS = (
    "virt/tdx: ",
    "tdx: ",
    "kvm_intel: ",
    "seamldr: ",
    "Linux version ",
    "smpboot: CPU0: ",
    "Command line: ",
    "Kernel command line: ",
    "Hypervisor detected: ",
    "Booting paravirtualized kernel on ",
    "kvm-guest: ",
    # Virtual machines alone: a capture keeps these lines, and a board is no business of it.
    *("DMI: QEMU ", "DMI: Red Hat KVM", "DMI: VMware, Inc. VMware", "DMI: Bochs "),
    *("DMI: innotek GmbH VirtualBox", "DMI: Xen HVM domU", "DMI: Google Google Compute Engine"),
    *("DMI: Microsoft Corporation Virtual Machine", "DMI: OpenStack ", "DMI: Parallels "),
    "Machine model: ",
    "SBI specification v",
    "Booting Linux on physical CPU ",
    "mce: [Hardware Error]: ",
    "[Hardware Error]: ",
    "TDX private memory error",
    "kexec: Not allowed",
    "Kernel panic - not syncing: ",
    "CPU: ",
    "Not tainted ",
    "Tainted: ",
)


STACK_BEGINNINGS = ("INFO: task ", "watchdog: BUG: soft lockup", "BUG: soft lockup", "task:")


# What libvirt says when a process cannot be killed: not the kernel's, and told apart.
NOT_KILLED = b"with SIGKILL: Devic"


@cache
def words() -> tuple[str, ...]:
    """Return all beginnings, none of them the beginning of another."""
    from tdxreclaim.tables.beginnings import beginnings

    every = sorted({*HOST_BEGINNINGS, *STACK_BEGINNINGS, *beginnings()})
    return tuple(
        word
        for word in every
        if not any(word != other and word.startswith(other) for other in every)
        and not word.startswith("Failed to terminate")
    )


@cache
def _begins() -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, words())))


def begins(message: str) -> bool:
    """Whether a message may matter, by how it begins; space before it is passed over."""
    return _begins().match(message.lstrip(" \t")) is not None


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    from tdxreclaim.tables.findings import CATALOGUE

    # Rows of a later turn take whatever is left, so that they know no line's end.
    return tuple(re.compile(kind.pattern) for kind in CATALOGUE if kind.pattern and not kind.turn)


def known_until(message: str) -> int:
    """Return how much of a message the catalogue of findings knows; 0 if no row is about it."""
    return max((match.end() for each in _patterns() if (match := each.match(message))), default=0)


_BURIED = re.compile(
    r"virt/tdx: |SEAMCALL|HKID \d+ is leaked|\[Hardware Error\]: |BUG: soft lockup|INFO: task \S+:\d"
)


def is_buried(message: str) -> bool:
    """Whether words that matter stand in a message elsewhere than at its beginning."""
    return _BURIED.search(message) is not None and not begins(message)


def begins_fault(message: str) -> bool:
    """Whether a message begins with words about TDX or a fault."""
    return _BURIED.match(message.lstrip(" \t")) is not None
