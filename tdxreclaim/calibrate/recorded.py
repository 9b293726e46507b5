"""What was watched of a TD's shutdown, as a calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.calibrate.causes import rest_ns
from tdxreclaim.calibrate.fit import fit
from tdxreclaim.calibrate.observations import Observed
from tdxreclaim.costs.calibration import Row
from tdxreclaim.engine.plan import ClearWhen, Order
from tdxreclaim.engine.shape import Shape
from tdxreclaim.errors import UnmeasurableError
from tdxreclaim.units import PAGE_BYTES, Span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.costs.calibration import Calibration, HostRecord
    from tdxreclaim.costs.watch import Followed
    from tdxreclaim.costs.watched import Rate


class Measured(NamedTuple):
    """What pages of TDs cost that were watched."""

    page: Span
    pages: int
    vms: tuple[str, ...]


def measure(followed: Iterable[Followed]) -> Measured | None:
    """Put the TDs together; None: of none was enough seen."""
    rates = {each.vm.name: rate for each in followed if (rate := _rate(each)) is not None}
    if not rates:
        return None
    pages = sum(rate.pages for rate in rates.values())
    likely = round(sum(rate.seconds for rate in rates.values()) * 1e9 / pages)
    low = min(rate.page.low_ns for rate in rates.values())
    high = max(rate.page.high_ns for rate in rates.values())
    return Measured(Span(low, likely, high), pages, tuple(rates))


def _rate(each: Followed) -> Rate | None:
    rate = each.watched.rate()
    return None if rate is None or rate.coarse or each.td is None else rate


def published_page(base: Calibration) -> Span:
    """Return what a page cost in a calibration's own shutdowns: least, median, most."""
    costs = sorted(
        round(row.seconds * 1e9 * PAGE_BYTES / row.memory_bytes)
        for row in base.rows
        if row.order is Order.UPSTREAM
    ) or [0]
    return Span(costs[0], costs[len(costs) // 2], costs[-1])


def calibration(
    followed: Iterable[Followed], base: Calibration, *, clears: bool, origin: HostRecord
) -> Calibration:
    """The steps of a page as measured in sum, and a row for each TD.

    Raises:
        UnmeasurableError: nothing was seen of which a page's cost follows.
    """
    given = tuple(followed)
    found = [
        Observed(each.vm.name, _row(each, rate, base, clears=clears))
        for each in given
        if (rate := _rate(each)) is not None and each.memory_bytes and each.vcpus
    ]
    measured = measure(given)
    if not found or measured is None:
        raise UnmeasurableError("--record", why_not(given))
    page = measured.page
    margin = max(1 - page.low_ns / page.likely_ns, page.high_ns / page.likely_ns - 1)
    return fit(found, base, origin=origin, margin=margin).calibration


def why_not(followed: Iterable[Followed]) -> str:
    """Return why nothing can be recorded: what is missing, of the VM that has most."""
    given = tuple(followed)
    if not given:
        return "no VM was seen: nothing was measured"
    if all(each.td is None for each in given):
        return "none of the VMs is known to be a TD: say its size with --td SIZE:VCPUS"
    if all(each.td is None or _rate(each) is None for each in given):
        return "too few looks at a falling counter: nothing was measured"
    return "the TD's memory or vCPUs are not known: say them with --td SIZE:VCPUS"


def _row(each: Followed, rate: Rate, base: Calibration, *, clears: bool) -> Row:
    """A whole shutdown: its pages at the rate that was seen, and the rest as in *base*."""
    shape = Shape(memory_bytes=each.memory_bytes or 0, vcpus=each.vcpus or 0)
    row = Row(
        order=Order.UPSTREAM,
        clearing=ClearWhen.ALWAYS if clears else ClearWhen.NEVER,
        vcpus=shape.vcpus,
        memory_bytes=shape.memory_bytes,
        seconds=1,
        source=_seen(each, rate, shape, base),
    )
    whole_ns = rate.page.likely_ns * shape.guest_pages + rest_ns(row, base)
    return Row(
        order=row.order,
        clearing=row.clearing,
        vcpus=row.vcpus,
        memory_bytes=row.memory_bytes,
        seconds=round(whole_ns / 1e9, 6),
        source=row.source,
    )


def _seen(each: Followed, rate: Rate, shape: Shape, base: Calibration) -> str:
    stretches = ", ".join(
        f"{fall.pages} in {fall.seconds:.3f} s" for fall in each.watched.stretches
    )
    return (
        f"watch: pages_4k of a TD ({each.td}); {rate.pages} of {shape.guest_pages} pages between "
        f"looks that saw it fall, {rate.page.low_ns} to {rate.page.high_ns} ns a page; falling "
        f"stretches: {stretches}; what follows the pages as in {base.name}"
    )
