"""KVM's counters: how they are read, why they cannot be, what a recording plays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tdxreclaim.errors import HostReadError, MalformedInputError
from tdxreclaim.facts.kvm.counters import Life, Vm, read_command
from tdxreclaim.facts.kvm.recording import Recording
from tdxreclaim.facts.sources.events import Events
from tdxreclaim.facts.sources.kvm import LiveCounters

if TYPE_CHECKING:
    from pathlib import Path

NAME = "4711-12"


def make_tree(root: Path, *, pages: int = 1000, two_mib: int = 0) -> Path:
    """Write what debugfs and /proc show of one TD; return its folder."""
    folder = root / "sys/kernel/debug/kvm" / NAME
    (folder / "vcpu0").mkdir(parents=True)
    (folder / "vcpu1").mkdir()
    for where in (folder, folder.parent):
        (where / "pages_4k").write_text(f"{pages}\n")
        (where / "pages_2m").write_text(f"{two_mib}\n")
    process = root / "proc/4711"
    process.mkdir(parents=True)
    (root / "proc/self").mkdir()
    (root / "proc/mounts").write_text("none /sys/kernel/debug debugfs rw,relatime 0 0\n")
    (process / "status").write_text("Name:\tqemu\nTgid:\t4711\n")
    (process / "comm").write_text("qemu-system-x86\n")
    (process / "stat").write_text("4711 (qemu) S) R 1 1\n")
    (process / "cmdline").write_bytes(
        b'qemu\0-m\x004M\0-smp\0cpus=2\0-object\0{"qom-type":"tdx-guest"}\0'
    )
    return folder


def test_a_look_counts_pages_and_opens_nothing_for_longer(tmp_path: Path) -> None:
    make_tree(tmp_path, pages=1000, two_mib=2)
    before = os.listdir("/proc/self/fd")
    counters = LiveCounters(str(tmp_path))
    look = counters.look({})

    assert look.pages == {NAME: 1000 + 2 * 512}
    assert look.total == 1000 + 2 * 512
    assert look.lives == {NAME: Life.ALIVE}
    assert look.broken is None
    assert os.listdir("/proc/self/fd") == before


def test_what_proc_tells_of_a_vm(tmp_path: Path) -> None:
    make_tree(tmp_path)
    counters = LiveCounters(str(tmp_path))
    assert counters.describe(NAME) == Vm(
        name=NAME,
        pid=4711,
        command="qemu-system-x86",
        memory_bytes=4 << 20,
        vcpus=2,
        td="tdx-guest on its command line",
    )
    (tmp_path / "proc/4711/stat").write_text("4711 (qemu) Z 1 1\n")
    assert counters.look({}).lives == {NAME: Life.ZOMBIE}
    for file in (tmp_path / "proc/4711").iterdir():
        file.unlink()
    assert counters.look({}).lives == {NAME: Life.GONE}
    assert counters.describe(NAME) == Vm(name=NAME, vcpus=2)


def test_a_process_cannot_write_to_the_terminal_by_its_name(tmp_path: Path) -> None:
    make_tree(tmp_path)
    (tmp_path / "proc/4711/comm").write_text("qe\x1b[31mmu\n")
    command = LiveCounters(str(tmp_path)).describe(NAME).command
    assert command is not None
    assert "\x1b" not in command


def test_a_vm_that_goes_between_listing_and_reading_is_gone(tmp_path: Path) -> None:
    folder = make_tree(tmp_path)
    (folder / "pages_4k").unlink()
    assert LiveCounters(str(tmp_path)).look({}).pages == {}


def test_who_holds_descriptors_of_kvm(tmp_path: Path) -> None:
    make_tree(tmp_path)
    descriptors = tmp_path / "proc/4711/fd"
    descriptors.mkdir()
    for number, target in enumerate(("anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0", "/dev/null")):
        (descriptors / str(number)).symlink_to(target)
    assert LiveCounters(str(tmp_path)).holders() == ("qemu-system-x86 4711: kvm-vcpu, kvm-vm",)


def _why(root: Path) -> str:
    with pytest.raises(HostReadError) as caught:
        LiveCounters(str(root)).look({})
    assert caught.value.what.startswith("/sys/kernel/debug/kvm")
    return caught.value.why


def test_each_reason_for_not_reading_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    assert "no debugfs" in _why(tmp_path)
    (tmp_path / "proc/cmdline").write_text("quiet debugfs=off\n")
    assert "debugfs=off is on the kernel's command line" in _why(tmp_path)
    debug = tmp_path / "sys/kernel/debug"
    debug.mkdir(parents=True)
    (tmp_path / "proc/mounts").write_text("sysfs /sys sysfs rw 0 0\n")
    assert _why(tmp_path) == "debugfs is not mounted: mount -t debugfs none /sys/kernel/debug"
    (tmp_path / "proc/mounts").unlink()
    assert "not mounted" in _why(tmp_path), "an empty folder tells it without /proc"
    (tmp_path / "proc/mounts").write_text("none /sys/kernel/debug debugfs rw 0 0\n")
    assert "KVM is not loaded" in _why(tmp_path)
    (debug / "kvm").mkdir()
    assert "older than what was read" in _why(tmp_path)


def test_no_root_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> list[str]:
        raise PermissionError(13, "Permission denied")

    make_tree(tmp_path)
    monkeypatch.setattr(os, "listdir", refuse)  # root may read everything
    assert "debugfs is for root" in _why(tmp_path)


def test_events_wake_when_a_vm_goes(tmp_path: Path) -> None:
    folder = make_tree(tmp_path)
    before = os.listdir("/proc/self/fd")
    with Events(str(folder.parent)) as events:
        counters = LiveCounters(str(tmp_path), events)
        (folder.parent / "99-1").mkdir()
        # An hour, cut short by the folder.
        counters.wait(3600)
        events.drain()
    assert os.listdir("/proc/self/fd") == before


def test_events_of_a_folder_that_is_not_there() -> None:
    with Events("/nowhere") as events:
        assert len(events.descriptors) <= 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("qemu -m 4G -smp 8", (4 << 30, 8, None)),
        ("qemu -m size=2048M,maxmem=8G --smp 2,sockets=1", (2 << 30, 2, None)),
        ("qemu -m 512 -smp cores=2", (512 << 20, None, None)),
        ("qemu -object tdx-guest,id=t -m lots -smp", (None, None, "tdx-guest on its command line")),
        ("", (None, None, None)),
    ],
)
def test_what_a_command_line_of_qemu_tells(
    line: str, expected: tuple[int | None, int | None, str | None]
) -> None:
    assert read_command(line.split()) == expected


def sample(seconds: str, pages: str) -> str:
    return (
        f'{{"event": "sample", "seconds": {seconds}, "total_pages": null, "broken": null, "vms": '
        f'[{{"name": "1-2", "pid": 1, "command": null, "memory_bytes": null, "vcpus": null, '
        f'"td": null, "process": "alive", "pages": {pages}}}]}}\n'
    )


def test_a_line_of_watch_is_a_look() -> None:
    look = Recording(sample("1.5", "3"), "run").look({})
    assert look is not None
    assert (look.at, look.pages, look.lives) == (1.5, {"1-2": 3}, {"1-2": Life.ALIVE})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no recording"),
        ("# period 0 us\n1\t.\n9\tpages_4k\tx\n99999999999\t.\n", "more than"),
        ("hello\n", "line 1: expected milliseconds"),
        ("ms\tpath\n\n0.5\tpages_4k\t3\n99999999999\tpages_4k\t3\n", "more than"),
        ("{}\n", "line 1: no line of watch"),
        ('{"event": "sample", "vms": 3}\n', "line 1: no line of watch"),
        ("{" * 100_000, "line 1: no line of watch"),
        (sample("NaN", "3"), "line 1: no line of watch"),
        (sample("1", "1e400"), "line 1: no line of watch"),
        (sample("1", "-1"), "line 1: no line of watch"),
        (sample("1", "true"), "line 1: no line of watch"),
        (sample("1", "9" * 5000), "line 1: no line of watch"),
    ],
)
def test_what_is_no_recording_is_refused(text: str, why: str) -> None:
    with pytest.raises(MalformedInputError, match=why):
        Recording(text, "run").look({})


def test_a_recording_of_what_could_not_be_read_says_so() -> None:
    with pytest.raises(HostReadError, match="when this was recorded"):
        Recording("1.0\t.\t!EACCES\t\n", "run").look({})
