"""Stacks in a kernel log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tdxreclaim.facts.logs.line import Stamp

# A stack takes up to so many lines, other programs' lines between them included.
_STACK_LINES = 150


_MOST_FRAMES = 64


_FRAME = re.compile(r"\s*(?P<unsure>\? )?(?:\[<[0-9a-f]+>\] )?(?P<name>[A-Za-z_][\w.]*)\+0x")


_RIP = re.compile(r"RIP: [0-9a-f]{4}:(?P<name>[A-Za-z_][\w.]*)\+0x")


class Stack(NamedTuple):
    """A kernel stack in a log: whose, why it was printed, and its functions.

    ``frames`` are innermost first; those that the kernel marks as unsure are
    left out.  ``seconds``: how long it had been so, ``None`` if not told.
    """

    task: str
    pid: int
    why: str
    seconds: int | None
    frames: tuple[str, ...]


class LogEvent(NamedTuple):
    """A line of the kernel that may matter.  ``boot`` counts from 0 in its log."""

    number: int
    boot: int
    stamp: Stamp
    text: str
    stack: Stack | None = None


class _StackReader:
    """Collects the functions of a stack from the lines after its first."""

    def __init__(self, event: LogEvent, begins: re.Match[str]) -> None:
        self._event = event
        self._left = _STACK_LINES
        self._frames: list[str] = []
        self._pid = begins["hung_pid"] or begins["locked_pid"] or begins["task_pid"]
        seconds = begins["seconds"] or begins["stuck"]
        self._seconds = int(seconds[:9]) if seconds else None
        self._task = begins["hung"] or begins["locked"] or begins["task"]
        if begins["hung"]:
            self._why = "hung task"
        elif begins["locked"]:
            self._why = "soft lockup"
        else:
            self._why = f"state {begins['state']}"

    def adopts(self, pid: str) -> bool:
        """Whether the ``task:`` line of *pid* belongs to this stack."""
        return not self._frames and pid == self._pid

    def passes(self) -> bool:
        """Note a line that is not the kernel's; true at the end of patience."""
        self._left -= 1
        return self._left <= 0

    def take(self, message: str) -> bool:
        """Note a kernel line; true if it ends the stack."""
        if "</TASK>" in message:
            return True
        rip = _RIP.match(message.lstrip())
        frame = rip or _FRAME.match(message)
        if frame and len(self._frames) < _MOST_FRAMES and (rip or not frame["unsure"]):
            name = frame["name"].partition(".")[0]
            if not self._frames or self._frames[-1] != name:
                self._frames.append(name)
        return self.passes()

    def event(self) -> LogEvent:
        """Return the first line's event, with the stack."""
        pid = int(self._pid[:9])
        stack = Stack(self._task.strip(), pid, self._why, self._seconds, tuple(self._frames))
        return self._event._replace(stack=stack)


def frame_function(message: str) -> str:
    """Return the function in a line of a stack; empty if it is none."""
    match = _RIP.match(message.lstrip()) or _FRAME.match(message)
    return match["name"] if match else ""
