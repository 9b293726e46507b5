"""What belies the flags: options that change them, and firmware that names a virtual machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tdxreclaim.facts import places
from tdxreclaim.facts.evidence import printable
from tdxreclaim.tables.errata import FLAGS

if TYPE_CHECKING:
    from tdxreclaim.facts.evidence import Evidence
    from tdxreclaim.facts.reader import Reader

_OPTION = r"(?:set|clear)cpuid=\S+"

# Words of flags with the kernel's own numbers, which change from release to release.
_PLATFORM_WORD, _GUEST_WORD, _FIRST_BUG_WORD = 3, 8, 19

_NUMBERS = {4 * 32 + 31: "hypervisor", 16 * 32 + 28: "movdir64b"}

_BELIEVED = frozenset(
    (*FLAGS, "tdx_host_platform", "hypervisor", "tdx_guest", "movdir64b"),
)

# Not Google's, Amazon's and Oracle's names: their machines without a hypervisor have them too.
_VIRTUAL = (
    r"(?:QEMU|KVM|OpenStack|KubeVirt|VMware|VMW|innotek GmbH|VirtualBox|Xen|Bochs|Parallels"
    r"|BHYVE|Apple Virtualization)\b|Virtual Machine\s*\Z"
)


def forcing_options(reader: Reader) -> str:
    """Return the ``setcpuid=`` and ``clearcpuid=`` of the kernel's command line; empty if none."""
    text, _ = reader.text(places.CMDLINE)
    if text is None and not reader.is_live and (line := reader.log().options) is not None:
        text = line.text
    return " ".join(printable(word) for word in (text or "").split() if re.fullmatch(_OPTION, word))


def forced_flags(options: str) -> frozenset[str]:
    """Return which of the flags that are believed *options* may have set or hidden.

    >>> sorted(forced_flags("clearcpuid=smap,movdir64b setcpuid=159"))
    ['hypervisor', 'movdir64b']
    """
    given = re.findall(r"cpuid=(\S+)", options)
    return frozenset(
        flag for words in given for word in words.split(",") for flag in _flags_of(word.lower())
    )


def _flags_of(word: str) -> tuple[str, ...]:
    if word in _BELIEVED:
        return (word,)
    if not re.fullmatch(r"\d{1,6}", word):
        return ()
    number = int(word)
    if number in _NUMBERS:
        return (_NUMBERS[number],)
    if number // 32 >= _FIRST_BUG_WORD:
        return FLAGS
    return {_PLATFORM_WORD: ("tdx_host_platform",), _GUEST_WORD: ("tdx_guest",)}.get(
        number // 32, ()
    )


def names_virtual_machine(text: str) -> bool:
    """Whether a vendor or product in the firmware's tables is a hypervisor's."""
    return re.match(_VIRTUAL, text) is not None


def virtual_machine(reader: Reader) -> Evidence | None:
    """Return where the firmware names a virtual machine, ``None`` where it does not."""
    for path in places.FIRMWARE:
        text, evidence = reader.text(path)
        if text is not None and names_virtual_machine(text):
            return evidence._replace(observed=printable(text.strip()))
    return None
