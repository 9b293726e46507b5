"""What distributions make of Linux, as far as it was read; known by the form of a release.

A release's form is a weak sign: whoever builds a kernel may call it so.  It
never outweighs symbols, a configuration or the host's own state.
"""

from __future__ import annotations

import re

from tdxreclaim.record import Record
from tdxreclaim.tables.kernels import Clearing, Kexec
from tdxreclaim.tables.releases import Version, release_series
from tdxreclaim.tables.sources import Citation


class Distribution(Record):
    """The kernels of a distribution that behave alike.  All of it is inferred."""

    name: str
    form: str
    """A regular expression that the whole release matches."""
    first: Version
    last: Version
    """The series that were read; both belong to it."""
    clearing: Clearing
    """UNKNOWN: it can run TDs, and what it clears is not known."""
    kexec: Kexec = Kexec.UNKNOWN
    """What an affected CPU with TDX on in the BIOS gets."""
    summary: str
    citations: tuple[Citation, ...]


_FEDORA = Citation(
    "kernel-ark, as packaged by Fedora and Bazzite",
    "configurations 6.17 to 7.2; 17e842dc3cbf, baa38bd2a561, 980036ebf5da, 81222db814ca, "
    "22da7dcaeafc in 6.17",
)


_CANONICAL = "github.com/canonical/tdx"


DISTRIBUTIONS = (
    Distribution(
        name="Debian",
        # 6.12.118+deb13-amd64, 6.1.0-56-amd64, 6.12.10-amd64, 7.3.4+deb13-cloud-amd64
        form=r"\d+\.\d+\.\d+(?:\+(?:deb|bpo)[\w.~+]*)?(?:-\d[\w.]*)?(?:-(?:rt|cloud))?-amd64",
        first=Version(6, 1),
        last=Version(7, 3),
        clearing=Clearing.NO_TDX_HOST,
        kexec=Kexec.ALLOWED,
        summary="Debian builds its kernels without TDX host support",
        citations=(
            Citation(
                "Debian linux-config and linux-image packages",
                "6.1, 6.12.118, 6.17, 6.18, 7.1, 7.2.13, 7.3.4, amd64: CONFIG_INTEL_TDX_HOST is "
                "not set",
            ),
        ),
    ),
    Distribution(
        name="Fedora",
        form=r"6\.17\.\d+-\d[\w.]*\.fc\d+\.x86_64",
        first=Version(6, 17),
        last=Version(6, 17),
        clearing=Clearing.ALWAYS,
        kexec=Kexec.REFUSED,
        summary="Fedora's 6.17 clears on every CPU and refuses kexec on affected ones",
        citations=(_FEDORA,),
    ),
    Distribution(
        name="Fedora",
        form=r"\d+\.\d+\.\d+-\d[\w.]*\.fc\d+\.x86_64",
        first=Version(6, 18),
        last=Version(7, 1),
        clearing=Clearing.ON_ERRATUM,
        kexec=Kexec.REFUSED,
        summary="Fedora's kernels from 6.18 on clear as upstream: on affected CPUs alone",
        citations=(_FEDORA,),
    ),
    Distribution(
        name="Fedora",
        form=r"\d+\.\d+\.\d+-\d[\w.]*\.fc\d+\.x86_64",
        first=Version(7, 2),
        last=Version(7, 2),
        clearing=Clearing.ON_ERRATUM,
        kexec=Kexec.AFTER_DISABLE,
        summary="Fedora's kernels from 6.18 on clear as upstream: on affected CPUs alone",
        citations=(_FEDORA,),
    ),
    Distribution(
        name="Fedora ELN",
        form=r"\d+\.\d+\.\d+-\d[\w.]*\.eln\d+\.x86_64",
        first=Version(6, 11),
        last=Version(7, 2),
        clearing=Clearing.NO_TDX_HOST,
        kexec=Kexec.ALLOWED,
        summary="the next RHEL's kernels are built without TDX host support",
        citations=(Citation("kernel-ark, configurations for RHEL", "6.11 to 7.2; ARK MR 2789"),),
    ),
    Distribution(
        name="Ubuntu",
        form=r"7\.0\.0-\d+-generic",
        first=Version(7, 0),
        last=Version(7, 0),
        clearing=Clearing.ON_ERRATUM,
        kexec=Kexec.REFUSED,
        summary="Ubuntu's 7.0 has TDX host support; by its base it clears on affected CPUs alone",
        citations=(
            Citation(
                "github.com/cloud-hypervisor/cloud-hypervisor", "issue 8540: 7.0.0-27-generic"
            ),
        ),
    ),
    Distribution(
        name="Ubuntu",
        form=r"6\.17\.0-\d+-generic",
        first=Version(6, 17),
        last=Version(6, 17),
        clearing=Clearing.UNKNOWN,
        summary="Ubuntu's 6.17 has TDX host support; whether it skips the clear is not known",
        citations=(Citation(_CANONICAL, "issue 411"),),
    ),
    Distribution(
        name="Ubuntu (canonical/tdx)",
        form=r"6\.8\.0-10\d\d-intel",
        first=Version(6, 8),
        last=Version(6, 8),
        clearing=Clearing.ALWAYS,
        summary="a tree of 2024 with TDX in KVM, from before any kernel skipped the clear",
        citations=(Citation(_CANONICAL, "releases 2.1 and 3.3"),),
    ),
    Distribution(
        name="Azure Linux",
        form=r"6\.\d+\.\d+(?:\.\d+)?-[\w.]+\.azl3",
        first=Version(6, 6),
        last=Version(6, 12),
        clearing=Clearing.NO_TDX_HOST,
        kexec=Kexec.ALLOWED,
        summary="Azure Linux 3.0 builds its kernels without TDX host support",
        citations=(
            Citation("github.com/microsoft/azurelinux", "2172d5cf45: kernel configurations"),
        ),
    ),
    Distribution(
        name="RHEL 9",
        form=r"5\.14\.0-\d[\w.]*\.el9\w*\.x86_64",
        first=Version(5, 14),
        last=Version(5, 14),
        clearing=Clearing.UNKNOWN,
        summary="RHEL 9 has TDX in KVM from 9.7 on; what its kernels clear is not known",
        citations=(Citation("CentOS Stream 9 kernel", "merge request 6701"),),
    ),
)


def find_distribution(release: str) -> Distribution | None:
    """Return the distribution that a release is of by its form."""
    series = release_series(release)
    if series is None:
        return None
    return next(
        (
            each
            for each in DISTRIBUTIONS
            if each.first <= series <= each.last and re.fullmatch(each.form, release, re.ASCII)
        ),
        None,
    )
