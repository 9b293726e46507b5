"""A fleet as JSON lines, a host a line: what ``--shard`` writes and ``merge`` reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tdxreclaim.fleet.answer import ROW_SCHEMA, write_row
from tdxreclaim.fleet.documents import (
    FINDING_SCHEMA,
    PART_SCHEMA,
    REFUSED_SCHEMA,
    SOURCE_SCHEMA,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.fleet.tally import Fleet


def render(fleet: Fleet, part: tuple[int, int] = (1, 1)) -> Iterator[str]:
    """Return the lines; *part* is which of how many."""
    for document in _documents(fleet, part):
        yield json.dumps(document) + "\n"


def _documents(fleet: Fleet, part: tuple[int, int]) -> Iterator[dict[str, object]]:
    # A contradictory host is written once for each answer, which finds it again.
    again = sum(len(answers) - 1 for _, answers in fleet.contradictory)
    yield {
        "schema": PART_SCHEMA,
        "part": part[0],
        "of": part[1],
        "duplicates": fleet.duplicates - again,
    }
    for source, answers in fleet.sources:
        yield {"schema": SOURCE_SCHEMA, "source": source, "answers": answers}
    for name, several in fleet.contradictory:
        for answer in several:
            yield {
                "schema": ROW_SCHEMA,
                "host": name,
                "memory_bytes": fleet.memory_of(name),
                **write_row(answer),
            }
    for group in fleet.groups:
        row = write_row(group.answer)
        for name in group.names:
            memory = fleet.memory_of(name)
            yield {"schema": ROW_SCHEMA, "host": name, "memory_bytes": memory, **row}
    for one in fleet.refused:
        yield {"schema": REFUSED_SCHEMA, "source": one.what, "why": one.why}
    for found in fleet.findings:
        yield {
            "schema": FINDING_SCHEMA,
            "id": found.id,
            "severity": found.severity,
            "hosts": list(found.hosts),
        }
