"""What follows for this host, and what an operator can do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from tdxreclaim.facts.evidence import WHOLE, Origin, Part
from tdxreclaim.policy.model import (
    HostFinding,
    HostState,
    KernelFinding,
    Posture,
    Verdict,
    VerdictRule,
)
from tdxreclaim.record import Record
from tdxreclaim.tables.kernels import FIRST_THAT_SKIPS, KERNELS, RUNS_TDS, Clearing, Kexec

if TYPE_CHECKING:
    from tdxreclaim.facts.evidence import Coverage, Gap
    from tdxreclaim.facts.host import HostFacts
    from tdxreclaim.tables.errata import Erratum

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
    verdict: Verdict,
    host: HostFinding,
    kernel: KernelFinding,
    errata: tuple[Erratum, ...],
    coverage: Coverage = WHOLE,
) -> tuple[Posture, str]:
    """Return what follows from verdict, TDX state and kernel, in a word and a sentence.

    *errata* are those whose flag is not set, or all of the host's.  What could not be read, and would outrank what was, makes it unknown.
    """
    posture, because = _posture(verdict, host, kernel, errata)
    if posture in (Posture.NOT_APPLICABLE, Posture.AT_RISK, Posture.UNKNOWN):
        return posture, because
    unread = _unread(host, kernel, coverage)
    if unread:
        return Posture.UNKNOWN, f"{unread[0].place} was not read ({unread[0].why})"
    return posture, because


def _unread(host: HostFinding, kernel: KernelFinding, coverage: Coverage) -> tuple[Gap, ...]:
    """Return the gaps that leave open what the posture rests on."""
    state = () if host.state is HostState.INITIALIZED else coverage.of(Part.STATE)
    told = kernel.rule.by_content
    idle = host.state is HostState.OFF
    return state + (() if told or idle else coverage.of(Part.KERNEL))


def _posture(
    verdict: Verdict, host: HostFinding, kernel: KernelFinding, errata: tuple[Erratum, ...]
) -> tuple[Posture, str]:
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
        return _when_required(host, kernel, errata)
    return _when_not_required(kernel)


def _when_required(
    host: HostFinding, kernel: KernelFinding, errata: tuple[Erratum, ...]
) -> tuple[Posture, str]:
    flags = _names(errata)
    match kernel.clearing:
        case Clearing.ALWAYS:
            return Posture.CLEARS_AS_REQUIRED, "the kernel clears on every CPU, this one included"
        case Clearing.ON_ERRATUM if kernel.ignores:
            names = _names(kernel.ignores)
            if host.active:
                return Posture.AT_RISK, f"TDX is active, and the kernel does not clear for {names}"
            return Posture.UNKNOWN, (
                f"the kernel does not clear for {names}, and whether TDX is active is not known"
            )
        case Clearing.ON_ERRATUM if host.erratum_flag:
            return Posture.CLEARS_AS_REQUIRED, f"the kernel has set {flags}, and clears for it"
        case Clearing.ON_ERRATUM if host.erratum_flag is None:
            return (
                Posture.CLEARS_AS_REQUIRED,
                f"the kernel sets {flags} on this CPU once TDX is active, and clears for it",
            )
        case Clearing.ON_ERRATUM if host.active:
            return (
                Posture.AT_RISK,
                f"TDX is active, the kernel clears only with {flags} set, and it is not set",
            )
        case Clearing.ON_ERRATUM:
            return Posture.UNKNOWN, f"{flags} is not set, and whether TDX is active is not known"
        case _:
            return Posture.UNKNOWN, "what the kernel does with reclaimed pages is not known"


def _names(errata: tuple[Erratum, ...]) -> str:
    return ", ".join(erratum.id for erratum in errata)


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


# Where flags may be forced, what settles an unlisted CPU is another.
FLAGS_FORCED = "flags-forced"


class Situation(Record):
    """What advice rests on; ``rule`` is the one whose advice settles an open verdict."""

    facts: HostFacts
    verdict: Verdict
    rule: str
    posture: Posture
    host: HostFinding
    kernel: KernelFinding
    errata: tuple[Erratum, ...]
    next_kernel: KernelFinding | None
    """The newest installed kernel, where it does not run and does other than the one that runs."""

    def installed(self, clearing: Clearing) -> str | None:
        """Return the release of the newest installed kernel, if that is what it does."""
        following = self.next_kernel
        return following.release if following and following.clearing is clearing else None


def advise(on: Situation) -> tuple[str, ...]:
    """Return what to do, most important first; empty if there is nothing."""
    host, kernel = on.host, on.kernel
    advice: list[str] = []
    match on.posture:
        case Posture.AT_RISK:
            advice.append(
                "Start no TD and reuse no TD's page until a kernel runs that clears: "
                f"{_that_clears(on)}."
            )
        case Posture.CLEARS_AS_REQUIRED:
            advice.append("Leave the clearing alone: on this CPU every kernel needs it.")
        case Posture.CLEARS_NEEDLESSLY:
            advice.append(f"{_to_skip(on)} {_SAVING}")
        case Posture.SKIPS_SAFELY:
            advice.append("Nothing. If a TD is slow to shut down here, clearing is not the reason.")
        case Posture.IDLE:
            advice.append(_idle_advice(on))
        case Posture.UNKNOWN:
            advice.append(_unknown_advice(on))
        case Posture.NOT_APPLICABLE:
            if host.state is HostState.GUEST:
                advice.append(
                    "Run this on the host, or on a capture of it (--from): a guest cannot tell "
                    "which CPU its host has."
                )
        case _:
            assert_never(on.posture)
    advice.extend(_kexec_advice(host, kernel))
    return tuple(advice)


def _to_skip(on: Situation) -> str:
    release = on.installed(Clearing.ON_ERRATUM)
    if release is None:
        return f"Move to {FIRST_THAT_SKIPS} or later."
    return f"Reboot into {release}, which is installed and clears on affected CPUs alone."


def _that_clears(on: Situation) -> str:
    release = on.installed(Clearing.ALWAYS)
    if release is not None:
        return f"reboot into {release}, which is installed and clears on every CPU"
    always = f"one that clears on every CPU ({_CLEARS_ALWAYS.span})"
    if on.kernel.ignores:
        return f"{always}; none is known that clears for {_names(on.kernel.ignores)} alone"
    return f"one that sets the erratum's flag, or {_CLEARS_ALWAYS.span}"


def _idle_advice(on: Situation) -> str:
    runs_none = on.kernel.clearing is Clearing.NO_TDX_HOST
    if on.verdict is Verdict.CLEAR_NOT_REQUIRED:
        nothing = "this kernel runs no TD" if runs_none else "while TDX is off"
        upstream = "upstream " if runs_none else ""
        release = on.installed(Clearing.ON_ERRATUM)
        choose = f"choose {upstream}{FIRST_THAT_SKIPS} or later, which does"
        if release is not None:
            choose = f"reboot into {release}, which is installed and does"
        elif on.kernel.clearing is Clearing.ON_ERRATUM:
            return f"Nothing {nothing}. With TDX on this kernel does not clear on this CPU."
        return (
            f"Nothing{':' if runs_none else ''} {nothing}. For TDX {choose} not clear on this CPU."
        )
    told = "Nothing while TDX is off. Once it is on, this CPU needs the clearing"
    ignored = tuple(each for each in on.errata if not _always_honoured(each))
    if ignored:
        return (
            f"{told}, which only {_CLEARS_ALWAYS.span} do here, on every CPU; no release is known "
            f"that clears for {_names(ignored)}."
        )
    return f"{told}, which upstream {RUNS_TDS[0].first} to {RUNS_TDS[-1].last} does here."


def _always_honoured(erratum: Erratum) -> bool:
    """Whether every release that clears for a flag at all clears for this one's."""
    return erratum.honoured_since is not None and erratum.honoured_since <= FIRST_THAT_SKIPS


