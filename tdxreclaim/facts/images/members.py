"""Which file of a root, /boot, a modules folder or a package is which part of which kernel."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple


class Role(IntEnum):
    """A part of a kernel, the most telling first."""

    MODULE = 1
    CONFIGURATION = 2
    SYMBOLS = 3
    IMAGE = 4


class Member(NamedTuple):
    """A file that is a part of the kernel of some release; ``None`` where its path has none."""

    path: str
    role: Role
    release: str | None


_NAMES = {
    "vmlinuz": Role.IMAGE,
    "vmlinux": Role.IMAGE,
    "config": Role.CONFIGURATION,
    "System.map": Role.SYMBOLS,
    "symvers": Role.SYMBOLS,
}


_PACKED = r"(?:\.(?:gz|xz|zst))?"


_BOOT = re.compile(
    r"(?:.*/)?(?P<name>vmlinuz|vmlinux|config|System\.map|symvers)-(?P<release>\d[^/]*?)" + _PACKED
)


_MODULES = re.compile(
    r"(?:usr/)?lib/modules/(?P<release>\d[^/]*)/"
    r"(?:(?P<name>vmlinuz|vmlinux|config|System\.map|symvers)" + _PACKED + r"|"
    r"(?P<symvers>build/Module\.symvers)|"
    r"(?:.*/)?(?P<module>kvm-intel\.ko)" + _PACKED + r")"
)


_HEADERS = re.compile(
    r"usr/src/(?:linux-headers-|kernels/)(?P<release>\d[^/]*)/Module\.symvers" + _PACKED
)


def member_of(path: str) -> Member | None:
    """Return which part the file at *path*, relative to a root, is; ``None`` if it is none.

    >>> member_of("boot/config-6.18.5+deb13-amd64").release
    '6.18.5+deb13-amd64'
    """
    boot = _BOOT.fullmatch(path) if path.startswith("boot/") else None
    if boot:
        return Member(path, _NAMES[boot["name"]], boot["release"])
    modules = _MODULES.fullmatch(path)
    if modules:
        role = Role.MODULE if modules["module"] else _NAMES.get(modules["name"], Role.SYMBOLS)
        return Member(path, role, modules["release"])
    headers = _HEADERS.fullmatch(path)
    return Member(path, Role.SYMBOLS, headers["release"]) if headers else None


def release_in_name(path: str) -> str | None:
    """Return the release that the path of a single file ends with or passes through.

    >>> release_in_name("/tmp/System.map-6.18.5"), release_in_name("kvm-intel.ko")
    ('6.18.5', None)
    """
    boot = _BOOT.fullmatch(path)
    if boot:
        return boot["release"]
    at = max(path.rfind("lib/modules/"), path.rfind("usr/src/"))
    found = member_of(path[at:]) if at >= 0 else None
    return found.release if found else None


_BEGINS = (b"\x7fELF\x02\x01\x01", b"!<arch>\ndebian", b"\xed\xab\xee\xdb")


_LISTS = re.compile(rb"(?:[0-9a-f]{16} [A-Za-z] \S+\n){2}|0x[0-9a-f]{8}\t\S+\t")


def looks_like_part(head: bytes) -> bool:
    """Whether *head* (64 KiB) begins what is given as ``--image``, not as a captured host."""
    if head[0x202:0x206] == b"HdrS" or head.startswith(_BEGINS):
        return True
    return b"\nCONFIG_X86" in head or _LISTS.match(head) is not None
