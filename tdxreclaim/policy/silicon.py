"""Each processor of the census against the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.policy.model import Processor, Silicon, SiliconFinding
from tdxreclaim.tables.cpus import INTEL, OTHER_VENDORS, Vfm, find_cpu
from tdxreclaim.tables.errata import errata_of
from tdxreclaim.tables.sources import Certainty

if TYPE_CHECKING:
    from tdxreclaim.facts.cpu import CpuGroup
    from tdxreclaim.facts.host import HostFacts

# Which of several processors speaks for the host.
_STRICTEST_FIRST = (Silicon.AFFECTED, Silicon.UNKNOWN, Silicon.NOT_AFFECTED, Silicon.NO_TDX)


def judge_silicon(facts: HostFacts) -> SiliconFinding:
    """Return every processor judged, and the strictest as the host's own."""
    groups = facts.groups
    for seen, _ in facts.witnesses:
        if seen is not None and not any(same_cpu(group, seen) for group in groups):
            groups += (seen._replace(size=0),)
    processors = tuple(_judge(group, facts) for group in groups)
    if processors:
        status = next(s for s in _STRICTEST_FIRST if any(p.silicon is s for p in processors))
        speaker = next(p for p in processors if p.silicon is status)
        rule, because = speaker.rule, speaker.because
    elif facts.architecture not in (None, "x86"):
        status, rule = Silicon.NO_TDX, "not-x86"
        because = f"the architecture is {facts.architecture}; TDX exists on x86 alone"
    else:
        status, rule = Silicon.UNKNOWN, "cpu-unread"
        because = "no processor could be identified"
    return SiliconFinding(status, rule, because, processors, facts.identity.origin)


def same_cpu(one: CpuGroup, other: CpuGroup) -> bool:
    """Whether two sources mean the same CPU; what one of them does not say is no contradiction."""
    pairs = ((one.vendor, other.vendor), (one.family, other.family), (one.model, other.model))
    return all(a is None or b is None or a == b for a, b in pairs)


def _judge(group: CpuGroup, facts: HostFacts) -> Processor:
    vendor, family, model = group.vendor, group.family, group.model
    if vendor in OTHER_VENDORS:
        because = f"{vendor} is not Intel; TDX exists on Intel CPUs alone"
        return Processor(group, None, Silicon.NO_TDX, "not-intel", because)
    if vendor is None or family is None or model is None:
        because = f"{group.describe()} is not a whole identity"
        return Processor(group, None, Silicon.UNKNOWN, "cpu-incomplete", because)
    if vendor != INTEL:
        because = f"{vendor!r} is no vendor that is known"
        return Processor(group, None, Silicon.UNKNOWN, "vendor-unknown", because)

    vfm = Vfm(vendor, family, model)
    row = find_cpu(vfm)
    codename = row.codename if row else None
    name = f"{codename} ({group.number})" if codename else group.number
    for erratum in errata_of(vfm):
        because = f"{name} has the erratum {erratum.id}: {erratum.summary}"
        note = row.note if row else ""
        return Processor(group, codename, Silicon.AFFECTED, erratum.id, because, note)
    if row is not None and row.tdx is not None:
        because = f"{name} is a TDX CPU that no erratum about clearing lists"
        if row.tdx is Certainty.UNVERIFIED:
            because = (
                f"no erratum about clearing lists {name}; TDX on it is not verified ({row.note})"
            )
        note = f"TDX on it is not verified ({row.note})" if row.tdx is Certainty.UNVERIFIED else ""
        return Processor(group, codename, Silicon.NOT_AFFECTED, "no-erratum", because, note)
    if facts.tdx_host_platform.value and facts.pw_mce.value is False:
        because = (
            f"{name} is not among the TDX CPUs known here; the kernel activated TDX on it without the "
            "erratum flag, and its list of affected CPUs is closed"
        )
        return Processor(group, codename, Silicon.NOT_AFFECTED, "kernel-closed-list", because)
    if facts.movdir64b.value is False:
        because = f"{name} has no MOVDIR64B, without which there is no TDX"
        return Processor(group, codename, Silicon.NO_TDX, "no-movdir64b", because)
    because = f"{name} is not among the TDX CPUs known here" + (f": {row.note}" if row else "")
    return Processor(group, codename, Silicon.UNKNOWN, "cpu-unlisted", because)
