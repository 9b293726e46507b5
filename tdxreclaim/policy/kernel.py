"""What the running kernel does with reclaimed pages, and with kexec."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tdxreclaim.facts.evidence import NOT_NEEDED, Evidence
from tdxreclaim.policy.model import HostState, KernelFinding, SiliconFinding, Step, Verdict
from tdxreclaim.policy.silicon import flag_of
from tdxreclaim.policy.trail import Outcome, fires, passes, try_rules
from tdxreclaim.tables.kernels import (
    KERNELS,
    Clearing,
    KernelRow,
    Kexec,
    find_kernel,
    upstream_version,
)
from tdxreclaim.tables.sources import Certainty

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.facts.host import HostFacts
    from tdxreclaim.facts.kernel import Symbol
    from tdxreclaim.policy.image import ImageFinding
    from tdxreclaim.tables.errata import Erratum

# The clear that looks at no erratum flag, and the one that does.
_OLD = ("tdx_clear_page", "reset_tdx_pages")


_NEW = ("tdx_quirk_reset_page", "tdx_quirk_reset_paddr")


def _row(facts: HostFacts) -> KernelRow | None:
    version = upstream_version(facts.release.value) if facts.release.value else None
    return find_kernel(version) if version else None


def _first_row(clearing: Clearing) -> KernelRow:
    return next(row for row in KERNELS if row.clearing is clearing)


def kvm_has_tdx(facts: HostFacts) -> bool:
    """Whether KVM itself says that it runs TDs, or could."""
    return bool(facts.kvm_parameter.value or facts.key_ids.value)


def _and(names: set[str]) -> str:
    return f"{' and '.join(sorted(names))} {'clears' if len(names) == 1 else 'clear'}"


def _named(facts: HostFacts, names: tuple[str, ...]) -> list[Symbol]:
    return [symbol for symbol in facts.symbols.value or () if symbol.name in names]


def _contradiction(facts: HostFacts) -> Outcome:
    if _named(facts, _OLD) and _named(facts, _NEW):
        return fires(
            "functions of both generations of the reclaim code are there",
            [facts.symbols.evidence],
        )
    return passes("the symbols do not contradict each other")


def _old_symbols(facts: HostFacts) -> Outcome:
    found = {symbol.name for symbol in _named(facts, _OLD)}
    row = _row(facts)
    always = _first_row(Clearing.ALWAYS)
    in_kvm = kvm_has_tdx(facts) or (row is not None and row.clearing is Clearing.ALWAYS)
    if found == {"reset_tdx_pages"} and not in_kvm:
        # Since 6.8 it is there for the PAMT, in kernels whose KVM runs no TD.
        return passes("reset_tdx_pages alone, and no sign of TDX in KVM", _read(facts))
    if found:
        return fires(
            f"{_and(found)} without looking at the erratum flag",
            [facts.symbols.evidence, facts.release.evidence],
            always.citations,
        )
    return passes("no function that clears on every CPU", _read(facts))


def _new_symbols(facts: HostFacts) -> Outcome:
    found = {symbol.name for symbol in _named(facts, _NEW)}
    if found:
        return fires(
            f"{_and(found)} only with the erratum flag set",
            [facts.symbols.evidence, facts.release.evidence],
            (_generation_by_symbols(facts) or _first_row(Clearing.ON_ERRATUM)).citations,
        )
    return passes("no function that clears on the erratum alone")


def _read(facts: HostFacts) -> list[Evidence]:
    evidence = facts.symbols.evidence
    return [] if evidence.observed == NOT_NEEDED else [evidence]


def _config_off(facts: HostFacts) -> Outcome:
    if facts.config.value is False:
        return fires("it was built without CONFIG_INTEL_TDX_HOST", [facts.config.evidence])
    return passes("its configuration does not rule TDX out")


def _listed(facts: HostFacts) -> Outcome:
    row = _row(facts)
    if row is None:
        return passes("the release is not an upstream one in the table")
    if row.clearing is Clearing.NO_TDX_HOST and kvm_has_tdx(facts):
        return passes("the release has no TDX in KVM, and KVM has TDX on")
    return fires(
        f"upstream {facts.release.value}: {row.summary}", [facts.release.evidence], row.citations
    )


def _belied(facts: HostFacts) -> Outcome:
    row = _row(facts)
    if row is not None:
        return fires(
            f"{facts.release.value} by its name cannot run TDs, and KVM has TDX on: it is not "
            "the upstream kernel of that name",
            [facts.release.evidence, facts.kvm_parameter.evidence, facts.key_ids.evidence],
        )
    return passes("no release that KVM belies")


def _newer(facts: HostFacts) -> Outcome:
    release = facts.release.value
    if release and upstream_version(release):
        newest = KERNELS[-1].last
        return fires(
            f"upstream {release} is newer than the table, which ends with {newest}",
            [facts.release.evidence],
        )
    return passes("not an upstream release")


def _distribution(facts: HostFacts) -> Outcome:
    if facts.release.value:
        return fires(
            f"{facts.release.value} is not plainly an upstream release: its version does not "
            "tell what was backported",
            [facts.release.evidence, *_read(facts)],
        )
    return passes("no release is known")


def _unknown(facts: HostFacts) -> Outcome:
    return fires("nothing is known of the kernel", [facts.release.evidence, *_read(facts)])


# Of parts of the kernel that were read as files, and tried first: `policy.image`.
IMAGE_RULES = (
    "image-contradicts",
    "image-no-tdx-host",
    "image-clears-always",
    "image-clears-on-erratum",
    "image-not-understood",
)


_RULES = (
    ("symbols-contradict", _contradiction),
    ("symbols-clear-always", _old_symbols),
    ("symbols-clear-on-erratum", _new_symbols),
    ("config-no-tdx-host", _config_off),
    ("release-listed", _listed),
    ("release-belied", _belied),
    ("release-newer-than-table", _newer),
    ("release-not-upstream", _distribution),
    ("kernel-unknown", _unknown),
)


KERNEL_RULES = (*IMAGE_RULES, *(rule for rule, _ in _RULES))


# The kernel's code says what it does, and not its name.
_BY_CODE = (*IMAGE_RULES, "symbols-clear-always", "symbols-clear-on-erratum")


_CLEARING = {
    "symbols-clear-always": Clearing.ALWAYS,
    "symbols-clear-on-erratum": Clearing.ON_ERRATUM,
    "config-no-tdx-host": Clearing.NO_TDX_HOST,
}


def judge_kernel(
    facts: HostFacts, errata: tuple[Erratum, ...]
) -> tuple[KernelFinding, tuple[Step, ...]]:
    """Return what the kernel does with pages, and the rules that were tried.

    *errata* are the host's.  What it does with kexec depends on the CPU: see
    `judge_kexec`.
    """
    rules: tuple[tuple[str, Callable[[HostFacts], Outcome]], ...] = _RULES
    found: ImageFinding | None = None
    if facts.images is not None:
        from tdxreclaim.policy.image import image_rules, judge_files

        found, rules = judge_files(facts), (*image_rules(facts), *_RULES)
    decided, steps = try_rules(rules, facts)
    listed = _row(facts)
    clearing = _CLEARING.get(decided.rule, Clearing.UNKNOWN)
    certainty: Certainty | None = Certainty.INFERRED
    if found is not None and decided.rule in IMAGE_RULES:
        clearing, certainty = found.clearing, found.certainty
    elif decided.rule == "release-listed" and listed is not None:
        clearing, certainty = listed.clearing, listed.certainty
    elif listed is not None and listed.clearing is clearing:
        # Symbols and upstream release say the same.
        certainty = listed.certainty
    elif decided.rule == "config-no-tdx-host":
        certainty = Certainty.VERIFIED
    elif clearing is Clearing.UNKNOWN:
        certainty = None
    row = _generation(facts, decided.rule, clearing)
    finding = KernelFinding(
        clearing=clearing,
        rule=decided.rule,
        because=decided.because,
        release=facts.release.value,
        row=row,
        ignores=_ignored(facts, errata, clearing, row),
        certainty=certainty,
        origin=facts.release.evidence.origin,
    )
    return finding, steps


def _ignored(
    facts: HostFacts, errata: tuple[Erratum, ...], clearing: Clearing, row: KernelRow | None
) -> tuple[Erratum, ...]:
    """Return the errata that a kernel which clears for flags does not clear for."""
    if clearing is not Clearing.ON_ERRATUM:
        return ()
    names = {symbol.name for symbol in facts.symbols.value or ()}

    def honours(erratum: Erratum) -> bool:
        since = erratum.honoured_since
        by_release = row is not None and since is not None and row.first >= since
        return by_release or not names.isdisjoint(erratum.honoured_by)

    return tuple(each for each in errata if not honours(each))


def release_disagrees(facts: HostFacts, kernel: KernelFinding) -> bool:
    """Whether the symbols say other than the upstream release that the kernel calls itself."""
    return _disagrees(_row(facts), kernel.rule, kernel.clearing)


def _disagrees(listed: KernelRow | None, rule: str, clearing: Clearing) -> bool:
    return (
        rule in _BY_CODE
        and clearing in (Clearing.ALWAYS, Clearing.ON_ERRATUM)
        and listed is not None
        and listed.clearing is not clearing
    )


def judge_kexec(
    facts: HostFacts,
    kernel: KernelFinding,
    verdict: Verdict,
    silicon: SiliconFinding,
    state: HostState,
) -> KernelFinding:
    """Return *kernel* with what the erratum does to kexec and kdump on this host."""
    kexec, because = _kexec(facts, kernel, verdict, silicon, state)
    return replace(kernel, kexec=kexec, kexec_because=because)


def _kexec(
    facts: HostFacts,
    kernel: KernelFinding,
    verdict: Verdict,
    silicon: SiliconFinding,
    state: HostState,
) -> tuple[Kexec, str]:
    if facts.log_kexec.value:
        return Kexec.REFUSED, "the kernel log has kexec refused for the erratum"
    if verdict is Verdict.NOT_APPLICABLE:
        return Kexec.ALLOWED, "the erratum plays no part here"
    row = kernel.row
    if row is None and state is HostState.OFF and not facts.pw_mce.value:
        return Kexec.ALLOWED, "the kernel has not activated TDX; with TDX active it may differ"
    if row is None:
        return Kexec.UNKNOWN, "it is not known which generation of the code this kernel has"
    if row.clearing is not Clearing.ON_ERRATUM:
        return _kexec_before_the_refusal(row, state)
    if verdict is Verdict.UNDETERMINED:
        return Kexec.UNKNOWN, "it depends on whether the CPU is affected"
    if not silicon.errata:
        return Kexec.ALLOWED, "the CPU is not affected"
    return _kexec_on_affected(facts, kernel, row, silicon.errata, state)


def _kexec_on_affected(
    facts: HostFacts,
    kernel: KernelFinding,
    row: KernelRow,
    errata: tuple[Erratum, ...],
    state: HostState,
) -> tuple[Kexec, str]:
    unset = [each.id for each in errata if flag_of(facts, each) is False]
    if unset and state is not HostState.UNKNOWN:
        # Both the refusal and its successor ask for the flag, not for the CPU.
        return Kexec.ALLOWED, f"the kernel has not set {', '.join(unset)}"
    if state is HostState.OFF:
        return Kexec.ALLOWED, "the kernel has not activated TDX; with TDX active it would differ"
    if kernel.ignores:
        names = ", ".join(erratum.id for erratum in kernel.ignores)
        return Kexec.UNKNOWN, f"this kernel knows nothing of {names}"
    if row.kexec_certainty is Certainty.VERIFIED:
        return row.kexec, row.kexec_summary
    return row.kexec, f"{row.kexec_summary} (inferred, not read in a released kernel)"


def _kexec_before_the_refusal(row: KernelRow, state: HostState) -> tuple[Kexec, str]:
    """Return what kernels do that know no tdx_pw_mce in kexec: up to 6.17."""
    if row.kexec is not Kexec.NOT_BUILT:
        return row.kexec, row.kexec_summary
    if state is HostState.OFF:
        return Kexec.UNKNOWN, f"{row.kexec_summary}, and which of them this one has is not known"
    return Kexec.NOT_BUILT, f"{row.kexec_summary}: no kexec and no kdump on a TDX host"


def _generation(facts: HostFacts, rule: str, clearing: Clearing) -> KernelRow | None:
    """Return the row whose code this kernel has, by its release or its symbols."""
    listed = _row(facts)
    if listed is not None and not _disagrees(listed, rule, clearing) and rule != "release-belied":
        return listed
    # An old function in a distribution's kernel does not tell how kexec was patched.
    newer = rule in _BY_CODE and clearing is Clearing.ON_ERRATUM
    return _generation_by_symbols(facts) if newer else None


def _generation_by_symbols(facts: HostFacts) -> KernelRow | None:
    """Return the row of the newer code that the symbols fit, ``None`` if not just one."""
    names = {symbol.name for symbol in facts.symbols.value or ()}
    generation = [row for row in KERNELS if row.clearing is Clearing.ON_ERRATUM]
    if "tdx_sys_disable" in names:
        return generation[-1]
    return generation[0] if "tdx_quirk_reset_page" in names else None
