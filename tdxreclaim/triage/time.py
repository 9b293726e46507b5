"""An observed shutdown against what the emulator expects: is it TDX reclaim?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdxreclaim.costs.estimate import Estimate, estimate
from tdxreclaim.costs.scene import Scene, identified_cpu, set_scene
from tdxreclaim.engine.plan import Order
from tdxreclaim.engine.shape import Shape
from tdxreclaim.policy.model import Decision, HostState, Verdict
from tdxreclaim.tables.findings.times import (
    TIME_EXPECTED,
    TIME_FITS,
    TIME_NOT_RECLAIM,
    TIME_ONE_CAUSE,
    TIME_TOO_LONG,
    TIME_TOO_SHORT,
    TIME_UNPROVEN,
)
from tdxreclaim.tables.kernels import Clearing
from tdxreclaim.tables.teardown import Action, Phase
from tdxreclaim.units import Span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tdxreclaim.costs.calibration import Calibration, CostCause
    from tdxreclaim.tables.findings.kind import Kind

# Nobody said on what hardware the published times were taken.
_LENIENCE_PERCENT = 25


# Where the number of vCPUs is not told: the fewest a TD has, and the most that was timed.
_FEWEST_VCPUS, _MOST_VCPUS = 1, 64


# High over low from which on each cause is named.
_NAMES_CAUSES = 1.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What an observation comes to; ``kind`` is its row in the catalogue.

    ``because`` says why no time could be estimated, if none could; the other
    fields are ``None`` then.  ``low`` and ``high`` are the estimates for the
    fewest and the most vCPUs, the same where their number is given.  ``warnings``
    are in what the calibration is of something else than was asked about.
    """

    kind: Kind
    because: str
    observed_ns: int | None
    memory_bytes: int
    vcpus: int | None
    expected: Span | None = None
    scene: Scene | None = None
    estimate: Estimate | None = None
    causes: Mapping[CostCause, Span] | None = None
    """The time by each cause that may drive it, where that makes a difference; else empty."""
    explained_by: tuple[CostCause, ...] = ()
    """Which of them explain what was observed."""
    hkid_first: Span | None = None
    warnings: tuple[str, ...] = ()

    @property
    def shares(self) -> dict[str, float]:
        """The likely share of removal, clearing, HKID and control pages, 0 to 1.

        Empty where there is no estimate.  Clearing of control pages counts as
        clearing.
        """
        bill = self.estimate
        if bill is None or not bill.total.likely_ns:
            return {}
        total = bill.total.likely_ns
        clearing = bill.action(Action.CLEAR).likely_ns
        by_phase = {
            phase: sum(
                step.total.likely_ns
                for step in bill.steps
                if step.phase is phase and step.action is not Action.CLEAR
            )
            for phase in Phase
        }
        return {
            "removal": by_phase[Phase.GUEST_PAGES] / total,
            "clearing": clearing / total,
            "hkid": by_phase[Phase.HKID] / total,
            "control_pages": by_phase[Phase.CONTROL_PAGES] / total,
        }


def judge_time(
    decision: Decision,
    calibration: Calibration,
    *,
    memory_bytes: int,
    vcpus: int | None,
    observed_ns: int | None,
) -> Answer:
    """Return whether *observed_ns* fits what the shutdown of such a TD is expected to take.

    Raises:
        UsageError: the size makes no sense.

    """
    shapes = [
        Shape(memory_bytes=memory_bytes, vcpus=each)
        for each in ([vcpus] if vcpus is not None else [_FEWEST_VCPUS, _MOST_VCPUS])
    ]
    impossible = _no_td_can_run(decision)
    if impossible:
        kind = TIME_EXPECTED if observed_ns is None else TIME_NOT_RECLAIM
        return Answer(
            kind=kind,
            because=impossible,
            observed_ns=observed_ns,
            memory_bytes=memory_bytes,
            vcpus=vcpus,
        )
    scene = set_scene(decision, packages=1)
    estimates = [estimate(shape, scene.plan, scene.platform, calibration) for shape in shapes]
    expected = _around([each.total for each in estimates])
    main = estimates[-1]
    first = set_scene(decision, packages=1, order=Order.HKID_FIRST)
    fast = _around(
        [estimate(shape, first.plan, first.platform, calibration).total for shape in shapes]
    )
    causes = _by_cause(estimates) if expected.high_ns > _NAMES_CAUSES * expected.low_ns else {}
    explained_by = tuple(each for each, span in causes.items() if _fits(observed_ns, span))
    return Answer(
        kind=_compare(observed_ns, expected, main, memory_bytes, len(explained_by) < len(causes)),
        because="",
        observed_ns=observed_ns,
        memory_bytes=memory_bytes,
        vcpus=vcpus,
        expected=expected,
        scene=scene,
        estimate=main,
        causes=causes,
        explained_by=explained_by,
        hkid_first=fast,
        warnings=calibration.warnings(cpu=identified_cpu(decision), kernel=decision.kernel.release),
    )


def _no_td_can_run(decision: Decision) -> str:
    if decision.verdict is Verdict.NOT_APPLICABLE:
        return decision.because
    if decision.host.state is HostState.OFF:
        return f"TDX is off on this host ({decision.host.because})"
    if decision.kernel.clearing is Clearing.NO_TDX_HOST:
        return f"{decision.kernel.release or 'the kernel'} cannot run TDs"
    return ""


def _around(spans: list[Span]) -> Span:
    return Span(
        min(span.low_ns for span in spans),
        sum(span.likely_ns for span in spans) // len(spans),
        max(span.high_ns for span in spans),
    )


def _by_cause(estimates: Sequence[Estimate]) -> dict[CostCause, Span]:
    """The time by each cause, over all of *estimates*."""
    return {
        cause: _around([each.causes[cause] for each in estimates]) for cause in estimates[0].causes
    }


def _fits(observed_ns: int | None, expected: Span) -> bool:
    return observed_ns is not None and not (
        _is_above(observed_ns, expected) or _is_below(observed_ns, expected)
    )


def _is_above(observed_ns: int, expected: Span) -> bool:
    return observed_ns * 100 > expected.high_ns * (100 + _LENIENCE_PERCENT)


def _is_below(observed_ns: int, expected: Span) -> bool:
    return observed_ns * 100 < expected.low_ns * (100 - _LENIENCE_PERCENT)


def _compare(
    observed_ns: int | None, expected: Span, main: Estimate, memory_bytes: int, one_cause: bool
) -> Kind:
    if observed_ns is None:
        return TIME_EXPECTED
    if _is_above(observed_ns, expected):
        return TIME_TOO_LONG
    if _is_below(observed_ns, expected):
        return TIME_TOO_SHORT
    if any(
        each.what == "memory_bytes"
        and each.timed_from is not None
        # The published sizes are in GB, taken for GiB: both are the size that was timed.
        and memory_bytes < each.timed_from * 1000**3 // 1024**3
        for each in main.extrapolates
    ):
        return TIME_UNPROVEN
    return TIME_ONE_CAUSE if one_cause else TIME_FITS
