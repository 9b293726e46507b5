"""What each upstream kernel release does with reclaimed pages, and with kexec.

To add a release: add or widen a row, with the commit that made the difference,
and a line to tests/policy/test_decide.py.  The rows are disjoint and without gaps.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from tdxreclaim.tables.sources import Certainty, Citation


class Clearing(StrEnum):
    """What a kernel does with a private page that it took back."""

    ALWAYS = "clears-always"
    ON_ERRATUM = "clears-on-erratum"
    NO_TDX_HOST = "no-tdx-host"
    UNKNOWN = "unknown"


class Kexec(StrEnum):
    """What the erratum does to kexec, and so to kdump, under a kernel."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    NOT_BUILT = "not-built"
    AFTER_DISABLE = "allowed-after-disable"
    UNKNOWN = "unknown"


class Version(NamedTuple):
    """An upstream release: 6.18 is ``(6, 18)``."""

    major: int
    minor: int

    def __str__(self) -> str:
        """Return ``6.18``."""
        return f"{self.major}.{self.minor}"


class KernelRow(NamedTuple):
    """A span of upstream releases that behave alike.

    ``first`` and ``last`` belong to it.  ``kexec`` is what an affected CPU
    with TDX on in the BIOS gets; what is not affected may use kexec where the
    row is not ``NOT_BUILT``.  ``symbols`` are functions that this generation
    has in /proc/kallsyms.
    """

    first: Version
    last: Version
    clearing: Clearing
    certainty: Certainty
    summary: str
    kexec: Kexec
    kexec_certainty: Certainty
    kexec_summary: str
    symbols: tuple[str, ...]
    citations: tuple[Citation, ...]


_SKIP = Citation(
    "linux v6.18",
    'commit 01fb93a363e0 ("x86/tdx: Skip clearing reclaimed pages unless '
    'X86_BUG_TDX_PW_MCE is present"), merge 50ac57c3b156',
)


_KEXEC_REFUSED = Citation(
    "linux v6.18",
    'commit b18651f70ce0 ("Disable kexec/kdump on platforms with TDX partial write erratum")',
)


_KEXEC_ALLOWED = Citation(
    "linux", 'commit 5b25f249be32 ("x86/tdx: Disable the TDX module during kexec and kdump")'
)


_KCONFIG = Citation("linux v6.16", "arch/x86/Kconfig: INTEL_TDX_HOST depends on !KEXEC_CORE")


_DROP_PAGE = Citation(
    "linux", 'commit 4a72a6dc447d ("x86/tdx: Drop exported function tdx_quirk_reset_page()")'
)


_FIRST_KVM = Citation("linux v6.16", "arch/x86/kvm/vmx/tdx.c: the first release that has it")


_NOT_BUILT = "this kernel is built with TDX host support or with kexec, never with both"


_REFUSED = (
    "loading a kexec or kdump image is refused where TDX is on in the BIOS, even if no TD ever ran"
)


KERNELS = (
    KernelRow(
        first=Version(0, 0),
        last=Version(6, 7),
        clearing=Clearing.NO_TDX_HOST,
        certainty=Certainty.VERIFIED,
        summary="KVM cannot run TDs; the first release that can is 6.16",
        kexec=Kexec.ALLOWED,
        # In which release the core of TDX host support came is not verified.
        kexec_certainty=Certainty.UNVERIFIED,
        kexec_summary="a kernel before TDX host support, where the erratum plays no part",
        symbols=(),
        citations=(_FIRST_KVM,),
    ),
    KernelRow(
        first=Version(6, 8),
        last=Version(6, 15),
        clearing=Clearing.NO_TDX_HOST,
        certainty=Certainty.VERIFIED,
        summary="KVM cannot run TDs; the first release that can is 6.16",
        kexec=Kexec.NOT_BUILT,
        kexec_certainty=Certainty.INFERRED,
        kexec_summary=_NOT_BUILT,
        symbols=(),
        citations=(_FIRST_KVM,),
    ),
    KernelRow(
        first=Version(6, 16),
        last=Version(6, 17),
        clearing=Clearing.ALWAYS,
        certainty=Certainty.VERIFIED,
        summary="every reclaimed page is cleared, on every CPU",
        kexec=Kexec.NOT_BUILT,
        kexec_certainty=Certainty.VERIFIED,
        kexec_summary=_NOT_BUILT,
        symbols=("tdx_clear_page", "reset_tdx_pages"),
        citations=(
            Citation("linux v6.16.1, v6.17.0", "arch/x86/kvm/vmx/tdx.c, tdx_clear_page()"),
            _KCONFIG,
        ),
    ),
    KernelRow(
        first=Version(6, 18),
        last=Version(7, 1),
        clearing=Clearing.ON_ERRATUM,
        certainty=Certainty.VERIFIED,
        summary="a reclaimed page is cleared only on a CPU with tdx_pw_mce",
        kexec=Kexec.REFUSED,
        kexec_certainty=Certainty.VERIFIED,
        kexec_summary=_REFUSED,
        symbols=("tdx_quirk_reset_page", "tdx_quirk_reset_paddr"),
        citations=(_SKIP, _KEXEC_REFUSED),
    ),
    KernelRow(
        first=Version(7, 2),
        last=Version(7, 2),
        clearing=Clearing.ON_ERRATUM,
        certainty=Certainty.INFERRED,
        summary="a reclaimed page is cleared only on a CPU with tdx_pw_mce",
        kexec=Kexec.AFTER_DISABLE,
        kexec_certainty=Certainty.INFERRED,
        kexec_summary=(
            "kexec and kdump are allowed and disable the TDX module first "
            "(TDH.SYS.DISABLE), which needs a module that has it; with an older "
            "module poison may be left behind"
        ),
        symbols=("tdx_quirk_reset_paddr", "tdx_sys_disable"),
        citations=(_SKIP, _DROP_PAGE, _KEXEC_ALLOWED),
    ),
)


def upstream_version(release: str) -> Version | None:
    """Return the upstream release of a release string, ``None`` if it is not plainly one.

    >>> upstream_version("6.18.2"), upstream_version("6.17.0-5-generic")
    (Version(major=6, minor=18), None)
    """
    # kernel.org releases, candidates among them.  Whatever else stands in the
    # string ("-generic", "+", "-00123-gabcdef") may be anything on top.
    numbers, dash, candidate = release.partition("-")
    parts = numbers.split(".")
    plain = all(part.isascii() and part.isdigit() and len(part) < _DIGITS for part in parts)
    if not plain or len(parts) not in (2, 3):
        return None
    if dash and not (candidate.startswith("rc") and candidate[2:].isdigit()):
        return None
    return Version(int(parts[0]), int(parts[1]))


_DIGITS = 5


def find_kernel(version: Version) -> KernelRow | None:
    """Return the row of an upstream release, ``None`` if it is newer than the table."""
    return next((row for row in KERNELS if row.first <= version <= row.last), None)
