"""What a host says of its running kernel: release, symbols, configuration."""

import re
from typing import NamedTuple

# The functions that tell the generations of the reclaim code apart, and the
# one that tells how kexec is dealt with.  What each proves is policy.
TDX_SYMBOLS = (
    "tdx_clear_page",
    "reset_tdx_pages",
    "tdx_quirk_reset_page",
    "tdx_quirk_reset_paddr",
    "tdx_sys_disable",
)

_LINE = r"[0-9a-fA-F]{1,16} (?P<type>[A-Za-z?]) (?P<name>\S+)(?:\s+\[(?P<module>\S+)\])?"


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
            start = text.rfind("\n", 0, at) + 1
            end = text.find("\n", at)
            match = line.fullmatch(text, start, len(text) if end < 0 else end)
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

    ``None`` if the text is no configuration.  Left out altogether counts as
    off: an option whose dependencies fail is not written.
    """
    if "CONFIG_" not in text:
        return None
    return re.search(r"^CONFIG_INTEL_TDX_HOST=y$", text, re.MULTILINE) is not None


def parse_capacity(text: str) -> int:
    """Return the guest KeyIDs that misc.capacity lists under ``tdx``; 0 if none."""
    match = re.search(r"^tdx (\d{1,9})$", text, re.MULTILINE)
    return int(match[1]) if match else 0


def parse_switch(text: str) -> bool | None:
    """Return a bool module parameter (Y or N), ``None`` if it is neither."""
    return {"Y": True, "N": False, "1": True, "0": False}.get(text.strip())
