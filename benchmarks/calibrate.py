#!/usr/bin/env python3
"""The clearing of `calibrate clear` against plain figures of memory bandwidth, in one run.

    python benchmarks/calibrate.py [MIB]

The stores without a fence a page, as a stream, should reach 80 % of what the C
library's memset writes.  Copies (memmove, as mbw's MEMCPY, counted once) are
beside it, because a figure of "memory bandwidth" is often one of those.  Rounds
take turns; the best of each counts, as in STREAM, and the ratio is of medians
too.  Exits 1 if the best stream is below 80 %.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING

from tdxreclaim.facts.formats.cpuinfo import parse_cpuinfo
from tdxreclaim.facts.measure import Pages, Store, _Code, _Memory, choose_stores
from tdxreclaim.facts.sources.live import Live

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 15
WANTED = 0.8


def main() -> int:
    size = (int(sys.argv[1]) if len(sys.argv) > 1 else 1024) << 20
    text = Live().read("proc/cpuinfo")
    store = choose_stores(parse_cpuinfo(text) if text else None, os.uname().machine)[0]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with _Memory(size, Pages.THP) as memory, _Code(store) as code:
        start, end = memory.start, memory.start + size
        ctypes.memset(start, 1, size)
        ways: dict[str, tuple[int, Callable[[], object]]] = {
            "memset": (size, lambda: ctypes.memset(start, 0, size)),
            f"{store}, one fence": (size, lambda: code.streamed(start, end)),
            f"{store}, a fence a page": (size, lambda: code.cleared(start, end)),
            "memmove, half to half": (
                size // 2,
                lambda: ctypes.memmove(start, start + size // 2, size // 2),
            ),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS + 1):
            for name, (moved, way) in ways.items():
                began = time.perf_counter_ns()
                way()
                spent = time.perf_counter_ns() - began
                if number:
                    rates[name].append(moved / spent)
    stand_in = "" if store is Store.MOVDIR64B else "; MOVDIR64B was not executed on this CPU"
    print(f"{size >> 20} MiB, {store.label}{stand_in}")
    plain = rates["memset"]
    print(f"{'':24}{'best GB/s':>11}{'median':>9}{'of memset':>11}{'median':>9}")
    for name, found in rates.items():
        best, middle = max(found), statistics.median(found)
        ratios = best / max(plain), middle / statistics.median(plain)
        print(f"{name:24}{best:11.1f}{middle:9.1f}{ratios[0]:11.2f}{ratios[1]:9.2f}")
    reached = max(rates[f"{store}, one fence"]) / max(plain)
    print(f"stream over memset: {reached:.2f}, want >= {WANTED}")
    return 0 if reached >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
