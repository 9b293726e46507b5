"""A measured clear as a calibration of that one step."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from tdxreclaim.costs.calibration import Beyond, Calibration, CostPoint, Provenance, StepCost
from tdxreclaim.tables.teardown import Action
from tdxreclaim.units import Span, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdxreclaim.facts.measure import Measured, Run

_IN_GUEST = (
    "measured in a virtual machine, whose memory is mapped and whose CPUs are scheduled once more"
)


_GAIN = 1.1  # another thread that adds less than a tenth has found the limit


def calibration(measured: Measured, *, name: str, date: str, origin: str) -> Calibration:
    """The clear, on one thread as in the kernel, from the fastest to the slowest round."""
    run = min(measured.cleared, key=lambda each: each.threads)
    times = run.ns_a_page
    instead = None
    if measured.is_stand_in:
        instead = (
            f"{measured.store.label}, with one MFENCE a page; MOVDIR64B was not executed on this "
            "CPU"
        )
        if not measured.store.fenced:
            instead = f"{measured.store.label}; MOVDIR64B was not executed on this CPU"
    together = [each for each in measured.cleared if each.threads > run.threads]
    return Calibration(
        name=name,
        host=f"{measured.model_name}{' (in a virtual machine)' if measured.guest else ''}",
        kernel=measured.kernel,
        date=date,
        origin=origin,
        cpu=measured.cpu,
        assumptions=(
            (
                f"clear was timed on user memory ({measured.pages} pages, {_mapped(measured)}), which "
                "stands for the kernel's own mapping"
            ),
            *(
                f"the CPU's flags promise {each.label}, and it does not execute it"
                for each in measured.refused
            ),
            *((_IN_GUEST,) if measured.guest else ()),
            *(
                f"{each.threads} threads at once: {each.median_ns:.0f} ns a page and thread, "
                f"{each.median_rate / 2**30:.1f} GiB/s together"
                for each in together
            ),
        ),
        leaves_out=("the memory was never a TD's: turning private lines into shared ones",),
        steps={
            Action.CLEAR: StepCost(
                points=(
                    CostPoint(1, Span(round(times[0]), round(run.median_ns), round(times[-1]))),
                ),
                beyond=Beyond.HOLD,
                provenance=Provenance.MEASURED,
                source=(
                    f"{measured.rounds} rounds of {format_size(measured.size_bytes)}, "
                    f"{run.threads} thread{'s' if run.threads > 1 else ''}"
                ),
                stand_in=instead,
            )
        },
        rows=(),
    )


def _mapped(measured: Measured) -> str:
    if measured.huge_bytes is None:
        return "not known how much of it huge"
    return f"{measured.huge_bytes >> 20} of {measured.size_bytes >> 20} MiB huge"


def saturates_at(runs: Sequence[Run]) -> int | None:
    """The number of threads beyond which more add less than a tenth; None: not reached.

    None of fewer than two numbers of threads, too.
    """
    ordered = sorted(runs, key=lambda run: run.threads)
    for run, more in itertools.pairwise(ordered):
        if more.median_rate < _GAIN * run.median_rate:
            return run.threads
    return None
