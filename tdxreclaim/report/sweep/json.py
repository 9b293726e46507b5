"""A sweep as JSON: ``tdxreclaim.sweep/1``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.document import dump, tool
from tdxreclaim.report.sweep.summary import show

if TYPE_CHECKING:
    from tdxreclaim.report.sweep.summary import Policy, Sweep
    from tdxreclaim.sweep.axes import Axis
    from tdxreclaim.sweep.kinds import Value
    from tdxreclaim.sweep.tally import Times

SCHEMA = "tdxreclaim.sweep/1"


def render(sweep: Sweep) -> str:
    """Return the sweep as one JSON object."""
    plan, calibration = sweep.job.plan, sweep.job.calibration
    return dump(
        {
            "schema": SCHEMA,
            "tool": tool(),
            "plan": {
                "digest": plan.digest,
                "command": plan.command,
                "trials": plan.trials,
                "drawn": plan.drawn,
                "seed": plan.seed,
                "axes": {axis.name: _axis(axis) for axis in plan.axes},
            },
            "calibration": {
                "name": calibration.name,
                "digest": sweep.calibration_digest,
                "host": calibration.host,
                "kernel": calibration.kernel,
                "origin": calibration.origin,
            },
            "trials": sweep.times.trials,
            "trials_outside_timed": sweep.tally.outside,
            "time": _times(sweep.times, plan.quantiles),
            "policies": [_policy(each, plan.quantiles) for each in sweep.policies],
            "spread": [
                {"axis": each.axis.name, "share": round(each.share, 4)} for each in sweep.explained
            ],
            "range_factor": round(sweep.own_range, 3),
            "cautions": list(sweep.cautions),
        }
    )


def _axis(axis: Axis) -> dict[str, object]:
    if axis.is_range:
        low, high = map(_value, axis.ends())
        return {"from": low, "to": high}
    return {"values": list(map(_value, axis.values))}


def _value(value: Value) -> object:
    return value if isinstance(value, int) else show(value)


def _policy(policy: Policy, quantiles: tuple[float, ...]) -> dict[str, object]:
    return {
        "order": policy.order,
        "clearing": policy.clearing,
        "kernels": list(policy.kernels),
        "unsafe_on": list(policy.unsafe_on),
        "time": _times(policy.times, quantiles),
        "by_memory": [
            {"memory_bytes": each.memory_bytes, **_times(each.times, quantiles)}
            for each in policy.sizes
        ],
    }


def _times(times: Times, quantiles: tuple[float, ...]) -> dict[str, object]:
    return {
        "trials": times.trials,
        "least_ns": times.least_ns,
        "most_ns": times.most_ns,
        "quantiles": [
            {"percent": percent, **times.quantile(percent)._asdict()} for percent in quantiles
        ],
    }
