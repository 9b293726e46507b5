"""How a kernel message begins that a finding's pattern can match.

Derived from the patterns, so that whoever looks for lines in a log of gigabytes
can look for plain text first.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from tdxreclaim.tables.findings import CATALOGUE
from tdxreclaim.tables.findings.notes import NOTES


class _Start(NamedTuple):
    """A text that a match can begin with; ``whole``: what follows it is known too."""

    text: str
    whole: bool


def beginnings_of(pattern: str) -> tuple[str, ...]:
    r"""Return the plain texts that a match of *pattern* begins with, none the beginning of another.

    Of regular expressions it knows literals, escapes, groups and what repeats;
    anything else (a class, a look-ahead, a backslash and a letter) ends a text.

    >>> beginnings_of(r"(?:kvm_intel: )?tdh_(?P<f>one|two)\(\) failed")
    ('kvm_intel: tdh_one() failed', 'kvm_intel: tdh_two() failed', 'tdh_one() failed', 'tdh_two() failed')
    >>> beginnings_of(r"virt/tdx: CMRs?: \[0x[0-9a-f]+")
    ('virt/tdx: CMR: [0x', 'virt/tdx: CMRs: [0x')
    """
    starts, _ = _alternatives(pattern, 0)
    return _shortest({start.text for start in starts})


@cache
def beginnings() -> tuple[str, ...]:
    """Return what a message begins with that any finding or note can match, sorted."""
    patterns = [kind.pattern for kind in CATALOGUE if kind.pattern]
    patterns += [note.pattern for note in NOTES]
    return _shortest({text for pattern in patterns for text in beginnings_of(pattern)})


def _shortest(texts: set[str]) -> tuple[str, ...]:
    return tuple(
        text
        for text in sorted(texts)
        if not any(other != text and text.startswith(other) for other in texts)
    )


def _alternatives(pattern: str, at: int) -> tuple[set[_Start], int]:
    """Return how what stands at *at* can begin, and where it ends: at ``)`` or at the end."""
    found: set[_Start] = set()
    starts = {_Start("", whole=True)}
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] == "|":
            found |= starts
            starts = {_Start("", whole=True)}
            at += 1
            continue
        atom, at = _atom(pattern, at)
        atom, at = _repeated(atom, pattern, at)
        starts = {
            _Start(start.text + more.text, more.whole) if start.whole else start
            for start in starts
            for more in atom
        }
    return found | starts, at


def _atom(pattern: str, at: int) -> tuple[set[_Start], int]:
    if pattern[at] == "(":
        if pattern.startswith(("(?=", "(?!", "(?<=", "(?<!"), at):
            _, end = _alternatives(pattern, at + 3)
            return {_Start("", whole=False)}, end + 1
        inside = at + 1
        if pattern.startswith("(?:", at):
            inside = at + 3
        elif pattern.startswith("(?P<", at):
            inside = pattern.index(">", at) + 1
        starts, end = _alternatives(pattern, inside)
        return starts, end + 1
    if pattern[at] == "\\":
        literal = not pattern[at + 1].isalnum()
        return {_Start(pattern[at + 1] if literal else "", literal)}, at + 2
    if pattern[at] == "[":
        # A bracket that is the first of its class, or is escaped, does not end it.
        end = at + (2 if pattern.startswith("[^", at) else 1)
        end += pattern[end] == "]"
        while pattern[end] != "]":
            end += 2 if pattern[end] == "\\" else 1
        return {_Start("", whole=False)}, end + 1
    if pattern[at] in ".^$":
        return {_Start("", whole=False)}, at + 1
    return {_Start(pattern[at], whole=True)}, at + 1


def _repeated(atom: set[_Start], pattern: str, at: int) -> tuple[set[_Start], int]:
    """Apply ``?``, ``*``, ``+`` or ``{..}`` to *atom*, and step over it."""
    sign = pattern[at : at + 1]
    if not sign or sign not in "?*+{":
        return atom, at
    end = pattern.index("}", at) + 1 if sign == "{" else at + 1
    # Lazy or possessive: what it can begin with is the same.
    end += pattern[end : end + 1] in ("?", "+")
    if sign == "?":
        return atom | {_Start("", whole=True)}, end
    if sign == "+":
        return {start._replace(whole=False) for start in atom}, end
    return {_Start("", whole=False)}, end
