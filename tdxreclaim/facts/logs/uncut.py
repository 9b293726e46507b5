"""Whether the lines of a boot, from its first to its CPU0 line, are plainly all there.

Known by what such lines are, not by the marks of what is left out, which are
endless: each is a kernel line of that witness, with a stamp that never goes
back.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tdxreclaim.facts.logs.clock import moment_of

if TYPE_CHECKING:
    from tdxreclaim.facts.logs.line import Line, Stamp

# Hosts with thousands of CPUs print a line for each of them before.
_MOST_LINES = 20_000


# The clock of a wall is set to the second.
_BACKWARDS_SECONDS = 1.0


# What the kernel and the log's daemon say of lines that they lost.
_LOST = re.compile(r"printk messages? dropped|messages? lost|Missed \d+ kernel messages")


# A stamp behind which people left a mark in place of lines.
_MARK = re.compile(
    r"(?=\s*\S)[\W_]*(?:(?:\d+|more|some|many|the|rest|other|lines?|of|output|log|messages?)\W+){0,6}"
    r"(?:snip\w*|cut|truncat\w*|omitted|skipped|elided|removed|deleted|redacted|etc|more|lines?)?"
    r"[\W_]*\Z",
    re.IGNORECASE,
)


# The kernel draws boxes of these.
_BOX = re.compile(r"[*=#-]{8,}\s*\Z|\*\* .*\*\*\s*\Z")


class Window:
    """Watches a boot's lines from the first to the CPU0 line."""

    def __init__(self) -> None:
        self.is_open = False
        self.uncut = False
        self._lines = 0
        self._host = ""
        self._seconds: float | None = None
        self._when = ""
        self._moment = 0.0

    def begin(self, line: Line) -> None:
        """Note the first line of a boot."""
        stamp = line.stamp
        self.is_open = self.uncut = True
        self._lines, self._host = 0, line.host
        self._seconds, self._when = stamp.seconds, stamp.when
        self._moment = moment_of(stamp.when, 0.0) or 0.0 if stamp.seconds is None else 0.0

    def forget(self) -> None:
        """Note that another boot began, without its first line."""
        self.is_open = self.uncut = False

    def end(self) -> None:
        """Note the CPU0 line."""
        self.is_open = False

    def cut(self) -> None:
        """Note that lines are left out here, or that it cannot be told."""
        if self.is_open:
            self.forget()

    def take(self, line: Line) -> None:
        """Note a kernel line of this witness."""
        if not self.is_open:
            return
        self._lines += 1
        if (
            line.host != self._host
            or _is_marked(line.message)
            or not self._follows(line.stamp)
            or self._lines > _MOST_LINES
        ):
            self.cut()

    def _follows(self, stamp: Stamp) -> bool:
        if self._seconds is not None:
            last, self._seconds = self._seconds, stamp.seconds
            return stamp.seconds is not None and stamp.seconds >= last
        if stamp.seconds is not None or not stamp.when:
            return False
        if stamp.when == self._when:
            return True
        last_moment, self._when = self._moment, stamp.when
        self._moment = moment_of(stamp.when, last_moment) or 0.0
        return last_moment - _BACKWARDS_SECONDS <= self._moment != 0.0 != last_moment


def _is_marked(message: str) -> bool:
    marked = _MARK.match(message) is not None and not _BOX.match(message)
    return marked or _LOST.search(message) is not None
