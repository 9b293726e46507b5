"""Where in a block of a log a line may matter: plain texts first, then expressions."""

from __future__ import annotations

import re
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

from tdxreclaim.facts.logs.needles import NOT_KILLED, words

if TYPE_CHECKING:
    from collections.abc import Iterator


class LineForm(Enum):
    """How the lines of a block begin, where all are alike; ``ANY`` where they are not."""

    TAGGED = "tagged"
    STAMPED = "stamped"
    JOURNAL_JSON = "journal json"
    ANY = "any"


_FORMS = (
    (LineForm.STAMPED, re.compile(rb"(?:<\d>)?\[ *\d{1,12}\.\d{6}\](?:\[ *[TC]\d+\])? ")),
    (
        LineForm.TAGGED,
        re.compile(rb"[^\n\[\]{}\"<>|`=']{0,40}\d\d:\d\d:\d\d\S{0,15} \S+ [^\s:]+: "),
    ),
    (LineForm.JOURNAL_JSON, re.compile(rb'\{"[^\n]{0,2000}"MESSAGE" ?:')),
)


def form_of(lines: list[bytes]) -> LineForm:
    """Return the form that all *lines* have."""
    for form, pattern in _FORMS:
        if lines and all(pattern.match(line) for line in lines):
            return form
    return LineForm.ANY


# What shows that lines are left out, that JSON of several lines begins, or whose lines follow.
_LANDMARKS = (
    b"\n...",
    b"\n{\n",
    b"\n[\n",
    b"=> {\n",
    b"\n==> ",
    b"| rc=",
    b'"MESSAGE":[',
    b'"MESSAGE": [',
)


_STAMPS = rb"(?:\[(?!Hardware)[^\]\n]{1,40}\] ?)*"


def _letters(texts: list[bytes], at: int) -> bytes:
    return b"[" + b"".join(sorted({re.escape(text[at : at + 1]) for text in texts})) + b"]"


def _plain_texts(texts: list[bytes]) -> list[bytes]:
    """Return texts one of which is in whatever has one of *texts*, also with its slashes escaped."""
    unslashed = {text.partition(b"/")[0] if text.startswith(b"WARNING") else text for text in texts}
    return [
        text
        for text in sorted(unslashed)
        if not any(other != text and other in text for other in unslashed)
    ]


@cache
def _needles(form: LineForm) -> tuple[re.Pattern[bytes] | bytes, ...]:
    texts = [word.encode() for word in words()]
    any_of = b"(?:" + b"|".join(map(re.escape, texts)) + b")"
    # Looked at before the alternatives, as that is quicker.
    first = b"".join(_letters(texts, at) for at in range(3))
    match form:
        case LineForm.TAGGED:
            pattern = b"kernel: (?=\\[|" + first + b")" + _STAMPS + any_of
        case LineForm.STAMPED:
            pattern = rb"\] (?=" + first + b")" + any_of
        case LineForm.JOURNAL_JSON:
            slashed = any_of.replace(b"/", rb"\\?/")
            pattern = rb'"MESSAGE" ?: ?(?:\[|"(?=\[|' + first + b")" + _STAMPS + slashed + b")"
        case _:
            # Many plain texts are found faster than one expression for them.
            return (*_plain_texts(texts), *_LANDMARKS, NOT_KILLED)
    return (re.compile(pattern), NOT_KILLED)


class Hits:
    """The next place where a line may matter, in a block."""

    def __init__(self, block: bytes, end: int, form: LineForm) -> None:
        self._block = block
        self._end = end
        self._needles = _needles(form)
        self._next = [-1] * len(self._needles)

    def next(self, position: int) -> int | None:
        """Return the first hit at or after *position*."""
        for index, at in enumerate(self._next):
            if at < position:
                self._next[index] = self._find(self._needles[index], position)
        best = min(self._next)
        return best if best < self._end else None

    def _find(self, needle: re.Pattern[bytes] | bytes, position: int) -> int:
        if isinstance(needle, bytes):
            # A newline in front belongs to the line before: not at a line's own beginning.
            begin = max(position - needle.startswith(b"\n"), 0)
            found = self._block.find(needle, begin, self._end)
            return self._end if found < 0 else max(found + needle.startswith(b"\n"), position)
        match = needle.search(self._block, position, self._end)
        return self._end if match is None else match.end() - 1


def samples(block: bytes, end: int, count: int) -> Iterator[tuple[int, int]]:
    """Return where about *count* lines, spread over a block, begin and end."""
    step = max(end // count, 1)
    start = 0
    while start < end:
        stop = block.find(b"\n", start, end)
        stop = end if stop < 0 else stop
        yield start, stop
        after = max(start + step, stop + 1)
        newline = block.find(b"\n", after - 1, end)
        start = end if newline < 0 else newline + 1
