"""Each sentence, played: what the machine makes of it."""

import pytest

from tdxreclaim.engine.plan import PLANS
from tdxreclaim.engine.reuse import Mark
from tdxreclaim.engine.scenarios import SCENARIOS, scenario
from tdxreclaim.engine.script import Act, ScenarioStep
from tdxreclaim.engine.states import Dirty, Health
from tdxreclaim.engine.truth import Mode, Seen
from tdxreclaim.errors import UsageError
from tdxreclaim.tables.kernels import RUNS_TDS, FailedPage
from tdxreclaim.tables.seamcalls import Status
from tdxreclaim.tables.sources import Certainty


def acts(name: str) -> tuple[Act, ...]:
    return scenario(name).run()


def ends(name: str) -> list[ScenarioStep]:
    return [act.steps[-1] for act in acts(name)]


def seen(act: Act) -> list[Seen]:
    return [step.seen for step in act.steps if step.seen not in (None, Seen.NOTHING)]


def statuses(name: str) -> list[Status]:
    (act,) = acts(name)
    return [step.reply.status for step in act.steps if step.reply is not None]


def machine_checks(act: Act) -> int:
    return sum(step.machine_check for step in act.steps)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_step_says_how_well_it_is_known(name: str) -> None:
    assert scenario(name).says
    for act in acts(name):
        assert act.steps
        for step in act.steps:
            assert step.source
            assert step.did
            assert isinstance(step.certainty, Certainty)


def test_an_unknown_scenario_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not one of clear-converts"):
        scenario("nope")


def test_clear_converts_without_a_violation() -> None:
    for act in acts("clear-converts"):
        line = act.steps[-1].line
        assert (line.owner, line.health) == (False, Health.MAC_UNFIT)
        assert (seen(act), machine_checks(act)) == ([Seen.DATA], 0)


def test_clear_cures_integrity_poison_unconsumed_and_not_hardware_poison() -> None:
    assert [machine_checks(act) for act in acts("clear-cures-integrity-poison")] == [0, 0]
    assert [seen(act) for act in acts("clear-keeps-hardware-poison")] == [[Seen.POISON]] * 2


def test_keyid_0_reads_zeros_and_harms_nobody_or_poisons_as_a_note_has_it() -> None:
    li, ci, noted = acts("keyid0-reads-zeros")

    assert (li.platform.mode, ci.platform.mode, noted.platform.mode) == (
        Mode.LI,
        Mode.CI,
        Mode.CI,
    )
    for act in (li, ci):
        assert (seen(act), machine_checks(act)) == ([Seen.ZEROS, Seen.DATA], 0)
    assert (seen(noted), machine_checks(noted)) == ([Seen.POISON] * 2, 2)
    assert [act.steps[0].certainty for act in (li, ci, noted)] == [
        Certainty.VERIFIED,
        Certainty.CONTESTED,
        Certainty.CONTESTED,
    ]
    for act in (ci, noted):
        for whose in ("Bityutskiy", "01fb93a363e0", "16.2.2"):
            assert whose in act.steps[0].source


def test_a_shared_key_with_integrity_meets_poison_in_ci_after_keyid_0_wrote() -> None:
    found = {act.platform.mode: seen(act) for act in acts("shared-integrity")}

    assert found == {
        Mode.CI: [Seen.POISON, Seen.POISON],
        Mode.LI: [Seen.ZEROS, Seen.DATA],
    }
    assert {act.steps[-1].certainty for act in acts("shared-integrity")} == {Certainty.INFERRED}


def test_a_partial_write_poisons_in_silence_on_affected_cpus_only() -> None:
    for act in acts("partial-write-affected"):
        write, read = act.steps[-2:]
        assert not write.machine_check
        assert read.machine_check
        assert "tdx_pw_mce" in write.source
    for act in (*acts("partial-write-unaffected"), *acts("partial-write-cleared")):
        assert machine_checks(act) == 0
        assert not act.steps[-1].line.owner


def test_reported_poison_is_not_marked_by_any_release_that_we_know() -> None:
    with_nr, without_nr = acts("poison-reported")
    notes = [step.note for step in with_nr.steps if step.note is not None]

    released = [plan for plan in PLANS.values() if plan.released]
    assert notes == [*([Mark.NOT_FOUND.value] * len(released)), Mark.MARKED.value]
    assert {step.note for step in without_nr.steps} == {None, Mark.NOT_TRIED.value}
    for act in (with_nr, without_nr):
        assert act.steps[-1].machine_check, "the page is back, the poison with it"
        assert act.steps[-2].reply is not None
        assert act.steps[-2].reply.status is Status.TDX_SUCCESS


def test_unreported_poison_returns_with_the_page_and_clearing_hides_it() -> None:
    (act,) = acts("poison-unreported")

    assert seen(act) == [Seen.POISON, Seen.DATA]


@pytest.mark.parametrize("name", ["remove-keeps-contents", "reclaim-keeps-contents"])
def test_contents_are_not_touched(name: str) -> None:
    (act,) = acts(name)

    assert {step.line for step in act.steps} == {act.steps[0].line}
    assert act.steps[-1].page_type.name == "NDA"


def test_a_late_write_back_takes_the_line_for_the_td_again() -> None:
    (end,) = ends("late-write-back")

    assert end.line.owner
    assert end.line.dirty is Dirty.NONE
    assert end.seen is Seen.ZEROS


def test_a_page_whose_removal_fails_is_lost_or_dangerous() -> None:
    affected, other = acts("removal-fails")
    for act in (affected, other):
        notes = [step.note for step in act.steps if step.note is not None]
        assert ["leaks" in note for note in notes] == [
            row.failed_page is FailedPage.LEAKED for row in RUNS_TDS
        ]
        assert Status.TDX_TD_FATAL in {step.reply.status for step in act.steps if step.reply}
        assert Seen.ZEROS in seen(act), "what the host wrote is gone"
        assert act.steps[-1].page_type.name == "REG", "the module still has it as the TD's"
    assert [machine_checks(act) for act in (affected, other)] == [1, 0]


def test_wrong_orders_get_their_statuses() -> None:
    ok = Status.TDX_SUCCESS
    assert statuses("remove-before-block") == [
        Status.TDX_GPA_RANGE_NOT_BLOCKED,
        ok,
        Status.TDX_TLB_TRACKING_NOT_DONE,
        ok,
        ok,
    ]
    assert statuses("freeid-before-cache-wb") == [
        Status.TDX_LIFECYCLE_STATE_INCORRECT,
        Status.TDX_FLUSHVP_NOT_DONE,
        ok,
        ok,
        ok,
        Status.TDX_WBCACHE_NOT_COMPLETE,
        ok,
        ok,
        Status.TDX_NO_HKID_READY_TO_WBCACHE,
    ]
    reclaim = statuses("reclaim-before-freeid")
    assert reclaim[0] is Status.TDX_LIFECYCLE_STATE_INCORRECT
    assert reclaim[-2:] == [ok, Status.TDX_PAGE_METADATA_INCORRECT]
    assert statuses("wbinvd-before-remove")[0] is Status.TDX_PAGE_METADATA_INCORRECT
    assert statuses("cache-wb-interrupted")[2:] == [
        Status.TDX_INTERRUPTED_RESUMABLE,
        Status.TDX_WBCACHE_NOT_COMPLETE,
        ok,
        ok,
    ]
    assert statuses("operand-busy") == [Status.TDX_OPERAND_BUSY]
    (end,) = ends("operand-busy")
    assert end.page_type.name == "NDA"
    assert end.note is not None
    assert "2 x TDH.MEM.RANGE.BLOCK, 2 x kick vCPUs" in end.note
