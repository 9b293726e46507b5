"""What follows from the parts of a kernel that need not run.

Each part is judged alone; parts that contradict each other decide nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, assert_never

from tdxreclaim.facts.evidence import Evidence
from tdxreclaim.facts.images.parts import Configuration, Images, KernelPart, Module, Names, Text
from tdxreclaim.policy.kernel import IMAGE_RULES
from tdxreclaim.policy.model import KernelRule
from tdxreclaim.policy.trail import Outcome, fires, passes
from tdxreclaim.tables.errata import HONOURING
from tdxreclaim.tables.kernels import KERNELS, Clearing
from tdxreclaim.tables.sources import Certainty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tdxreclaim.facts.host import HostFacts


class Claim(NamedTuple):
    """What one part says; ``None`` is "it does not say", of ``tdx_host`` and of ``clearing``.

    ``tdx_host`` is whether the kernel has TDX host support built in.
    """

    path: str
    tdx_host: bool | None
    clearing: Clearing | None
    certainty: Certainty
    because: str


class ImageFinding(NamedTuple):
    """What a kernel's parts say together.

    ``clearing`` is ``UNKNOWN`` where they contradict each other or do not
    say.  ``claims`` are the parts', the best evidence first.
    """

    clearing: Clearing
    certainty: Certainty | None
    rule: str
    because: str
    claims: tuple[Claim, ...]


def judge_images(images: Images, beside: Iterable[KernelPart] = ()) -> ImageFinding:
    """Return what the parts of a kernel say of it, together with what else is known of it."""
    ranked = sorted((*images.parts, *beside), key=lambda part: _RANK[type(part.content)])
    claims = tuple(_claim(part) for part in ranked)
    contradiction = _contradiction(claims)
    if contradiction:
        return ImageFinding(
            Clearing.UNKNOWN, None, KernelRule.IMAGE_CONTRADICTS, contradiction, claims
        )
    decided = next((claim for claim in claims if claim.clearing is not None), None)
    if decided is None or decided.clearing is None:
        because = "; ".join(dict.fromkeys(claim.because for claim in claims))
        return ImageFinding(Clearing.UNKNOWN, None, "image-not-told", because, claims)
    agreeing = [claim.certainty for claim in claims if claim.clearing is decided.clearing]
    known = decided.clearing is not Clearing.UNKNOWN
    certainty = min(agreeing, key=list(Certainty).index) if known else None
    rule = _RULES[decided.clearing]
    return ImageFinding(decided.clearing, certainty, rule, decided.because, claims)


def judge_files(facts: HostFacts) -> ImageFinding:
    """Return what the files of a host's kernel say, beside its symbols and configuration."""
    beside: list[KernelPart] = []
    symbols = facts.symbols.value
    if symbols is not None and symbols.found:
        names = tuple(symbol.name for symbol in symbols.found)
        listed = Names(tdx_host=True, telling=names, exported=False, whole=symbols.whole)
        beside.append(KernelPart(facts.symbols.evidence.path, None, listed))
    if facts.config.value is not None:
        config = Configuration(facts.config.value)
        beside.append(KernelPart(facts.config.evidence.path, None, config))
    return judge_images(facts.images or Images(()), beside)


def image_rules(facts: HostFacts) -> list[tuple[str, Callable[[HostFacts], Outcome]]]:
    """Return a rule for each thing that the files of a host's kernel can say."""
    found = judge_files(facts)
    images = facts.images or Images(())
    evidence = [Evidence(claim.path, claim.because, images.origin) for claim in found.claims]
    evidence += images.failures
    source = next((row for row in KERNELS if row.clearing is found.clearing), None)
    citations = source.citations if source else ()

    because = found.because
    if images.loaded is False:
        because += " (kvm_intel is not loaded: this one would be)"

    def rule_for(rule: str) -> Callable[[HostFacts], Outcome]:
        if found.rule == rule:
            return lambda _: fires(because, evidence, citations)
        return lambda _: passes(f"by its files: {because}", evidence)

    return [(rule, rule_for(rule)) for rule in IMAGE_RULES]


_RULES = {
    Clearing.NO_TDX_HOST: KernelRule.IMAGE_NO_TDX_HOST,
    Clearing.ALWAYS: KernelRule.IMAGE_ALWAYS,
    Clearing.ON_ERRATUM: KernelRule.IMAGE_ON_ERRATUM,
    Clearing.UNKNOWN: KernelRule.IMAGE_NOT_UNDERSTOOD,
}


_RANK: dict[type, int] = {Module: 0, Configuration: 1, Names: 2, Text: 3}


def _contradiction(claims: tuple[Claim, ...]) -> str:
    """Return which two parts cannot be of one kernel, empty if all can."""
    for index, one in enumerate(claims):
        for other in claims[:index]:
            hosts = {one.tdx_host, other.tdx_host}
            # What the core offers says nothing of a KVM that does not use it.
            clearings = {one.clearing, other.clearing} & {Clearing.ALWAYS, Clearing.ON_ERRATUM}
            if hosts >= {True, False} or len(clearings) > 1:
                return f"{other.path} ({other.because}) contradicts {one.path} ({one.because})"
    return ""


