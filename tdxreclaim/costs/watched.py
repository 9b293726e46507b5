"""A VM whose counters are looked at again and again: what its pages say.

`Watched` is told each look and says in which state the VM is, how fast its pages
go, and how long the rest will take.  Rates are made of falling stretches alone:
a counter that rises, stands or was not seen tells no rate.

On 6.18 to 7.1 a page whose removal failed counts down too; on 7.2 and later it
does not, and stays in the counter until the VM's folder goes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.kvm.counters import Life
from tdxreclaim.units import Span

if TYPE_CHECKING:
    from collections.abc import Sequence


class State(StrEnum):
    """What a VM's counter does.  Public: JSON prints it."""

    RUNNING = "running"
    COUNTING_DOWN = "counting-down"
    STANDING = "standing"
    ZERO = "zero"
    GONE_AFTER_ZERO = "gone-after-zero"
    GONE_WITH_VALUE = "gone-with-value"

    @property
    def ended(self) -> bool:
        """Whether the VM's folder is gone."""
        return self in (State.GONE_AFTER_ZERO, State.GONE_WITH_VALUE)


# A fall of less than this part of what a VM had is a running guest's.
_FALLS = 0.01

# Without a page for this part of the stated patience a counter stands.
_STANDS = 0.1

# A rate of the last so many seconds says how long the rest takes.
_RECENT_SECONDS = 30.0

# Of the pages at either end of a range this share is chance.
_CHANCE = 0.05

# Of fewer intervals a rate holds time in which nothing fell.
_FEWEST_INTERVALS = 3


class Fall(NamedTuple):
    """Between two looks: when, how long, how many pages went."""

    at: float
    """Seconds, of the later look."""
    seconds: float
    pages: int


class Rate(NamedTuple):
    """What falling stretches say."""

    page: Span
    """What a page took, nanoseconds: likely of all together, low and high of 5 and 95 of 100."""
    pages: int
    seconds: float
    coarse: bool
    """Too few intervals between looks: their ends hold time in which nothing fell."""

    @property
    def pages_a_second(self) -> float:
        """How many pages went in a second."""
        return self.pages / self.seconds


