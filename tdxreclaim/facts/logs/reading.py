"""What a kernel log says of its host, as values; what reads it is imported only where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.record import Record

if TYPE_CHECKING:
    from tdxreclaim.facts.cpu import CpuGroup


class LogLine(NamedTuple):
    """A message and the number of its line, from 1."""

    number: int
    text: str


class LogReading(Record):
    """What the last boot in the log says; ``None`` where it does not.

    ``enabled``: TDX is on in the BIOS.  ``refused``: the kernel then refused
    to activate it.  ``unsupported``: it has TDX off, in so many words.
    ``ready`` and ``failed``: the TDX module's bring-up; ``module`` is its
    version.  ``kexec`` and ``check`` (a machine check) are printed only by a
    kernel that has set tdx_pw_mce; ``flagged`` is the first of them in an
    earlier boot.  ``told`` is a processor that something
    other than its boot line names (a machine check's record).  ``earlier`` are
    the CPUs that earlier boots name, ``cpus`` every CPU0 line of all boots.
    ``whole``: the boot's first line and its one CPU0 line are there, and
    nothing is left out between them.  ``architecture``: a line that only
    another architecture than x86 prints.  ``msr``: a ticket's count of private
    KeyIDs, read in the CPU, which takes TDX on in the BIOS.  ``unended``: of
    its lines that matter there are too many to read on.
    """

    boots: int = 0
    release: LogLine | None = None
    cpu: LogLine | None = None
    group: CpuGroup | None = None
    hypervisor: LogLine | None = None
    guest: LogLine | None = None
    enabled: LogLine | None = None
    refused: LogLine | None = None
    unsupported: LogLine | None = None
    ready: LogLine | None = None
    failed: LogLine | None = None
    module: LogLine | None = None
    kexec: LogLine | None = None
    check: LogLine | None = None
    architecture: LogLine | None = None
    msr: LogLine | None = None
    options: LogLine | None = None
    flagged: LogLine | None = None
    told: tuple[LogLine, CpuGroup] | None = None
    earlier: tuple[tuple[LogLine, CpuGroup], ...] = ()
    cpus: tuple[tuple[LogLine, CpuGroup], ...] = ()
    whole: bool = False
    unended: bool = False

    @property
    def groups(self) -> frozenset[CpuGroup]:
        """Every CPU that it names."""
        told = (self.told,) if self.told else ()
        named = {group for _, group in (*self.cpus, *self.earlier, *told)}
        return frozenset(named | {self.group} if self.group else named)

    @property
    def has_x86(self) -> bool:
        """Whether some line is one that only a kernel for x86 prints."""
        told = (self.group, self.enabled, self.refused, self.ready, self.failed, self.kexec)
        return any((*told, self.check, self.told, self.guest, self.cpus))

    @property
    def architecture_name(self) -> str:
        """What the line under ``architecture`` is printed on."""
        said = self.architecture.text if self.architecture else ""
        return {"SBI": "riscv", "Booting": "arm"}.get(said.partition(" ")[0], "not x86")
