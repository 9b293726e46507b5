"""What a row of the catalogue has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdxreclaim.tables.sources import Certainty, Citation


HEX = r"0x[0-9a-fA-F]{1,16}"


# A failed SEAMCALL: the leaf is a number, hexadecimal or decimal, or a macro's name.
SEAMCALL = (
    rf"(?:kvm_intel: |virt/tdx: )?SEAMCALL ?[(\[]?(?P<leaf>{HEX}|\d{{1,5}}|TDH_[A-Z_.]{{1,40}})[)\]]? failed: "
    rf"(?P<status>{HEX})"
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


class Part(Enum):
    """The part of TDX's life that a SEAMCALL leaf or a kernel function belongs to."""

    BRING_UP = auto()
    TEARDOWN = auto()
    RECLAIM = auto()
    OTHER = auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A row.  ``sentence`` has the pattern's groups and other facts in braces.

    ``pattern`` is matched against a kernel message from its beginning; ``None``
    for what is found otherwise.  ``samples``: a message for each alternative of
    the pattern.  ``part``: the row applies only where the ``leaf`` or the
    ``function`` that the pattern found belongs to it.  ``brings_up``: a line of
    the module's bring-up, so that it was tried.  ``versions``: which kernels do
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
    part: Part | None = None
    brings_up: bool = False
