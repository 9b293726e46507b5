"""The CPUs that TDX runs on, and those that are mistaken for them."""

from __future__ import annotations

from typing import NamedTuple

from tdxreclaim.record import Record
from tdxreclaim.tables.sources import Certainty, Citation

INTEL = "GenuineIntel"


# The word by which people, and brand strings, name a vendor.
BRANDS = {"intel": INTEL, "amd": "AuthenticAMD", "hygon": "HygonGenuine"}


class Vfm(NamedTuple):
    """Vendor, display family, display model: the key of every CPU table."""

    vendor: str
    family: int
    model: int

    def __str__(self) -> str:
        """Return ``GenuineIntel 6/0x8f``."""
        return f"{self.vendor} {self.family}/{self.model:#04x}"


class CpuModel(Record):
    """A CPU that a user may name, and whether TDX is known on it."""

    vfm: Vfm
    codename: str
    macro: str
    short: tuple[str, ...]
    market: str = ""
    tdx: Certainty | None
    """VERIFIED where a signed TDX module or its release notes name the CPU, UNVERIFIED where
    TDX is expected and no source that was read says so, None where it is mistaken for one."""
    note: str = ""
    citation: Citation


_MODULES = "Intel TDX module binaries, signed CPUID tables (February 2026)"


_FAMILY_H = Citation("linux v7.1", "arch/x86/include/asm/intel-family.h")


CPUS = (
    CpuModel(
        vfm=Vfm(INTEL, 6, 0x8F),
        codename="Sapphire Rapids",
        macro="INTEL_SAPPHIRERAPIDS_X",
        short=("spr",),
        market="4th Gen Xeon",
        tdx=Certainty.VERIFIED,
        note="only select SKUs have TDX; parts without it may share this number (not verified)",
        citation=Citation(_MODULES, "0x806F8 from module 1.5.01"),
    ),
    CpuModel(
        vfm=Vfm(INTEL, 6, 0xCF),
        codename="Emerald Rapids",
        macro="INTEL_EMERALDRAPIDS_X",
        short=("emr",),
        market="5th Gen Xeon",
        tdx=Certainty.VERIFIED,
        citation=Citation(_MODULES, "0xC06F0 from module 1.5.01"),
    ),
    CpuModel(
        vfm=Vfm(INTEL, 6, 0xAF),
        codename="Sierra Forest",
        macro="INTEL_ATOM_CRESTMONT_X",
        short=("srf",),
        market="Xeon 6 E-core",
        tdx=Certainty.VERIFIED,
        citation=Citation(_MODULES, "0xA06F0 from module 1.5.05"),
    ),
    CpuModel(
        vfm=Vfm(INTEL, 6, 0xAD),
        codename="Granite Rapids",
        macro="INTEL_GRANITERAPIDS_X",
        short=("gnr",),
        market="Xeon 6 P-core",
        tdx=Certainty.VERIFIED,
        citation=Citation(_MODULES, "0xA06D0 from module 2.0.02"),
    ),
    CpuModel(
        vfm=Vfm(INTEL, 6, 0xAE),
        codename="Granite Rapids-D",
        macro="INTEL_GRANITERAPIDS_D",
        short=("gnrd", "gnr-d"),
        market="Xeon 6 SoC",
        tdx=Certainty.VERIFIED,
        citation=Citation(_MODULES, "0xA06E0 from module 2.0.04"),
    ),
    CpuModel(
        vfm=Vfm(INTEL, 6, 0xDD),
        codename="Clearwater Forest",
        macro="INTEL_ATOM_DARKMONT_X",
        short=("cwf",),
        market="Xeon 6+ E-core",
        tdx=Certainty.VERIFIED,
        citation=Citation(
            "github.com/intel/confidential-computing.tdx.tdx-module",
            "release notes of module 2.0.18 (12 August 2026)",
        ),
    ),
    CpuModel(
        vfm=Vfm(INTEL, 19, 0x01),
        codename="Diamond Rapids",
        macro="INTEL_DIAMONDRAPIDS_X",
        short=("dmr",),
        tdx=Certainty.UNVERIFIED,
        note="no TDX module up to 2.0.18 (August 2026) names it",
        citation=_FAMILY_H,
    ),
    CpuModel(
        vfm=Vfm(INTEL, 6, 0x6A),
        codename="Ice Lake-SP",
        macro="INTEL_ICELAKE_X",
        short=("icx", "icelake"),
        market="3rd Gen Xeon",
        tdx=None,
        note="no signed TDX module names it",
        citation=_FAMILY_H,
    ),
    CpuModel(
        vfm=Vfm(INTEL, 6, 0x6C),
        codename="Ice Lake-D",
        macro="INTEL_ICELAKE_D",
        short=("icx-d", "icxd"),
        market="Xeon D",
        tdx=None,
        note="no signed TDX module names it",
        citation=_FAMILY_H,
    ),
    CpuModel(
        vfm=Vfm(INTEL, 6, 0xB6),
        codename="Grand Ridge",
        macro="INTEL_ATOM_CRESTMONT",
        short=("grr",),
        tdx=None,
        note="no signed TDX module names it",
        citation=_FAMILY_H,
    ),
)


