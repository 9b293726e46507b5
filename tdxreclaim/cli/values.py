"""The ways in which people name a CPU."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tdxreclaim.errors import UsageError
from tdxreclaim.facts.cpu import (
    FAMILY_MAX,
    MODEL_MAX,
    SIGNATURE_MAX,
    STEPPING_MAX,
    decode_signature,
    encode_signature,
)
from tdxreclaim.facts.fake import FakedCpu
from tdxreclaim.tables.cpus import CPUS, INTEL, VENDOR_NAMES, find_cpu_by_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.tables.releases import Release

_FORMS = "write a codename (emeraldrapids), 6/0xcf, 06-cf-02, or a CPUID signature (0xC06F2)"


_SIGNATURE = re.compile(r"0[xX](?P<hex>[0-9a-fA-F]+)")


_MICROCODE_NAME = re.compile(
    r"(?P<family>[0-9a-fA-F]{2})-(?P<model>[0-9a-fA-F]{2})(?:-(?P<stepping>[0-9a-fA-F]{2}))?"
)


_NUMBERS = re.compile(
    r"(?:(?P<vendor>[^/]*[a-zA-Z][^/]*)/)?(?P<family>[0-9]\w*)/(?P<model>[0-9]\w*)(?:/(?P<stepping>[0-9]\w*))?"
)


# Below this there is no Intel CPU that anybody asks about: the number was
# meant as a model ("0x8f"), not as a signature.
_LEAST_FAMILY_OF_SIGNATURE = 4


# What the emulator calls a thing, and the option that gives it.
_OPTIONS = {
    name: f"--{name}" for name in ("memory", "mapped", "vcpus", "packages", "cpu", "kernel")
} | {"page": "--at-page", "faults": "--inject"}


@contextmanager
def naming_options() -> Iterator[None]:
    """Let an error about a thing name the option that gave it.

    Raises:
        UsageError: as it was raised within, ``memory`` as ``--memory``.

    """
    try:
        yield
    except UsageError as error:
        thing, space, rest = error.what.partition(" ")
        raise UsageError(f"{_OPTIONS.get(thing, thing)}{space}{rest}", error.why) from error


_BUILDERS = re.compile(r"(?:[.+~_-][\w.+~-]{0,100})?", re.ASCII)


def parse_kernel(text: str) -> Release:
    """Return a kernel's release as ``uname -r`` has it.

    Raises:
        UsageError: it is not one.

    """
    import os

    from tdxreclaim.tables.releases import split_release

    if os.path.exists(text) or "/" in text:
        raise UsageError("--kernel", f"takes a release; give a file as --image {text}")
    release = text.removeprefix("v")
    parsed = split_release(release)
    if (
        parsed is None
        or parsed.series.major == 0
        or not release.startswith(str(parsed.series))
        or not _BUILDERS.fullmatch(parsed.rest)
    ):
        raise UsageError("--kernel", f"{text!r} is not a kernel release (6.17, 6.18.2-1.fc43)")
    return parsed


def parse_number(option: str, text: str, largest: int) -> int:
    """Return a decimal or ``0x`` number from 0 to *largest*.

    Raises:
        UsageError: it is not one.

    """
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,16}", text):
        raise UsageError(option, f"{text!r} is not a number (decimal, or hex with 0x)")
    number = int(text, 16) if text[:2] in ("0x", "0X") else int(text)
    if number > largest:
        raise UsageError(option, f"{text} is out of range: 0 to {largest} ({largest:#x})")
    return number


def parse_part(option: str, text: str) -> tuple[int, int]:
    """Return which part of how many ``3/8`` is.

    Raises:
        UsageError: it is none.

    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(option, f"{text!r} is not I/N with I from 1 to N")
    return int(match[1]), int(match[2])


def parse_vendor(option: str, text: str) -> str:
    """Return the CPUID vendor string that *text* means.

    Raises:
        UsageError: it is none.  A misspelt GenuineIntel must not pass for
            another vendor.

    """
    vendor = VENDOR_NAMES.get(text.strip().lower())
    if vendor is None:
        raise UsageError(
            option, f"{text!r} is not a CPUID vendor (GenuineIntel, AuthenticAMD, ...)"
        )
    return vendor


def parse_cpu(text: str, option: str = "--cpu") -> FakedCpu:
    """Return the CPU that *text* names: see the man page for the forms.

    Raises:
        UsageError: it names none.

    """
    text = text.strip()
    if match := _SIGNATURE.fullmatch(text):
        return _from_signature(text, int(match["hex"], 16), option)
    if match := _MICROCODE_NAME.fullmatch(text):
        family, model = int(match["family"], 16), int(match["model"], 16)
        stepping = int(match["stepping"], 16) if match["stepping"] else None
        return checked(FakedCpu(option, INTEL, family, model, stepping))
    if match := _NUMBERS.fullmatch(text):
        return checked(
            FakedCpu(
                option,
                parse_vendor(option, match["vendor"]) if match["vendor"] else INTEL,
                parse_number(option, match["family"], FAMILY_MAX),
                parse_number(option, match["model"], MODEL_MAX),
                parse_number(option, match["stepping"], STEPPING_MAX)
                if match["stepping"]
                else None,
            )
        )
    row = find_cpu_by_name(text)
    if row is None:
        known = ", ".join(cpu.short[0] for cpu in CPUS)
        raise UsageError(option, f"{text!r} is not known ({known}); {_FORMS}")
    return FakedCpu(option, *row.vfm)


def _from_signature(text: str, eax: int, option: str) -> FakedCpu:
    if eax > SIGNATURE_MAX:
        raise UsageError(option, f"{text} is longer than the 32 bits of a CPUID signature")
    family, model, stepping = decode_signature(eax)
    if family < _LEAST_FAMILY_OF_SIGNATURE:
        hint = f"; for a model write 6/{text}" if eax <= MODEL_MAX else ""
        raise UsageError(option, f"as a CPUID signature {text} is of family {family}{hint}")
    # A signature names no vendor.
    return checked(FakedCpu(option, None, family, model, stepping))


def checked(cpu: FakedCpu) -> FakedCpu:
    """Return *cpu* if a signature can say its numbers.

    Raises:
        UsageError: none can: a stepping above 15, a model above 15 in a family
            below 6.

    """
    if cpu.family is not None and cpu.model is not None:
        try:
            encode_signature(cpu.family, cpu.model, cpu.stepping or 0)
        except ValueError as error:
            raise UsageError(cpu.option, str(error)) from error
    return cpu
