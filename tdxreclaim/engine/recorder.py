"""What happened, one step at a time, for those who asked.

A recorder makes the emulator do certain pages one by one instead of a run at
a time: as many as it takes to fill the first *n* events, and the pages whose
life is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.engine.plan import Scope
    from tdxreclaim.engine.states import Line, PageState
    from tdxreclaim.engine.truth import Op, Seen
    from tdxreclaim.tables.seamcalls import Reply
    from tdxreclaim.tables.teardown import Action, Phase


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One step."""

    at_ns: int
    """When it ended, in likely nanoseconds since the teardown began."""
    phase: Phase
    did: Action | Op | None
    """None: a fault that was injected."""
    scope: Scope | None
    number: int
    """vCPU or package, or page number from 0; 0 for the TD."""
    pfn: int | None
    """Page frame number, where it is about a page."""
    line: int | None = None
    """0-63, where it is about one line."""
    reply: Reply | None = None
    """None where no SEAMCALL was made."""
    seen: Seen | None = None
    before: PageState | Line | None = None
    """The line where it is about one line, else the page."""
    after: PageState | Line | None = None


class Recorder:
    """Keeps the first events, and all events of some pages."""

    def __init__(self, first: int = 0, pages: Iterable[int] = ()) -> None:
        self._first = first
        self.pages = frozenset(pages)
        self.events: list[Event] = []
        self.lives: dict[int, list[Event]] = {page: [] for page in sorted(self.pages)}

    @property
    def hungry(self) -> bool:
        """Whether the next event is wanted, whatever it is about."""
        return len(self.events) < self._first

    def wants(self, page: int) -> bool:
        """Whether an event about *page* is wanted."""
        return self.hungry or page in self.pages

    def add(self, event: Event) -> None:
        """Take an event."""
        if self.hungry:
            self.events.append(event)
        if event.pfn is not None and event.number in self.pages:
            self.lives[event.number].append(event)
