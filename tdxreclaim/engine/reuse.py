"""After the teardown: what the host holds now, and what comes of using it.

A page counts as reusable when the module gave it back (NDA) and the host did
not give it up.  What is wrong with it shows in ``hazards``; whether that
hurts shows when the host writes parts of lines, reads everything and writes
everything.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import TYPE_CHECKING, assert_never

from tdxreclaim.engine.faults import TICK_EVERY
from tdxreclaim.engine.module import Actor, Machine, MachineCheck, Platform
from tdxreclaim.engine.recorder import Event, Recorder
from tdxreclaim.engine.states import (
    LINE_MASK,
    LINES,
    LINES_PER_PAGE,
    PAGES,
    Dirty,
    Health,
    Line,
    Use,
)
from tdxreclaim.engine.truth import PRIVATE, Key, Op, Seen
from tdxreclaim.tables.sources import Certainty
from tdxreclaim.tables.teardown import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from tdxreclaim.engine.plan import Plan


class Hazard(StrEnum):
    """What is wrong with a page that is handed over as reusable."""

    TD_OWNED = "td-owned"
    """A line has the TD Owner bit: KeyID 0 reads zeros there, and on a CPU with
    ``tdx_pw_mce`` a partial write poisons it."""
    PRIVATE_DIRTY = "private-dirty"
    """The cache holds a line under a private HKID: written back late, it returns."""
    POISON_INTEGRITY = "poison-integrity"
    POISON_HARDWARE = "poison-hardware"


class Mark(Enum):
    """Whether the kernel marks the page of a machine check HWPoison."""

    MARKED = "marked HWPoison"
    NOT_FOUND = "not marked: the address has the KeyID in it, and no page is there"
    NOT_TRIED = "not marked: without SEAM_NR the kernel cannot tell that a TD was hit"


def mark(check: MachineCheck, platform: Platform, plan: Plan) -> Mark:
    """Whether the page that *check* hit is marked, so that nobody gets it again.

    Linux 6.16 to 7.3.4 looks for the page at MCi_ADDR unmasked, and for an
    error under a private HKID that address has the KeyID in its upper bits;
    the fix (20250819162436.137625-2-adrian.hunter@intel.com) is in none of them.
    """
    if check.key not in PRIVATE:
        return Mark.MARKED
    if not platform.seam_nr:
        return Mark.NOT_TRIED
    return Mark.MARKED if plan.finds_poisoned_page else Mark.NOT_FOUND


class Aftermath:
    """A machine whose TD was torn down, in the host's hands."""

    def __init__(
        self, machine: Machine, kept_out: Collection[int], recorder: Recorder, at_ns: int
    ) -> None:
        """Take the machine over.

        *kept_out* are pages the host gave up although they are NDA; *at_ns* is
        when the teardown ended.
        """
        self._machine = machine
        self._kept_out = kept_out
        self._recorder = recorder
        self._at_ns = at_ns
        self._tables = machine.platform.tables
        self.contested_reads = 0
        """Lines whose first read is a cell on which the sources contradict each other."""

    def reusable(self, page: int) -> bool:
        """Whether the host may hand out *page*."""
        return PAGES[self._machine.pages[page]].use is Use.NDA and page not in self._kept_out

    def hazards(self) -> dict[Hazard, int]:
        """How many reusable pages have a line of each hazard."""
        pages = self._machine.pages
        singles = [page for page in pages.singles(0, pages.pages) if self.reusable(page)]
        return {
            hazard: pages.count_runs(0, pages.pages, having)[1]
            + sum(any(having[code] for code in self._line_codes(page)) for page in singles)
            for hazard, having in _HAVING.items()
        }

    def use(
        self, partial_lines: Iterable[int], tick: Callable[[], None] = lambda: None
    ) -> tuple[int, int]:
        """Write parts of lines, then read all of the memory, then write all of it.

        *partial_lines* are line numbers over all of memory; *tick* is called
        now and then.  Returns how many of those writes were made, and how many
        not because their page leaked.
        """
        self._tick = tick
        made = skipped = 0
        for number in partial_lines:
            page, line = divmod(number, LINES_PER_PAGE)
            if self.reusable(page):
                self._write_part(page, line)
                made += 1
            else:
                skipped += 1
            if not (made + skipped) % TICK_EVERY:
                tick()
        self.contested_reads = self._count_contested()
        self._read_everything()
        self._write_everything()
        self._machine.machine_checks.sort(key=lambda check: check.address)
        return made, skipped

    def _write_part(self, page: int, line: int) -> None:
        before = self._machine.line(page, line)
        seen, after = self._machine.access(Op.PARTIAL_WRITE, Key.SHARED, page, line)
        if self._recorder.wants(page):
            self._recorder.add(
                Event(
                    at_ns=self._at_ns,
                    phase=Phase.REUSE,
                    did=Op.PARTIAL_WRITE,
                    scope=None,
                    number=page,
                    pfn=self._machine.base_pfn + page,
                    line=line,
                    seen=seen,
                    before=before,
                    after=after,
                )
            )

    def _count_contested(self) -> int:
        """Lines of the host that a read now would meet a contested cell on."""
        machine, pages = self._machine, self._machine.pages
        rules = self._tables[Op.READ, Key.SHARED].rules
        contested = bytes(rule.certainty is Certainty.CONTESTED for rule in rules)
        classes = bytes(contested[page.line.code] and page.use is Use.NDA for page in PAGES)
        lines = LINES_PER_PAGE * pages.count_runs(0, pages.pages, classes)[1]
        for page in filter(self.reusable, pages.singles(0, pages.pages)):
            apart = machine.lines.get(page, {})
            lines += sum(contested[code] for code in apart.values())
            lines += (LINES_PER_PAGE - len(apart)) * contested[pages[page] & LINE_MASK]
        return lines

    def _read_everything(self) -> None:
        machine = self._machine
        pages = machine.pages
        poisons = self._tables[Op.READ, Key.SHARED].poisons
        classes = bytes(poisons[code] and PAGES[code].use is Use.NDA for code in range(256))
        poisoned = pages.count_runs(0, pages.pages, classes)[1]
        if poisoned:
            most = -(-Machine.MAX_LISTED // LINES_PER_PAGE)
            listed = [
                MachineCheck(
                    pfn=machine.base_pfn + page,
                    line=line,
                    by=Actor.HOST,
                    key=Key.SHARED,
                    cause=LINES[pages[page] & LINE_MASK].health,
                )
                for page in pages.first_of_runs(0, pages.pages, classes, most)
                for line in range(LINES_PER_PAGE)
            ]
            machine.note_machine_checks(poisoned * LINES_PER_PAGE, listed)
        self._access_singles(Op.READ)

    def _write_everything(self) -> None:
        pages = self._machine.pages
        table = self._tables[Op.FULL_WRITE, Key.SHARED].pages
        reused = bytes(table[code] if PAGES[code].use is Use.NDA else code for code in range(256))
        pages.translate_runs(0, pages.pages, reused)
        self._access_singles(Op.FULL_WRITE)

    def _access_singles(self, op: Op) -> None:
        machine = self._machine
        seen = self._tables[op, Key.SHARED].seen
        for number, page in enumerate(machine.pages.singles(0, machine.pages.pages)):
            if not number % TICK_EVERY:
                self._tick()
            if not self.reusable(page):
                continue
            before = PAGES[machine.pages[page]]
            poisoned = machine.access_page(op, Key.SHARED, page)
            if self._recorder.wants(page):
                self._recorder.add(
                    Event(
                        at_ns=self._at_ns,
                        phase=Phase.REUSE,
                        did=op,
                        scope=None,
                        number=page,
                        pfn=machine.base_pfn + page,
                        seen=Seen.POISON if poisoned else seen[before.line.code],
                        before=before,
                        after=PAGES[machine.pages[page]],
                    )
                )

    def _line_codes(self, page: int) -> set[int]:
        """The page codes of a page's distinct lines."""
        state = self._machine.pages[page]
        apart = self._machine.lines.get(page, {})
        codes = {state & ~LINE_MASK | code for code in apart.values()}
        return codes if len(apart) == LINES_PER_PAGE else codes | {state}


def _having(hazard: Hazard) -> bytes:
    """Page codes to 1 where a page of the host has the hazard."""
    return bytes(page.use is Use.NDA and _has(page.line, hazard) for page in PAGES)


def _has(line: Line, hazard: Hazard) -> bool:
    match hazard:
        case Hazard.TD_OWNED:
            return line.owner
        case Hazard.PRIVATE_DIRTY:
            return line.dirty in (Dirty.TD, Dirty.GLOBAL)
        case Hazard.POISON_INTEGRITY:
            return line.health is Health.POISON_INTEGRITY
        case Hazard.POISON_HARDWARE:
            return line.health is Health.POISON_HARDWARE
        case _:
            assert_never(hazard)


_HAVING = {hazard: _having(hazard) for hazard in Hazard}
