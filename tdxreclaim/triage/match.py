"""Which finding of the catalogue a kernel line is."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.evidence import printable
from tdxreclaim.tables.beginnings import beginnings_of
from tdxreclaim.tables.findings import CATALOGUE
from tdxreclaim.tables.findings.bringup import TDX_ON_IN_BIOS
from tdxreclaim.tables.findings.kind import Kind, Subject
from tdxreclaim.tables.findings.machine_checks import MACHINE_CHECK
from tdxreclaim.tables.findings.notes import NOTES, Note
from tdxreclaim.tables.seamcalls import Leaf, Status, find_leaf, find_status, name_leaf, name_status
from tdxreclaim.triage.machinecheck import Record, decode
from tdxreclaim.triage.stacks import attribute, is_teardown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tdxreclaim.facts.logs.stack import Stack


class Match(NamedTuple):
    """A row, and what the line says for the braces of its sentence."""

    kind: Kind
    values: Mapping[str, str]


class Noted(NamedTuple):
    """A note, and what its line says."""

    note: Note
    values: Mapping[str, str]


def match_stack(stack: Stack) -> Match:
    """Return what a process with this stack was found to do."""
    where = attribute(stack)
    why = {"hung task": "reported as hung", "soft lockup": "in a soft lockup"}.get(
        stack.why, f"in {stack.why}"
    )
    return Match(
        where.kind,
        {
            "task": printable(stack.task),
            "pid": str(stack.pid),
            "why": why,
            "function": where.function,
        },
    )


@lru_cache(maxsize=1024)
def recognise(text: str) -> Match | Noted | None:
    """Return what a kernel message is; a flood of one message is looked at once."""
    return find_note(text) or next(iter(matches(text)), None)


def matches(text: str) -> list[Match]:
    """Return all rows that a kernel message matches: one at most, for all that is known."""
    found: list[Match] = []
    turn = 0
    for each in _matchers().get(text[:_HEAD], ()):
        if found and each.kind.turn > turn:
            break
        match = each.pattern.match(text)
        if match and each.kind.subject in (None, _subject(match)):
            found.append(Match(each.kind, _values(each.kind, match)))
            turn = each.kind.turn
    return found


def find_note(text: str) -> Noted | None:
    """Return the note that a kernel message is, if it is one."""
    for pattern, note in _note_matchers().get(text[:_HEAD], ()):
        if match := pattern.match(text):
            return Noted(note, {name: printable(each) for name, each in match.groupdict().items()})
    return None


class _Matcher(NamedTuple):
    pattern: re.Pattern[str]
    kind: Kind


# Rows are looked up by so many letters: no message that is known begins with fewer.
_HEAD = 3


@cache
def _matchers() -> Mapping[str, Sequence[_Matcher]]:
    """Return the rows by how their messages begin, those of an earlier turn first."""
    found: defaultdict[str, list[_Matcher]] = defaultdict(list)
    for kind in sorted(CATALOGUE, key=lambda kind: kind.turn):
        if kind.pattern is not None:
            for head in {text[:_HEAD] for text in beginnings_of(kind.pattern)}:
                found[head].append(_Matcher(re.compile(kind.pattern), kind))
    return found


@cache
def _note_matchers() -> Mapping[str, Sequence[tuple[re.Pattern[str], Note]]]:
    found: defaultdict[str, list[tuple[re.Pattern[str], Note]]] = defaultdict(list)
    for note in NOTES:
        for head in {text[:_HEAD] for text in beginnings_of(note.pattern)}:
            found[head].append((re.compile(note.pattern), note))
    return found


def _subject(match: re.Match[str]) -> Subject | None:
    groups = match.groupdict()
    if "leaf" in groups:
        return _subject_of_call(groups["leaf"], groups["status"])
    if "function" in groups:
        return Subject.TEARDOWN if is_teardown(groups["function"]) else Subject.OTHER
    if "mci" in groups:
        record = read_record(groups)
        # A record that is cut is not taken for a harmless one.
        return Subject.UNCORRECTED if record is None or record.uncorrected else Subject.CORRECTED
    return None


def find_record(text: str) -> Record | None:
    """Return the machine check that a kernel message holds, if it holds one."""
    match = re.match(MACHINE_CHECK.pattern or "", text)
    return read_record(match.groupdict()) if match else None


def read_record(groups: Mapping[str, str | None]) -> Record | None:
    """Return the machine check that a line holds; ``None`` if it is cut."""
    mcg, mci = groups["mcg"], groups["mci"]
    if not mcg or not mci:
        return None
    where = f"CPU {groups['cpu']}, bank {groups['bank']}"
    return decode(mcg, mci, exception=groups["how"] == " Exception", where=where)


_REMOVAL = frozenset(
    (Leaf.TDH_MEM_RANGE_BLOCK, Leaf.TDH_MEM_PAGE_REMOVE, Leaf.TDH_PHYMEM_PAGE_WBINVD)
)


_TEARDOWN = frozenset(
    (
        Leaf.TDH_MEM_TRACK,
        Leaf.TDH_VP_FLUSH,
        Leaf.TDH_MNG_VPFLUSHDONE,
        Leaf.TDH_PHYMEM_CACHE_WB,
        Leaf.TDH_MNG_KEY_FREEID,
    )
)


def read_leaf(text: str) -> Leaf | None:
    """Return the leaf of a number (hex or decimal) or of its name in a macro, if it is known."""
    if text[:1].isdigit():
        number = int(text, 16 if text[:2].lower() == "0x" else 10)
        return None if number & _SEAMLDR else find_leaf(number)
    return Leaf.__members__.get(text.upper().replace(".", "_"))


# The P-SEAMLDR's leaves have bit 63 set.
_SEAMLDR = 1 << 63


def _name_leaf(text: str) -> str:
    if text[:2].lower() == "0x" and int(text, 16) & _SEAMLDR:
        return f"P-SEAMLDR leaf {int(text, 16) ^ _SEAMLDR:#x}"
    return name_leaf(text)


def _subject_of_call(text: str, status: str) -> Subject:
    leaf = read_leaf(text)
    if leaf is Leaf.TDH_PHYMEM_PAGE_RECLAIM:
        return Subject.RECLAIM
    if leaf in _REMOVAL or leaf in _TEARDOWN:
        if find_status(int(status, 16)) is Status.TDX_TD_FATAL:
            return Subject.FATAL
        return Subject.REMOVAL if leaf in _REMOVAL else Subject.TEARDOWN
    name = _name_leaf(text)
    return Subject.BRING_UP if name.startswith(("TDH.SYS.", "P-SEAMLDR")) else Subject.OTHER


def _values(kind: Kind, match: re.Match[str]) -> dict[str, str]:
    values = {name: printable(text or "") for name, text in match.groupdict().items()}
    if kind is TDX_ON_IN_BIOS:
        return {"keyids": str(int(values["last"]) - int(values["first"]))}
    if "leaf" in values:
        values["leaf"] = _name_leaf(values["leaf"])
    if "status" in values:
        values["status"] = f"{values['status']} ({name_status(values['status'])})"
    if "mci" in values:
        # One of a kind whatever the CPU and the bank: they stand in the lines.
        record = read_record(match.groupdict())
        return {
            "what": record.words if record else "its record is cut",
            "polled": "" if record is None or record.exception else "yes",
        }
    return values
