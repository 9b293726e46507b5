"""Where a statement comes from, and how sure it is."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Certainty(StrEnum):
    """How well a table row is known; an unverified one never becomes a flat statement."""

    VERIFIED = "verified"
    INFERRED = "inferred"
    UNVERIFIED = "unverified"


class Citation(NamedTuple):
    """A source, and the place in it that somebody can look up."""

    source: str
    locator: str

    def __str__(self) -> str:
        """Return both in one line."""
        return f"{self.source}: {self.locator}"
