"""The lines of a log, one after the other: dress off, wrapped ones joined, JSON gathered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.logs.bringup import tells_of_host
from tdxreclaim.facts.logs.dress import INSIDE, Dressed, take_off, undress
from tdxreclaim.facts.logs.fields import json_in, read_json, read_row, text_columns
from tdxreclaim.facts.logs.gauge import Gauge
from tdxreclaim.facts.logs.line import Line, Speaker
from tdxreclaim.facts.logs.needles import begins, known_until
from tdxreclaim.facts.logs.records import Records, begins_record
from tdxreclaim.facts.logs.stack import begins_stack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.facts.logs.voices import Voices

# One JSON value, in one line or many, is read up to here.
JSON_BYTES = 8 << 20


# What a line that is kept takes beside its text.
_KEPT_BYTES = 64


# Of a sampled line only this much.
_SAMPLE_BYTES = 1 << 11


# The form of a whole text shows in the first of its lines.
_FIRST_LINES = 3


_SECTION = re.compile(r"==> (\S.*?) <==\Z|([\w.-]+) \| [A-Z]+!? \| rc=\d+ >>\Z")


class _Pending(NamedTuple):
    """A line that may go on in the next ones, how wide the last was, and what they say together."""

    dressed: Dressed
    number: int
    width: int
    together: tuple[str, ...] = ()


class Lines:
    """Reads lines: takes off their dress, joins wrapped ones, gathers JSON of several lines."""

    def __init__(self, voices: Voices) -> None:
        self.count = 0
        self.malformed = 0
        self.gauge = Gauge()
        self._voices = voices
        self._pending: _Pending | None = None
        self._json: list[tuple[int, str]] = []
        self._json_size = 0
        self._json_end = ""
        self._may_gather = True
        self._table: tuple[str, list[str]] | None = None
        self._records: Records | None = None

    @property
    def wants_all(self) -> bool:
        """Whether the next line is wanted, whatever is in it."""
        return bool(self._pending or self._json or self._records or self._voices.wait)

    def finish(self) -> None:
        """Let go of what waits for another line."""
        if self._json:
            self._read_again()
        if self._records is not None:
            self._records.finish()
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
        if self._records is not None:
            return True
        if self._table is not None:
            return text_columns(text) is not None or bool(read_row(text, *self._table))
        value = json_in(text)
        if value is not None:
            lines = read_json(value)
            return bool(lines and any(each.speaker is not Speaker.NOBODY for each in lines))
        return undress(text).line.speaker is not Speaker.NOBODY

    def take(self, text: str, number: int) -> None:
        """Look at one line."""
        if self._take_of_form(text, number):
            return
        value = json_in(text)
        if value is not None:
            self._flush()
            self._take_json(value, text, number)
        elif text.count("\\n[") > 1:
            # A whole log as one string of a program's.
            for part in text.split("\\n"):
                self._take_plain(part, number)
        else:
            self._take_plain(text, number)

    def _take_of_form(self, text: str, number: int) -> bool:
        """Look at a line of a text that has one form throughout; whether it is one."""
        if number <= _FIRST_LINES and self._records is None and begins_record(text):
            self._records = Records(self._give)
        if number == 1:
            self._table = text_columns(text)
        if self._records is not None:
            self._records.take(text, number)
        elif self._table is not None and number > 1:
            self._take_row(text, number, *self._table)
        elif self._json:
            self._gather(text, number)
        else:
            return False
        return True

    def _take_plain(self, text: str, number: int) -> None:
        dressed = undress(text)
        if self._pending is not None:
            more = _goes_on(self._pending, dressed, text)
            if more:
                self._join(self._pending, more, text)
                return
            self._flush()
        if dressed.line.speaker is Speaker.NOBODY:
            self._take_nobodys(dressed, text, number)
        elif _may_go_on(dressed, text):
            self._pending = _Pending(dressed, number, len(text))
        else:
            self._voices.take(dressed.dress, dressed.line, number)

    def _join(self, pending: _Pending, more: str, text: str) -> None:
        # A terminal breaks words, a mail program lines between words.
        spaced, glued = pending.together or (pending.dressed.line.message,) * 2
        together = (f"{spaced} {more.strip()}", f"{glued}{more}")
        self._pending = pending._replace(width=len(text), together=together)

    def _flush(self) -> None:
        if self._pending is None:
            return
        dressed, number, _, together = self._pending
        self._pending = None
        line = dressed.line
        message = next((each for each in together if _tells_more(each, line.message)), None)
        if message is not None:
            line = line._replace(message=message)
        self._voices.take(dressed.dress, line, number, joined=message is not None)
        if together and message is None:
            # What follows may be its rest, and may stand where lines were.
            self._voices.break_off()

    def break_off(self) -> None:
        """Note that something here is not looked at."""
        self._flush()
        self._voices.break_off()

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
        self._json_size += len(text) + _KEPT_BYTES
        ends = text.rstrip(" \t,") == self._json_end
        if not ends and self._json_size < JSON_BYTES:
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

    def _take_row(self, text: str, number: int, separator: str, columns: list[str]) -> None:
        lines = read_row(text, separator, columns)
        if lines is None:
            self.malformed += 1
            self._voices.break_off()
        for line in lines or ():
            self._give(line, number)

    def _take_json(self, value: str, text: str, number: int) -> None:
        lines = read_json(value)
        if lines is not None:
            for line in lines:
                self._give(line, number)
            return
        dressed = undress(text)
        if dressed.line.speaker is Speaker.KERNEL:
            # A list of strings in another language's notation.
            self._voices.take(dressed.dress, dressed.line, number)
        elif text.rstrip()[-1:] in ("{", "["):
            self._take_nobodys(Dressed("", Line(Speaker.NOBODY), text), text, number)
        else:
            self.malformed += 1
            self.break_off()
            self._voices.pass_by("{", "")

    def _give(self, line: Line, number: int) -> None:
        if line.speaker is Speaker.NOBODY:
            self._voices.pass_by("{", line.message)
        else:
            self._voices.take("{", line, number)


def _tells(message: str) -> bool:
    return begins_stack(message) or known_until(message) > 0 or tells_of_host(message)


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


def _goes_on(pending: _Pending, dressed: Dressed, text: str) -> str | None:
    """Return what did not fit into the line before, without its dress; ``None`` if it is another."""
    if dressed.line.speaker is not Speaker.NOBODY or len(text) > _WIDEST:
        return None
    more = take_off(text, pending.dressed.dress)
    more = text if more is None else more
    first = more.split(maxsplit=1)[:1]
    if not first or first[0].startswith(("```", "...")):
        return None
    return more if pending.width + 1 + len(first[0]) > _NARROWEST else None


def _tells_more(together: str, alone: str) -> bool:
    """Whether more is known of the parts of a line together than of the first alone."""
    return known_until(together) > len(alone) or (_tells(together) and not _tells(alone))
