"""The module's leaves against a second model, and each wrong order by name."""

from copy import deepcopy
from itertools import product

import pytest

from tdxreclaim.engine.leaves import LEAVES, Leaf, Operand, Reply, Status
from tdxreclaim.engine.module import Actor, Machine, Platform
from tdxreclaim.engine.pages import PageStore
from tdxreclaim.engine.states import PAGES, Dirty, Health, KeyIdState, Lifecycle, Line, Page, Use
from tdxreclaim.engine.truth import Key, Op, Seen

DIRTY_TD = Line(True, Health.MAC_FITS, Dirty.TD)


def machine(use: Use = Use.MAPPED, *, packages: int = 2, pages: int = 1) -> Machine:
    store = PageStore(pages, Page(use, DIRTY_TD).code)
    return Machine(Platform(erratum=True, packages=packages), store, vcpus=1)


def snapshot(one: Machine) -> object:
    states = [one.pages[page] for page in range(one.pages.pages)]
    return deepcopy((one.td, states, one.lines, one.module_down))


# How far a TD is, as one number, and what the module's fields are then.
STAGES = [
    ("keys", Lifecycle.KEYS_CONFIGURED, KeyIdState.ASSIGNED, 0b00, {0}),
    ("vcpus flushed", Lifecycle.KEYS_CONFIGURED, KeyIdState.ASSIGNED, 0b00, set()),
    ("vpflushdone", Lifecycle.BLOCKED, KeyIdState.FLUSHED, 0b11, set()),
    ("package 0 written", Lifecycle.BLOCKED, KeyIdState.FLUSHED, 0b10, set()),
    ("all written", Lifecycle.BLOCKED, KeyIdState.FLUSHED, 0b00, set()),
    ("freed", Lifecycle.TEARDOWN, KeyIdState.FREE, 0b00, set()),
    ("created", Lifecycle.HKID_ASSIGNED, KeyIdState.ASSIGNED, 0b00, set()),
]
KEYS, FLUSHED_VCPUS, FLUSHED, HALF, WRITTEN, FREED, CREATED = range(7)
S = Status


def expected(leaf: Leaf, stage: int, use: Use, *, fatal: bool, tracked: bool, children: int) -> S:  # noqa: C901, PLR0911, PLR0912 - one model in one place
    """The second model: what the module answers, from how far the TD is."""
    if leaf is Leaf.TDH_VP_FLUSH:
        return S.SUCCESS if stage == KEYS else S.TDX_VCPU_NOT_ASSOCIATED
    if leaf is Leaf.TDH_MNG_VPFLUSHDONE:
        if stage in (FLUSHED, HALF, WRITTEN, FREED):
            return S.TDX_LIFECYCLE_STATE_INCORRECT
        return S.TDX_FLUSHVP_NOT_DONE if stage == KEYS else S.SUCCESS
    if leaf is Leaf.TDH_PHYMEM_CACHE_WB:  # on package 0
        return S.SUCCESS if stage == FLUSHED else S.TDX_NO_HKID_READY_TO_WBCACHE
    if leaf is Leaf.TDH_MNG_KEY_FREEID:
        if stage in (FLUSHED, HALF):
            return S.TDX_WBCACHE_NOT_COMPLETE
        return S.SUCCESS if stage == WRITTEN else S.TDX_LIFECYCLE_STATE_INCORRECT
    if leaf is Leaf.TDH_PHYMEM_PAGE_WBINVD:
        return S.SUCCESS if use is Use.NDA else S.TDX_PAGE_METADATA_INCORRECT
    if leaf is Leaf.TDH_PHYMEM_PAGE_RECLAIM:
        if use in (Use.NDA, Use.RSVD):
            return S.TDX_PAGE_METADATA_INCORRECT
        if stage != FREED:
            return S.TDX_LIFECYCLE_STATE_INCORRECT
        if use is Use.TDR and children:
            return S.TDX_TD_ASSOCIATED_PAGES_EXIST
        return S.SUCCESS
    if stage not in (KEYS, FLUSHED_VCPUS):
        return S.TDX_LIFECYCLE_STATE_INCORRECT
    if fatal:
        return S.TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE
    if leaf is Leaf.TDH_MEM_TRACK:
        return S.SUCCESS
    if leaf is Leaf.TDH_MEM_RANGE_BLOCK:
        return S.SUCCESS if use is Use.MAPPED else S.TDX_EPT_ENTRY_STATE_INCORRECT
    if use is Use.MAPPED:
        return S.TDX_GPA_RANGE_NOT_BLOCKED
    if use is not Use.BLOCKED:
        return S.TDX_EPT_ENTRY_STATE_INCORRECT
    return S.SUCCESS if tracked else S.TDX_TLB_TRACKING_NOT_DONE


