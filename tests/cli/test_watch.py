"""`watch`: what is shown, how it ends, what it records."""

from __future__ import annotations

import contextlib
import io
import json
import re
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from tdxreclaim.cli import main, watch_screen
from tdxreclaim.costs.toml import load
from tdxreclaim.facts.sources.kvm import LiveCounters
from tdxreclaim.report.schemas import read_schema
from tdxreclaim.tables.teardown import Action

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import RunTool

NAME = "4711-12"


def series(*, page_ns: int = 14_000, pages: int = 5_242_880, end: str = "zero") -> str:
    """Return a recorded run of a made-up TD of 20 GiB, a sample a second."""
    rows = [f"0\t{NAME}\tdir\t", f"0\t{NAME}/vcpu0\tdir\t", f"0\t{NAME}/pages_2m\t0\t"]
    rows += ["0\tproc/4711/state\talive\t", f"0\t{NAME}/pages_4k\t{pages}\t"]
    rows += ["4900\tproc/4711/state\tZ\t"]
    each, left, second = 1_000_000_000 // page_ns, pages, 5
    while left > 0 and not (end == "standing" and left < pages // 2):
        left = max(0, left - each)
        rows.append(f"{second * 1000 - 1}\t{NAME}/pages_4k\t{left}\t")
        second += 1
    if end == "zero":
        rows.append(f"{second * 1000}\t{NAME}\t\tfolder gone")
        second += 1
    last = second + (40 if end == "standing" else 1)
    rows.append(f"{last * 1000}\t-\t\tthe end")
    return "# made up; period 1000000 us\nms\tpath\tvalue\tevent\n" + "\n".join(rows) + "\n"


@pytest.fixture
def played(tmp_path: Path) -> Path:
    path = tmp_path / "run.tsv"
    path.write_text(series())
    return path


def _objects(text: str) -> list[dict[str, Any]]:
    schema = jsonschema.Draft202012Validator(json.loads(read_schema("watch")))
    found = [json.loads(line) for line in text.splitlines()]
    for each in found:
        schema.validate(each)
    return found


def test_a_played_shutdown_as_lines(run: RunTool, played: Path) -> None:
    ran = run("watch", "--replay", str(played), "--td", "20GiB:64", "--until-done")
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == f"  {NAME}   a process 4711, 20 GiB, 64 vCPUs, a TD: stated with --td"
    assert f"      0.0 s  {NAME}  5,242,880 pages  running" in lines
    falling = [line for line in lines if "counting-down" in line]
    assert "71,428/s, 14 us a page, 4 % done, 70 s left" in falling[2]
    said = " ".join(ran.out.split())
    assert "a page costs 14.0 us (14.0 to 14.0); the published rows say 15 to 53 us." in said
    assert "gone-after-zero: all pages are back; HKID and control pages are not visible" in said
    assert "it was never observed on a TDX host" in said


def test_a_played_shutdown_as_json_lines_that_can_be_played_again(
    run: RunTool, played: Path, tmp_path: Path
) -> None:
    asked = ("--td", "20GiB:64", "--format", "json", "--until-done")
    ran = run("watch", "--replay", str(played), *asked)
    samples = _objects(ran.out)
    end = samples.pop()
    assert (ran.status, end["event"], end["exit_status"]) == (0, "end", 0)
    assert end["measured"]["page"]["likely_ns"] == pytest.approx(14_000, abs=2)
    states = [sample["vms"][0]["state"] for sample in samples]
    assert list(dict.fromkeys(states)) == ["running", "counting-down", "zero", "gone-after-zero"]
    again = tmp_path / "again.jsonl"
    again.write_text(ran.out)
    twice = run("watch", "--replay", str(again), *asked)
    assert _objects(twice.out) == [*samples, end]


class Terminal(io.StringIO):
    """What a terminal gets."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_table_that_is_drawn_again(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = tree / f"sys/kernel/debug/kvm/{NAME}/pages_4k"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(watch_screen, "_REDRAW_SECONDS", 0.0)
    _waits(monkeypatch, lambda: None, lambda: pages.write_text("400\n"), KeyboardInterrupt())
    out, err = Terminal(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["watch", NAME, "--root", str(tree)])
    assert status == 130
    drawn = out.getvalue()
    assert drawn.count("pages left") >= 3
    assert "\x1b[1A" in drawn, "drawn over what was there"
    assert f"{NAME}   running: no shutdown is seen" in drawn
    assert "counting-down: KVM takes its pages back; not known to be a TD" in " ".join(
        drawn.split()
    )


def test_a_dumb_terminal_gets_lines(played: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    with contextlib.redirect_stdout(out):
        main(["watch", "--replay", str(played), "--color", "never"])
    assert "\x1b" not in out.getvalue()


def test_a_record_is_a_calibration(run: RunTool, played: Path, tmp_path: Path) -> None:
    host = tmp_path / "host.toml"
    recorded = ("--cpu", "gnr", "--kernel", "7.3", "--td", "20GiB:64", "--record", str(host))
    ran = run("watch", "--replay", str(played), *recorded)
    assert ran.status == 0
    assert ran.err == f"tdxreclaim: watch: recorded: tdxreclaim simulate --calibration {host}\n"
    record = load(host.read_text(), "host")
    (row,) = record.rows
    assert (row.vcpus, row.memory_bytes, record.cpu) == (64, 20 << 30, "GenuineIntel 6/0xad")
    assert row.seconds == pytest.approx(5_242_880 * 14e-6, rel=0.01)
    assert "pages_4k of a TD (stated with --td)" in row.source
    assert "falling stretches: " in row.source
    steps = ("block", "track", "kick", "remove", "wbinvd")
    total = sum(record.steps[Action(step)].at(64, 20 << 30).likely_ns for step in steps)
    assert total == pytest.approx(14_000, abs=10)
    asked = ("--cpu", "gnr", "--kernel", "7.3", "--memory", "20GiB", "--vcpus", "64")
    simulated = json.loads(run("simulate", *asked, "--calibration", str(host), "-f", "json").out)
    likely = simulated["estimate"]["total"]["likely_ns"] / 1e9
    assert likely == pytest.approx(row.seconds, rel=0.01)
    fitted = run("calibrate", "fit", str(host), "-f", "json")
    assert json.loads(fitted.out)["fit"]["page"]["likely_ns"] == pytest.approx(14_000, abs=10)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--record", "x.toml"), 2, "--record: requires --cpu and --kernel with --replay"),
        (("--record", "-"), 2, "--record: writes a file"),
        (("--all", NAME), 2, "--all: contradicts"),
        (("--root", "/x"), 2, "--root: contradicts --replay"),
        (("--interval", "soon"), 2, "--interval: "),
        (("--patience", "0"), 2, "--patience: "),
        (("--td", "lots"), 2, "--td: "),
        (("--td", "1GiB:0"), 2, "--td: 0 vCPUs"),
        (("--td", "1GiB:"), 2, "--td: "),
        (("1-2",), 3, "1-2: no such VM: it is gone, or has no folder; there are 4711-12"),
        (
            ("--record", "x.toml", "--cpu", "gnr", "--kernel", "7.3"),
            3,
            "--record: none of the VMs is known to be a TD",
        ),
        (
            ("--record", "x.toml", "--cpu", "gnr", "--kernel", "6.12"),
            2,
            "kernel: 6.12 cannot run TDs",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_gets_one_line(
    arguments: tuple[str, ...], status: int, said: str, run: RunTool, played: Path
) -> None:
    ran = run("watch", "--replay", str(played), *arguments, cwd=played.parent)
    assert ran.status == status
    assert f"tdxreclaim: {said}" in ran.err
    assert ran.err.count("\n") == 1
    assert not (played.parent / "x.toml").exists()


def test_what_stands_is_stuck(run: RunTool, tmp_path: Path) -> None:
    path = tmp_path / "run.tsv"
    path.write_text(series(end="standing"))
    asked = ("watch", "--replay", str(path), "--td", "20GiB:64", "--kernel", "7.3", "--until-done")
    ran = run(*asked)
    assert ran.status == 20
    text = " ".join(ran.out.split())
    assert (
        f"{NAME} is stuck: over 30 s without a page. Who still holds a VM, vCPU or guest_memfd"
        in text
    )
    assert "Look at /proc/4711/task/*/stack and at the kernel log." in text
    assert "On 7.2 and later a page whose removal fails does not count down." in text
    assert "does not count down" not in run(*asked, "--kernel", "7.1").out
    end = _objects(run(*asked, "-f", "json").out)[-1]
    assert (end["exit_status"], end["stuck"]) == (20, [NAME])


def test_lines_say_once_that_it_is_stuck_and_who_holds_it(
    run: RunTool, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = tree / f"sys/kernel/debug/kvm/{NAME}/pages_4k"
    holder = tree / "proc/99/fd"
    holder.mkdir(parents=True)
    (holder / "7").symlink_to("anon_inode:kvm-vm")
    looks = iter([0.0, 1.0, 2.0, 40.0, 41.0, 42.0, 43.0])
    monkeypatch.setattr("time.monotonic", lambda: next(looks))
    _waits(monkeypatch, lambda: pages.write_text("500\n"), *[lambda: None] * 4, KeyboardInterrupt())
    ran = run("watch", "--root", str(tree))
    assert ran.status == 130
    lines, _, end = ran.out.partition("\n  4711-12   standing: ")
    for said in (lines, end):
        assert said.count("4711-12 is stuck: over 30 s without a page") == 1
        assert said.count("holds KVM: a process 99: kvm-vm") == 1


def test_an_old_kernel_is_warned_of(run: RunTool, played: Path) -> None:
    ran = run("watch", "--replay", str(played), "--kernel", "5.15")
    assert ran.status == 0
    assert ran.err.startswith("tdxreclaim: watch: kernel 5.15 is older than what was read (6.12)")


@pytest.mark.parametrize("kernel", ["9" * 5000 + ".1", "the new one", "06.18", "6.18 ", "6.18\n"])
def test_what_is_no_release_is_refused(kernel: str, run: RunTool, played: Path) -> None:
    ran = run("watch", "--replay", str(played), "--kernel", kernel)
    assert (ran.status, ran.out) == (2, "")
    assert "is not a kernel release" in ran.err


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A host with one running TD, as /sys and /proc show it."""
    folder = tmp_path / "sys/kernel/debug/kvm" / NAME
    folder.mkdir(parents=True)
    for where in (folder, folder.parent):
        (where / "pages_4k").write_text("1000\n")
        (where / "pages_2m").write_text("0\n")
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/sys/kernel/osrelease").write_text("7.3.4\n")
    return tmp_path


def _waits(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object] | BaseException) -> None:
    """Let the time between looks do something instead of passing."""
    left = list(steps)

    def wait(_: LiveCounters, seconds: float) -> None:
        assert seconds >= 0.5
        step = left.pop(0)
        if isinstance(step, BaseException):
            raise step
        step()

    monkeypatch.setattr(LiveCounters, "wait", wait)


