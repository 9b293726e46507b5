"""What one look at KVM's counters tells, whoever looked: this host or a recording.

``pages_4k`` and ``pages_2m`` below /sys/kernel/debug/kvm count mappings, of one VM
in its folder and of all VMs beside the folders.  A folder's name is the thread
that made the VM (its id in the initial namespace) and a file descriptor of that
moment: neither need exist any more.

Source: linux 7.3.4 and 6.12.117 virt/kvm/kvm_main.c, arch/x86/kvm/mmu/tdp_mmu.c
(``kvm_update_page_stats()``), and recordings of both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = "sys/kernel/debug/kvm"

NAME = re.compile(r"\d{1,10}-\d{1,10}", re.ASCII)
"""A VM's folder."""


class Life(StrEnum):
    """What /proc says of the process that made a VM."""

    ALIVE = "alive"
    ZOMBIE = "zombie"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Vm:
    """What was known of a VM while /proc still told it."""

    name: str
    pid: int | None = None
    """The process (thread group) of the thread that made it; None: gone before it was seen."""
    command: str | None = None
    memory_bytes: int | None = None
    """As its command line has it."""
    vcpus: int | None = None
    td: str | None = None
    """How it is known to be a TD; None: it is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """All counters at one moment."""

    at: float
    """Seconds of a clock that no one sets."""
    pages: Mapping[str, int] = field(default_factory=dict)
    """By VM, in 4 KiB pages; a VM whose folder is gone is not in it."""
    total: int | None = None
    """Of all VMs, those without a folder included."""
    lives: Mapping[str, Life] = field(default_factory=dict)
    broken: str | None = None
    """Why no rate may be made of the time since the last look: the machine slept."""


class Counters(Protocol):
    """Where looks come from."""

    def look(self, known: Mapping[str, Vm]) -> Look | None:
        """Return the counters as they are now, ``None`` at the end of a recording.

        Raises:
            HostReadError: they cannot be read; ``why`` says which of the reasons it is.
        """
        ...

    def describe(self, name: str) -> Vm:
        """Return what /proc tells of a VM."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait for so long, or until a VM came or went."""
        ...

    def holders(self) -> tuple[str, ...]:
        """Return which processes hold descriptors of KVM, ``qemu 123: kvm-vm, kvm-vcpu``."""
        ...


def pages(four_kib: int, two_mib: int) -> int:
    """Return 4 KiB pages: a 2 MiB mapping counts once.

    >>> pages(3, 2)
    1027
    """
    return four_kib + 512 * two_mib


_SIZE = re.compile(r"(\d{1,12})([KMGT]?)", re.ASCII | re.IGNORECASE)

_SHIFTS = {"": 20, "K": 10, "M": 20, "G": 30, "T": 40}


def read_command(arguments: list[str]) -> tuple[int | None, int | None, str | None]:
    """Return memory in bytes, vCPUs, and how it is known to be a TD, of a QEMU's command line.

    >>> read_command(["qemu", "-m", "size=400G,slots=2", "-smp", "64,sockets=1",
    ...               "-object", '{"qom-type":"tdx-guest","id":"tdx0"}'])
    (429496729600, 64, 'tdx-guest on its command line')
    """
    memory = _number(_after(arguments, "-m"), "size", _SIZE)
    vcpus = _number(_after(arguments, "-smp"), "cpus", re.compile(r"(\d{1,5})()", re.ASCII))
    td = any(re.search(r"\btdx-guest\b", each) for each in arguments)
    return (
        None if memory is None else int(memory[1]) << _SHIFTS[memory[2].upper()],
        None if vcpus is None else int(vcpus[1]),
        "tdx-guest on its command line" if td else None,
    )


def _after(arguments: list[str], option: str) -> str:
    """Return the value of an option of QEMU, which takes one or two dashes."""
    for name, value in pairwise(arguments):
        if name in (option, f"-{option}"):
            return value
    return ""


def _number(value: str, key: str, form: re.Pattern[str]) -> re.Match[str] | None:
    """Return the match in ``64``, ``64,x=1`` or ``x=1,cpus=64``."""
    for number, part in enumerate(value.split(",")):
        name, equals, given = part.partition("=")
        if not equals and number == 0:
            return form.fullmatch(part)
        if name == key:
            return form.fullmatch(given)
    return None
