"""The errata that decide about clearing.  Their order means nothing.

To add one: add its row, and a host that it matches and the nearest that it must
not match to tests/policy/test_decide.py.
"""

from __future__ import annotations

from tdxreclaim.record import Record
from tdxreclaim.tables.cpus import INTEL, Vfm
from tdxreclaim.tables.releases import Version
from tdxreclaim.tables.sources import Citation


class Erratum(Record):
    """An erratum that makes clearing necessary, every CPU that has it, and who honours it."""

    id: str
    summary: str
    consequence: str
    affected: tuple[Vfm, ...]
    flag: str | None
    """The word under ``bugs`` in /proc/cpuinfo; None: no kernel has one."""
    honoured_since: Version | None
    """The first upstream release that clears for the flag; None: none does."""
    honoured_by: tuple[str, ...] = ()
    """Functions in /proc/kallsyms that clear for the flag."""
    kexec_asks: bool = False
    """Whether `KernelRow.kexec` is about its flag; of another nothing is known there."""
    citations: tuple[Citation, ...]
    """The first lists the CPUs."""


_LINUX_SWITCH = Citation(
    "linux v6.16-v7.1", "arch/x86/virt/vmx/tdx/tdx.c, check_tdx_erratum(): a closed switch"
)


PW_MCE = "tdx_pw_mce"


ERRATA = (
    Erratum(
        id=PW_MCE,
        summary="a partial write to TDX private memory poisons the cache line",
        consequence=(
            "the next read of that line raises a machine check; only overwriting whole "
            "64-byte lines with MOVDIR64B makes a reclaimed page safe to reuse"
        ),
        affected=(
            Vfm(INTEL, 6, 0x8F),  # Sapphire Rapids, INTEL_SAPPHIRERAPIDS_X
            Vfm(INTEL, 6, 0xCF),  # Emerald Rapids, INTEL_EMERALDRAPIDS_X
        ),
        flag=PW_MCE,
        honoured_since=Version(6, 18),
        honoured_by=("tdx_quirk_reset_page", "tdx_quirk_reset_paddr"),
        kexec_asks=True,
        citations=(
            _LINUX_SWITCH,
            Citation(
                "linux",
                'commit 1e536e106897 ("x86/cpu: Detect TDX partial write machine check erratum")',
            ),
        ),
    ),
)


ANY = " or ".join(each.id for each in ERRATA)
"""What a CPU has that needs reclaimed pages cleared."""


NO_ERRATUM_CITATIONS = (_LINUX_SWITCH,)


HONOURING = tuple(dict.fromkeys(name for each in ERRATA for name in each.honoured_by))
"""The functions that clear for an erratum's flag."""


FLAGS = tuple(each.flag for each in ERRATA if each.flag)
"""The words under ``bugs`` that say that an erratum is there."""


def errata_of(vfm: Vfm, errata: tuple[Erratum, ...] = ERRATA) -> tuple[Erratum, ...]:
    """Return those of *errata* that list this CPU."""
    return tuple(erratum for erratum in errata if vfm in erratum.affected)


class OtherBug(Record):
    """A word under ``bugs`` in /proc/cpuinfo that has to do with TDX, and not with clearing."""

    word: str
    summary: str
    instead: str
    """Why it is none of `ERRATA`."""
    since: Version
    citation: Citation


OTHER_BUGS = (
    OtherBug(
        word="seamret_invd_vmcs",
        summary=(
            "SEAMRET invalidates the current VMCS; the kernel then hides P-SEAMLDR and the update "
            "of the TDX module at run time"
        ),
        instead="it stands on any CPU without bit 60 of IA32_VMX_BASIC, and asks for no clearing",
        since=Version(7, 2),
        citation=Citation(
            "linux v7.2.13, v7.3.4", "arch/x86/virt/vmx/tdx/tdx.c, check_tdx_erratum()"
        ),
    ),
)
