"""The releases of the TDX module: what each runs on and can do.

Two branches, and no release of one runs on a platform of the other.
Sources: github.com/intel/confidential-computing.tdx.tdx-module, release notes
and README (12 August 2026); for the older ones mapping_file.json and the signed
sigstructs of confidential-computing.tdx.tdx-module.binaries (10 February 2026).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tdxreclaim.record import Record
from tdxreclaim.tables.cpus import INTEL, Vfm
from tdxreclaim.tables.sources import Citation

if TYPE_CHECKING:
    from collections.abc import Iterable

_SPR = Vfm(INTEL, 6, 0x8F)
_EMR = Vfm(INTEL, 6, 0xCF)
_SRF = Vfm(INTEL, 6, 0xAF)
_GNR = Vfm(INTEL, 6, 0xAD)
_GNRD = Vfm(INTEL, 6, 0xAE)
_CWF = Vfm(INTEL, 6, 0xDD)


NOTES = Citation("github.com/intel/confidential-computing.tdx.tdx-module", "release notes")


class TdxModule(Record):
    """A release of the TDX module."""

    version: str
    build: int | None
    date: str | None
    """Of the build, ISO; None: not known."""
    platforms: tuple[Vfm, ...]
    """Those that its release notes name; empty: not known."""
    dynamic_pamt: bool = False
    sys_disable: bool | None = None
    """Whether it has TDH.SYS.DISABLE; None: in no source that was read."""
    citation: Citation = NOTES


_ALL_15 = (_SPR, _EMR, _SRF)


MODULES = (
    TdxModule(
        version="1.0",
        build=457,
        date="2023-02-06",
        platforms=(),
        sys_disable=False,
        citation=Citation("github.com/canonical/tdx", "issue 331"),
    ),
    TdxModule(
        version="1.5.01", build=595, date="2023-10-08", platforms=(_SPR, _EMR), sys_disable=False
    ),
    TdxModule(version="1.5.05", build=698, date="2024-01-29", platforms=_ALL_15),
    TdxModule(version="1.5.08", build=784, date="2024-07-25", platforms=_ALL_15),
    TdxModule(version="1.5.09", build=813, date="2024-09-12", platforms=_ALL_15),
    TdxModule(version="1.5.13", build=864, date="2025-02-10", platforms=_ALL_15),
    TdxModule(version="1.5.16", build=869, date="2025-02-21", platforms=_ALL_15),
    TdxModule(version="1.5.20", build=920, date="2025-05-31", platforms=_ALL_15, dynamic_pamt=True),
    TdxModule(
        version="1.5.24", build=943, date="2025-07-29", platforms=(_SPR, _EMR), dynamic_pamt=True
    ),
    TdxModule(version="1.5.25", build=954, date="2025-09-02", platforms=(_SRF,), dynamic_pamt=True),
    TdxModule(version="1.5.28", build=989, date="2025-11-26", platforms=_ALL_15, dynamic_pamt=True),
    TdxModule(version="1.5.34", build=None, date=None, platforms=(), dynamic_pamt=True),
    TdxModule(version="2.0.02", build=786, date="2024-08-14", platforms=(_GNR,)),
    TdxModule(version="2.0.04", build=859, date="2025-01-16", platforms=(_GNR, _GNRD)),
    TdxModule(
        version="2.0.08", build=882, date="2025-04-02", platforms=(_GNR, _GNRD), dynamic_pamt=True
    ),
    TdxModule(
        version="2.0.12", build=924, date="2025-06-05", platforms=(_GNR, _GNRD), dynamic_pamt=True
    ),
    # Printed as of 2026-04-25, which its neighbours rule out.
    TdxModule(version="2.0.14", build=947, date=None, platforms=(_GNR, _GNRD), dynamic_pamt=True),
    TdxModule(
        version="2.0.16", build=994, date="2025-12-04", platforms=(_GNR, _GNRD), dynamic_pamt=True
    ),
    TdxModule(
        version="2.0.18",
        build=1013,
        date="2026-02-11",
        platforms=(_GNR, _GNRD, _CWF),
        dynamic_pamt=True,
    ),
)


# "1.5.24", "2.0.08.00"; "1.5 (build 698, 20240129)" of logs that give no third number.
_VERSION = re.compile(r"(\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?(?:\.\d+)*(?: \(build (\d{1,6})\b.*)?")


def _key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])


def find_module(version: str) -> TdxModule | None:
    """Return the release that a version means, or a branch with a build number.

    >>> find_module("2.0.8.00").build, find_module("1.5 (build 698, 20240129)").version
    (882, '1.5.05')
    """
    match = _VERSION.fullmatch(version.strip())
    if match is None:
        return None
    major, minor, update, build = match.groups()
    if update is None:
        branch = (int(major), int(minor))
        return next(
            (
                row
                for row in MODULES
                if _key(row.version)[:2] == branch and (row.build == int(build or -1))
            ),
            None,
        )
    wanted = (int(major), int(minor), int(update))
    return next((row for row in MODULES if _key(row.version) == wanted), None)


def platforms_of(version: str) -> tuple[Vfm, ...]:
    """Return what a module of this version runs on: its own notes', else its branch's.

    Empty if neither is known.
    """
    row = find_module(version)
    if row is not None and row.platforms:
        return row.platforms
    match = _VERSION.fullmatch(version.strip())
    branch = (int(match[1]), int(match[2])) if match else ()
    alike = (each.platforms for each in MODULES if _key(each.version)[:2] == branch)
    return _union(alike)


def _union(platforms: Iterable[tuple[Vfm, ...]]) -> tuple[Vfm, ...]:
    return tuple(dict.fromkeys(vfm for each in platforms for vfm in each))
