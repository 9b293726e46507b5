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
from tdxreclaim.facts.cpu import CpuGroup, CpuReading, count_groups, decode_signature

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def looks_like_cpuid(text: str) -> bool:
    """Whether *text*, or the beginning of one, is a CPUID dump."""
    return bool(_RAW.search(text) or _LISTED.search(text))


def parse_cpuid(text: str) -> CpuReading:
    """Return the census of every logical CPU in a dump.

    A CPU begins at leaf 0.  Of the flags a dump tells two, ``hypervisor`` and
    ``movdir64b``; the kernel's own words are not in it.

    Raises:
        MalformedInputError: no leaf 1 is in it.

    """
    groups: Counter[CpuGroup] = Counter()
    hypervisor: list[bool] = []
    movdir64b: list[bool] = []
    vendor: str | None = None
    feature_leaf_seen = False
    for row in _rows(text):
        eax, ebx, ecx, edx = row.registers
        if row.leaf == 0:
            vendor = _vendor(ebx, edx, ecx)
            feature_leaf_seen = False
        elif row.leaf == 1:
            signature = decode_signature(eax)
            groups[CpuGroup(vendor=vendor, **signature._asdict())] += 1
            # The next CPU has a vendor of its own, or none that is known.
            vendor = None
            hypervisor.append(bool(ecx & _BIT_HYPERVISOR))
        elif row.leaf == _FEATURES and (row.sub or 0) == 0 and not feature_leaf_seen:
            movdir64b.append(bool(ecx & _BIT_MOVDIR64B))
            feature_leaf_seen = True
    if not groups:
        raise MalformedInputError("CPUID dump", "leaf 1 (the signature) is not in it")
    has_movdir64b: bool | None = any(movdir64b)
    if not has_movdir64b and len(movdir64b) < len(hypervisor):
        has_movdir64b = None  # not told of every CPU
    return CpuReading(
        architecture="x86",
        groups=count_groups(groups),
        # CPUs that disagree are no guest for sure.
        hypervisor=hypervisor[0] if len(set(hypervisor)) == 1 else None,
        movdir64b=has_movdir64b,
    )


def _rows(text: str) -> Iterator[_Row]:
    pattern = _RAW if _RAW.search(text) else _LISTED
    for match in pattern.finditer(text):
        sub = match["sub"]
        a, b, c, d = (int(match[name], 16) for name in "abcd")
        yield _Row(int(match["leaf"], 16), None if sub is None else int(sub, 16), (a, b, c, d))


def _vendor(ebx: int, edx: int, ecx: int) -> str:
    raw = b"".join(register.to_bytes(4, "little") for register in (ebx, edx, ecx))
    return raw.decode("latin-1")
