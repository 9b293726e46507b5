"""Recordings of a kernel's tracers: synthetic ones of known costs, and what goes wrong in them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.calibrate.recordings import FUNCTIONS, Recording, calibration, functions_of, read
from tdxreclaim.costs.calibration import Beyond, CostPoint, HostRecord, Provenance
from tdxreclaim.errors import MalformedInputError
from tdxreclaim.tables.kernels import RUNS_TDS
from tdxreclaim.tables.releases import Version
from tdxreclaim.tables.teardown import Action

COSTS = {
    "tdh_mem_range_block": 2400,
    "tdh_mem_track": 1950,
    "kvm_make_all_cpus_request": 5100,
    "tdh_mem_page_remove": 2875,
    "tdh_phymem_page_wbinvd_hkid": 4020,
    "tdx_quirk_reset_page": 1890,
}
ACTIONS = {each.function: each.action for each in FUNCTIONS if each.action is not None}


def _us(ns: int) -> str:
    mark = "+" if ns > 10_000 else " "
    return f"{mark}{ns / 1000:7.3f} us"


def synthetic(pages: int, *, form: str, seed: int = 1) -> str:  # noqa: C901 - one recording in one place
    """A shutdown of *pages* with COSTS, as CPU 3 sees it, beside a noisy CPU 0."""
    noise = random.Random(seed)
    lines = ["# tracer: function_graph", "#", "# CPU  DURATION            FUNCTION CALLS"]
    clock = 1000.0

    def put(cpu: int, duration: str, function: str, *, ends: bool = False) -> None:
        nonlocal clock
        clock += 0.000001
        if form == "ftrace":
            lines.append(f" {cpu})  {duration:>12}  |  {function}")
        elif form == "proc":
            task = "qemu-kvm-4711" if cpu == 3 else "<idle>-0"
            lines.append(
                f" {clock:.6f} |   {cpu})  {task:>14}  | d..1. | {duration:>12}  |  {function}"
            )
        else:
            kind = "funcgraph_exit: " if ends else "funcgraph_entry:"
            task = "qemu-kvm-4711" if cpu == 3 else "<idle>-0"
            lines.append(
                f"   {task:>16}  [{cpu:03d}] d..1. {clock:.6f}: {kind} {duration:>12}  |  {function}"
            )

    def interrupt() -> None:
        """As each tracer shows one: ftrace with arrows, trace-cmd by its function alone."""
        if form == "trace-cmd":
            put(3, _us(40_000), "  irq_enter_rcu();")
            return
        head = f" {clock:.6f} |   3)  qemu-kvm-4711  | d..1. | " if form == "proc" else " 3)  "
        lines.append(f"{head} ==========> |")
        put(3, _us(40_000), "  handle_irq();")
        lines.append(f"{head} <========== |")

    for page in range(pages):
        put(3, "", "tdx_sept_remove_private_spte() {")
        whole = 0
        for name, cost in COSTS.items():
            took = round(noise.gauss(cost, cost / 20))
            whole += took
            if page % 7 == 0:
                # The tail of a TD on another CPU, and its timer.
                put(0, _us(took * 9), "sched_clock_tick();")
            if page % 500 == 3 and name == "tdh_mem_track":
                put(3, "", f"{name}() {{")
                interrupt()
                put(3, _us(took + 45_000), "}", ends=True)
            elif name == "tdx_quirk_reset_page":
                put(3, "", f"{name}() {{")
                put(3, _us(took - 100), "  tdx_quirk_reset_paddr();")
                put(3, _us(took), f"}} /* {name} */", ends=True)
            elif page % 3 == 0:
                put(3, "", f"{name}() {{")
                put(3, _us(took), "}", ends=True)
            else:
                put(3, _us(took), f"{name}();")
        if page % 1000 == 999:
            lines.append("CPU:3 [LOST 17 EVENTS]")
            put(3, _us(whole), "}", ends=True)
        else:
            put(3, _us(whole), "} /* tdx_sept_remove_private_spte */", ends=True)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("form", ["ftrace", "proc", "trace-cmd"])
def test_ten_thousand_pages_of_known_costs_within_two_percent(form: str) -> None:
    recording = read([("shutdown.trace", synthetic(10_000, form=form))])

    assert recording.form == ("trace-cmd report" if form == "trace-cmd" else "function_graph")
    for name, cost in COSTS.items():
        action = ACTIONS[name]
        assert action is not None
        times = recording.times[action]
        assert times.span.likely_ns == pytest.approx(cost, rel=0.02)
        assert times.span.low_ns < cost < times.span.high_ns
        assert times.samples == 10_000 - (20 if name == "tdh_mem_track" else 0)
    assert recording.interrupted == 20
    assert recording.nested == 10_000
    assert (recording.lost_events, recording.lost_notices) == (170, 10)
    assert set(recording.cpus) == {3}
    assert recording.kernels == ((6, 18), (7, 1))


def _graph(*lines: str) -> Recording:
    return read([("t", "\n".join(lines) + "\n")])


GOOD = " 1)   1.000 us    |  tdh_vp_flush();"


def test_another_task_in_a_function_holds_it_up() -> None:
    recording = _graph(
        GOOD,
        " 0)               |  tdh_mem_track() {",
        " ------------------------------------------",
        " 0)  qemu-11  =>  kworker-7",
        " ------------------------------------------",
        " 0)   3.000 us    |  tdh_mem_page_remove();",
        " 0)  kworker-7  =>  qemu-11",
        " 0) $ 99999999 us |  }",
    )
    assert recording.interrupted == 1
    assert Action.TRACK not in recording.times
    assert recording.times[Action.REMOVE].span.likely_ns == 3000


def test_the_stacks_of_two_cpus_do_not_mix() -> None:
    recording = _graph(
        " 0)               |  tdh_mem_track() {",
        " 1)               |  tdh_mem_page_remove() {",
        " 0)   2.000 us    |  }",
        " 1)   3.000 us    |  }",
    )
    assert recording.times[Action.TRACK].span.likely_ns == 2000
    assert recording.times[Action.REMOVE].span.likely_ns == 3000
    assert recording.cpus == {0: 1, 1: 1}


def test_what_began_before_or_did_not_end_is_counted_as_lost() -> None:
    recording = _graph(
        " 0)   9.000 us    |  } /* tdh_mem_track */",
        GOOD,
        " 0)               |  tdh_mem_page_remove() {",
        " 0)               |    tdh_mem_track [kvm_intel]() {",
        " 0)   4.000 us    |  } /* tdh_mem_page_remove */",
        " 0)               |  tdh_phymem_page_reclaim() {",
    )
    assert recording.lost == 3
    assert recording.times[Action.REMOVE].span.likely_ns == 4000
    assert Action.TRACK not in recording.times


def test_arguments_return_values_and_suffixes_do_not_hide_a_name() -> None:
    recording = _graph(
        " 0)   2.000 us    |  tdh_mem_track(td=0xff11); /* = 0x0 */",
        " 0)               |  tdx_clear_page.isra.0 [kvm_intel]() {",
        " 0)   1.900 us    |  } /* tdx_clear_page.isra.0 [kvm_intel] = 0 */",
    )
    assert set(recording.times) == {Action.TRACK, Action.CLEAR}
    assert recording.kernels == ((6, 16), (6, 17))


def test_functions_of_no_one_kernel_are_said() -> None:
    recording = _graph(
        " 0)   2.0 us    |  tdx_clear_page();", " 0)   2.0 us    |  tdx_quirk_reset_page();"
    )
    assert recording.kernels is None


BPFTRACE = """Attaching 12 probes...
@all[tdh_mem_track]: count 100, average 2000, total 200000

