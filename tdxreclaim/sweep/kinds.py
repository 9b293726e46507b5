"""What a sweep can vary, by the names that `simulate` and `drain` use: a row each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tdxreclaim.costs.calibration import CostCause
from tdxreclaim.costs.drain import MOST_TDS
from tdxreclaim.engine.faults import MAX_INJECTED
from tdxreclaim.engine.plan import ClearWhen, Order
from tdxreclaim.engine.shape import MAX_VCPUS
from tdxreclaim.units import PAGE_BYTES, Share, parse_share, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

Value = int | str | Share | None

OPEN = "open"
"""No cause is settled: a time covers all that the calibration leaves open."""

KERNEL = "kernel"
"""It clears when the kernel does."""

ALL = "all"
"""All TDs at once."""

_MOST_CPUS = 1 << 16
_LONGEST_WORD = 120


class Taken(StrEnum):
    """How a trial takes the ranges of its calibration."""

    RANGE = "range"
    LOW = "low"
    LIKELY = "likely"
    HIGH = "high"
    DRAWN_TOGETHER = "drawn-together"
    """One draw a trial, the same part of the range of every step."""
    DRAWN_APART = "drawn-apart"
    """One draw for each step: some are cheap where others are dear."""

    @property
    def draws(self) -> bool:
        """Whether a trial draws its costs."""
        return self in (Taken.DRAWN_TOGETHER, Taken.DRAWN_APART)


class WrongValueError(Exception):
    """What a value should have been."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What an axis takes."""

    read: Callable[[object], Value]
    """From what TOML has; raises `WrongValueError` or UsageError."""
    default: Value = None
    unit: int | None = None
    """Of what can be a range: values are so many of the numbers that are drawn; None: it cannot."""
    drain: bool = False
    """Whether only `drain` has it."""

    def number(self, value: Value) -> int:
        """Return a value as a number of its unit.

        Raises:
            WrongValueError: it is none.
        """
        if self.unit is None:
            raise WrongValueError("expected a list of values, not a range")
        if isinstance(value, Share):
            if value.size_bytes is not None:
                raise WrongValueError('expected a percentage ("25%")')
            return value.thousandths
        if not isinstance(value, int):
            raise WrongValueError("expected a number")
        return value // self.unit

    def value(self, number: int) -> Value:
        """Return the value of so many units."""
        if isinstance(self.default, Share):
            return Share(None, number)
        return number * (self.unit or 1)


def _size(value: object) -> int:
    if not isinstance(value, str):
        raise WrongValueError('expected a size ("400GiB")')
    return parse_size("", value)


def _share(value: object) -> Share:
    if not isinstance(value, str):
        raise WrongValueError('expected a size or a percentage ("64GiB", "25%")')
    return parse_share("", value)


def _number(least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise WrongValueError(f"expected an integer from {least} to {most}")
        return value

    return read


def _number_or_all(value: object) -> int | str:
    return ALL if value == ALL else _number(1, MOST_TDS)(value)


def _truth(value: object) -> int:
    if not isinstance(value, bool):
        raise WrongValueError("expected true or false")
    return value


def _word(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise WrongValueError(f"expected one of {', '.join(words)}")
        return value

    return read


def _name(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_WORD:
        raise WrongValueError(f"expected a name of up to {_LONGEST_WORD} characters")
    return value


_FAULTS = Kind(read=_number(0, MAX_INJECTED), default=0, unit=1)

KINDS = {
    "memory": Kind(read=_size, unit=PAGE_BYTES),
    "mapped": Kind(read=_share, default=Share(None), unit=1),
    "vcpus": Kind(read=_number(1, MAX_VCPUS), unit=1),
    "cpu": Kind(read=_name),
    "kernel": Kind(read=_name),
    "order": Kind(read=_word(*Order), default=Order.UPSTREAM.value),
    "clear": Kind(read=_word(KERNEL, *ClearWhen), default=KERNEL),
    "cause": Kind(read=_word(OPEN, CostCause.VCPUS, CostCause.MEMORY), default=OPEN),
    "cost": Kind(read=_word(*Taken), default=Taken.RANGE.value),
    "busy": _FAULTS,
    "reclaim-fails": _FAULTS,
    "fatal": Kind(read=_truth, default=0),
    "tds": Kind(read=_number(1, MOST_TDS), unit=1, drain=True),
    "at-once": Kind(read=_number_or_all, default=ALL, unit=1, drain=True),
    "cpus": Kind(read=_number(1, _MOST_CPUS), unit=1, drain=True),
    "bandwidth": Kind(read=_size, unit=PAGE_BYTES, drain=True),
}
"""What can be an axis.  The place of one is that of its draw: a new one comes last."""

NO_AXIS = {
    "poison-hardware": "changes no time",
    "poison-integrity": "changes no time",
    "partial-writes": "changes no time",
    "packages": "changes no time",
}
"""Options of `simulate` that cannot be an axis, and why."""
