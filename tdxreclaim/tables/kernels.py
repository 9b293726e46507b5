"""What each upstream kernel release does with reclaimed pages, and with kexec.

To add a release: add or widen a row, with the commit that made the difference,
and a line to tests/policy/test_decide.py.  The rows are disjoint and without gaps.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from tdxreclaim.record import Record
from tdxreclaim.tables.releases import Version, spell_span, upstream_version
from tdxreclaim.tables.sources import Certainty, Citation
from tdxreclaim.tables.teardown import (
    COMMON_FUNCTIONS,
    Action,
    Function,
    clears,
    removes,
    removes_alone,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


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


class FailedPage(StrEnum):
    """What becomes of a guest page whose BLOCK, REMOVE or WBINVD failed."""

    LEAKED = "leaked"
    """KVM keeps a reference: nobody gets the page before a reboot."""
    HANDED_BACK = "handed-back"
    """It goes back to the allocator, not cleared and still the TD's."""


class KernelRow(Record):
    """A span of upstream releases that behave alike, and all that is known of them."""

    first: Version
    last: Version
    """The last release of it; both belong to the row."""
    clearing: Clearing
    certainty: Certainty
    summary: str
    failed_page: FailedPage | None = None
    """None where KVM runs no TD."""
    failed_page_citation: Citation | None = None
    masks_mce_address: bool = False
    """Whether a machine check under a private KeyID finds its page: KeyID bits masked out."""
    failures_stay: bool = False
    """Whether a guest page whose removal fails stays in KVM's counters (`handle_changed_spte()`)."""
    kexec: Kexec
    """What an affected CPU with TDX on in the BIOS gets; others may use kexec unless NOT_BUILT."""
    kexec_certainty: Certainty
    kexec_summary: str
    symbols: tuple[str, ...] = ()
    """Functions in /proc/kallsyms that tell this generation from others."""
    exported: tuple[str, ...] = ()
    """Those of them that are global, a capital letter there, and static elsewhere."""
    functions: tuple[Function, ...] = ()
    """What its traces and stacks show of a teardown; empty where KVM runs no TD."""
    citations: tuple[Citation, ...]

    @property
    def runs_tds(self) -> bool:
        """Whether its KVM can run, and so tear down, TDs."""
        return self.failed_page is not None

    @property
    def span(self) -> str:
        """``6.18``, ``6.16 and 6.17``; ``up to 6.7`` for the first row."""
        return spell_span(self.first, self.last)


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


_READ = Citation(
    "linux v7.2.13, v7.3.4",
    "arch/x86/virt/vmx/tdx/tdx.c, tdx_quirk_reset_paddr(): the flag is asked first",
)


_NOT_BUILT = "this kernel is built with TDX host support or with kexec, never with both"


_REFUSED = (
    "loading a kexec or kdump image is refused where TDX is on in the BIOS, even if no TD ever ran"
)


_ON_ERRATUM = "a reclaimed page is cleared only on a CPU with tdx_pw_mce"


_PINNED = Citation(
    "linux v6.16.1, v6.18.2", "arch/x86/kvm/vmx/tdx.c: get_page() at mapping, tdx_unpin()"
)


_NO_PIN = Citation(
    "linux v6.19",
    'commit ce7b5695397b ("KVM: TDX: Drop superfluous page pinning in S-EPT management")',
)


_ZAP_AND_DROP = (
    removes("tdx_sept_remove_private_spte"),
    removes("tdx_sept_zap_private_spte", Action.BLOCK),
    removes("tdx_sept_drop_private_spte", Action.REMOVE, Action.WBINVD),
)


