"""Sizes as people write them; GB and GiB are not the same."""

from __future__ import annotations

import re
from fractions import Fraction

from tdxreclaim.errors import UsageError

PAGE_BYTES = 4096

# K, M, G, T alone are what QEMU and libvirt take them for: powers of 1024.
_UNITS = {
    "": 1,
    "B": 1,
    **{letter: 1024**n for n, letter in enumerate("KMGTPE", start=1)},
    **{f"{letter}IB": 1024**n for n, letter in enumerate("KMGTPE", start=1)},
    **{f"{letter}B": 1000**n for n, letter in enumerate("KMGTPE", start=1)},
}
# Below a MiB a size is meant to the byte, above it as people round.
_EXACT = frozenset(("", "B", "K", "KIB", "KB"))
_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,10})?) ?([A-Za-z]{0,3})", re.ASCII)


def parse_size(option: str, text: str) -> int:
    """Return *text* (``18G``, ``107GB``, ``1.2TiB``) in bytes, a whole number of 4 KiB pages.

    With a unit of MB or more it is rounded up to a page; without, or in KiB,
    it must be whole pages.

    >>> parse_size("--memory", "1MB"), parse_size("--memory", "1MiB")
    (1003520, 1048576)

    Raises:
        UsageError: it is no size, is nothing, or is not whole pages.

    """
    match = _SIZE.fullmatch(text.strip())
    unit = match[2].upper() if match else ""
    if match is None or unit not in _UNITS:
        raise UsageError(option, f"{text!r} is no size (18G, 107GB, 400GiB, 1.2TiB)")
    size = Fraction(match[1]) * _UNITS[unit]
    if size <= 0:
        raise UsageError(option, f"{text} is nothing: a TD has memory")
    if unit in _EXACT and size % PAGE_BYTES:
        raise UsageError(option, f"{text} is not a whole number of 4 KiB pages")
    return -int(-size // PAGE_BYTES) * PAGE_BYTES


def format_size(size_bytes: int) -> str:
    """Return a size in the largest binary unit that it fills, with GB beside GiB.

    >>> format_size(400 * 1024**3), format_size(107_000_000_512)
    ('400 GiB', '99.65 GiB (107.0 GB)')
    """
    unit, name = 1, "bytes"
    for power, each in enumerate(("KiB", "MiB", "GiB", "TiB", "PiB"), start=1):
        if size_bytes >= 1024**power:
            unit, name = 1024**power, each
    if size_bytes % unit == 0:
        return f"{size_bytes // unit} {name}"
    decimal = 1000 ** (("KiB", "MiB", "GiB", "TiB", "PiB").index(name) + 1)
    return f"{size_bytes / unit:.2f} {name} ({size_bytes / decimal:.1f} {name.replace('i', '')})"
