"""Which finding of the catalogue a kernel line is."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.evidence import printable
from tdxreclaim.tables.beginnings import beginnings_of
from tdxreclaim.tables.findings import CATALOGUE
from tdxreclaim.tables.findings.bringup import TDX_ON_IN_BIOS
from tdxreclaim.tables.findings.kind import Kind, Part
from tdxreclaim.tables.seamcalls import Leaf, find_leaf, name_leaf, name_status
from tdxreclaim.triage.stacks import attribute, is_teardown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tdxreclaim.facts.logs.stack import LogEvent


class Match(NamedTuple):
    """A row, and what the line says for the braces of its sentence."""

    kind: Kind
    values: Mapping[str, str]


class _Matcher(NamedTuple):
    begins: tuple[str, ...]
    pattern: re.Pattern[str]
    kind: Kind


def match_event(event: LogEvent) -> Match | None:
    """Return what a line, with the stack that follows it, is; ``None`` if no row is for it."""
    if event.stack is None:
        return match_message(event.text)
    where = attribute(event.stack)
    why = {"hung task": "reported as hung", "soft lockup": "in a soft lockup"}.get(
        event.stack.why, f"in {event.stack.why}"
    )
    return Match(
        where.kind,
        {
            "task": printable(event.stack.task),
            "pid": str(event.stack.pid),
            "why": why,
            "function": where.function,
        },
    )


@lru_cache(maxsize=1024)
def match_message(text: str) -> Match | None:
    """Return the row that a kernel message matches; a flood of one message is matched once."""
    return next(iter(matches(text)), None)


def matches(text: str) -> list[Match]:
    """Return all rows that a kernel message matches: one at most, for all that is known."""
    return [
        Match(each.kind, _values(each.kind, match))
        for each in _matchers()
        if text.startswith(each.begins)
        and (match := each.pattern.match(text))
        and each.kind.part in (None, _part(match))
    ]


@cache
def _matchers() -> tuple[_Matcher, ...]:
    return tuple(
        _Matcher(beginnings_of(kind.pattern), re.compile(kind.pattern), kind)
        for kind in CATALOGUE
        if kind.pattern is not None
    )


def _part(match: re.Match[str]) -> Part | None:
    groups = match.groupdict()
    if "leaf" in groups:
        return _part_of_leaf(groups["leaf"])
    if "function" in groups:
        return Part.TEARDOWN if is_teardown(groups["function"]) else Part.OTHER
    return None


_TEARDOWN = frozenset(
    (
        Leaf.TDH_MEM_RANGE_BLOCK,
        Leaf.TDH_MEM_TRACK,
        Leaf.TDH_MEM_PAGE_REMOVE,
        Leaf.TDH_PHYMEM_PAGE_WBINVD,
        Leaf.TDH_VP_FLUSH,
        Leaf.TDH_MNG_VPFLUSHDONE,
        Leaf.TDH_PHYMEM_CACHE_WB,
        Leaf.TDH_MNG_KEY_FREEID,
    )
)


def read_leaf(text: str) -> Leaf | None:
    """Return the leaf of a number (hex or decimal) or of its name in a macro, if it is known."""
    if text[:1].isdigit():
        return find_leaf(int(text, 0) if text[:2].lower() == "0x" else int(text))
    return Leaf.__members__.get(text.upper().replace(".", "_"))


def _part_of_leaf(text: str) -> Part:
    leaf = read_leaf(text)
    if leaf is Leaf.TDH_PHYMEM_PAGE_RECLAIM:
        return Part.RECLAIM
    if leaf in _TEARDOWN:
        return Part.TEARDOWN
    return Part.BRING_UP if name_leaf(text).startswith("TDH.SYS.") else Part.OTHER


def _values(kind: Kind, match: re.Match[str]) -> dict[str, str]:
    values = {name: printable(text) for name, text in match.groupdict().items() if text}
    if kind is TDX_ON_IN_BIOS:
        return {"keyids": str(int(values["last"]) - int(values["first"]))}
    if "leaf" in values:
        values["leaf"] = name_leaf(values["leaf"])
    if "status" in values:
        values["status"] = f"{values['status']} ({name_status(values['status'])})"
    return values
