"""What each part of a kernel tells, as it was read; what follows from it is policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.evidence import Evidence, Origin
from tdxreclaim.tables.errata import HONOURING
from tdxreclaim.tables.kernels import KERNELS, RECLAIM, Clearing
from tdxreclaim.tables.releases import split_release

if TYPE_CHECKING:
    from collections.abc import Iterable

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

    @property
    def names(self) -> tuple[str, ...]:
        """Return the telling functions that the kernel has by this."""
        return self.resets


class Configuration(NamedTuple):
    """A kernel configuration; ``tdx_host`` is CONFIG_INTEL_TDX_HOST, ``None`` if it is cut.

    ``base`` is the version in its heading (6.18.5), which lacks what a
    distribution adds.
    """

    tdx_host: bool | None
    base: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return none: a configuration names no function."""
        return ()


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

    @property
    def names(self) -> tuple[str, ...]:
        """Return the telling functions that the kernel has by this."""
        return self.telling


@dataclass(frozen=True, kw_only=True)
class Text:
    """The code and data of a vmlinux, searched for texts.

    ``key_ids`` is the message of every kernel that has TDX host support.
    ``exported`` are telling names found as whole strings.
    """

    key_ids: bool
    exported: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the telling functions that the kernel has by this."""
        return self.exported


Content = Module | Configuration | Names | Text


class KernelPart(NamedTuple):
    """A part of a kernel: where it was, of which release it is, and what it tells.

    The release is what it says of itself, or what its name says.
    """

    path: str
    release: str | None
    content: Content


class Images(NamedTuple):
    """The parts of one kernel, and what of it could not be used, with the reason.

    ``loaded`` is whether the module among them is the one that runs, false if
    none runs and it would be loaded next; ``None`` of files that were given.
    """

    parts: tuple[KernelPart, ...]
    failures: tuple[Evidence, ...] = ()
    origin: Origin = Origin.FAKED
    loaded: bool | None = None

    @property
    def release(self) -> str | None:
        """Return the name that the parts give their kernel; of a configuration alone the base."""
        named = [part.release for part in self.parts if part.release]
        return next(iter(named + [base for _, base in bases(self.parts)]), None)


class KernelFiles(NamedTuple):
    """What the folders of a host tell of its kernels.

    ``running`` is of the one that runs, ``newest`` of the newest installed one
    if that does not run; ``livepatches`` counts those that are loaded.
    """

    running: Images | None = None
    newest: Images | None = None
    livepatches: int = 0


def bases(parts: Iterable[KernelPart]) -> list[tuple[str, str]]:
    """Return the versions in the headings of configurations, each with its path."""
    return [
        (part.path, part.content.base)
        for part in parts
        if isinstance(part.content, Configuration) and part.content.base
    ]


# Functions whose names tell the generations apart, in any list of symbols.
TELLING = (
    *dict.fromkeys(n for row in KERNELS if row.clearing is Clearing.ALWAYS for n in row.symbols),
    RECLAIM,
    *HONOURING,
)


def fits(base: str, release: str) -> bool:
    """Whether a kernel whose configuration is headed *base* can be called *release*.

    A heading has the upstream version alone, and a distribution may keep the
    third number of its names at 0: Debian's 6.1.0-56-amd64 is 6.1.192.

    >>> fits("6.1.192", "6.1.0-56-amd64"), fits("6.18.5", "6.18.35")
    (True, False)
    """
    if base == release:
        return True
    known, named = split_release(base), split_release(release)
    if known is None or named is None or known.series != named.series:
        return False
    third = named.third or "0"
    return third == (known.third or "0") or (third == "0" and bool(named.rest))
