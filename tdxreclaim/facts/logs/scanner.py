"""Kernel lines in logs, read as a stream: journals and dmesg of any size, as dirty as they come.

A log is searched in blocks for plain texts and expressions; only the lines with
a hit are decoded and looked at whole.  A line counts only if the kernel wrote
it: a syslog or journal line of another program never does, whatever it quotes.
Lines of different hosts, and lines in different dress, are different witnesses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tdxreclaim.facts.logs.dress import INSIDE, undress_block
from tdxreclaim.facts.logs.lines import JSON_BYTES, Lines
from tdxreclaim.facts.logs.search import Hits, LineForm, form_of, samples
from tdxreclaim.facts.logs.voice import ScannedLog
from tdxreclaim.facts.logs.voices import Voices

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

    from tdxreclaim.facts.logs.clock import Since
    from tdxreclaim.facts.logs.stack import LogEvent

CHUNK_BYTES = 1 << 18


# Of a longer line only this much is looked at, and what follows a NUL.
LINE_BYTES = 1 << 16


_OVERLAP_BYTES = 1 << 12


# So much of a log is searched without supposing how its lines begin.
_SLOW_BYTES = 1 << 20


_FIRST_SAMPLES = 400


_LATER_SAMPLES = 3


_NULS = re.compile(rb"\0+")


class LogScanner:
    """Finds the kernel's lines in one log and hands each to its witness's sink, in order.

    ``open_sink`` gives each witness, by its name, a place to put its lines.
    ``since`` leaves out lines that say they are older;
    ``host`` all that name another host, or none.  With ``watches`` it looks at
    every line from a boot's first to its CPU0 line, and knows whether any is
    left out there.
    """

    def __init__(
        self,
        path: str,
        open_sink: Callable[[str], Callable[[LogEvent], None]],
        *,
        since: Since | None = None,
        host: str | None = None,
        watches: bool = True,
    ) -> None:
        self._voices = Voices(path, open_sink, since, host, watches=watches)
        self._lines = Lines(self._voices)
        self._path = path
        self._carry = b""
        self._size = 0
        self._inside_line = False
        self._long_lines = self._nuls = 0
        self.looked_at = 0
        """How many lines were looked at, and not only searched."""

    @property
    def understood(self) -> bool:
        """Whether any line so far was."""
        if any(voice.kernel_lines for voice in self._voices.all):
            return True
        return self._lines.gauge.read > 0 and not self._voices.buried

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the log."""
        self._size += len(chunk)
        buffer = self._carry + chunk if self._carry else chunk
        end = buffer.rfind(b"\n") + 1
        if end:
            self._scan(buffer, end)
            self._carry = buffer[end:]
            self._inside_line = False
        else:
            self._carry = buffer
        longest = JSON_BYTES if self._carry[:1] in (b"{", b"[") else CHUNK_BYTES
        if len(self._carry) > longest:
            self._give_up_on_line()

    def finish(self, damage: str | None = None) -> tuple[ScannedLog, ...]:
        """Return each witness that was met; *damage* says why the rest could not be read."""
        if self._carry:
            self._voices.ended = False
            self._scan(self._carry, len(self._carry))
            self._lines.count += 1
            self._carry = b""
        self._lines.finish()
        if not self._voices.all:
            # A log without a kernel line is one still.
            self._voices.admit("", "")
        skipped = list(self._skipped(damage))
        unread = self._lines.gauge.result(self._lines.count)
        return tuple(
            ScannedLog(
                path=voice.path,
                lines=self._lines.count,
                size=self._size,
                kernel_lines=voice.kernel_lines,
                boots=tuple(voice.boots.found),
                skipped=(*(skipped if not index else []), *voice.skipped()),
                reading=voice.bringup.reading,
                host=voice.host,
                quoted=voice.dress != main and voice.kernel_lines > 0,
                understood=self.understood,
                unread=unread,
            )
            for main in [self._voices.main_dress()]
            for index, voice in enumerate(self._voices.all)
        )

    def _skipped(self, damage: str | None) -> Iterator[str]:
        if damage:
            yield f"cut short or damaged after line {self._lines.count}: {damage}"
        if self._long_lines:
            yield (
                f"{self._long_lines} lines of more than {LINE_BYTES >> 10} KiB: only their "
                "beginning, and what follows a NUL, was looked at"
            )
        if self._nuls:
            yield f"{self._nuls} NUL bytes: taken for the end of a line"
        if self._lines.malformed:
            yield f"{self._lines.malformed} lines of JSON or of a table that are cut off or malformed: not used"
        yield from self._voices.skipped()

    def _give_up_on_line(self) -> None:
        """Scan what there is of a line without end, and keep a rest in case of a split word."""
        self._lines.break_off()
        if not self._inside_line:
            self._long_lines += 1
        cut = len(self._carry) - _OVERLAP_BYTES
        self._scan(self._carry, cut)
        self._carry = self._carry[cut:]
        self._inside_line = True

    def _scan(self, buffer: bytes, end: int) -> None:
        """Look at the lines of a block that may matter; it ends where a line does."""
        first = self._lines.count == 0 and not self._inside_line
        count = _FIRST_SAMPLES if first else _LATER_SAMPLES
        where = list(samples(buffer, end, count))
        form = LineForm.ANY
        plain = buffer.find(b"\0", 0, end) < 0 and buffer.find(b"\x1b", 0, end) < 0
        if self._size > _SLOW_BYTES and plain and buffer.find(b"\r", 0, end) < 0:
            form = form_of([buffer[start : min(stop, start + 4096)] for start, stop in where])
        newlines = buffer.count(b"\n", 0, end)
        if form is LineForm.ANY:
            if not plain:
                self._nuls += buffer.count(b"\0", 0, end)
            block = undress_block(_NULS.sub(INSIDE, buffer[:end]))
            self._walk(block, len(block), form)
            if not self._inside_line:
                self._lines.sample(block, samples(block, len(block), count))
        else:
            self._walk(buffer, end, form)
            # Their heads are those of lines that are read.
            self._lines.gauge.read += len(where)
        self._lines.count += newlines

    def _walk(self, block: bytes, end: int, form: LineForm) -> None:
        hits = Hits(block, end, form)
        lines = self._lines
        counted, position, number = 0, 0, lines.count + 1
        look = form is LineForm.ANY and not self._inside_line
        while position < end:
            start: int | None = position
            if not look and not lines.wants_all:
                hit = hits.next(position)
                if hit is None:
                    return
                start = _line_start(block, hit, position)
            look = False
            stop = _line_end(block, position if start is None else start, end)
            # The middle of a line is not what a kernel message begins with.
            if start is not None and (start or not self._inside_line):
                number += block.count(b"\n", counted, start)
                counted = start
                self._look(block, start, stop, end, number)
            elif start is None:
                self._lines.break_off()
                self._long_lines += not self._inside_line and stop < end
            position = stop + 1

    def _look(self, block: bytes, start: int, stop: int, end: int, number: int) -> None:
        longest = JSON_BYTES if block[start : start + 1] in (b"{", b"[") else LINE_BYTES
        # A line without end is counted where it is given up on.
        if stop - start > longest:
            self._lines.break_off()
            self._long_lines += stop < end
        self.looked_at += 1
        raw = block[start : min(stop, start + longest)]
        self._lines.take(raw.decode("utf-8", "replace"), number)