@pytest.mark.parametrize("leaf", Leaf)
@pytest.mark.parametrize("stage", range(len(STAGES)), ids=[s[0] for s in STAGES])
def test_every_leaf_in_every_state_agrees_with_the_second_model(leaf: Leaf, stage: int) -> None:
    for use, fatal, tracked, children in product(Use, (False, True), (False, True), (0, 1)):
        if children == 0 and use in (Use.MAPPED, Use.BLOCKED, Use.TDCX, Use.TDVPR, Use.EPT):
            continue  # the page itself is a child
        if not tracked and use is not Use.BLOCKED:
            continue
        one = machine(Use.MAPPED if not tracked else use)
        if not tracked:
            one.call(Leaf.TDH_MEM_RANGE_BLOCK)
        _, one.td.lifecycle, one.td.keyid, one.td.unwritten, associated = STAGES[stage]
        one.td.associated = set(associated)
        one.td.fatal, one.td.children = fatal, children
        before = snapshot(one)

        status = one.call(leaf).status

        where = f"{leaf.name} {use.name} fatal={fatal} tracked={tracked} children={children}"
        assert status == expected(
            leaf, stage, use, fatal=fatal, tracked=tracked, children=children
        ), where
        assert (snapshot(one) == before) == (status is not S.SUCCESS), where
        assert one.td.children == children - (
            status is S.SUCCESS
            and leaf in (Leaf.TDH_MEM_PAGE_REMOVE, Leaf.TDH_PHYMEM_PAGE_RECLAIM)
            and use is not Use.TDR
        )


def test_what_each_leaf_does_when_it_may() -> None:
    one = machine(pages=2)
    line = PAGES[one.pages[0]].line

    one.call(Leaf.TDH_MEM_RANGE_BLOCK, 0)
    assert PAGES[one.pages[0]] == Page(Use.BLOCKED, line)
    one.call(Leaf.TDH_MEM_TRACK)
    assert one.td.epoch == 2
    one.call(Leaf.TDH_MEM_PAGE_REMOVE, 0)
    assert PAGES[one.pages[0]] == Page(Use.NDA, line)
    one.call(Leaf.TDH_PHYMEM_PAGE_WBINVD, 0)
    assert PAGES[one.pages[0]] == Page(Use.NDA, line._replace(dirty=Dirty.NONE))
    one.call(Leaf.TDH_VP_FLUSH)
    assert one.td.associated == set()
    one.call(Leaf.TDH_MNG_VPFLUSHDONE)
    assert (one.td.lifecycle, one.td.keyid, one.td.unwritten) == (
        Lifecycle.BLOCKED,
        KeyIdState.FLUSHED,
        0b11,
    )
    one.call(Leaf.TDH_PHYMEM_CACHE_WB, 1)
    assert one.td.unwritten == 0b01
    assert PAGES[one.pages[1]] == Page(Use.MAPPED, line), "one package may still hold it"
    one.call(Leaf.TDH_PHYMEM_CACHE_WB, 0)
    assert PAGES[one.pages[1]] == Page(Use.MAPPED, line._replace(dirty=Dirty.NONE))
    one.call(Leaf.TDH_MNG_KEY_FREEID)
    assert (one.td.lifecycle, one.td.keyid) == (Lifecycle.TEARDOWN, KeyIdState.FREE)
    one.call(Leaf.TDH_PHYMEM_PAGE_RECLAIM, 1)
    assert PAGES[one.pages[1]] == Page(Use.NDA, line._replace(dirty=Dirty.NONE))
    assert one.td.children == 0


WRONG_ORDERS = {
    "RECLAIM before FREEID": (
        [Leaf.TDH_PHYMEM_PAGE_RECLAIM],
        0xC000060700000080,
    ),
    "RECLAIM twice": (
        [
            Leaf.TDH_VP_FLUSH,
            Leaf.TDH_MNG_VPFLUSHDONE,
            Leaf.TDH_PHYMEM_CACHE_WB,
            Leaf.TDH_MNG_KEY_FREEID,
            Leaf.TDH_PHYMEM_PAGE_RECLAIM,
            Leaf.TDH_PHYMEM_PAGE_RECLAIM,
        ],
        0xC000030000000001,
    ),
    "FREEID before CACHE.WB": (
        [Leaf.TDH_VP_FLUSH, Leaf.TDH_MNG_VPFLUSHDONE, Leaf.TDH_MNG_KEY_FREEID],
        0x8000081700000000,
    ),
    "FREEID before VPFLUSHDONE": ([Leaf.TDH_MNG_KEY_FREEID], 0xC000060700000080),
    "VPFLUSHDONE before VP.FLUSH": ([Leaf.TDH_MNG_VPFLUSHDONE], 0x8000082400000000),
    "VP.FLUSH twice": ([Leaf.TDH_VP_FLUSH, Leaf.TDH_VP_FLUSH], 0x8000070200000000),
    "REMOVE before BLOCK": ([Leaf.TDH_MEM_PAGE_REMOVE], 0xC0000B0600000001),
    "REMOVE before TRACK": (
        [Leaf.TDH_MEM_RANGE_BLOCK, Leaf.TDH_MEM_PAGE_REMOVE],
        0xC0000B0800000001,
    ),
    "REMOVE after TRACK before BLOCK": (
        [Leaf.TDH_MEM_TRACK, Leaf.TDH_MEM_RANGE_BLOCK, Leaf.TDH_MEM_PAGE_REMOVE],
        0xC0000B0800000001,
    ),
    "BLOCK twice": ([Leaf.TDH_MEM_RANGE_BLOCK, Leaf.TDH_MEM_RANGE_BLOCK], 0xC0000B0D00000001),
    "WBINVD before REMOVE": ([Leaf.TDH_PHYMEM_PAGE_WBINVD], 0xC000030000000001),
    "BLOCK after VPFLUSHDONE": (
        [Leaf.TDH_VP_FLUSH, Leaf.TDH_MNG_VPFLUSHDONE, Leaf.TDH_MEM_RANGE_BLOCK],
        0xC000060700000080,
    ),
    "CACHE.WB before VPFLUSHDONE": ([Leaf.TDH_PHYMEM_CACHE_WB], 0x0000082100000000),
}


