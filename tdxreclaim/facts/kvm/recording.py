"""A recorded run, to be played: changes of the counters, a line each.

Tab-separated: milliseconds, path (below /sys/kernel/debug/kvm, or ``proc/PID/state``),
value, event.  ``dir`` is a folder that came, ``gone`` and ``folder gone`` what went,
``!ENOENT`` an error; rows of path ``-`` are remarks.  Lines that begin with ``#``
are comments, of which ``period N us`` says how often was sampled.

Lines of `watch --format json` are read too, so that a run on a real host can be
played again.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from tdxreclaim.errors import HostReadError, MalformedInputError
from tdxreclaim.facts.evidence import flat
from tdxreclaim.facts.kvm.counters import FOLDER, NAME, Life, Look, Vm, pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MOST_LOOKS = 1_000_000

# No counter or clock of a host shows more.
_MOST = 1 << 60

_PERIOD = re.compile(r"\bperiod (\d{1,9}) us\b")

_COUNT = re.compile(r"\d{1,18}", re.ASCII)

_LIVES = {"alive": Life.ALIVE, "Z": Life.ZOMBIE, "gone": Life.GONE}


class Recording:
    """A recorded run as `Counters`; it waits for nobody."""

    def __init__(self, text: str, what: str, *, interval: float | None = None) -> None:
        self._what = what
        self._vms: dict[str, Vm] = {}
        self._state = _State(what)
        lines = text.startswith("{")
        self._looks = _from_lines(text, what, self._vms) if lines else self._sampled(text, interval)

    def look(self, known: Mapping[str, Vm]) -> Look | None:  # noqa: ARG002  (the protocol's)
        """Return the next look; see `Counters.look`."""
        return next(self._looks, None)

    def describe(self, name: str) -> Vm:
        """Return what the recording tells of a VM."""
        known = self._vms.get(name, Vm(name=name, pid=int(name.partition("-")[0])))
        return replace(known, vcpus=known.vcpus or self._state.vcpus.get(name))

    def wait(self, seconds: float) -> None:
        """Return at once."""

    def holders(self) -> tuple[str, ...]:
        """Return none: a recording does not tell."""
        return ()

    def _sampled(self, text: str, interval: float | None) -> Iterator[Look]:
        """Give the counters as they were at each sample of a recording of changes."""
        period = _PERIOD.search(text.partition("\n")[0])
        # A sampler that never paused says 0.
        step = interval or (int(period[1]) / 1e6 if period else 0.0) or 0.001
        rows = list(_rows(text, self._what))
        if not rows:
            raise MalformedInputError(self._what, "no recording of KVM's counters")
        if (rows[-1][0] - rows[0][0]) / step > _MOST_LOOKS:
            raise MalformedInputError(self._what, f"more than {_MOST_LOOKS} samples")
        state, at = self._state, rows[0][0]
        for when, path, value, event in rows:
            while at < when:
                yield state.look(at)
                at += step
            state.change(path, value, event)
        yield state.look(at)


def _rows(text: str, what: str) -> Iterator[tuple[float, str, str, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith(("#", "ms\t")):
            continue
        fields = (*line.split("\t"), "", "")[:4]
        if not re.fullmatch(r"\d{1,12}(\.\d{1,6})?", fields[0], re.ASCII):
            raise MalformedInputError(
                what, f"line {number}: expected milliseconds, a path, a value"
            )
        yield float(fields[0]) / 1000, fields[1], fields[2], fields[3]


class _State:
    """What was last seen of every path."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._counts: dict[str, dict[str, int]] = {}
        self._total: dict[str, int] = {}
        self._lives: dict[int, Life] = {}
        self.vcpus: dict[str, int] = {}

    def change(self, path: str, value: str, event: str) -> None:
        folder, _, name = path.partition("/")
        if path == "." and value.startswith("!"):
            raise HostReadError(
                f"/{FOLDER}", f"it could not be read when this was recorded ({value[1:]})"
            )
        if folder == "proc":
            pid, _, kind = name.partition("/")
            if kind == "state" and pid.isdigit():
                self._lives[int(pid)] = _LIVES.get(value, Life.UNKNOWN)
        elif NAME.fullmatch(folder):
            self._change_vm(folder, name, value, event)
        elif path in ("pages_4k", "pages_2m") and _COUNT.fullmatch(value):
            self._total[path] = int(value)

    def _change_vm(self, folder: str, name: str, value: str, event: str) -> None:
        if event == "gone" or value == "!ENOENT" or (event == "folder gone" and not name):
            if not name or name == "pages_4k":
                self._counts.pop(folder, None)
        elif value == "dir" and not name:
            self._counts.setdefault(folder, {})
        elif re.fullmatch(r"vcpu\d{1,5}", name) and value == "dir":
            self.vcpus[folder] = self.vcpus.get(folder, 0) + 1
        elif name in ("pages_4k", "pages_2m") and _COUNT.fullmatch(value):
            self._counts.setdefault(folder, {})[name] = int(value)

    def look(self, at: float) -> Look:
        total = self._total
        return Look(
            at=at,
            pages={
                name: pages(counts["pages_4k"], counts.get("pages_2m", 0))
                for name, counts in self._counts.items()
                if "pages_4k" in counts
            },
            total=pages(total["pages_4k"], total.get("pages_2m", 0))
            if "pages_4k" in total
            else None,
            lives={
                name: self._lives.get(int(name.partition("-")[0]), Life.UNKNOWN)
                for name in self._counts
            },
        )


def _from_lines(text: str, what: str, vms: dict[str, Vm]) -> Iterator[Look]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            if found["event"] != "sample":
                continue
            for vm in found["vms"]:
                memory, vcpus = vm["memory_bytes"], vm["vcpus"]
                vms[flat(str(vm["name"]))] = Vm(
                    name=flat(str(vm["name"])),
                    pid=None if vm["pid"] is None else int(_number(vm["pid"])),
                    command=None if vm["command"] is None else flat(str(vm["command"])),
                    memory_bytes=None if memory is None else int(_number(memory)),
                    vcpus=None if vcpus is None else int(_number(vcpus)),
                    td=None if vm["td"] is None else flat(str(vm["td"])),
                )
            here = [vm for vm in found["vms"] if vm["pages"] is not None]
            total = found["total_pages"]
            yield Look(
                at=_number(found["seconds"]),
                pages={flat(str(vm["name"])): int(_number(vm["pages"])) for vm in here},
                total=None if total is None else int(_number(total)),
                lives={flat(str(vm["name"])): Life(vm["process"]) for vm in here},
                broken=None if found["broken"] is None else flat(str(found["broken"])),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise MalformedInputError(
                what, f"line {number}: no line of watch --format json"
            ) from error


def _number(value: object) -> float:
    """Return a number that a counter or a clock can show.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MOST:
        raise ValueError(value)
    return value
