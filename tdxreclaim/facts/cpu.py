"""CPU identity: the signature, and the census that /proc/cpuinfo gives.

Family, model and stepping are *display* values throughout, as Linux shows
them.  0 is a value; ``None`` means that the text does not say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.evidence import flat
from tdxreclaim.record import Record

if TYPE_CHECKING:
    from collections import Counter

    from tdxreclaim.facts.evidence import Gap

# What the base and extended fields of CPUID.01H:EAX can hold.
FAMILY_MAX = 0xF + 0xFF


MODEL_MAX = 0xFF


STEPPING_MAX = 0xF


SIGNATURE_MAX = 0xFFFF_FFFF


# In one text; a host has one kind, two at most.
MOST_KINDS = 1024


_EXTENDED_FAMILY_BASE = 0xF


# Linux joins the extended model to every family from here on
# (arch/x86/lib/cpu.c, x86_model()).  Intel's manual names families 06H and 0FH
# alone, which is the same thing for every CPU that Intel has made.
_EXTENDED_MODEL_FROM = 6


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


class CpuGroup(Record):
    """Processors that say the same of themselves, and how many there are.

    ``size`` is ``None`` where the source does not say how many.
    """

    vendor: str | None = None
    family: int | None = None
    model: int | None = None
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

    def sized(self, size: int | None) -> CpuGroup:
        """Return it with another number of processors."""
        return self._replace(size=size)

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
    are the words that some processors have and others do not, ``forced`` those
    that an option of the kernel may have set or hidden.
    """

    present: frozenset[str]
    complete: bool
    disputed: frozenset[str] = frozenset()
    forced: frozenset[str] = frozenset()

    def has(self, word: str) -> bool | None:
        """Whether any processor has *word*; ``None`` if that cannot be told."""
        if word in self.present:
            return True
        return False if self.complete and word not in self.forced else None

    def all_have(self, word: str) -> bool | None:
        """Whether *word* is said of the host as a whole; ``None`` if processors disagree."""
        return None if word in self.disputed | self.forced else self.has(word)


NO_WORDS = Words(frozenset(), complete=False)


def same_cpu(one: CpuGroup, other: CpuGroup) -> bool:
    """Whether two sources mean the same CPU; what one of them does not say is no contradiction."""
    pairs = ((one.vendor, other.vendor), (one.family, other.family), (one.model, other.model))
    return all(a is None or b is None or a == b for a, b in pairs)


class CpuReading(Record):
    """What one text says about the processors.

    ``architecture`` is ``x86``, another architecture's name, or ``None``.
    ``hypervisor`` and ``movdir64b`` are what the text says apart from the
    flags.  ``notes`` says what in the text was not believed, ``gaps`` what of
    it was not understood, ``odd`` is what of it nothing was read from.
    """

    architecture: str | None
    groups: tuple[CpuGroup, ...] = ()
    flags: Words = NO_WORDS
    bugs: Words = NO_WORDS
    hypervisor: bool | None = None
    movdir64b: bool | None = None
    notes: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    odd: str = ""


def count_groups(groups: Counter[CpuGroup]) -> tuple[CpuGroup, ...]:
    """Return the groups with their counts, most processors first."""
    counted = [group.sized(count) for group, count in groups.items()]
    return tuple(sorted(counted, key=lambda g: (-(g.size or 0), repr(g))))


def parse_number(text: str | None, largest: int) -> int | None:
    """Return the decimal number, or ``None`` if it is not one from 0 to *largest*."""
    if text is None or not text.isascii() or not text.isdigit():
        return None
    # Longer than any value we take: not worth converting.
    number = int(text) if len(text) < len(str(largest)) + 2 else largest + 1
    return number if number <= largest else None


def longest_line(text: str) -> int:
    r"""Return the length of the longest line.

    >>> longest_line("a\nbcd")
    3
    """
    longest = at = 0
    while (end := text.find("\n", at)) >= 0:
        longest, at = max(longest, end - at), end + 1
    return max(longest, len(text) - at)
