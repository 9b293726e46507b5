"""Where each thing that is known of a host stands in its tree."""

from __future__ import annotations

import re

from tdxreclaim.facts.evidence import Part

CPUINFO = "proc/cpuinfo"
LSCPU = "sos_commands/processor/lscpu"
LSCPU_JSON = "lscpu.json"
CPUID = "sos_commands/processor/cpuid_-r"
IDENTITY = (CPUINFO, LSCPU, LSCPU_JSON, CPUID)
KERNEL_LOGS = ("sos_commands/kernel/dmesg", "sos_commands/kernel/dmesg_-T", "var/log/dmesg")
RELEASES = ("proc/sys/kernel/osrelease", "proc/version", "sos_commands/kernel/uname_-a")
KALLSYMS = "proc/kallsyms"
KVM_PARAMETER = "sys/module/kvm_intel/parameters/tdx"
MISC_CAPACITY = "sys/fs/cgroup/misc.capacity"
MODULE_VERSION = "sys/devices/faux/tdx_host/version"
CONFIGS = (
    "boot/config-{release}",
    "usr/lib/modules/{release}/config",
    "lib/modules/{release}/config",
    # The running kernel's own, where it was built to have it.
    "proc/config.gz",
)
CMDLINE = "proc/cmdline"
FIRMWARE = ("sys/class/dmi/id/sys_vendor", "sys/class/dmi/id/product_name")
# What a capture keeps of the kernel's files.
KERNEL_FILES = "tdxreclaim-kernel.json"
MANIFEST = "tdxreclaim-capture.json"
# What py-cpuinfo answered where there was no usable /proc/cpuinfo.
PY_CPUINFO = "tdxreclaim-py-cpuinfo.json"


# Every file of a captured host that is ever looked at (and `is_config`).
WANTED = frozenset(
    (
        CPUINFO,
        LSCPU,
        LSCPU_JSON,
        CPUID,
        *KERNEL_LOGS,
        *RELEASES,
        KALLSYMS,
        KVM_PARAMETER,
        MISC_CAPACITY,
        MODULE_VERSION,
        CMDLINE,
        *FIRMWARE,
        KERNEL_FILES,
        MANIFEST,
        PY_CPUINFO,
    )
)


def part_of(path: str) -> Part:
    """Return what is left open where *path* cannot be read."""
    if path in (*IDENTITY, PY_CPUINFO):
        return Part.IDENTITY
    if path in KERNEL_LOGS or path == "dev/kmsg":
        return Part.LOG
    return Part.STATE if path in (KVM_PARAMETER, MISC_CAPACITY, MODULE_VERSION) else Part.KERNEL


def identity_at(path: str) -> str | None:
    """Return which file of `IDENTITY` a host below some folder has at *path*."""
    return next((each for each in IDENTITY if path == each or path.endswith(f"/{each}")), None)


_CONFIG = "|".join(re.escape(place).replace(r"\{release\}", "[^/]+") for place in CONFIGS)


def is_config(path: str) -> bool:
    """Whether *path* is that of a kernel configuration, of whatever release."""
    return re.fullmatch(_CONFIG, path) is not None
