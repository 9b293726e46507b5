"""What a page costs on a host, out of the shutdowns that were timed there.

A shutdown's time is a page's cost times its pages, plus what does not depend on
them, which is small and as in the base.  For each cause that may drive a page's
cost (nothing, vCPUs, memory) `fit` solves for one cost, by least squares of the
relative errors.  The steps of a page share it as in the base: rows tell no more
than the sum.  A cause that the rows leave open stays open: its curve is the
base's, through these rows.

Numbers are floats here: they end as integer nanoseconds, with a range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.calibrate.causes import (
    Explanation,
    Timed,
    amount,
    find_causes,
    find_outlier,
    rest_ns,
)
from tdxreclaim.calibrate.curves import calibration_of
from tdxreclaim.costs.calibration import Calibration, CostCause, HostRecord
from tdxreclaim.engine.plan import Order
from tdxreclaim.errors import MalformedInputError
from tdxreclaim.tables.teardown import Action
from tdxreclaim.units import Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tdxreclaim.calibrate.observations import Observed


# Shutdowns that no cause brings closer than this are not explained.
_EXPLAINED = 0.15


class Undetermined(NamedTuple):
    """What the rows cannot tell, and why."""

    what: str
    why: str


class Residual(NamedTuple):
    """A shutdown beside what the fit makes of it."""

    observed: Observed
    fitted_seconds: float
    outlier: bool

    @property
    def error(self) -> float:
        """Fitted over observed, less one."""
        return self.fitted_seconds / self.observed.row.seconds - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What came out."""

    calibration: Calibration
    """The steps of a page; the others have to come from elsewhere."""
    page: Span
    """What a page cost over all rows that were used, nanoseconds."""
    causes: tuple[Explanation, ...]
    """Those that the rows do not exclude; the first one was used."""
    excluded: tuple[Explanation, ...]
    undetermined: tuple[Undetermined, ...]
    residuals: tuple[Residual, ...]

    @property
    def used(self) -> Explanation:
        """The explanation that the calibration is made of."""
        return self.causes[0]

    @property
    def outlier(self) -> Residual | None:
        """The row that was left out."""
        return next((each for each in self.residuals if each.outlier), None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against using it."""
        if self.used.worst <= _EXPLAINED:
            return ()
        off = f"no cause explains these shutdowns: the best is {self.used.worst:.0%} off"
        return (
            f"{off}. Are memory, vCPUs and kernel right, and were the TDs shut down one at a time?",
        )


def fit(
    observed: Sequence[Observed], base: Calibration, *, origin: HostRecord, margin: float = 0.01
) -> Fit:
    """Solve for what a page costs; what is not of a page is as in *base*.

    One row is left out if without it the others fit and it is far off.  Rows of
    an order that no release has are not used.  *margin* is the least range that
    a page's cost gets, as a share of it.

    Raises:
        MalformedInputError: no row is of an order that a release has, or one
            is shorter than what does not depend on its pages.
    """
    given = [each for each in observed if each.row.order is Order.UPSTREAM]
    if not given:
        raise MalformedInputError(origin.name, "rows: none in the order of a release (upstream)")
    clear = base.steps[Action.CLEAR].at(1).likely_ns
    rows = [Timed(each.row, rest_ns(each.row, base)) for each in given]
    for each, timed in zip(given, rows, strict=True):
        if timed.page_ns <= clear * timed.clears:
            why = f"{each.where}.seconds: less than what this takes beside its pages"
            raise MalformedInputError(origin.name, why)
    outlier = find_outlier(rows, clear)
    used = [timed for number, timed in enumerate(rows) if number != outlier]
    possible, excluded = find_causes(used, clear)
    costs = sorted(round(each.page_ns) for each in used)
    return Fit(
        calibration=calibration_of(used, possible, base, origin, margin),
        page=Span(costs[0], costs[len(costs) // 2], costs[-1]),
        causes=possible,
        excluded=excluded,
        undetermined=tuple(_undetermined(used, possible)),
        residuals=tuple(
            Residual(each, possible[0].seconds(timed), number == outlier)
            for number, (each, timed) in enumerate(zip(given, rows, strict=True))
        ),
    )


def _undetermined(rows: Sequence[Timed], possible: Sequence[Explanation]) -> Iterator[Undetermined]:
    for cause, name in ((CostCause.VCPUS, "vCPUs"), (CostCause.MEMORY, "memory")):
        if len({amount(cause, timed.row) for timed in rows}) == 1:
            why = f"all of these had the same {name}: time one with other {name}"
            yield Undetermined(f"whether a page costs more with {name}", why)
    if len(possible) > 1 and possible[0].cause is not CostCause.NOTHING:
        yield Undetermined(
            f"whether {' or '.join(each.cause for each in possible)} makes a page dearer",
            "both grow together here: time two TDs of one size with different vCPUs",
        )
    if not possible[0].clear_determined:
        kind = "clear" if rows[0].clears else "do not clear"
        why = f"all of these {kind}: time one under a kernel of the other kind, or calibrate clear"
        yield Undetermined("the clear", why)
    yield Undetermined(
        "how the steps of a page share its cost", "a shutdown tells the sum: calibrate trace"
    )
