"""The module's leaves against a second model, and each wrong order by name."""

from copy import deepcopy
from itertools import product

import pytest

from tdxreclaim.engine.leaves import CONDITIONS, Call
from tdxreclaim.engine.module import Actor, Machine, MachineCheck, Platform
from tdxreclaim.engine.pages import PageStore
from tdxreclaim.engine.states import (
    PAGES,
    Dirty,
    Health,
    KeyIdState,
    Lifecycle,
    Line,
    PageState,
    Use,
)
from tdxreclaim.engine.truth import Key, Op, Seen
from tdxreclaim.errors import UsageError
from tdxreclaim.tables.modulechecks import ALL_LEAVES, CHECKS, Condition
from tdxreclaim.tables.seamcalls import Leaf, Operand, Reply, Status

DIRTY_TD = Line(True, Health.MAC_FITS, Dirty.TD)


def machine(use: Use = Use.MAPPED, *, packages: int = 2, pages: int = 1) -> Machine:
    store = PageStore(pages, PageState(use, DIRTY_TD).code)
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
        if stage not in (KEYS, FLUSHED_VCPUS):
            return S.TDX_TD_KEYS_NOT_CONFIGURED
        return S.TDX_SUCCESS if stage == KEYS else S.TDX_VCPU_NOT_ASSOCIATED
    if leaf is Leaf.TDH_MNG_VPFLUSHDONE:
        if stage in (FLUSHED, HALF, WRITTEN, FREED):
            return S.TDX_LIFECYCLE_STATE_INCORRECT
        return S.TDX_FLUSHVP_NOT_DONE if stage == KEYS else S.TDX_SUCCESS
    if leaf is Leaf.TDH_PHYMEM_CACHE_WB:  # on package 0
        ready = stage in (FLUSHED, HALF, WRITTEN)
        return S.TDX_SUCCESS if ready else S.TDX_NO_HKID_READY_TO_WBCACHE
    if leaf is Leaf.TDH_MNG_KEY_FREEID:
        if stage in (FLUSHED, HALF):
            return S.TDX_WBCACHE_NOT_COMPLETE
        return S.TDX_SUCCESS if stage == WRITTEN else S.TDX_LIFECYCLE_STATE_INCORRECT
    if leaf is Leaf.TDH_PHYMEM_PAGE_WBINVD:
        return S.TDX_SUCCESS if use is Use.NDA else S.TDX_PAGE_METADATA_INCORRECT
    if leaf is Leaf.TDH_PHYMEM_PAGE_RECLAIM:
        if use in (Use.NDA, Use.RSVD):
            return S.TDX_PAGE_METADATA_INCORRECT
        if stage != FREED:
            return S.TDX_LIFECYCLE_STATE_INCORRECT
        if use is Use.TDR and children:
            return S.TDX_TD_ASSOCIATED_PAGES_EXIST
        return S.TDX_SUCCESS
    if fatal:
        return S.TDX_TD_FATAL
    if stage not in (KEYS, FLUSHED_VCPUS):
        return S.TDX_TD_KEYS_NOT_CONFIGURED
    if leaf is Leaf.TDH_MEM_TRACK:
        return S.TDX_SUCCESS
    if leaf is Leaf.TDH_MEM_RANGE_BLOCK:
        if use is Use.BLOCKED:
            return S.TDX_GPA_RANGE_ALREADY_BLOCKED
        return S.TDX_SUCCESS if use is Use.MAPPED else S.TDX_EPT_ENTRY_STATE_INCORRECT
    if use is Use.MAPPED:
        return S.TDX_GPA_RANGE_NOT_BLOCKED
    if use is not Use.BLOCKED:
        return S.TDX_EPT_ENTRY_STATE_INCORRECT
    return S.TDX_SUCCESS if tracked else S.TDX_TLB_TRACKING_NOT_DONE


@pytest.mark.parametrize("leaf", CHECKS)
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
        # Writing back what was written back changes nothing.
        idle = leaf is Leaf.TDH_PHYMEM_CACHE_WB and stage == HALF
        assert (snapshot(one) == before) == (status is not S.TDX_SUCCESS or idle), where
        assert one.td.children == children - (
            status is S.TDX_SUCCESS
            and leaf in (Leaf.TDH_MEM_PAGE_REMOVE, Leaf.TDH_PHYMEM_PAGE_RECLAIM)
            and use is not Use.TDR
        )


