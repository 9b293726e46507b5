"""A finding out of what the lines of a boot were counted to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tdxreclaim.policy.model import Decision, HostState
from tdxreclaim.tables.findings import bringup, stuck, teardown
from tdxreclaim.tables.findings.kind import Cause, Kind, Severity
from tdxreclaim.tables.kernels import KERNELS, FailedPage, find_kernel
from tdxreclaim.tables.releases import release_series, upstream_version
from tdxreclaim.tables.teardown import Phase
from tdxreclaim.triage.collect import MOST_PLACES, Key, Tally
from tdxreclaim.triage.finding import Finding
from tdxreclaim.triage.stacks import names_tdx, phase_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tdxreclaim.facts.logs.stack import Stack


@dataclass(frozen=True, kw_only=True, slots=True)
class BootFacts:
    """A boot, by how many came after it, and what is known of it."""

    age: int
    boots: int
    release: str | None
    whole: bool
    options: tuple[str, ...]

    @property
    def number(self) -> int:
        """Return which it is, from 1."""
        return max(self.boots - self.age, 1)


class Merged:
    """One finding, put together from the logs that have it."""

    def __init__(self) -> None:
        self.tallies: dict[int, list[Tally]] = {}

    def add(self, timeline: int, tally: Tally) -> None:
        """Note what one log of a timeline has of it."""
        self.tallies.setdefault(timeline, []).append(tally)

    def best(self) -> tuple[list[Tally], list[str]]:
        """Return the tallies of the log with most of it, and the other logs' names.

        Several logs of one host have the same lines, so counts are not added up.
        """
        counts = {i: sum(t.count for t in each) for i, each in self.tallies.items()}
        most = max(counts, key=lambda i: counts[i])
        others = [t.path for i, each in self.tallies.items() if i != most for t in each]
        return self.tallies[most], list(dict.fromkeys(others))


def from_lines(key: Key, merged: Merged, boot: BootFacts, decision: Decision) -> Finding:
    """Return the finding that the lines counted under *key* come to in a boot."""
    tallies, also = merged.best()
    stack = tallies[0].stack
    times = sum(tally.count for tally in tallies)
    finding = Finding.of(_kind(key, stack, decision), _sentence_values(dict(key.values), times))
    values = tallies[0].values
    finding = replace(
        finding,
        cause=_cause(finding, values),
        boot=boot.number,
        boots=boot.boots,
        age=boot.age,
        times=times,
        first=next((tally.first for tally in tallies), None),
        last=tallies[-1].last,
        process=values.get("pid") or values.get("process"),
        places=tuple(place for tally in tallies for place in tally.places)[:MOST_PLACES],
        also=tuple(also),
        details=(*_stack_details(stack), *_answers(tallies), *_meanings(finding)),
    )
    if key.kind is bringup.UNKNOWN_TDX_LINES and boot.release:
        finding = replace(finding, details=(f"kernel {boot.release}",))
    if values.get("left_over"):
        finding = replace(
            finding,
            cause=None,
            severity=Severity.WARNING,
            sentence=f"from before this boot, most likely: {finding.sentence}",
            meaning="It was found in the banks while the CPUs came up: the machine went down with "
            "it, or the firmware left it there.",
        )
    return _by_kernel(finding, boot)


def _kind(key: Key, stack: Stack | None, decision: Decision) -> Kind:
    no_tdx = decision.host.state in (HostState.OFF, HostState.GUEST)
    if key.kind in stuck.ROWS and no_tdx and stack is not None and not names_tdx(stack):
        # Without TDX it is another guest's memory, and not a TD's.
        return stuck.STUCK_ELSEWHERE
    return key.kind


# What a warning is about, by the phase of the function that warned.
_CAUSES = {Phase.GUEST_PAGES: Cause.REMOVAL, Phase.HKID: Cause.HKID}


def _cause(finding: Finding, values: Mapping[str, str]) -> Cause | None:
    phase = phase_of(values.get("function", ""))
    if finding.kind is teardown.RECLAIM_WARNING and phase in _CAUSES:
        return _CAUSES[phase]
    return finding.cause


def _sentence_values(values: dict[str, str], times: int) -> dict[str, str]:
    return {**values, "count": "a" if times == 1 else f"{times:,}", "plural": "s"[: times > 1]}


def _by_kernel(finding: Finding, boot: BootFacts) -> Finding:
    """Return the finding with the advice for what this kernel does with a page that failed."""
    if finding.cause is not Cause.REMOVAL:
        return finding
    advice = {
        FailedPage.LEAKED: teardown.LEAKED_ADVICE,
        FailedPage.HANDED_BACK: teardown.HANDED_BACK_ADVICE,
        None: teardown.EITHER_ADVICE,
    }[failed_page(boot.release)]
    return replace(finding, advice=advice)


def failed_page(release: str | None) -> FailedPage | None:
    """Return what a kernel does with a page whose removal failed; ``None`` if that is not known.

    A distribution's kernel of a series that hands pages back is taken to do so;
    one of an earlier series may have got the change since.
    """
    series = release_series(release)
    row = find_kernel(series) if series else None
    if row is None:
        newer = series is not None and series > _LAST
        return FailedPage.HANDED_BACK if newer else None
    plain = upstream_version(release or "") is not None
    return row.failed_page if plain or row.failed_page is FailedPage.HANDED_BACK else None


_LAST = KERNELS[-1].last


def _meanings(finding: Finding) -> tuple[str, ...]:
    """Return what the statuses in a finding of the bring-up meant where they were met."""
    if finding.cause is not Cause.BRING_UP:
        return ()
    return tuple(
        f"{status.name}: {meaning}"
        for status, meaning in bringup.STATUS_MEANINGS.items()
        if f"({status.name}" in finding.sentence
    )


def _answers(tallies: Iterable[Tally]) -> tuple[str, ...]:
    answers = sorted({answer for tally in tallies for answer in tally.answers})
    return tuple(f"the module's answer (RAX): {answer}" for answer in answers)


def _stack_details(stack: Stack | None) -> tuple[str, ...]:
    """Return the functions of a stack that tell, innermost first."""
    if stack is None or not stack.frames:
        return ()
    telling = [name for name in stack.frames if name.startswith(_TELLING)]
    return (f"stack: {' < '.join((telling or list(stack.frames))[:_MOST_FUNCTIONS])}",)


_TELLING = ("kvm_", "__kvm_", "tdx_", "__tdx_", "tdh_", "tdp_", "vt_", "__mutex", "rwsem_", "down_")


_MOST_FUNCTIONS = 8
