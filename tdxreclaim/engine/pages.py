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

import zlib
from bisect import bisect_left, bisect_right
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.engine.states import compose

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# One less than the modulus of Adler-32, which sums a chunk; see _tally.
_CHUNK = 65_520


_MODULUS = 65_521


# Loaded pages are kept, and their counts remembered, in blocks of this many.
BLOCK_PAGES = 1 << 22


class _Data:
    """Bytes that are never written to, and how many of them are in which class."""

    def __init__(self, view: memoryview, partition: bytes | None = None) -> None:
        self.view = view
        self.partition = partition
        self.counted: Counter[int] | None = None
        self.possible: Iterable[int] = range(256)
        """Bytes that may occur: a superset."""

    def part(self, start: int, stop: int) -> _Data:
        """A part of it; all of it is itself, with what it remembers."""
        if (start, stop) == (0, len(self.view)):
            return self
        return _Data(self.view[start:stop], self.partition)

    def chunks(self, table: bytes | None) -> Iterator[bytes]:
        """Its bytes through a table, a chunk at a time."""
        for start in range(0, len(self.view), _CHUNK):
            chunk = bytes(self.view[start : start + _CHUNK])
            yield chunk if table is None else chunk.translate(table)

    def count(self, classes: bytes) -> Counter[int]:
        """How many bytes are in each class; looks at them only if it must."""
        if self.partition is None:
            self.partition = classes
        if self.counted is None:
            self.counted = self._tally(self.partition)
            found = {each for each, number in self.counted.items() if number}
            self.possible = [b for b, each in enumerate(self.partition) if each in found]
        known: dict[int, int] = {}
        for byte in self.possible:
            if known.setdefault(self.partition[byte], classes[byte]) != classes[byte]:
                # What is remembered is too coarse for this question.
                return self._tally(classes)
        total: Counter[int] = Counter()
        for each, number in known.items():
            total[number] += self.counted[each]
        return total

    def _tally(self, classes: bytes) -> Counter[int]:
        wanted = sorted({classes[byte] for byte in self.possible})
        total: Counter[int] = Counter()
        if len(wanted) == 1:
            total[wanted[0]] = len(self.view)
            return total
        for chunk in self.chunks(classes):
            # Searching for a byte is many times as fast as counting it.
            *others, last = [each for each in wanted if each in chunk]
            left = len(chunk)
            if not others:
                total[last] += left
                continue
            # Adler-32 sums the bytes modulo a prime above the chunk's length, and
            # unlike bytes.count does not slow down where they change at random.
            # With all classes but two counted, the sum of the chunk says how the
            # rest falls into those two.
            weight = _sum(chunk)
            *others, first = others
            for each in others:
                found = _sum(chunk.translate(_ONLY[each]))
                total[each] += found
                left -= found
                weight -= found * each
            found = (weight - first * left) * pow(last - first, -1, _MODULUS) % _MODULUS
            total[last] += found
            total[first] += left - found
        return total


def _sum(chunk: bytes) -> int:
    """The sum of its bytes, modulo 65521."""
    return ((zlib.adler32(chunk) & 0xFFFF) - 1) % _MODULUS


_ONLY = tuple(bytes(byte) + b"\1" + bytes(255 - byte) for byte in range(256))


class _Loaded(NamedTuple):
    """Pages with a byte each, and the table to read them through."""

    data: _Data
    table: bytes | None

    def through(self, table: bytes) -> bytes:
        """From the bytes as they lie to what *table* makes of the pages' states."""
        return table if self.table is None else compose(self.table, table)

    def possible(self) -> frozenset[int]:
        """States that may occur: a superset."""
        states = self.data.possible
        return frozenset(states if self.table is None else (self.table[each] for each in states))


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
        self.asked: list[bytes] = []
        """Classes that loaded pages were counted by, as maps from the bytes loaded."""

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

    def load(
        self,
        start: int,
        states: bytes | bytearray | memoryview,
        partition: bytes | None = None,
    ) -> None:
        """Give each page from *start* on its own byte of *states*, which is not copied.

        The caller must not change *states* afterwards.  *partition* maps each
        byte to a class: pages of a class will answer all later questions
        alike.  With it the bytes are looked at once; if it turns out wrong,
        once more a question, and nothing worse.
        """
        view = memoryview(states).cast("B")
        for page in self.odd(start, start + len(view)):
            self._odd[page] = view[page - start]
        self._replace(
            start,
            start + len(view),
            [
                (start + at, _Loaded(_Data(view[at : at + BLOCK_PAGES], partition), None))
                for at in range(0, len(view), BLOCK_PAGES)
            ],
        )

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
                cells.append((begin, _Loaded(cell.data, cell.through(table))))
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
                through = cell.through(classes)
                self.asked.append(through)
                total.update(cell.data.count(through))
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
                for chunk in cell.data.chunks(cell.table):
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
        state = cell.data.view[page - self._starts[at]]
        return state if cell.table is None else cell.table[state]

    def _plain_search(self, start: int, stop: int, classes: bytes) -> Iterator[int]:
        for begin, end, cell in self._runs(start, stop):
            if isinstance(cell, int):
                if classes[cell] == 1:
                    yield from range(begin, end)
                continue
            base = begin
            if not any(classes[state] == 1 for state in cell.possible()):
                continue
            for chunk in cell.data.chunks(cell.through(classes)):
                at = chunk.find(1)
                while at >= 0:
                    yield base + at
                    at = chunk.find(1, at + 1)
                base += len(chunk)

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int, int | _Loaded]]:
        """The runs of a range, cut at its ends."""
        self._check(start, stop)
        at = bisect_right(self._starts, start) - 1
        while start < stop:
            end = min(stop, self._starts[at + 1])
            cell = self._cells[at]
            if not isinstance(cell, int):
                base = self._starts[at]
                cell = _Loaded(cell.data.part(start - base, end - base), cell.table)
            yield start, end, cell
            start, at = end, at + 1

    def _check(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.pages:
            raise IndexError((start, stop))

    def _replace(self, start: int, stop: int, runs: list[tuple[int, int | _Loaded]]) -> None:
        """Put *runs* in the place of a range; uniform neighbours that are alike become one."""
        self._check(start, stop)
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
