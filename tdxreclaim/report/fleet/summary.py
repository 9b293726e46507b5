"""The sentences that the formats for people share."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tdxreclaim.policy.model import Posture
from tdxreclaim.tables.kernels import FIRST_THAT_SKIPS
from tdxreclaim.units import PAGE_BYTES, format_range, format_size

if TYPE_CHECKING:
    from tdxreclaim.fleet.tally import Fleet, Group

MOST_NAMES = 20
"""Names in a sentence; of hosts at risk all are named."""


def plural(count: int, what: str) -> str:
    """Return ``1 host`` or ``1,234 hosts``."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def headline(fleet: Fleet) -> str:
    """Return the answer in a sentence or two."""
    at_risk = fleet.count(Posture.AT_RISK)
    total = plural(fleet.hosts, "host")
    if not fleet.hosts:
        return f"No host could be read: {plural(fleet.refused_count, 'source')} refused."
    if at_risk:
        verb = "is" if at_risk == 1 else "are"
        return f"{at_risk:,} of {total} {verb} AT RISK: stop starting TDs there."
    if fleet.needs_action:
        return f"None of {total} is known to be at risk, and not all is known."
    return f"None of {total} is at risk."


def names(hosts: tuple[str, ...], most: int | None = MOST_NAMES) -> str:
    """Return names in a row; what is left out is counted."""
    shown = hosts if most is None else hosts[:most]
    rest = len(hosts) - len(shown)
    return ", ".join(shown) + (f", and {rest:,} more" if rest else "")


def hosts_of(groups: tuple[Group, ...]) -> tuple[str, ...]:
    """Return the names of all hosts in *groups*, sorted."""
    return tuple(sorted(name for group in groups for name in group.names))


def missing(fleet: Fleet) -> list[tuple[str, int]]:
    """Return what is missing, by rule id, and for how many hosts; most first."""
    counts: Counter[str] = Counter()
    for group in fleet.groups:
        for rule in group.answer.missing:
            counts[rule] += len(group.names)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def needless(fleet: Fleet) -> str:
    """Return who clears needlessly and what a newer kernel would save, in a sentence."""
    groups = fleet.of(Posture.CLEARS_NEEDLESSLY)
    a_tib = fleet.clearing_a_page.times((1 << 40) // PAGE_BYTES)
    said = (
        f"{plural(fleet.count(Posture.CLEARS_NEEDLESSLY), 'host')}: move to {FIRST_THAT_SKIPS} or later. That "
        f"saves {format_range(a_tib)} for each TiB of a TD, at its shutdown (estimate)."
    )
    with_memory = sum(group.with_memory for group in groups)
    if not with_memory:
        return said
    memory = format_size(sum(group.memory_bytes for group in groups))
    return f"{said} {plural(with_memory, 'host')} of them have {memory} of memory."


def cpu(group: Group) -> str:
    """Return the CPU of a group, or that it is not known."""
    return group.answer.cpu or "not known"


def kernel(group: Group) -> str:
    """Return the kernel of a group, or that it is not known."""
    return group.answer.kernel or "not known"
