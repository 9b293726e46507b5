"""/proc/cpuinfo: its processors, their identity and words, and what of it was not understood."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.cpu import (
    FAMILY_MAX,
    MODEL_MAX,
    MOST_KINDS,
    STEPPING_MAX,
    CpuGroup,
    CpuReading,
    Words,
    count_groups,
    parse_number,
)
from tdxreclaim.facts.evidence import GapList
from tdxreclaim.facts.formats.paste import SIGNS, is_harmless
from tdxreclaim.tables.errata import FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.facts.evidence import Gap

# More than Linux can count (NR_CPUS is at most 8192 on x86): not a host.
_MOST_PROCESSORS = 65_536


# No line of a host is longer: some 400 flags are known.
_LONGEST_LINE = 1 << 16


# Processors repeat each other; a text whose lines do not is not worth remembering.
_MOST_REMEMBERED = 1 << 16


# x86 prints some 30 of a processor.
_MOST_KEYS = 256


# Other lines than numbers and those that are read: a host has some ten of them.
_MOST_ODD = 1 << 20


# Some 700 flags are known.
_MOST_WORDS = 1 << 14


_LONGEST_PROCESSOR = 99_999


_MICROCODE = re.compile(r"0x[0-9a-f]{1,8}", re.IGNORECASE)


def _parse_microcode(text: str | None) -> int | None:
    return int(text, 16) if text is not None and _MICROCODE.fullmatch(text) else None


# The first key that tells an architecture's /proc/cpuinfo from the others'.
_OTHER_ARCHITECTURES = {
    "CPU implementer": "arm",
    "CPU architecture": "arm",
    "Processor": "arm",
    "bogomips per cpu": "s390",
    "hart": "riscv",
    "isa": "riscv",
    "mmu": "riscv",
    "CPU Family": "loongarch",
    "system type": "mips",
    "cpu model": "mips",
    "platform": "powerpc",
    "revision": "powerpc",
    "cpucaps": "sparc",
}


_IDENTITY = ("vendor_id", "cpu family", "model", "stepping", "microcode")


_X86_KEYS = _IDENTITY[:3]


_WORD_LINES = ("flags", "bugs")


_USED = frozenset(("processor", *_IDENTITY, *_WORD_LINES))


# The model's numbers count, whatever its name is.
_TAKEN = _USED | {"model name"}


# Every key that x86 has printed since 2.6.
# Source: linux arch/x86/kernel/cpu/proc.c, show_cpuinfo().
_KNOWN = _USED | frozenset(
    (
        *("model name", "cpu MHz", "cache size", "physical id", "siblings", "core id"),
        *("cpu cores", "apicid", "initial apicid", "fdiv_bug", "hlt_bug", "f00f_bug", "coma_bug"),
        *("fpu", "fpu_exception", "cpuid level", "wp", "vmx flags", "bogomips", "TLB size"),
        *("clflush size", "cache_alignment", "address sizes", "power management"),
    )
)


_X86_SIGNS = re.compile(
    r"GenuineIntel|AuthenticAMD|cpu\W{0,4}family|stepping|vendor_id\W+(?!\W*IBM/S390)"
    r"|tdx_|\x00|\ufffd",
    re.IGNORECASE,
)


# /proc/cpuinfo calls a mips or loongarch by keys that x86 has in lower case.
_NO_X86_SIGN = re.compile(r"^(?:CPU Family|cpu family\s*:\s*(?:sh|mips))", re.MULTILINE)


_ORDINARY_KEY = re.compile(r"[A-Za-z][\w()./ -]*")


def _split_line(line: str) -> tuple[str, str] | None:
    key, colon, value = line.partition(":")
    return (key.strip(), value.strip()) if colon else None


def looks_like_cpuinfo(text: str) -> bool:
    """Whether *text*, or the beginning of one, is a /proc/cpuinfo of any architecture."""
    keys = {pair[0] for line in text.splitlines()[:200] if (pair := _split_line(line))}
    is_x86 = "vendor_id" in keys or {"cpu family", "model"} <= keys
    return is_x86 or ("processor" in keys and bool(keys)) or not keys.isdisjoint(_OTHER_ONLY)


_OTHER_ONLY = frozenset({"CPU implementer", "bogomips per cpu", "cpucaps", "system type"})


def _lines(text: str) -> Iterator[str]:
    """Yield the lines one by one: a list of millions of them would fill the memory."""
    at = 0
    while (end := text.find("\n", at)) >= 0:
        if end - at > _LONGEST_LINE:
            raise MalformedInputError(
                "/proc/cpuinfo", f"a line longer than {_LONGEST_LINE >> 10} KiB"
            )
        yield text[at:end]
        at = end + 1
    if at < len(text):
        yield text[at : at + _LONGEST_LINE]


_BLANK = ("", "")
_NOTHING = ("\n", "")


# Another line in this one: a paste that lost its line ends.
_NUMBER = re.compile(r"[\d.]{1,20}(?: K[Bi]?B?)?")
_ANOTHER_LINE = re.compile(r"\b(?:processor|vendor_id|cpu family|model|stepping|flags|bugs)\s*: ?")
_WORDS = re.compile(r"[a-z0-9_ ]*")
_LEAST_CUT = 4


def _doubt(key: str, value: str) -> str:
    """Return why the value of a known key is not believed as it stands; empty if it is."""
    if not value.isprintable():
        return "characters that no terminal shows"
    if _ANOTHER_LINE.search(value):
        return "another line in it"
    if key == "microcode" and value and not _MICROCODE.fullmatch(value):
        return "what is no revision"
    if key in _WORD_LINES:
        if not _WORDS.fullmatch(value):
            return "words that no kernel writes"
        for word in value.split():
            if key == "bugs" and _cut(word):
                return f"{word}, which may be a word that is cut"
            if key == "flags" and word in FLAGS:
                return f"{word}, which is no flag"
    return ""


def _cut(word: str) -> bool:
    """Whether *word* is the beginning of an erratum's word."""
    return len(word) >= _LEAST_CUT and any(flag.startswith(word) and flag != word for flag in FLAGS)


