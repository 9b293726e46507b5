"""Rows of an inventory: host, vendor, family, model, stepping, kernel, memory.

An inventory says what somebody wrote down; its answers rest on that alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from tdxreclaim.errors import MalformedInputError, UsageError
from tdxreclaim.facts.cpu import FAMILY_MAX, MODEL_MAX, STEPPING_MAX, encode_signature
from tdxreclaim.facts.evidence import flat, printable
from tdxreclaim.facts.fake import FakedCpu, fake_cpu, fake_kernel, nothing_known
from tdxreclaim.facts.sources.rows import HOST_COLUMNS
from tdxreclaim.fleet.answer import answer_of
from tdxreclaim.policy.decide import decide
from tdxreclaim.record import Record
from tdxreclaim.tables.cpus import INTEL, VENDOR_NAMES
from tdxreclaim.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tdxreclaim.fleet.answer import Answer

_NAMES = {
    "host": HOST_COLUMNS,
    "vendor": ("vendor", "vendor_id", "cpu_vendor"),
    "family": ("family", "cpu_family"),
    "model": ("model", "cpu_model"),
    "stepping": ("stepping", "cpu_stepping"),
    "kernel": ("kernel", "kernel_release", "release"),
    "memory": ("memory", "memory_bytes", "mem", "ram"),
}

_LONGEST = 200


class Columns(Record):
    """Where each value stands in a row; ``None``: nowhere."""

    host: int
    vendor: int | None
    family: int | None
    model: int
    stepping: int | None
    kernel: int | None
    memory: int | None


def find_columns(titles: Iterable[str], what: str) -> Columns:
    """Return where the columns are; *titles* are as `column` gives them.

    Raises:
        MalformedInputError: there is no host, or no model.

    """
    at = {title: number for number, title in reversed(list(enumerate(titles)))}
    found = {
        name: next((at[title] for title in names if title in at), None)
        for name, names in _NAMES.items()
    }
    for name in ("host", "model"):
        if found[name] is None:
            raise MalformedInputError(what, f"no column {' or '.join(_NAMES[name])}")
    return Columns(**found)  # type: ignore[arg-type]


def read_columns(row: Mapping[str, object]) -> list[str]:
    """Return the values of a JSON row in the order of `Columns`."""
    return [
        next((str(row[title]) for title in names if row.get(title) is not None), "")
        for names in _NAMES.values()
    ]


@lru_cache(maxsize=1 << 16)
def answer(vendor: str, family: str, model: str, stepping: str, kernel: str) -> Answer:
    """Return the answer for a CPU and a kernel as an inventory writes them.

    Raises:
        MalformedInputError: a value is no such number or vendor.

    """
    name = vendor.strip().lower()
    known = VENDOR_NAMES.get(name, INTEL if not name else None)
    if known is None:
        raise MalformedInputError("vendor", f"{flat(vendor[:_LONGEST])!r} is not a CPUID vendor")
    cpu = FakedCpu(
        "inventory",
        known,
        _number("family", family, FAMILY_MAX),
        _number("model", model, MODEL_MAX),
        _number("stepping", stepping, STEPPING_MAX) if stepping.strip() else None,
    )
    try:
        encode_signature(cpu.family or 0, cpu.model or 0, cpu.stepping or 0)
    except ValueError as error:
        raise MalformedInputError("model", str(error)) from error
    facts = fake_cpu(nothing_known(), cpu)
    if kernel.strip():
        facts = fake_kernel(facts, printable(kernel))
    return answer_of(decide(facts))


def _number(name: str, text: str, largest: int) -> int:
    stripped = text.strip()
    try:
        value = int(stripped, 16 if stripped[:2].lower() == "0x" else 10)
    except ValueError:
        value = -1
    if not stripped.isascii() or not 0 <= value <= largest:
        shown = repr(flat(stripped[:_LONGEST])) if stripped else "empty"
        raise MalformedInputError(name, f"{shown}: must be 0 to {largest} (decimal, or 0x)")
    return value


@lru_cache(maxsize=1 << 16)
def memory(text: str) -> int | None:
    """Return a size in bytes, ``None`` where there is none.

    Raises:
        MalformedInputError: it is no size.

    """
    if not text.strip():
        return None
    try:
        return parse_size("memory", text)
    except UsageError as error:
        raise MalformedInputError(error.what, error.why) from error
