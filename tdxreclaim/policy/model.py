"""The words of an answer.  The values of the enums are public: every format prints them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.errors import ExitStatus
from tdxreclaim.facts.evidence import WHOLE
from tdxreclaim.record import Record
from tdxreclaim.tables.kernels import Kexec

if TYPE_CHECKING:
    from tdxreclaim.facts.cpu import CpuGroup
    from tdxreclaim.facts.evidence import Coverage, Evidence, Origin
    from tdxreclaim.tables.errata import Erratum
    from tdxreclaim.tables.kernels import Clearing, KernelRow
    from tdxreclaim.tables.sources import Certainty, Citation


class Verdict(StrEnum):
    """Must this host clear reclaimed TDX pages?"""

    CLEAR_REQUIRED = "clear-required"
    CLEAR_NOT_REQUIRED = "clear-not-required"
    UNDETERMINED = "undetermined"
    NOT_APPLICABLE = "not-applicable"

    @property
    def exit_status(self) -> ExitStatus:
        """The status that `check` ends with."""
        return _EXIT_STATUS[self]

    @property
    def must_clear(self) -> bool | None:
        """Whether a careful host clears; ``None`` where the question does not arise."""
        return _MUST_CLEAR[self]


_EXIT_STATUS = {
    Verdict.CLEAR_REQUIRED: ExitStatus.REQUIRED,
    Verdict.CLEAR_NOT_REQUIRED: ExitStatus.NOT_REQUIRED,
    Verdict.UNDETERMINED: ExitStatus.UNDETERMINED,
    Verdict.NOT_APPLICABLE: ExitStatus.NOT_APPLICABLE,
}


_MUST_CLEAR = {
    Verdict.CLEAR_REQUIRED: True,
    Verdict.CLEAR_NOT_REQUIRED: False,
    Verdict.UNDETERMINED: True,
    Verdict.NOT_APPLICABLE: None,
}


class Silicon(StrEnum):
    """What the tables say of the processors."""

    AFFECTED = "affected"
    NOT_AFFECTED = "not-affected"
    NO_TDX = "no-tdx"
    UNKNOWN = "unknown"


class HostState(StrEnum):
    """How far TDX is brought up on the host."""

    GUEST = "guest"
    OFF = "off"
    BIOS_ENABLED = "bios-enabled"
    INITIALIZED = "initialized"
    UNKNOWN = "unknown"


class Posture(StrEnum):
    """What follows for this host from its verdict, TDX state and kernel."""

    CLEARS_AS_REQUIRED = "clears-as-required"
    CLEARS_NEEDLESSLY = "clears-needlessly"
    SKIPS_SAFELY = "skips-safely"
    AT_RISK = "at-risk"
    IDLE = "idle"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not-applicable"


class SiliconRule(StrEnum):
    """What told whether a processor is affected; that of an erratum is the erratum's id."""

    NOT_X86 = "not-x86"
    CPU_UNREAD = "cpu-unread"
    NOT_INTEL = "not-intel"
    CPU_INCOMPLETE = "cpu-incomplete"
    VENDOR_UNKNOWN = "vendor-unknown"
    NO_ERRATUM = "no-erratum"
    KERNEL_CLOSED_LIST = "kernel-closed-list"
    NO_MOVDIR64B = "no-movdir64b"
    CPU_UNLISTED = "cpu-unlisted"


class VerdictRule(StrEnum):
    """What decided, strictest first; that of an erratum is the erratum's id."""

    NOT_X86 = "not-x86"
    KERNEL_FLAG = "kernel-flag"
    GUEST_TD = "guest-td"
    GUEST_VM = "guest-vm"
    CPU_UNKNOWN = "cpu-unknown"
    VENDOR_UNKNOWN = "vendor-unknown"
    VENDORS_DIFFER = "vendors-differ"
    NOT_INTEL = "not-intel"
    MODULE_CONTRADICTS = "module-contradicts"
    NO_MOVDIR64B = "no-movdir64b"
    NO_TDX_SIGN = "no-tdx-sign"
    CPU_UNLISTED = "cpu-unlisted"
    EVIDENCE_INCOMPLETE = "evidence-incomplete"
    KERNEL_CLOSED_LIST = "kernel-closed-list"
    NO_ERRATUM = "no-erratum"


