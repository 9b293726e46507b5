"""What a log's lines are, counted as they come by: a log may be larger than memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.evidence import Evidence, Origin, printable
from tdxreclaim.tables.findings.kind import Subject
from tdxreclaim.tables.findings.machine_checks import MACHINE_CHECK
from tdxreclaim.tables.findings.notes import COMMAND_LINE, RAX
from tdxreclaim.tables.seamcalls import find_status, name_status
from tdxreclaim.triage.match import Noted, match_stack, recognise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tdxreclaim.facts.logs.line import Stamp
    from tdxreclaim.facts.logs.stack import LogEvent
    from tdxreclaim.tables.findings.kind import Kind

MOST_PLACES = 3


# Different HKIDs, tasks, functions: so many of one kind in one boot are told apart.
_MOST_ALIKE = 20


_MOST_TALLIES = 5000


_MOST_BOOTS = 4096


_LONGEST_TEXT = 300


_OTHERS = "others"


# A warning's registers stand within so many lines of it.
_WARNING_LINES = 40


# What is polled this early lay in the banks before the boot: CPUs come up and
# look at their banks one after the other.
_LEFT_OVER_SECONDS = 5.0


class Place(NamedTuple):
    """Where something was found.  ``line`` is ``None`` for what is not a line."""

    path: str
    line: int | None
    stamp: Stamp | None
    text: str


class Key(NamedTuple):
    """What one finding is made of: a row, what it says, and in which boot."""

    kind: Kind
    values: tuple[tuple[str, str], ...]
    boot: int


class Tally:
    """How often something was found in one boot of one log."""

    def __init__(self, values: Mapping[str, str], path: str, event: LogEvent) -> None:
        self.values = values
        self.path = path
        self.count = 0
        self.first = self.last = event.stamp
        self.places: list[Place] = []
        self.stack = event.stack
        self.answers: set[str] = set()

    def add(self, event: LogEvent) -> None:
        """Count a line, and keep the first few."""
        self.count += 1
        self.last = event.stamp
        if len(self.places) < MOST_PLACES:
            text = printable(event.text[:_LONGEST_TEXT])
            self.places.append(Place(self.path, event.number, event.stamp, text))


class Collector:
    """Takes the lines of one log.

    ``options`` are what each boot has on its command line.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._alike: dict[tuple[Kind, int], int] = {}
        self._warned: tuple[Tally, LogEvent] | None = None
        self.tallies: dict[Key, Tally] = {}
        self.options: dict[int, tuple[str, ...]] = {}
        self.dropped = 0

    def add(self, event: LogEvent) -> None:
        """Match a line against the catalogue and count it."""
        found = recognise(event.text) if event.stack is None else match_stack(event.stack)
        if found is None:
            return
        if isinstance(found, Noted):
            self._note(found, event)
            return
        kind, values = found
        if kind is MACHINE_CHECK and _is_left_over(event, values):
            values = {**values, "left_over": "yes"}
        tally = self._tally(kind, values, event)
        if tally is None:
            return
        tally.add(event)
        if kind.subject in (Subject.TEARDOWN, Subject.OTHER) and "function" in values:
            self._warned = tally, event

    def _tally(self, kind: Kind, values: Mapping[str, str], event: LogEvent) -> Tally | None:
        key = Key(kind, tuple(sorted(values.items())), event.boot)
        tally = self.tallies.get(key)
        if tally is not None:
            return tally
        if len(self.tallies) >= _MOST_TALLIES:
            self.dropped += 1
            return None
        alike = self._alike.get((kind, event.boot), 0)
        if alike >= _MOST_ALIKE:
            values = dict.fromkeys(values, _OTHERS)
            key = Key(kind, tuple(sorted(values.items())), event.boot)
        self._alike[kind, event.boot] = alike + 1
        return self.tallies.setdefault(key, Tally(values, self._path, event))

    def _note(self, noted: Noted, event: LogEvent) -> None:
        if noted.note is COMMAND_LINE and len(self.options) < _MOST_BOOTS:
            self.options[event.boot] = tuple(noted.values["options"].split())
        if noted.note is RAX and self._warned is not None:
            tally, warning = self._warned
            self._warned = None
            near = event.number - warning.number <= _WARNING_LINES
            status = f"0x{noted.values['rax']}"
            if near and event.stamp.caller == warning.stamp.caller and _is_answer(status):
                tally.answers.add(f"{status} ({name_status(status)})")


def _is_left_over(event: LogEvent, values: Mapping[str, str]) -> bool:
    seconds = event.stamp.seconds
    return bool(values["polled"]) and seconds is not None and seconds < _LEFT_OVER_SECONDS


def _is_answer(status: str) -> bool:
    """Whether a register holds what the module returns where something failed."""
    code = int(status, 16)
    return code != 0 and find_status(code) is not None


def overflow(collectors: Mapping[str, Collector], origin: Origin) -> tuple[Evidence, ...]:
    """Return which logs have more different findings than are kept."""
    return tuple(
        Evidence(
            path,
            f"{each.dropped} lines after {_MOST_TALLIES} different findings: not listed",
            origin,
        )
        for path, each in collectors.items()
        if each.dropped
    )
