"""The emulator against what one would write first, and against filling memory.

Every figure is a ratio of timings from this one run: the machine may be slow
or shared, its ratios are not.  Run: python benchmarks/engine.py [TIB]
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from tdxreclaim.costs.simulate import simulate
from tdxreclaim.costs.toml import load
from tdxreclaim.engine.build import initial_page
from tdxreclaim.engine.faults import Injections
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLANS, Clearing
from tdxreclaim.engine.shape import Shape
from tdxreclaim.engine.states import LINES, Dirty, Page, Use
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

    def __init__(self, states: bytes) -> None:
        self.pages = {}
        for number, code in enumerate(states):
            line = LINES[code & 31]
            poison = {2: "integrity", 3: "hardware"}.get(int(line.health))
            dirty = line.dirty.name.lower() if line.dirty else None
            self.pages[number] = PeerPage("mapped", line.owner, line.health == 1, poison, dirty)
        self.lifecycle = "keys-configured"
        self.fatal = False
        self.children = len(states)
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


def fill(states: bytearray) -> None:
    """Write every state byte once: the least that anything per page can cost."""
    chunk = bytes([1]) * (1 << 16)
    view = memoryview(states)
    for start in range(0, len(states), len(chunk)):
        view[start : start + len(chunk)] = chunk[: len(states) - start]


def run(
    shape: Shape,
    injections: Injections,
    states: bytes | bytearray | None = None,
    clearing: Clearing = Clearing.ON_ERRATUM,
) -> Result:
    return simulate(
        shape, PLAN.with_clearing(clearing), PLATFORM, CALIBRATION, injections, states=states
    )


def random_states(pages: int) -> bytearray:
    """A state for each page, any that a guest page can be in.

    All but those in which the cache holds the page under the module's own
    KeyID, which covers no guest page.
    """
    able = [line for line in LINES if line.dirty is not Dirty.GLOBAL]
    table = bytes(Page(Use.MAPPED, able[code % len(able)]).code for code in range(256))
    draws = random.Random(1)  # noqa: S311 - any states will do
    states = bytearray(pages)
    for start in range(0, pages, 1 << 20):
        size = min(1 << 20, pages - start)
        states[start : start + size] = draws.randbytes(size).translate(table)
    return states


def worst_case(pages: int) -> None:
    """Run the worst case alone, for its peak memory."""
    shape = Shape(memory_bytes=pages * 4096, vcpus=64)
    run(shape, Injections(), random_states(pages))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    if sys.argv[1:2] == ["--worst-case"]:
        worst_case(int(sys.argv[2]))
        return
    tib = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    pages = int(tib * (1 << 40)) // 4096
    shape = Shape(memory_bytes=pages * 4096, vcpus=64)
    # First, while this process is small: a child starts with its parent's peak.
    peak = subprocess.run(
        [sys.executable, __file__, "--worst-case", str(pages)],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    ).stdout.strip()
    run(Shape(memory_bytes=1 << 30, vcpus=1), Injections())  # tables are built once

    uniform = timed(lambda: run(shape, Injections()))
    faults = timed(lambda: run(shape, Injections(poison_integrity=5000, poison_hardware=5000)))
    states = random_states(pages)
    own = timed(lambda: run(shape, Injections(), states))

    def peer() -> float:
        each = Peer(bytes(states[:PEER_PAGES]))
        start = perf_counter()
        each.tear_down()
        return perf_counter() - start

    per_page = median(peer() for _ in range(3)) / min(PEER_PAGES, pages)
    never = timed(lambda: run(shape, Injections(), states, Clearing.NEVER), 1)
    filled = timed(lambda: fill(states))
    allocated = timed(lambda: bytearray(b"\x01") * pages)
    print(f"{pages:,} pages ({tib:g} TiB)")
    print(f"(a) uniform                     {uniform * 1e3:8.1f} ms   want < 50 ms")
    print(f"(b) a state of its own a page   {own * 1e3:8.1f} ms")
    print(f"    one object a page           {per_page * pages:8.1f} s    from {PEER_PAGES:,} pages")
    print(f"    pages a second, ratio       {per_page * pages / own:8.0f} x    want >= 1000")
    print(
        f"    the same, never clearing    {never * 1e3:8.1f} ms   {per_page * pages / never:.0f} x"
    )
    print(f"    fill in place               {filled * 1e3:8.1f} ms")
    print(f"    fill of new memory          {allocated * 1e3:8.1f} ms")
    print(f"    over the fill in place      {own / filled:8.1f} x    want <= 10")
    print(f"    over the fill of new memory {own / allocated:8.1f} x")
    print(f"    peak memory                 {peak:>8} MiB  want < 400 MB")
    print(f"(c) 10,000 line faults          {faults * 1e3:8.1f} ms   want < 1000 ms")
    first = initial_page(Use.MAPPED, PLATFORM.mode).code
    check = run(Shape(memory_bytes=1 << 30, vcpus=64), Injections(), bytes([first]) * (1 << 18))
    alike = run(Shape(memory_bytes=1 << 30, vcpus=64), Injections())
    print("loaded and uniform agree:", check.estimate == alike.estimate)


if __name__ == "__main__":
    main()
