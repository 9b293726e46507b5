"""What a row of the catalogue has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdxreclaim.tables.sources import Certainty, Citation


HEX = r"0x[0-9a-fA-F]{1,16}"


# A failed SEAMCALL: the leaf is a number, hexadecimal or decimal, or a macro's name.
# Trees before 6.8: "SEAMCALL failed: CPU 94: leaf 33, error 0x...".
SEAMCALL = (
    r"(?:kvm_intel: |(?:virt/)?tdx: |seamldr: )?SEAMCALL ?(?:failed: CPU \d{1,5}: leaf |[(\[])?"
    rf"(?P<leaf>{HEX}|\d{{1,5}}|TDH_[A-Z_.]{{1,40}})(?:, error |[)\]]? failed: )(?P<status>{HEX})"
)


# "WARNING: CPU: 1 PID: 2 at FILE:LINE FUNCTION+0x.."; newer "WARNING: FILE:LINE at FUNCTION+".
WARNING = (
    r"WARNING: (?:CPU: \d+ PID: \d+ at )?arch/x86/(?:kvm/vmx|virt/vmx/tdx)/tdx\.c:(?P<line>\d+)"
    r"(?: at)? (?P<function>\w+)(?:\.[\w.]+)?\+0x"
)


class Severity(StrEnum):
    """How bad a finding is, worst first; public: every format prints it."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"
    BENIGN = "benign"

    @property
    def counts(self) -> bool:
        """Whether it makes the exit status 20: something to act on."""
        return self in (Severity.CRITICAL, Severity.ERROR, Severity.WARNING)


class Subject(Enum):
    """What a line is about, by the leaf, the function or the status that it names."""

    BRING_UP = auto()
    REMOVAL = auto()
    """BLOCK, REMOVE or WBINVD of a guest page."""
    FATAL = auto()
    """A leaf of a teardown that the module refuses, as the TD is FATAL."""
    RECLAIM = auto()
    TEARDOWN = auto()
    """Another step of a teardown."""
    OTHER = auto()
    CORRECTED = auto()
    """A machine check that the hardware corrected."""
    UNCORRECTED = auto()


class Cause(Enum):
    """Findings of one cause are one finding of a boot: the one of the lowest rank, the others under it."""

    BRING_UP = auto()
    REMOVAL = auto()
    RECLAIM = auto()
    HKID = auto()
    MACHINE_CHECK = auto()
    STUCK = auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A row.  ``sentence`` has the pattern's groups and other facts in braces.

    ``pattern`` is matched against a kernel message from its beginning; ``None``
    for what is found otherwise.  ``samples``: a message for each alternative of
    the pattern.  ``subject``: the row applies only where the line is about it.
    ``turn``: rows of a later turn are tried where none of an earlier one matches.  ``brings_up``: a line of the module's
    bring-up, so that it was tried.  ``cause``: findings of one cause, in one
    boot, are shown as one, and ``rank`` says which of them leads: 0 is the
    root.  ``follows``: ids of what may have led to it, where that came before.
    ``option``: what the advice asks for on the kernel's command line, and
    ``then`` the advice where that boot has it.  ``versions``: which kernels do
    or print it.
    """

    id: str
    severity: Severity
    sentence: str
    meaning: str
    advice: str
    versions: str
    citations: tuple[Citation, ...]
    certainty: Certainty
    pattern: str | None = None
    samples: tuple[str, ...] = ()
    subject: Subject | None = None
    turn: int = 0
    brings_up: bool = False
    cause: Cause | None = None
    rank: int = 0
    follows: tuple[str, ...] = ()
    option: str = ""
    then: str = ""