@ns[tdh_mem_track]:
[1K, 2K)              60 |@@@@@@@@@@@@|
[2K, 4K)              40 |@@@@@@@@    |

@ns[kprobe:tdx_clear_page]:
(..., 1500)            1 |            |
[1500, 1600)           2 |            |
[1900, 2000)          97 |@@@@@@@@@@@@|

@wait_us[tdh_phymem_cache_wb]:
[4K, 8K)               1 |@@@@@@@@@@@@|

@ns[do_exit]:
[4, 8)                 9 |@@@@@@@@@@@@|
Lost 3 events
"""


def test_bpftrace_maps() -> None:
    recording = read([("shutdown.bpf", BPFTRACE)])

    track = recording.times[Action.TRACK]
    assert (track.samples, track.span) == (100, (1024, 2000, 4096))
    clear = recording.times[Action.CLEAR]
    assert clear.samples == 100
    assert clear.span.likely_ns == pytest.approx(1940, rel=0.02)
    wb = recording.times[Action.CACHE_WB]
    assert 4_096_000 <= wb.span.likely_ns <= 8_192_000
    assert (recording.lost_events, recording.other_functions, recording.form) == (3, 1, "bpftrace")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "neither function_graph"),
        ("hello\n", "neither function_graph"),
        (" 0)   1.0 us    |  schedule();\n", "no step of a TD's shutdown"),
        ("@ns[tdh_mem_track]:\n[1K, 2K) lots\n", "line 2: not a bucket"),
    ],
)
def test_what_is_no_recording_says_so(text: str, why: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        read([("my.trace", text)])
    assert caught.value.what == "my.trace"
    assert caught.value.why.startswith(why)


@given(
    st.lists(
        st.sampled_from(
            [
                GOOD,
                " 0)  |  tdh_mem_track() {",
                " 0)  1.0 us |  }",
                " 0)  |  } /* tdh_mem_track */",
                " 0)   ==========> |",
                "CPU:0 [LOST 4 EVENTS]",
                " 0)  a-1  =>  b-2",
                " x-1 [000] 1.0: funcgraph_entry: 1.0 us | tdh_mem_track();",
                "@ns[tdh_mem_track]:",
                "[1, 2) 3 |@|",
                "(..., 0) 3",
            ]
        )
        | st.text(max_size=40),
        max_size=12,
    )
)
def test_any_text_is_read_or_refused(lines: list[str]) -> None:
    try:
        recording = _graph(*lines)
    except MalformedInputError:
        return
    assert all(
        0 <= t.span.low_ns <= t.span.likely_ns <= t.span.high_ns for t in recording.times.values()
    )


def test_each_release_has_one_name_for_each_step() -> None:
    for row in RUNS_TDS:
        for series in (row.first, row.last):
            assert {each.action for each in functions_of(series)} >= set(Action)
    names = {
        series: {each.function for each in functions_of(Version(*series))}
        for series in ((6, 17), (7, 2))
    }
    assert "tdx_clear_page" in names[6, 17] - names[7, 2]
    assert "tdx_quirk_reset_page" not in names[6, 17] | names[7, 2]
    assert "tdx_quirk_reset_paddr" in names[7, 2]


def test_a_recording_becomes_measured_steps_for_its_vcpus() -> None:
    record = HostRecord(name="t", host="a host", kernel="6.18", date="today", origin="a test")
    recording = read([("t", synthetic(10, form="ftrace"))])
    part = calibration(recording, record, vcpus=8)

    kick = part.steps[Action.KICK]
    assert (kick.provenance, kick.beyond) == (Provenance.MEASURED, Beyond.RISE)
    assert [point.vcpus for point in kick.points] == [8]
    assert part.steps[Action.CLEAR].beyond is Beyond.HOLD
    free = calibration(recording, record, vcpus=None).steps[Action.KICK]
    assert free.points == (CostPoint(1, kick.points[0].cost),)
