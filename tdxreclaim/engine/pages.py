"""A state byte for each of many pages, stored as few times as possible.

Pages that share a state are one *run*, whatever its length.  A page that got
a state of its own is a *single*, kept in a dictionary beside the runs (about
100 bytes a page: for thousands of pages, or a million).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class PageStore:
    """States 0-255 of pages 0 to ``pages`` - 1."""

    def __init__(self, pages: int, state: int) -> None:
        self.pages = pages
        # Run i holds pages _starts[i] to _starts[i + 1] - 1; a sentinel ends the list.
        self._starts = [0, pages] if pages else [0]
        self._states = [state] if pages else []
        self._singles: dict[int, int] = {}
        self._sorted: list[int] | None = []

    @classmethod
    def of(cls, runs: Iterable[tuple[int, int]]) -> PageStore:
        """Pages of *runs*, each a length and a state, end to end."""
        store = cls(0, 0)
        for length, state in runs:
            store._states.append(state)
            store.pages += length
            store._starts.append(store.pages)
        return store

    def __getitem__(self, page: int) -> int:
        state = self._singles.get(page)
        if state is not None:
            return state
        if not 0 <= page < self.pages:
            raise IndexError(page)
        return self._states[bisect_right(self._starts, page) - 1]

    def __setitem__(self, page: int, state: int) -> None:
        if not 0 <= page < self.pages:
            raise IndexError(page)
        if page not in self._singles:
            self._sorted = None
        self._singles[page] = state

    def isolate(self, page: int) -> None:
        """Make *page* a single, in the state that it has."""
        self[page] = self[page]

    def singles(self, start: int, stop: int) -> list[int]:
        """The singles of a range, ascending."""
        if self._sorted is None:
            self._sorted = sorted(self._singles)
        return self._sorted[bisect_left(self._sorted, start) : bisect_left(self._sorted, stop)]

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Start, stop and state of the runs of a range, cut at its ends.

        The state is that of the run's pages but the singles among them.
        """
        if not 0 <= start <= stop <= self.pages:
            raise IndexError((start, stop))
        at = bisect_right(self._starts, start) - 1
        while start < stop:
            end = min(stop, self._starts[at + 1])
            yield start, end, self._states[at]
            start, at = end, at + 1

    def fill(self, start: int, stop: int, state: int) -> None:
        """Put every page of a range in one state."""
        self.translate(start, stop, bytes([state]) * 256)

    def translate(self, start: int, stop: int, table: bytes) -> None:
        """Send every page of a range through a table of 256 states."""
        for page in self.singles(start, stop):
            self._singles[page] = table[self._singles[page]]
        self.translate_runs(start, stop, table)

    def translate_runs(self, start: int, stop: int, table: bytes) -> None:
        """Send the pages of a range that are not singles through a table."""
        # What lies under a single is never read, so it may change too.
        whole = list(self.runs(0, start))
        whole += [(begin, end, table[state]) for begin, end, state in self.runs(start, stop)]
        whole += self.runs(stop, self.pages)
        self._starts, self._states = [], []
        for begin, _, state in whole:
            if not self._states or self._states[-1] != state:
                self._starts.append(begin)
                self._states.append(state)
        self._starts.append(self.pages)

    def count_runs(self, start: int, stop: int, classes: bytes) -> Counter[int]:
        """How many pages but singles are in each class; *classes* maps states to classes."""
        total: Counter[int] = Counter()
        for begin, end, state in self.runs(start, stop):
            total[classes[state]] += end - begin - len(self.singles(begin, end))
        return total

    def count(self, start: int, stop: int, classes: bytes) -> Counter[int]:
        """How many pages of a range are in each class."""
        total = self.count_runs(start, stop, classes)
        total.update(classes[self._singles[page]] for page in self.singles(start, stop))
        return total

    def first_of_runs(self, start: int, stop: int, classes: bytes, limit: int) -> list[int]:
        """The first pages that are no singles and in class 1, ascending, at most *limit*."""
        found = (
            page
            for begin, end, state in self.runs(start, stop)
            if classes[state] == 1
            for page in range(begin, end)
            if page not in self._singles
        )
        return list(islice(found, limit))
