"""The size of a TD, and where its pages lie in the emulated memory.

Guest pages come first, then Secure-EPT pages, the vCPUs' pages, the TDCS
pages and the TDR, without a gap.  Real pages lie anywhere; nothing in a
teardown depends on where.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdxreclaim.engine.plan import Scope
from tdxreclaim.engine.states import Use
from tdxreclaim.errors import UsageError
from tdxreclaim.units import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENTRIES_PER_SEPT_PAGE = 512


_TDCX_PAGES = 5
_TDCS_PAGES = 6


MAX_VCPUS = 4096
"""A guard against slips of the keyboard, not a limit of TDX."""


MAX_PFN = 1 << 40
"""Physical addresses have at most 52 bits."""


def count_sept_pages(guest_pages: int) -> int:
    """Return how many Secure-EPT pages map so many contiguous guest pages."""
    leaves = -(-guest_pages // _ENTRIES_PER_SEPT_PAGE)
    middle = -(-leaves // _ENTRIES_PER_SEPT_PAGE)
    return leaves + middle - (-middle // _ENTRIES_PER_SEPT_PAGE)


def count_control_pages(guest_pages: int, vcpus: int) -> int:
    """Return what `Shape.control_pages` is of a TD of that size, without making one."""
    return count_sept_pages(guest_pages) + vcpus * (_TDCX_PAGES + 1) + _TDCS_PAGES + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A TD's size.

    Its private memory is mapped in 4 KiB pages: no release up to 7.3 maps
    larger ones.

    Raises:
        UsageError: a number makes no sense; ``what`` names the field.
    """

    memory_bytes: int
    vcpus: int
    mapped: int | None = None
    """Bytes that are private and mapped, where the guest did not accept all; None: all."""
    base_pfn: int = 0x100000
    """Page frame number of the first guest page; 0x100000 is 4 GiB."""
    tdcx_pages_per_vcpu: int = _TDCX_PAGES
    """TDVPS pages less the TDVPR, as module 1.5.01 has them; a later one may report others."""
    tdcs_pages: int = _TDCS_PAGES
    """TDCS pages of module 1.5.01 without L2 VMs (9 with); a later one may report others."""

    def __post_init__(self) -> None:
        if self.memory_bytes <= 0:
            raise UsageError("memory", f"{self.memory_bytes} bytes: a TD has some")
        if self.memory_bytes % PAGE_BYTES:
            raise UsageError(
                "memory", f"{self.memory_bytes} bytes are not a whole number of 4 KiB pages"
            )
        if self.mapped is not None and not 0 < self.mapped <= self.memory_bytes:
            raise UsageError("mapped", f"{self.mapped} bytes: not between 1 page and the memory")
        if self.mapped_bytes % PAGE_BYTES:
            raise UsageError(
                "mapped", f"{self.mapped_bytes} bytes are not a whole number of 4 KiB pages"
            )
        if not 1 <= self.vcpus <= MAX_VCPUS:
            raise UsageError("vcpus", f"{self.vcpus} is not between 1 and {MAX_VCPUS}")
        if min(self.base_pfn, self.tdcx_pages_per_vcpu, self.tdcs_pages) < 0:
            raise UsageError("shape", "a page number or count is negative")
        if self.base_pfn + self.pages > MAX_PFN:
            raise UsageError("memory", f"{self.memory_bytes} bytes exceed 52 address bits")

    @property
    def guest_pages(self) -> int:
        """Private 4 KiB pages of the guest."""
        return self.mapped_bytes // PAGE_BYTES

    @property
    def mapped_bytes(self) -> int:
        """Private memory that is mapped: what has to be given back."""
        return self.memory_bytes if self.mapped is None else self.mapped

    @property
    def sept_pages(self) -> int:
        """Secure-EPT pages: about 1/512 of the guest's.

        Assumed: guest memory is contiguous, and the root is among the TDCS pages.

        >>> Shape(memory_bytes=2**30, vcpus=1).sept_pages  # 512 + 1 + 1
        514
        """
        return count_sept_pages(self.guest_pages)

    @property
    def vcpu_pages(self) -> int:
        """TDCX and TDVPR pages of all vCPUs."""
        return self.vcpus * (self.tdcx_pages_per_vcpu + 1)

    @property
    def control_pages(self) -> int:
        """Everything that is not a guest page."""
        return self.sept_pages + self.vcpu_pages + self.tdcs_pages + 1

    @property
    def pages(self) -> int:
        """All pages that the TD holds, the TDR included."""
        return self.guest_pages + self.control_pages

    def span(self, scope: Scope) -> range:
        """The pages of a page scope.

        Raises:
            KeyError: *scope* is not about pages.
        """
        sizes = {
            Scope.GUEST_PAGE: self.guest_pages,
            Scope.SEPT_PAGE: self.sept_pages,
            Scope.VCPU_PAGE: self.vcpu_pages,
            Scope.TDCS_PAGE: self.tdcs_pages,
            Scope.TDR: 1,
        }
        start = 0
        for each, size in sizes.items():
            if each is scope:
                return range(start, start + size)
            start += size
        raise KeyError(scope)

    @property
    def tdvprs(self) -> range:
        """The TDVPR of each vCPU, vCPU by vCPU."""
        pages = self.span(Scope.VCPU_PAGE)
        first = pages.start + self.tdcx_pages_per_vcpu
        return range(first, pages.stop, self.tdcx_pages_per_vcpu + 1)

    def uses(self) -> Iterator[tuple[range, Use]]:
        """How the module has the pages in its PAMT before the teardown."""
        yield self.span(Scope.GUEST_PAGE), Use.MAPPED
        yield self.span(Scope.SEPT_PAGE), Use.EPT
        # TDCX before TDVPR, vCPU by vCPU, in the order in which they are reclaimed.
        for tdvpr in self.tdvprs:
            yield range(tdvpr - self.tdcx_pages_per_vcpu, tdvpr), Use.TDCX
            yield range(tdvpr, tdvpr + 1), Use.TDVPR
        yield self.span(Scope.TDCS_PAGE), Use.TDCX
        yield self.span(Scope.TDR), Use.TDR

    def page(self, pfn: int) -> int:
        """The page with a page frame number.

        Raises:
            UsageError: the TD has no such page.
        """
        page = pfn - self.base_pfn
        if not 0 <= page < self.pages:
            last = self.base_pfn + self.pages - 1
            raise UsageError(f"page {pfn:#x}", f"the TD has {self.base_pfn:#x} to {last:#x}")
        return page
