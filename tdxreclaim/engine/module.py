"""The emulated TDX module and the memory behind it.

``Machine.call`` is a SEAMCALL of the teardown: it goes through the leaf's
checks and, when all of them hold, does what the leaf does.  A call that fails returns its status and
changes nothing.  ``Machine.access`` is a read or a write of a line.

Limits: one TD; 4 KiB pages; one cached copy a line; locks exist only as
replies that a caller scripts (``script``); which package's cache holds a
line is not known, so a line counts as written back once all packages were.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from tdxreclaim.engine.leaves import Call, Td, failed_check
from tdxreclaim.engine.pages import PageStore
from tdxreclaim.engine.states import (
    CHILD_USES,
    LINE_BYTES,
    LINE_MASK,
    LINES,
    LINES_PER_PAGE,
    PAGES,
    USE_SHIFT,
    Health,
    KeyIdState,
    Lifecycle,
    Line,
    Use,
)
from tdxreclaim.engine.truth import Key, LineTable, Mode, Op, Seen, tables
from tdxreclaim.errors import UsageError
from tdxreclaim.tables.seamcalls import SUCCESS, Leaf, Reply, Status
from tdxreclaim.units import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PACKAGES = 64
"""A guard against slips of the keyboard."""


_IS_CHILD = bytes(page.use in CHILD_USES for page in PAGES)


_USES = tuple(page.use for page in PAGES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Platform:
    """What the hardware is, as far as a page's life depends on it.

    Raises:
        UsageError: the number of packages makes no sense.
    """

    mode: Mode = Mode.CI
    """BIOS decides; which one a host runs is not visible in what Linux prints."""
    erratum: bool
    """``tdx_pw_mce``: a partial write to a TD-owned line poisons it."""
    seam_nr: bool = True
    """IA32_MCG_CAP bit 12: a machine check says whether it hit inside a TD."""
    packages: int = 1
    """CPU packages, 1-64; each writes its caches back for an HKID."""
    owned_reads_poison: bool = False
    """Ci: whether KeyID 0 poisons a TD-owned line that it reads, or sees zeros.  Contested."""

    def __post_init__(self) -> None:
        if not 1 <= self.packages <= MAX_PACKAGES:
            raise UsageError("packages", f"{self.packages} is not between 1 and {MAX_PACKAGES}")

    @property
    def tables(self) -> dict[tuple[Op, Key], LineTable]:
        """What every access does here."""
        return tables(self.mode, erratum=self.erratum, owned_reads_poison=self.owned_reads_poison)


class Actor(StrEnum):
    """Who made an access."""

    HOST = "host"
    TD = "td"
    MODULE = "module"


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineCheck:
    """Poison was consumed: #MC."""

    pfn: int
    line: int
    """0-63, within the page."""
    by: Actor
    key: Key
    cause: Health
    """POISON_INTEGRITY or POISON_HARDWARE."""

    @property
    def address(self) -> int:
        """Physical byte address of the line, without KeyID bits."""
        return self.pfn * PAGE_BYTES + self.line * LINE_BYTES


