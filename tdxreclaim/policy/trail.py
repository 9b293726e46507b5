"""Rules tried in order, with every attempt kept: the decision is its own explanation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tdxreclaim.policy.model import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tdxreclaim.facts.evidence import Evidence
    from tdxreclaim.tables.sources import Citation

C = TypeVar("C")


class Outcome(NamedTuple):
    """What a rule makes of the facts: whether it fires, and why or why not."""

    fired: bool
    because: str
    evidence: tuple[Evidence, ...] = ()
    citations: tuple[Citation, ...] = ()


def fires(
    because: str, evidence: Iterable[Evidence] = (), citations: Iterable[Citation] = ()
) -> Outcome:
    """Return the outcome of a rule that decides."""
    return Outcome(
        fired=True, because=because, evidence=tuple(evidence), citations=tuple(citations)
    )


def passes(because: str, evidence: Iterable[Evidence] = ()) -> Outcome:
    """Return the outcome of a rule that does not decide."""
    return Outcome(fired=False, because=because, evidence=tuple(evidence))


def try_rules(
    rules: Sequence[tuple[str, Callable[[C], Outcome]]], case: C
) -> tuple[Step, tuple[Step, ...]]:
    """Return the first rule that fires, and all of them in order.

    The last rule has to fire whatever the facts.
    """
    steps: list[Step] = []
    decided: Step | None = None
    for rule, test in rules:
        if decided is not None:
            steps.append(Step(rule, fired=False, because=f"not reached: {decided.rule} decided"))
            continue
        outcome = test(case)
        step = Step(rule, *outcome)
        steps.append(step)
        if outcome.fired:
            decided = step
    if decided is None:
        raise AssertionError(f"no rule fired, not even {rules[-1][0]}")
    return decided, tuple(steps)
