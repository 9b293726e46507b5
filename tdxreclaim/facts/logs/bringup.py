"""What a kernel log says of its host: the CPU, the release, how far TDX came up.

A log may hold several boots; the last is the one that is told.
"""

from __future__ import annotations

import re
from typing import Any

from tdxreclaim.facts.cpu import FAMILY_MAX, MODEL_MAX, STEPPING_MAX, CpuGroup, decode_signature
from tdxreclaim.facts.logs.reading import LogLine, LogReading
from tdxreclaim.tables.cpus import BRANDS, INTEL

_MESSAGES = re.compile(
    r"Linux version (?P<release>[0-9]\S*)(?=\s)"
    r"|smpboot: CPU0: (?P<brand>[^\n]{0,80}?) "
    r"\(family: 0x(?P<family>[0-9a-f]+), model: 0x(?P<model>[0-9a-f]+)"
    r"(?:, stepping: 0x(?P<stepping>[0-9a-f]+))?\)"
    r"|(?P<hypervisor>Hypervisor detected: [^\n]+"
    r"|Booting paravirtualized kernel on (?!bare hardware)[^\n]+|kvm-guest: [^\n]+"
    # What hypervisors call their machines in the firmware's tables.
    r"|DMI: (?:QEMU |Red Hat KVM|VMware, Inc\. VMware|innotek GmbH VirtualBox|Bochs |Xen HVM domU"
    r"|Microsoft Corporation Virtual Machine|OpenStack |Parallels )[^\n]*)"
    r"|(?P<guest>tdx: Guest detected)"
    r"|(?P<enabled>(?:virt/)?tdx: BIOS enabled: private KeyID range:? \[\d+, \d+\))"
    r"|(?P<refused>virt/tdx: initialization failed: (?:too few private KeyIDs available"
    r"|Hibernation support is enabled|register_memory_notifier\(\) failed)[^\n]*)"
    r"|(?P<ready>(?:virt/)?tdx: (?:TDX[- ][Mm]odule|module) initialized)"
    r"|(?P<failed>virt/tdx: (?:(?:TDX-Module|module) initialization failed[^\n]*"
    r"|module not loaded))"
    r"|(?P<unsupported>(?:virt/tdx|kvm_intel): TDX not supported by the host platform"
    r"|tdx: (?:not enabled by BIOS|Cannot enable TDX on TDX disabled platform"
    r"|\[firmware bug\]: TDX is not enabled by BIOS)[^\n]*)"
    r"|(?P<kexec>kexec: Not allowed on platform with tdx_pw_mce bug)"
    r"|(?P<check>(?:mce: \[Hardware Error\]: (?:Machine check: )?)?TDX private memory error\. Possible kernel bug\.)"
    r"|(?:mce: )?\[Hardware Error\]: PROCESSOR (?P<maker>\d{1,2}):(?P<signature>[0-9a-f]{1,8}) "
    r"|(?P<architecture>(?:Machine model: |SBI specification v|Booting Linux on physical CPU )[^\n]{0,80})"
    r"|virt/tdx: (?:Module version: (?P<version>\d[\d.]*)|TDX module (?P<build>\d[\d.]*), build number \d+"
    r"|TDX module: attributes [^\n]*?major_version (?P<major>\d+), minor_version (?P<minor>\d+)"
    r"(?:, build_date (?P<date>\d+), build_num (?P<number>\d+))?)",
)


_OPTIONS = re.compile(r"(?:Kernel c|C)ommand line: (?P<options>[^\n]*)")


_IMAGE = re.compile(r"(?:^|\s)BOOT_IMAGE=\S*?vmlinu[xz]-(\d\S*)")


_TAINTED = re.compile(
    r"(?:CPU: \d+ [^\n]*?|)(?:Not tainted|Tainted:[ A-Z]*(?:\[[^\]]*\]=[\w, ]*)?) +(\d+\.\d+\S*)(?: #|\Z)"
)


_LONGEST_HEX = 8


_INTELS_NUMBER = "0"


def tells_of_host(message: str) -> bool:
    """Whether a message is one that `Bringup` takes something from."""
    return any(pattern.match(message) for pattern in (_MESSAGES, _TAINTED))


# How far before its boot's first line the guest's own may stand.
_GUEST_LINES = 16


# Of one log so many different CPU0 lines are kept.
_MOST_CPUS = 64


