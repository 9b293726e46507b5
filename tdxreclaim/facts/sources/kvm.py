"""KVM's counters of this host.

An open file in a VM's folder holds a reference on the VM, and whoever closes
the last one pays for the VM's destruction.  So a file is opened, read once and
closed at once, two files a VM and two of all VMs, at most twice a second.  What
tells that a VM came or went (inotify on the folder, KVM's uevents) holds none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import time
from typing import TYPE_CHECKING

from tdxreclaim.errors import HostReadError
from tdxreclaim.facts.evidence import flat
from tdxreclaim.facts.kvm.counters import FOLDER, NAME, Life, Look, Vm, pages, read_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tdxreclaim.facts.sources.events import Events

LEAST_INTERVAL_SECONDS = 0.5

# A suspend of more than this breaks a rate.
_ASLEEP_SECONDS = 0.2

_MOST_PROCESSES = 100_000

_STATES = {"Z": Life.ZOMBIE, "X": Life.GONE}


class LiveCounters:
    """The counters below *root*, ``/`` unless /sys and /proc of a host are seen elsewhere."""

    def __init__(self, root: str = "/", events: Events | None = None) -> None:
        self._root = root
        self._folder = os.path.join(root, FOLDER)
        self._events = events
        self._slept = _slept()

    def look(self, known: Mapping[str, Vm]) -> Look:
        """Read them once; see `Counters.look`."""
        names = self._names()
        at, slept = time.monotonic(), _slept()
        broken = None
        if slept - self._slept > _ASLEEP_SECONDS:
            broken = f"the host slept for {slept - self._slept:.0f} s"
        self._slept = slept
        found: dict[str, int] = {}
        for name in names:
            count = self._pages(name)
            if count is not None:
                found[name] = count
        return Look(
            at=at,
            pages=found,
            total=self._pages(""),
            lives={
                name: self._life(known[name].pid if name in known else None, name) for name in found
            },
            broken=broken,
        )

    def _names(self) -> list[str]:
        try:
            listed = os.listdir(self._folder)
        except OSError as error:
            raise self._unreadable(error) from error
        return sorted(name for name in listed if NAME.fullmatch(name))

    def _pages(self, name: str) -> int | None:
        """Return a VM's pages, or of all with no name; None: it is gone."""
        four_kib = self._count(os.path.join(self._folder, name, "pages_4k"))
        if four_kib is None:
            if not name:
                raise HostReadError(
                    f"/{FOLDER}/pages_4k",
                    "no such counter: this kernel is older than what was read",
                )
            return None
        return pages(four_kib, self._count(os.path.join(self._folder, name, "pages_2m")) or 0)

    def _count(self, path: str) -> int | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise self._unreadable(error) from error
        try:
            text = os.read(descriptor, 64)
        except OSError as error:
            # A VM that goes while it is read.
            if error.errno in (errno.ENOENT, errno.ENODEV, errno.EIO):
                return None
            raise self._unreadable(error) from error
        finally:
            os.close(descriptor)
        return int(text) if re.fullmatch(rb"\d{1,19}\n?", text) else None

    def _unreadable(self, error: OSError) -> HostReadError:
        """Say which of the reasons it is, and what to do."""
        debug = os.path.join(self._root, "sys/kernel/debug")
        if error.errno in (errno.EACCES, errno.EPERM):
            why = "not readable by this user: debugfs is for root; try sudo"
        elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
            why = error.strerror or str(error)
        elif not os.path.isdir(debug):
            why = self._switched_off()
        elif not self._mounted():
            why = "debugfs is not mounted: mount -t debugfs none /sys/kernel/debug"
        else:
            why = "KVM is not loaded: no module kvm (modprobe kvm_intel)"
        return HostReadError(f"/{FOLDER}", why, error.errno)

    def _switched_off(self) -> str:
        option = re.search(r"\bdebugfs=(off|no-mount)\b", self._text("proc/cmdline") or "")
        if option:
            return f"debugfs is switched off: {option[0]} is on the kernel's command line"
        return "this kernel has no debugfs (CONFIG_DEBUG_FS)"

    def _mounted(self) -> bool:
        mounts = self._text("proc/mounts")
        # Without /proc, what is in it tells: an unmounted one is empty.
        if mounts is None:
            return bool(os.listdir(os.path.join(self._root, "sys/kernel/debug")))
        return bool(re.search(r"^\S+ /sys/kernel/debug debugfs ", mounts, re.MULTILINE))

    def _text(self, path: str) -> str | None:
        """Return a file of /proc; None: it is not there, or not for us."""
        try:
            with open(os.path.join(self._root, path), "rb") as file:
                return file.read(1 << 20).decode("utf-8", "replace")
        except OSError:
            return None

    def _life(self, pid: int | None, name: str) -> Life:
        if not os.path.isdir(os.path.join(self._root, "proc/self")):
            return Life.UNKNOWN
        status = self._text(f"proc/{pid or name.partition('-')[0]}/stat")
        if status is None:
            return Life.GONE
        # The command's name, in parentheses, may hold anything.
        return _STATES.get(status.rpartition(")")[2].strip()[:1], Life.ALIVE)

    def describe(self, name: str) -> Vm:
        """Return what /proc tells of a VM; see `Counters.describe`."""
        thread = int(name.partition("-")[0])
        status = self._text(f"proc/{thread}/status") or ""
        group = re.search(r"^Tgid:\s*(\d{1,10})$", status, re.MULTILINE)
        if group is None:
            return Vm(name=name, vcpus=self._vcpus(name))
        pid = int(group[1])
        arguments = (self._text(f"proc/{pid}/cmdline") or "").rstrip("\0").split("\0")
        memory, vcpus, td = read_command(arguments)
        return Vm(
            name=name,
            pid=pid,
            command=self._command(pid),
            memory_bytes=memory,
            vcpus=self._vcpus(name) or vcpus,
            td=td,
        )

    def _command(self, pid: int | str) -> str | None:
        """Return a process's name for itself, in which it may have put anything."""
        return flat((self._text(f"proc/{pid}/comm") or "").strip()) or None

    def _vcpus(self, name: str) -> int | None:
        """Count the vCPUs' folders: listing them opens no counter."""
        try:
            listed = os.listdir(os.path.join(self._folder, name))
        except OSError:
            return None
        return sum(bool(re.fullmatch(r"vcpu\d{1,5}", each)) for each in listed) or None

    def wait(self, seconds: float) -> None:
        """Wait, or until a VM came or went, though never less than half a second."""
        time.sleep(min(seconds, LEAST_INTERVAL_SECONDS))
        left = seconds - LEAST_INTERVAL_SECONDS
        if left <= 0:
            return
        if self._events is None:
            time.sleep(left)
            return
        if select.select(self._events.descriptors, [], [], left)[0]:
            self._events.drain()

    def holders(self) -> tuple[str, ...]:
        """Return the processes that hold descriptors of KVM; see `Counters.holders`."""
        found = []
        for pid in self._processes():
            kinds = sorted(set(self._descriptors(pid)))
            if kinds:
                found.append(f"{self._command(pid) or 'a process'} {pid}: {', '.join(kinds)}")
        return tuple(found)

    def _processes(self) -> list[str]:
        try:
            listed = os.listdir(os.path.join(self._root, "proc"))
        except OSError:
            return []
        return [name for name in listed if name.isdigit()][:_MOST_PROCESSES]

    def _descriptors(self, pid: str) -> Iterator[str]:
        folder = os.path.join(self._root, "proc", pid, "fd")
        with contextlib.suppress(OSError):
            for number in os.listdir(folder):
                with contextlib.suppress(OSError):
                    target = os.readlink(os.path.join(folder, number))
                    kind = re.match(
                        r"anon_inode:\[?(kvm-vm|kvm-vcpu|kvm-gmem|\[?guest_memfd)", target
                    )
                    if kind:
                        yield kind[1]


def _slept() -> float:
    """Return how long this host has been asleep since it booted, in seconds."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