def test_what_each_leaf_does_when_it_may() -> None:
    one = machine(pages=2)
    line = PAGES[one.pages[0]].line

    one.call(Leaf.TDH_MEM_RANGE_BLOCK, 0)
    assert PAGES[one.pages[0]] == PageState(Use.BLOCKED, line)
    one.call(Leaf.TDH_MEM_TRACK)
    assert one.td.epoch == 2
    one.call(Leaf.TDH_MEM_PAGE_REMOVE, 0)
    assert PAGES[one.pages[0]] == PageState(Use.NDA, line)
    one.call(Leaf.TDH_PHYMEM_PAGE_WBINVD, 0)
    assert PAGES[one.pages[0]] == PageState(Use.NDA, line._replace(dirty=Dirty.NONE))
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
    assert PAGES[one.pages[1]] == PageState(Use.MAPPED, line), "one package may still hold it"
    one.call(Leaf.TDH_PHYMEM_CACHE_WB, 0)
    assert PAGES[one.pages[1]] == PageState(Use.MAPPED, line._replace(dirty=Dirty.NONE))
    one.call(Leaf.TDH_MNG_KEY_FREEID)
    assert (one.td.lifecycle, one.td.keyid) == (Lifecycle.TEARDOWN, KeyIdState.FREE)
    one.call(Leaf.TDH_PHYMEM_PAGE_RECLAIM, 1)
    assert PAGES[one.pages[1]] == PageState(Use.NDA, line._replace(dirty=Dirty.NONE))
    assert one.td.children == 0


def test_a_scripted_reply_comes_once_or_always_and_changes_nothing() -> None:
    one = machine()
    busy = Reply(S.TDX_OPERAND_BUSY, Operand.SEPT_TREE)
    one.script(Leaf.TDH_MEM_RANGE_BLOCK, 0, busy)
    one.script(Leaf.TDH_MEM_PAGE_REMOVE, 0, busy, always=True)
    before = snapshot(one)

    assert one.call(Leaf.TDH_MEM_RANGE_BLOCK) == busy
    assert snapshot(one) == before
    assert one.call(Leaf.TDH_MEM_RANGE_BLOCK).status is S.TDX_SUCCESS
    assert [one.call(Leaf.TDH_MEM_PAGE_REMOVE) for _ in range(3)] == [busy] * 3


def test_poison_in_the_td_makes_it_fatal_and_in_the_module_turns_tdx_off() -> None:
    one = machine()
    one.set_line(0, 5, Line(True, Health.POISON_HARDWARE, Dirty.NONE))

    seen, _ = one.access(Op.READ, Key.TD, 0, 5, by=Actor.TD)
    assert (seen, one.td.fatal, one.module_down) == (Seen.POISON, True, False)
    assert one.call(Leaf.TDH_MEM_RANGE_BLOCK).status is S.TDX_TD_FATAL

    one.access_page(Op.READ, Key.GLOBAL, 0, by=Actor.MODULE)
    assert one.module_down
    assert {one.call(leaf).code for leaf in CHECKS} == {0x8000FF00FFFF0000}
    assert [(check.line, check.by) for check in one.machine_checks] == [
        (5, Actor.TD),
        (5, Actor.MODULE),
    ]
    assert one.machine_checks[0].address == 5 * 64


def test_a_page_access_is_its_64_line_accesses() -> None:
    for op, key, health in product(Op, Key, Health):
        whole, apart = machine(Use.NDA), machine(Use.NDA)
        for each in (whole, apart):
            each.pages.fill(0, 1, PageState(Use.NDA, Line(True, health, Dirty.NONE)).code)
            each.set_line(0, 3, Line(False, Health.MAC_UNFIT, Dirty.NONE))
            each.set_line(0, 9, Line(True, Health.POISON_INTEGRITY, Dirty.TD))
            each.set_line(0, 10, Line(True, Health.POISON_HARDWARE, Dirty.SHARED))

        poisoned = whole.access_page(op, key, 0)
        seen = [apart.access(op, key, 0, line)[0] for line in range(64)]

        assert poisoned == seen.count(Seen.POISON)
        assert [whole.line(0, n) for n in range(64)] == [apart.line(0, n) for n in range(64)]
        assert whole.machine_checks == apart.machine_checks
        assert whole.machine_check_count == apart.machine_check_count


def test_a_resume_needs_a_saved_point_and_a_start_throws_it_away() -> None:
    one = machine(packages=1)
    one.call(Leaf.TDH_VP_FLUSH)
    one.call(Leaf.TDH_MNG_VPFLUSHDONE)
    leaf, interrupted = Leaf.TDH_PHYMEM_CACHE_WB, Reply(S.TDX_INTERRUPTED_RESUMABLE)

    assert one.call(leaf, resume=True).status is S.TDX_WBCACHE_RESUME_ERROR
    one.script(leaf, 0, interrupted)
    assert one.call(leaf) == interrupted
    assert one.call(leaf, resume=True).status is S.TDX_SUCCESS
    one.script(leaf, 0, interrupted)
    assert one.call(leaf) == interrupted
    assert one.call(leaf).status is S.TDX_SUCCESS
    assert one.call(leaf, resume=True).status is S.TDX_WBCACHE_RESUME_ERROR


