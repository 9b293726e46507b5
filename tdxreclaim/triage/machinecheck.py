"""What the registers of a machine check say: MCi_STATUS and MCG_STATUS.

Source: linux v7.3.4 arch/x86/include/asm/mce.h (bits, MCACOD_DATA, MCACOD_INSTR,
MCACOD_SCRUB) and arch/x86/kernel/cpu/mce/severity.c; the other error codes are
inferred from their use there.
"""

from __future__ import annotations

from dataclasses import dataclass

_BITS = {
    "VAL": 63,
    "OVER": 62,
    "UC": 61,
    "EN": 60,
    "MISCV": 59,
    "ADDRV": 58,
    "PCC": 57,
    "S": 56,
    "AR": 55,
}


# In MCG_STATUS, which the kernel prints before the bank.
_SEAM_NR = 1 << 12


_DATA_LOAD = 0x134
_INSTRUCTION_FETCH = 0x150


_CONTROLLER, _CONTROLLER_VALUE = 0xFF80, 0x0080


# Bit 12 says only that corrected errors are filtered.
_CODE_MASK = 0xEFFF


# Mask, value, words: the first that fits.
_CODES = (
    (0xFFFF, _DATA_LOAD, "data load"),
    (0xFFFF, _INSTRUCTION_FETCH, "instruction fetch"),
    (0xFFF0, 0x00C0, "memory scrub"),
    (0xFFF0, 0x0090, "memory read"),
    (0xFFF0, 0x00A0, "memory write"),
    (_CONTROLLER, _CONTROLLER_VALUE, "memory controller"),
    (0xFF00, 0x0100, "cache"),
    (0xF800, 0x0800, "bus or interconnect"),
    (0xFC00, 0x0400, "internal"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A bank's record.  ``flags`` are the names of the bits that are set."""

    flags: tuple[str, ...]
    code: int
    where: str
    """CPU and bank."""
    seam: bool
    """The error was met in SEAM non-root mode: while a TD ran."""
    exception: bool
    """It was raised; else it was found by polling, perhaps from before the boot."""

    @property
    def uncorrected(self) -> bool:
        """Whether data was lost.  What is not marked as valid is taken for uncorrected."""
        return "UC" in self.flags or "VAL" not in self.flags

    @property
    def consumes(self) -> bool:
        """Whether somebody wanted the bad data, as after a read of poison."""
        return self.uncorrected and self.code in (_DATA_LOAD, _INSTRUCTION_FETCH)

    @property
    def from_memory_controller(self) -> bool:
        """Whether the memory controller met it, and no CPU's load: a failing DIMM does so."""
        return self.code & _CONTROLLER == _CONTROLLER_VALUE

    @property
    def words(self) -> str:
        """The class and the kind of error.

        >>> decode("5", "bd80000000100134", exception=True).words
        'uncorrected, data load, action required'
        >>> decode("0", "8c000040000800c2", exception=False).words
        'corrected, memory scrub'
        >>> decode("0", "a600000000020408", exception=False).words
        'uncorrected, internal, processor context corrupt'
        """
        parts = [self._class(), self._kind()]
        if self.uncorrected:
            parts.append(self._action())
        if self.seam:
            parts.append("while a TD ran (SEAM_NR)")
        return ", ".join(filter(None, parts))

    def _class(self) -> str:
        if "VAL" not in self.flags:
            return "not marked as valid"
        return "uncorrected" if self.uncorrected else "corrected"

    def _kind(self) -> str:
        return next(
            (words for mask, value, words in _CODES if self.code & mask == value),
            f"error code {self.code:#06x}",
        )

    def _action(self) -> str:
        if "PCC" in self.flags:
            return "processor context corrupt"
        if "AR" in self.flags:
            return "action required"
        return "action optional" if "S" in self.flags else ""


def decode(mcg_status: str, mci_status: str, *, exception: bool, where: str = "") -> Record:
    """Return what the two registers, in hexadecimal, say."""
    status = int(mci_status, 16)
    return Record(
        flags=tuple(name for name, bit in _BITS.items() if status >> bit & 1),
        code=status & _CODE_MASK,
        where=where,
        seam=bool(int(mcg_status, 16) & _SEAM_NR),
        exception=exception,
    )
