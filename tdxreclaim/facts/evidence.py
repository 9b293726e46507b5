"""What was read and where: the shapes that every fact comes in."""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


_LONGEST_OBSERVATION = 160


class Origin(StrEnum):
    """Where a fact came from; every output format shows it."""

    LIVE = "live"
    CAPTURED = "captured"
    FAKED = "faked"


class Evidence(NamedTuple):
    """One thing that was looked at.

    ``observed`` is what stood there, or one of the phrases of this module
    (``absent``, ``not readable: …``): looking and not finding is evidence too.
    """

    path: str
    observed: str
    origin: Origin


class Fact(NamedTuple, Generic[T]):
    """A value and its evidence.  ``None`` means "it does not say", never "no"."""

    value: T | None
    evidence: Evidence


class Part(StrEnum):
    """What a gap leaves open."""

    IDENTITY = "identity"
    KERNEL = "kernel"
    STATE = "tdx"
    LOG = "log"


class Gap(NamedTuple):
    """Something that was not read or not understood: where, and why.

    ``absent``: it is not there at all, so that nothing in it is overlooked.
    """

    place: str
    why: str
    part: Part = Part.IDENTITY
    absent: bool = False


class Coverage(NamedTuple):
    """How much of the evidence was understood."""

    gaps: tuple[Gap, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the evidence of the CPU's identity has no gap."""
        return not self.of(Part.IDENTITY)

    def of(self, part: Part) -> tuple[Gap, ...]:
        """Return the gaps of one part."""
        return tuple(gap for gap in self.gaps if gap.part is part)


WHOLE = Coverage()


_MOST_GAPS = 8


class GapList:
    """Gaps of one text, by line; what follows each other for one reason is one gap."""

    def __init__(self, part: Part = Part.IDENTITY) -> None:
        self._part = part
        self._found: list[tuple[int, int, str]] = []
        self._more = 0

    def add(self, line: int, why: str) -> None:
        """Note a gap in *line*, from 1; 0 is the text as a whole."""
        if self._found and self._found[-1][2] == why and line and self._found[-1][1] == line - 1:
            self._found[-1] = (self._found[-1][0], line, why)
        elif len(self._found) < _MOST_GAPS:
            self._found.append((line, line, why))
        else:
            self._more += 1

    @property
    def count(self) -> int:
        """How many gaps there are; a longer one is not another."""
        return len(self._found) + self._more

    @property
    def found(self) -> tuple[Gap, ...]:
        """The gaps; the place is ``line 12``, ``lines 12 to 30`` or empty."""
        gaps = [Gap(_lines(first, last), why, self._part) for first, last, why in self._found]
        if self._more:
            gaps.append(Gap("", f"and {self._more} more", self._part))
        return tuple(gaps)


def _lines(first: int, last: int) -> str:
    if not first:
        return ""
    return f"line {first}" if first == last else f"lines {first} to {last}"


ABSENT = "absent"


NOT_NEEDED = "not read: nothing depends on it here"


NOT_GIVEN = "not given"


NOT_KNOWN_OF_FAKED = "not known of what is faked"


def not_readable(why: str) -> str:
    """Return the phrase for something that is there and cannot be read."""
    return f"not readable: {why}"


def flat(text: str) -> str:
    """Return *text* on one line, safe for a terminal.

    A capture is untrusted, its name too: a vendor may carry escape sequences.
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def printable(text: str) -> str:
    """Return *text* as `flat` does, stripped and cut at 160 characters."""
    line = flat(text.strip())
    if len(line) <= _LONGEST_OBSERVATION:
        return line
    return line[: _LONGEST_OBSERVATION - 1] + "…"
