"""Words of the output, explained as JSON (``tdxreclaim.explain/1``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.document import dump, tool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.report.explain.topics import Topic

SCHEMA = "tdxreclaim.explain/1"


def render(topics: Iterable[Topic]) -> str:
    """Return *topics* as one JSON object."""
    return dump(
        {
            "schema": SCHEMA,
            "tool": tool(),
            "topics": [
                {
                    "id": topic.id,
                    "kind": topic.kind,
                    "lines": [{"label": label, "text": text} for label, text in topic.lines],
                    "sources": list(topic.sources),
                }
                for topic in topics
            ],
        }
    )
