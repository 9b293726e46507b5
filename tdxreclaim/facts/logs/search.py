"""Where in a block of a log a line may matter: plain texts first, then expressions."""

from __future__ import annotations

import re
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.logs.needles import NOT_KILLED, words

if TYPE_CHECKING:
    from collections.abc import Iterator


class Form(Enum):
    """How the lines of a block begin, where all are alike; ``ANY`` where they are not."""

    TAGGED = "tagged"
    STAMPED = "stamped"
    JOURNAL_JSON = "journal json"
    ANY = "any"


_FORMS = (
    (Form.STAMPED, re.compile(rb"(?:<\d>)?\[ *\d{1,12}\.\d{6}\](?:\[ *[TC]\d+\])? ")),
    (Form.TAGGED, re.compile(rb"[^\n\[\]{}\"<>|`=']{0,40}\d\d:\d\d:\d\d\S{0,15} \S+ [^\s:]+: ")),
    (Form.JOURNAL_JSON, re.compile(rb'\{"[^\n]{0,2000}"MESSAGE" ?:')),
)


def form_of(lines: list[bytes]) -> Form:
    """Return the form that all *lines* have."""
    for form, pattern in _FORMS:
        if lines and all(pattern.match(line) for line in lines):
            return form
    return Form.ANY


# What shows that lines are left out, that JSON of several lines begins, or whose lines follow.
_LANDMARKS = (
    rb"\n\.\.\.[ \t]*\n",
    rb"(?<=\n)[ \t]{0,40}[\[{][ \t]*\n",
    rb"=> ?\{[ \t]*\n",
    rb'"MESSAGE" ?: ?\[',
    rb"(?<=\n)==> \S",
    rb"\| rc=\d+ >>\n",
)


_STAMPS = rb"(?:\[(?!Hardware)[^\]\n]{1,40}\] ?)*"


class _Patterns(NamedTuple):
    forms: dict[Form, tuple[re.Pattern[bytes] | bytes, ...]]


def _letters(texts: list[bytes], at: int) -> bytes:
    return b"[" + b"".join(sorted({re.escape(text[at : at + 1]) for text in texts})) + b"]"


@cache
def _patterns() -> _Patterns:
    texts = [word.encode() for word in words()]
    any_of = b"(?:" + b"|".join(re.escape(text).replace(rb"\ ", b" ") for text in texts) + b")"
    # Looked at before the alternatives, as that is quicker.
    first = b"(?=" + b"".join(_letters(texts, at) for at in range(3)) + b")"
    slashed = any_of.replace(b"/", rb"\\?/")
    return _Patterns(
        {
            Form.TAGGED: (
                re.compile(
                    b"kernel: (?=[\\[ ]|" + _letters(texts, 0) + b")" + _STAMPS + b" {0,8}" + any_of
                ),
                NOT_KILLED,
            ),
            Form.STAMPED: (re.compile(rb"\] {0,8}" + first + any_of), NOT_KILLED),
            Form.JOURNAL_JSON: (
                re.compile(rb'"MESSAGE" ?: ?(?:\[|" {0,8}' + _STAMPS + slashed + b")"),
                NOT_KILLED,
            ),
            Form.ANY: (
                re.compile(slashed + b"|" + b"|".join(_LANDMARKS)),
                NOT_KILLED,
            ),
        }
    )


class Hits:
    """The next place where a line may matter, in a block."""

    def __init__(self, block: bytes, end: int, form: Form) -> None:
        self._block = block
        self._end = end
        self._patterns = _patterns().forms[form]
        self._next = [-1] * len(self._patterns)

    def next(self, position: int) -> int | None:
        """Return the first hit at or after *position*."""
        for index, at in enumerate(self._next):
            if at < position:
                self._next[index] = self._find(self._patterns[index], position)
        best = min(self._next)
        return best if best < self._end else None

    def _find(self, pattern: re.Pattern[bytes] | bytes, position: int) -> int:
        if isinstance(pattern, bytes):
            # Much faster than an expression for the same letters.
            found = self._block.find(pattern, position, self._end)
            return self._end if found < 0 else found
        match = pattern.search(self._block, position, self._end)
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
