"""Which finding of the catalogue a kernel line is."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from tdxreclaim.facts.evidence import printable
from tdxreclaim.tables.findings import CATALOGUE, Kind, kind_of
from tdxreclaim.tables.seamcalls import name_leaf, name_status
from tdxreclaim.triage.stacks import attribute

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tdxreclaim.facts.logs.stack import LogEvent


def _classify(event: LogEvent) -> tuple[Kind, Mapping[str, str]] | None:
    if event.stack is not None:
        where = attribute(event.stack)
        why = {"hung task": "reported as hung", "soft lockup": "in a soft lockup"}.get(
            event.stack.why, f"in {event.stack.why}"
        )
        return kind_of(where.kind), {
            "task": printable(event.stack.task),
            "pid": str(event.stack.pid),
            "why": why,
            "function": where.function,
        }
    return _match(event.text)


@lru_cache(maxsize=1024)
def _match(text: str) -> tuple[Kind, Mapping[str, str]] | None:
    """Match a message against the catalogue; a flood of one message is matched once."""
    for prefixes, pattern, kind in _MATCHERS:
        if text.startswith(prefixes) and (match := pattern.match(text)):
            return kind, _values(kind, match)
    return None


def _values(kind: Kind, match: re.Match[str]) -> dict[str, str]:
    values = {name: printable(text) for name, text in match.groupdict().items() if text}
    if kind.id == "tdx-on-in-bios":
        return {"keyids": str(int(values["last"]) - int(values["first"]))}
    if "leaf" in values:
        values["leaf"] = name_leaf(values["leaf"])
    if "status" in values:
        values["status"] = f"{values['status']} ({name_status(values['status'])})"
    return values


# A cheap look before the patterns: what the message begins with.
_FIRST_WORDS = {
    "host-platform-unsupported": ("virt/tdx: ", "kvm_intel: "),
    "host-requirement-missing": ("virt/tdx: ", "kvm_intel: "),
    "package-offline": ("kvm_intel: ", "virt/tdx: ", "TDX ", "All "),
    "tdp-mmu-needed": ("kvm_intel: ", "TDX "),
    "reclaim-failed": ("SEAMCALL", "kvm_intel: "),
    "teardown-seamcall-failed": ("SEAMCALL", "kvm_intel: "),
    "seamcall-failed": ("SEAMCALL", "kvm_intel: "),
    "hkid-leaked": ("kvm_intel: ", "tdh_"),
}


def _matcher(kind: Kind, pattern: str) -> tuple[tuple[str, ...], re.Pattern[str], Kind]:
    words = _FIRST_WORDS.get(kind.id, (kind.sample.partition(" ")[0],))
    if kind.sample.startswith("mce: "):
        words = ("mce: ", "[Hardware")
    return words, re.compile(pattern), kind


_MATCHERS = tuple(_matcher(kind, kind.pattern) for kind in CATALOGUE if kind.pattern is not None)


def match_message(text: str) -> tuple[Kind, Mapping[str, str]] | None:
    """Return the row that a kernel message matches, with what it says."""
    return _match(text)
