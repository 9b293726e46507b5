"""What the running kernel does with reclaimed pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.facts.evidence import NOT_NEEDED, Evidence
from tdxreclaim.facts.kernel import Symbols
from tdxreclaim.policy.model import (
    KernelFinding,
    KernelRule,
    Step,
)
from tdxreclaim.policy.trail import Outcome, fires, passes, try_rules
from tdxreclaim.tables.errata import HONOURING
from tdxreclaim.tables.kernels import (
    BESIDE_RECLAIM,
    EXPORTED,
    KERNELS,
    RECLAIM,
    RUNS_TDS,
    Clearing,
    KernelRow,
    find_kernel,
)
from tdxreclaim.tables.releases import release_series, upstream_version
from tdxreclaim.tables.sources import Certainty

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.facts.host import HostFacts
    from tdxreclaim.policy.image import ImageFinding
    from tdxreclaim.tables.distributions import Distribution
    from tdxreclaim.tables.errata import Erratum


def _names(clearing: Clearing) -> tuple[str, ...]:
    """The telling functions of the rows that clear so."""
    rows = [row for row in RUNS_TDS if row.clearing is clearing]
    return tuple(dict.fromkeys(name for row in rows for name in row.symbols))


# The clear that looks at no erratum flag, and what clears for one.
_OLD = _names(Clearing.ALWAYS)


_NEW = tuple(name for name in _names(Clearing.ON_ERRATUM) if name in HONOURING)


_NEWEST = KERNELS[-1]


def listed_row(facts: HostFacts) -> KernelRow | None:
    """Return the row of the upstream release that the kernel calls itself, if there is one."""
    version = upstream_version(facts.release.value) if facts.release.value else None
    return find_kernel(version) if version else None


def distribution_of(facts: HostFacts) -> Distribution | None:
    """Return the distribution whose the kernel is by the form of its release, if one is known."""
    release = facts.release.value
    if not release or upstream_version(release):
        return None
    from tdxreclaim.tables.distributions import find_distribution

    return find_distribution(release)


def _first_row(clearing: Clearing) -> KernelRow:
    return next(row for row in KERNELS if row.clearing is clearing)


def kvm_has_tdx(facts: HostFacts) -> bool:
    """Whether KVM itself says that it runs TDs, or could."""
    return bool(facts.kvm_parameter.value or facts.key_ids.value)


def _has_tdx_host(facts: HostFacts) -> bool:
    """Whether the kernel itself shows that it is built with TDX host support."""
    return kvm_has_tdx(facts) or bool(
        facts.config.value
        or facts.tdx_host_platform.value
        or facts.pw_mce.value
        or facts.module_version.value
        # A kernel without it says nothing of TDX, not even that it is off.
        or facts.log_off.value
        or facts.log_enabled.value is not None
        or facts.log_ready.value is not None
        or _symbols(facts).seamcalls
    )


def _symbols(facts: HostFacts) -> Symbols:
    return Symbols(()) if facts.symbols.value is None else facts.symbols.value


def _and(names: set[str]) -> str:
    return f"{' and '.join(sorted(names))} {'clears' if len(names) == 1 else 'clear'}"


def _found(facts: HostFacts, names: tuple[str, ...]) -> set[str]:
    return {symbol.name for symbol in _symbols(facts).named(*names)}


def _contradiction(facts: HostFacts) -> Outcome:
    if _found(facts, _OLD) and _found(facts, _NEW):
        return fires(
            "functions of both generations of the reclaim code are there",
            [facts.symbols.evidence],
        )
    return passes("the symbols do not contradict each other")


def _old_symbols(facts: HostFacts) -> Outcome:
    evidence = [facts.symbols.evidence, facts.release.evidence]
    citations = _first_row(Clearing.ALWAYS).citations
    found = _found(facts, _OLD)
    if found:
        return fires(f"{_and(found)} without looking at the erratum flag", evidence, citations)
    # Since then the core exports a clear that KVM calls.  A list that was
    # filtered to the SEAMCALLs would look the same, but for its neighbour.
    beside = _symbols(facts).whole or _found(facts, (BESIDE_RECLAIM,))
    if _found(facts, (RECLAIM,)) and beside and not _found(facts, _NEW):
        return fires(
            f"the core has {RECLAIM} and none of {' and '.join(_NEW)}: KVM clears by itself, "
            "without looking at the erratum flag",
            evidence,
            citations,
        )
    return passes("no function that clears on every CPU", _read(facts))


def _new_symbols(facts: HostFacts) -> Outcome:
    found = _found(facts, _NEW)
    if found:
        rows = _rows_by_symbols(facts)
        return fires(
            f"{_and(found)} only with the erratum flag set",
            [facts.symbols.evidence, facts.release.evidence],
            (rows[-1] if rows else _first_row(Clearing.ON_ERRATUM)).citations,
        )
    return passes("no function that clears on the erratum alone")


def _no_seamcall(facts: HostFacts) -> Outcome:
    symbols = _symbols(facts)
    if symbols.whole and not symbols.seamcalls and not kvm_has_tdx(facts):
        return fires(
            "its whole list of symbols has no SEAMCALL: it is built without TDX host support",
            [facts.symbols.evidence],
        )
    return passes("the symbols do not rule TDX out")


def _read(facts: HostFacts) -> list[Evidence]:
    evidence = facts.symbols.evidence
    return [] if evidence.observed == NOT_NEEDED else [evidence]


def _config_off(facts: HostFacts) -> Outcome:
    if facts.config.value is False and not kvm_has_tdx(facts):
        return fires("it was built without CONFIG_INTEL_TDX_HOST", [facts.config.evidence])
    return passes("its configuration does not rule TDX out")


def _listed(facts: HostFacts) -> Outcome:
    row = listed_row(facts)
    if row is None:
        return passes("the release is not an upstream one in the table")
    if row.clearing is Clearing.NO_TDX_HOST and kvm_has_tdx(facts):
        return passes("the release has no TDX in KVM, and KVM has TDX on")
    return fires(
        f"upstream {facts.release.value}: {row.summary}", [facts.release.evidence], row.citations
    )


def _belied(facts: HostFacts) -> Outcome:
    row = listed_row(facts)
    if row is not None:
        return fires(
            f"upstream {facts.release.value} cannot run TDs, yet KVM has TDX on: this is not the "
            "upstream kernel",
            [facts.release.evidence, facts.kvm_parameter.evidence, facts.key_ids.evidence],
        )
    return passes("no release that KVM belies")


def _newer(facts: HostFacts) -> Outcome:
    release = facts.release.value
    if release and upstream_version(release):
        return fires(
            f"upstream {release} is newer than the table, which ends with {_NEWEST.last}",
            [facts.release.evidence],
        )
    return passes("not an upstream release")


def _distribution_listed(facts: HostFacts) -> Outcome:
    known = distribution_of(facts)
    if known is None:
        return passes("no distribution is known by this release")
    if known.clearing is Clearing.UNKNOWN:
        return passes(f"{known.name}: {known.summary}")
    if known.clearing is Clearing.NO_TDX_HOST and _has_tdx_host(facts):
        return passes(f"the release is {known.name}'s by its form, and the host belies it")
    return fires(
        f"{facts.release.value} is {known.name}'s by its form: {known.summary}",
        [facts.release.evidence, *_read(facts)],
        known.citations,
    )


def _not_upstream(facts: HostFacts) -> Outcome:
    release = facts.release.value
    if not release:
        return passes("no release is known")
    known = distribution_of(facts)
    why = known.summary if known else "its version does not tell what was backported"
    return fires(
        f"{release} is not plainly an upstream release: {why}",
        [facts.release.evidence, *_read(facts)],
    )


def _unknown(facts: HostFacts) -> Outcome:
    return fires("nothing is known of the kernel", [facts.release.evidence, *_read(facts)])


# Of parts of the kernel that were read as files, and tried first: `policy.image`.
IMAGE_RULES = (
    KernelRule.IMAGE_CONTRADICTS,
    KernelRule.IMAGE_NO_TDX_HOST,
    KernelRule.IMAGE_ALWAYS,
    KernelRule.IMAGE_ON_ERRATUM,
    KernelRule.IMAGE_NOT_UNDERSTOOD,
)


_RULES = (
    (KernelRule.SYMBOLS_CONTRADICT, _contradiction),
    (KernelRule.SYMBOLS_ALWAYS, _old_symbols),
    (KernelRule.SYMBOLS_ON_ERRATUM, _new_symbols),
    (KernelRule.SYMBOLS_NO_TDX_HOST, _no_seamcall),
    (KernelRule.CONFIG_NO_TDX_HOST, _config_off),
    (KernelRule.RELEASE_LISTED, _listed),
    (KernelRule.RELEASE_BELIED, _belied),
    (KernelRule.RELEASE_NEWER, _newer),
    (KernelRule.DISTRIBUTION_LISTED, _distribution_listed),
    (KernelRule.RELEASE_NOT_UPSTREAM, _not_upstream),
    (KernelRule.UNKNOWN, _unknown),
)


KERNEL_RULES = (*IMAGE_RULES, *(rule for rule, _ in _RULES))


_CLEARING = {
    KernelRule.SYMBOLS_ALWAYS: Clearing.ALWAYS,
    KernelRule.SYMBOLS_ON_ERRATUM: Clearing.ON_ERRATUM,
    KernelRule.SYMBOLS_NO_TDX_HOST: Clearing.NO_TDX_HOST,
    KernelRule.CONFIG_NO_TDX_HOST: Clearing.NO_TDX_HOST,
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
    rule = KernelRule(decided.rule)
    if found is not None and rule in IMAGE_RULES:
        clearing, certainty = found.clearing, found.certainty
    else:
        clearing, certainty = _clearing(facts, rule)
    rows = _fitting_rows(facts, rule, clearing)
    row = rows[-1] if rows else None
    version = upstream_version(facts.release.value) if facts.release.value else None
    finding = KernelFinding(
        clearing=clearing,
        rule=rule,
        because=decided.because,
        release=facts.release.value,
        rows=rows,
        newer=version is not None and version > _NEWEST.last,
        ignores=_ignored(facts, errata, clearing, row),
        certainty=certainty,
        origin=facts.release.evidence.origin,
    )
    return finding, steps


def _clearing(facts: HostFacts, rule: KernelRule) -> tuple[Clearing, Certainty | None]:
    listed, known = listed_row(facts), distribution_of(facts)
    if rule is KernelRule.RELEASE_LISTED and listed is not None:
        return listed.clearing, listed.certainty
    if rule is KernelRule.DISTRIBUTION_LISTED and known is not None:
        return known.clearing, Certainty.INFERRED
    clearing = _CLEARING.get(rule, Clearing.UNKNOWN)
    if clearing is Clearing.UNKNOWN:
        return clearing, None
    if clearing is Clearing.NO_TDX_HOST:
        return clearing, Certainty.VERIFIED
    # Symbols and upstream release may say the same.
    same = listed is not None and listed.clearing is clearing
    return clearing, listed.certainty if listed is not None and same else Certainty.INFERRED


def _fitting_rows(facts: HostFacts, rule: KernelRule, clearing: Clearing) -> tuple[KernelRow, ...]:
    """Return the rows whose code a kernel may have, oldest first."""
    listed = listed_row(facts)
    if rule is KernelRule.RELEASE_BELIED:
        return ()
    if listed is not None and not _disagrees(listed, rule, clearing):
        return (listed,)
    rows = _rows_by_symbols(facts)
    if not rows and (rule is KernelRule.DISTRIBUTION_LISTED or rule in IMAGE_RULES):
        rows = [row for row in RUNS_TDS if row.clearing is clearing]
    series = release_series(facts.release.value)
    by_series = [row for row in rows if series and row.first <= series <= row.last]
    return tuple(by_series or rows)


def _rows_by_symbols(facts: HostFacts) -> list[KernelRow]:
    """Return the rows whose functions a kernel has, oldest first."""
    found = {
        symbol.name: symbol for symbol in _symbols(facts).named(*_OLD, *_NEW, *_NEWEST.symbols)
    }
    if not found:
        return [_first_row(Clearing.ALWAYS)] if _old_symbols(facts).fired else []
    rows = [row for row in RUNS_TDS if set(found) <= set(row.symbols)]
    # A function may be static until KVM is to call it.
    fitting = [
        row
        for row in rows
        if all(
            (name in row.exported) is found[name].type.isupper() for name in found.keys() & EXPORTED
        )
    ]
    return fitting or rows


def _ignored(
    facts: HostFacts, errata: tuple[Erratum, ...], clearing: Clearing, row: KernelRow | None
) -> tuple[Erratum, ...]:
    """Return the errata that a kernel which clears for flags does not clear for."""
    if clearing is not Clearing.ON_ERRATUM:
        return ()

    def honours(erratum: Erratum) -> bool:
        since = erratum.honoured_since
        by_release = row is not None and since is not None and row.first >= since
        return by_release or bool(_found(facts, erratum.honoured_by))

    return tuple(each for each in errata if not honours(each))


def release_disagrees(facts: HostFacts, kernel: KernelFinding) -> bool:
    """Whether the symbols say other than the upstream release that the kernel calls itself."""
    return _disagrees(listed_row(facts), kernel.rule, kernel.clearing)


def _disagrees(listed: KernelRow | None, rule: KernelRule, clearing: Clearing) -> bool:
    return (
        rule.by_code
        and clearing in (Clearing.ALWAYS, Clearing.ON_ERRATUM)
        and listed is not None
        and listed.clearing is not clearing
    )
