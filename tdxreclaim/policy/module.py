"""What the version of the TDX module tells of the platform that it runs on.

A module's notes name its platforms: evidence of the CPU where none was read,
and a contradiction where one was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.facts.evidence import Evidence, Origin
from tdxreclaim.policy.model import Silicon, SiliconFinding
from tdxreclaim.tables.cpus import Vfm, find_cpu
from tdxreclaim.tables.errata import errata_of
from tdxreclaim.tables.modules import NOTES, find_module, platforms_of

__all__ = ["NOTES", "contradicted_by_module", "module_version", "named_platforms", "told_by_module"]

if TYPE_CHECKING:
    from tdxreclaim.facts.host import HostFacts


def module_version(facts: HostFacts) -> tuple[str, Evidence] | None:
    """Return the version of the TDX module as its release is called, from the kernel or its log."""
    for fact in (facts.module_version, facts.log_module):
        if fact.value:
            row = find_module(fact.value)
            return row.version if row else fact.value, fact.evidence
    return None


def named_platforms(facts: HostFacts) -> str:
    """Return the platforms of the module in words, empty if none is known."""
    told = module_version(facts)
    names = [_name(vfm) for vfm in platforms_of(told[0])] if told else []
    return " or ".join(names)


def told_by_module(facts: HostFacts) -> tuple[str, Evidence] | None:
    """Return what the module says of a CPU that was not read; None if nothing."""
    told = module_version(facts)
    platforms = platforms_of(told[0]) if told else ()
    if told is None or not platforms:
        return None
    affected = [errata_of(vfm) for vfm in platforms]
    ids = ", ".join(dict.fromkeys(each.id for errata in affected for each in errata))
    has = f"which have {ids}" if all(affected) else f"of which some have {ids}"
    if not ids:
        has = "which no erratum lists"
    return f"its TDX module {told[0]} is one for {named_platforms(facts)}, {has}", told[1]


def contradicted_by_module(
    facts: HostFacts, silicon: SiliconFinding
) -> tuple[str, Evidence] | None:
    """Return why CPU and TDX module cannot be of one host; None if they can."""
    told = module_version(facts)
    # A faked CPU is not the one that the module runs on.
    if told is None or facts.identity.origin is Origin.FAKED:
        return None
    version, evidence = told
    row = find_module(version)
    if row is None or not row.platforms:
        return None
    for processor in silicon.processors:
        group = processor.group
        if group.vendor is None or group.family is None or group.model is None:
            continue
        vfm = Vfm(group.vendor, group.family, group.model)
        if vfm not in row.platforms and processor.silicon is not Silicon.NO_TDX:
            made = f"TDX module {version} is made for {named_platforms(facts)}"
            return f"{made}, and the CPU is {_name(vfm)}: not the facts of one host", evidence
    return None


def _name(vfm: Vfm) -> str:
    row = find_cpu(vfm)
    return row.codename if row else str(vfm)
