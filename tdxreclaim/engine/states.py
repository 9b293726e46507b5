"""States of the emulated machine: a line, a page, a KeyID, a TD.

A page of private memory has two independent lives.  The *module* keeps one
entry a page (the PAMT: who owns the page) and, for a guest page, a Secure-EPT
entry (is it mapped, is it blocked).  The *memory* keeps, for each 64-byte
line, a TD Owner bit, in Ci a MAC, perhaps poison; and the cache may hold a
newer copy of the line under some KeyID.  Giving a page back changes the
first life only: no teardown leaf writes contents.  That gap is why a host
may have to clear.

Both lives fit one byte, which is what makes a terabyte cheap:

====  =====================================================================
bits  meaning
====  =====================================================================
7-5   ``Use``: PAMT page type together with the Secure-EPT entry's state
4     TD Owner bit of every line
3-2   ``Health`` of every line: does its MAC fit, is it poisoned
1-0   ``Dirty``: under which KeyID the cache holds a newer copy
====  =====================================================================

Lines that differ from the rest of their page are kept apart, by
``module.Machine``.

Sources: TDX Module Base Architecture Specification 348549 (sections 16.2 to
16.6), read in translation; TDX module 1.5.01 sources for page types and
lifecycle.  MAC validity and poison share a field because poison hides the
MAC: a poisoned line reads as poison whatever its MAC says.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple

from tdxreclaim.units import PAGE_BYTES

LINE_BYTES = 64


LINES_PER_PAGE = PAGE_BYTES // LINE_BYTES


class PageType(IntEnum):
    """PAMT page types, with the TDX module's numbers (module 1.5.01 sources)."""

    NDA = 0
    RSVD = 1
    REG = 3
    TDR = 4
    TDCX = 5
    TDVPR = 6
    EPT = 8


class SeptEntry(StrEnum):
    """State of the Secure-EPT entry that maps a guest page."""

    FREE = "free"
    MAPPED = "mapped"
    BLOCKED = "blocked"


class Use(IntEnum):
    """PAMT page type and Secure-EPT entry state in three bits.

    Only a REG page has a mapping, so the two need one field.  NDA ("not
    directly assigned") is the host's page.
    """

    NDA = 0
    RSVD = 1
    MAPPED = 2
    BLOCKED = 3
    TDR = 4
    TDCX = 5
    TDVPR = 6
    EPT = 7

    @property
    def page_type(self) -> PageType:
        """The PAMT page type."""
        return _PAGE_TYPES[self]

    @property
    def sept(self) -> SeptEntry:
        """The state of the Secure-EPT entry; FREE where no guest page is mapped."""
        match self:
            case Use.MAPPED:
                return SeptEntry.MAPPED
            case Use.BLOCKED:
                return SeptEntry.BLOCKED
            case _:
                return SeptEntry.FREE


_PAGE_TYPES = {
    Use.NDA: PageType.NDA,
    Use.RSVD: PageType.RSVD,
    Use.MAPPED: PageType.REG,
    Use.BLOCKED: PageType.REG,
    Use.TDR: PageType.TDR,
    Use.TDCX: PageType.TDCX,
    Use.TDVPR: PageType.TDVPR,
    Use.EPT: PageType.EPT,
}


CHILD_USES = frozenset({Use.MAPPED, Use.BLOCKED, Use.TDCX, Use.TDVPR, Use.EPT})
"""Pages that count in the TDR's CHLDCNT: all of a TD's pages but the TDR itself."""


class Health(IntEnum):
    """MAC and poison of a line in memory."""

    MAC_UNFIT = 0
    """Not poisoned; no MAC that fits.  In Li, where there is no MAC, every sound line."""
    MAC_FITS = 1
    """Not poisoned; the stored MAC fits what a key with integrity wrote (Ci only)."""
    POISON_INTEGRITY = 2
    """Poisoned by an integrity or ownership mismatch, or by an erratum's partial write."""
    POISON_HARDWARE = 3
    """Poisoned because the memory itself is bad; no write cures it."""

    @property
    def poisoned(self) -> bool:
        """Whether the next read from memory returns poison."""
        return self >= Health.POISON_INTEGRITY


class Dirty(IntEnum):
    """Under which KeyID the cache holds a copy newer than memory."""

    NONE = 0
    SHARED = 1
    """KeyID 0.  A shared KeyID with integrity is taken as written through."""
    TD = 2
    """The TD's private HKID."""
    GLOBAL = 3
    """The module's global private HKID, which covers the TDR."""


class Line(NamedTuple):
    """One 64-byte line."""

    owner: bool
    """TD Owner bit: the last write that reached memory used a private HKID."""
    health: Health
    dirty: Dirty

    @property
    def code(self) -> int:
        """The line in five bits, 0-31."""
        return self.owner << 4 | self.health << 2 | self.dirty


LINES = tuple(Line(bool(c >> 4), Health(c >> 2 & 3), Dirty(c & 3)) for c in range(32))
"""Every line state, indexed by its code."""


class PageState(NamedTuple):
    """One page whose 64 lines are alike."""

    use: Use
    line: Line

    @property
    def code(self) -> int:
        """The page in one byte, 0-255.

        >>> PageState(Use.MAPPED, Line(True, Health.MAC_FITS, Dirty.TD)).code
        86
        """
        return self.use << 5 | self.line.code


PAGES = tuple(PageState(Use(c >> 5), LINES[c & 31]) for c in range(256))
"""Every page state, indexed by its code."""


LINE_MASK = 31


USE_SHIFT = 5


class Lifecycle(StrEnum):
    """Lifecycle of a TD, in the order it is lived."""

    HKID_ASSIGNED = "TD_HKID_ASSIGNED"
    KEYS_CONFIGURED = "TD_KEYS_CONFIGURED"
    BLOCKED = "TD_BLOCKED"
    TEARDOWN = "TD_TEARDOWN"


class KeyIdState(StrEnum):
    """State of an HKID in the module's KeyID ownership table (KOT)."""

    ASSIGNED = "HKID_ASSIGNED"
    FLUSHED = "HKID_FLUSHED"
    """Flushed from the vCPUs; caches of the packages still to be written back."""
    FREE = "HKID_FREE"


def table256(line_codes: bytes, uses: frozenset[Use] = frozenset(Use)) -> bytes:
    """Widen a table over 32 line codes to the 256 page codes.

    *uses* limits it: pages in any other use are left as they are.
    """
    return bytes(
        code & ~LINE_MASK | line_codes[code & LINE_MASK] if PAGES[code].use in uses else code
        for code in range(256)
    )


def describe(state: PageState | Line) -> str:
    """A state in words; MAC_UNFIT and "not dirty" go without saying.

    >>> describe(PAGES[86])
    'REG mapped, TD-owned, MAC fits, dirty under td'
    >>> describe(PAGES[86].line)
    'TD-owned, MAC fits, dirty under td'
    """
    words = []
    if isinstance(state, PageState):
        mapped = "" if state.use.sept is SeptEntry.FREE else f" {state.use.sept}"
        words.append(state.use.page_type.name + mapped)
        state = state.line
    words.append("TD-owned" if state.owner else "not TD-owned")
    if state.health is not Health.MAC_UNFIT:
        words.append(_HEALTH_WORDS[state.health])
    if state.dirty is not Dirty.NONE:
        words.append(f"dirty under {state.dirty.name.lower()}")
    return ", ".join(words)


_HEALTH_WORDS = {
    Health.MAC_FITS: "MAC fits",
    Health.POISON_INTEGRITY: "integrity poison",
    Health.POISON_HARDWARE: "hardware poison",
}
