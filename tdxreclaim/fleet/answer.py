"""What a fleet keeps of the answer about one host; hosts that agree in all of it are a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.cpu import CpuGroup
from tdxreclaim.facts.evidence import Part, flat
from tdxreclaim.policy.model import Posture, Verdict
from tdxreclaim.tables.kernels import Clearing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tdxreclaim.policy.model import Decision

CHECK_SCHEMA = "tdxreclaim.check/2"
"""The reports that are read; answers of older ones rested on weaker evidence."""

ROW_SCHEMA = "tdxreclaim.fleet-host/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """``cpu`` and ``kernel`` are for people, empty where not known.

    ``missing`` has the ids of the rules that tell what was not known, and
    ``PART-not-read`` for what of the evidence was not read or not understood.
    """

    verdict: Verdict
    posture: Posture
    rule: str
    cpu: str
    kernel: str
    clearing: Clearing
    missing: tuple[str, ...]


def answer_of(decision: Decision) -> Answer:
    """Return what is kept of *decision*."""
    numbers = {
        f"{p.codename or p.group.vendor or 'CPU'} ({p.group.number})": None
        for p in decision.silicon.processors
    }
    return Answer(
        verdict=decision.verdict,
        posture=decision.posture,
        rule=decision.rule,
        cpu=flat(" + ".join(numbers)),
        kernel=flat(decision.kernel.release or ""),
        clearing=decision.kernel.clearing,
        missing=_missing(
            decision.verdict,
            decision.posture,
            (decision.rule, decision.host.rule, decision.kernel.rule),
            decision.kernel.clearing,
            {gap.part for gap in decision.coverage.gaps},
        ),
    )


def _missing(
    verdict: Verdict,
    posture: Posture,
    rules: tuple[str, str, str],
    clearing: Clearing,
    gaps: Collection[str],
) -> tuple[str, ...]:
    """Return what stands for what is not known; *rules* are verdict, host, kernel."""
    unread = tuple(f"{part}-not-read" for part in sorted(gaps))
    if verdict is Verdict.UNDETERMINED:
        return (rules[0], *unread)
    if posture is not Posture.UNKNOWN:
        return unread
    if clearing is Clearing.UNKNOWN:
        return (rules[2], *unread)
    return unread or (rules[1],)


def read_report(document: Mapping[str, object], what: str) -> Answer:
    """Return the answer in a document of ``check --format json``.

    Raises:
        MalformedInputError: it is none, or of another version.

    """
    schema = document.get("schema")
    if schema != CHECK_SCHEMA:
        why = f"its schema is {flat(str(schema))}, not {CHECK_SCHEMA}: run check again"
        raise MalformedInputError(what, why)
    try:
        silicon, host, kernel = (_object(document, name) for name in ("silicon", "host", "kernel"))
        processors = silicon["processors"]
        if not isinstance(processors, list):
            raise TypeError("processors")  # noqa: TRY301 - one exit for every wrong shape
        numbers = {_cpu(processor): None for processor in processors}
        verdict, posture = Verdict(str(document["verdict"])), Posture(str(document["posture"]))
        clearing = Clearing(str(kernel["clearing"]))
        gaps = {str(Part(gap["part"])) for gap in _gaps(document)}
        rules = (str(document["rule"]), str(host["rule"]), str(kernel["rule"]))
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedInputError(what, f"not what {CHECK_SCHEMA} is ({error})") from error
    return Answer(
        verdict=verdict,
        posture=posture,
        rule=flat(rules[0]),
        cpu=flat(" + ".join(numbers)),
        kernel=flat(str(kernel.get("release") or "")),
        clearing=clearing,
        missing=tuple(map(flat, _missing(verdict, posture, rules, clearing, gaps))),
    )


def _object(document: Mapping[str, object], name: str) -> dict[str, object]:
    value = document[name]
    if not isinstance(value, dict):
        raise TypeError(name)
    return value


def _gaps(document: Mapping[str, object]) -> list[dict[str, str]]:
    gaps = _object(document, "coverage")["gaps"]
    if not isinstance(gaps, list):
        raise TypeError("gaps")
    return gaps


def _cpu(processor: Mapping[str, object]) -> str:
    numbers = (processor["family"], processor["model"])
    family, model = (number if isinstance(number, int) else None for number in numbers)
    number = CpuGroup(family=family, model=model).number
    return f"{processor['codename'] or processor['vendor'] or 'CPU'} ({number})"


def write_row(answer: Answer) -> dict[str, object]:
    """Return *answer* as what JSON is made of; `read_row` reads it back."""
    return {
        "verdict": answer.verdict,
        "posture": answer.posture,
        "rule": answer.rule,
        "cpu": answer.cpu,
        "kernel": answer.kernel,
        "clearing": answer.clearing,
        "missing": list(answer.missing),
    }


def read_row(document: Mapping[str, object], what: str) -> Answer:
    """Return the answer of a row that another run of fleet wrote.

    Raises:
        MalformedInputError: it is none.

    """
    try:
        missing = document["missing"]
        if not isinstance(missing, list):
            raise TypeError("missing")  # noqa: TRY301
        return Answer(
            verdict=Verdict(str(document["verdict"])),
            posture=Posture(str(document["posture"])),
            rule=flat(str(document["rule"])),
            cpu=flat(str(document["cpu"])),
            kernel=flat(str(document["kernel"])),
            clearing=Clearing(str(document["clearing"])),
            missing=tuple(flat(str(one)) for one in missing),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedInputError(what, f"not what {ROW_SCHEMA} is ({error})") from error
