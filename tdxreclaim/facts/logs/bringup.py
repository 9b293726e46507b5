"""What a kernel log says of the host: identity, release, TDX bring-up.

A line counts only if the kernel wrote it: nothing but stamps, a log level, or
syslog's ``HOST kernel:`` may stand before the text.  A log may hold several
boots; each ``Linux version`` line begins one, and the last is the one told.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from tdxreclaim.facts.cpu import FAMILY_MAX, MODEL_MAX, STEPPING_MAX, CpuGroup

# What may stand before a kernel message: "kern  :info  : " (dmesg -x), a
# syslog or journal head up to "kernel: ", "<6>", "[    1.234567] ", "[T1] ".
# The facility is 0, kern: whoever writes to /dev/kmsg gets another.  A name
# with ": " before "kernel: " is a program that quotes the kernel.
_BRACKETS = r"(?>\[(?:[ \d.+<>]+| *[TC]\d+|[^\]\n]{0,30}\d\d:\d\d[^\]\n]{0,20})\]) ?"


_STAMP = rf"(?:<[0-7]>)?(?:\d{{4}}-\d\d-\d\dT[\d:,.+-]{{8,24}} )?(?:{_BRACKETS})*+"


_PREFIX = re.compile(
    rf"(?:kern *:[a-z]{{3,6}} *: ?)?{_STAMP}"
    rf"(?:(?:(?!: )[^\n]){{0,200}}?(?<!\S)kernel: {_STAMP})?"
)


# One alternation finds the text; the prefix is looked at for the hits alone.
_MESSAGES = re.compile(
    r"Linux version (?P<release>[0-9]\S*)(?=\s)"
    r"|smpboot: CPU0: (?P<brand>[^\n]{0,80}?) "
    r"\(family: 0x(?P<family>[0-9a-f]+), model: 0x(?P<model>[0-9a-f]+)"
    r"(?:, stepping: 0x(?P<stepping>[0-9a-f]+))?\)"
    r"|Hypervisor detected: (?P<hypervisor>[^\n]+)"
    r"|(?P<guest>tdx: Guest detected)"
    r"|(?P<enabled>virt/tdx: BIOS enabled: private KeyID range \[\d+, \d+\))"
    r"|(?P<refused>virt/tdx: initialization failed: (?:too few private KeyIDs available"
    r"|Hibernation support is enabled|register_memory_notifier\(\) failed)[^\n]*)"
    r"|(?P<ready>virt/tdx: (?:TDX-Module|module) initialized)"
    r"|(?P<failed>virt/tdx: (?:(?:TDX-Module|module) initialization failed[^\n]*"
    r"|module not loaded))"
    r"|(?P<kexec>kexec: Not allowed on platform with tdx_pw_mce bug)"
    r"|(?P<check>(?:mce: \[Hardware Error\]: (?:Machine check: )?)?TDX private memory error\. Possible kernel bug\.)",
)


# No stamp is longer; a line of megabytes is not looked through.
_LONGEST_PREFIX = 400


_LONGEST_HEX = 8


class LogLine(NamedTuple):
    """A message and the number of its line, from 1."""

    number: int
    text: str


class LogReading(NamedTuple):
    """What the last boot in the log says; ``None`` where it does not.

    ``enabled``: TDX is on in the BIOS.  ``refused``: the kernel then refused
    to activate it.  ``ready`` and ``failed``: the TDX module's bring-up.
    ``kexec`` and ``check`` (a machine check) are printed only by a kernel that
    has set tdx_pw_mce.  ``earlier`` are the CPUs that earlier boots name.
    """

    boots: int = 0
    release: LogLine | None = None
    cpu: LogLine | None = None
    group: CpuGroup | None = None
    hypervisor: LogLine | None = None
    guest: LogLine | None = None
    enabled: LogLine | None = None
    refused: LogLine | None = None
    ready: LogLine | None = None
    failed: LogLine | None = None
    kexec: LogLine | None = None
    check: LogLine | None = None
    earlier: tuple[tuple[LogLine, CpuGroup], ...] = ()


def looks_like_kernel_log(text: str) -> bool:
    """Whether *text*, or the beginning of one, is a kernel log."""
    return bool(
        re.search(r"^(?:kern *:\w+ *: ?|<\d{1,3}>)?\[ *\d+\.\d{6}\]", text, re.MULTILINE)
        or re.search(r"^\[\w+ \w+ +\d+ \d\d:\d\d:\d\d \d{4}\] ", text, re.MULTILINE)
        or re.search(r"^[^\n]{1,200}? kernel: ", text, re.MULTILINE)
        or any(_is_kernel_line(text, match) for match in _MESSAGES.finditer(text))
    )


def parse_kernel_log(text: str) -> LogReading:
    """Return what the log says of its last boot; an empty reading if nothing."""
    reading = LogReading()
    number, counted_to = 1, 0
    for match in _MESSAGES.finditer(text):
        if not _is_kernel_line(text, match):
            continue
        number += text.count("\n", counted_to, match.start())
        counted_to = match.start()
        line = LogLine(number, match[0].strip())
        if match["release"]:
            seen = ((reading.cpu, reading.group),) if reading.cpu and reading.group else ()
            reading = LogReading(
                boots=reading.boots + 1,
                release=line._replace(text=match["release"]),
                # A log has the same CPU boot after boot, or is put together from several hosts.
                earlier=tuple(
                    {group: (told, group) for told, group in reading.earlier + seen}.values()
                ),
            )
        elif match["brand"] is not None:
            reading = reading._replace(cpu=line, group=_group(match))
        else:
            said: dict[str, Any] = {str(match.lastgroup): line}
            reading = reading._replace(**said)
    return reading


def _is_kernel_line(text: str, match: re.Match[str]) -> bool:
    start = text.rfind("\n", 0, match.start()) + 1
    if match.start() - start > _LONGEST_PREFIX:
        return False
    return _PREFIX.fullmatch(text, start, match.start()) is not None


def _group(match: re.Match[str]) -> CpuGroup:
    def number(name: str, largest: int) -> int | None:
        digits = match[name]
        # No register has more.
        value = int(digits, 16) if digits and len(digits) <= _LONGEST_HEX else None
        return value if value is not None and value <= largest else None

    return CpuGroup(
        vendor_of_brand(match["brand"]),
        number("family", FAMILY_MAX),
        number("model", MODEL_MAX),
        number("stepping", STEPPING_MAX),
    )


def vendor_of_brand(brand: str) -> str | None:
    """Return the CPUID vendor that uses this brand string, ``None`` if unsure.

    The kernel's CPU0 line has the brand and not the vendor; Intel's says
    ``Intel(R)``, in capitals on Emerald Rapids.
    """
    words = set(re.findall(r"[a-z]+", brand.lower()))
    owners = [vendor for word, vendor in _BRANDS.items() if word in words]
    return owners[0] if len(owners) == 1 else None


_BRANDS = {"intel": "GenuineIntel", "amd": "AuthenticAMD", "hygon": "HygonGenuine"}
