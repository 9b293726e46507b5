"""Faults to put into a simulated teardown; a seed says where they go."""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random
from typing import TYPE_CHECKING

from tdxreclaim.engine.plan import Order, Scope
from tdxreclaim.engine.states import LINES_PER_PAGE, Dirty, Health
from tdxreclaim.errors import UsageError
from tdxreclaim.tables.seamcalls import Leaf, Operand, Reply, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.engine.module import Machine
    from tdxreclaim.engine.shape import Shape

DEFAULT_PARTIAL_WRITES = 16
"""Partial writes that the host makes while it uses the memory again, unless told otherwise.

Assumed: any host makes some (a device writes the end of a packet, a driver
uses an uncached mapping); how many is not known.
"""


MAX_INJECTED = 1_000_000
"""Of one kind.  Each takes about a kilobyte while it lasts."""


TICK_EVERY = 1024
"""Faults between two ticks: some milliseconds."""


_BUSY = {
    Leaf.TDH_MEM_RANGE_BLOCK: Operand.SEPT_TREE,
    Leaf.TDH_MEM_TRACK: Operand.TD_EPOCH,
    Leaf.TDH_MEM_PAGE_REMOVE: Operand.SEPT_TREE,
}
"""Leaves whose TDX_OPERAND_BUSY the kernel retries, and what is busy; pages take turns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Injections:
    """What goes wrong.

    Raises:
        UsageError: a number is negative or over a million.
    """

    partial_writes: int | None = None
    """Lines that the host writes in part before it uses them otherwise; None: 16."""
    poison_hardware: int = 0
    """Guest lines with bad memory under them, not consumed by the guest."""
    poison_integrity: int = 0
    """Guest lines with integrity poison, not consumed by the guest."""
    busy: int = 0
    """Guest pages on which a leaf is busy once."""
    reclaim_fails: int = 0
    """Guest pages whose REMOVE (hkid-first: RECLAIM) fails for good."""
    fatal: bool = False
    """The TD was hit by a machine check before: it is FATAL."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and not 0 <= value <= MAX_INJECTED:
                name = each.name.replace("_", "-")
                raise UsageError(name, f"{value} is not between 0 and {MAX_INJECTED}")

    def check(self, shape: Shape) -> None:
        """See that they fit.

        Raises:
            UsageError: more pages or lines are asked for than the guest has.
        """
        if self.busy + self.reclaim_fails > shape.guest_pages:
            raise UsageError(
                "faults", f"busy and reclaim-fails exceed the guest's {shape.guest_pages} pages"
            )
        lines = shape.guest_pages * LINES_PER_PAGE
        if max(self.poison_hardware + self.poison_integrity, self.partial_writes or 0) > lines:
            raise UsageError("faults", f"more lines than the guest's {lines}")


NOTHING = Injections()


def busy_turns(busy: int) -> dict[Leaf, int]:
    """How many of the busy pages are busy at which leaf."""
    return {leaf: len(range(i, busy, len(_BUSY))) for i, leaf in enumerate(_BUSY)}


def put_in(
    injections: Injections,
    machine: Machine,
    shape: Shape,
    order: Order,
    seed: int,
    tick: Callable[[], None] = lambda: None,
) -> list[tuple[int, int]]:
    """Put the faults in, where *seed* says; the same seed, the same places.

    Each kind draws from a generator of its own, so that one more fault of one
    kind does not move the others.  *tick* is called now and then.  Returns page
    and line of the lines that were poisoned.
    """
    machine.td.fatal = injections.fatal
    guest = shape.span(Scope.GUEST_PAGE)
    pages = _draws("pages", seed).sample(guest, injections.busy + injections.reclaim_fails)
    busy, failing = pages[: injections.busy], pages[injections.busy :]
    for turn, page in enumerate(busy):
        machine.pages.isolate(page)
        leaf = list(_BUSY)[turn % len(_BUSY)]
        machine.script(leaf, page, Reply(Status.TDX_OPERAND_BUSY, _BUSY[leaf]))
    leaf, reply = _FAILURES[order]
    for page in failing:
        machine.pages.isolate(page)
        machine.script(leaf, page, reply)
    poisoned = [Health.POISON_HARDWARE] * injections.poison_hardware
    poisoned += [Health.POISON_INTEGRITY] * injections.poison_integrity
    lines = _draws("lines", seed).sample(range(len(guest) * LINES_PER_PAGE), len(poisoned))
    places = []
    for number, health in zip(lines, poisoned, strict=True):
        page, line = divmod(number, LINES_PER_PAGE)
        before = machine.line(page, line)
        # Poison is found on a line that memory holds; a newer copy in the cache
        # would be written over it.
        machine.set_line(page, line, before._replace(health=health, dirty=Dirty.NONE))
        places.append((page, line))
        if len(places) % TICK_EVERY == 0:
            tick()
    return places


_FAILURES = {
    Order.UPSTREAM: (
        Leaf.TDH_MEM_PAGE_REMOVE,
        Reply(Status.TDX_EPT_ENTRY_STATE_INCORRECT, Operand.RCX),
    ),
    # The one reclaim failure seen in the field (canonical/tdx 149).
    Order.HKID_FIRST: (
        Leaf.TDH_PHYMEM_PAGE_RECLAIM,
        Reply(Status.TDX_PAGE_METADATA_INCORRECT, Operand.RCX),
    ),
}


def partial_lines(injections: Injections, shape: Shape, seed: int) -> list[int]:
    """Line numbers over the guest's memory that the host writes in part."""
    lines = shape.guest_pages * LINES_PER_PAGE
    count = injections.partial_writes
    if count is None:
        count = min(DEFAULT_PARTIAL_WRITES, lines)
    return sorted(_draws("partial", seed).sample(range(lines), count))


def _draws(kind: str, seed: int) -> Random:
    """A generator for one kind of fault."""
    return Random(f"{kind} {seed}")  # noqa: S311 - where a fault goes is no secret
