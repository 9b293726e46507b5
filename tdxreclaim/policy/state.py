"""How far TDX is brought up on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.facts.evidence import NOT_NEEDED, Evidence
from tdxreclaim.policy.model import HostFinding, HostState, Step
from tdxreclaim.policy.silicon import flag_of
from tdxreclaim.policy.trail import Outcome, fires, passes, try_rules
from tdxreclaim.tables.cpus import OTHER_VENDORS
from tdxreclaim.tables.errata import ERRATA

if TYPE_CHECKING:
    from tdxreclaim.facts.host import HostFacts
    from tdxreclaim.tables.errata import Erratum


def in_guest(facts: HostFacts) -> bool:
    """Whether we look from inside a guest.

    A kernel that set an erratum's flag has found TDX KeyIDs and owns them,
    whatever stands in the flags (a root partition has ``hypervisor`` too).
    """
    said = bool(facts.tdx_guest.value or facts.hypervisor.value)
    return said and not any(flag_of(facts, erratum) for erratum in ERRATA)


def has_x86_intel(facts: HostFacts) -> bool:
    """Whether a processor may be Intel's x86, the only ones with TDX."""
    vendors = {group.vendor for group in facts.groups}
    if not vendors:
        return facts.architecture in (None, "x86")
    return not vendors <= OTHER_VENDORS


def _td(facts: HostFacts) -> Outcome:
    if facts.tdx_guest.value and in_guest(facts):
        return fires("this is a TD: it runs inside TDX", [facts.tdx_guest.evidence])
    return passes("no sign of being a TD", [facts.tdx_guest.evidence])


def _vm(facts: HostFacts) -> Outcome:
    if in_guest(facts):
        return fires("this is a virtual machine", [facts.hypervisor.evidence])
    return passes("no sign of being a virtual machine", [facts.hypervisor.evidence])


def _impossible(facts: HostFacts) -> Outcome:
    if has_x86_intel(facts):
        return passes("the processors may be Intel's")
    return fires("there is no TDX on this architecture or vendor", [facts.identity])


def _initialized(facts: HostFacts) -> Outcome:
    signs = (
        (facts.kvm_parameter.value, facts.kvm_parameter.evidence, "kvm_intel has tdx on"),
        (facts.key_ids.value, facts.key_ids.evidence, "KVM offers TDX KeyIDs"),
        (facts.module_version.value, facts.module_version.evidence, "a TDX module is loaded"),
        (facts.log_ready.value, facts.log_ready.evidence, "the log has the TDX module initialized"),
    )
    found = [(evidence, sign) for value, evidence, sign in signs if value]
    if found:
        sentence = "; ".join(sign for _, sign in found)
        return fires(sentence, [evidence for evidence, _ in found])
    return passes(
        "nothing shows an initialized TDX module", _read([evidence for _, evidence, _ in signs])
    )


def _bios_enabled(facts: HostFacts) -> Outcome:
    if facts.tdx_host_platform.value:
        return fires(
            "the kernel activated TDX (tdx_host_platform); the TDX module is not known to be "
            "initialized",
            [facts.tdx_host_platform.evidence],
        )
    if facts.log_enabled.value:
        return fires("the log has TDX on in the BIOS", [facts.log_enabled.evidence])
    if facts.log_ready.value is False and facts.log_enabled.value is not False:
        return fires(
            "the log shows that bringing up the TDX module was tried, which takes TDX on in the BIOS, "
            "and failed",
            [facts.log_ready.evidence],
        )
    return passes("no tdx_host_platform, no KeyIDs in the log", _read([facts.log_enabled.evidence]))


def _off(facts: HostFacts) -> Outcome:
    if facts.log_enabled.value is False:
        return fires(
            "TDX is on in the BIOS and the kernel refused to activate it",
            [facts.log_enabled.evidence],
        )
    if facts.tdx_host_platform.value is False:
        return fires(
            "the kernel has not activated TDX: its flags have no tdx_host_platform",
            [facts.tdx_host_platform.evidence],
        )
    if facts.log_off.value:
        return fires(
            "the kernel says that this platform does not support TDX: it has TDX off",
            [facts.log_off.evidence],
        )
    return passes("the kernel's flags are not known", [facts.tdx_host_platform.evidence])


def _unknown(facts: HostFacts) -> Outcome:
    return fires("nothing tells whether TDX is active", [facts.tdx_host_platform.evidence])


def _read(evidence: list[Evidence]) -> list[Evidence]:
    return [piece for piece in evidence if piece.observed != NOT_NEEDED]


_RULES = (
    ("guest-td", _td, HostState.GUEST),
    ("guest-vm", _vm, HostState.GUEST),
    ("tdx-impossible", _impossible, HostState.OFF),
    ("tdx-initialized", _initialized, HostState.INITIALIZED),
    ("tdx-bios-enabled", _bios_enabled, HostState.BIOS_ENABLED),
    ("tdx-off", _off, HostState.OFF),
    ("tdx-unknown", _unknown, HostState.UNKNOWN),
)


STATE_RULES = tuple(rule for rule, _, _ in _RULES)


def judge_state(
    facts: HostFacts, errata: tuple[Erratum, ...]
) -> tuple[HostFinding, tuple[Step, ...]]:
    """Return the state of TDX and the rules that were tried for it; *errata* are the host's."""
    decided, steps = try_rules([(rule, test) for rule, test, _ in _RULES], facts)
    finding = HostFinding(
        state=next(state for rule, _, state in _RULES if rule == decided.rule),
        rule=decided.rule,
        because=decided.because,
        erratum_flag=_flags(facts, errata),
        module_version=_module(facts),
        origin=(decided.evidence or (facts.tdx_host_platform.evidence,))[0].origin,
    )
    return finding, steps


def _flags(facts: HostFacts, errata: tuple[Erratum, ...]) -> bool | None:
    """Whether the flags of the host's errata are set; of a host without errata, tdx_pw_mce."""
    values = [flag_of(facts, erratum) for erratum in errata] or [facts.pw_mce.value]
    if False in values:
        return False
    return None if None in values else True


def _module(facts: HostFacts) -> str | None:
    if not shows_module(facts):
        return None
    from tdxreclaim.policy.module import module_version

    told = module_version(facts)
    return told[0] if told else None


def shows_module(facts: HostFacts) -> bool:
    """Whether the version of the TDX module is told; few hosts do, and its table is large."""
    return bool(facts.module_version.value or facts.log_module.value)
