"""Whole teardowns: outcomes, leaks, faults, traces."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tdxreclaim.costs.calibration
from tdxreclaim.costs.simulate import Result, simulate
from tdxreclaim.costs.toml import load
from tdxreclaim.engine.build import build, initial_page
from tdxreclaim.engine.faults import Injections
from tdxreclaim.engine.module import Actor, MachineCheck, Platform
from tdxreclaim.engine.plan import PLANS, ClearWhen, Order, Plan, Scope
from tdxreclaim.engine.recorder import Recorder
from tdxreclaim.engine.reuse import Aftermath, Hazard, Mark, mark
from tdxreclaim.engine.shape import Shape
from tdxreclaim.engine.states import LINES, PAGES, Dirty, Health, Line, PageState, Use, describe
from tdxreclaim.engine.teardown import EmulatedHost, Reason
from tdxreclaim.engine.truth import Key, Mode, Op, Seen
from tdxreclaim.errors import UsageError
from tdxreclaim.tables.kernels import RUNS_TDS, FailedPage
from tdxreclaim.tables.seamcalls import Leaf, Operand, Reply, Status
from tdxreclaim.tables.teardown import Action, Phase

ENGINE = Path(tdxreclaim.costs.calibration.__file__).parent
CAL = load((ENGINE / "calibrations" / "published.toml").read_text(encoding="utf-8"), "published")
SMALL = Shape(memory_bytes=600 * 4096, vcpus=3)
AFFECTED = Platform(erratum=True, packages=2)
OTHER = Platform(erratum=False, packages=2)


def run(plan: Plan, platform: Platform, faults: Injections | None = None) -> Result:
    return simulate(SMALL, plan, platform, CAL, faults or Injections())


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("platform", [AFFECTED, OTHER], ids=["affected", "other"])
def test_every_plan_is_safe_as_its_kernel_runs_it(name: str, platform: Platform) -> None:
    done = run(PLANS[name], platform)

    assert done.is_clean
    assert done.pages_reclaimed == done.pages_in == SMALL.pages
    assert done.hazards[Hazard.PRIVATE_DIRTY] == 0
    assert (done.hazards[Hazard.TD_OWNED] == 0) == done.clears
    assert done.clears == (platform.erratum or name in ("6.16", "hkid-first"))


@pytest.mark.parametrize("name", PLANS)
def test_skipping_the_clear_on_an_affected_cpu_ends_in_machine_checks(name: str) -> None:
    never = PLANS[name].with_clearing(ClearWhen.NEVER)
    affected, other = run(never, AFFECTED), run(never, OTHER)

    assert affected.machine_check_count == affected.partial_writes == 16
    assert len({check.address for check in affected.machine_checks}) == 16
    first = SMALL.base_pfn * 4096
    for check in affected.machine_checks:
        assert first <= check.address < first + SMALL.memory_bytes
        assert check.address % 64 == 0
        assert check.cause is Health.POISON_INTEGRITY
    assert not affected.is_clean
    assert other.is_clean
    assert other.hazards[Hazard.TD_OWNED] == SMALL.pages
    assert run(never, AFFECTED, Injections(partial_writes=0)).is_clean


def test_poison_that_nobody_consumed_returns_unless_it_is_cleared() -> None:
    faults = Injections(poison_hardware=3, poison_integrity=2, partial_writes=0)
    kept = run(PLANS["6.18"], OTHER, faults)
    cleared = run(PLANS["6.16"], OTHER, faults)

    causes = Counter(check.cause for check in kept.machine_checks)
    assert causes == {Health.POISON_HARDWARE: 3, Health.POISON_INTEGRITY: 2}
    assert [check.cause for check in cleared.machine_checks] == [Health.POISON_HARDWARE] * 3
    assert kept.hazards[Hazard.POISON_INTEGRITY] == 2
    assert cleared.hazards[Hazard.POISON_INTEGRITY] == 0
    assert cleared.hazards[Hazard.POISON_HARDWARE] == 3


def test_a_reclaim_that_fails_leaks_its_page_and_the_tdr() -> None:
    upstream, first = (
        run(PLANS["6.18"], OTHER, Injections(reclaim_fails=2)),
        run(PLANS["hkid-first"], OTHER, Injections(reclaim_fails=2)),
    )

    for done, action in ((upstream, Action.REMOVE), (first, Action.RECLAIM)):
        page, tdr = done.leaked
        assert (page.pages, page.failure.scope, page.failure.action) == (
            2,
            Scope.GUEST_PAGE,
            action,
        )
        assert len(page.pfns) == 2
        assert (tdr.pages, tdr.failure.scope) == (1, Scope.TDR)
        assert tdr.failure.reply is not None
        assert tdr.failure.reply.status is Status.TDX_TD_ASSOCIATED_PAGES_EXIST
        assert done.pages_reclaimed == SMALL.pages - 3
        assert not done.is_clean


def test_a_fatal_td_leaks_all_guest_pages_upstream_and_none_with_the_hkid_first() -> None:
    upstream, first = (
        run(PLANS["6.18"], OTHER, Injections(fatal=True)),
        run(PLANS["hkid-first"], OTHER, Injections(fatal=True)),
    )

    assert [(leak.pages, leak.failure.scope) for leak in upstream.leaked] == [
        (600, Scope.GUEST_PAGE),
        (1, Scope.TDR),
    ]
    assert upstream.leaked[0].failure.action is Action.BLOCK
    assert upstream.leaked[0].pfns == [SMALL.base_pfn + n for n in range(16)]
    assert upstream.partial_writes == 0
    assert upstream.partial_writes_skipped == 16
    assert first.is_clean
    assert any("fatal" in note for note in first.notes)


HANDED_BACK = [name for name, plan in PLANS.items() if plan.failed_page is FailedPage.HANDED_BACK]


def test_which_kernels_hand_a_page_back_whose_removal_failed() -> None:
    assert HANDED_BACK == ["6.19", "7.2"]


@pytest.mark.parametrize("name", HANDED_BACK)
@pytest.mark.parametrize("platform", [AFFECTED, OTHER], ids=["affected", "other"])
def test_a_fatal_td_hands_all_its_pages_back_from_6_19_on(name: str, platform: Platform) -> None:
    done = run(PLANS[name], platform, Injections(fatal=True))
    (failed,) = done.handed_back

    assert (failed.pages, failed.failure.scope, failed.failure.action) == (
        600,
        Scope.GUEST_PAGE,
        Action.BLOCK,
    )
    assert failed.failure.reply == Reply(Status.TDX_TD_FATAL)
    assert [leak.failure.scope for leak in done.leaked] == [Scope.TDR]
    assert done.hazards[Hazard.STILL_THE_TDS] == 600
    assert done.hazards[Hazard.TD_OWNED] >= 600
    assert done.overwritten_lines == 600 * 64
    assert done.partial_writes == 16
    assert done.machine_check_count == (16 if platform.erratum else 0)
    assert done.pages_reclaimed == SMALL.pages - 601
    assert not done.is_clean


@pytest.mark.parametrize("name", HANDED_BACK)
@pytest.mark.parametrize("platform", [AFFECTED, OTHER], ids=["affected", "other"])
def test_a_failed_removal_hands_its_page_back_from_6_19_on(name: str, platform: Platform) -> None:
    faults = Injections(reclaim_fails=2, partial_writes=SMALL.guest_pages * 64)
    done = run(PLANS[name], platform, faults)

    (failed,) = done.handed_back
    assert (failed.pages, failed.failure.action) == (2, Action.REMOVE)
    assert done.hazards[Hazard.STILL_THE_TDS] == 2
    assert done.overwritten_lines == 2 * 64
    assert done.machine_check_count == (2 * 64 if platform.erratum else 0)
    assert [leak.failure.scope for leak in done.leaked] == [Scope.TDR]


def test_a_page_whose_flush_failed_is_handed_back_dirty_and_owned() -> None:
    machine = build(SMALL, AFFECTED)
    machine.pages.isolate(9)
    machine.script(Leaf.TDH_PHYMEM_PAGE_WBINVD, 9, Reply(Status.TDX_OPERAND_BUSY))
    host = EmulatedHost(machine, SMALL, PLANS["7.2"], prices=dict.fromkeys(Action, 1))
    host.tear_down()
    after = Aftermath(host, Recorder())

    assert after.reusable(9)
    assert host.overwritten_lines == 64
    hazards = after.hazards()
    assert (hazards[Hazard.TD_OWNED], hazards[Hazard.STILL_THE_TDS]) == (1, 0)
    assert host.leaked == {}, "the module counts it as freed, so the TDR goes too"


def test_leaked_pages_are_left_alone_when_the_host_uses_its_memory() -> None:
    machine = build(SMALL, AFFECTED)
    machine.td.fatal = True
    before = [machine.pages[page] for page in range(SMALL.guest_pages)]
    host = EmulatedHost(machine, SMALL, PLANS["6.18"], prices=dict.fromkeys(Action, 1))
    host.tear_down()
    Aftermath(host, Recorder()).use(range(SMALL.guest_pages * 64))

    kept = [machine.pages[page] for page in range(SMALL.guest_pages)]
    flushed = PageState(Use.MAPPED, Line(True, Health.MAC_FITS, Dirty.NONE)).code
    assert set(before) == {initial_page(Use.MAPPED, AFFECTED.mode).code}
    assert set(kept) == {flushed}, "CACHE.WB wrote them back, nobody else touched them"
    assert machine.machine_check_count == 0


def test_busy_is_retried_once_and_a_second_busy_leaks() -> None:
    done = run(PLANS["6.18"], OTHER, Injections(busy=6))
    counts = {(s.phase, s.action): s.count for s in done.estimate.steps}

    assert done.is_clean
    assert counts[Phase.GUEST_PAGES, Action.KICK] == 606
    for action in (Action.BLOCK, Action.TRACK, Action.REMOVE):
        assert counts[Phase.GUEST_PAGES, action] == 602

    machine = build(SMALL, OTHER)
    busy = Reply(Status.TDX_OPERAND_BUSY)
    machine.pages.isolate(5)
    machine.script(Leaf.TDH_MEM_TRACK, 5, busy)
    machine.script(Leaf.TDH_MEM_TRACK, 5, busy)
    host = EmulatedHost(machine, SMALL, PLANS["6.18"], prices=dict.fromkeys(Action, 1))
    host.tear_down()
    (first, _tdr) = host.leaked.values()
    # tdx_track() returns nothing, so that it is the REMOVE that fails.
    assert (first.pfns, first.failure.action) == ([SMALL.base_pfn + 5], Action.REMOVE)
    assert first.failure.reply == Reply(Status.TDX_TLB_TRACKING_NOT_DONE, Operand.RCX)


def test_an_hkid_that_stays_leaks_every_control_page_in_silence() -> None:
    machine = build(SMALL, OTHER)
    machine.script(Leaf.TDH_VP_FLUSH, 1, Reply(Status.TDX_OPERAND_BUSY), always=True)
    host = EmulatedHost(machine, SMALL, PLANS["6.18"], prices=dict.fromkeys(Action, 1))
    host.tear_down()

    assert {key.reason for key in host.leaked} == {Reason.HKID_STILL_ASSIGNED}
    assert sum(leak.pages for leak in host.leaked.values()) == SMALL.control_pages
    assert (Phase.HKID, Action.CACHE_WB) not in host.counts
    after = Aftermath(host, Recorder())
    assert after.reusable(0)
    assert not after.reusable(SMALL.guest_pages)


def test_a_page_that_failed_after_it_was_freed_is_given_up() -> None:
    machine = build(SMALL, OTHER)
    machine.pages.isolate(9)
    # WBINVD is not among the leaves that the kernel tries again.
    machine.script(Leaf.TDH_PHYMEM_PAGE_WBINVD, 9, Reply(Status.TDX_OPERAND_BUSY))
    host = EmulatedHost(machine, SMALL, PLANS["6.18"], prices=dict.fromkeys(Action, 1))
    host.tear_down()
    after = Aftermath(host, Recorder())

    assert PAGES[machine.pages[9]].use is Use.NDA
    assert not after.reusable(9)
    assert after.hazards()[Hazard.PRIVATE_DIRTY] == 0


def test_the_module_counts_every_page_whichever_way_it_went() -> None:
    machine = build(SMALL, OTHER)
    machine.pages.isolate(3)
    host = EmulatedHost(machine, SMALL, PLANS["6.18"], prices=dict.fromkeys(Action, 1))
    host.tear_down()

    assert machine.td.epoch == 1 + SMALL.guest_pages
    assert machine.td.children == 0


def test_the_page_of_a_machine_check_under_keyid_0_is_found() -> None:
    check = MachineCheck(pfn=1, line=2, by=Actor.HOST, key=Key.SHARED, cause=Health.POISON_HARDWARE)

    assert mark(check, OTHER, PLANS["6.18"]) is Mark.MARKED


def test_cache_wb_that_is_interrupted_is_called_again_and_packages_run_in_parallel() -> None:
    machine = build(SMALL, OTHER)
    for _ in range(3):
        machine.script(Leaf.TDH_PHYMEM_CACHE_WB, 1, Reply(Status.TDX_INTERRUPTED_RESUMABLE))
    host = EmulatedHost(machine, SMALL, PLANS["6.18"], prices=dict.fromkeys(Action, 1))
    host.tear_down()

    assert host.leaked == {}
    assert host.counts[Phase.HKID, Action.CACHE_WB] == 4


def test_cache_wb_that_never_ends_keeps_the_hkid() -> None:
    machine = build(SMALL, OTHER)
    interrupted = Reply(Status.TDX_INTERRUPTED_RESUMABLE)
    machine.script(Leaf.TDH_PHYMEM_CACHE_WB, 0, interrupted, always=True)
    host = EmulatedHost(machine, SMALL, PLANS["6.18"], prices=dict.fromkeys(Action, 1))
    host.tear_down()

    assert host.counts[Phase.HKID, Action.CACHE_WB] == 10_000
    assert {key.reason for key in host.leaked} == {Reason.HKID_STILL_ASSIGNED}


@given(
    st.integers(1, 40),
    st.sampled_from(sorted(PLANS)),
    st.sampled_from(ClearWhen),
    st.booleans(),
    st.booleans(),
    st.integers(0, 9),
)
@settings(max_examples=80)
def test_pages_done_together_come_to_the_same_as_pages_done_one_by_one(
    pages: int, name: str, clearing: ClearWhen, erratum: bool, fatal: bool, seed: int
) -> None:
    shape = Shape(memory_bytes=pages * 4096, vcpus=2)
    plan, platform = PLANS[name].with_clearing(clearing), Platform(erratum=erratum)
    faults = Injections(fatal=fatal, poison_integrity=1, reclaim_fails=1)
    every = range(shape.base_pfn, shape.base_pfn + shape.pages)

    together, apart = (
        simulate(shape, plan, platform, CAL, faults, seed=seed, watch=watch)
        for watch in ((), every)
    )

    for field in (
        "estimate",
        "clock_ns",
        "hazards",
        "pages_reclaimed",
        "pages_handed_back",
        "overwritten_lines",
        "partial_writes",
        "machine_check_count",
        "notes",
    ):
        assert getattr(together, field) == getattr(apart, field), field
    if together.machine_check_count <= 1000:
        assert together.machine_checks == apart.machine_checks
    assert {leak.failure: leak.pages for leak in together.leaked} == {
        leak.failure: leak.pages for leak in apart.leaked
    }
    if plan.clearing.clears(erratum=erratum) and not together.handed_back:
        assert together.hazards[Hazard.TD_OWNED] == 0
        assert together.hazards[Hazard.POISON_INTEGRITY] == 0
        assert together.hazards[Hazard.PRIVATE_DIRTY] == 0


def test_the_same_seed_gives_the_same_places_and_another_seed_others() -> None:
    never = PLANS["6.18"].with_clearing(ClearWhen.NEVER)
    results = [simulate(SMALL, never, AFFECTED, CAL, seed=seed) for seed in (1, 1, 2)]

    assert results[0] == results[1]
    assert results[0].machine_checks != results[2].machine_checks


def test_one_more_fault_of_one_kind_does_not_move_the_others() -> None:
    never = PLANS["6.18"].with_clearing(ClearWhen.NEVER)
    plain = run(never, AFFECTED)
    busy = run(never, AFFECTED, Injections(busy=3))

    assert plain.machine_checks == busy.machine_checks


def test_the_first_steps_of_a_trace() -> None:
    done = simulate(SMALL, PLANS["6.18"], AFFECTED, CAL, trace=8)

    assert [event.did for event in done.events] == [
        Action.BLOCK,
        Action.TRACK,
        Action.KICK,
        Action.REMOVE,
        Action.WBINVD,
        Action.CLEAR,
        Action.BLOCK,
        Action.TRACK,
    ]
    times = [event.at_ns for event in done.events]
    assert times == sorted(times)
    assert times[5] == sum(
        step.each.likely_ns for step in done.estimate.steps if step.phase is Phase.GUEST_PAGES
    )
    plain = simulate(SMALL, PLANS["6.18"], AFFECTED, CAL)
    assert (done.estimate, done.clock_ns) == (plain.estimate, plain.clock_ns)


def test_a_trace_of_everything_replays_the_bill() -> None:
    done = simulate(SMALL, PLANS["6.16"], OTHER, CAL, Injections(busy=4), trace=10**6)
    traced = Counter(
        (event.phase, event.did)
        for event in done.events
        if isinstance(event.did, Action) and event.did is not Action.CACHE_WB
    )

    assert traced == {
        (s.phase, s.action): s.count for s in done.estimate.steps if s.action is not Action.CACHE_WB
    }


def test_the_life_of_a_page_in_both_orders() -> None:
    pfn = SMALL.base_pfn + 77
    upstream = simulate(SMALL, PLANS["6.18"], OTHER, CAL, watch=[pfn]).lives[pfn]
    first = simulate(SMALL, PLANS["hkid-first"], OTHER, CAL, watch=[pfn]).lives[pfn]

    assert [event.did for event in upstream] == [
        Action.BLOCK,
        Action.TRACK,
        Action.KICK,
        Action.REMOVE,
        Action.WBINVD,
        Op.READ,
        Op.FULL_WRITE,
    ]
    assert upstream[-2].seen is Seen.ZEROS
    assert [event.did for event in first] == [
        Op.WRITE_BACK,
        Action.RECLAIM,
        Action.CLEAR,
        Op.READ,
        Op.FULL_WRITE,
    ]
    assert first[-2].seen is Seen.DATA
    # 77 pages went before it, at what a page costs.
    each = upstream[0].at_ns - CAL.steps[Action.BLOCK].at(3, SMALL.mapped_bytes).likely_ns
    assert each % 77 == 0
    for life in (upstream, first):
        for earlier, later in pairwise(life):
            assert earlier.after == later.before


def test_a_poisoned_line_shows_in_the_life_of_its_page() -> None:
    shape = Shape(memory_bytes=4096, vcpus=1)
    faults = Injections(poison_integrity=1, partial_writes=1)
    done = simulate(
        shape, PLANS["6.18"], OTHER, CAL, faults, watch=[shape.base_pfn], seed=4, trace=1
    )
    life = done.lives[shape.base_pfn]

    assert life[0].did is None
    assert life[0].line is not None
    assert life[0] == done.events[0]
    assert isinstance(life[0].after, Line)
    assert life[0].after.health is Health.POISON_INTEGRITY
    assert [event.did for event in life[-3:]] == [Op.PARTIAL_WRITE, Op.READ, Op.FULL_WRITE]
    assert life[-2].seen is Seen.POISON


def test_progress_rises_to_all_pages() -> None:
    seen: list[tuple[int, int]] = []
    simulate(SMALL, PLANS["6.18"], OTHER, CAL, progress=lambda done, of: seen.append((done, of)))

    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {of for _, of in seen} == {SMALL.pages}
    assert seen[-1][0] == SMALL.pages


def test_an_interrupt_in_progress_ends_it() -> None:
    def stop(_done: int, _of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(SMALL, PLANS["6.18"], OTHER, CAL, progress=stop)


@pytest.mark.parametrize(
    ("size", "vcpus", "why"),
    [
        (0, 1, "0 bytes: a TD has some"),
        (-4096, 1, "-4096 bytes: a TD has some"),
        (14336, 1, "14336 bytes are not a whole number of 4 KiB pages"),
        (4096, 0, "0 is not between 1 and 4096"),
        (4096, -1, "-1 is not between 1 and 4096"),
        (10 << 60, 1, f"{10 << 60} bytes exceed 52 address bits"),
    ],
)
def test_a_td_that_cannot_be(size: int, vcpus: int, why: str) -> None:
    with pytest.raises(UsageError) as raised:
        Shape(memory_bytes=size, vcpus=vcpus)
    assert raised.value.why == why


def test_other_numbers_that_cannot_be() -> None:
    with pytest.raises(UsageError):
        Shape(memory_bytes=4096, vcpus=1, base_pfn=-1)
    with pytest.raises(UsageError, match="packages: 0 is not between 1 and 64"):
        Platform(erratum=True, packages=0)
    with pytest.raises(UsageError, match="busy: -1"):
        Injections(busy=-1)
    with pytest.raises(UsageError, match="exceed the guest's 600 pages"):
        run(PLANS["6.18"], OTHER, Injections(busy=300, reclaim_fails=301))
    with pytest.raises(UsageError, match="more lines"):
        run(PLANS["6.18"], OTHER, Injections(poison_hardware=600 * 64, poison_integrity=1))
    with pytest.raises(UsageError, match="the TD has 0x100000"):
        simulate(SMALL, PLANS["6.18"], OTHER, CAL, watch=[1])
    with pytest.raises(KeyError):
        SMALL.span(Scope.VCPU)


def test_pages_of_a_shape_lie_end_to_end() -> None:
    machine = build(SMALL, OTHER)
    uses = Counter(PAGES[machine.pages[page]].use for page in range(SMALL.pages))

    assert uses == {
        Use.MAPPED: 600,
        Use.EPT: SMALL.sept_pages,
        Use.TDCX: 3 * 5 + 6,
        Use.TDVPR: 3,
        Use.TDR: 1,
    }
    assert SMALL.sept_pages == 2 + 1 + 1
    assert machine.td.children == SMALL.pages - 1
    assert SMALL.page(SMALL.base_pfn + 3) == 3


def test_the_plans_clear_when_their_kernels_do() -> None:
    clears = {
        name: [plan.clearing.clears(erratum=erratum) for erratum in (False, True)]
        for name, plan in PLANS.items()
    }

    assert (
        clears.items()
        >= {
            "6.16": [True, True],
            "6.18": [False, True],
            "6.19": [False, True],
            "7.2": [False, True],
            "hkid-first": [True, True],
        }.items()
    )
    assert {name for name, plan in PLANS.items() if not plan.released} == {"hkid-first"}
    leaks = [name for name, plan in PLANS.items() if plan.failed_page is FailedPage.LEAKED]
    assert leaks == [
        *(str(row.first) for row in RUNS_TDS if row.failed_page is FailedPage.LEAKED),
        "hkid-first",
    ]
    assert all(plan.order is Order.UPSTREAM for plan in PLANS.values() if plan.released)
    skipped = PLANS["6.18"].lines(erratum=False)
    assert Action.CLEAR not in {step.action for _, step in skipped}
    assert all(step.source for plan in PLANS.values() for _, step in plan.lines(erratum=True))


def test_a_tdr_is_flushed_under_the_global_keyid() -> None:
    pfn = SMALL.base_pfn + SMALL.pages - 1
    life = simulate(SMALL, PLANS["6.18"], AFFECTED, CAL, watch=[pfn]).lives[pfn]

    assert [event.did for event in life][:3] == [Action.RECLAIM, Action.WBINVD, Action.CLEAR]
    flushed = life[1].after
    assert isinstance(flushed, PageState)
    assert flushed.line.dirty is Dirty.NONE


def test_words_for_a_state() -> None:
    assert describe(PageState(Use.NDA, LINES[0])) == "NDA, not TD-owned"
    poisoned = Line(True, Health.POISON_HARDWARE, Dirty.SHARED)
    assert describe(PageState(Use.BLOCKED, poisoned)) == (
        "REG blocked, TD-owned, hardware poison, dirty under shared"
    )
    assert initial_page(Use.TDR, Mode.LI).line == Line(True, Health.MAC_UNFIT, Dirty.GLOBAL)


def test_placing_faults_and_using_the_memory_let_the_caller_look_in() -> None:
    shape = Shape(memory_bytes=64 << 20, vcpus=1)
    faults = Injections(poison_hardware=3000, partial_writes=3000)
    calls: list[tuple[int, int]] = []
    simulate(
        shape,
        PLANS["6.18"],
        Platform(erratum=True),
        CAL,
        faults,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls.count((0, shape.pages)) == 3000 // 1024
    assert calls.count((shape.pages, shape.pages)) > 3000 // 1024
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
