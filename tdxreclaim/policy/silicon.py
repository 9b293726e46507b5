"""Each processor of the census against the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.facts.cpu import same_cpu
from tdxreclaim.facts.evidence import NOT_GIVEN
from tdxreclaim.policy.model import Processor, Silicon, SiliconFinding, SiliconRule
from tdxreclaim.tables.cpus import INTEL, OTHER_VENDORS, Vfm, find_cpu
from tdxreclaim.tables.errata import PW_MCE, errata_of
from tdxreclaim.tables.sources import Certainty

if TYPE_CHECKING:
    from tdxreclaim.facts.cpu import CpuGroup
    from tdxreclaim.facts.host import HostFacts
    from tdxreclaim.tables.errata import Erratum

    Errata = tuple[Erratum, ...]

# Which of several processors speaks for the host.
_STRICTEST_FIRST = (Silicon.AFFECTED, Silicon.UNKNOWN, Silicon.NOT_AFFECTED, Silicon.NO_TDX)


def judge_silicon(facts: HostFacts, errata: Errata) -> SiliconFinding:
    """Return every processor judged, and the strictest as the host's own."""
    groups = facts.groups
    for seen, _ in facts.witnesses:
        if seen is not None and not any(same_cpu(group, seen) for group in groups):
            groups += (seen.sized(0),)
    processors = tuple(_judge(group, facts, errata) for group in groups)
    if processors:
        status = next(s for s in _STRICTEST_FIRST if any(p.silicon is s for p in processors))
        strictest = next(p for p in processors if p.silicon is status)
        rule, because = strictest.rule, strictest.because
    elif facts.architecture not in (None, "x86"):
        status, rule = Silicon.NO_TDX, SiliconRule.NOT_X86
        because = f"the architecture is {facts.architecture}; TDX exists on x86 alone"
    else:
        status, rule = Silicon.UNKNOWN, SiliconRule.CPU_UNREAD
        given = facts.identity.observed != NOT_GIVEN
        because = "no processor could be identified" if given else "no CPU was given"
    listed = {erratum.id for processor in processors for erratum in processor.errata}
    return SiliconFinding(
        status=status,
        rule=rule,
        because=because,
        processors=processors,
        errata=tuple(each for each in errata if each.id in listed or flag_of(facts, each)),
        origin=facts.identity.origin,
    )


def flag_of(facts: HostFacts, erratum: Erratum) -> bool | None:
    """Whether the kernel has set an erratum's flag; None if that is not known or it has none."""
    if erratum.flag == PW_MCE:
        # The kernel's log tells of this one too.
        return facts.pw_mce.value
    return None if erratum.flag is None else facts.bugs.has(erratum.flag)


def _judge(group: CpuGroup, facts: HostFacts, errata: Errata) -> Processor:
    vendor, family, model = group.vendor, group.family, group.model
    if vendor in OTHER_VENDORS:
        because = f"{vendor} is not Intel; TDX exists on Intel CPUs alone"
        return Processor(
            group=group, silicon=Silicon.NO_TDX, rule=SiliconRule.NOT_INTEL, because=because
        )
    if vendor is None or family is None or model is None:
        because = f"{group.describe()} is not a whole identity"
        return Processor(
            group=group, silicon=Silicon.UNKNOWN, rule=SiliconRule.CPU_INCOMPLETE, because=because
        )
    if vendor != INTEL:
        because = f"unknown vendor {vendor!r}"
        return Processor(
            group=group, silicon=Silicon.UNKNOWN, rule=SiliconRule.VENDOR_UNKNOWN, because=because
        )
    return _judge_intel(group, Vfm(vendor, family, model), facts, errata)


def _judge_intel(group: CpuGroup, vfm: Vfm, facts: HostFacts, errata: Errata) -> Processor:
    row = find_cpu(vfm)
    codename = row.codename if row else None
    name = f"{codename} ({group.number})" if codename else group.number

    def judged(
        silicon: Silicon, rule: str, because: str, *, note: str = "", errata: Errata = ()
    ) -> Processor:
        return Processor(
            group=group,
            codename=codename,
            silicon=silicon,
            rule=rule,
            because=because,
            errata=errata,
            note=note,
        )

    listing = errata_of(vfm, errata)
    if listing:
        because = "; ".join(f"{name} has the erratum {each.id}: {each.summary}" for each in listing)
        note = row.note if row else ""
        return judged(Silicon.AFFECTED, listing[0].id, because, note=note, errata=listing)
    if row is not None and row.tdx is Certainty.UNVERIFIED:
        note = f"TDX on it is not verified ({row.note})"
        because = f"no erratum about clearing lists {name}; {note}"
        return judged(Silicon.NOT_AFFECTED, SiliconRule.NO_ERRATUM, because, note=note)
    if row is not None and row.tdx is not None:
        because = f"{name} is a TDX CPU that no erratum about clearing lists"
        return judged(Silicon.NOT_AFFECTED, SiliconRule.NO_ERRATUM, because)
    # Of an erratum that no kernel flags its list says nothing.
    if facts.tdx_host_platform.value and all(flag_of(facts, each) is False for each in errata):
        because = (
            f"{name} is not among the TDX CPUs known here; the kernel activated TDX on it without the "
            "erratum flag, and its list of affected CPUs is closed"
        )
        return judged(Silicon.NOT_AFFECTED, SiliconRule.KERNEL_CLOSED_LIST, because)
    if facts.movdir64b.value is False:
        because = f"{name} has no MOVDIR64B, without which there is no TDX"
        return judged(Silicon.NO_TDX, SiliconRule.NO_MOVDIR64B, because)
    because = f"{name} is not among the TDX CPUs known here" + (f": {row.note}" if row else "")
    return judged(Silicon.UNKNOWN, SiliconRule.CPU_UNLISTED, because)