class _Blocks:
    """Takes a text apart into processors, noting every line that it makes nothing of."""

    def __init__(self) -> None:
        self.parsed: list[dict[str, str]] = []
        self.gaps = GapList()
        self.keys: set[str] = set()
        self.followed: set[str] = set()
        """The values of ``flags`` and ``bugs`` after which the block goes on."""
        self.odd: list[str] = []
        """The different lines whose words nothing here goes by."""
        self._odd_size = 0
        self._seen: dict[str, tuple[str, str]] = {"": _BLANK}
        self._values: dict[str, str] = {}
        self._block: set[str] = set()
        self._first = ""
        self._words = ""
        self._last = -1

    def take(self, number: int, line: str) -> None:
        pair = self._seen.get(line)
        if pair is None:
            pair = self._classify(number, line)
            if len(self._seen) < _MOST_REMEMBERED and pair is not _NOTHING:
                self._seen[line] = pair
        if pair is _NOTHING:
            return
        key, value = pair
        if pair is _BLANK or key in self._block:
            if key and key != self._first:
                self.gaps.add(number, f"{key} comes again within one processor")
            # In a text that lost its blank lines (grep, a paste) the next processor.
            self.end()
        if pair is _BLANK:
            return
        if self._words:
            if key in _KNOWN:
                self.followed.add(self._words)
            self._words = ""
        self._first = self._first or key
        self._block.add(key)
        if len(self._block) > _MOST_KEYS:
            raise MalformedInputError(
                "/proc/cpuinfo", f"a processor of more than {_MOST_KEYS} lines"
            )
        if key in _USED:
            self._use(number, key, value)

    def _use(self, number: int, key: str, value: str) -> None:
        self._values[key] = value
        if key in _WORD_LINES:
            self._words = f"{key}:{value}"
        elif key == "processor":
            self._number(number, parse_number(value, _LONGEST_PROCESSOR))

    def _number(self, number: int, order: int | None) -> None:
        if order is None:
            self.gaps.add(number, "a processor without a number")
        elif order <= self._last:
            self.gaps.add(number, f"processor {order} again: several captures in one text?")
        self._last = -1 if order is None else order

    def again(self, number: int, values: dict[str, str], order: int) -> None:
        """Take a processor from line *number* on that is like an earlier one with *values*."""
        self._number(number, order)
        self._values = {**values, "processor": str(order)}
        self.end()

    def _classify(self, number: int, line: str) -> tuple[str, str]:
        pair = _split_line(line)
        if pair is None:
            if not line.strip():
                return _BLANK
        else:
            key, value = pair
            self.keys.add(key) if len(self.keys) < _MOST_REMEMBERED else None
            if key in _KNOWN:
                why = _doubt(key, value)
                if why:
                    self.gaps.add(number, f"{key} with {why}")
                if value and key not in _TAKEN and not _NUMBER.fullmatch(value):
                    self._note_odd(number, value)
                return pair
            if _ORDINARY_KEY.fullmatch(key) and not SIGNS.search(line):
                self._note_odd(number, line)
                return (key, "")
        if not is_harmless(line):
            self.gaps.add(number, 'no "key : value" of a /proc/cpuinfo')
        self._note_odd(number, line)
        return _NOTHING

    def _note_odd(self, number: int, text: str) -> None:
        self._odd_size += len(text)
        if self._odd_size > _MOST_ODD:
            why = f"line {number}: more than {_MOST_ODD >> 20} MiB of lines that are not its own"
            raise MalformedInputError("/proc/cpuinfo", why)
        self.odd.append(text)

    def end(self) -> None:
        if self._block & _KNOWN and not self._values:
            self.gaps.add(0, "a processor that says nothing of what it is")
        if self._values:
            if len(self.parsed) >= _MOST_PROCESSORS:
                raise MalformedInputError(
                    "/proc/cpuinfo", f"more than {_MOST_PROCESSORS} processors"
                )
            self.parsed.append(self._values)
        self._values, self._block = {}, set()
        self._first = self._words = ""


