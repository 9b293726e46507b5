"""What a ticket's text says of its host beside the kernel's lines: release, CPU, MSRs.

People and canonical/tdx's system-report write these, not the kernel: they fill
in what the log does not say, and never make a host one that may skip.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tdxreclaim.facts.cpu import CpuGroup
from tdxreclaim.facts.logs.dress import undress
from tdxreclaim.facts.logs.line import Speaker
from tdxreclaim.facts.logs.needles import begins
from tdxreclaim.facts.logs.reading import LogLine, LogReading
from tdxreclaim.tables.cpus import BRAND_SERIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.tables.cpus import Vfm

# A heading of any depth, a fence, and what uname prints after its host's name.
_HEADING = re.compile(
    r"^#{1,6} *Kernel version\s+(?:`{3}\w*\s+)?(?P<release>\d\S*) #", re.MULTILINE
)


_UNAME = re.compile(
    r"^[ \t>|]{0,8}Linux (?P<host>\S{1,255}) (?P<release>\d+\.\d+\S*) #\d[^\n]* "
    r"(?:x86_64|aarch64|riscv64|ppc64le|s390x|armv7l)(?: GNU/Linux)?\s*$",
    re.MULTILINE,
)


_SAID = re.compile(
    r"^[ \t>*-]{0,8}\**Kernel(?: version)?\**:?\**[ \t]+(?:Linux )?(?P<release>\d+\.\d+\.\d+\S*)",
    re.MULTILINE | re.IGNORECASE,
)


_KEYS = re.compile(
    r"^[ \t>]{0,8}NUM_TDX_PRIV_KEYS: (?P<keys>(?:0x)?[0-9a-fA-F]{1,8})\b[^\n]*", re.MULTILINE
)


_XEON = re.compile(
    r"\bxeon(?:\(r\)|®)?[ \t]+(?:[\w()®]+[ \t]+){0,2}?\d{4}\w{0,4}\+?", re.IGNORECASE
)


# A ticket's text is looked at as far as this.
_LONGEST = 1 << 18


def looks_like_report(text: str) -> bool:
    """Whether *text* has a kernel's release where tickets keep it."""
    return any(pattern.search(text[:_LONGEST]) for pattern in (_HEADING, _UNAME))


def add_prose(reading: LogReading, text: str) -> LogReading:
    """Return *reading* with what the text around the log says and the log does not."""
    text = text[:_LONGEST]
    if reading.release is None:
        found = _HEADING.search(text) or _UNAME.search(text) or _SAID.search(text)
        if found:
            reading = reading._replace(release=_line(text, found, found["release"]))
    if reading.group is None and reading.told is None:
        told = list(_told(text))
        # A ticket that compares machines does not say which of them it is about.
        if len({group for _, group in told}) == 1:
            reading = reading._replace(told=told[0])
    keys = _KEYS.search(text)
    if keys and int(keys["keys"], 16):
        reading = reading._replace(msr=_line(text, keys, keys[0].strip()))
    return reading


def _told(text: str) -> Iterator[tuple[LogLine, CpuGroup]]:
    for match in _XEON.finditer(text):
        vfm = _of_series(match[0])
        if vfm is not None and not _is_quoted(text, match):
            group = CpuGroup(vendor=vfm.vendor, family=vfm.family, model=vfm.model)
            said = f"{' '.join(match[0].split())}: the number tells its generation (inferred)"
            yield _line(text, match, said), group


def _is_quoted(text: str, match: re.Match[str]) -> bool:
    """Whether it stands in another program's log line, or in a kernel's that is not the host's."""
    start = text.rfind("\n", 0, match.start()) + 1
    line = text[start : match.end()]
    read = undress(line).line
    if "CPU0: " in line:
        return read.speaker is not Speaker.KERNEL or not begins(read.message)
    return read.speaker is Speaker.PROGRAM


def _of_series(brand: str) -> Vfm | None:
    return next(
        (vfm for series, vfm in BRAND_SERIES if re.search(series, brand, re.IGNORECASE)), None
    )


def _line(text: str, match: re.Match[str], said: str) -> LogLine:
    return LogLine(text.count("\n", 0, match.start()) + 1, said)
