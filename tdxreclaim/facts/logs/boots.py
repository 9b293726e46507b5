"""The boots in one log: where each begins, and which of them a line is of."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tdxreclaim.facts.logs.line import Line

MOST_BOOTS = 4096


# Stamps of different CPUs' lines are out of order by less than this; a boot is not.
_BACKWARDS_SECONDS = 60.0


_RELEASE = re.compile(r"Linux version (\S+)")


class Boot(NamedTuple):
    """One boot in a log; ``whole`` if its beginning is there."""

    whole: bool
    line: int
    release: str | None = None


class Boots:
    """Counts boots by their first lines, by the journal's ids, and by stamps that go back."""

    def __init__(self) -> None:
        self.found: list[Boot] = []
        self._ids: dict[str, int] = {}
        self._current = 0
        self._last_seconds: float | None = None
        # A TD's kernel prints this before the line with its version.
        self._guest_alone = False

    def note(self, line: Line, number: int) -> tuple[int, bool]:
        """Return which boot *line* is of, and whether it begins it."""
        first = line.message.startswith("Linux version ")
        match = _RELEASE.match(line.message)
        boot = Boot(first, number, match[1] if match else None)
        before = len(self.found)
        if line.boot_id:
            self._note_id(line.boot_id, boot)
        elif first and self._guest_alone:
            self.found[self._current] = boot
        elif first or not self.found or self._goes_back(line.stamp.seconds):
            self._begin(boot)
        guest = line.message.startswith("tdx: Guest detected")
        self._guest_alone = guest and (len(self.found) > before or self._guest_alone)
        if not line.boot_id and line.stamp.seconds is not None:
            self._last_seconds = line.stamp.seconds
        return self._current, len(self.found) > before

    def name(self, release: str) -> None:
        """Note the current boot's release, told by another line than its first."""
        if self.found and self.found[self._current].release is None:
            self.found[self._current] = self.found[self._current]._replace(release=release)

    def _note_id(self, boot_id: str, boot: Boot) -> None:
        if boot_id not in self._ids and len(self._ids) < MOST_BOOTS:
            self._begin(boot)
            self._ids[boot_id] = self._current
        self._current = self._ids.get(boot_id, len(self.found) - 1)
        if boot.whole:
            known = self.found[self._current]
            self.found[self._current] = known._replace(whole=True, release=boot.release)

    def _goes_back(self, seconds: float | None) -> bool:
        return (
            seconds is not None
            and self._last_seconds is not None
            and seconds < self._last_seconds - _BACKWARDS_SECONDS
        )

    def _begin(self, boot: Boot) -> None:
        self._last_seconds = None
        if len(self.found) < MOST_BOOTS:
            self.found.append(boot)
        self._current = len(self.found) - 1
