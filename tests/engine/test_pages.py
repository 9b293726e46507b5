"""Many pages, random orders: what must hold whatever a host does."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tdxreclaim.engine.module import Actor, Machine, Platform
from tdxreclaim.engine.pages import PageStore
from tdxreclaim.engine.states import (
    CHILD_USES,
    PAGES,
    Dirty,
    Health,
    KeyIdState,
    Lifecycle,
    Line,
    PageState,
    Use,
)
from tdxreclaim.engine.teardown import quirk_clear_page
from tdxreclaim.engine.truth import Key, Mode, Op, Seen
from tdxreclaim.tables.modulechecks import CHECKS
from tdxreclaim.tables.seamcalls import Leaf, Status


def is_error(status: Status) -> bool:
    """Whether bit 61, 62 or 63 is set: not of the success class."""
    return status >> 61 != 0


COUNT = 6
pages = st.integers(0, COUNT - 1)
lines = st.integers(0, 63)


class ManyPages(RuleBasedStateMachine):
    """A module with several pages, and a host that keeps to the order where it releases."""

    @initialize(mode=st.sampled_from(Mode), erratum=st.booleans(), packages=st.integers(1, 3))
    def start(self, mode: Mode, erratum: bool, packages: int) -> None:
        platform = Platform(mode=mode, erratum=erratum, packages=packages)
        fits = Health.MAC_FITS if mode is Mode.CI else Health.MAC_UNFIT
        store = PageStore(COUNT + 2, PageState(Use.MAPPED, Line(True, fits, Dirty.TD)).code)
        store[COUNT] = PageState(Use.EPT, Line(True, fits, Dirty.TD)).code
        store[COUNT + 1] = PageState(Use.TDR, Line(True, fits, Dirty.GLOBAL)).code
        self.machine = Machine(platform, store, vcpus=2)
        self.packages = packages
        self.written = set[int]()  # pages given back, flushed and cleared

    def states(self) -> list[int]:
        return [self.machine.pages[page] for page in range(COUNT + 2)]

    @rule(leaf=st.sampled_from(list(CHECKS)), page=st.integers(0, COUNT + 1))
    def any_leaf(self, leaf: Leaf, page: int) -> None:
        takes_page = "PAGE" in leaf.name or "RANGE" in leaf.name
        number = page if takes_page else page % 2
        if leaf is Leaf.TDH_PHYMEM_CACHE_WB:
            number = page % self.packages
        before = (self.states(), repr(self.machine.td))
        reply = self.machine.call(leaf, number)
        if is_error(reply.status):
            after = (self.states(), repr(self.machine.td))
            assert before == after, "an illegal step changes nothing"

    @rule(page=pages)
    def release_as_upstream(self, page: int) -> None:
        for leaf in (
            Leaf.TDH_MEM_RANGE_BLOCK,
            Leaf.TDH_MEM_TRACK,
            Leaf.TDH_MEM_PAGE_REMOVE,
            Leaf.TDH_PHYMEM_PAGE_WBINVD,
        ):
            if is_error(self.machine.call(leaf, page).status):
                return
        quirk_clear_page(self.machine, page)
        self.written.add(page)

    @rule(page=st.integers(0, COUNT))
    def release_after_the_hkid(self, page: int) -> None:
        if not is_error(self.machine.call(Leaf.TDH_PHYMEM_PAGE_RECLAIM, page).status):
            quirk_clear_page(self.machine, page)
            self.written.add(page)

    @rule(page=pages, line=lines)
    def td_writes(self, page: int, line: int) -> None:
        if PAGES[self.machine.pages[page]].use is Use.MAPPED and not self.machine.td.fatal:
            self.machine.access(Op.CACHED_WRITE, Key.TD, page, line, by=Actor.TD)

    @rule(page=pages, line=lines)
    def td_reads(self, page: int, line: int) -> None:
        if PAGES[self.machine.pages[page]].use is Use.MAPPED:
            seen, _ = self.machine.access(Op.READ, Key.TD, page, line, by=Actor.TD)
            assert self.machine.td.fatal >= (seen is Seen.POISON)

    @rule(page=st.integers(0, COUNT + 1), line=lines)
    def host_writes_a_part(self, page: int, line: int) -> None:
        self.machine.access(Op.PARTIAL_WRITE, Key.SHARED, page, line)

    @rule(page=pages, line=lines)
    def integrity_fails(self, page: int, line: int) -> None:
        if page not in self.written:
            poison = Line(True, Health.POISON_INTEGRITY, Dirty.NONE)
            self.machine.set_line(page, line, poison)

    @rule(page=st.integers(0, COUNT + 1))
    def host_reads(self, page: int) -> None:
        before = [self.machine.line(page, n) for n in range(64)]
        self.machine.access_page(Op.READ, Key.SHARED, page)
        after = [self.machine.line(page, n) for n in range(64)]
        assert before == after, "KeyID 0 reads leave no mark"

    @invariant()
    def released_pages_are_neither_owned_nor_dirty_nor_poisoned(self) -> None:
        for page in self.written:
            for number in range(64):
                line = self.machine.line(page, number)
                assert not line.owner
                assert line.dirty in (Dirty.NONE, Dirty.SHARED)
                assert not line.health.poisoned

    @invariant()
    def child_count_is_the_pages_the_td_holds(self) -> None:
        held = sum(PAGES[code].use in CHILD_USES for code in self.states())
        assert self.machine.td.children == held >= 0

    @invariant()
    def the_hkid_and_the_lifecycle_go_together(self) -> None:
        td = self.machine.td
        assert (td.lifecycle, td.keyid) in {
            (Lifecycle.KEYS_CONFIGURED, KeyIdState.ASSIGNED),
            (Lifecycle.BLOCKED, KeyIdState.FLUSHED),
            (Lifecycle.TEARDOWN, KeyIdState.FREE),
        }
        if td.lifecycle is Lifecycle.TEARDOWN:
            assert td.unwritten == 0

    @invariant()
    def nothing_is_dirty_under_a_free_hkid(self) -> None:
        if self.machine.td.keyid is KeyIdState.FREE:
            for page in range(COUNT + 2):
                dirty = {self.machine.line(page, n).dirty for n in range(64)}
                assert Dirty.TD not in dirty

    @invariant()
    def lines_are_kept_apart_only_where_they_differ(self) -> None:
        for page, apart in self.machine.lines.items():
            assert all(code != self.machine.pages[page] & 31 for code in apart.values())


ManyPages.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)
TestManyPages = ManyPages.TestCase