# What differs from one processor of a kind to the next, and its number.
_VARIES = re.compile(
    r"^(?:processor|cpu MHz|physical id|core id|apicid|initial apicid)\s*: [\d.]{1,20}$",
    re.MULTILINE,
)
_BEGINS = re.compile(r"processor\s*: (\d{1,6})\n")
_LONGEST_BLOCK = 1 << 16
_MOST_KINDS = 64


def _take_all(text: str, blocks: _Blocks) -> int:
    """Take *text* processor by processor, and return how many lines it has.

    Processors of a kind differ in a few numbers; one that is like another whose
    every line was understood is not taken apart again.
    """
    known: dict[str, tuple[dict[str, str], int]] = {}
    number = at = 0
    while at < len(text):
        end = text.find("\n\n", at)
        stop = len(text) if end < 0 else end + 2
        begins = _BEGINS.match(text, at) if 0 <= end < at + _LONGEST_BLOCK else None
        kind = _VARIES.sub("", text[at:stop]) if begins else ""
        alike = known.get(kind) if begins else None
        if begins and alike:
            blocks.again(number + 1, alike[0], int(begins[1]))
            number += alike[1]
        else:
            before = (len(blocks.parsed), blocks.gaps.count, number)
            for line in _lines(text[at:stop]):
                number += 1
                blocks.take(number, line)
            understood = (len(blocks.parsed), blocks.gaps.count) == (before[0] + 1, before[1])
            if begins and understood and len(known) < _MOST_KINDS:
                known[kind] = (blocks.parsed[-1], number - before[2])
        at = stop
    return number


@lru_cache(maxsize=1)
def parse_cpuinfo(text: str) -> CpuReading:
    """Return the census of every processor in a /proc/cpuinfo text.

    A value in a last line that does not end is not believed: ``model : 14``
    may have been 143.  ``gaps`` says what else was not understood.

    Raises:
        MalformedInputError: it is not a /proc/cpuinfo.

    Source: linux arch/x86/kernel/cpu/proc.c, show_cpuinfo().
    """
    if not text.strip():
        raise MalformedInputError("/proc/cpuinfo", "empty, as tar makes it of /proc: copy it first")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    cut: str | None = None
    if not text.endswith("\n"):
        text, cut = _drop_unfinished(text)

    blocks = _Blocks()
    number = _take_all(text, blocks)
    blocks.end()
    notes: list[str] = []
    if cut:
        notes.append(f"it ends in the middle of a line ({cut}), which is not believed")
        blocks.gaps.add(number, f"it ends in the middle of a line ({cut})")
    other = _other_architecture(blocks)
    if other is not None:
        gaps = _gaps_of_other(text, cut)
        return CpuReading(
            architecture=other, notes=tuple(notes), gaps=gaps, odd="\n".join(blocks.odd)
        )
    if not any(key in values for values in blocks.parsed for key in _X86_KEYS):
        raise MalformedInputError("/proc/cpuinfo", "no processor is described in it")
    return _census(blocks, notes, cut)


