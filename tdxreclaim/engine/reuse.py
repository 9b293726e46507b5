"""After the teardown: what the host holds now, and what comes of using it.

A page counts as reusable when the module gave it back (NDA) and the host did
not give it up, and when the host hands it out although the module did not.  What is wrong with it shows in ``hazards``; whether that
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
    PageState,
    Use,
)
from tdxreclaim.engine.truth import PRIVATE, Key, Op, Seen
from tdxreclaim.tables.sources import Certainty
from tdxreclaim.tables.teardown import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tdxreclaim.engine.plan import Plan
    from tdxreclaim.engine.teardown import EmulatedHost


# A guest page that the module did not give back.
_GUEST = (Use.MAPPED, Use.BLOCKED)


class Hazard(StrEnum):
    """What is wrong with a page that is handed over as reusable."""

    TD_OWNED = "td-owned"
    """A line has the TD Owner bit: KeyID 0 reads zeros there, and on a CPU with
    ``tdx_pw_mce`` a partial write poisons it."""
    PRIVATE_DIRTY = "private-dirty"
    """The cache holds a line under a private HKID: written back late, it returns."""
    POISON_INTEGRITY = "poison-integrity"
    POISON_HARDWARE = "poison-hardware"
    STILL_THE_TDS = "still-the-tds"
    """The module has the page as the TD's, and the host hands it out: a later TD
    that is given it gets TDX_PAGE_METADATA_INCORRECT and is killed."""


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

    def __init__(self, host: EmulatedHost, recorder: Recorder) -> None:
        """Take the machine over that *host* tore the TD down on."""
        self._machine = machine = host.machine
        self._kept_out = host.kept_out
        self._recorder = recorder
        self._at_ns = host.clock_ns
        self._uses = {Use.NDA, *(_GUEST if host.handed_back else ())}
        self._tables = machine.platform.tables
        self.contested_reads = 0
        """Lines whose first read is a cell on which the sources contradict each other."""

    def reusable(self, page: int) -> bool:
        """Whether the host may hand out *page*."""
        use = PAGES[self._machine.pages[page]].use
        return use in self._uses and page not in self._kept_out

    def hazards(self) -> dict[Hazard, int]:
        """How many reusable pages have a line of each hazard."""
        pages = self._machine.pages
        singles = [page for page in pages.singles(0, pages.pages) if self.reusable(page)]
        return {
            hazard: pages.count_runs(0, pages.pages, having)[1]
            + sum(any(having[code] for code in self._line_codes(page)) for page in singles)
            for hazard, having in ((each, self._having(each)) for each in Hazard)
        }

    def _having(self, hazard: Hazard) -> bytes:
        """Page codes to 1 where a page of the host has the hazard."""
        return bytes(page.use in self._uses and _has(page, hazard) for page in PAGES)

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
        classes = bytes(contested[page.line.code] and page.use in self._uses for page in PAGES)
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
        classes = bytes(poisons[code] and PAGES[code].use in self._uses for code in range(256))
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
        reused = bytes(
            table[code] if PAGES[code].use in self._uses else code for code in range(256)
        )
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


def _has(page: PageState, hazard: Hazard) -> bool:
    line = page.line
    match hazard:
        case Hazard.STILL_THE_TDS:
            return page.use is not Use.NDA
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