class KernelRule(StrEnum):
    """What told what the kernel does, best evidence first."""

    IMAGE_CONTRADICTS = "image-contradicts"
    IMAGE_NO_TDX_HOST = "image-no-tdx-host"
    IMAGE_ALWAYS = "image-clears-always"
    IMAGE_ON_ERRATUM = "image-clears-on-erratum"
    IMAGE_NOT_UNDERSTOOD = "image-not-understood"
    SYMBOLS_CONTRADICT = "symbols-contradict"
    SYMBOLS_ALWAYS = "symbols-clear-always"
    SYMBOLS_ON_ERRATUM = "symbols-clear-on-erratum"
    SYMBOLS_NO_TDX_HOST = "symbols-no-tdx-host"
    CONFIG_NO_TDX_HOST = "config-no-tdx-host"
    RELEASE_LISTED = "release-listed"
    RELEASE_BELIED = "release-belied"
    RELEASE_NEWER = "release-newer-than-table"
    DISTRIBUTION_LISTED = "distribution-listed"
    RELEASE_NOT_UPSTREAM = "release-not-upstream"
    UNKNOWN = "kernel-unknown"

    @property
    def by_content(self) -> bool:
        """Whether what the kernel is made of told it, and not what it is called."""
        return self not in (
            KernelRule.RELEASE_LISTED,
            KernelRule.RELEASE_BELIED,
            KernelRule.RELEASE_NEWER,
            KernelRule.DISTRIBUTION_LISTED,
            KernelRule.RELEASE_NOT_UPSTREAM,
            KernelRule.UNKNOWN,
        )

    @property
    def by_code(self) -> bool:
        """Whether the kernel's code told its generation, and not its name."""
        return self in (
            KernelRule.IMAGE_ALWAYS,
            KernelRule.IMAGE_ON_ERRATUM,
            KernelRule.SYMBOLS_ALWAYS,
            KernelRule.SYMBOLS_ON_ERRATUM,
        )


class Step(NamedTuple):
    """A rule that was weighed: whether it fired, and the reason either way."""

    rule: str
    fired: bool
    because: str
    evidence: tuple[Evidence, ...] = ()
    citations: tuple[Citation, ...] = ()


class Processor(Record):
    """One group of the census, judged."""

    group: CpuGroup
    codename: str | None = None
    silicon: Silicon
    rule: str
    because: str
    errata: tuple[Erratum, ...] = ()
    """Those that list it."""
    note: str = ""
    """The table's caveat about that CPU."""


class SiliconFinding(Record):
    """The processors against the erratum table and the table of TDX CPUs."""

    status: Silicon
    rule: str
    because: str
    processors: tuple[Processor, ...]
    errata: tuple[Erratum, ...]
    """Those that list a processor, and those whose flag the kernel has set."""
    origin: Origin


class HostFinding(Record):
    """The state of TDX on the host."""

    state: HostState
    rule: str
    because: str
    erratum_flag: bool | None
    """Whether the kernel has set the flags of this host's errata; None: it is not known of all."""
    module_version: str | None
    origin: Origin

    @property
    def active(self) -> bool:
        """Whether the kernel has found TDX on in the BIOS and taken it."""
        return self.state in (HostState.BIOS_ENABLED, HostState.INITIALIZED)


class KernelFinding(Record):
    """What the kernel does with reclaimed pages, and with kexec."""

    clearing: Clearing
    rule: KernelRule
    because: str
    release: str | None
    rows: tuple[KernelRow, ...] = ()
    """Those whose code it may have, oldest first; empty: not known."""
    newer: bool = False
    """Whether its release is newer than the table."""
    ignores: tuple[Erratum, ...] = ()
    """Errata of this host that it does not clear for."""
    certainty: Certainty | None
    kexec: Kexec = Kexec.UNKNOWN
    kexec_because: str = ""
    origin: Origin

    @property
    def row(self) -> KernelRow | None:
        """The row to judge it by: of several, the last, which does worst to a page that fails."""
        return self.rows[-1] if self.rows else None


class Decision(Record):
    """The answer and all that led to it, made in one pass.

    ``rule`` and ``posture`` are stable and may be matched on; sentences are
    for people and may be reworded any day.
    """

    verdict: Verdict
    rule: str
    because: str
    posture: Posture
    posture_because: str
    silicon: SiliconFinding
    host: HostFinding
    kernel: KernelFinding
    advice: tuple[str, ...]
    warnings: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    citations: tuple[Citation, ...]
    weighed: tuple[Step, ...]
    coverage: Coverage = WHOLE
    """Every rule in the order in which it was tried, the ones that did not fire included."""
    next_kernel: KernelFinding | None = None
    """The newest installed kernel, where it does not run and does other than the one that runs."""