class Bringup:
    """Takes a log's messages, in order, and keeps what they say of the host."""

    def __init__(self) -> None:
        self.reading = LogReading()
        self._cpu_lines = 0

    def new_boot(self, number: int) -> None:
        """Forget what is the last boot's alone; line *number* begins another."""
        old = self.reading
        # A TD's kernel says so before the line with its version.
        near = old.guest is not None and number - old.guest.number <= _GUEST_LINES
        seen = ((old.cpu, old.group),) if old.cpu and old.group else ()
        # A log has the same CPU boot after boot, or is put together from several hosts.
        earlier = {group: (told, group) for told, group in old.earlier + seen}
        self.reading = LogReading(
            boots=old.boots,
            guest=old.guest if near else None,
            earlier=tuple(earlier.values()),
            cpus=old.cpus,
            flagged=old.flagged or old.kexec or old.check,
        )
        self._cpu_lines = 0

    def take(self, number: int, message: str, *, uncut: bool = False) -> None:
        """Note a kernel message; *uncut*: nothing is left out since the boot's first line."""
        match = _MESSAGES.match(message)
        if match is None:
            self._take_release(number, message)
            return
        line = LogLine(number, match[0].strip())
        if match["release"]:
            self._begin(line, match["release"])
        elif match["brand"] is not None:
            self._cpu(line, match, uncut=uncut)
        elif match["signature"]:
            self._told(line, match)
        elif match["version"] or match["build"] or match["major"]:
            self._set(module=LogLine(number, _version(match)))
        else:
            self._set(**{str(match.lastgroup): line})

    def _set(self, **said: Any) -> None:  # noqa: ANN401  (each field has its own type)
        self.reading = self.reading._replace(**said)

    def _begin(self, line: LogLine, release: str) -> None:
        self._set(boots=self.reading.boots + 1, release=line._replace(text=release))

    def _cpu(self, line: LogLine, match: re.Match[str], *, uncut: bool) -> None:
        self._cpu_lines += 1
        known = self.reading.cpu
        if known is not None and known.text == line.text:
            # A log may be nothing but this line, millions of times.
            if self.reading.whole:
                self._set(whole=False)
            return
        group = _group(match)
        cpus = self.reading.cpus
        if len(cpus) < _MOST_CPUS and all(group != known for _, known in cpus):
            cpus = (*cpus, (line, group))
        self._set(cpu=line, group=group, cpus=cpus, whole=uncut and self._cpu_lines == 1)
        if _BRANDLESS.match(match["brand"]) and self.reading.hypervisor is None:
            # A bare processor has a brand: the kernel made this one up.
            self._set(hypervisor=line)

    def _told(self, line: LogLine, match: re.Match[str]) -> None:
        if match["maker"] == _INTELS_NUMBER:
            family, model, stepping = decode_signature(int(match["signature"], 16))
            self._set(
                told=(line, CpuGroup(vendor=INTEL, family=family, model=model, stepping=stepping))
            )

    def _take_release(self, number: int, message: str) -> None:
        options = _OPTIONS.match(message)
        if options:
            self._set(options=LogLine(number, options["options"].strip()))
        if self.reading.release is None:
            found = (
                _IMAGE.search(options["options"]) if options else _TAINTED.match(message.lstrip())
            )
            if found:
                self._set(release=LogLine(number, found[1]))


# "Intel 06/cf": what the kernel shows where CPUID has no brand string.
_BRANDLESS = re.compile(r"Intel [0-9a-f]{2}/[0-9a-f]{2}\Z")


def _version(match: re.Match[str]) -> str:
    if match["version"] or match["build"]:
        return str(match["version"] or match["build"])
    build = f" (build {match['number']}, {match['date']})" if match["number"] else ""
    return f"{match['major']}.{match['minor']}{build}"


def _group(match: re.Match[str]) -> CpuGroup:
    def number(name: str, largest: int) -> int | None:
        digits = match[name]
        # No register has more.
        value = int(digits, 16) if digits and len(digits) <= _LONGEST_HEX else None
        return value if value is not None and value <= largest else None

    return CpuGroup(
        vendor=vendor_of_brand(match["brand"]),
        family=number("family", FAMILY_MAX),
        model=number("model", MODEL_MAX),
        stepping=number("stepping", STEPPING_MAX),
    )


def vendor_of_brand(brand: str) -> str | None:
    """Return the CPUID vendor that uses this brand string, ``None`` if unsure.

    The kernel's CPU0 line has the brand and not the vendor; Intel's says
    ``Intel(R)``, in capitals on Emerald Rapids.
    """
    words = set(re.findall(r"[a-z]+", brand.lower()))
    owners = [vendor for word, vendor in BRANDS.items() if word in words]
    return owners[0] if len(owners) == 1 else None