class Watched:
    """One VM, as far as its looks tell."""

    def __init__(self, *, size_pages: int | None = None, patience: float = 30.0) -> None:
        self.state = State.RUNNING
        self.pages: int | None = None
        """At the last look; None: no look yet."""
        self._stated = size_pages
        self._before = False
        """Whether it was seen before its pages went."""
        self.patience = patience
        """Without a page for so long, seconds, it is stuck."""
        self.most = 0
        """The most pages that were seen."""
        self._at = 0.0
        self._moved = 0.0
        """When the counter last moved."""
        self._top = 0
        """Where the last fall began."""
        self._stretches: list[list[Fall]] = []
        self._falling = False

    @property
    def size_pages(self) -> int | None:
        """What it had: as stated, or the most that was seen before its pages went."""
        if self._stated is not None:
            return self._stated
        return self.most if self._before and self.most else None

    @property
    def stretches(self) -> tuple[Fall, ...]:
        """Each falling stretch as one."""
        return tuple(
            Fall(each[-1].at, sum(f.seconds for f in each), sum(f.pages for f in each))
            for each in self._stretches
        )

    @property
    def stuck_seconds(self) -> float:
        """How long a counter that should fall has stood, 0 where it moves or need not."""
        if self.state in (State.STANDING, State.ZERO):
            return self._at - self._moved
        return 0.0

    @property
    def stuck(self) -> bool:
        """Whether it has stood for longer than the stated patience."""
        return self.stuck_seconds >= self.patience

    @property
    def left_behind(self) -> int:
        """Pages that were left when the folder went, after the counter had fallen and stood.

        On 7.2 and later they may be pages whose removal failed.
        """
        stood = self._stretches and not self._falling
        return (self.pages or 0) if self.state is State.GONE_WITH_VALUE and stood else 0

    @property
    def done(self) -> float | None:
        """The share of its pages that is back, 0 to 1; None: its size is not known."""
        unknown = self.state in (State.RUNNING, State.GONE_WITH_VALUE)
        if self.pages is None or not self.size_pages or unknown:
            return None
        return max(0.0, 1 - self.pages / self.size_pages)

    def see(self, at: float, pages: int | None, life: Life, *, broken: bool = False) -> State:
        """Take a look in; *pages* is None once its folder is gone.

        *broken* makes no rate of the time since the last look.
        """
        if self.state.ended:
            return self.state
        before, since = self.pages, self._at
        self._at = at
        if pages is None:
            self.state = State.GONE_WITH_VALUE if before else State.GONE_AFTER_ZERO
            return self.state
        self.pages = pages
        if before is not None and pages >= before and not self._stretches:
            self._before = True
        if before is None or pages > before:
            self._rise(at, pages)
        elif pages < before:
            self._fall(Fall(at, at - since, before - pages), broken=broken)
        else:
            self._falling = False
        self.state = self._judge(life, moved=pages != before, rose=before is None or pages > before)
        return self.state

    def _rise(self, at: float, pages: int) -> None:
        self._moved = at
        self._top = pages
        self._falling = False
        self.most = max(self.most, pages)

    def _fall(self, fall: Fall, *, broken: bool) -> None:
        self._moved = fall.at
        if broken or fall.seconds <= 0:
            self._falling = False
            return
        if not self._falling:
            self._stretches.append([])
        self._falling = True
        self._stretches[-1].append(fall)

    def _judge(self, life: Life, *, moved: bool, rose: bool) -> State:
        alive = life in (Life.ALIVE, Life.UNKNOWN)
        if not self.pages:
            # A VM that never had a page and has a process is a new one.
            return State.ZERO if self.most or not alive else State.RUNNING
        if rose:
            return State.RUNNING
        falls = not alive or self._top - self.pages >= max(1, _FALLS * self._top)
        if moved:
            return State.COUNTING_DOWN if falls else self.state
        if alive and self.state is State.RUNNING:
            return State.RUNNING
        stands = self._at - self._moved >= _STANDS * self.patience
        return State.STANDING if stands else self.state

    def rate(self) -> Rate | None:
        """What all falling stretches say; None: none was seen."""
        return _rate(self._stretches, since=0.0)

    def recent(self) -> Rate | None:
        """What the last seconds of the stretch say in which it is now; None: it does not fall."""
        if not self._falling:
            return None
        return _rate(self._stretches[-1:], since=self._at - _RECENT_SECONDS)

    def left(self) -> Span | None:
        """How long the rest of its pages takes, by how fast they go; None: it does not fall."""
        recent, rate = self.recent(), self.rate()
        if (
            recent is None
            or rate is None
            or not self.pages
            or self.state is not State.COUNTING_DOWN
        ):
            return None
        likely = recent.page.likely_ns
        low, high = min(rate.page.low_ns, likely), max(rate.page.high_ns, likely)
        return Span(low, likely, high).times(self.pages)


def _rate(stretches: Sequence[Sequence[Fall]], *, since: float) -> Rate | None:
    # The first and the last interval of a stretch hold time in which nothing fell.
    whole = [fall for stretch in stretches for fall in stretch[1:-1] if fall.at > since]
    falls = whole or [fall for stretch in stretches for fall in stretch if fall.at > since]
    if not falls:
        return None
    pages, seconds = sum(fall.pages for fall in falls), sum(fall.seconds for fall in falls)
    likely = round(seconds * 1e9 / pages)
    falls.sort(key=lambda fall: fall.seconds / fall.pages)
    low, high = (_at_share(falls, pages * share) for share in (_CHANCE, 1 - _CHANCE))
    return Rate(
        page=Span(min(low, likely), likely, max(high, likely)),
        pages=pages,
        seconds=seconds,
        coarse=len(whole) < _FEWEST_INTERVALS,
    )


def _at_share(falls: Sequence[Fall], wanted: float) -> int:
    """Return what a page took, nanoseconds, where so many pages took less."""
    seen = 0
    for fall in falls:
        seen += fall.pages
        if seen >= wanted:
            break
    return round(fall.seconds * 1e9 / fall.pages)