# No line of the kernel has its message further from its beginning, but for JSON.
_LONGEST_HEAD = 1 << 14


def _line_start(block: bytes, hit: int, position: int) -> int | None:
    """Return where the line of *hit* begins; ``None`` if that is too far before it."""
    newline = max(block.rfind(b"\n", position, hit), block.rfind(INSIDE, position, hit))
    start = newline + 1 if newline >= 0 else position
    if hit - start > _LONGEST_HEAD and block[start : start + 1] not in (b"{", b"["):
        return None
    return start


def _line_end(block: bytes, start: int, end: int) -> int:
    """Return where the line ends: at a newline, where the block does, or where it was parted."""
    newline = block.find(b"\n", start, end)
    stop = end if newline < 0 else newline
    inside = block.find(INSIDE, start, stop)
    return stop if inside < 0 else inside


def scan_log(
    stream: io.BufferedIOBase,
    scanner: LogScanner,
    errors: tuple[type[Exception], ...],
    progress: Callable[[int], None],
) -> tuple[ScannedLog, ...]:
    """Read *stream* to its end through *scanner*; damage ends it and is said."""
    total = 0
    while True:
        pieces: list[bytes] = []
        size = 0
        damage: str | None = None
        try:
            # read1, since read would lose what came before the damage.
            while size < CHUNK_BYTES and (piece := stream.read1(CHUNK_BYTES - size)):
                pieces.append(piece)
                size += len(piece)
        except errors as error:
            damage = str(error) or type(error).__name__
        if pieces:
            scanner.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            progress(size)
        total += size
        if total > NOTHING_BYTES and not scanner.understood:
            damage = f"nothing was understood in the first {NOTHING_BYTES >> 20} MiB: not read on"
        if damage is not None or not pieces:
            return scanner.finish(damage)


# A file of which so much is nothing that is known is not read to its end.
NOTHING_BYTES = 64 << 20
