"""Signs of an affected CPU in text that no parser understands, in whatever notation.

A listing, a dump or a log may have lines of another machine in it, in a form
that nothing here reads.  What tells of an affected CPU there never counts as
an identity, and always against one.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.cpu import encode_signature
from tdxreclaim.tables.cpus import BRAND_SERIES, find_cpu
from tdxreclaim.tables.errata import ERRATA, FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tdxreclaim.facts.cpu import CpuGroup
    from tdxreclaim.tables.cpus import Vfm


class Sign(NamedTuple):
    """Where a sign stands (the line, from 1), its words, and the CPU or erratum it tells of.

    ``by_name``: it is a name, which programs and kernels mention of other CPUs too.
    """

    line: int
    said: str
    of: Vfm | str
    by_name: bool = False

    def describe(self) -> str:
        """Return what it says, in one phrase."""
        if isinstance(self.of, str):
            return f"it says {self.said!r}, as only a kernel on an affected CPU does"
        row = find_cpu(self.of)
        name = f"{row.codename} " if row else ""
        return f"it says {self.said!r}, which is {name}({self.of.family}/{self.of.model:#x})"


class _Pattern(NamedTuple):
    """One notation, in lower case.

    ``needle`` begins it, which is found faster; ``before`` is how what stands
    before it ends, ``has`` what is in it.
    """

    of: Vfm | str
    needle: str
    rest: str = ""
    before: str = ""
    has: str = ""


_NO_HEX_BEFORE = r"(?:\A|[^0-9a-fx])(?:0x)?0{0,4}\Z"


_NO_HEX = r"(?![0-9a-f])"


def _notations(vfm: Vfm) -> Iterator[_Pattern]:
    """Yield the notations of one CPU: its signature, its numbers, its microcode's file."""
    family, model = vfm.family, vfm.model
    signature = encode_signature(family, model, 0)
    digits = f"{signature >> 4:x}"
    # "0x806f8", "000806F8", "(raw 000806f8)".
    yield _Pattern(vfm, digits, f"[0-9a-f]{_NO_HEX}", _NO_HEX_BEFORE)
    # dmidecode's "ID: F8 06 08 00".
    low, *high = signature.to_bytes(4, "little")
    turned = " ".join(f"{byte:02x}" for byte in high)
    yield _Pattern(vfm, f" {turned}", _NO_HEX, rf"(?:\A|[^0-9a-fx]){low >> 4:x}[0-9a-f]\Z")
    # "Family 6, Model 143", "(fam: 06, model: 8f", "family='6' model='143'", two cells of a table.
    for one, other in ((("fam", family), ("model", model)), (("model", model), ("fam", family))):
        first, second = (rf"[a-z]*[^\n\d]{{0,24}}?{_number(value)}" for _, value in (one, other))
        yield _Pattern(vfm, one[0], rf"{first}[\s\S]{{0,120}}?{other[0]}{second}")
    # lshw and hwinfo (6.143.8), turbostat (6:143:8, 0x6:8f:8), the microcode's file
    # (06-8f-08), perf (GenuineIntel-6-8F), the manual (06_8FH), people and the kernel.
    yield _Pattern(vfm, f"{family}.{model}.", r"\d{1,2}(?![\d.])", r"(?:\A|[^\d.])\Z")
    yield _Pattern(vfm, f"{family}:{model}:", r"\d", r"(?:\A|[^\w:])\Z")
    yield _Pattern(vfm, f"0x{family:x}:{model:x}:")
    name = f"{family:02x}-{model:02x}-0"
    yield _Pattern(vfm, name, r"[0-9a-f](?![0-9a-f-])", r"(?:\A|[^0-9a-f-])\Z")
    yield _Pattern(vfm, f"intel-{family:x}-{model:x}", _NO_HEX)
    yield _Pattern(vfm, f"{family:02x}_{model:02x}h")
    yield _Pattern(vfm, f"{family}/0x{model:x}", _NO_HEX, r"(?:\A|\D)\Z")
    yield _Pattern(vfm, f"intel {family:02x}/{model:02x}", _NO_HEX)