def _claim(part: KernelPart) -> Claim:
    match part.content:
        case Module() as module:
            claim = _of_module(module)
        case Configuration(tdx_host=False):
            claim = _no_tdx_host("it is built without CONFIG_INTEL_TDX_HOST")
        case Configuration(tdx_host=True):
            claim = _may_host("CONFIG_INTEL_TDX_HOST=y, without which no kernel runs TDs")
        case Configuration():
            claim = _says_nothing("the configuration is cut before CONFIG_INTEL_TDX_HOST")
        case Names() as names:
            claim = _of_names(names)
        case Text() as text:
            claim = _of_text(text)
        case _:
            assert_never(part.content)
    return claim._replace(path=part.path)


def _no_tdx_host(because: str, certainty: Certainty = Certainty.VERIFIED) -> Claim:
    return Claim(
        "", tdx_host=False, clearing=Clearing.NO_TDX_HOST, certainty=certainty, because=because
    )


def _may_host(because: str) -> Claim:
    return Claim("", tdx_host=True, clearing=None, certainty=Certainty.VERIFIED, because=because)


def _not_understood(because: str) -> Claim:
    return _clears(Clearing.UNKNOWN, Certainty.UNVERIFIED, because)


def _says_nothing(because: str) -> Claim:
    return Claim("", tdx_host=None, clearing=None, certainty=Certainty.UNVERIFIED, because=because)


def _clears(clearing: Clearing, certainty: Certainty, because: str) -> Claim:
    return Claim("", tdx_host=True, clearing=clearing, certainty=certainty, because=because)


def _of_module(module: Module) -> Claim:
    if module.clears:
        return _clears(
            Clearing.ALWAYS,
            Certainty.VERIFIED,
            f"kvm_intel clears by itself, on every CPU ({module.clears} MOVDIR64B in its code)",
        )
    if module.resets and module.tdh_imports:
        return _clears(
            Clearing.ON_ERRATUM,
            Certainty.INFERRED,
            f"kvm_intel leaves the clearing to the core's {' and '.join(module.resets)}, which by its "
            "name clears only with the erratum flag set",
        )
    if module.tdh_imports or module.seamcalls or module.reclaims or module.resets:
        return _not_understood(
            "kvm_intel has code for TDs, and neither clears by itself nor has the core clear"
        )
    return Claim(
        "",
        # The core may have TDX host support all the same.
        tdx_host=None,
        clearing=Clearing.NO_TDX_HOST,
        certainty=Certainty.VERIFIED,
        because="kvm_intel imports no SEAMCALL wrapper (tdh_*): KVM cannot run TDs",
    )


def _of_names(names: Names) -> Claim:
    resets = [name for name in names.telling if name in HONOURING]
    if "tdx_clear_page" in names.telling:
        if resets:
            return _not_understood(
                f"tdx_clear_page and {resets[0]} are there, of two generations of the reclaim code"
            )
        return _clears(
            Clearing.ALWAYS, Certainty.INFERRED, "tdx_clear_page clears without asking for a flag"
        )
    if resets:
        return _clears(
            Clearing.ON_ERRATUM,
            Certainty.INFERRED,
            f"{resets[0]}, by its name, clears only with the erratum flag set",
        )
    if not names.whole:
        return _says_nothing("the list of symbols is not whole")
    if "tdh_phymem_page_reclaim" in names.telling:
        return _clears(
            Clearing.ALWAYS,
            Certainty.INFERRED,
            "the core has tdh_phymem_page_reclaim and no tdx_quirk_reset_*: KVM clears by itself",
        )
    if names.tdx_host:
        return _may_host("there are SEAMCALLs in the core, and none that takes a page back")
    if names.exported:
        return _no_tdx_host("no SEAMCALL wrapper (tdh_*) is exported to KVM", Certainty.INFERRED)
    return _no_tdx_host("a whole list of symbols without any SEAMCALL")


def _of_text(text: Text) -> Claim:
    if not text.key_ids:
        return _no_tdx_host(
            'no "private KeyID range" in it, which every build with TDX host support has',
            Certainty.INFERRED,
        )
    resets = [name for name in text.exported if name in HONOURING]
    if resets:
        return _clears(
            Clearing.ON_ERRATUM,
            Certainty.INFERRED,
            f"it exports {resets[0]}, which by its name clears only with the erratum flag set",
        )
    if "tdh_phymem_page_reclaim" in text.exported:
        return _clears(
            Clearing.ALWAYS,
            Certainty.INFERRED,
            "it exports tdh_phymem_page_reclaim and no tdx_quirk_reset_*: KVM clears by itself",
        )
    return _may_host('it is built with TDX host support ("private KeyID range")')
