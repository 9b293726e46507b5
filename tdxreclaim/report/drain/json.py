"""How long it takes to empty a host, as JSON: ``tdxreclaim.drain/1``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.document import coverage, dump, tool

if TYPE_CHECKING:
    from tdxreclaim.costs.drain import Drain, Schedule
    from tdxreclaim.report.drain.plan import DrainPlan

SCHEMA = "tdxreclaim.drain/1"


def render(plan: DrainPlan) -> str:
    """Return the plan as one JSON object."""
    drain, scene = plan.drain, plan.scene
    return dump(
        {
            "schema": SCHEMA,
            "tool": tool(),
            "source": plan.source,
            "host": {
                "cpu": scene.cpu,
                "affected": scene.platform.erratum,
                "kernel": scene.kernel,
                "cpus": plan.cpus,
                "bandwidth_bytes_a_second": plan.bandwidth,
            },
            "coverage": coverage(plan.decision.coverage),
            "tds": [
                {
                    "name": td.name,
                    "memory_bytes": td.memory_bytes,
                    "vcpus": td.vcpus,
                    "alone": estimate.total._asdict(),
                }
                for td, estimate in zip(drain.tds, drain.estimates, strict=True)
            ],
            "bounds": {"longest": drain.longest._asdict(), "sum": drain.sum._asdict()},
            "schedules": [_schedule(drain, name, each) for name, each in plan.schedules],
            "calibration": plan.calibration.name,
            "warnings": list(plan.cautions),
        }
    )


def _schedule(drain: Drain, name: str, schedule: Schedule) -> dict[str, object]:
    return {
        "rule": name.replace(" ", "-"),
        "at_once": schedule.at_once,
        "total": schedule.total._asdict(),
        "by_cause": {cause: span._asdict() for cause, span in schedule.by_cause},
        "limited_by_bandwidth": schedule.limited,
        "bytes_a_second": round(schedule.bytes_a_second),
        "slots": [
            {
                "td": drain.tds[slot.number].name,
                "start_ns": slot.start_ns,
                "lock_ns": slot.lock_ns,
                "end_ns": slot.end_ns,
            }
            for slot in schedule.slots
        ],
    }
