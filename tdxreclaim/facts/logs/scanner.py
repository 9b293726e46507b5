"""Kernel lines in logs, read as a stream: journals and dmesg of any size, as dirty as they come.

A log is searched in blocks for plain texts and expressions; only the lines with
a hit are decoded and looked at whole.  A line counts only if the kernel wrote
it: a syslog or journal line of another program never does, whatever it quotes.
Lines of different hosts, and lines in different dress, are different witnesses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.logs.bringup import tells_of_host
from tdxreclaim.facts.logs.dress import INSIDE, Dressed, undress, undress_block
from tdxreclaim.facts.logs.fields import read_json
from tdxreclaim.facts.logs.gauge import Gauge
from tdxreclaim.facts.logs.line import Line, Speaker
from tdxreclaim.facts.logs.needles import begins, known_until
from tdxreclaim.facts.logs.search import Form, Hits, form_of, samples
from tdxreclaim.facts.logs.stack import begins_stack
from tdxreclaim.facts.logs.voice import ScannedLog, Voice

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterable, Iterator

    from tdxreclaim.facts.logs.stack import LogEvent

CHUNK_BYTES = 1 << 18


# Of a longer line only this much is looked at, and what follows a NUL.
LINE_BYTES = 1 << 16


# One JSON value, in one line or many, is read up to here.
_JSON_BYTES = 8 << 20


_OVERLAP_BYTES = 1 << 12


# So much of a log is searched without supposing how its lines begin.
_SLOW_BYTES = 1 << 20


# Of a sampled line only this much.
_SAMPLE_BYTES = 1 << 11


_FIRST_SAMPLES = 400


_LATER_SAMPLES = 3


# Different hosts and dresses in one log; lines of more are counted and not used.
_MOST_VOICES = 64


# Names that a machine has before it gets its own.
_NAMELESS = frozenset(
    ("", "localhost", "localhost.localdomain", "(none)", "-", "unknown", "fedora", "archlinux")
)


_NULS = re.compile(rb"\0+")


_SECTION = re.compile(r"==> (\S.*?) <==\Z|([\w.-]+) \| [A-Z]+!? \| rc=\d+ >>\Z")


class LogScanner:
    """Finds the kernel's lines in one log and hands each to its witness's sink, in order.

    ``open_sink`` gives each witness, by its name, a place to put its lines.
    ``since`` (seconds since 1970) leaves out lines that say they are older;
    ``host`` all that name another host, or none.
    """

    def __init__(
        self,
        path: str,
        open_sink: Callable[[str], Callable[[LogEvent], None]],
        *,
        since: float | None = None,
        host: str | None = None,
    ) -> None:
        self._voices = _Voices(path, open_sink, since, host)
        self._lines = _Lines(self._voices)
        self._path = path
        self._carry = b""
        self._size = 0
        self._inside_line = False
        self._long_lines = self._nuls = 0

    @property
    def understood(self) -> bool:
        """Whether any line so far was."""
        return self._lines.gauge.read > 0 or any(v.kernel_lines for v in self._voices.all)

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
        longest = _JSON_BYTES if self._carry[:1] in (b"{", b"[") else CHUNK_BYTES
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
            yield f"{self._lines.malformed} lines of JSON that are cut off or malformed: not used"
        yield from self._voices.skipped()

    def _give_up_on_line(self) -> None:
        """Scan what there is of a line without end, and keep a rest in case of a split word."""
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
        form = Form.ANY
        plain = buffer.find(b"\0", 0, end) < 0 and buffer.find(b"\x1b", 0, end) < 0
        if self._size > _SLOW_BYTES and plain and buffer.find(b"\r", 0, end) < 0:
            form = form_of([buffer[start : min(stop, start + 4096)] for start, stop in where])
        newlines = buffer.count(b"\n", 0, end)
        if form is Form.ANY:
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

    def _walk(self, block: bytes, end: int, form: Form) -> None:
        hits = Hits(block, end, form)
        lines = self._lines
        counted, position, number = 0, 0, lines.count + 1
        look = form is Form.ANY and not self._inside_line
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
                self._long_lines += not self._inside_line and stop < end
            position = stop + 1

    def _look(self, block: bytes, start: int, stop: int, end: int, number: int) -> None:
        longest = _JSON_BYTES if block[start : start + 1] in (b"{", b"[") else LINE_BYTES
        # A line without end is counted where it is given up on.
        self._long_lines += stop - start > longest and stop < end
        raw = block[start : min(stop, start + longest)]
        self._lines.take(raw.decode("utf-8", "replace"), number)


class _Pending(NamedTuple):
    """A line that may go on in the next ones, how wide the last was, and what they say together."""

    dressed: Dressed
    number: int
    width: int
    together: str = ""


class _Lines:
    """Reads lines: takes off their dress, joins wrapped ones, gathers JSON of several lines."""

    def __init__(self, voices: _Voices) -> None:
        self.count = 0
        self.malformed = 0
        self.gauge = Gauge()
        self._voices = voices
        self._pending: _Pending | None = None
        self._json: list[tuple[int, str]] = []
        self._json_size = 0
        self._json_end = ""
        self._may_gather = True

    @property
    def wants_all(self) -> bool:
        """Whether the next line is wanted, whatever is in it."""
        return bool(self._pending or self._json or self._voices.wait)

    def finish(self) -> None:
        """Let go of what waits for another line."""
        if self._json:
            self._read_again()
        self._flush()
        self._voices.finish()

    def sample(self, block: bytes, where: Iterable[tuple[int, int]]) -> None:
        """Note whether lines of a block are understood."""
        for start, stop in where:
            text = block[start : min(stop, start + _SAMPLE_BYTES)].decode("utf-8", "replace")
            text = text.partition(INSIDE.decode())[0]
            if stop - start > _SAMPLE_BYTES and text.startswith(("{", "[")):
                understood = self._voices.heard
            else:
                understood = self._understood(text)
            number = 0
            if not understood and self.gauge.wants_number:
                number = self.count + 1 + block.count(b"\n", 0, start)
            self.gauge.note(number, text, understood=understood)

    def _understood(self, text: str) -> bool:
        if _is_json(text):
            lines = read_json(text[text.find("{") :])
            return bool(lines and any(each.speaker is not Speaker.NOBODY for each in lines))
        return undress(text).line.speaker is not Speaker.NOBODY

    def take(self, text: str, number: int) -> None:
        """Look at one line."""
        if self._json:
            self._gather(text, number)
            return
        if _is_json(text):
            self._flush()
            self._take_json(text, number)
            return
        dressed = undress(text)
        if self._pending is not None:
            if _goes_on(self._pending, dressed, text):
                self._join(dressed, text)
                return
            self._flush()
        if dressed.line.speaker is Speaker.NOBODY:
            self._take_nobodys(dressed, text, number)
        elif _may_go_on(dressed, text):
            self._pending = _Pending(dressed, number, len(text))
        else:
            self._voices.take(dressed.dress, dressed.line, number)

    def _join(self, dressed: Dressed, text: str) -> None:
        if self._pending is not None:
            before = self._pending.together or self._pending.dressed.line.message
            together = f"{before} {dressed.text.strip()}"
            self._pending = self._pending._replace(width=len(text), together=together)

    def _flush(self) -> None:
        if self._pending is None:
            return
        dressed, number, _, together = self._pending
        self._pending = None
        line = dressed.line
        # Only where more is known of them together than of the first alone.
        alone = line.message
        joined = bool(together) and (
            known_until(together) > len(alone) or (_tells(together) and not _tells(alone))
        )
        if joined:
            line = line._replace(message=together)
        self._voices.take(dressed.dress, line, number, joined=joined)

    def _take_nobodys(self, dressed: Dressed, text: str, number: int) -> None:
        bare = text.strip()
        if bare == "...":
            self._voices.cut()
        elif (section := _SECTION.match(bare)) is not None:
            self._voices.begin_section(section[1] or "", section[2] or "")
        elif bare[-1:] in ("{", "[") and self._may_gather:
            indent = text[: len(text) - len(text.lstrip())]
            self._json = [(number, text)]
            self._json_end = indent + ("]" if bare[-1] == "[" else "}")
            self._json_size = 0
        else:
            self._voices.pass_by(dressed.dress, dressed.text)

    def _gather(self, text: str, number: int) -> None:
        self._json.append((number, text))
        self._json_size += len(text)
        ends = text.rstrip(" \t,") == self._json_end
        if not ends and self._json_size < _JSON_BYTES:
            return
        (first, opening), *rest = self._json
        document = "\n".join([opening.strip()[-1], *(each for _, each in rest)]).rstrip(" \t,")
        lines = read_json(document) if ends else None
        if lines is None:
            self._read_again()
            return
        self._json = []
        self._place(lines, document, first)

    def _read_again(self) -> None:
        """Take what looked like JSON of several lines, and is none, for lines."""
        lines, self._json = self._json, []
        self._may_gather = False
        for number, text in lines:
            self.take(text, number)
        self._may_gather = True

    def _place(self, lines: list[Line], document: str, number: int) -> None:
        """Hand on the lines of a document, each with the number of the line that it stands in."""
        at = 0
        for line in lines:
            needle = line.message.strip().replace('"', '\\"')[:60]
            found = document.find(needle, at) if needle else -1
            if found >= 0:
                number += document.count("\n", at, found)
                at = found
            self._give(line, number)

    def _take_json(self, text: str, number: int) -> None:
        lines = read_json(text[text.find("{") if "{" in text else text.find("[") :])
        if lines is None:
            if text.rstrip()[-1:] in ("{", "["):
                self._take_nobodys(Dressed("", Line(Speaker.NOBODY), text), text, number)
                return
            self.malformed += 1
            self._voices.pass_by("{", "")
            return
        for line in lines:
            self._give(line, number)

    def _give(self, line: Line, number: int) -> None:
        if line.speaker is Speaker.NOBODY:
            self._voices.pass_by("{", line.message)
        else:
            self._voices.take("{", line, number)


def _tells(message: str) -> bool:
    return begins_stack(message) or known_until(message) > 0 or tells_of_host(message)


_JSON_BEGINS = re.compile(r"(?:data:[ ]?|\x1e|\ufeff|[ \t])*[\[{]\s*(?:[\"{\[]|\Z)")


def _is_json(text: str) -> bool:
    return _JSON_BEGINS.match(text) is not None


# Mails and tickets are wrapped at such widths.
_NARROWEST, _WIDEST = 66, 80


def _may_go_on(dressed: Dressed, text: str) -> bool:
    line = dressed.line
    return (
        line.speaker is Speaker.KERNEL
        and len(text) <= _WIDEST
        and len(text) > _NARROWEST // 2
        and begins(line.message)
        and line.message != dressed.text.strip()
    )


def _goes_on(pending: _Pending, dressed: Dressed, text: str) -> bool:
    """Whether a line is what did not fit into the one before it."""
    words = dressed.text.split(maxsplit=1)
    return (
        dressed.line.speaker is Speaker.NOBODY
        and bool(words)
        and len(text) <= _WIDEST
        and pending.width + 1 + len(words[0]) > _NARROWEST
        and (dressed.dress == pending.dressed.dress or not dressed.dress)
        and not words[0].startswith("```")
    )


class _Voices:
    """The witnesses in one log."""

    def __init__(
        self,
        path: str,
        open_sink: Callable[[str], Callable[[LogEvent], None]],
        since: float | None,
        host: str | None,
    ) -> None:
        self.all: list[Voice] = []
        self._path = path
        self._open_sink = open_sink
        self._since = since
        self._host = host
        self._section = ""
        self._section_host = ""
        self._last: Voice | None = None
        self._others = self._too_many = 0
        self.heard = False
        self.ended = True

    @property
    def wait(self) -> bool:
        """Whether a stack is being read."""
        return any(voice.waits for voice in self.all)

    def take(self, dress: str, line: Line, number: int, *, joined: bool = False) -> None:
        """Hand a line to its witness."""
        self.heard = True
        if line.speaker is Speaker.PROGRAM and not line.message.startswith("Failed to terminate"):
            self.pass_by(dress, "")
            return
        voice = self._voice(self._section + dress, line.host or self._section_host, line)
        if voice is not None:
            voice.take(line, number, joined=joined, ended=self.ended)
            self._last = voice
            for other in self.all:
                if other is not voice and other.waits:
                    other.pass_by("")

    def pass_by(self, dress: str, text: str) -> None:
        """Note a line that is nobody's, or another program's."""
        for voice in self.all:
            if voice.waits:
                voice.pass_by(text if voice.dress == self._section + dress else "")

    def cut(self) -> None:
        """Note that lines are left out."""
        for voice in self.all:
            voice.cut()

    def begin_section(self, path: str, host: str) -> None:
        """Note that lines of another file, or host, follow."""
        self._section = f"{path}: " if path else ""
        self._section_host = host

    def finish(self) -> None:
        for voice in self.all:
            voice.finish()

    def skipped(self) -> Iterator[str]:
        """Say which lines were not used, for whose they are."""
        if self._others:
            yield f"{self._others} kernel lines that do not name {self._host}: left out"
        if self._too_many:
            yield f"{self._too_many} kernel lines of further hosts than {_MOST_VOICES}: not used"

    def main_dress(self) -> str | None:
        """Return the dress that the host's own lines wear; ``None`` if none can be told."""
        dresses = {voice.dress for voice in self.all if voice.kernel_lines}
        if "" in dresses:
            return ""
        return dresses.pop() if len(dresses) == 1 else None

    def _voice(self, dress: str, host: str, line: Line) -> Voice | None:
        host = "" if host in _NAMELESS else host
        same = [voice for voice in self.all if voice.dress == dress]
        for voice in same:
            if host and _same_host(voice.host, host):
                return voice
        named = [voice for voice in same if voice.host]
        if not host and len(named) <= 1 and same:
            return (named or same)[0]
        nameless = next((voice for voice in same if not voice.host), None)
        if host and nameless is not None and not named:
            nameless.host = host
            return nameless
        if not host and nameless is not None:
            return nameless
        if not begins(line.message) and line.speaker is Speaker.KERNEL:
            return None
        if self._host is not None and not _same_host(host, self._host):
            self._others += 1
            return None
        if len(self.all) >= _MOST_VOICES:
            self._too_many += 1
            return None
        return self.admit(dress, host)

    def admit(self, dress: str, host: str) -> Voice:
        """Return a new witness."""
        label = self._path
        if self.all:
            what = host or (f'lines after "{dress}"' if dress else "plain lines")
            label = f"{self._path} ({what})"
            taken = {voice.path for voice in self.all}
            label = next(
                each
                for each in (label, *(f"{label} {turn}" for turn in range(2, _MOST_VOICES + 2)))
                if each not in taken
            )
        voice = Voice(label, dress, self._open_sink(label), self._since)
        voice.host = host
        self.all.append(voice)
        return voice


def _same_host(one: str, other: str) -> bool:
    """Whether two names are one host's: with and without its domain."""
    if one == other:
        return True
    short, long = sorted((one, other), key=len)
    return bool(short) and "." not in short and long.startswith(f"{short}.")


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
