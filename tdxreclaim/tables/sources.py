"""Where a statement comes from, and how sure it is."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Certainty(StrEnum):
    """How well a row is known; an unverified one never becomes a flat statement."""

    VERIFIED = "verified"
    """Read in the source that stands beside it."""
    INFERRED = "inferred"
    """Follows from what was read, or from arithmetic on it."""
    ASSUMED = "assumed"
    """A choice of the emulator's model; nothing published decides it."""
    CONTESTED = "contested"
    """Sources that were read contradict each other."""
    UNVERIFIED = "unverified"


class Citation(NamedTuple):
    """A source, and the place in it that somebody can look up."""

    source: str
    locator: str

    def __str__(self) -> str:
        """Return both in one line."""
        return f"{self.source}: {self.locator}"
