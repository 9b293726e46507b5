"""What each state of a watched VM means, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from tdxreclaim.costs.watched import State
from tdxreclaim.tables.kernels import FAILURES_STAY_SINCE
from tdxreclaim.units import format_ns, format_percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdxreclaim.calibrate.recorded import Measured
    from tdxreclaim.costs.watch import Followed, Watch
    from tdxreclaim.units import Span

NEVER_OBSERVED = (
    "How a TD's counter falls is read from the kernel's code: it was never observed on a TDX "
    "host.  A record of yours would be the first (--record)."
)


def meaning(each: Followed) -> str:
    """Return what the state of a VM means."""
    watched = each.watched
    match watched.state:
        case State.RUNNING:
            return "no shutdown is seen"
        case State.COUNTING_DOWN:
            return "KVM takes its pages back"
        case State.STANDING:
            return f"no page for {_for(watched.stuck_seconds)}"
        case State.ZERO:
            return "no page is mapped; a descriptor of it is still open"
        case State.GONE_AFTER_ZERO if not watched.most:
            return "no page of it was ever seen"
        case State.GONE_AFTER_ZERO:
            return "all pages are back; HKID and control pages are not visible here"
        case State.GONE_WITH_VALUE:
            return f"gone with {watched.pages or 0:,} pages: torn down out of sight, no rate"
        case _:
            assert_never(watched.state)


def advice(watch: Watch, holders: Sequence[str]) -> list[str]:
    """Return what to look at where something is stuck or failed."""
    said = []
    for each in watch.stuck:
        what = "a page" if each.watched.state is State.STANDING else "its end"
        said.append(
            f"{each.vm.name} is stuck: over {_for(each.watched.patience)} without {what}.  Who still "
            "holds a VM, vCPU or guest_memfd descriptor of it?"
        )
        if each.vm.pid is not None:
            said.append(f"Look at /proc/{each.vm.pid}/task/*/stack and at the kernel log.")
    if said:
        said.extend(f"holds KVM: {holder}" for holder in holders)
        if watch.failures_stay:
            said.append(
                f"On {FAILURES_STAY_SINCE} and later a page whose removal fails does not count down."
            )
    said.extend(
        f"{each.vm.name} went with {each.watched.left_behind:,} pages: on {FAILURES_STAY_SINCE} and "
        "later these may be pages whose removal failed, which the host then reuses.  Look for SEAMCALL "
        "errors: dmesg | tdxreclaim triage --from -"
        for each in watch.failed
    )
    if watch.hidden_pages:
        said.append(
            f"{watch.hidden_pages:,} pages are of VMs without a folder (a reused thread and "
            "descriptor number): they cannot be watched one by one."
        )
    return said


def how_far(watch: Watch) -> str:
    """Return in one phrase how far all VMs are."""
    if not watch.followed:
        return "no VM was seen"
    return "; ".join(_how_far(each) for each in watch.followed.values())


def _how_far(each: Followed) -> str:
    watched = each.watched
    done = "" if watched.done is None else f" at {format_percent(watched.done)}"
    return f"{each.vm.name} {watched.state}{done}, {watched.pages or 0:,} pages left"


def result(measured: Measured | None, published: Span) -> str | None:
    """Return what a page cost here, beside what the published rows say."""
    if measured is None:
        return None
    return (
        f"On this host a page costs {page_cost(measured.page)}; the published rows say "
        f"{published.low_ns / 1000:.0f} to {published.high_ns / 1000:.0f} us."
    )


def page_cost(page: Span) -> str:
    """Return ``14.1 us (13.8 to 15.0)``.

    >>> from tdxreclaim.units import Span
    >>> page_cost(Span(13_800, 14_100, 15_000))
    '14.1 us (13.8 to 15.0)'
    """
    if page.high_ns < 1000:  # noqa: PLR2004  (a microsecond)
        return f"{page.likely_ns} ns ({page.low_ns} to {page.high_ns})"
    low, likely, high = (f"{ns / 1000:.1f}" for ns in page)
    return f"{likely} us ({low} to {high})"


def _for(seconds: float) -> str:
    return format_ns(round(seconds * 1e9))
