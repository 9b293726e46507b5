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
