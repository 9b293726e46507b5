"""Records of a journal, a field a line: journalctl -o verbose and -o export."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tdxreclaim.facts.logs.fields import read_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.facts.logs.line import Line

_FIELD = re.compile(r"[ ]{0,8}([A-Z_][A-Z0-9_]{1,63})=(.*)", re.DOTALL)


# "Wed 2026-06-24 11:07:18.630945 UTC [s=0f0f;i=1;b=..]", as -o verbose begins each record.
_HEAD = re.compile(r"(\S.{0,60}?) \[s=[0-9a-f]+;i=[0-9a-f]+;")


_BEGINS = re.compile(r"__(?:CURSOR|REALTIME_TIMESTAMP)=|\S.{0,60}? \[s=[0-9a-f]+;i=[0-9a-f]+;")


_MOST_FIELDS = 400


def begins_record(text: str) -> bool:
    """Whether a line is the first of a record."""
    return _BEGINS.match(text) is not None


class Records:
    """Gathers the fields of each record, and hands its lines to *give* with the message's number."""

    def __init__(self, give: Callable[[Line, int], None]) -> None:
        self._give = give
        self._fields: dict[str, str] = {}
        self._number = 0

    def take(self, text: str, number: int) -> None:
        """Note the next line."""
        field = _FIELD.match(text)
        if field is not None:
            if len(self._fields) < _MOST_FIELDS:
                self._fields[field[1]] = field[2]
            if field[1] == "MESSAGE":
                self._number = number
            return
        head = _HEAD.match(text)
        if head is not None or not text.strip():
            self.finish()
        if head is not None:
            self._fields["timestamp"] = head[1]

    def finish(self) -> None:
        """Hand on the record that is gathered."""
        fields, self._fields = self._fields, {}
        if "MESSAGE" in fields:
            for line in read_record(fields):
                self._give(line, self._number)
