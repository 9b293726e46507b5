"""What follows for this host, and what an operator can do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from tdxreclaim.policy.model import (
    HostFinding,
    HostState,
    KernelFinding,
    Posture,
    Silicon,
    SiliconFinding,
    Verdict,
)
from tdxreclaim.tables.kernels import KERNELS, Clearing, Kexec, upstream_version
from tdxreclaim.tables.sources import Certainty

if TYPE_CHECKING:
    from tdxreclaim.facts.host import HostFacts

_SKIPPING = next(row for row in KERNELS if row.clearing is Clearing.ON_ERRATUM)


_CLEARS_ALWAYS = next(row for row in KERNELS if row.clearing is Clearing.ALWAYS)


# What the erratum-only clearing may save, with where the figure comes from.
# Source: facts on published shutdown times; the clear at 1.8 to 2.0 us a 4 KiB
# page is inferred, the share is derived from it.
_SAVING = (
    "In the order that every release uses this takes about 4 to 13 % off a shutdown (derived from "
    "published times; not measured here)."
)


def judge_posture(
    verdict: Verdict, host: HostFinding, kernel: KernelFinding
) -> tuple[Posture, str]:
    """Return what follows from verdict, TDX state and kernel, in a word and a sentence."""
    match verdict:
        case Verdict.NOT_APPLICABLE:
            return Posture.NOT_APPLICABLE, "there are no TDX pages to reclaim here"
        case Verdict.UNDETERMINED:
            return Posture.UNKNOWN, "whether clearing is needed is not known"
        case Verdict.CLEAR_REQUIRED | Verdict.CLEAR_NOT_REQUIRED:
            pass
        case _:
            assert_never(verdict)
    if host.state is HostState.OFF and not host.erratum_flag:
        return Posture.IDLE, "TDX is not active, so no private page can exist under this kernel"
    if kernel.clearing is Clearing.NO_TDX_HOST:
        return Posture.IDLE, "this kernel cannot run TDs, so it has no private page to reclaim"
    if verdict is Verdict.CLEAR_REQUIRED:
        return _when_required(host, kernel)
    return _when_not_required(kernel)


def _when_required(host: HostFinding, kernel: KernelFinding) -> tuple[Posture, str]:
    match kernel.clearing:
        case Clearing.ALWAYS:
            return Posture.CLEARS_AS_REQUIRED, "the kernel clears on every CPU, this one included"
        case Clearing.ON_ERRATUM if host.erratum_flag:
            return Posture.CLEARS_AS_REQUIRED, "the kernel has set tdx_pw_mce, and clears for it"
        case Clearing.ON_ERRATUM if host.erratum_flag is None:
            return (
                Posture.CLEARS_AS_REQUIRED,
                "the kernel sets tdx_pw_mce on this CPU once TDX is active, and clears for it",
            )
        case Clearing.ON_ERRATUM if host.state in (HostState.BIOS_ENABLED, HostState.INITIALIZED):
            return (
                Posture.AT_RISK,
                "TDX is active, the kernel clears only with tdx_pw_mce set, and it is not set",
            )
        case Clearing.ON_ERRATUM:
            return Posture.UNKNOWN, "tdx_pw_mce is not set, and whether TDX is active is not known"
        case _:
            return Posture.UNKNOWN, "what the kernel does with reclaimed pages is not known"


def _when_not_required(kernel: KernelFinding) -> tuple[Posture, str]:
    match kernel.clearing:
        case Clearing.ALWAYS:
            return (
                Posture.CLEARS_NEEDLESSLY,
                "the kernel clears on every CPU, and this one does not need it",
            )
        case Clearing.ON_ERRATUM:
            return Posture.SKIPS_SAFELY, "the kernel does not clear on this CPU, and need not"
        case _:
            return Posture.UNKNOWN, "what the kernel does with reclaimed pages is not known"


def advise(
    verdict: Verdict,
    rule: str,
    posture: Posture,
    host: HostFinding,
    kernel: KernelFinding,
) -> tuple[str, ...]:
    """Return what to do, most important first; empty if there is nothing."""
    advice: list[str] = []
    match posture:
        case Posture.AT_RISK:
            advice.append(
                "Start no TD here and reuse no page that one had until a kernel runs that clears: "
                "one that shows the erratum's flag under bugs in /proc/cpuinfo, or one that clears "
                f"on every CPU ({_CLEARS_ALWAYS.first}, {_CLEARS_ALWAYS.last})."
            )
        case Posture.CLEARS_AS_REQUIRED:
            advice.append(
                "Leave the clearing alone: no kernel can make it unnecessary on this CPU."
            )
        case Posture.CLEARS_NEEDLESSLY:
            advice.append(f"Move to {_SKIPPING.first} or later. {_SAVING}")
        case Posture.SKIPS_SAFELY:
            advice.append("Nothing. If a TD is slow to shut down here, clearing is not the reason.")
        case Posture.IDLE:
            advice.append(_idle_advice(verdict))
        case Posture.UNKNOWN:
            advice.extend(_unknown_advice(verdict, rule, host, kernel))
        case Posture.NOT_APPLICABLE:
            if host.state is HostState.GUEST:
                advice.append(
                    "Run this on the host, or on a capture of it (--from): a guest cannot tell "
                    "which CPU its host has."
                )
        case _:
            assert_never(posture)
    advice.extend(_kexec_advice(kernel))
    return tuple(advice)


def _idle_advice(verdict: Verdict) -> str:
    if verdict is Verdict.CLEAR_REQUIRED:
        return (
            "Nothing while TDX is off. Once it is on, this CPU needs the clearing, which upstream "
            f"{_CLEARS_ALWAYS.first} to {KERNELS[-1].last} does here."
        )
    return (
        f"Nothing while TDX is off. For TDX choose {_SKIPPING.first} or later, which does not "
        "clear on this CPU."
    )


def _unknown_advice(
    verdict: Verdict, rule: str, host: HostFinding, kernel: KernelFinding
) -> list[str]:
    if verdict is Verdict.UNDETERMINED:
        what = {
            "cpu-unlisted": (
                "give the host's whole /proc/cpuinfo or a sosreport (--from), whose flags and "
                "bugs settle it"
            ),
            "vendors-differ": "take the capture again: one machine has one vendor",
        }.get(rule, "give /proc/cpuinfo or a sosreport of the host (--from)")
        return [f"Clear until it is known. To settle it, {what}."]
    if kernel.clearing is not Clearing.UNKNOWN:
        return ["See whether TDX is active on the host: tdx_host_platform among its flags."]
    old, new = _CLEARS_ALWAYS.symbols[0], _SKIPPING.symbols
    known = (
        f"Look in /proc/kallsyms (no root needed): with {old} the kernel clears on every CPU, "
        f"with {' or '.join(new)} on affected CPUs alone."
    )
    if verdict is Verdict.CLEAR_REQUIRED and host.erratum_flag:
        known += " Here both clear."
    return [known]


def _kexec_advice(kernel: KernelFinding) -> list[str]:
    match kernel.kexec:
        case Kexec.REFUSED:
            return [
                (
                    "Take crash dumps another way, or turn TDX off in the BIOS where a dump matters "
                    "more."
                )
            ]
        case Kexec.AFTER_DISABLE:
            return [
                (
                    "Before you rely on kdump, find out whether the TDX module has TDH.SYS.DISABLE: "
                    "without it poison may be left after a kexec."
                )
            ]
        case _:
            return []


def warn(
    facts: HostFacts,
    silicon: SiliconFinding,
    host: HostFinding,
    kernel: KernelFinding,
    *,
    release_disagrees: bool,
) -> tuple[str, ...]:
    """Return what does not fit together in the facts, or limits the answer."""
    warnings: list[str] = []
    affected = silicon.status is Silicon.AFFECTED
    if facts.pw_mce.value and not affected:
        warnings.append(
            "The kernel and the table disagree: the kernel has set tdx_pw_mce on a CPU that "
            "the table does not list as affected. The kernel is believed."
        )
    active = host.state in (HostState.BIOS_ENABLED, HostState.INITIALIZED)
    if affected and facts.pw_mce.value is False and active:
        warnings.append(
            "The kernel and the table disagree: TDX is active on an affected CPU and the kernel "
            "has not set tdx_pw_mce. The table is believed."
        )
    if facts.pw_mce.value and (facts.hypervisor.value or facts.tdx_guest.value):
        warnings.append(
            "The flags say guest, yet the kernel has set tdx_pw_mce, which only an owner of TDX "
            "KeyIDs does: judged as a host."
        )
    if host.state is HostState.GUEST and silicon.status is not Silicon.NO_TDX:
        warnings.append(
            "The CPU shown in a guest is what the hypervisor chose to show; it may be another."
        )
    told = host.state not in (HostState.OFF, HostState.UNKNOWN)
    warnings.extend(
        f"{p.codename}: {p.note}."
        for p in silicon.processors
        if p.note and not (told and p.silicon is Silicon.AFFECTED)
    )
    if any(p.rule == "kernel-closed-list" for p in silicon.processors):
        warnings.append(
            "This rests on the kernel's list alone, and a kernel that is older than the CPU "
            "cannot have it in its list: use a kernel that was made for this CPU."
        )
    if kernel.rule == "release-belied":
        warnings.append(
            "The kernel's release and the host's state disagree: by its release it cannot run "
            "TDs, and TDX is on in KVM. The state is believed."
        )
    whole = [p.group for p in silicon.processors if p.group.identified]
    if len({(group.vendor, group.family, group.model) for group in whole}) > 1:
        shown = "; ".join(group.describe() for group in whole)
        warnings.append(f"The processors disagree, and the strictest counts: {shown}.")
    warnings.extend(
        f"No cross-check: {evidence.observed}." for value, evidence in facts.witnesses if not value
    )
    if facts.tdx_host_platform.value is False and active:
        warnings.append(
            "The flags have no tdx_host_platform, yet TDX is active: an out-of-tree kernel, or "
            "a capture put together from several boots."
        )
    if release_disagrees:
        warnings.append(
            f"The kernel calls itself {kernel.release}, and its symbols are of another "
            "generation. The symbols are believed."
        )
    elif kernel.rule == "symbols-clear-on-erratum" and kernel.certainty is Certainty.INFERRED:
        warnings.extend(_partial_backport(facts))
    return tuple(warnings)


def _partial_backport(facts: HostFacts) -> list[str]:
    if facts.release.value is None or upstream_version(facts.release.value):
        return []
    return [
        (
            "A distribution can have taken the functions' new names without the check of the flag; "
            "then this kernel clears on every CPU. Only its source or a disassembly tells."
        )
    ]
