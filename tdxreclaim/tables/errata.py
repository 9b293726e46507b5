"""The errata that decide about clearing, and the CPUs that Intel's TDX modules name.

To add an erratum: add its row here, a host under tests/hosts/ that it matches,
and the nearest CPU that it must not match to tests/policy/test_decide.py.  To add a
CPU: add its row, with the module release or the kernel header that names it.
Rows never overlap, so their order means nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from tdxreclaim.tables.cpus import INTEL, Vfm
from tdxreclaim.tables.sources import Citation


class Erratum(NamedTuple):
    """An erratum, named as in /proc/cpuinfo ``bugs``, and every CPU that has it."""

    id: str
    summary: str
    consequence: str
    affected: tuple[Vfm, ...]
    citations: tuple[Citation, ...]


_LINUX_SWITCH = Citation(
    "linux v6.16-v7.1", "arch/x86/virt/vmx/tdx/tdx.c, check_tdx_erratum(): a closed switch"
)


ERRATA = (
    Erratum(
        id="tdx_pw_mce",
        summary="a partial write to TDX private memory poisons the cache line",
        consequence=(
            "the next read of that line raises a machine check; only overwriting whole "
            "64-byte lines with MOVDIR64B makes a reclaimed page safe to reuse"
        ),
        affected=(
            Vfm(INTEL, 6, 0x8F),  # Sapphire Rapids, INTEL_SAPPHIRERAPIDS_X
            Vfm(INTEL, 6, 0xCF),  # Emerald Rapids, INTEL_EMERALDRAPIDS_X
        ),
        citations=(
            _LINUX_SWITCH,
            Citation(
                "linux",
                'commit 1e536e106897 ("x86/cpu: Detect TDX partial write machine check erratum")',
            ),
        ),
    ),
)


NO_ERRATUM_CITATIONS = (_LINUX_SWITCH,)


def errata_of(vfm: Vfm) -> tuple[Erratum, ...]:
    """Return the errata that list this CPU."""
    return tuple(erratum for erratum in ERRATA if vfm in erratum.affected)