def _unknown_advice(on: Situation) -> str:
    if on.verdict is Verdict.UNDETERMINED:
        return f"Clear until it is known. To settle it, {_settling(on)}."
    if on.kernel.ignores:
        return f"Start no TD here until a kernel runs that clears: {_that_clears(on)}."
    if on.kernel.clearing is Clearing.UNKNOWN:
        return _kernel_advice(on)
    unread = _unread(on.host, on.kernel, on.facts.coverage)
    if unread:
        return f"Let {unread[0].place} be read (as root, or in another capture), and ask again."
    return "See whether TDX is active on the host: tdx_host_platform among its flags."


def _settling(on: Situation) -> str:
    live = on.facts.identity.origin is Origin.LIVE
    flags = on.facts.tdx_host_platform.value, on.facts.pw_mce.value
    if on.rule == VerdictRule.CPU_UNLISTED and None not in flags:
        # A whole /proc/cpuinfo is what was read.
        return (
            f"boot upstream {RUNS_TDS[0].first} or later with TDX on: it sets tdx_host_platform, and "
            "tdx_pw_mce where it clears"
        )
    if on.rule == VerdictRule.EVIDENCE_INCOMPLETE and live:
        return "let /proc/cpuinfo be read here, or give a whole one of this host (--from)"
    return {
        VerdictRule.CPU_UNLISTED: (
            "give the host's whole /proc/cpuinfo or a sosreport (--from), whose flags and bugs "
            "settle it"
        ),
        VerdictRule.EVIDENCE_INCOMPLETE: (
            "capture the host again (tdxreclaim capture, or cat /proc/cpuinfo > cpuinfo.txt) and "
            "give that alone"
        ),
        FLAGS_FORCED: (
            "boot without setcpuid= and clearcpuid=, or give a CPUID dump of the host (cpuid -r)"
        ),
        VerdictRule.VENDORS_DIFFER: "take the capture again: one machine has one vendor",
    }.get(on.rule, "give /proc/cpuinfo or a sosreport of the host (--from)")


