"""What a host says of its running kernel: release, symbols, configuration."""

from __future__ import annotations

import re
from typing import NamedTuple

from tdxreclaim.facts.cpu import parse_number

# The functions that tell the generations of the reclaim code apart, and the
# one that tells how kexec is dealt with.  What each proves is policy.
TDX_SYMBOLS = (
    "tdx_clear_page",
    "reset_tdx_pages",
    "tdx_quirk_reset_page",
    "tdx_quirk_reset_paddr",
    "tdx_sys_disable",
)


_LINE = r"[0-9a-fA-F]{1,16} (?P<type>[A-Za-z?]) (?P<name>\S+)(?:[ \t]+\[(?P<module>\S+)\])?\r?"


_LONGEST_ADDRESS = len("\nffffffff81000000 t")


_LONGEST_SYMBOL = 1024


# Half of IA32_MKTME_KEYID_PARTITIONING; far beyond any CPU.
_MOST_KEY_IDS = 0xFFFF_FFFF


_CAPACITY_WORDS = 2


class Symbol(NamedTuple):
    """A kernel function.  ``type`` is nm's letter, upper case if it is global."""

    type: str
    name: str
    module: str | None

    def __str__(self) -> str:
        """Return the symbol as /proc/kallsyms prints it, without the address."""
        return f"{self.type} {self.name}" + (f" [{self.module}]" if self.module else "")


def parse_symbols(text: str) -> tuple[Symbol, ...] | None:
    """Return those of `TDX_SYMBOLS` in a /proc/kallsyms text; ``None`` if it is not one.

    Names are matched without the suffix that a compiler may add (``.isra.0``);
    addresses are not used, so a reader without CAP_SYSLOG sees enough.
    """
    line = re.compile(_LINE)
    if not line.match(text):
        return None
    found: set[Symbol] = set()
    for name in TDX_SYMBOLS:
        at = text.find(" " + name)
        while at >= 0:
            # Looked for no further than a line reaches; a last line that does
            # not end may be half a name.
            start = text.rfind("\n", max(0, at - _LONGEST_ADDRESS), at) + 1
            end = text.find("\n", at, at + _LONGEST_SYMBOL)
            match = line.fullmatch(text, start, end) if end >= 0 else None
            if match and match["name"].partition(".")[0] == name:
                found.add(Symbol(match["type"], name, match["module"]))
            at = text.find(" " + name, at + 1)
    return tuple(sorted(found, key=lambda symbol: TDX_SYMBOLS.index(symbol.name)))


def parse_release(path: str, text: str) -> str | None:
    """Return the kernel release in an osrelease, version or ``uname -a`` text.

    The host name that stands in ``uname -a`` is left out.
    """
    words = text.split()
    if path.endswith("osrelease"):
        return words[0] if words else None
    if path.endswith("version"):
        return words[2] if words[:2] == ["Linux", "version"] and words[2:] else None
    return words[2] if words[:1] == ["Linux"] and words[2:] else None


def parse_config(text: str) -> bool | None:
    """Return whether a kernel configuration has CONFIG_INTEL_TDX_HOST.

    Left out counts as off where its menu is there to the end: an option whose
    dependencies fail is not written.  ``None`` if the menu is not there.
    """
    if re.search(r"^CONFIG_INTEL_TDX_HOST=y\r?$", text, re.MULTILINE):
        return True
    off = r"^# (?:CONFIG_INTEL_TDX_HOST is not set|end of Processor type and features)\r?$"
    return False if re.search(off, text, re.MULTILINE) else None


def parse_capacity(text: str) -> int | None:
    """Return the guest KeyIDs that misc.capacity lists under ``tdx``; 0 if none.

    ``None`` if the text is no misc.capacity.
    """
    lines = [line.split() for line in text.splitlines()]
    if not all(len(line) == _CAPACITY_WORDS and line[1].isdecimal() for line in lines):
        return None
    number = next((line[1] for line in lines if line[0] == "tdx"), "0")
    return parse_number(number, _MOST_KEY_IDS)


def parse_switch(text: str) -> bool | None:
    """Return a bool module parameter (Y or N), ``None`` if it is neither."""
    return {"Y": True, "N": False, "1": True, "0": False}.get(text.strip())