# The first, which is the one to name, calls the second.
_RESETS = (clears("tdx_quirk_reset_page"), clears("tdx_quirk_reset_paddr"))


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
        citations=(_FIRST_KVM,),
    ),
    KernelRow(
        first=Version(6, 16),
        last=Version(6, 17),
        clearing=Clearing.ALWAYS,
        certainty=Certainty.VERIFIED,
        summary="every reclaimed page is cleared, on every CPU",
        failed_page=FailedPage.LEAKED,
        failed_page_citation=_PINNED,
        kexec=Kexec.NOT_BUILT,
        kexec_certainty=Certainty.VERIFIED,
        kexec_summary=_NOT_BUILT,
        symbols=("tdx_clear_page",),
        functions=(*COMMON_FUNCTIONS, *_ZAP_AND_DROP, clears("tdx_clear_page")),
        citations=(
            Citation("linux v6.16.1, v6.17.0", "arch/x86/kvm/vmx/tdx.c, tdx_clear_page()"),
            _KCONFIG,
        ),
    ),
    KernelRow(
        first=Version(6, 18),
        last=Version(6, 18),
        clearing=Clearing.ON_ERRATUM,
        certainty=Certainty.VERIFIED,
        summary=_ON_ERRATUM,
        failed_page=FailedPage.LEAKED,
        failed_page_citation=_PINNED,
        kexec=Kexec.REFUSED,
        kexec_certainty=Certainty.VERIFIED,
        kexec_summary=_REFUSED,
        symbols=("tdx_quirk_reset_page", "tdx_quirk_reset_paddr"),
        functions=(*COMMON_FUNCTIONS, *_ZAP_AND_DROP, *_RESETS),
        citations=(_SKIP, _KEXEC_REFUSED),
    ),
    KernelRow(
        first=Version(6, 19),
        last=Version(7, 1),
        clearing=Clearing.ON_ERRATUM,
        certainty=Certainty.VERIFIED,
        summary=_ON_ERRATUM,
        failed_page=FailedPage.HANDED_BACK,
        failed_page_citation=_NO_PIN,
        kexec=Kexec.REFUSED,
        kexec_certainty=Certainty.VERIFIED,
        kexec_summary=_REFUSED,
        symbols=("tdx_quirk_reset_page", "tdx_quirk_reset_paddr"),
        functions=(*COMMON_FUNCTIONS, removes_alone("tdx_sept_remove_private_spte"), *_RESETS),
        citations=(_SKIP, _KEXEC_REFUSED),
    ),
    KernelRow(
        first=Version(7, 2),
        last=Version(7, 3),
        clearing=Clearing.ON_ERRATUM,
        certainty=Certainty.VERIFIED,
        summary=_ON_ERRATUM,
        failed_page=FailedPage.HANDED_BACK,
        failed_page_citation=_NO_PIN,
        failures_stay=True,
        kexec=Kexec.AFTER_DISABLE,
        kexec_certainty=Certainty.VERIFIED,
        kexec_summary=(
            "kexec and kdump are allowed and disable the TDX module first "
            "(TDH.SYS.DISABLE), which needs a module that has it; with an older "
            "module poison may be left behind"
        ),
        symbols=("tdx_quirk_reset_paddr", "tdx_sys_disable"),
        exported=("tdx_quirk_reset_paddr",),
        functions=(
            *COMMON_FUNCTIONS,
            # It maps and unmaps; what removes a page is inlined by gcc 12 and 14.
            Function(name="tdx_sept_set_private_spte", traced=True, unmaps=True),
            removes_alone("tdx_sept_remove_leaf_spte", traced=False),
            clears("tdx_quirk_reset_paddr"),
        ),
        citations=(_SKIP, _READ, _DROP_PAGE, _KEXEC_ALLOWED),
    ),
)


def find_kernel(version: Version) -> KernelRow | None:
    """Return the row of an upstream release, ``None`` if it is newer than the table."""
    return next((row for row in KERNELS if row.first <= version <= row.last), None)


def find_kernel_by_name(name: str) -> KernelRow | None:
    """Return the row of an upstream release as somebody writes it; ``None`` if there is none.

    >>> find_kernel_by_name("v6.18.2").span
    '6.18'
    """
    version = upstream_version(name.strip().lower().removeprefix("v"))
    return find_kernel(version) if version else None


def spell_rows(rows: Iterable[KernelRow], *, onwards: bool = False) -> str:
    """Return the releases of some rows in words, neighbours as one span.

    *onwards*: the newest row stands for later releases too.

    >>> spell_rows(RUNS_TDS[:2])
    '6.16 to 6.18'
    """
    spans: list[tuple[int, int]] = []
    for number in sorted(map(KERNELS.index, rows)):
        if spans and spans[-1][1] == number - 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return ", ".join(
        f"{KERNELS[first].first} and later"
        if onwards and KERNELS[last] is KERNELS[-1]
        else spell_span(KERNELS[first].first, KERNELS[last].last)
        for first, last in spans
    )


# Functions that tell of every kernel that has them, whatever its release.
SEAMCALL = "__seamcall"
"""What every kernel with TDX host support calls the TDX module by."""


RECLAIM = "tdh_phymem_page_reclaim"
"""What the core gives KVM to take a page back, from the first release that runs TDs."""


BESIDE_RECLAIM = "tdx_guest_keyid_alloc"
"""Another of the core's functions, of a name like those that clear: a list that has it was not
filtered to the SEAMCALLs."""


TELLING = tuple(dict.fromkeys(name for row in KERNELS for name in row.symbols))
"""The functions that tell the generations of the reclaim code apart."""


EXPORTED = frozenset(name for row in KERNELS for name in row.exported)


RUNS_TDS = tuple(row for row in KERNELS if row.runs_tds)
"""The rows whose kernels tear TDs down."""


LEAKING = spell_rows((row for row in KERNELS if row.failed_page is FailedPage.LEAKED), onwards=True)
"""The releases that keep a guest page whose removal failed."""


HANDING_BACK = spell_rows(
    (row for row in KERNELS if row.failed_page is FailedPage.HANDED_BACK), onwards=True
)


FIRST_WITH_TDS = RUNS_TDS[0].first


FIRST_THAT_SKIPS = next(row.first for row in KERNELS if row.clearing is Clearing.ON_ERRATUM)


FAILURES_STAY_SINCE = next(row.first for row in KERNELS if row.failures_stay)


DISABLES_SINCE = next(row.first for row in KERNELS if row.kexec is Kexec.AFTER_DISABLE)
"""From here on every reboot disables the TDX module first."""


# Which release first did what has nothing to do with reclaimed pages.
BRINGS_UP_SINCE = Version(7, 1)
"""From here on the core brings the TDX module up at boot; before, kvm_intel does."""


COUNTERS_READ_SINCE = Version(6, 12)
"""The KVM counters of earlier kernels were not read: they may mean something else."""