def test_an_interrupt_says_how_far_it_was(
    run: RunTool, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = tree / f"sys/kernel/debug/kvm/{NAME}/pages_4k"
    _waits(monkeypatch, lambda: None, lambda: pages.write_text("400\n"), KeyboardInterrupt())
    ran = run("watch", NAME, "--root", str(tree))
    assert ran.status == 130
    assert ran.err == (
        f"tdxreclaim: watch: interrupted: {NAME} counting-down at 60 %, 400 pages left\n"
    )
    assert "counting-down: KVM takes its pages back" in ran.out


def test_json_stays_an_object_a_line_when_interrupted(
    run: RunTool, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _waits(monkeypatch, KeyboardInterrupt())
    ran = run("watch", "--root", str(tree), "--format", "json")
    end = _objects(ran.out)[-1]
    assert (ran.status, end["event"], end["exit_status"]) == (130, "end", 130)
    assert ran.err == f"tdxreclaim: watch: interrupted: {NAME} running, 1,000 pages left\n"


def test_a_named_vm_ends_it_by_going(
    run: RunTool, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree / "sys/kernel/debug/kvm" / NAME

    def go() -> None:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    _waits(monkeypatch, go)
    ran = run("watch", "4711", "--root", str(tree))
    assert (ran.status, ran.err) == (0, "")
    assert "gone with 1,000 pages: torn down out of sight" in " ".join(ran.out.split())


def test_nothing_to_watch(run: RunTool, tree: Path) -> None:
    folder = tree / "sys/kernel/debug/kvm" / NAME
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    ran = run("watch", "--root", str(tree))
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("Nothing to watch: no VM.\n")


def test_nobody_looks_more_than_twice_a_second(run: RunTool, tree: Path) -> None:
    ran = run("watch", "--root", str(tree), "--interval", "0.4s")
    assert (ran.status, ran.out) == (2, "")
    assert "--interval: 0.4 s: at least 0.5 s" in ran.err


def test_a_size_for_several_vms_is_refused(run: RunTool, tree: Path) -> None:
    other = tree / "sys/kernel/debug/kvm/5000-7"
    other.mkdir()
    (other / "pages_4k").write_text("3\n")
    ran = run("watch", "--root", str(tree), "--td", "1GiB")
    assert (ran.status, ran.out) == (2, "")
    assert re.search(r"--td: several VMs: name the one of that size \(4711-12, 5000-7\)", ran.err)


def test_what_cannot_be_read_is_one_line(run: RunTool, tmp_path: Path) -> None:
    ran = run("watch", "--root", str(tmp_path))
    assert (ran.status, ran.out) == (3, "")
    assert ran.err == (
        "tdxreclaim: /sys/kernel/debug/kvm: this kernel has no debugfs (CONFIG_DEBUG_FS)\n"
    )


def test_every_recorded_series_is_played(run: RunTool, shared_cases: Path) -> None:
    for path in sorted((shared_cases / "kvm-debugfs").glob("series-*.tsv")):
        ran = run("watch", "--replay", str(path), "--until-done", "-f", "json")
        wanted = 3 if "debugfs-off" in path.name else 0
        assert (ran.status, path.name) == (wanted, path.name)
        if not wanted:
            assert _objects(ran.out)[-1]["measured"] is None, "no TD, no measurement"
