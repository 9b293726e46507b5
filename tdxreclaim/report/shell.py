"""Shell: ``NAME='value'`` lines that sh, bash, dash and zsh can ``eval``.

Every name is set on every run, to the empty string where there is nothing to
say, so that no value of an earlier run is left standing.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tdxreclaim.errors import TdxReclaimError
    from tdxreclaim.report.check.report import Report

SCHEMA = "tdxreclaim.shell/2"


NAMES = (
    "SCHEMA",
    "VERDICT",
    "MUST_CLEAR",
    "POSTURE",
    "RULE",
    "BECAUSE",
    "EXIT_STATUS",
    "WHOLE",
    "GAPS",
    "SILICON",
    "SILICON_ORIGIN",
    "CPU",
    "CODENAME",
    "HOST",
    "HOST_ORIGIN",
    "KERNEL",
    "KERNEL_ORIGIN",
    "KERNEL_RELEASE",
    "KEXEC",
    "FAKED",
    "ERROR",
)


def render(report: Report) -> str:
    """Return the report as assignments to ``TDXRECLAIM_*``.

    Booleans are ``1`` and ``0``; ``WHOLE`` is whether the evidence of the CPU
    is, ``GAPS`` what was not read; of several processors ``CPU`` is the one that
    decided.
    """
    decision = report.decision
    silicon = decision.silicon
    strictest = next((p for p in silicon.processors if p.silicon is silicon.status), None)
    must_clear = decision.verdict.must_clear
    return _assign(
        NAMES,
        VERDICT=decision.verdict,
        MUST_CLEAR="" if must_clear is None else str(int(must_clear)),
        POSTURE=decision.posture,
        RULE=decision.rule,
        BECAUSE=decision.because,
        EXIT_STATUS=str(int(decision.verdict.exit_status)),
        WHOLE=str(int(decision.coverage.whole)),
        GAPS="; ".join(f"{gap.place}: {gap.why}" for gap in decision.coverage.gaps),
        SILICON=silicon.status,
        SILICON_ORIGIN=silicon.origin,
        CPU=strictest.group.number if strictest else "",
        CODENAME=(strictest.codename or "") if strictest else "",
        HOST=decision.host.state,
        HOST_ORIGIN=decision.host.origin,
        KERNEL=decision.kernel.clearing,
        KERNEL_ORIGIN=decision.kernel.origin,
        KERNEL_RELEASE=decision.kernel.release or "",
        KEXEC=decision.kernel.kexec,
        FAKED=str(int(report.faked)),
    )


SIMULATE_NAMES = (
    "SCHEMA",
    "EXIT_STATUS",
    "SUMMARY",
    "LOW_NS",
    "LIKELY_NS",
    "HIGH_NS",
    "CLEARING_NS",
    "PLAN",
    "ORDER",
    "AFFECTED",
    "CLEARS",
    "PAGES_LEAKED",
    "PAGES_HANDED_BACK",
    "MACHINE_CHECKS",
    "CALIBRATION",
    "ERROR",
)


def render_simulation(values: Mapping[str, str]) -> str:
    """Return a simulation as assignments to those of `SIMULATE_NAMES` that *values* has."""
    return _assign(SIMULATE_NAMES, **values)


def render_error(error: TdxReclaimError) -> str:
    """Return an error as assignments: every name is empty but the status and ``ERROR``.

    And ``MUST_CLEAR``, which is 1: whoever does not know clears.
    """
    names = tuple(dict.fromkeys((*NAMES, *SIMULATE_NAMES)))
    why = f"{error.what}: {error.why}"
    return _assign(names, MUST_CLEAR="1", EXIT_STATUS=str(int(error.exit_status)), ERROR=why)


def _assign(names: tuple[str, ...], **values: str) -> str:
    lines = []
    for name in names:
        value = SCHEMA if name == "SCHEMA" else values.get(name, "")
        lines.append(f"TDXRECLAIM_{name}={_quote(value)}")
    return "\n".join(lines) + "\n"


def _quote(value: str) -> str:
    """Return *value* quoted, plain words too: one shape for every line."""
    quoted = shlex.quote(value)
    return quoted if quoted.startswith("'") else f"'{quoted}'"
