"""What a counter's course means: states, rates, recordings, TDs of three kernels."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.costs.watch import Stated, Watch
from tdxreclaim.costs.watched import State, Watched
from tdxreclaim.errors import HostReadError
from tdxreclaim.facts.kvm.counters import Life, Look, Vm
from tdxreclaim.facts.kvm.recording import Recording
from tdxreclaim.facts.sources.kvm import LiveCounters

if TYPE_CHECKING:
    from collections.abc import Iterable

R, C, S, Z = State.RUNNING, State.COUNTING_DOWN, State.STANDING, State.ZERO
GONE, TORN = State.GONE_AFTER_ZERO, State.GONE_WITH_VALUE
ALIVE, DEAD = Life.ALIVE, Life.ZOMBIE


def _states(watched: Watched, looks: Iterable[tuple[float, int | None, Life]]) -> list[State]:
    return [watched.see(*look) for look in looks]


def test_a_shutdown_from_its_first_page_to_its_last() -> None:
    watched = Watched()
    looks: list[tuple[float, int | None, Life]] = [(0, 0, ALIVE), (1, 900, ALIVE), (2, 1000, ALIVE)]
    looks += [(3 + n, 1000 - 100 * n, DEAD) for n in range(11)] + [(14, None, DEAD)]
    assert _states(watched, looks) == [R, R, R, R, *[C] * 9, Z, GONE]
    rate = watched.rate()
    assert rate is not None
    assert (rate.page.likely_ns, rate.pages, rate.coarse) == (10_000_000, 800, False)
    assert watched.size_pages == 1000
    assert watched.done == 1.0


def test_done_and_left_while_it_falls() -> None:
    watched = Watched()
    _states(watched, [(0, 1000, ALIVE), (1, 1000, ALIVE)])
    _states(watched, [(2 + n, 900 - 100 * n, DEAD) for n in range(5)])
    assert watched.done == 0.5
    left = watched.left()
    assert left is not None
    assert left.likely_ns == 5_000_000_000


def test_who_comes_late_knows_no_share() -> None:
    watched = Watched()
    _states(watched, [(n, 1000 - 100 * n, DEAD) for n in range(5)])
    assert (watched.size_pages, watched.done) == (None, None)
    assert watched.left() is not None, "the time left needs no size"
    stated = Watched(size_pages=2000)
    _states(stated, [(n, 1000 - 100 * n, DEAD) for n in range(5)])
    assert stated.done == 0.7


def test_a_running_guest_that_gives_a_little_back_is_running() -> None:
    watched = Watched()
    looks = [(0, 100_000, ALIVE), (1, 99_950, ALIVE), (2, 99_900, ALIVE), (3, 100_200, ALIVE)]
    assert set(_states(watched, looks)) == {R}


def test_a_counter_that_stands() -> None:
    watched = Watched(patience=30)
    _states(watched, [(0, 1000, ALIVE), (1, 1000, ALIVE), (2, 900, DEAD)])
    assert watched.see(4, 900, DEAD) is C
    assert watched.see(5, 900, DEAD) is S
    assert watched.stuck_seconds == 3
    assert watched.see(32, 900, DEAD) is S
    assert watched.stuck
    assert watched.left() is None
    assert watched.see(33, 800, DEAD) is C
    assert watched.stuck_seconds == 0


def test_an_idle_guest_does_not_stand() -> None:
    watched = Watched(patience=1)
    assert set(_states(watched, [(n, 1000, ALIVE) for n in range(100)])) == {R}
    assert not watched.stuck


def test_a_gone_process_alone_is_not_done() -> None:
    watched = Watched(patience=30)
    looks: list[tuple[float, int | None, Life]] = [(0, 500, ALIVE), (1, 500, Life.GONE)]
    assert _states(watched, [*looks, (60, 500, Life.GONE)])[-1] is S
    assert watched.stuck


def test_zero_and_up_again_is_running() -> None:
    looks: list[tuple[float, int | None, Life]] = [(0, 8193, ALIVE), (1, 0, ALIVE), (2, 50, ALIVE)]
    assert _states(Watched(), looks) == [R, Z, R]


def test_a_break_makes_no_rate() -> None:
    watched = Watched()
    for at, pages, broken in ((0, 1000, False), (1, 900, False), (9000, 800, True)):
        watched.see(at, pages, DEAD, broken=broken)
    rate = watched.rate()
    assert rate is not None
    assert (rate.pages, rate.seconds) == (100, 1)


def test_the_ends_of_a_stretch_are_no_whole_intervals() -> None:
    watched = Watched()
    pages = [1000, 990, 890, 790, 690, 685]
    for at, count in enumerate(pages):
        watched.see(at, count, DEAD)
    rate = watched.rate()
    assert rate is not None
    assert (rate.pages, rate.seconds, rate.coarse) == (300, 3, False)


@given(
    st.lists(
        st.tuples(
            st.floats(0.001, 1e6),
            st.one_of(st.none(), st.integers(0, 1 << 40)),
            st.sampled_from(list(Life)),
            st.booleans(),
        )
    ),
    st.one_of(st.none(), st.integers(1, 1 << 40)),
)
def test_any_course_has_a_state_and_sound_numbers(
    looks: list[tuple[float, int | None, Life, bool]], size: int | None
) -> None:
    watched, at = Watched(size_pages=size), 0.0
    for step, pages, life, broken in looks:
        ended, at = watched.state.ended, at + step
        state = watched.see(at, pages, life, broken=broken)
        assert state.ended is (ended or pages is None)
        assert watched.done is None or 0 <= watched.done <= 1
        assert watched.stuck_seconds >= 0
        for span in (rate.page if (rate := watched.rate()) else None, watched.left()):
            assert span is None or 0 <= span.low_ns <= span.likely_ns <= span.high_ns


# What the README of the recordings implies of each kind: the states that must
# come, in this order, and how it ends.  Everything else is a running guest.
KINDS = {
    "exit": ([Z], GONE),
    "kill9": ([Z], GONE),
    "closefd": ([], TORN),
    "hold-stat-closefd": ([], TORN),
    "hold-vm": ([Z], GONE),
    "hold-vcpu": ([Z], GONE),
    "hold-stat": ([Z], GONE),
    "hold-gmem": ([Z], GONE),
    "unmap": ([C], TORN),
    "slot": ([Z], GONE),
    "munmap1": ([C], GONE),
    "fork": ([Z, R, Z], GONE),
    "dup": ([], TORN),
    "gmemclose": ([Z], GONE),
}
FOLDER = Path(__file__).parents[2] / ".." / "shared" / "cases" / "kvm-debugfs"
SERIES = sorted(path.name for path in FOLDER.glob("series-*.tsv"))
# Of an ordinary VM with guest_memfd, closing the VM leaves its pages to gmem.
OTHERWISE = {"gmem-closefd": ([Z], GONE)}
LONGEST_FIRST = sorted(KINDS, key=len, reverse=True)


def _kind(name: str, text: str) -> tuple[list[State], State]:
    run = text[2:].partition(";")[0]
    for other, expected in OTHERWISE.items():
        if f"-{other}." in name:
            return expected
    return next(KINDS[kind] for kind in LONGEST_FIRST if run.endswith(kind))


def _play(
    text: str, name: str, interval: float | None = None
) -> tuple[Watch, dict[str, list[State]]]:
    recording, watch = Recording(text, name, interval=interval), Watch()
    states: dict[str, list[State]] = {}
    while (look := recording.look(watch.known)) is not None:
        watch.see(look, recording.describe)
        for vm, each in watch.followed.items():
            course = states.setdefault(vm, [])
            if course[-1:] != [each.watched.state]:
                course.append(each.watched.state)
    return watch, states


@pytest.mark.parametrize("name", SERIES)
def test_every_recorded_series_has_the_states_that_its_kind_implies(
    name: str, shared_cases: Path
) -> None:
    text = (shared_cases / "kvm-debugfs" / name).read_text()
    if "debugfs=off" in text.partition("\n")[0]:
        with pytest.raises(HostReadError):
            _play(text, name)
        return
    watch, states = _play(text, name)
    assert states, "a VM is seen"
    wanted, end = _kind(name, text)
    for course in states.values():
        assert course[0] is R
        assert course[-1] is end
        rest = iter(course)
        assert all(state in rest for state in wanted), course
        assert S not in course, "nothing stands for seconds"
    assert not watch.stuck
    for each in watch.followed.values():
        assert each.td is None, "none of them is a TD"
        assert not watch.failed


@pytest.mark.parametrize("name", SERIES)
def test_a_careful_reader_of_the_same_run_ends_too(name: str, shared_cases: Path) -> None:
    text = (shared_cases / "kvm-debugfs" / name).read_text()
    if "debugfs=off" in text.partition("\n")[0]:
        return
    _, states = _play(text, name, interval=0.5)
    assert all(course[-1].ended for course in states.values())


def test_a_reused_name_shows_in_the_global_count_alone(shared_cases: Path) -> None:
    recording = Recording((shared_cases / "kvm-debugfs/series-dup.tsv").read_text(), "dup")
    watch, most = Watch(), 0
    while (look := recording.look(watch.known)) is not None:
        watch.see(look, recording.describe)
        most = max(most, watch.hidden_pages)
    assert most == 2049, "8 MiB and a page of code"


def test_the_sampling_is_what_the_recording_says(shared_cases: Path) -> None:
    text = (shared_cases / "kvm-debugfs/series-exit.tsv").read_text()
    period = re.search(r"period (\d+) us", text)
    assert period
    recording = Recording(text, "exit")
    first, second = recording.look({}), recording.look({})
    assert first is not None
    assert second is not None
    assert second.at - first.at == pytest.approx(int(period[1]) / 1e6)


# A TD's folder as three kernels would change it: read from their code, never
# observed.  On 6.18 and 7.1 a page that fails counts down too, on 7.3 it stays.
TD = 4 << 20
FAILED = 24


def _shut_down(root: Path, kernel: str, *, failed: int) -> tuple[Watch, list[State]]:
    import shutil

    folder = root / "sys/kernel/debug/kvm/4711-12"
    (folder / "vcpu0").mkdir(parents=True)
    (root / "proc/4711").mkdir(parents=True)
    (root / "proc/self").mkdir()
    (root / "proc/4711/status").write_text("Tgid:\t4711\n")
    (root / "proc/4711/comm").write_text("qemu\n")
    (root / "proc/4711/cmdline").write_bytes(b"qemu\0-m\x004M\0-object\0tdx-guest,id=t\0")
    stays = kernel >= "7.2"
    counters, states = LiveCounters(str(root)), []
    watch = Watch(failures_stay=stays, patience=30)

    def look(at: float, pages: int, life: str) -> None:
        for where in (folder, folder.parent):
            (where / "pages_2m").write_text("0\n")
            (where / "pages_4k").write_text(f"{pages}\n")
        (root / "proc/4711/stat").write_text(f"4711 (qemu) {life} 1\n")
        watch.see(replace(counters.look(watch.known), at=at), counters.describe)
        states.append(watch.followed["4711-12"].watched.state)

    private, shared, left = 1024, 40, failed if stays else 0
    for at in range(3):
        look(at, private + shared, "R")
    look(3, private, "Z")  # shared mappings go at exit, private ones with guest_memfd
    for step in range(1, 9):
        look(3 + step, max(private - 128 * step, left), "Z")
    look(12, left, "Z")
    shutil.rmtree(folder)
    (folder.parent / "pages_4k").write_text("0\n")
    watch.see(replace(counters.look(watch.known), at=13.0), counters.describe)
    return watch, [*states, watch.followed["4711-12"].watched.state]


@pytest.mark.parametrize("kernel", ["6.18", "7.1", "7.3"])
@pytest.mark.parametrize("failed", [0, FAILED])
def test_a_td_of_each_kernel(kernel: str, failed: int, tmp_path: Path) -> None:
    watch, states = _shut_down(tmp_path, kernel, failed=failed)
    (each,) = watch.followed.values()

    assert each.td == "tdx-guest on its command line"
    assert (each.memory_bytes, each.vcpus) == (TD, 1)
    assert states[:3] == [R, R, R]
    assert set(states[4:11]) == {C}
    if failed and kernel == "7.3":
        assert states[-2:] == [C, TORN]
        assert [each.vm.name for each in watch.failed] == ["4711-12"]
        assert each.watched.left_behind == FAILED
    else:
        assert states[-2:] == [Z, GONE]
        assert not watch.failed
    rate = each.watched.rate()
    assert rate is not None
    assert rate.page.likely_ns == pytest.approx(1e9 / 128, rel=0.05)


def _look(at: float, **pages: int) -> Look:
    named = {name.replace("_", "-").lstrip("v"): count for name, count in pages.items()}
    return Look(at=at, pages=named, total=sum(pages.values()), lives=dict.fromkeys(named, ALIVE))


def test_a_vm_is_chosen_by_its_folder_its_process_or_all() -> None:
    def describe(name: str) -> Vm:
        return Vm(name=name, pid=int(name.split("-", maxsplit=1)[0]) // 10, vcpus=1)

    for only, expected in (
        (None, {"10-1", "20-1", "25-2"}),
        ("10-1", {"10-1"}),
        ("2", {"20-1", "25-2"}),
        ("25", {"25-2"}),
        ("3", set()),
    ):
        watch = Watch(only)
        watch.see(_look(0, v10_1=5, v20_1=6, v25_2=7), describe)
        assert set(watch.followed) == expected
        assert set(watch.known) == {"10-1", "20-1", "25-2"}


def test_what_was_known_of_a_vm_is_remembered() -> None:
    told = [Vm(name="10-1", pid=10, command="qemu", vcpus=4), Vm(name="10-1")]
    watch = Watch(stated=Stated(4096 * 8, 2))
    watch.see(_look(0, v10_1=8), lambda _: told[0])
    watch.see(replace(_look(1, v10_1=4), lives={"10-1": Life.GONE}), lambda _: told[1])
    (each,) = watch.followed.values()
    assert (each.vm.command, each.vcpus, each.memory_bytes) == ("qemu", 2, 4096 * 8)
    assert each.td == "stated with --td"
    assert each.watched.done == 0.5
