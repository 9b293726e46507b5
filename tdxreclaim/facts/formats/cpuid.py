"""CPU identity from raw CPUID dumps.

Two forms: ``cpuid -r`` (``0x00000001 0x00: eax=0x000806f8 …``) and the lines
that hardware databases keep (``CPUID 00000001: 000806F8-00800800-…``).
A dump tells what the silicon says and nothing that the kernel decided.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.cpu import (
    MOST_KINDS,
    CpuGroup,
    CpuReading,
    count_groups,
    decode_signature,
    longest_line,
)
from tdxreclaim.facts.evidence import GapList

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.facts.evidence import Gap

# cpuid -r; the sub-leaf column is missing in old versions.
_RAW = re.compile(
    r"^[ \t]*0x(?P<leaf>[0-9a-f]{8})(?: 0x(?P<sub>[0-9a-f]{2,8}))?: "
    r"eax=0x(?P<a>[0-9a-f]{8}) ebx=0x(?P<b>[0-9a-f]{8}) "
    r"ecx=0x(?P<c>[0-9a-f]{8}) edx=0x(?P<d>[0-9a-f]{8})[ \t\r]*$",
    re.IGNORECASE | re.MULTILINE,
)


# Sub-leaves follow each other, with or without a "[SL 00]" after the registers.
_LISTED = re.compile(
    r"^CPUID (?P<leaf>[0-9a-f]{8}): "
    r"(?P<a>[0-9a-f]{8})-(?P<b>[0-9a-f]{8})-(?P<c>[0-9a-f]{8})-(?P<d>[0-9a-f]{8})"
    r"(?: \[SL (?P<sub>[0-9a-f]{2,4})\])?",
    re.IGNORECASE | re.MULTILINE,
)


_FEATURES = 7  # the leaf


_BIT_HYPERVISOR = 1 << 31  # CPUID.01H:ECX


_BIT_MOVDIR64B = 1 << 28  # CPUID.(07H,0):ECX


class _Row(NamedTuple):
    leaf: int
    sub: int | None
    registers: tuple[int, int, int, int]


# What begins a CPU: cpuid's own head, and that of hardware databases.
_HEAD = re.compile(r"^[ \t]*(?:CPU(?: \d+)?:|-+\[ Logical CPU #\d+ \]-*)[ \t\r]*$", re.MULTILINE)


# What looks like a row, or has become none.
_LIKE_A_ROW = re.compile(
    r"(?:\beax ?[=:] ?0?x?[0-9a-f]{4,8}|CPUID ?:? ?[0-9a-f]{8}|^[ \t]*0x[0-9a-f]{8}\b)[^\n]*",
    re.IGNORECASE | re.MULTILINE,
)


_LONGEST_LINE = 4000


def looks_like_cpuid(text: str) -> bool:
    """Whether *text*, or the beginning of one, is a CPUID dump."""
    return bool(_RAW.search(text) or _LISTED.search(text))


class _Cpus:
    """Takes rows, in order, and counts the CPUs that begin among them."""

    def __init__(self) -> None:
        self.groups: Counter[CpuGroup] = Counter()
        self.hypervisor: list[bool] = []
        self.movdir64b: list[bool] = []
        self._vendor: str | None = None
        self._open = self._rows = self._features = False

    def begin(self, vendor: str | None = None) -> None:
        """Note that a CPU begins, at its head or its leaf 0."""
        if self._rows or vendor is None:
            self.end()
        self._open, self._vendor = True, vendor
        self._rows = self._features = False

    def take(self, row: _Row) -> None:
        eax, ebx, ecx, edx = row.registers
        if row.leaf == 0:
            self.begin(_vendor(ebx, edx, ecx))
        elif row.leaf == 1:
            self.groups[CpuGroup(vendor=self._vendor, **decode_signature(eax)._asdict())] += 1
            if len(self.groups) > MOST_KINDS:
                raise MalformedInputError("CPUID dump", f"more than {MOST_KINDS} kinds of CPU")
            # The next CPU has a vendor of its own, or none that is known.
            self._vendor, self._open = None, False
            self.hypervisor.append(bool(ecx & _BIT_HYPERVISOR))
        elif row.leaf == _FEATURES and (row.sub or 0) == 0 and not self._features:
            self.movdir64b.append(bool(ecx & _BIT_MOVDIR64B))
            self._features = True
        self._rows = True

    def end(self) -> None:
        """Count a CPU that has begun and never said what it is."""
        if self._open:
            self.groups[CpuGroup(vendor=self._vendor)] += 1
        self._open = False


def parse_cpuid(text: str) -> CpuReading:
    """Return the census of every logical CPU in a dump.

    A CPU begins at its head or at leaf 0; one without leaf 1 is a processor
    that is not identified.  Of the flags a dump tells two, ``hypervisor`` and
    ``movdir64b``; the kernel's own words are not in it.

    Raises:
        MalformedInputError: no leaf 1 is in it.

    """
    cpus = _Cpus()
    rows = 0
    for row in _rows(text):
        if row is None:
            cpus.begin()
        else:
            rows += 1
            cpus.take(row)
    cpus.end()
    if not cpus.hypervisor:
        raise MalformedInputError("CPUID dump", "leaf 1 (the signature) is not in it")
    has_movdir64b: bool | None = any(cpus.movdir64b)
    if not has_movdir64b and len(cpus.movdir64b) < len(cpus.hypervisor):
        has_movdir64b = None  # not told of every CPU
    return CpuReading(
        architecture="x86",
        groups=count_groups(cpus.groups),
        # CPUs that disagree are no guest for sure.
        hypervisor=cpus.hypervisor[0] if len(set(cpus.hypervisor)) == 1 else None,
        movdir64b=has_movdir64b,
        gaps=_gaps(text, cpus, rows),
    )


def _gaps(text: str, cpus: _Cpus, rows: int) -> tuple[Gap, ...]:
    gaps = GapList()
    vague = sum(count for group, count in cpus.groups.items() if not group.identified)
    if vague:
        gaps.add(0, f"{vague} of {cpus.groups.total()} CPUs have no whole signature")
    like = sum(1 for _ in _LIKE_A_ROW.finditer(text))
    if like > rows:
        gaps.add(0, f"{like - rows} lines look like CPUID registers and cannot be read")
    last = text[text.rfind("\n") + 1 :]
    if last.strip() and not (_RAW.fullmatch(last) or _LISTED.match(last)):
        gaps.add(0, "it ends in the middle of a line")
    if "\0" in text or "\N{REPLACEMENT CHARACTER}" in text:
        gaps.add(0, "characters that are no text")
    return gaps.found


def _rows(text: str) -> Iterator[_Row | None]:
    """Yield the rows of either notation, and ``None`` where a head stands."""
    if longest_line(text) > _LONGEST_LINE:
        raise MalformedInputError("CPUID dump", f"a line longer than {_LONGEST_LINE} characters")
    for match in _ROWS.finditer(text):
        kind = next((kind for kind in ("raw", "listed") if match[f"{kind}leaf"]), None)
        if kind is None:
            yield None
            continue
        sub = match[f"{kind}sub"]
        a, b, c, d = (int(match[f"{kind}{name}"], 16) for name in "abcd")
        leaf = int(match[f"{kind}leaf"], 16)
        yield _Row(leaf, None if sub is None else int(sub, 16), (a, b, c, d))


_ROWS = re.compile(
    "|".join(
        (
            _RAW.pattern.replace("?P<", "?P<raw"),
            _LISTED.pattern.replace("?P<", "?P<listed"),
            _HEAD.pattern,
        )
    ),
    re.IGNORECASE | re.MULTILINE,
)


def _vendor(ebx: int, edx: int, ecx: int) -> str:
    raw = b"".join(register.to_bytes(4, "little") for register in (ebx, edx, ecx))
    return raw.decode("latin-1")