# The CPUID vendors of x86 other than Intel.  A vendor that is in neither list
# is not "another vendor": it may be GenuineIntel gone wrong.
# Source: linux arch/x86/kernel/cpu/*.c, struct cpu_dev; the rest are emulators
# and makers of the past.
OTHER_VENDORS = frozenset(
    (
        "AuthenticAMD",
        "HygonGenuine",
        "CentaurHauls",
        "  Shanghai  ",
        "Shanghai",  # as /proc/cpuinfo shows it once the line is stripped
        "CyrixInstead",
        "Geode by NSC",
        "TransmetaCPU",
        "GenuineTMx86",
        "UMC UMC UMC",
        "Vortex86 SoC",
        "NexGenDriven",
        "RiseRiseRise",
        "SiS SiS SiS",
        "Genuine  RDC",
        "E2K MACHINE",
        "VirtualApple",
    )
)


# As people write a vendor, in lower case, and the CPUID string that it is.
VENDOR_NAMES = {vendor.lower(): vendor for vendor in (INTEL, *OTHER_VENDORS)} | BRANDS


# What the number in a brand name tells of the generation (inferred: Intel numbers so);
# never enough for a host that may skip.
BRAND_SERIES = (
    (r"(?:platinum|gold|silver|bronze) [3-8]4\d\d|\b84\d\d", Vfm(INTEL, 6, 0x8F)),
    (r"(?:platinum|gold|silver|bronze) [3-8]5\d\d|\b85\d\d", Vfm(INTEL, 6, 0xCF)),
    (r"\b6[3579]\d\dP", Vfm(INTEL, 6, 0xAD)),
    (r"\b6[3579]\d\dE", Vfm(INTEL, 6, 0xAF)),
)


def find_cpu(vfm: Vfm) -> CpuModel | None:
    """Return the row of this CPU."""
    return next((cpu for cpu in CPUS if cpu.vfm == vfm), None)


def find_cpu_by_name(name: str) -> CpuModel | None:
    """Return the CPU of a codename or kernel macro, however it is spelt.

    Case, spaces, hyphens and underscores do not matter; ``INTEL_`` may be
    left out.
    """
    wanted = _plain(name)
    return next((cpu for cpu in CPUS if wanted in _names(cpu)), None)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _names(cpu: CpuModel) -> frozenset[str]:
    macro = cpu.macro.removeprefix("INTEL_")
    spellings = (cpu.codename, cpu.macro, macro, *cpu.short)
    names = {_plain(spelling) for spelling in spellings}
    # "emeraldrapids" is INTEL_EMERALDRAPIDS_X: only the server part has TDX.
    return frozenset(names)
