"""What each part of a kernel tells, as it was read; what follows from it is policy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

# What is unpacked of one part; a vmlinux is 40 to 90 MB without debug data.
PART_LIMIT_BYTES = 200 << 20


@dataclass(frozen=True, kw_only=True)
class Module:
    """kvm-intel.ko.

    ``tdh_imports`` counts the SEAMCALL wrappers that it takes from the core;
    ``resets`` are those of the core's clearing functions among its imports;
    ``clears`` counts MOVDIR64B in its own code.  ``seamcalls``: it makes
    SEAMCALLs by itself, as trees before 6.16 did.  ``reclaims``: it has a
    function of its own for taking a TD's pages back.  ``build_id`` is hex.
    """

    tdh_imports: int
    resets: tuple[str, ...]
    clears: int
    seamcalls: bool
    reclaims: bool
    build_id: str | None = None


class Configuration(NamedTuple):
    """A kernel configuration; ``tdx_host`` is CONFIG_INTEL_TDX_HOST, ``None`` if it is cut."""

    tdx_host: bool | None


@dataclass(frozen=True, kw_only=True)
class Names:
    """A list of symbols: System.map or vmlinux (all), Module.symvers (``exported`` alone).

    ``tdx_host``: SEAMCALLs are among them.  ``telling`` are the names that
    tell the generations of the reclaim code apart.  Of a list that is not
    ``whole`` a missing name tells nothing.
    """

    tdx_host: bool
    telling: tuple[str, ...]
    exported: bool
    whole: bool


@dataclass(frozen=True, kw_only=True)
class Text:
    """The code and data of a vmlinux, searched for texts.

    ``key_ids`` is the message of every kernel that has TDX host support.
    ``exported`` are telling names found as whole strings.
    """

    key_ids: bool
    refuses_kexec: bool
    exported: tuple[str, ...]


Content = Module | Configuration | Names | Text


class Part(NamedTuple):
    """A part of a kernel: where it was, of which release it says to be, and what it tells.

    A configuration's release is that of its heading (6.18.5), which lacks
    what a distribution adds.
    """

    path: str
    release: str | None
    content: Content


class Images(NamedTuple):
    """The parts of one kernel, and what was passed over with the reason, as ``PATH: WHY``."""

    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    @property
    def release(self) -> str | None:
        """Return the longest name that the parts give their kernel."""
        return max((part.release for part in self.parts if part.release), key=len, default=None)


# Functions whose names tell the generations apart, in any list of symbols.
TELLING = (
    "tdx_clear_page",
    "tdh_phymem_page_reclaim",
    "tdx_quirk_reset_page",
    "tdx_quirk_reset_paddr",
)


_BASE = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


def same_release(one: str, other: str) -> bool:
    """Whether two releases can be of one kernel.

    A heading has the upstream base alone, and a distribution may keep the
    third number of its name at 0: Debian's 6.1.0-56-amd64 is 6.1.192.

    >>> same_release("6.1.192", "6.1.0-56-amd64"), same_release("6.18.5", "6.18.35")
    (True, False)
    """
    if one == other:
        return True
    bases = [_BASE.match(release) for release in (one, other)]
    if bases[0] is None or bases[1] is None:
        return False
    bare = [
        match[0] == release for match, release in zip(bases, (one, other), strict=True) if match
    ]
    if not any(bare):
        return False
    (major, minor, patch), (other_major, other_minor, other_patch) = (
        match.groups(default="0") for match in bases if match
    )
    if (major, minor) != (other_major, other_minor):
        return False
    named = other_patch if bare[0] else patch
    return patch == other_patch or (not all(bare) and named == "0")
