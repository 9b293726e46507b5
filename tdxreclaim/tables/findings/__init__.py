"""The catalogue of findings: one row each; what `findings` prints is what `triage` uses.

To add a finding: add its row to `ROWS` of the topic's file, with a source and
how well that is known and, if a kernel line tells it, the pattern of the
message (what stands after the stamps, from its first character) and a sample
for each alternative of it; then run ``pytest --accept`` and review the golden
files.  Nothing else: the beginnings by which lines are looked for are derived.
A message is matched by at most one row (tested on the samples), so their order
means nothing but in print.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.tables.findings import bringup, host, machine_checks, stuck, teardown, times

if TYPE_CHECKING:
    from tdxreclaim.tables.findings.kind import Kind

CATALOGUE: tuple[Kind, ...] = (
    *host.ROWS,
    *bringup.ROWS,
    *teardown.ROWS,
    *machine_checks.ROWS,
    *stuck.ROWS,
    *times.ROWS,
)


def find_kind(kind_id: str) -> Kind | None:
    """Return the row of that id."""
    return next((kind for kind in CATALOGUE if kind.id == kind_id), None)