def test_a_saved_point_is_of_one_package() -> None:
    one = machine(packages=3)
    one.call(Leaf.TDH_VP_FLUSH)
    one.call(Leaf.TDH_MNG_VPFLUSHDONE)
    leaf, interrupted = Leaf.TDH_PHYMEM_CACHE_WB, Reply(S.TDX_INTERRUPTED_RESUMABLE)
    one.script(leaf, 1, interrupted)

    assert one.call(leaf, 1) == interrupted
    for package in (0, 2):
        assert one.call(leaf, package, resume=True).status is S.TDX_WBCACHE_RESUME_ERROR
    assert one.call(leaf, 1, resume=True).status is S.TDX_SUCCESS


def test_the_hkid_is_free_once_every_package_wrote_back_in_whatever_order() -> None:
    one = machine(packages=3)
    one.call(Leaf.TDH_VP_FLUSH)
    one.call(Leaf.TDH_MNG_VPFLUSHDONE)
    for package in (2, 0):
        assert one.call(Leaf.TDH_PHYMEM_CACHE_WB, package).status is S.TDX_SUCCESS
        assert one.call(Leaf.TDH_MNG_KEY_FREEID).status is S.TDX_WBCACHE_NOT_COMPLETE
    assert one.call(Leaf.TDH_PHYMEM_CACHE_WB, 1).status is S.TDX_SUCCESS
    assert one.call(Leaf.TDH_MNG_KEY_FREEID).status is S.TDX_SUCCESS


def test_scripted_replies_come_in_their_order() -> None:
    one = machine()
    busy, invalid = Reply(S.TDX_OPERAND_BUSY, Operand.RCX), Reply(S.TDX_OPERAND_INVALID)
    one.script(Leaf.TDH_MEM_RANGE_BLOCK, 0, busy)
    one.script(Leaf.TDH_MEM_RANGE_BLOCK, 0, invalid)
    assert [one.call(Leaf.TDH_MEM_RANGE_BLOCK) for _ in range(2)] == [busy, invalid]


@pytest.mark.parametrize(
    ("condition", "uses"),
    [
        (Condition.IS_TDVPR, {Use.TDVPR}),
        (Condition.IS_NDA, {Use.NDA}),
        (Condition.HELD_BY_A_TD, set(Use) - {Use.NDA, Use.RSVD}),
        (Condition.NOT_BLOCKED_YET, set(Use) - {Use.BLOCKED}),
        (Condition.MAPPED, {Use.MAPPED}),
        (Condition.LEAF_ENTRY, {Use.MAPPED, Use.BLOCKED}),
        (Condition.BLOCKED, {Use.BLOCKED}),
    ],
    ids=lambda value: value.name if isinstance(value, Condition) else "",
)
def test_which_pages_meet_a_condition(condition: Condition, uses: set[Use]) -> None:
    holds = CONDITIONS[condition]
    td = machine().td
    assert {use for use in Use if holds(Call(td, use, tracked=False, number=0))} == uses


def test_a_line_that_is_like_its_page_again_is_not_kept_apart() -> None:
    one = machine()
    same = one.line(0, 5)
    one.set_line(0, 5, same._replace(health=Health.POISON_HARDWARE))
    one.set_line(0, 6, same._replace(health=Health.POISON_HARDWARE))
    assert set(one.lines[0]) == {5, 6}
    one.set_line(0, 5, same)
    assert set(one.lines[0]) == {6}
    one.set_line(0, 6, same)
    assert not one.lines


def test_a_machine_check_has_the_address_of_its_line() -> None:
    check = MachineCheck(
        pfn=0x1000, line=3, by=Actor.HOST, key=Key.GLOBAL, cause=Health.POISON_HARDWARE
    )
    assert check.address == 0x10000C0


@pytest.mark.parametrize("packages", [1, 64])
def test_a_host_may_have_as_many_packages(packages: int) -> None:
    assert Platform(erratum=True, packages=packages).packages == packages


@pytest.mark.parametrize("packages", [-1, 0, 65])
def test_a_host_cannot_have_as_many_packages(packages: int) -> None:
    with pytest.raises(UsageError, match="is not between 1 and 64"):
        Platform(erratum=True, packages=packages)


def test_a_leaf_that_no_teardown_makes_is_refused() -> None:
    with pytest.raises(KeyError):
        machine().call(Leaf.TDH_VP_ENTER)


def test_a_condition_of_the_emulator_is_one_of_the_table() -> None:
    asked = {check.condition for checks in CHECKS.values() for check in checks}

    assert set(CONDITIONS) <= asked
    assert len(set(Condition) - asked - {check.condition for check in ALL_LEAVES}) == 0
