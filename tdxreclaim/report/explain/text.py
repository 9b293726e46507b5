"""A word of the output, explained in text."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from tdxreclaim.report.page import Page

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tdxreclaim.report.explain.topics import Topic


def render(topics: Iterable[Topic], *, width: int = 80, color: bool = False) -> str:
    """Return *topics* as text of *width* columns."""
    page = Page(width, color=color)
    for number, topic in enumerate(topics):
        if number:
            page.blank()
        page.paragraph(f"{topic.id} ({topic.kind})", "bold")
        for label, text in topic.lines:
            page.labelled(label, text)
        for source in topic.sources:
            page.labelled("source", source)
    return page.text()


def render_list(topics: Sequence[Topic], *, width: int = 80, color: bool = False) -> str:
    """Return the names of *topics*, kind by kind."""
    page = Page(width, color=color)
    page.paragraph("tdxreclaim explain TOPIC explains any of these, a kernel release (6.17),")
    page.paragraph("a CPU (gnr) or a status of the TDX module (0xc000030000000001).")
    for kind, group in groupby(topics, lambda topic: topic.kind):
        page.blank()
        page.paragraph(kind, "bold")
        page.paragraph(", ".join(topic.id for topic in group), first="  ", indent=2)
    return page.text()
