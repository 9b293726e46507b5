"""/proc/cpuinfo: its processors, their identity and words."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.cpu import (
    FAMILY_MAX,
    MODEL_MAX,
    STEPPING_MAX,
    CpuGroup,
    CpuReading,
    Words,
    count_groups,
    parse_number,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

# More than Linux can count (NR_CPUS is at most 8192 on x86): not a host.
_MOST_PROCESSORS = 65_536


_MICROCODE = re.compile(r"0x[0-9a-f]{1,8}", re.IGNORECASE)


def _parse_microcode(text: str | None) -> int | None:
    return int(text, 16) if text is not None and _MICROCODE.fullmatch(text) else None


# The first key that tells an architecture's /proc/cpuinfo from the others'.
_OTHER_ARCHITECTURES = {
    "CPU implementer": "arm",
    "CPU architecture": "arm",
    "Processor": "arm",
    "bogomips per cpu": "s390",
    "hart": "riscv",
    "isa": "riscv",
    "mmu": "riscv",
    "CPU Family": "loongarch",
    "system type": "mips",
    "cpu model": "mips",
    "platform": "powerpc",
    "revision": "powerpc",
    "cpucaps": "sparc",
}


_X86_KEYS = ("vendor_id", "cpu family", "model")


_KEYS = frozenset(("processor", *_X86_KEYS, "stepping", "microcode", "flags", "bugs"))


def _split_line(line: str) -> tuple[str, str] | None:
    key, colon, value = line.partition(":")
    return (key.strip(), value.strip()) if colon else None


_BLANK = ("", "")


_FIRST_LETTERS = frozenset(key[0] for key in _KEYS) | frozenset(" \t")


def _relevant(line: str) -> tuple[str, str] | None:
    """Return key and value of a line that matters, `_BLANK` of one between processors."""
    pair = _split_line(line)
    if pair is None:
        return None if line.strip() else _BLANK
    return pair if pair[0] in _KEYS else None


def looks_like_cpuinfo(text: str) -> bool:
    """Whether *text*, or the beginning of one, is a /proc/cpuinfo of any architecture."""
    keys = {pair[0] for line in text.splitlines()[:200] if (pair := _split_line(line))}
    is_x86 = "vendor_id" in keys or {"cpu family", "model"} <= keys
    return is_x86 or ("processor" in keys and bool(keys)) or not keys.isdisjoint(_OTHER_ONLY)


_OTHER_ONLY = frozenset({"CPU implementer", "bogomips per cpu", "cpucaps", "system type"})


def _take_apart(text: str) -> tuple[list[dict[str, str]], Iterable[str]]:
    """Return what each processor says under the keys that matter, and every distinct line."""
    # Processors repeat each other: each distinct line is taken apart once, and
    # a line that begins like none of the keys not even that.
    seen: dict[str, tuple[str, str] | None] = {"": _BLANK}
    parsed: list[dict[str, str]] = []
    values: dict[str, str] = {}
    for line in text.split("\n"):
        if line not in seen:
            seen[line] = _relevant(line) if line[0] in _FIRST_LETTERS else None
        pair = seen[line]
        if pair is None:
            continue
        # A key that comes again is the next processor's, in a text that lost
        # its blank lines (grep, a paste into a ticket).
        if values and (pair is _BLANK or pair[0] in values):
            parsed.append(values)
            values = {}
        if pair is not _BLANK:
            values[pair[0]] = pair[1]
    if values:
        parsed.append(values)
    return parsed, seen


def parse_cpuinfo(text: str) -> CpuReading:
    """Return the census of every processor in a /proc/cpuinfo text.

    A value in a last line that does not end is not believed: ``model : 14``
    may have been 143.

    Raises:
        MalformedInputError: it is not a /proc/cpuinfo.

    Source: linux arch/x86/kernel/cpu/proc.c, show_cpuinfo().
    """
    if not text.strip():
        raise MalformedInputError("/proc/cpuinfo", "empty, as tar makes it of /proc: copy it first")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    notes: list[str] = []
    cut: str | None = None
    if not text.endswith("\n"):
        text, cut = _drop_unfinished(text)
        if cut:
            notes.append(f"it ends in the middle of a line ({cut}), which is not believed")

    parsed, lines = _take_apart(text)
    if len(parsed) > _MOST_PROCESSORS:
        raise MalformedInputError("/proc/cpuinfo", f"more than {_MOST_PROCESSORS} processors")
    if any("vendor_id" in values and values["vendor_id"] != "IBM/S390" for values in parsed):
        return _census(parsed, notes, cut)
    keys = {line.partition(":")[0].strip() for line in lines}
    other = next((name for key, name in _OTHER_ARCHITECTURES.items() if key in keys), None)
    if any("vendor_id" in values for values in parsed):
        other = "s390"
    if other:
        return CpuReading(architecture=other, notes=tuple(notes))
    if not any(key in values for values in parsed for key in _X86_KEYS):
        raise MalformedInputError("/proc/cpuinfo", "no processor is described in it")
    return _census(parsed, notes, cut)


_WORD_LINES = ("flags", "bugs")


def _drop_unfinished(text: str) -> tuple[str, str | None]:
    """Return *text* without what may be half a value at its end, and which line that was.

    Of a number the value goes, of a line of words the last word.
    """
    head, newline, last = text.rpartition("\n")
    pair = _split_line(last)
    if pair is None:
        return head + newline, "its key is cut off" if last.strip() else None
    key, value = pair
    if key not in _KEYS:
        return text, None
    kept = value.rpartition(" ")[0] if key in _WORD_LINES else ""
    return f"{head}{newline}{key} : {kept}", key


_IDENTITY = ("vendor_id", "cpu family", "model", "stepping", "microcode")


def _census(parsed: list[dict[str, str]], notes: list[str], cut: str | None) -> CpuReading:
    groups: Counter[CpuGroup] = Counter()
    # Counted as text first: a host has hundreds of processors of one kind.
    said = Counter(tuple(map(values.get, _IDENTITY)) for values in parsed)
    for (vendor, family, model, stepping, microcode), count in said.items():
        group = CpuGroup(
            vendor=vendor or None,
            family=parse_number(family, FAMILY_MAX),
            model=parse_number(model, MODEL_MAX),
            stepping=parse_number(stepping, STEPPING_MAX),
            microcode=_parse_microcode(microcode),
        )
        groups[group] += count
    vague = sum(count for group, count in groups.items() if not group.identified)
    if vague:
        notes.append(f"{vague} of {len(parsed)} processors lack a vendor, family or model")
    return CpuReading(
        architecture="x86",
        groups=count_groups(groups),
        flags=_words(parsed, "flags", cut),
        bugs=_words(parsed, "bugs", cut),
        notes=tuple(notes),
    )


def _words(parsed: list[dict[str, str]], key: str, cut: str | None) -> Words:
    lines = {values.get(key) for values in parsed}
    present = frozenset(word for line in lines if line for word in line.split())
    # What a line that is cut off lacks is no contradiction.
    whole = {values[key] for values in parsed[: -1 if cut == key else None] if key in values}
    common = frozenset[str].intersection(*(frozenset(line.split()) for line in whole or [""]))
    return Words(
        present,
        complete=None not in lines and cut != key,
        disputed=present - common if whole else frozenset(),
    )
