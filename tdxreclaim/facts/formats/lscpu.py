"""CPU identity from what lscpu printed, as text or as JSON."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.cpu import (
    FAMILY_MAX,
    MODEL_MAX,
    NO_WORDS,
    STEPPING_MAX,
    CpuGroup,
    CpuReading,
    Words,
    parse_number,
)
from tdxreclaim.facts.evidence import GapList
from tdxreclaim.facts.formats.paste import SIGNS, is_harmless
from tdxreclaim.tables.cpus import INTEL

if TYPE_CHECKING:
    from collections.abc import Iterator

_WHAT = "lscpu output"


# Of an Intel CPU these are not odd spellings of x86, but somebody else's line.
_PLAINLY_OTHER = frozenset(
    {"aarch64", "armv7l", "armv8l", "s390x", "ppc64le", "ppc64", "riscv64", "loongarch64", "mips64"}
)


_X86 = frozenset({"x86_64", "amd64", "i686", "i586", "i486", "i386"})


_MOST_CPUS = 65_536


# Longer than all flags there are.
_LONGEST_VALUE = 1 << 16


class _Field(NamedTuple):
    name: str
    value: str
    last: bool = False


def looks_like_lscpu(text: str) -> bool:
    """Whether *text*, or the beginning of one, was printed by lscpu (not in JSON)."""
    names = {line.partition(":")[0].strip() for line in text.splitlines()[:40]}
    return "Vendor ID" in names or {"Architecture", "CPU(s)"} <= names


def parse_lscpu(text: str) -> CpuReading:
    """Return the processors of an lscpu text.

    Flags that a terminal broke over several lines are joined, whether the
    break was in a word or between two: both readings are kept.  A last line
    that does not end is not believed, as in `cpu.parse_cpuinfo`.

    Raises:
        MalformedInputError: it names no processor.

    """
    fields: list[_Field] = []
    gaps = GapList()
    if len(text) > LSCPU_LIMIT:
        raise MalformedInputError(_WHAT, f"longer than {LSCPU_LIMIT >> 10} KiB")
    for number, line in enumerate(text.splitlines(), start=1):
        if is_harmless(line):
            continue
        name, colon, value = line.partition(":")
        if not line.isprintable() and not line.replace("\t", " ").isprintable():
            gaps.add(number, "characters that no terminal shows")
        if (colon and not is_field(name, value)) or (
            not colon and line.strip() and not _continues(line, fields)
        ):
            gaps.add(number, 'no "Name: value" of lscpu')
        if colon:
            fields.append(_Field(name.strip(), value.strip()))
        elif line[:1].isspace() and line.strip() and fields:
            # A continuation: "…nopl xtopology nonstop_" / "tsc cpuid …".
            previous = fields[-1]
            if len(previous.value) > _LONGEST_VALUE:
                raise MalformedInputError(_WHAT, f"{previous.name} goes on without end")
            tail = line.strip()
            both = f"{previous.value}{tail} {previous.value.rpartition(' ')[2]} {tail}"
            fields[-1] = previous._replace(value=both)
    if fields:
        cut = not text.endswith(("\n", "\r")) and fields[-1].name != "Flags"
        if not text.endswith(("\n", "\r")) and not is_harmless(text[text.rfind("\n") + 1 :]):
            gaps.add(number, f"it ends in the middle of a line ({fields[-1].name})")
        fields[-1] = fields[-1]._replace(last=True, value="" if cut else fields[-1].value)
    return _reading(fields, gaps)


# The names of lscpu begin with a capital; nested ones are indented.
_NAME = re.compile(r" {0,16}[A-Z][\w()./+, -]*")


# Of the names that tell of a processor those that lscpu prints.
# Source: util-linux sys-utils/lscpu.c, print_summary(), 2.20 to 2.41.
_OF_A_CPU = re.compile(
    r"(?:BIOS )?(?:Vendor ID|Model name|CPU family)|Model|Stepping|Flags|Hypervisor vendor"
    r"|CPU\(s\)(?: scaling MHz)?|CPU op-mode\(s\)|CPU socket\(s\)|CPU(?: max| min| dynamic| static)? MHz"
    r"|(?:On|Off)-line CPU\(s\) (?:list|mask)|NUMA node\d{1,5} CPU\(s\)|Vulnerability [\w/ -]{1,40}"
)


_FLAGS = re.compile(r"[a-z0-9_ ]*")


_ANOTHER = re.compile(
    r"\b(?:architecture|vendor[ _]?id|family|model|stepping)\s*[:=]", re.IGNORECASE
)


def is_field(name: str, value: str) -> bool:
    """Whether it is a name that lscpu prints, and one value."""
    if not _NAME.fullmatch(name) or _ANOTHER.search(value):
        return False
    return not SIGNS.search(name) or _OF_A_CPU.fullmatch(name.strip()) is not None


def _continues(line: str, fields: list[_Field]) -> bool:
    """Whether *line* is the rest of a long value, and plainly not a field of its own."""
    if not fields or not line[:1].isspace() or fields[-1].name in (*_IDENTITY, *_ONCE[:2]):
        return False
    if fields[-1].name == "Flags":
        return _FLAGS.fullmatch(line.strip()) is not None
    return not SIGNS.search(line)


# That of a host with hundreds of NUMA nodes is no longer.
LSCPU_LIMIT = 1 << 20


def parse_lscpu_json(text: str) -> CpuReading:
    """Return the processors of ``lscpu -J``, nested (a terminal) or flat (a pipe).

    Raises:
        MalformedInputError: it is not that JSON, or it names no processor.

    """
    import json

    if len(text) > LSCPU_LIMIT:
        raise MalformedInputError(_WHAT, f"longer than {LSCPU_LIMIT >> 10} KiB")
    gaps = GapList()
    lists: list[object] = []

    def take(pairs: list[tuple[str, object]]) -> dict[str, object]:
        # The last of two wins in Python, the first elsewhere: both are read.
        keys = {key for key, _ in pairs}
        if len(keys) < len(pairs):
            gaps.add(0, "a key comes twice in one object")
        if not (keys <= _ENTRY or keys == {"lscpu"}):
            gaps.add(0, "an object that lscpu does not print")
        lists.extend(value for key, value in pairs if key == "lscpu")
        return dict(pairs)

    try:
        document = json.loads(text, object_pairs_hook=take)
    except (ValueError, RecursionError) as error:
        raise MalformedInputError(_WHAT, f"not JSON ({error})") from error
    if not isinstance(document, dict) or not isinstance(document.get("lscpu"), list):
        raise MalformedInputError(_WHAT, 'no list under "lscpu"')
    fields = list(_fields(lists, gaps))
    for field in fields:
        if not is_field(field.name, field.value):
            gaps.add(0, f"{field.name[:40]!r} is no field of lscpu")
    return _reading(fields, gaps)


def _fields(lists: list[object], gaps: GapList) -> Iterator[_Field]:
    """Yield the fields in the lists of entries, children after their parents."""
    pending = [
        entry for each in reversed(lists) if isinstance(each, list) for entry in reversed(each)
    ]
    while pending:
        entry = pending.pop()
        if not isinstance(entry, dict):
            raise MalformedInputError(_WHAT, 'an entry of "lscpu" is not an object')
        name, value, children = entry.get("field"), entry.get("data"), entry.get("children")
        if isinstance(name, str) and isinstance(value, str):
            yield _Field(name.strip().removesuffix(":"), value.strip())
        elif not isinstance(name, str) or value is not None:
            gaps.add(0, "an entry without a name, or whose value is no text")
        elif name.strip().removesuffix(":") in _IDENTITY[:4]:
            gaps.add(0, f"{name} without a value")
        if isinstance(children, list):
            pending.extend(reversed(children))
        elif children is not None:
            gaps.add(0, '"children" that are no list')


# The keys of an object for one field.
_ENTRY = {"field", "data", "children"}


_IDENTITY = ("Vendor ID", "Model name", "CPU family", "Model", "Stepping")


_ONCE = ("Architecture", "CPU(s)", "CPU op-mode(s)")


def _reading(fields: list[_Field], gaps: GapList) -> CpuReading:
    first: dict[str, str] = {}
    counted = Counter(field.name for field in fields)
    for name in [name for name in _ONCE if counted[name] > 1]:
        gaps.add(0, f"{name} comes again: several captures in one text?")
    for field in fields:
        first.setdefault(field.name, field.value)
    sections = _sections(fields)

    architecture = first.get("Architecture")
    vendor = first.get("Vendor ID") or None
    if architecture and architecture not in _X86 and vendor != INTEL:
        if any("intel" in field.value.lower() for field in fields if field.name in _IDENTITY):
            gaps.add(0, f"Intel on {architecture}")
        return CpuReading(architecture=architecture, gaps=gaps.found)
    contradicts = architecture in _PLAINLY_OTHER
    groups = tuple(
        CpuGroup(
            vendor=None if contradicts else section.get("Vendor ID") or vendor,
            family=parse_number(section.get("CPU family"), FAMILY_MAX),
            model=parse_number(section.get("Model"), MODEL_MAX),
            stepping=parse_number(section.get("Stepping"), STEPPING_MAX),
        )
        for section in sections
    )
    if vendor is None and not any(group.family is not None for group in groups):
        raise MalformedInputError(_WHAT, "no processor is described in it")
    if len(groups) == 1:
        groups = (groups[0].sized(parse_number(first.get("CPU(s)"), _MOST_CPUS)),)
    flags = _flags(fields, first)
    if contradicts or not all(group.identified for group in groups):
        gaps.add(0, "it does not name a vendor, family and model for each kind of CPU")
    notes = []
    if not flags.complete and first.get("Flags"):
        notes.append("the flags are cut off")
    if contradicts:
        notes.append(f"architecture {architecture} and vendor {vendor} contradict each other")
    return CpuReading(
        architecture="x86",
        groups=groups,
        flags=flags,
        hypervisor=True if first.get("Hypervisor vendor") else None,
        notes=tuple(notes),
        gaps=gaps.found,
    )


def _flags(fields: list[_Field], first: dict[str, str]) -> Words:
    if "Flags" not in first:
        return NO_WORDS
    # lscpu prints caches and vulnerabilities after the flags.  Flags that
    # come last were cut off there, so what they lack says nothing.
    cut = fields[-1].name == "Flags" and fields[-1].last
    return Words(frozenset(first["Flags"].split()), complete=not cut)


def _sections(fields: list[_Field]) -> list[dict[str, str]]:
    """Return the identity of each kind of CPU."""
    sections: list[dict[str, str]] = [{}]
    for field in fields:
        if field.name in _IDENTITY:
            # The order differs between versions; what comes a second time
            # belongs to the next model of a mixed machine.
            if field.name in sections[-1]:
                sections.append({})
            sections[-1][field.name] = field.value
    return sections
