"""Stacks in a kernel log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.facts.logs.line import Line, Stamp

# A stack takes up to so many lines, other programs' lines between them included.
_STACK_LINES = 150


_MOST_FRAMES = 64


# So many are open at once, by the thread or CPU that prints.
_MOST_OPEN = 64


_BEGINS = re.compile(
    r"INFO: task (?P<hung>.{1,40}?):(?P<hung_pid>\d+) (?:<writer> )?blocked for more than (?P<seconds>\d+) sec"
    r"|(?:watchdog: )?BUG: soft lockup - CPU#\d+ stuck for (?P<stuck>\d+)s! "
    r"\[(?P<locked>.{1,40}?):(?P<locked_pid>\d+)\]"
    r"|task:(?P<task>.{1,40}?) +state:(?P<state>\S)\S* .*?pid: ?(?P<task_pid>\d+)"
)


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


class LogEvent(Record):
    """A line of the kernel that may matter.  ``boot`` counts from 0 in its log.

    ``joined``: it was wrapped, and its parts were put together again.
    """

    number: int
    boot: int
    stamp: Stamp
    text: str
    stack: Stack | None = None
    joined: bool = False


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


def begins_stack(message: str) -> bool:
    """Whether a message is the first line of a stack."""
    return _BEGINS.match(message) is not None


class Stacks:
    """The stacks of one log that are being read, and hands each on when it is whole."""

    def __init__(self, sink: Callable[[LogEvent], None]) -> None:
        self._sink = sink
        # By the thread or CPU that prints, where the kernel says it ("" where not).
        self._open: dict[str, _StackReader] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def take(self, line: Line) -> bool:
        """Note a line that begins nothing; whether it belongs to an open stack."""
        reader = self._open.get(line.stamp.caller)
        if reader is None:
            self.pass_by()
            return False
        if reader.take(line.message):
            self._end(line.stamp.caller)
        return True

    def begin(self, event: LogEvent) -> None:
        """Hand an event on, or keep it until its stack is read."""
        begins = _BEGINS.match(event.text)
        if begins is None:
            if not event.text.startswith("task:"):
                self._sink(event)
            return
        caller = event.stamp.caller
        reader = self._open.get(caller)
        if reader is not None and begins["task"] and reader.adopts(begins["task_pid"]):
            return
        self._end(caller)
        if len(self._open) >= _MOST_OPEN:
            self.finish()
        self._open[caller] = _StackReader(event, begins)

    def pass_by(self) -> None:
        """Note a line that is none of theirs."""
        for caller in [each for each, reader in self._open.items() if reader.passes()]:
            self._end(caller)

    def finish(self) -> None:
        """Hand on what is open."""
        for caller in list(self._open):
            self._end(caller)

    def _end(self, caller: str) -> None:
        reader = self._open.pop(caller, None)
        if reader is not None:
            self._sink(reader.event())


def frame_function(message: str) -> str:
    """Return the function in a line of a stack; empty if it is none."""
    match = _RIP.match(message.lstrip()) or _FRAME.match(message)
    return match["name"] if match else ""
