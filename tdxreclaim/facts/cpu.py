"""CPU identity: the signature, and the census that /proc/cpuinfo gives.

Family, model and stepping are *display* values throughout, as Linux shows
them.  0 is a value; ``None`` means that the text does not say.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.evidence import flat

# What the base and extended fields of CPUID.01H:EAX can hold.
FAMILY_MAX = 0xF + 0xFF
MODEL_MAX = 0xFF
STEPPING_MAX = 0xF
SIGNATURE_MAX = 0xFFFF_FFFF

_EXTENDED_FAMILY_BASE = 0xF
# Linux joins the extended model to every family from here on
# (arch/x86/lib/cpu.c, x86_model()).  Intel's manual names families 06H and 0FH
# alone, which is the same thing for every CPU that Intel has made.
_EXTENDED_MODEL_FROM = 6

# More than Linux can count (NR_CPUS is at most 8192 on x86): not a host.
_MOST_PROCESSORS = 65_536


class Signature(NamedTuple):
    """CPUID.01H:EAX taken apart: family 0-270, model 0-255, stepping 0-15."""

    family: int
    model: int
    stepping: int


def decode_signature(eax: int) -> Signature:
    """Return the display family, model and stepping of CPUID.01H:EAX.

    The processor type (bits 13:12) and the reserved bits are ignored, as
    Linux ignores them.

    >>> decode_signature(0x806F8)
    Signature(family=6, model=143, stepping=8)

    Source: Intel SDM volume 2A, CPUID, figure "Version Information Returned by
    CPUID in EAX"; linux arch/x86/lib/cpu.c.
    """
    base_family = eax >> 8 & 0xF
    family = base_family
    if base_family == _EXTENDED_FAMILY_BASE:
        family += eax >> 20 & 0xFF
    model = eax >> 4 & 0xF
    if family >= _EXTENDED_MODEL_FROM:
        model |= eax >> 12 & 0xF0
    return Signature(family, model, eax & 0xF)


def encode_signature(family: int, model: int, stepping: int) -> int:
    """Return the CPUID.01H:EAX that decodes to these display values.

    Raises:
        ValueError: no signature says that (a value out of range, or a model
            above 15 in a family below 6, which has no extended model).

    """
    if not (0 <= family <= FAMILY_MAX and 0 <= stepping <= STEPPING_MAX):
        raise ValueError(f"no signature for family {family}, stepping {stepping}")
    if not 0 <= model <= (MODEL_MAX if family >= _EXTENDED_MODEL_FROM else 0xF):
        raise ValueError(f"no signature for model {model} of family {family}")
    base_family = min(family, _EXTENDED_FAMILY_BASE)
    return (
        (family - base_family) << 20
        | (model >> 4) << 16
        | base_family << 8
        | (model & 0xF) << 4
        | stepping
    )


class CpuGroup(NamedTuple):
    """Processors that say the same of themselves, and how many there are.

    ``size`` is ``None`` where the source does not say how many.
    """

    vendor: str | None
    family: int | None
    model: int | None
    stepping: int | None = None
    microcode: int | None = None
    size: int | None = None

    @property
    def signature(self) -> int | None:
        """CPUID.01H:EAX rebuilt; ``None`` if a part of it is not known."""
        if self.family is None or self.model is None or self.stepping is None:
            return None
        try:
            return encode_signature(self.family, self.model, self.stepping)
        except ValueError:
            return None

    @property
    def identified(self) -> bool:
        """Whether vendor, family and model are all known."""
        return None not in (self.vendor, self.family, self.model)

    @property
    def number(self) -> str:
        """Family and model as people write them: ``6/0x8f``."""
        family = "?" if self.family is None else str(self.family)
        return f"{family}/{'?' if self.model is None else f'{self.model:#04x}'}"

    def describe(self) -> str:
        """Return vendor, number, stepping and microcode in one phrase."""
        parts = [flat(self.vendor) if self.vendor else "unknown vendor", self.number]
        if self.stepping is not None:
            parts.append(f"stepping {self.stepping}")
        if self.microcode is not None:
            parts.append(f"microcode {self.microcode:#x}")
        return " ".join(parts)


class Words(NamedTuple):
    """The words of a ``flags`` or ``bugs`` line, over all processors.

    ``complete`` is false where the line is missing for a processor, or cut
    off: then a word that is not there may still have been there.  ``disputed``
    are the words that some processors have and others do not.
    """

    present: frozenset[str]
    complete: bool
    disputed: frozenset[str] = frozenset()

    def has(self, word: str) -> bool | None:
        """Whether any processor has *word*; ``None`` if that cannot be told."""
        if word in self.present:
            return True
        return False if self.complete else None

    def all_have(self, word: str) -> bool | None:
        """Whether *word* is said of the host as a whole; ``None`` if processors disagree."""
        return None if word in self.disputed else self.has(word)


NO_WORDS = Words(frozenset(), complete=False)


class CpuReading(NamedTuple):
    """What one text says about the processors.

    ``architecture`` is ``x86``, another architecture's name, or ``None``.
    ``hypervisor`` and ``movdir64b`` are what the text says apart from the
    flags.  ``notes`` says what in the text was not believed.
    """

    architecture: str | None
    groups: tuple[CpuGroup, ...]
    flags: Words = NO_WORDS
    bugs: Words = NO_WORDS
    hypervisor: bool | None = None
    movdir64b: bool | None = None
    notes: tuple[str, ...] = ()


def count_groups(groups: Counter[CpuGroup]) -> tuple[CpuGroup, ...]:
    """Return the groups with their counts, most processors first."""
    counted = [group._replace(size=count) for group, count in groups.items()]
    return tuple(sorted(counted, key=lambda g: (-(g.size or 0), repr(g))))


def parse_number(text: str | None, largest: int) -> int | None:
    """Return the decimal number, or ``None`` if it is not one from 0 to *largest*."""
    if text is None or not text.isascii() or not text.isdigit():
        return None
    # Longer than any value we take: not worth converting.
    number = int(text) if len(text) < len(str(largest)) + 2 else largest + 1
    return number if number <= largest else None


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

_X86_KEYS = ("vendor_id", "cpu family", "model")
_KEYS = frozenset(("processor", *_X86_KEYS, "stepping", "microcode", "flags", "bugs"))


def _split_line(line: str) -> tuple[str, str] | None:
    key, colon, value = line.partition(":")
    return (key.strip(), value.strip()) if colon else None


_BLANK = ("", "")
_FIRST_LETTERS = frozenset(key[0] for key in _KEYS) | frozenset(" \t")


def _relevant(line: str) -> tuple[str, str] | None:
    """Return key and value of a line that matters, `_BLANK` of one between processors."""
    pair = _split_line(line)
    if pair is None:
        return None if line.strip() else _BLANK
    return pair if pair[0] in _KEYS else None


def looks_like_cpuinfo(text: str) -> bool:
    """Whether *text*, or the beginning of one, is a /proc/cpuinfo of any architecture."""
    keys = {pair[0] for line in text.splitlines()[:200] if (pair := _split_line(line))}
    is_x86 = "vendor_id" in keys or {"cpu family", "model"} <= keys
    return is_x86 or ("processor" in keys and bool(keys)) or not keys.isdisjoint(_OTHER_ONLY)


_OTHER_ONLY = frozenset({"CPU implementer", "bogomips per cpu", "cpucaps", "system type"})


def _take_apart(text: str) -> tuple[list[dict[str, str]], Iterable[str]]:
    """Return what each processor says under the keys that matter, and every distinct line."""
    # Processors repeat each other: each distinct line is taken apart once, and
    # a line that begins like none of the keys not even that.
    seen: dict[str, tuple[str, str] | None] = {"": _BLANK}
    parsed: list[dict[str, str]] = []
    values: dict[str, str] = {}
    for line in text.split("\n"):
        if line not in seen:
            seen[line] = _relevant(line) if line[0] in _FIRST_LETTERS else None
        pair = seen[line]
        if pair is None:
            continue
        # A key that comes again is the next processor's, in a text that lost
        # its blank lines (grep, a paste into a ticket).
        if values and (pair is _BLANK or pair[0] in values):
            parsed.append(values)
            values = {}
        if pair is not _BLANK:
            values[pair[0]] = pair[1]
    if values:
        parsed.append(values)
    return parsed, seen


def parse_cpuinfo(text: str) -> CpuReading:
    """Return the census of every processor in a /proc/cpuinfo text.

    A value in a last line that does not end is not believed: ``model : 14``
    may have been 143.

    Raises:
        MalformedInputError: it is not a /proc/cpuinfo.

    Source: linux arch/x86/kernel/cpu/proc.c, show_cpuinfo().
    """
    if not text.strip():
        raise MalformedInputError("/proc/cpuinfo", "empty, as tar makes it of /proc: copy it first")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    notes: list[str] = []
    cut: str | None = None
    if not text.endswith("\n"):
        text, cut = _drop_unfinished(text)
        if cut:
            notes.append(f"it ends in the middle of a line ({cut}), which is not believed")

    parsed, lines = _take_apart(text)
    if len(parsed) > _MOST_PROCESSORS:
        raise MalformedInputError("/proc/cpuinfo", f"more than {_MOST_PROCESSORS} processors")
    if any("vendor_id" in values and values["vendor_id"] != "IBM/S390" for values in parsed):
        return _census(parsed, notes, cut)
    keys = {line.partition(":")[0].strip() for line in lines}
    other = next((name for key, name in _OTHER_ARCHITECTURES.items() if key in keys), None)
    if any("vendor_id" in values for values in parsed):
        other = "s390"
    if other:
        return CpuReading(other, (), notes=tuple(notes))
    if not any(key in values for values in parsed for key in _X86_KEYS):
        raise MalformedInputError("/proc/cpuinfo", "no processor is described in it")
    return _census(parsed, notes, cut)


_WORD_LINES = ("flags", "bugs")


def _drop_unfinished(text: str) -> tuple[str, str | None]:
    """Return *text* without what may be half a value at its end, and which line that was.

    Of a number the value goes, of a line of words the last word.
    """
    head, newline, last = text.rpartition("\n")
    pair = _split_line(last)
    if pair is None:
        return head + newline, "its key is cut off" if last.strip() else None
    key, value = pair
    if key not in _KEYS:
        return text, None
    kept = value.rpartition(" ")[0] if key in _WORD_LINES else ""
    return f"{head}{newline}{key} : {kept}", key


_IDENTITY = ("vendor_id", "cpu family", "model", "stepping", "microcode")


def _census(parsed: list[dict[str, str]], notes: list[str], cut: str | None) -> CpuReading:
    groups: Counter[CpuGroup] = Counter()
    # Counted as text first: a host has hundreds of processors of one kind.
    said = Counter(tuple(map(values.get, _IDENTITY)) for values in parsed)
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
    return CpuReading(
        "x86",
        count_groups(groups),
        flags=_words(parsed, "flags", cut),
        bugs=_words(parsed, "bugs", cut),
        notes=tuple(notes),
    )


def _words(parsed: list[dict[str, str]], key: str, cut: str | None) -> Words:
    lines = {values.get(key) for values in parsed}
    present = frozenset(word for line in lines if line for word in line.split())
    # What a line that is cut off lacks is no contradiction.
    whole = {values[key] for values in parsed[: -1 if cut == key else None] if key in values}
    common = frozenset[str].intersection(*(frozenset(line.split()) for line in whole or [""]))
    return Words(
        present,
        complete=None not in lines and cut != key,
        disputed=present - common if whole else frozenset(),
    )
