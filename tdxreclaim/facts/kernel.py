"""What a host says of its running kernel: release, symbols, configuration."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.cpu import parse_number
from tdxreclaim.tables.kernels import BESIDE_RECLAIM, RECLAIM, SEAMCALL, TELLING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What is looked for in a list of symbols.  What each proves is policy.
TDX_SYMBOLS = (*TELLING, RECLAIM, BESIDE_RECLAIM, SEAMCALL)


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


NONE_FOUND = "no TDX reclaim function"


class Symbols(NamedTuple):
    """What /proc/kallsyms shows of TDX, in the order of `TDX_SYMBOLS`.

    ``seamcalls``: some function there wraps a SEAMCALL.  Of a list that is not
    ``whole`` (filtered, or cut) what is missing tells nothing.
    """

    found: tuple[Symbol, ...]
    seamcalls: bool = False
    whole: bool = False

    @property
    def tells(self) -> bool:
        """Whether they say anything of what the kernel does."""
        return bool(self.named(*TELLING, RECLAIM)) or self.whole

    def describe(self) -> str:
        """Return what is there in one line."""
        telling = ", ".join(map(str, self.named(*TELLING, RECLAIM)))
        if telling:
            return telling
        return "a whole list, no SEAMCALL" if self.whole and not self.seamcalls else NONE_FOUND

    def named(self, *names: str) -> tuple[Symbol, ...]:
        """Return those of *names* that are there."""
        return tuple(symbol for symbol in self.found if symbol.name in names)


def parse_symbols(text: str) -> Symbols | None:
    """Return what a /proc/kallsyms text shows of TDX; ``None`` if it is not one.

    Names are matched without the suffix that a compiler may add (``.isra.0``);
    addresses are not used, so a reader without CAP_SYSLOG sees enough.
    """
    heading = re.match(_FILTERED, text)
    if not re.compile(_LINE).match(text, heading.end() if heading else 0):
        return None
    found: dict[Symbol, None] = {}  # in the order of the list
    seamcalls = False
    for symbol in _named(text):
        seamcalls = seamcalls or symbol.name == SEAMCALL or symbol.name.startswith(_WRAPPER)
        if symbol.name in TDX_SYMBOLS:
            found[symbol] = None
    return Symbols(
        tuple(sorted(found, key=lambda symbol: TDX_SYMBOLS.index(symbol.name))),
        seamcalls=seamcalls,
        whole=bool(heading) or _is_whole(text),
    )


def select_symbols(chunks: Iterable[bytes]) -> str:
    """Return the lines of a /proc/kallsyms that `parse_symbols` asks for, and the first.

    Under a heading that says so, if the list was whole.
    """
    kept: list[str] = []
    seen = lines = 0
    begins = ends = False
    rest = b""
    for chunk in chunks:
        block = rest + chunk
        end = block.rfind(b"\n") + 1
        rest = block[end:]
        text = str(memoryview(block)[:end], "utf-8", "replace")
        told = "".join(_telling_lines(text, first=not lines))
        kept.append(told)
        begins = begins or (seen < _BEGINNING and _has_code(text))
        ends = ends or _has(told, _LAST_CODE)
        lines += text.count(NEWLINE)
        seen += len(text)
    whole = begins and ends and not rest and lines >= _FEWEST_SYMBOLS
    heading = f"{_HEADING}{lines} symbols\n" if whole else ""
    # What does not end is part of no line.
    return heading + "".join(kept) + rest[:_LONGEST_SYMBOL].decode("utf-8", "replace")


def _telling_lines(text: str, *, first: bool) -> Iterator[str]:
    at = text.find(NEWLINE) + 1 if first else 0
    if at:
        yield text[:at]
    beginnings = re.compile(_BEGINNINGS)
    while hit := beginnings.search(text, at):
        at = text.index(NEWLINE, hit.end()) + 1
        yield text[text.rfind(NEWLINE, 0, hit.start()) + 1 : at]


def whole_heading(text: str) -> str:
    """Return the line that says of a filtered list that nothing of TDX was left out of it."""
    already = re.match(_FILTERED, text)
    if already:
        return already[0]
    return f"{_HEADING}{text.count(NEWLINE)} symbols\n" if _is_whole(text) else ""


NEWLINE = "\n"


_HEADING = "# tdxreclaim: of a whole list of "


_FILTERED = rf"{_HEADING}\d{{1,9}} symbols\n"


# A kernel has over 60,000.
_FEWEST_SYMBOLS = 20_000


def _is_whole(text: str) -> bool:
    """Whether a list begins and ends as a kernel's: in order of address, modules last."""
    return (
        text.endswith(NEWLINE)
        and _has_code(text[:_BEGINNING])
        and _has(text, _LAST_CODE)
        and text.count(NEWLINE, 0, 2 * _BEGINNING) >= _FEWEST_SYMBOLS
    )


# Per-CPU symbols stand before the code.
_BEGINNING = 1 << 20


def _has_code(text: str) -> bool:
    return _has(text, "_stext") or _has(text, "_text")


def _has(text: str, name: str) -> bool:
    # The name alone is found at once where it is not there.
    return name in text and any(
        f" {kind} {name}{end}" in text for end in (NEWLINE, "\r\n") for kind in "Tt"
    )


_WRAPPER = "tdh_"


# Behind it stand the modules' symbols.
_LAST_CODE = "_einittext"


# Of the 100,000 symbols of a kernel one pass finds those that begin so; one a name takes four
# times as long.
_BEGINNINGS = " (?:{})".format(
    "|".join(sorted({name[:4] for name in (*TDX_SYMBOLS, _WRAPPER, _LAST_CODE)}))
)


def _named(text: str) -> Iterator[Symbol]:
    """Yield the symbols that begin as those of TDX do, without the compiler's suffix."""
    line, beginnings = re.compile(_LINE), re.compile(_BEGINNINGS)
    hit = beginnings.search(text)
    while hit:
        # Looked for no further than a line reaches; a last line that does
        # not end may be half a name.
        at = hit.start()
        start = text.rfind(NEWLINE, max(0, at - _LONGEST_ADDRESS), at) + 1
        end = text.find(NEWLINE, at, at + _LONGEST_SYMBOL)
        match = line.fullmatch(text, start, end) if end >= 0 else None
        if match and match.start("name") == at + 1:
            yield Symbol(match["type"], match["name"].partition(".")[0], match["module"])
        hit = beginnings.search(text, end if end >= 0 else at + _LONGEST_SYMBOL)


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