def _other_architecture(blocks: _Blocks) -> str | None:
    vendors = {values["vendor_id"] for values in blocks.parsed if "vendor_id" in values}
    if vendors - {"IBM/S390"}:
        return None
    if vendors:
        return "s390"
    return next((name for key, name in _OTHER_ARCHITECTURES.items() if key in blocks.keys), None)


def _gaps_of_other(text: str, cut: str | None) -> tuple[Gap, ...]:
    """Return what of another architecture's text may be a processor of x86, or is cut off."""
    gaps = GapList()
    if cut == _NO_KEY:
        gaps.add(0, f"it ends in the middle of a line ({cut})")
    match = _X86_SIGNS.search(_NO_X86_SIGN.sub("", text))
    if match:
        gaps.add(0, f"{match[0]!r}, as on x86, in another architecture's /proc/cpuinfo")
    return gaps.found


_NO_KEY = "its key is cut off"


# A processor ends with it; what is pasted often lacks the last newline.
_LAST_KEY = "power management"


def _drop_unfinished(text: str) -> tuple[str, str | None]:
    """Return *text* without what may be half a value at its end, and which line that was.

    Of a number the value goes, of a line of words the last word.
    """
    head, newline, last = text.rpartition("\n")
    if not last.strip():
        return head + newline, None
    if is_harmless(last):
        return text, None
    pair = _split_line(last)
    if pair is None:
        return head + newline, _NO_KEY
    key, value = pair
    if key not in _USED:
        return text, None if key == _LAST_KEY else key
    kept = value.rpartition(" ")[0] if key in _WORD_LINES else ""
    return f"{head}{newline}{key} : {kept}", key


def _census(blocks: _Blocks, notes: list[str], cut: str | None) -> CpuReading:
    groups: Counter[CpuGroup] = Counter()
    parsed = blocks.parsed
    # Counted as text first: a host has hundreds of processors of one kind.
    said = Counter(tuple(map(values.get, _IDENTITY)) for values in parsed)
    if len(said) > MOST_KINDS:
        raise MalformedInputError("/proc/cpuinfo", f"more than {MOST_KINDS} kinds of processors")
    for (vendor, family, model, stepping, microcode), count in said.items():
        group = CpuGroup(
            vendor=vendor or None,
            family=parse_number(family, FAMILY_MAX),
            model=parse_number(model, MODEL_MAX),
            stepping=parse_number(stepping, STEPPING_MAX),
            microcode=_parse_microcode(microcode),
        )
        groups[group] += count
    vague = sum(count for group, count in groups.items() if not group.identified)
    if vague:
        notes.append(f"{vague} of {len(parsed)} processors lack a vendor, family or model")
        blocks.gaps.add(0, notes[-1])
    return CpuReading(
        architecture="x86",
        groups=count_groups(groups),
        flags=_words(blocks, "flags", cut),
        bugs=_words(blocks, "bugs", cut),
        notes=tuple(notes),
        gaps=blocks.gaps.found,
        odd="\n".join(blocks.odd),
    )


# Words are new in every release; what is no word was garbled.
_WORD = re.compile(r"[a-z0-9_]+(?: [a-z0-9_]+)*")


def _words(blocks: _Blocks, key: str, cut: str | None) -> Words:
    parsed = blocks.parsed
    lines = {values.get(key) for values in parsed}
    # What a line that is cut off lacks is no contradiction.
    whole = {values[key] for values in parsed[: -1 if cut == key else None] if key in values}
    present: set[str] = set()
    common: set[str] | None = None
    same = True
    for line in lines - {None}:
        words = set((line or "").split())
        present |= words
        if len(present) > _MOST_WORDS:
            raise MalformedInputError("/proc/cpuinfo", f"more than {_MOST_WORDS} {key}")
        if line in whole:
            same &= key != "bugs" or common in (None, words)
            common = words if common is None else common & words
    # A word's absence counts only in a line that is plainly whole: words, and the block goes on.
    # On a CPU that runs TDX some bug is known, so that an empty line is no list of them.
    plain = all(
        line is not None
        and (_WORD.fullmatch(line) is not None or (not line and key != "bugs"))
        and f"{key}:{line}" in blocks.followed
        for line in lines
    )
    return Words(
        frozenset(present),
        complete=plain and same and cut != key,
        disputed=frozenset(present - common) if common is not None else frozenset(),
    )
