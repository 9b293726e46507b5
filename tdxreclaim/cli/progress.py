"""A bar of bytes on standard error."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tdxreclaim.errors import InterruptedWorkError

if TYPE_CHECKING:
    from typing import Self

    from rich.progress import Progress, TaskID

_PATIENCE_SECONDS = 0.5


class ByteProgress:
    """A bar once reading has taken half a second, if standard error is a terminal.

    An interrupt says how far the reading got.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._done = 0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def show(self, done: int, total: int | None) -> None:
        """Note that *done* bytes are read, of *total* (of packed bytes: as they are on disk)."""
        self._done = done
        if self._bar is None:
            late = time.monotonic() - self._began > _PATIENCE_SECONDS
            if not late or not sys.stderr.isatty():
                return
            self._start()
        if self._bar is not None and self._task is not None:
            known = total if total is not None and total >= done else None
            self._bar.update(self._task, completed=done, total=known)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

        columns = (TextColumn("reading"), BarColumn(), DownloadColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        self._task = self._bar.add_task("reading", total=None)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            raise InterruptedWorkError(self._what, f"interrupted after {self._done:,} bytes")
