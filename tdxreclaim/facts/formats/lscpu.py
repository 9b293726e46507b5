"""CPU identity from what lscpu printed, as text or as JSON."""

from __future__ import annotations

from typing import NamedTuple

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
from tdxreclaim.tables.cpus import INTEL

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
    for line in text.splitlines():
        name, colon, value = line.partition(":")
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
        fields[-1] = fields[-1]._replace(last=True, value="" if cut else fields[-1].value)
    return _reading(fields)


def parse_lscpu_json(text: str) -> CpuReading:
    """Return the processors of ``lscpu -J``, nested (a terminal) or flat (a pipe).

    Raises:
        MalformedInputError: it is not that JSON, or it names no processor.

    """
    import json

    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedInputError(_WHAT, f"not JSON ({error})") from error
    entries = document.get("lscpu") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise MalformedInputError(_WHAT, 'no list under "lscpu"')
    fields: list[_Field] = []
    pending: list[object] = list(reversed(entries))
    while pending:
        entry = pending.pop()
        if not isinstance(entry, dict):
            raise MalformedInputError(_WHAT, 'an entry of "lscpu" is not an object')
        name, value, children = entry.get("field"), entry.get("data"), entry.get("children")
        if isinstance(name, str) and isinstance(value, str):
            fields.append(_Field(name.strip().removesuffix(":"), value.strip()))
        if isinstance(children, list):
            pending.extend(reversed(children))
    return _reading(fields)


_IDENTITY = ("Vendor ID", "Model name", "CPU family", "Model", "Stepping")


def _reading(fields: list[_Field]) -> CpuReading:
    first: dict[str, str] = {}
    sections: list[dict[str, str]] = [{}]
    for field in fields:
        first.setdefault(field.name, field.value)
        if field.name in _IDENTITY:
            # The order differs between versions; what comes a second time
            # belongs to the next model of a mixed machine.
            if field.name in sections[-1]:
                sections.append({})
            sections[-1][field.name] = field.value

    architecture = first.get("Architecture")
    vendor = first.get("Vendor ID") or None
    if architecture and architecture not in _X86 and vendor != INTEL:
        return CpuReading(architecture=architecture)
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
    flags = NO_WORDS
    if "Flags" in first:
        # lscpu prints caches and vulnerabilities after the flags.  Flags that
        # come last were cut off there, so what they lack says nothing.
        cut = fields[-1].name == "Flags" and fields[-1].last
        flags = Words(frozenset(first["Flags"].split()), complete=not cut)
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
    )
