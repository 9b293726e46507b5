"""A state byte for each of many pages, stored as few times as possible.

Pages that share a state are one *run*, whatever its length, until something
tells them apart.  Two things do: ``load`` gives every page of a range a byte
of its own, and ``set`` gives one page a state of its own, in a dictionary
beside the runs (about 100 bytes a page: for thousands of pages, or a million;
give more than that with ``load``).

A table over the 256 states applied to a range costs one look-up for a run.
For loaded bytes it is composed with the table already waiting there and
applied when somebody reads them, by ``bytes.translate`` a chunk at a time, so
that ten operations in a row cost one pass.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.engine.states import compose

if TYPE_CHECKING:
    from collections.abc import Iterator

# Small enough to stay in a core's cache while it is copied, translated and
# counted; from 16 to 64 KiB make no difference, 1 MiB costs 1.6 times as much.
_CHUNK = 1 << 16


class _Loaded(NamedTuple):
    """A byte a page, never written to, and the table to read it through."""

    data: memoryview
    table: bytes | None

    def chunks(self, classes: bytes | None = None) -> Iterator[bytes]:
        """The states, or their *classes*, a chunk at a time."""
        table = self.table
        if classes is not None:
            table = classes if table is None else compose(table, classes)
        for start in range(0, len(self.data), _CHUNK):
            chunk = bytes(self.data[start : start + _CHUNK])
            yield chunk if table is None else chunk.translate(table)

    def possible(self) -> frozenset[int]:
        """States that may occur: a superset, found without looking at the data."""
        return frozenset(range(256) if self.table is None else self.table)


class PageStore:
    """States 0-255 of pages 0 to ``pages`` - 1.

    Pages that were ``set`` one by one are *odd*; the methods named ``plain_``
    leave them out, and all others include them.
    """

    def __init__(self, pages: int, state: int) -> None:
        self.pages = pages
        # Run i holds pages _starts[i] to _starts[i + 1] - 1; a sentinel ends the list.
        self._starts = [0, pages] if pages else [0]
        self._cells: list[int | _Loaded] = [state] if pages else []
        self._odd: dict[int, int] = {}
        self._sorted: list[int] | None = []

    def __getitem__(self, page: int) -> int:
        state = self._odd.get(page)
        return self._plain(page) if state is None else state

    def __setitem__(self, page: int, state: int) -> None:
        if not 0 <= page < self.pages:
            raise IndexError(page)
        if page not in self._odd:
            self._sorted = None
        self._odd[page] = state

    def isolate(self, page: int) -> None:
        """Make *page* odd, in the state that it has."""
        self[page] = self[page]

    def odd(self, start: int, stop: int) -> list[int]:
        """The odd pages of a range, ascending."""
        if self._sorted is None:
            self._sorted = sorted(self._odd)
        return self._sorted[bisect_left(self._sorted, start) : bisect_left(self._sorted, stop)]

    def fill(self, start: int, stop: int, state: int) -> None:
        """Put every page of a range in one state."""
        for page in self.odd(start, stop):
            self._odd[page] = state
        self._replace(start, stop, [(start, state)])

    def load(self, start: int, states: bytes | bytearray | memoryview) -> None:
        """Give each page from *start* on its own byte of *states*, which is not copied.

        The caller must not change *states* afterwards.
        """
        data = memoryview(states).cast("B")
        for page in self.odd(start, start + len(data)):
            self._odd[page] = data[page - start]
        self._replace(start, start + len(data), [(start, _Loaded(data, None))])

    def translate(self, start: int, stop: int, table: bytes) -> None:
        """Send every page of a range through a table of 256 states."""
        for page in self.odd(start, stop):
            self._odd[page] = table[self._odd[page]]
        self.plain_translate(start, stop, table)

    def plain_translate(self, start: int, stop: int, table: bytes) -> None:
        """Send the pages that are not odd through a table."""
        # What lies under an odd page is never read, so it may change too.
        cells: list[tuple[int, int | _Loaded]] = []
        for begin, _, cell in self._runs(start, stop):
            if isinstance(cell, int):
                cells.append((begin, table[cell]))
            else:
                waiting = table if cell.table is None else compose(cell.table, table)
                cells.append((begin, _Loaded(cell.data, waiting)))
        self._replace(start, stop, cells)

    def plain_possible(self, start: int, stop: int) -> frozenset[int]:
        """States that pages of a range that are not odd may be in: a superset."""
        found: set[int] = set()
        for _, _, cell in self._runs(start, stop):
            found |= {cell} if isinstance(cell, int) else cell.possible()
        return frozenset(found)

    def plain_count(self, start: int, stop: int, classes: bytes) -> Counter[int]:
        """How many pages that are not odd are in each class; *classes* maps states to classes."""
        total: Counter[int] = Counter()
        for begin, end, cell in self._runs(start, stop):
            if isinstance(cell, int):
                total[classes[cell]] += end - begin
            else:
                total.update(_count(cell, classes))
        total.subtract(classes[self._plain(page)] for page in self.odd(start, stop))
        return total

    def count(self, start: int, stop: int, classes: bytes) -> Counter[int]:
        """How many pages of a range are in each class."""
        total = self.plain_count(start, stop, classes)
        total.update(classes[self._odd[page]] for page in self.odd(start, stop))
        return total

    def plain_find(self, start: int, stop: int, classes: bytes, limit: int) -> list[int]:
        """The first pages that are not odd and in class 1, ascending, at most *limit*."""
        found: list[int] = []
        for page in self._plain_search(start, stop, classes):
            if len(found) == limit:
                break
            if page not in self._odd:
                found.append(page)
        return found

    def states(self, start: int, stop: int) -> bytearray:
        """A byte a page, as a copy of a range."""
        out = bytearray()
        for begin, end, cell in self._runs(start, stop):
            if isinstance(cell, int):
                out += bytes([cell]) * (end - begin)
            else:
                for chunk in cell.chunks():
                    out += chunk
        for page in self.odd(start, stop):
            out[page - start] = self._odd[page]
        return out

    @property
    def run_count(self) -> int:
        """In how many runs the pages that are not odd are stored."""
        return len(self._cells)

    def _plain(self, page: int) -> int:
        if not 0 <= page < self.pages:
            raise IndexError(page)
        at = bisect_right(self._starts, page) - 1
        cell = self._cells[at]
        if isinstance(cell, int):
            return cell
        state = cell.data[page - self._starts[at]]
        return state if cell.table is None else cell.table[state]

    def _plain_search(self, start: int, stop: int, classes: bytes) -> Iterator[int]:
        for begin, end, cell in self._runs(start, stop):
            if isinstance(cell, int):
                if classes[cell] == 1:
                    yield from range(begin, end)
                continue
            base = begin
            for chunk in cell.chunks(classes):
                at = chunk.find(1)
                while at >= 0:
                    yield base + at
                    at = chunk.find(1, at + 1)
                base += len(chunk)

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int, int | _Loaded]]:
        """The runs of a range, cut at its ends."""
        if not 0 <= start <= stop <= self.pages:
            raise IndexError((start, stop))
        at = bisect_right(self._starts, start) - 1
        while start < stop:
            end = min(stop, self._starts[at + 1])
            cell = self._cells[at]
            if not isinstance(cell, int):
                base = self._starts[at]
                cell = _Loaded(cell.data[start - base : end - base], cell.table)
            yield start, end, cell
            start, at = end, at + 1

    def _replace(self, start: int, stop: int, runs: list[tuple[int, int | _Loaded]]) -> None:
        """Put *runs* in the place of a range; uniform neighbours that are alike become one."""
        if start == stop:
            return
        first = bisect_right(self._starts, start) - 1
        last = bisect_left(self._starts, stop)
        head = [(b, c) for b, _, c in self._runs(self._starts[first], start)]
        tail = [(b, c) for b, _, c in self._runs(stop, self._starts[last])]
        # One run on either side joins in, so that it can be merged.
        if not head and first:
            first -= 1
            head = [(self._starts[first], self._cells[first])]
        if not tail and last < len(self._cells):
            tail = [(self._starts[last], self._cells[last])]
            last += 1
        merged: list[tuple[int, int | _Loaded]] = []
        for begin, cell in head + runs + tail:
            if not merged or not isinstance(cell, int) or merged[-1][1] != cell:
                merged.append((begin, cell))
        self._starts[first:last] = [begin for begin, _ in merged]
        self._cells[first:last] = [cell for _, cell in merged]


def _count(loaded: _Loaded, classes: bytes) -> Counter[int]:
    total: Counter[int] = Counter()
    wanted = sorted({classes[state] for state in loaded.possible()})
    if len(wanted) == 1:
        total[wanted[0]] = len(loaded.data)
        return total
    # The last class is what the others leave over: one pass less.
    *counted, rest = wanted
    for chunk in loaded.chunks(classes):
        left = len(chunk)
        for item in counted:
            if left == 0:
                break
            # Searching is twenty times as fast as counting, and most are absent.
            if chunk.find(item) >= 0:
                found = chunk.count(item)
                total[item] += found
                left -= found
        total[rest] += left
    return total
