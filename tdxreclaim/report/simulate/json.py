"""A simulated teardown as JSON: ``tdxreclaim.simulate/2``.

Times are integers, in nanoseconds, in threes: low, likely, high.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.costs.estimate import degrees_of_freedom
from tdxreclaim.engine.states import describe
from tdxreclaim.report.document import coverage, dump, tool
from tdxreclaim.report.simulate.text import PHASE_NAMES, headline
from tdxreclaim.tables.sources import Certainty
from tdxreclaim.tables.teardown import Action

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.costs.calibration import Calibration
    from tdxreclaim.costs.estimate import Validation
    from tdxreclaim.engine.recorder import Event
    from tdxreclaim.engine.scenarios import Scenario
    from tdxreclaim.engine.teardown import FailedPages
    from tdxreclaim.report.simulate.simulation import Simulation

SCHEMA = "tdxreclaim.simulate/2"


SCENARIO_SCHEMA = "tdxreclaim.scenario/2"


VALIDATE_SCHEMA = "tdxreclaim.validate/2"


def render(simulation: Simulation) -> str:
    """Return the simulation as one JSON object."""
    result, scene, shape = simulation.result, simulation.scene, simulation.shape
    estimate = result.estimate
    document: dict[str, object] = {
        "schema": SCHEMA,
        "tool": tool(),
        "summary": headline(simulation),
        "exit_status": int(simulation.exit_status),
        "td": {
            "memory_bytes": shape.memory_bytes,
            "mapped_bytes": shape.mapped_bytes,
            "vcpus": shape.vcpus,
            "guest_pages": shape.guest_pages,
            "sept_pages": shape.sept_pages,
            "control_pages": shape.control_pages,
        },
        "host": {
            "source": simulation.source,
            "origins": list(simulation.report.origins),
            "faked": simulation.report.faked,
            "cpu": scene.cpu,
            "verdict": simulation.decision.verdict,
            "rule": simulation.decision.rule,
            "coverage": coverage(simulation.decision.coverage),
            "affected": scene.platform.erratum,
            "mode": scene.platform.mode,
            "seam_nr": scene.platform.seam_nr,
            "packages": scene.platform.packages,
            "kernel": scene.kernel,
        },
        "plan": {
            "name": scene.plan.name,
            "order": scene.plan.order,
            "clearing": scene.plan.clearing,
            "clears": result.clears,
            "released": scene.plan.released,
            "certainty": scene.plan.certainty.name.lower(),
            "steps": [
                {
                    "phase": stage.phase,
                    "scope": stage.scope,
                    "step": step.action,
                    "label": step.action.label,
                    "certainty": step.certainty.name.lower(),
                    "source": step.source,
                }
                for stage, step in scene.plan.lines(erratum=scene.platform.erratum)
            ],
        },
        "estimate": {
            "total": estimate.total._asdict(),
            "has_likely": estimate.has_likely,
            "causes": {cause: span._asdict() for cause, span in estimate.causes.items()},
            "contradictions": list(estimate.contradictions),
            "clearing": estimate.action(Action.CLEAR)._asdict(),
            "clearing_share": round(estimate.clearing_share, 4),
            "phases": [
                {"phase": phase, "name": name, **estimate.phase(phase)._asdict()}
                for phase, name in PHASE_NAMES.items()
            ],
            "steps": [
                {
                    "phase": step.phase,
                    "step": step.action,
                    "label": step.action.label,
                    "count": step.count,
                    "each": step.each._asdict(),
                    "total": step.total._asdict(),
                    "provenance": step.provenance,
                    **({"stand_in": step.stand_in} if step.stand_in else {}),
                }
                for step in estimate.steps
            ],
        },
        "what_ifs": [
            {
                "kernel": what_if.label,
                "order": what_if.plan.order,
                "affected": what_if.affected,
                "clears": what_if.clears,
                "current": what_if.current,
                "clearing_share": round(what_if.estimate.clearing_share, 4),
                **what_if.estimate.total._asdict(),
            }
            for what_if in simulation.what_ifs
        ],
        "outcome": {
            "pages_in": result.pages_in,
            "pages_reclaimed": result.pages_reclaimed,
            "pages_leaked": result.pages_leaked,
            "leaks": _failed(result.leaked),
            "pages_handed_back": result.pages_handed_back,
            "handed_back": _failed(result.handed_back),
            "handed_back_known_by": _known_by(simulation),
            "overwritten_lines": result.overwritten_lines,
            "hazards": {hazard.value: pages for hazard, pages in result.hazards.items()},
            "unsafe_pages": simulation.unsafe_pages,
            "partial_writes": result.partial_writes,
            "partial_writes_skipped": result.partial_writes_skipped,
            "machine_check_count": result.machine_check_count,
            "contested_reads": result.contested_reads,
            "machine_checks": [
                {
                    "address": check.address,
                    "pfn": check.pfn,
                    "line": check.line,
                    "by": check.by,
                    "key": check.key,
                    "cause": check.cause.name.lower(),
                }
                for check in result.machine_checks
            ],
        },
        "seed": result.seed,
        "calibration": {
            "name": simulation.calibration.name,
            "host": simulation.calibration.host,
            "kernel": simulation.calibration.kernel,
            "date": simulation.calibration.date,
            "origin": simulation.calibration.origin,
        },
        "warnings": list(simulation.warnings),
        "extrapolates": [each.what for each in estimate.extrapolates],
        "caveats": list(simulation.caveats),
    }
    if simulation.trace:
        document["trace"] = _events(result.events)
    if result.lives:
        document["lives"] = {f"{pfn:#x}": _events(life) for pfn, life in result.lives.items()}
    return dump(document)


def _failed(failed: Iterable[FailedPages]) -> list[dict[str, object]]:
    return [
        {
            "pages": each.pages,
            "scope": each.failure.scope,
            "reason": each.failure.reason,
            "step": each.failure.action,
            "status": str(each.failure.reply) if each.failure.reply else None,
            "pfns": list(each.pfns),
        }
        for each in failed
    ]


def _known_by(simulation: Simulation) -> dict[str, object] | None:
    """How well it is known that such pages are handed back; None where none was."""
    if not simulation.result.handed_back:
        return None
    return {"certainty": Certainty.INFERRED, "source": simulation.handed_back_source}


def render_validation(calibration: Calibration, rows: tuple[Validation, ...]) -> str:
    """Return published and emulated totals as one JSON object."""
    return dump(
        {
            "schema": VALIDATE_SCHEMA,
            "tool": tool(),
            "warnings": list(calibration.warnings()),
            "degrees_of_freedom": degrees_of_freedom(calibration),
            "rows": [
                {
                    "order": each.row.order,
                    "vcpus": each.row.vcpus,
                    "memory_bytes": each.row.memory_bytes,
                    "published_ns": each.published_ns,
                    "emulated": each.emulated._asdict(),
                    "error": round(each.error, 6),
                    "source": each.row.source,
                }
                for each in rows
            ],
        }
    )


def render_scenarios(scenarios: Iterable[Scenario], *, played: bool) -> str:
    """Return scenarios as one JSON object, with what happened if they are *played*."""
    return dump(
        {
            "schema": SCENARIO_SCHEMA,
            "tool": tool(),
            "scenarios": [
                {
                    "name": scenario.name,
                    "says": scenario.says,
                    **({"acts": _acts(scenario)} if played else {}),
                }
                for scenario in scenarios
            ],
        }
    )


def _acts(scenario: Scenario) -> list[dict[str, object]]:
    return [
        {
            "mode": act.platform.mode,
            "affected": act.platform.erratum,
            "seam_nr": act.platform.seam_nr,
            "packages": act.platform.packages,
            "owned_reads_poison": act.platform.owned_reads_poison,
            "steps": [
                {
                    "did": step.did,
                    "status": str(step.reply) if step.reply is not None else None,
                    "seen": step.seen,
                    "machine_check": step.machine_check,
                    "page_type": step.page_type.name,
                    "sept": step.sept,
                    "line": describe(step.line),
                    "note": step.note,
                    "certainty": step.certainty.name.lower(),
                    "source": step.source,
                }
                for step in act.steps
            ],
        }
        for act in scenario.run()
    ]


def _events(events: Iterable[Event]) -> list[dict[str, object]]:
    return [
        {
            "at_ns": event.at_ns,
            "phase": event.phase,
            "did": "fault" if event.did is None else event.did,
            "scope": event.scope,
            "number": event.number,
            "pfn": event.pfn,
            "line": event.line,
            "status": str(event.reply) if event.reply is not None else None,
            "seen": event.seen,
            "before": describe(event.before) if event.before is not None else None,
            "after": describe(event.after) if event.after is not None else None,
        }
        for event in events
    ]
