"""One bar on standard error for whatever takes long."""

from __future__ import annotations

import gc
import sys
import time
from typing import TYPE_CHECKING, Self

from tdxreclaim.errors import InterruptedWorkError

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE_SECONDS = 0.5


_REDRAW_SECONDS = 0.1


class Progress:
    """A bar once work has taken half a second, if standard error is a terminal.

    An interrupt says how far the work got.  *unit* is what is counted:
    ``bytes``, ``pages``.
    """

    def __init__(self, what: str, unit: str = "bytes") -> None:
        self._what = what
        self._unit = unit
        self._began = time.monotonic()
        self._done = 0
        self._drawn = 0.0
        self._total: int | None = None
        self._draw: Callable[[], None] | None = None
        self._stop: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        return self

    def show(self, done: int, total: int | None) -> None:
        """Note that *done* of *total* is done (of packed bytes: as they are on disk)."""
        self._done = done
        self._total = total if total is not None and total >= done else None
        now = time.monotonic()
        if self._draw is None and now - self._began > _PATIENCE_SECONDS:
            self._start()
        if self._draw is not None and now - self._drawn > _REDRAW_SECONDS:
            self._draw()
            self._drawn = now

    def _start(self) -> None:
        # Off since the start for speed (see __main__); this takes longer.
        gc.enable()
        if not sys.stderr.isatty():
            self._draw = lambda: None
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            ProgressColumn,
            Task,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bar
        from rich.text import Text

        unit = self._unit

        class Rate(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(f"{task.speed:,.0f} {unit}/s" if task.speed else "")

        amount = (
            (DownloadColumn(), TransferSpeedColumn())
            if unit == "bytes"
            else (MofNCompleteColumn(), Rate())
        )
        bar = Bar(
            TextColumn(self._what),
            BarColumn(),
            *amount,
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            # No thread of its own: it would run beside what is being timed.
            auto_refresh=False,
        )
        bar.start()
        task = bar.add_task(self._what, total=self._total)
        self._draw = lambda: bar.update(task, completed=self._done, total=self._total, refresh=True)
        self._stop = bar.stop

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            if self._unit == "bytes":
                how_far = f"after {self._done:,} bytes"
            elif self._done:
                how_far = f"at {self._done:,} of {self._total or 0:,} {self._unit}"
            else:
                how_far = "at the start"
            raise InterruptedWorkError(self._what, f"interrupted {how_far}")
