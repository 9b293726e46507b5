#!/usr/bin/env python3
"""How fast `tdxreclaim fleet` reads an inventory, beside csv.DictReader alone, in one run.

    python benchmarks/fleet.py [ROWS]       # 1,000,000 unless told otherwise

Exits 1 if it has less than a tenth of DictReader's speed or takes 300 MB.
"""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LEAST_RATIO = 1 / 10
MOST_MEGABYTES = 300
ROUNDS = 3


def write(path: Path, rows: int) -> None:
    drawn = random.Random(1)  # noqa: S311 - nothing secret is drawn
    with path.open("w") as file:
        file.write("host,vendor,family,model,kernel,memory\n")
        for number in range(rows):
            model = drawn.choice((143, 207, 173, 175, 174))
            kernel = f"6.{drawn.choice((16, 17, 18))}.{drawn.randrange(12)}"
            memory = drawn.choice(("512GiB", "1TiB", "2TiB"))
            file.write(f"node-{number:07}.example.org,GenuineIntel,6,{model},{kernel},{memory}\n")


def alone(path: Path) -> float:
    began = time.perf_counter()
    with path.open(newline="") as file:
        for _ in csv.DictReader(file):
            pass
    return time.perf_counter() - began


def fleet(path: Path) -> tuple[float, float]:
    """Return seconds, and the largest memory in MB."""
    began = time.perf_counter()
    tool = subprocess.Popen(
        [sys.executable, "-m", "tdxreclaim", "fleet", str(path)], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(tool.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit("fleet failed")
    return time.perf_counter() - began, usage.ru_maxrss * 1024 / 1e6


def main() -> int:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "inventory.csv")
        write(path, rows)
        reader = min(alone(path) for _ in range(ROUNDS))
        runs = [fleet(path) for _ in range(ROUNDS)]
    seconds = min(run[0] for run in runs)
    megabytes = max(run[1] for run in runs)
    ratio = reader / seconds
    print(f"{rows:,} rows")
    print(f"csv.DictReader alone  {reader:6.2f} s  {rows / reader:9,.0f} rows/s")
    print(
        f"fleet                 {seconds:6.2f} s  {rows / seconds:9,.0f} rows/s  {megabytes:.0f} MB"
    )
    print(f"ratio                 {ratio:6.2f}     want >= {LEAST_RATIO}")
    return int(ratio < LEAST_RATIO or megabytes > MOST_MEGABYTES)


if __name__ == "__main__":
    raise SystemExit(main())
