"""The TDs of a host: from its counters and /proc, or from a list of its processes."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from tdxreclaim.facts.kvm.counters import Vm, read_command
from tdxreclaim.units import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.facts.kvm.counters import Counters

PROCESSES = (
    "sos_commands/process/ps_auxwwwm",
    "sos_commands/process/ps_auxwww",
    "sos_commands/process/ps_alxwww",
    "ps",
)
"""Where a sosreport lists processes; which of them it has depends on its version."""

_LONGEST_LINE = 1 << 16


def tds_of_counters(counters: Counters) -> Iterator[Vm]:
    """Return the TDs that have a folder of counters; where nothing states it, with the pages seen.

    Raises:
        HostReadError: the counters cannot be read.
    """
    look = counters.look({})
    if look is None:
        return
    for name, pages in look.pages.items():
        vm = counters.describe(name)
        if vm.td is not None:
            yield vm if vm.memory_bytes else replace(vm, memory_bytes=pages * PAGE_BYTES or None)


def tds_of_processes(text: str) -> Iterator[Vm]:
    """Return the TDs among the command lines that ps printed, each with the first number of its line.

    >>> line = "root 4711 9.0 /usr/bin/qemu -m 4G -smp 2 -object tdx-guest,id=t"
    >>> [(vm.name, vm.memory_bytes, vm.vcpus) for vm in tds_of_processes(line)]
    [('4711', 4294967296, 2)]
    """
    for line in text.splitlines():
        if "tdx-guest" not in line or len(line) > _LONGEST_LINE:
            continue
        memory, vcpus, td = read_command(_words(line))
        number = re.search(r"(?<!\S)\d{1,10}(?!\S)", line)
        name = number[0] if number else "a TD"
        if memory is not None and td is not None:
            yield Vm(name=name, memory_bytes=memory, vcpus=vcpus, td=td)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quote that nothing ends
        return line.split()
