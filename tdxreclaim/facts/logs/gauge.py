"""How much of a log was understood, by samples, and what the rest looks like."""

from __future__ import annotations

import re

from tdxreclaim.facts.logs.voice import Unread

# What is taken for a log at all is understood in this share of its lines or more.
_LONGEST_SHOWN = 200


_LOOKS = (
    (re.compile(r"\s*[\[{]"), "JSON of a layout that is not known", "journalctl -k -o json"),
    (re.compile(r"LPKSHHRH"), "a binary journal", "journalctl --file=FILE -k -o short-iso"),
    (re.compile(r"(?:[^,\n]*,){3}"), "comma-separated values", "journalctl -k -o short-iso"),
    (re.compile(r"\S+=\S+ \S+="), "key=value pairs (logfmt)", "journalctl -k -o short-iso"),
    (re.compile(r"(?=.*\ufffd.*\ufffd.*\ufffd)"), "binary data", "journalctl -k -o short-iso"),
    (re.compile(r"\s*<"), "HTML or XML", "dmesg"),
)


class Gauge:
    """Counts sampled lines: understood or not."""

    def __init__(self) -> None:
        self.read = 0
        self.unread = 0
        self._first: tuple[int, str] | None = None

    @property
    def wants_number(self) -> bool:
        """Whether the number of a line that is not understood matters: the first's alone."""
        return self._first is None

    def note(self, number: int, text: str, *, understood: bool) -> None:
        """Note a line that was looked at."""
        if not text.strip(" \t\r\n\0`"):
            return
        if understood:
            self.read += 1
            return
        self.unread += 1
        if self._first is None:
            self._first = (number, text[:_LONGEST_SHOWN])

    def result(self, lines: int) -> Unread | None:
        """Return what was not understood of *lines* lines, by the share of the samples."""
        if self._first is None:
            return None
        number, text = self._first
        looks, command = next(
            ((name, command) for pattern, name, command in _LOOKS if pattern.match(text)),
            ("plain text, not log lines", "journalctl -k -o short-iso"),
        )
        share = self.unread / (self.unread + self.read)
        return Unread(
            lines=max(round(share * lines), 1),
            number=number,
            text=text,
            looks_like=looks,
            command=command,
        )