class Machine:
    """A TDX module, one TD, and the pages it knows.

    Pages are numbered from 0; page 0 has the page frame number *base_pfn*.
    """

    MAX_LISTED = 1000
    """Machine checks that are kept one by one; all of them are counted."""

    def __init__(
        self,
        platform: Platform,
        pages: PageStore,
        *,
        vcpus: int = 0,
        base_pfn: int = 0,
        tdvprs: Sequence[int] = (),
    ) -> None:
        """Take the pages over.

        *tdvprs* are the pages of the vCPUs' TDVPRs, vCPU by vCPU; without
        them the vCPUs have theirs outside *pages*, and nobody reclaims them.
        """
        self.platform = platform
        self.pages = pages
        self.base_pfn = base_pfn
        self.td = Td(
            packages=platform.packages,
            vcpus=vcpus,
            associated=set(range(vcpus)),
            children=pages.count(0, pages.pages, _IS_CHILD)[1],
        )
        self.module_down = False
        """Poison reached the module itself: TDX is off until the next boot."""
        self.lines: dict[int, dict[int, int]] = {}
        """Lines that differ from their page: page to line number to line code."""
        self.machine_checks: list[MachineCheck] = []
        self.machine_check_count = 0
        self._tables = platform.tables
        self._blocked_at: dict[int, int] = {}
        self._tdvprs = tdvprs
        self._scripts: dict[tuple[Leaf, int], list[tuple[Reply, bool]]] = {}

    def alone(self, state: int) -> Machine:
        """A machine with this TD's state and a single page in page state *state*."""
        single = Machine(self.platform, PageStore(1, state))
        single.td = replace(self.td, associated=set(self.td.associated))
        single.module_down = self.module_down
        return single

    def script(self, leaf: Leaf, number: int, reply: Reply, *, always: bool = False) -> None:
        """Have the next call of *leaf* on page, vCPU or package *number* return *reply*.

        With *always*, every later call too.  Scripted replies come in order.
        """
        self._scripts.setdefault((leaf, number), []).append((reply, always))

    def call(
        self, leaf: Leaf, number: int = 0, *, key: Key = Key.TD, resume: bool = False
    ) -> Reply:
        """Make one SEAMCALL of the teardown on page, vCPU or package *number*.

        *key* is the KeyID that TDH.PHYMEM.PAGE.WBINVD works on, *resume* the
        command of TDH.PHYMEM.CACHE.WB; no other leaf takes them.
        """
        if self.module_down:
            return Reply(Status.VMFAIL_INVALID)
        page = self._page_of(leaf, number)
        state = 0 if page is None else self.pages[page]
        if self._scripts:
            scripted = self._scripted(leaf, number)
            if scripted is not None:
                return scripted
        use = Use.TDVPR if leaf is Leaf.TDH_VP_FLUSH and page is None else _USES[state]
        failed = failed_check(leaf, Call(self.td, use, self._tracked(number), number, resume))
        if failed is not None:
            return failed.reply
        self._perform(leaf, number, state, key)
        return SUCCESS

    def access(
        self, op: Op, key: Key, page: int, line: int, *, by: Actor = Actor.HOST
    ) -> tuple[Seen, Line]:
        """Access one line; what was seen, and the line as it is afterwards."""
        table = self._tables[op, key]
        code = self.line(page, line).code
        after = table.after[code]
        if after != code:
            self.set_line(page, line, LINES[after])
        if table.seen[code] is Seen.POISON:
            self._consume(page, line, by, key, LINES[after].health)
        return table.seen[code], LINES[after]

    def access_page(self, op: Op, key: Key, page: int, *, by: Actor = Actor.HOST) -> int:
        """Access all 64 lines of a page; how many of them returned poison."""
        table = self._tables[op, key]
        state = self.pages[page]
        apart = self.lines.get(page, {})
        poisoned: list[tuple[int, Health]] = []
        if table.poisons[state]:
            cause = LINES[table.after[state & LINE_MASK]].health
            poisoned = [(n, cause) for n in range(LINES_PER_PAGE) if n not in apart]
        poisoned += [
            (n, LINES[table.after[code]].health)
            for n, code in apart.items()
            if table.seen[code] is Seen.POISON
        ]
        self._set_page(page, table.pages[state])
        if apart:
            self._set_lines(page, {n: table.after[code] for n, code in apart.items()})
        for line, cause in sorted(poisoned):
            self._consume(page, line, by, key, cause)
        return len(poisoned)

    def line(self, page: int, line: int) -> Line:
        """The state of one line."""
        apart = self.lines.get(page)
        if apart and line in apart:
            return LINES[apart[line]]
        return LINES[self.pages[page] & LINE_MASK]

    def set_line(self, page: int, line: int, state: Line) -> None:
        """Put one line in a state, past all rules: how faults get in."""
        self.pages.isolate(page)
        self._set_lines(page, {**self.lines.get(page, {}), line: state.code})

    def note_machine_checks(self, count: int, listed: Sequence[MachineCheck]) -> None:
        """Record machine checks that somebody else found, page runs at a time."""
        self.machine_check_count += count
        room = self.MAX_LISTED - len(self.machine_checks)
        self.machine_checks += listed[:room]

    def _page_of(self, leaf: Leaf, number: int) -> int | None:
        if leaf in _ON_PAGE:
            return number
        if leaf is Leaf.TDH_VP_FLUSH and number < len(self._tdvprs):
            return self._tdvprs[number]
        return None

    def _tracked(self, page: int) -> bool:
        # A blocked page without a stamp was blocked before the first epoch we know.
        return self._blocked_at.get(page, 0) < self.td.epoch

    def _scripted(self, leaf: Leaf, number: int) -> Reply | None:
        waiting = self._scripts.get((leaf, number))
        if not waiting:
            return None
        reply, always = waiting[0]
        if not always:
            del waiting[0]
        if reply.status is Status.TDX_INTERRUPTED_RESUMABLE:
            self.td.saved |= 1 << number
        return reply

    def _perform(self, leaf: Leaf, number: int, state: int, key: Key) -> None:
        td = self.td
        match leaf:
            case Leaf.TDH_MEM_RANGE_BLOCK:
                self._blocked_at[number] = td.epoch
                self._set_page(number, Use.BLOCKED << USE_SHIFT | state & LINE_MASK)
            case Leaf.TDH_MEM_TRACK:
                td.epoch += 1
            case Leaf.TDH_MEM_PAGE_REMOVE | Leaf.TDH_PHYMEM_PAGE_RECLAIM:
                self._blocked_at.pop(number, None)
                td.children -= _IS_CHILD[state]
                td.has_tdr = td.has_tdr and _USES[state] is not Use.TDR
                self._set_page(number, Use.NDA << USE_SHIFT | state & LINE_MASK)
            case Leaf.TDH_PHYMEM_PAGE_WBINVD:
                self.access_page(Op.WRITE_BACK, key, number, by=Actor.MODULE)
            case Leaf.TDH_VP_FLUSH:
                td.associated.discard(number)
            case Leaf.TDH_MNG_VPFLUSHDONE:
                td.lifecycle = Lifecycle.BLOCKED
                td.keyid = KeyIdState.FLUSHED
                td.unwritten = (1 << td.packages) - 1
            case Leaf.TDH_PHYMEM_CACHE_WB:
                td.unwritten &= ~(1 << number)
                td.saved &= ~(1 << number)
                if td.unwritten == 0:
                    self._write_back_all()
            case Leaf.TDH_MNG_KEY_FREEID:
                td.lifecycle = Lifecycle.TEARDOWN
                td.keyid = KeyIdState.FREE
            case _:
                raise KeyError(leaf)

    def _write_back_all(self) -> None:
        table = self._tables[Op.WRITE_BACK, Key.TD]
        self.pages.translate(0, self.pages.pages, table.pages)
        for page, apart in list(self.lines.items()):
            self._set_lines(page, {n: table.after[code] for n, code in apart.items()})

    def _set_page(self, page: int, state: int) -> None:
        if self.pages[page] != state:
            self.pages[page] = state

    def _set_lines(self, page: int, apart: dict[int, int]) -> None:
        """Keep the lines that differ from their page; the others are the page's own."""
        same = self.pages[page] & LINE_MASK
        differing = {n: code for n, code in apart.items() if code != same}
        if differing:
            self.lines[page] = differing
        else:
            self.lines.pop(page, None)

    def _consume(self, page: int, line: int, by: Actor, key: Key, cause: Health) -> None:
        self.note_machine_checks(
            1,
            [MachineCheck(pfn=self.base_pfn + page, line=line, by=by, key=key, cause=cause)],
        )
        match by:
            case Actor.TD:
                self.td.fatal = True
            case Actor.MODULE:
                self.module_down = True
            case Actor.HOST:
                pass
            case _:
                assert_never(by)


_ON_PAGE = frozenset(
    {
        Leaf.TDH_MEM_RANGE_BLOCK,
        Leaf.TDH_MEM_PAGE_REMOVE,
        Leaf.TDH_PHYMEM_PAGE_RECLAIM,
        Leaf.TDH_PHYMEM_PAGE_WBINVD,
    }
)