def _names(vfm: Vfm) -> Iterator[_Pattern]:
    """Yield its codename, and the numbers of its series."""
    row = find_cpu(vfm)
    for first, *others in [row.codename.lower().split()] if row else []:
        rest = "".join(rf"[ \t_-]{{0,3}}{re.escape(word)}" for word in others)
        yield _Pattern(vfm, first, rest)
    for series, named in BRAND_SERIES:
        if named == vfm:
            yield _Pattern(vfm, "xeon", _AFTER_XEON, has=series.lower())


_AFTER_XEON = r"(?:\(r\)|®)?[ \t]+(?:[\w()®]{1,20}[ \t]+){0,2}?\d{4}\w{0,4}\+?"


def _number(value: int) -> str:
    return rf"(?:0x)?0{{0,2}}(?:{value:x}|{value}){_NO_HEX}"


@cache
def _patterns() -> tuple[tuple[_Pattern, re.Pattern[str], bool], ...]:
    """Return every notation, compiled, and whether it is a name."""
    cpus = dict.fromkeys(vfm for each in ERRATA for vfm in each.affected)
    numbers = [pattern for vfm in cpus for pattern in _notations(vfm)]
    names = [pattern for vfm in cpus for pattern in _names(vfm)]
    return tuple(
        (each, re.compile(re.escape(each.needle) + each.rest), by_name)
        for patterns, by_name in (
            ([_Pattern(flag, flag) for flag in FLAGS], False),
            (numbers, False),
            (names, True),
        )
        for each in patterns
    )


# A text is looked at in pieces, which overlap by more than a sign is long.
_PIECE = 1 << 20


_OVERLAP = 1 << 9


_LONGEST_BEFORE = 8


_LONGEST_SAID = 60


def find_signs(text: str, *, names: Callable[[str], bool] = lambda _line: True) -> tuple[Sign, ...]:
    """Return the first sign of each affected CPU and flag in *text*, and its first name.

    *names* tells whether a name counts that stands in a given line.
    """
    found: dict[tuple[Vfm | str, bool], Sign] = {}
    lines = 0
    for start in range(0, max(len(text), 1), _PIECE):
        begin = max(start - _OVERLAP, 0)
        piece = text[begin : start + _PIECE].replace("\0", "")
        lower = piece.lower()
        if len(lower) != len(piece):
            piece = lower
        for each, pattern, by_name in _patterns():
            if (each.of, by_name) in found or each.needle not in lower:
                continue
            for match in pattern.finditer(lower):
                at = match.start()
                before = lower[max(at - _LONGEST_BEFORE, 0) : at]
                if (
                    re.search(each.before, before)
                    and re.search(each.has, match[0])
                    and (not by_name or names(_line_of(piece, match)))
                ):
                    line = lines + piece.count("\n", 0, at) + 1
                    said = " ".join(match[0].split())[:_LONGEST_SAID]
                    found[each.of, by_name] = Sign(line, said, each.of, by_name)
                    break
        lines = text.count("\n", 0, max(start + _PIECE - _OVERLAP, 0))
    return tuple(found.values())


def _line_of(text: str, match: re.Match[str]) -> str:
    start = text.rfind("\n", 0, match.start()) + 1
    stop = text.find("\n", match.end())
    return text[start : min(len(text) if stop < 0 else stop, start + _LONGEST_LINE)]


_LONGEST_LINE = 4096


def foreign(
    signs: Iterable[Sign], groups: Iterable[CpuGroup] = (), *, flagged: bool = False
) -> Sign | None:
    """Return the first of *signs* that tells of no CPU among *groups*.

    *flagged*: that the kernel has set an erratum's flag is known already.
    """
    numbers = {(group.family, group.model) for group in groups}
    known = {vfm for each in ERRATA for vfm in each.affected if (vfm.family, vfm.model) in numbers}

    def is_foreign(sign: Sign) -> bool:
        if isinstance(sign.of, str):
            return not flagged
        # The kernel calls what they have in common by one of their names.
        return sign.of not in known and not (sign.by_name and known)

    return next(filter(is_foreign, signs), None)


def foreign_sign(
    text: str, groups: Iterable[CpuGroup] = (), *, flagged: bool = False
) -> Sign | None:
    """Return the first sign in *text* of an affected CPU that is none of *groups*.

    >>> foreign_sign("microcode: sig=0x806f8, pf=0x10").of.model
    143
    """
    return foreign(find_signs(text), groups, flagged=flagged)
