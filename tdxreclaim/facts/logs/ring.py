"""The kernel's ring buffer as this host gives it, read without what any other log may need.

Such a log is of one boot and one host, in lines of one form.  What is not plainly so is left to the
reader of any log, which takes 30 ms to import; where this one answers, both say the same.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TYPE_CHECKING

from tdxreclaim.facts.logs.bringup import Bringup
from tdxreclaim.facts.logs.needles import HOST_BEGINNINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.facts.logs.reading import LogReading

_HEAD = r"\[ *(\d{1,12})\.\d{6}\] "


# What the reader of any log takes for colour, mark-up, a record or the end of a line.
_DRESS = (
    *("\0", "\r", "\x1b", "[0m", "[1m", "[32m", "\\_", "\\[", "\\n[", " [s="),
    *("<br", "</p>", "</div>", "</li>", "</tr>", "</td>", "</th>"),
    *("&lt;", "&gt;", "&quot;", "&amp;", "&nbsp;", "&#"),
)


# What may be a second head, behind which a message begins.
_HEAD_AGAIN = re.compile(r"[<\[]|.*(?:\d:\d\d|\d{9}|kernel|:\w+ *:)")


# Stamps of one boot's lines are out of order by less.
_BACKWARDS_SECONDS = 60


_BANNER = "Linux version "


_FIRST_LINE = re.compile(rf"\[ *\d+\.\d+\] {_BANNER}\S+ \(")


def read_ring(text: str) -> LogReading | None:
    """Return what *text*, of lines ``[    1.234567] message``, says of its boot.

    ``None`` if it takes the reader of any log to tell.
    """
    if not _is_one_boot(text) or any(sign in text.lower() for sign in _DRESS):
        return None
    bringup = Bringup()
    number, last = 1, 0
    try:
        messages = sorted(set(_messages(text)))
    except ValueError:
        return None
    for at in messages:
        number, last = number + text.count("\n", last, at), at
        bringup.take(number, text[at : text.index("\n", at) + 1])
    reading = bringup.reading
    # What names a Xeon may tell its generation, where the kernel does not.
    return None if reading.group is None and "xeon" in text.lower() else reading


def _messages(text: str) -> Iterator[int]:
    """Yield where messages that tell of the host begin.

    Raises:
        ValueError: one may stand behind another head.

    """
    head = re.compile(_HEAD)
    for word in HOST_BEGINNINGS:
        at = text.find(word)
        while at >= 0:
            stamp = head.match(text, text.rfind("\n", 0, at) + 1)
            before = text[stamp.end() : at] if stamp else "<"
            if not before.strip(" \t"):
                yield at
            elif _HEAD_AGAIN.match(before):
                raise ValueError(before)
            at = text.find(word, at + 1)


def _is_one_boot(text: str) -> bool:
    stamps = [int(seconds) for seconds in re.findall(f"(?m)^{_HEAD}", text)]
    if not text.isascii() or len(stamps) != text.count("\n") or not text.endswith("\n"):
        return False
    latest = accumulate(stamps, max)
    if any(stamp <= top - _BACKWARDS_SECONDS for stamp, top in zip(stamps, latest, strict=True)):
        return False
    return text.count(_BANNER) == (_FIRST_LINE.match(text) is not None)
