"""How `watch` shows what it sees: a table in a terminal, lines elsewhere, JSON lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, Self

from tdxreclaim.cli.output import draws_on_terminal, emit

if TYPE_CHECKING:
    from rich.live import Live

    from tdxreclaim.calibrate.recorded import Measured
    from tdxreclaim.costs.watch import Watch
    from tdxreclaim.costs.watched import State
    from tdxreclaim.errors import ExitStatus
    from tdxreclaim.units import Span

# A recording is played as fast as it comes; nobody sees more.
_REDRAW_SECONDS = 0.05


class Screen(Protocol):
    """Where a watch is shown."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, watch: Watch, holders: tuple[str, ...]) -> None:
        """Show how it is now."""
        ...

    def end(
        self,
        watch: Watch,
        measured: Measured | None,
        published: Span,
        holders: tuple[str, ...],
        status: ExitStatus,
    ) -> None:
        """Show how it ended."""
        ...


def screen_for(format_: str, *, width: int, color: bool, pace: float) -> Screen:
    """Return the screen for a format; *pace* is the time between lines in seconds."""
    if format_ == "json":
        return JsonLines(pace)
    if draws_on_terminal():
        return Table(width=width, color=color)
    return Lines(pace, width=width, color=color)


class _Paced:
    """What writes a line an interval, and one for each new state."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._last: float | None = None
        self._states: dict[str, State] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _due(self, watch: Watch) -> bool:
        states = {name: each.watched.state for name, each in watch.followed.items()}
        # A hair before: an interval is never exact.
        due = self._last is None or watch.seconds - self._last > 0.99 * self._pace
        if not due and states == self._states:
            return False
        self._last, self._states = watch.seconds, states
        return True


class Lines(_Paced):
    """A line a VM."""

    def __init__(self, pace: float, *, width: int, color: bool) -> None:
        super().__init__(pace)
        self._width, self._color = width, color
        self._known: set[str] = set()
        self._advice = ""

    def show(self, watch: Watch, holders: tuple[str, ...]) -> None:
        """Print a line a VM, and what is known of a new one."""
        from tdxreclaim.report.watch import text

        if not self._due(watch):
            return
        if watch.followed.keys() - self._known:
            self._known |= watch.followed.keys()
            vms = text.render_vms(watch, width=self._width, color=self._color)
            emit(vms, color=self._color)
        emit(text.render_lines(watch))
        said = text.render_advice(watch, holders, width=self._width, color=self._color)
        if said != self._advice:
            self._advice = said
            emit(said, color=self._color)

    def end(
        self,
        watch: Watch,
        measured: Measured | None,
        published: Span,
        holders: tuple[str, ...],
        status: ExitStatus,  # noqa: ARG002  (the exit status itself says it)
    ) -> None:
        """Print how it ended."""
        from tdxreclaim.report.watch import text

        said = text.render_end(
            watch, measured, published, holders, width=self._width, color=self._color
        )
        emit(said, color=self._color)


class JsonLines(_Paced):
    """An object a line."""

    def show(self, watch: Watch, holders: tuple[str, ...]) -> None:  # noqa: ARG002
        """Print a sample; who holds a VM is said at the end."""
        from tdxreclaim.report.watch import json

        if self._due(watch):
            emit(json.render_sample(watch))

    def end(
        self,
        watch: Watch,
        measured: Measured | None,
        published: Span,
        holders: tuple[str, ...],
        status: ExitStatus,
    ) -> None:
        """Print how it ended."""
        from tdxreclaim.report.watch import json

        emit(json.render_end(watch, measured, published, holders, status=status))


class Table:
    """A table that is drawn again and again."""

    def __init__(self, *, width: int, color: bool) -> None:
        self._width, self._color = width, color
        self._live: Live | None = None
        self._drawn = 0.0

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(), auto_refresh=False, transient=True)
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, watch: Watch, holders: tuple[str, ...]) -> None:
        """Draw it again."""
        from rich.text import Text

        from tdxreclaim.report.watch import text

        now = time.monotonic()
        if self._live is None or now - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn = now
        drawn = text.render_table(watch, holders, width=self._width, color=self._color)
        self._live.update(Text.from_ansi(drawn), refresh=True)

    def end(
        self,
        watch: Watch,
        measured: Measured | None,
        published: Span,
        holders: tuple[str, ...],
        status: ExitStatus,  # noqa: ARG002  (the exit status itself says it)
    ) -> None:
        """Print how it ended; the table is gone by now."""
        from tdxreclaim.report.watch import text

        said = text.render_end(
            watch, measured, published, holders, width=self._width, color=self._color
        )
        emit(said, color=self._color)