def _kernel_advice(on: Situation) -> str:
    if on.facts.symbols.value is not None and not on.facts.symbols.value.tells:
        release = on.facts.release.value or "RELEASE"
        return (
            "Its symbols were read and do not tell. Load kvm_intel and ask again, or give the "
            f"kernel's files: --image /usr/lib/modules/{release}."
        )
    old, new = _CLEARS_ALWAYS.symbols[0], _SKIPPING.symbols
    known = (
        f"Look in /proc/kallsyms (no root needed): with {old} the kernel clears on every CPU, "
        f"with {' or '.join(new)} on affected CPUs alone."
    )
    if on.verdict is Verdict.CLEAR_REQUIRED and on.host.erratum_flag:
        known += " Here both clear."
    return known


def _kexec_advice(host: HostFinding, kernel: KernelFinding) -> list[str]:
    match kernel.kexec:
        case Kexec.REFUSED:
            return [
                (
                    "Take crash dumps another way, or turn TDX off in the BIOS where a dump matters "
                    "more."
                )
            ]
        case Kexec.AFTER_DISABLE if _has_disable(host):
            return []
        case Kexec.AFTER_DISABLE if _has_disable(host) is False:
            lacks = f"TDX module {host.module_version} has no TDH.SYS.DISABLE"
            return [f"Do not count on kdump: {lacks}, so that a kexec leaves poison behind."]
        case Kexec.AFTER_DISABLE:
            return [
                (
                    "Before you rely on kdump, find out whether the TDX module has TDH.SYS.DISABLE: "
                    "without it poison may be left after a kexec."
                )
            ]
        case _:
            return []


def _has_disable(host: HostFinding) -> bool | None:
    """Whether the TDX module has TDH.SYS.DISABLE, ``None`` if that is not known."""
    if host.module_version is None:
        return None
    from tdxreclaim.tables.modules import find_module

    row = find_module(host.module_version)
    return None if row is None else row.sys_disable
