"""The emulator against what one would write first.

Every figure is a ratio of timings from this one run: the machine may be slow
or shared, its ratios are not.  Run: python benchmarks/engine.py [TIB]
"""

from __future__ import annotations

import resource
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from tdxreclaim.costs.simulate import simulate
from tdxreclaim.costs.toml import load
from tdxreclaim.engine.faults import Injections
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLANS
from tdxreclaim.engine.shape import Shape
from tdxreclaim.engine.truth import Mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.costs.simulate import Result

ROOT = Path(__file__).resolve().parent.parent
CALIBRATION = load((ROOT / "tdxreclaim/costs/calibrations/published.toml").read_text(), "published")
PLATFORM = Platform(mode=Mode.CI, erratum=True, packages=2)
PLAN = PLANS["6.18"]
PEER_PAGES = 100_000
MAX_LISTED = 1000


@dataclass
class PeerPage:
    """A page as one would write it first: an object with fields."""

    use: str
    owner: bool
    mac: bool
    poison: str | None
    dirty: str | None


class Peer:
    """A teardown page by page over a dictionary of pages.

    It answers what the emulator answers: statuses, steps and time, leaks with
    their reason, hazards, machine checks with their addresses.
    """

    def __init__(self, pages: int) -> None:
        self.pages = {n: PeerPage("mapped", True, True, None, "td") for n in range(pages)}
        self.lifecycle = "keys-configured"
        self.fatal = False
        self.children = pages
        self.epoch = 0
        self.blocked: dict[int, int] = {}
        self.steps: Counter[str] = Counter()
        self.leaks: list[tuple[int, str, str]] = []
        self.hazards: Counter[str] = Counter()
        self.machine_checks: list[int] = []
        self.machine_check_count = 0

    def runs(self) -> str:
        if self.lifecycle != "keys-configured":
            return "LIFECYCLE_STATE_INCORRECT"
        return "NON_RECOVERABLE" if self.fatal else "SUCCESS"

    def block(self, number: int) -> str:
        self.steps["block"] += 1
        status = self.runs()
        if status != "SUCCESS":
            return status
        page = self.pages[number]
        if page.use != "mapped":
            return "EPT_ENTRY_STATE_INCORRECT"
        page.use = "blocked"
        self.blocked[number] = self.epoch
        return "SUCCESS"

    def track(self, _number: int) -> str:
        self.steps["track"] += 1
        status = self.runs()
        if status == "SUCCESS":
            self.epoch += 1
        return status

    def kick(self, _number: int) -> str:
        self.steps["kick"] += 1
        return "SUCCESS"

    def remove(self, number: int) -> str:
        self.steps["remove"] += 1
        status = self.runs()
        if status != "SUCCESS":
            return status
        page = self.pages[number]
        if page.use != "blocked":
            return "GPA_RANGE_NOT_BLOCKED"
        if self.blocked[number] >= self.epoch:
            return "TLB_TRACKING_NOT_DONE"
        page.use = "nda"
        del self.blocked[number]
        self.children -= 1
        return "SUCCESS"

    def wbinvd(self, number: int) -> str:
        self.steps["wbinvd"] += 1
        page = self.pages[number]
        if page.use != "nda":
            return "PAGE_METADATA_INCORRECT"
        if page.dirty == "td":
            page.dirty = None
            page.owner = page.mac = True
            if page.poison == "integrity":
                page.poison = None
        return "SUCCESS"

    def clear(self, number: int) -> str:
        self.steps["clear"] += 1
        self.write(self.pages[number])
        return "SUCCESS"

    def write(self, page: PeerPage) -> None:
        page.owner = page.mac = False
        if page.dirty == "shared":
            page.dirty = None
        if page.poison == "integrity":
            page.poison = None

    def tear_down(self) -> None:
        steps = (self.block, self.track, self.kick, self.remove, self.wbinvd, self.clear)
        for number in self.pages:
            for step in steps:
                status = step(number)
                if status != "SUCCESS":
                    self.leaks.append((number, step.__name__, status))
                    break
        self.reuse()

    def reuse(self) -> None:
        usable = {number: page for number, page in self.pages.items() if page.use == "nda"}
        for page in usable.values():
            if page.owner:
                self.hazards["owned"] += 1
            if page.dirty in ("td", "global"):
                self.hazards["dirty"] += 1
            if page.poison is not None:
                self.hazards[page.poison] += 1
        for number, page in usable.items():
            if page.poison is not None:
                self.machine_check_count += 64
                if len(self.machine_checks) < MAX_LISTED:
                    self.machine_checks += range(number * 4096, (number + 1) * 4096, 64)
        for page in usable.values():
            self.write(page)


def timed(work: Callable[[], object], times: int = 3) -> float:
    """Median of *times* runs, in seconds."""
    taken = []
    for _ in range(times):
        start = perf_counter()
        work()
        taken.append(perf_counter() - start)
    return median(taken)


def run(shape: Shape, injections: Injections) -> Result:
    return simulate(shape, PLAN, PLATFORM, CALIBRATION, injections)


def peer() -> float:
    """Seconds that the peer takes for PEER_PAGES pages, building them aside."""
    each = Peer(PEER_PAGES)
    start = perf_counter()
    each.tear_down()
    return perf_counter() - start


def main() -> None:
    tib = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    pages = int(tib * (1 << 40)) // 4096
    shape = Shape(memory_bytes=pages * 4096, vcpus=64)
    run(Shape(memory_bytes=1 << 30, vcpus=1), Injections())  # tables are built once

    uniform = timed(lambda: run(shape, Injections()))
    faults = timed(lambda: run(shape, Injections(poison_integrity=5000, poison_hardware=5000)))
    per_page = median(peer() for _ in range(3)) / PEER_PAGES
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{pages:,} pages ({tib:g} TiB)")
    print(f"uniform                {uniform * 1e3:8.1f} ms   want < 50 ms")
    print(f"10,000 line faults     {faults * 1e3:8.1f} ms   want < 1000 ms")
    print(f"one object a page      {per_page * pages:8.1f} s    from {PEER_PAGES:,} pages")
    print(f"  over uniform         {per_page * pages / uniform:8.0f} x    want >= 1000")
    print(f"peak memory, peer incl.{peak:8} MiB")


if __name__ == "__main__":
    main()
