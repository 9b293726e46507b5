"""Facts in, decision out: must this host clear reclaimed TDX pages?

Pure: no file, clock or environment is looked at.  Every rule that was tried is
kept, so that the decision is its own explanation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.policy.advise import FLAGS_FORCED, Situation, advise, judge_posture
from tdxreclaim.policy.kernel import judge_kernel
from tdxreclaim.policy.kexec import judge_kexec
from tdxreclaim.policy.model import Decision, Step, VerdictRule
from tdxreclaim.policy.silicon import flag_of, judge_silicon
from tdxreclaim.policy.state import judge_state
from tdxreclaim.policy.verdict import Case, judge_verdict
from tdxreclaim.policy.warn import warn
from tdxreclaim.tables.errata import ERRATA, Erratum
from tdxreclaim.tables.kernels import Clearing

if TYPE_CHECKING:
    from tdxreclaim.facts.evidence import Evidence
    from tdxreclaim.facts.host import HostFacts
    from tdxreclaim.policy.model import KernelFinding
    from tdxreclaim.tables.sources import Citation


def decide(facts: HostFacts, errata: tuple[Erratum, ...] = ERRATA) -> Decision:
    """Return the decision, with all that was weighed for it."""
    silicon = judge_silicon(facts, errata)
    host, state_steps = judge_state(facts, silicon.errata)
    kernel, kernel_steps = judge_kernel(facts, silicon.errata)

    verdict, decided, steps = judge_verdict(Case(facts, silicon, host), errata)

    kernel = judge_kexec(facts, kernel, verdict, silicon, host.state)
    unset = tuple(each for each in silicon.errata if flag_of(facts, each) is False)
    posture, posture_because = judge_posture(
        verdict, host, kernel, unset or silicon.errata, facts.coverage
    )
    weighed = (*steps, *state_steps, *kernel_steps)
    situation = Situation(
        facts=facts,
        verdict=verdict,
        rule=_settled_by(facts, decided.rule),
        posture=posture,
        host=host,
        kernel=kernel,
        errata=silicon.errata,
        next_kernel=_next_kernel(facts, kernel, silicon.errata),
    )
    return Decision(
        verdict=verdict,
        rule=decided.rule,
        because=decided.because,
        posture=posture,
        posture_because=posture_because,
        silicon=silicon,
        host=host,
        kernel=kernel,
        advice=advise(situation),
        warnings=warn(facts, silicon, host, kernel),
        evidence=_evidence(facts, weighed),
        citations=_citations(weighed),
        coverage=facts.coverage,
        weighed=weighed,
        next_kernel=situation.next_kernel,
    )


def _settled_by(facts: HostFacts, rule: str) -> str:
    """Return the rule whose advice settles it: of flags that are forced, a whole cpuinfo does not."""
    return FLAGS_FORCED if facts.forcing and rule == VerdictRule.CPU_UNLISTED else rule


def _next_kernel(
    facts: HostFacts, kernel: KernelFinding, errata: tuple[Erratum, ...]
) -> KernelFinding | None:
    """Return what the newest installed kernel would do, where that differs and is known."""
    if facts.newest is None:
        return None
    from tdxreclaim.facts.fake import lay_images

    found, _ = judge_kernel(lay_images(facts, facts.newest), errata)
    known = found.clearing is not Clearing.UNKNOWN
    return found if known and found.clearing is not kernel.clearing else None


def _evidence(facts: HostFacts, weighed: tuple[Step, ...]) -> tuple[Evidence, ...]:
    """Return everything that was looked at on the way, once, in that order."""
    named = (evidence for _, evidence in facts.witnesses)
    pieces = [facts.identity, *named, *(piece for step in weighed for piece in step.evidence)]
    if facts.log_kexec.value:
        pieces.append(facts.log_kexec.evidence)
    return tuple(dict.fromkeys((*pieces, *facts.notes)))


def _citations(weighed: tuple[Step, ...]) -> tuple[Citation, ...]:
    """Return the sources of the rules that fired, once."""
    return tuple(dict.fromkeys(c for step in weighed if step.fired for c in step.citations))
