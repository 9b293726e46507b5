"""What people and programs put around the lines of a log, taken off.

Of a block of lines: control sequences, HTML, non-breaking spaces, foreign line
ends.  Of a line: the marks of mails, tickets, grep, kubectl and the like, which
are kept as the line's dress: lines in other dress are another witness.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tdxreclaim.facts.logs.line import Line, Speaker, read_line

# With or without its escape, which terminals eat and log daemons spell out.
_COLOUR = re.compile(
    rb"(?:\x1b|\xe2\x90\x9b|\\x1b|\\e|\\033|#033|\^\[)\[[0-9;?]{0,20}[A-Za-z]|\[\d{1,3}(?:;\d{1,3}){0,4}m"
    rb"|\x1b[()][A-Z0-9]|\x1b\][^\x07\x1b\n]{0,200}(?:\x07|\x1b\\)"
)


_ENTITIES = (
    (b"&lt;", b"<"),
    (b"&gt;", b">"),
    (b"&quot;", b'"'),
    (b"&#34;", b'"'),
    (b"&#39;", b"'"),
    (b"&#x27;", b"'"),
    (b"&#x2F;", b"/"),
    (b"&#x2f;", b"/"),
    (b"&#47;", b"/"),
    (b"&#91;", b"["),
    (b"&#93;", b"]"),
    (b"&nbsp;", b" "),
    (b"&#160;", b" "),
    (b"&amp;", b"&"),
)


# One line of a file may hold several of the log's: they keep its number.
INSIDE = b"\r"


# What editors put before signs that Markdown would take for its own; JSON has it nowhere.
_ESCAPED = re.compile(rb"(?<!\\)\\([\[\]_*<>`])")


_CELL = re.compile(rb"</t[dh]>\s*<t[dh][^<>]{0,200}>", re.IGNORECASE)


_BREAK = re.compile(rb"<br ?/?>|</(?:p|div|li|tr)>", re.IGNORECASE)


_SPACES = (
    (b"\xc2\xa0", b" "),
    (b"\xe2\x80\xaf", b" "),
    (b"\xe2\x80\x87", b" "),
    (b"\xe3\x80\x80", b" "),
    (b"\xe2\x80\x8b", b""),
    (b"\xef\xbb\xbf", b""),
)


_NEEDS_SPACES = re.compile(rb"[\xc2\xe2\xe3\xef]")


def undress_block(block: bytes) -> bytes:
    r"""Return whole lines of a log in plain dress; their number stays the same.

    Where one held several, a ``\r`` stands between them.
    """
    if b"\r" in block:
        block = re.sub(rb"\r+(?=\n|\Z)", b"", block)
    if b"\x1b" in block or b"[0m" in block or b"[1m" in block or b"[32m" in block:
        block = _COLOUR.sub(b"", block)
    if _NEEDS_SPACES.search(block):
        for dressed, plain in _SPACES:
            block = block.replace(dressed, plain)
    if b"</" in block or b"<b" in block:
        block = _BREAK.sub(INSIDE, _CELL.sub(b"\t", block))
    if b"\\_" in block or b"\\[" in block:
        block = _ESCAPED.sub(rb"\1", block)
    if b"&" in block:
        for dressed, plain in _ENTITIES:
            block = block.replace(dressed, plain)
    return block


_MARK = re.compile(
    r"(?P<quote>>[ ]?)"
    r"|(?P<list>[-*+•·][ \t]{1,4}(?=\S))"
    r"|(?P<code>`{1,3}(?=[^`]))"
    r"|(?P<path>(?:[^\s:\[\]<>{}\"'|=`]{0,200}/[^\s:\[\]<>{}\"'|=`]{1,200}"
    r"|[^\s:\[\]<>{}\"'|=`/]{1,100}?\.(?:log|txt|out|err|gz|xz|zst|journal|\d{1,4})|(?:dmesg|messages|syslog)"
    r"|\(standard input\))[:-](?:\d{1,9}[:-])?[ \t]?)"
    r"|(?P<number>\d{1,9}(?:[\t:.)|-][ \t]?|[ \t]+(?=[\[<])))"
    r"|(?P<change>\+(?=[\[<]))"
    r"|(?P<sender>(?:\[?\d{1,2}:\d\d(?::\d\d)?\]? )?<[\w.@+ -]{1,40}> (?=\[))"
    r"|(?P<time>@[0-9a-f]{24} )"
    r"|(?P<table>\|[ \t]?)"
    r"|(?P<pod>\[(?:pod|container)/[^\]\s]{1,200}\][ \t])"
    r"|(?P<service>[\w.@/-]{1,100}[ \t]+\|[ \t])"
    r"|(?P<node>\w[\w.-]{0,63}:[ \t]+(?=\[\s*\d+\.\d|\w{3} +\d{1,2} \d\d:|\d{4}-\d\d-|kern: ))"
    r"|(?P<container>[\w.]+-[\w.-]{1,200} [\w.-]{1,100} (?=\[ *\d+\.\d{6}\]))"
    r"|(?P<tag></?(?:pre|code|tt|p|div|span|td|tr|th|li|samp|font|blockquote)\b[^<>]{0,200}>"
    r"|\[/?(?:code|quote|pre|noparse)\b[^\[\]]{0,100}\]|\{(?:noformat|code|quote)\b[^{}]{0,100}\})"
    r"|(?P<event>data:[ ]?|\x1e)"
    r"|(?P<open>\[(?=['\"]))"
    r"|(?P<string>[\"'\u201c\u201d\u2018\u2019\u00ab\u201e](?=[\[<{]|\S{3,12} \S))"
)


_KEEPS_TEXT = ("path", "pod", "service", "node", "container", "sender")


_MOST_MARKS = 6


# What may stand behind a line in such dress.
_BEHIND = re.compile(
    r"(?:`{1,3}|[ \t]*\||[\"'\u201c\u201d\u2019\u00bb],?|</(?:pre|code|tt|p|div|span|td|tr|li|samp|font)>|\\n)+[ \t]*\Z"
)


_ROTATED = re.compile(r"(?:[-.]\d{1,8})?(?:\.(?:gz|bz2|xz|zst))?(?:[:-]\d{1,9})?[:-]?[ \t]?\Z")


class Dressed(NamedTuple):
    """A line and its dress; ``text`` is what stood under it."""

    dress: str
    line: Line
    text: str


def undress(text: str) -> Dressed:
    """Return a line without what was put around it, and what that was."""
    line = read_line(text)
    if line.speaker is not Speaker.NOBODY or line.stamp.when:
        return Dressed("", line, text)
    dress: list[str] = []
    rest = text
    for _ in range(_MOST_MARKS):
        rest = rest.lstrip(" \t")
        match = _MARK.match(rest)
        if match is None:
            break
        kind = str(match.lastgroup)
        dress.append(_name(kind, match[0]))
        rest = rest[match.end() :]
        if kind in ("code", "string", "table", "tag"):
            rest = _BEHIND.sub("", rest)
        if kind == "table":
            rest = " ".join(cell.strip() for cell in rest.split(" | "))
        line = read_line(rest)
        if line.speaker is not Speaker.NOBODY:
            if kind == "string" and line.message == rest.strip():
                # A quotation mark and a bare message: somebody quotes it.
                break
            return Dressed("".join(dress), _named(line, kind, match[0]), rest)
    return Dressed("".join(dress), Line(Speaker.NOBODY), rest)


def _name(kind: str, mark: str) -> str:
    if kind in _KEEPS_TEXT:
        return f"{_ROTATED.sub('', mark.strip())}:"
    if mark.startswith("```"):
        return ""  # a fence, with the first line of what it holds
    return _SIGNS.get(kind, "")


_SIGNS = {"quote": ">", "list": "-", "code": "`", "number": "1", "table": "|", "change": "+"}


def take_off(text: str, dress: str) -> str | None:
    """Return what is under *dress*, and nothing more, of a line; ``None`` if it does not wear it."""
    worn, rest = "", text
    while worn != dress:
        rest = rest.lstrip(" \t")
        match = _MARK.match(rest)
        if match is None or not dress.startswith(worn):
            return None
        worn += _name(str(match.lastgroup), match[0])
        rest = rest[match.end() :]
    return rest


def _named(line: Line, kind: str, mark: str) -> Line:
    # pdsh and its like: "node1: [    1.2] ...".
    return line._replace(host=line.host or mark.strip().rstrip(":")) if kind == "node" else line
