"""Texts that come beside a kernel: its configuration and its lists of symbols."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.images.parts import TELLING, Configuration, KernelPart, Names
from tdxreclaim.facts.kernel import parse_config

if TYPE_CHECKING:
    from collections.abc import Iterable


class StubError(MalformedInputError):
    """A list of symbols that is none: Debian's System.map is a line that names a package."""


_HEADING = re.compile(r"^# Linux/(\S+) (\d[\w.+~-]{2,120}) Kernel Configuration\r?$", re.MULTILINE)


_OPTION = re.compile(r"^(?:# )?CONFIG_\w+(?:=| is not set)", re.MULTILINE)


_SYSTEM_MAP = re.compile(r"[0-9a-f]{8,16} [A-Za-z?] \S")


_SYMVERS = re.compile(r"0x[0-9a-f]{8}\t\S+\t")


# A kernel has over 60,000 symbols and exports over 5,000.
_FEWEST = {False: 20_000, True: 3_000}


# The wrappers of a SEAMCALL: of its assembly, and of each leaf.
_SEAMCALLS = re.compile(r"(?:__)?seamcall|tdh_")


def parse_configuration(text: str) -> Configuration:
    """Return what a kernel configuration tells."""
    heading = _HEADING.search(text)
    return Configuration(parse_config(text), heading[2] if heading else None)


def names_of(names: Iterable[str], *, exported: bool = False, cut: bool = False) -> Names:
    """Return what a list of symbols tells."""
    count, kept = 0, set()
    for name in names:
        count += 1
        if _SEAMCALLS.match(name) or "tdx_" in name:
            kept.add(name.partition(".")[0])
    return Names(
        tdx_host=any(map(_SEAMCALLS.match, kept)),
        telling=tuple(name for name in TELLING if name in kept),
        exported=exported,
        whole=not cut and count > _FEWEST[exported],
    )


# ADDRESS TYPE NAME, and CRC NAME WHERE HOW.
_NAMES = {
    False: re.compile(r"^\S+ \S+ (\S+)", re.MULTILINE),
    True: re.compile(r"^\S+\t(\S+)\t", re.MULTILINE),
}


def read_list(text: str, name: str) -> KernelPart | None:
    """Return what a configuration, System.map or Module.symvers tells, ``None`` if it is none.

    Raises:
        MalformedInputError: it is for another architecture, or a stub.

    """
    if _SYSTEM_MAP.match(text) or _SYMVERS.match(text):
        exported = text.startswith("0x")
        # A KVM that is built in needs no export.
        built_in = exported and "\tarch/x86/kvm/kvm\t" not in text
        cut = built_in or not text.endswith("\n")
        # One by one: a list of them all would take ten times the text's memory.
        listed = (match[1] for match in _NAMES[exported].finditer(text))
        content = names_of(listed, exported=exported, cut=cut)
        if not (content.whole or content.telling):
            lines = text.count("\n")
            why = f"a stub or a part of a list of symbols ({lines} lines), which tells nothing"
            raise StubError(name, why)
        return KernelPart(name, None, content)
    if not _OPTION.search(text):
        return None
    heading = _HEADING.search(text)
    if heading and heading[1] not in ("x86", "x86_64"):
        raise MalformedInputError(name, f"a configuration for {heading[1]}, not for x86")
    return KernelPart(name, None, parse_configuration(text))