@pytest.mark.parametrize(("leaves", "code"), WRONG_ORDERS.values(), ids=list(WRONG_ORDERS))
def test_a_wrong_order_returns_its_status_and_changes_nothing(
    leaves: list[Leaf], code: int
) -> None:
    one = machine(packages=1)
    for leaf in leaves[:-1]:
        assert one.call(leaf).status is S.SUCCESS
    before = snapshot(one)

    reply = one.call(leaves[-1])

    assert hex(reply.code) == hex(code)
    assert snapshot(one) == before


def test_a_tdr_with_pages_left_is_not_reclaimed() -> None:
    one = machine(Use.TDR, packages=1)
    for leaf in (Leaf.TDH_VP_FLUSH, Leaf.TDH_MNG_VPFLUSHDONE, Leaf.TDH_PHYMEM_CACHE_WB):
        one.call(leaf)
    one.call(Leaf.TDH_MNG_KEY_FREEID)
    one.td.children = 1

    assert one.call(Leaf.TDH_PHYMEM_PAGE_RECLAIM).code == 0xC000040000000080
    one.td.children = 0
    assert one.call(Leaf.TDH_PHYMEM_PAGE_RECLAIM).status is S.SUCCESS


def test_a_scripted_reply_comes_once_or_always_and_changes_nothing() -> None:
    one = machine()
    busy = Reply(S.TDX_OPERAND_BUSY, Operand.SEPT)
    one.script(Leaf.TDH_MEM_RANGE_BLOCK, 0, busy)
    one.script(Leaf.TDH_MEM_PAGE_REMOVE, 0, busy, always=True)
    before = snapshot(one)

    assert one.call(Leaf.TDH_MEM_RANGE_BLOCK) == busy
    assert snapshot(one) == before
    assert one.call(Leaf.TDH_MEM_RANGE_BLOCK).status is S.SUCCESS
    assert [one.call(Leaf.TDH_MEM_PAGE_REMOVE) for _ in range(3)] == [busy] * 3


def test_poison_in_the_td_makes_it_fatal_and_in_the_module_turns_tdx_off() -> None:
    one = machine()
    one.set_line(0, 5, Line(True, Health.POISON_HARDWARE, Dirty.NONE))

    seen, _ = one.access(Op.READ, Key.TD, 0, 5, by=Actor.TD)
    assert (seen, one.td.fatal, one.module_down) == (Seen.POISON, True, False)
    assert one.call(Leaf.TDH_MEM_RANGE_BLOCK).status is S.TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE

    one.access_page(Op.READ, Key.GLOBAL, 0, by=Actor.MODULE)
    assert one.module_down
    assert {one.call(leaf).code for leaf in Leaf} == {-1}
    assert [(check.line, check.by) for check in one.machine_checks] == [
        (5, Actor.TD),
        (5, Actor.MODULE),
    ]
    assert one.machine_checks[0].address == 5 * 64


def test_a_page_access_is_its_64_line_accesses() -> None:
    for op, key, health in product(Op, Key, Health):
        whole, apart = machine(Use.NDA), machine(Use.NDA)
        for each in (whole, apart):
            each.pages.fill(0, 1, Page(Use.NDA, Line(True, health, Dirty.NONE)).code)
            each.set_line(0, 3, Line(False, Health.MAC_UNFIT, Dirty.NONE))
            each.set_line(0, 9, Line(True, Health.POISON_INTEGRITY, Dirty.TD))
            each.set_line(0, 10, Line(True, Health.POISON_HARDWARE, Dirty.SHARED))

        poisoned = whole.access_page(op, key, 0)
        seen = [apart.access(op, key, 0, line)[0] for line in range(64)]

        assert poisoned == seen.count(Seen.POISON)
        assert [whole.line(0, n) for n in range(64)] == [apart.line(0, n) for n in range(64)]
        assert whole.machine_checks == apart.machine_checks
        assert whole.machine_check_count == apart.machine_check_count


def test_success_is_a_class_and_every_check_can_be_looked_up() -> None:
    assert {status for status in Status if status.is_success} == {
        S.SUCCESS,
        S.TDX_NO_HKID_READY_TO_WBCACHE,
    }
    assert set(LEAVES) == set(Leaf)
    assert all(check.says and check.source for spec in LEAVES.values() for check in spec.checks)
