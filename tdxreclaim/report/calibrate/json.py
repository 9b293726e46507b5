"""Calibrations and what they were made of as JSON: ``tdxreclaim.calibrate/2``.

A calibration itself is as in its TOML file (``tdxreclaim.calibration/1``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.calibrate.clear import saturates_at
from tdxreclaim.costs.calibration import SCHEMA as CALIBRATION_SCHEMA
from tdxreclaim.costs.calibration import Calibration, CostPoint, HostRecord, Provenance, StepCost
from tdxreclaim.report.document import dump, tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tdxreclaim.calibrate.causes import Explanation
    from tdxreclaim.calibrate.diff import Change
    from tdxreclaim.calibrate.fit import Fit
    from tdxreclaim.calibrate.recordings import Recording
    from tdxreclaim.facts.measure import Measured, Run
    from tdxreclaim.units import Span

SCHEMA = "tdxreclaim.calibrate/2"


def render_calibration(calibration: Calibration) -> str:
    """Return a calibration as one JSON object."""
    return dump(_calibration(calibration))


def render_clear(measured: Measured, calibration: Calibration) -> str:
    """Return a measured clear and the calibration made of it."""
    return _document(
        "clear",
        measured={
            "store": measured.store,
            "stand_in": measured.is_stand_in,
            "refused": list(measured.refused),
            "guest": measured.guest,
            "cpu": measured.cpu,
            "model_name": measured.model_name,
            "kernel": measured.kernel,
            "size_bytes": measured.size_bytes,
            "pages": measured.pages,
            "huge_bytes": measured.huge_bytes,
            "node": measured.node,
            "rounds": measured.rounds,
            "cleared": [_run(run) for run in measured.cleared],
            "streamed": _run(measured.streamed),
            "plain": _run(measured.plain),
            "ratio": round(measured.ratio, 3),
            "saturates_at_threads": saturates_at(measured.cleared),
        },
        calibration=_calibration(calibration),
    )


def render_trace(
    recording: Recording, calibration: Calibration, warnings: Sequence[str] = ()
) -> str:
    """Return what a recording holds and the calibration made of it."""
    kernels = recording.kernels
    return _document(
        "trace",
        recording={
            "form": recording.form,
            "times": {
                action: {"count": times.samples, **times.span._asdict()}
                for action, times in recording.times.items()
            },
            "cpus": {str(cpu): count for cpu, count in recording.cpus.items()},
            "interrupted": recording.interrupted,
            "lost": recording.lost,
            "lost_events": recording.lost_events,
            "lost_notices": recording.lost_notices,
            "nested": recording.nested,
            "other_functions": recording.other_functions,
            "functions": list(recording.functions),
            "kernels": None
            if kernels is None
            else {
                "since": ".".join(map(str, kernels[0])),
                "until": None if kernels[1] is None else ".".join(map(str, kernels[1])),
            },
        },
        warnings=list(warnings),
        calibration=_calibration(calibration),
    )


def render_fit(fit: Fit, calibration: Calibration) -> str:
    """Return what a fit found, its residuals and the calibration made of it."""
    outlier = fit.outlier
    return _document(
        "fit",
        fit={
            "page": fit.page._asdict(),
            "cause": fit.used.cause,
            "causes": [_cause(each) for each in fit.causes],
            "excluded": [_cause(each) for each in fit.excluded],
            "undetermined": [each._asdict() for each in fit.undetermined],
            "residuals": [
                {
                    "row": each.observed.where,
                    "observed_seconds": each.observed.row.seconds,
                    "fitted_seconds": round(each.fitted_seconds, 3),
                    "error": round(each.error, 6),
                    "outlier": each.outlier,
                }
                for each in fit.residuals
            ],
            "rows_left_over": fit.used.left_over,
            "outlier": None if outlier is None else outlier.observed.where,
        },
        warnings=list(fit.warnings),
        calibration=_calibration(calibration),
    )


def _cause(found: Explanation) -> dict[str, object]:
    return {
        "cause": found.cause,
        "page_ns": round(found.page_ns, 1),
        "growth_ns": round(found.growth_ns, 3),
        "clear_ns": round(found.clear_ns, 1),
        "clear_determined": found.clear_determined,
        "worst_error": round(found.worst, 6),
    }


def render_list(calibrations: Iterable[Calibration]) -> str:
    """Return the names of calibrations and where they come from."""
    return _document("list", calibrations=[_fields(each.itself) for each in calibrations])


def render_diff(
    one: Calibration, other: Calibration, changes: Iterable[Change], *, vcpus: int
) -> str:
    """Return two calibrations step by step."""
    return _document(
        "diff",
        diff={
            "one": one.name,
            "other": other.name,
            "vcpus": vcpus,
            "steps": [
                {
                    "step": each.action,
                    "one": _compared(each.one, each.one_known, each.one_instead),
                    "other": _compared(each.other, each.other_known, each.other_instead),
                    "ratio": None if each.ratio is None else round(each.ratio, 4),
                }
                for each in changes
            ],
        },
    )


def _compared(span: Span, known: Provenance, instead: str | None) -> dict[str, object]:
    stand_in = {} if instead is None else {"stand_in": instead}
    return {**span._asdict(), "provenance": known, **stand_in}


def _document(command: str, **parts: object) -> str:
    return dump({"schema": SCHEMA, "tool": tool(), "command": command, **parts})


def _calibration(calibration: Calibration) -> dict[str, object]:
    return {
        "schema": CALIBRATION_SCHEMA,
        "record": {
            **_fields(calibration.itself),
            "assumptions": list(calibration.assumptions),
            "leaves_out": list(calibration.leaves_out),
            **({} if calibration.fitted is None else {"fitted": calibration.fitted}),
        },
        "sources": [_fields(each) for each in calibration.sources],
        "steps": {action: _step(cost) for action, cost in calibration.steps.items()},
        "rows": [
            {
                "order": row.order,
                "clearing": row.clearing,
                "vcpus": row.vcpus,
                "memory_bytes": row.memory_bytes,
                "seconds": row.seconds,
                "source": row.source,
            }
            for row in calibration.rows
        ],
    }


def _fields(origin: HostRecord) -> dict[str, object]:
    return {name: value for name, value in origin.fields().items() if value is not None}


def _step(cost: StepCost) -> dict[str, object]:
    document: dict[str, object] = {"provenance": cost.provenance, "source": cost.source}
    if cost.stand_in is not None:
        document["stand_in"] = cost.stand_in
    if cost.taken_from is not None:
        document["taken_from"] = cost.taken_from
    if cost.is_plain:
        return document | cost.points[0].cost._asdict()
    points = [_point(point) for point in cost.points]
    return document | {
        "beyond": cost.beyond,
        "grows_with": list(cost.grows_with),
        "points": points,
    }


def _point(point: CostPoint) -> dict[str, int]:
    at = {"vcpus": point.vcpus, "memory_bytes": point.memory_bytes}
    known = {name: value for name, value in at.items() if value is not None}
    return known | point.cost._asdict()


def _run(run: Run) -> dict[str, object]:
    times, rates = run.ns_a_page, run.bytes_a_second
    return {
        "threads": run.threads,
        "ns_a_page": {
            "low": round(times[0], 1),
            "median": round(run.median_ns, 1),
            "high": round(times[-1], 1),
        },
        "bytes_a_second": {
            "low": round(rates[0]),
            "median": round(run.median_rate),
            "high": round(rates[-1]),
        },
    }
