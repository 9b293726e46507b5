"""A watched shutdown as JSON, one object a line: ``tdxreclaim.watch/1``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.document import dump_line, tool
from tdxreclaim.report.watch.sentences import advice, how_far, meaning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdxreclaim.calibrate.recorded import Measured
    from tdxreclaim.costs.watch import Followed, Watch
    from tdxreclaim.units import Span

SCHEMA = "tdxreclaim.watch/1"


def render_sample(watch: Watch) -> str:
    """Return all VMs as they are now."""
    look = watch.look
    return dump_line(
        {
            "schema": SCHEMA,
            "event": "sample",
            "seconds": round(watch.seconds, 6),
            "total_pages": None if look is None else look.total,
            "hidden_pages": watch.hidden_pages,
            "broken": None if look is None else look.broken,
            "vms": [_vm(watch, each) for each in watch.followed.values()],
        }
    )


def _vm(watch: Watch, each: Followed) -> dict[str, object]:
    watched, look = each.watched, watch.look
    recent, left = watched.recent(), watched.left()
    here = look is not None and each.vm.name in look.pages
    return {
        "name": each.vm.name,
        "pid": each.vm.pid,
        "command": each.vm.command,
        "memory_bytes": each.memory_bytes,
        "vcpus": each.vcpus,
        "td": each.td,
        "process": look.lives.get(each.vm.name, "unknown") if look and here else "unknown",
        "state": watched.state,
        "meaning": meaning(each),
        "pages": watched.pages if here else None,
        "last_pages": watched.pages,
        "size_pages": watched.size_pages,
        "done": None if watched.done is None else round(watched.done, 6),
        "pages_a_second": None if recent is None else round(recent.pages_a_second, 1),
        "page": None if recent is None else recent.page._asdict(),
        "left": None if left is None else left._asdict(),
        "stuck_seconds": round(watched.stuck_seconds, 3),
    }


def render_end(
    watch: Watch,
    measured: Measured | None,
    published: Span,
    holders: Sequence[str] = (),
    *,
    status: int,
) -> str:
    """Return how it ended, and what it measured."""
    return dump_line(
        {
            "schema": SCHEMA,
            "tool": tool(),
            "event": "end",
            "exit_status": status,
            "how_far": how_far(watch),
            "stuck": [each.vm.name for each in watch.stuck],
            "failed": [each.vm.name for each in watch.failed],
            "advice": advice(watch, holders),
            "measured": None
            if measured is None
            else {
                "page": measured.page._asdict(),
                "pages": measured.pages,
                "vms": list(measured.vms),
            },
            "published_page": published._asdict(),
            "observed_on_tdx_before": False,
        }
    )
