#!/usr/bin/env python3
"""How fast the closed form is in batches, beside `estimate()` called for each TD, in one run.

    python benchmarks/sweep.py [TRIALS]     # 1,000,000 unless told otherwise

Exits 1 if a batch is not ten times as fast, says something else, or takes 100 MB.
"""

from __future__ import annotations

import resource
import sys
import time
from random import Random
from typing import TYPE_CHECKING

from tdxreclaim.costs.batch import Batch, Pricer
from tdxreclaim.costs.estimate import estimate
from tdxreclaim.costs.shipped import read_calibration
from tdxreclaim.engine.module import Platform
from tdxreclaim.engine.plan import PLANS
from tdxreclaim.engine.shape import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_RATIO = 10
MOST_MEGABYTES = 100
ROUNDS = 5
CALLED = 4_000  # estimate() is timed on so many a round

PLAN, PLATFORM = PLANS["6.16"], Platform(erratum=False)
PUBLISHED = read_calibration("published")


def tds(count: int) -> Iterator[tuple[int, int]]:
    """All sizes differ, as in random draws; what was seen before costs less."""
    drawn = Random(1)  # noqa: S311 - nothing secret is drawn
    for _ in range(count):
        yield drawn.randrange(1 << 18, 1 << 28) * 4096, drawn.choice((4, 16, 32, 64, 128))


def called(some: list[tuple[int, int]]) -> tuple[float, list[object]]:
    shapes = [Shape(memory_bytes=memory, vcpus=vcpus) for memory, vcpus in some]
    began = time.process_time()
    found: list[object] = [estimate(each, PLAN, PLATFORM, PUBLISHED).total for each in shapes]
    return time.process_time() - began, found


def batched(some: list[tuple[int, int]]) -> tuple[float, list[object]]:
    began = time.process_time()
    found: list[object] = list(Batch(PLAN, PLATFORM, Pricer(PUBLISHED)).totals(some))
    return time.process_time() - began, found


def main() -> int:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    some = list(tds(CALLED))
    pairs = [(called(some), batched(some)) for _ in range(ROUNDS)]
    each = min(one[0] for one, _ in pairs) / CALLED
    short = min(one[0] for _, one in pairs) / CALLED
    same = all(one[1] == other[1] for one, other in pairs)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    most = max(
        span.high_ns for span in Batch(PLAN, PLATFORM, Pricer(PUBLISHED)).totals(tds(trials))
    )
    whole = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6
    print("CPU seconds, best of", ROUNDS)
    print(f"estimate() for each TD  {each * 1e6:8.1f} us a TD")
    print(f"in batches              {short * 1e6:8.1f} us a TD")
    print(f"ratio                   {each / short:8.1f}     want >= {LEAST_RATIO}")
    print(f"{trials:,} in a run    {whole:8.1f} s, the TDs' sizes drawn too; +{grown:.0f} MB")
    print(f"the same to the nanosecond: {same}; longest {most:,} ns")
    return int(each / short < LEAST_RATIO or not same or grown > MOST_MEGABYTES)


if __name__ == "__main__":
    raise SystemExit(main())
