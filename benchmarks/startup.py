#!/usr/bin/env python3
"""How long `tdxreclaim check` takes, as ratios to importing click, in one run.

Needs hyperfine, and tdxreclaim installed (not in editable mode, which costs
start-up) in the environment of the Python that runs this:

    python3 -m venv /tmp/bench && /tmp/bench/bin/pip install -q .
    /tmp/bench/bin/python benchmarks/startup.py

Exits 1 if a ratio is over its limit.
"""

from __future__ import annotations

import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HOSTS = Path(__file__).parents[1] / "tests" / "hosts"
RUNS = 40
ROUNDS = 3


class Row(NamedTuple):
    name: str
    command: list[str]
    # At most this many times `import click`, or, of a difference, milliseconds.
    limit: float | None = None


def big_cpuinfo(processors: int) -> str:
    block = (HOSTS / "gnr-6.18-active" / "proc" / "cpuinfo").read_text().split("\n\n")[0]
    return "".join(
        block.replace("processor\t: 0", f"processor\t: {number}")
        .replace("apicid\t\t: 0", f"apicid\t\t: {number}")
        .replace("cpu MHz\t\t: 2000.000", f"cpu MHz\t\t: {2000 + number}.{number:03d}")
        + "\n\n"
        for number in range(processors)
    )


def measure(rows: list[Row]) -> dict[str, float]:
    """Return the median wall time of each command in seconds.

    The rows are measured in turn, several rounds of them, since the speed of
    a machine drifts; a round is its median, and the best round counts.
    """
    best: dict[str, float] = {}
    with tempfile.NamedTemporaryFile(suffix=".json") as export:
        for _ in range(ROUNDS):
            commands = [shlex.join(row.command) for row in rows]
            hyperfine = ["hyperfine", "-N", "-i", "-w", "3", "-r", str(RUNS), "--style", "none"]
            subprocess.run(
                [*hyperfine, "--export-json", export.name, *commands],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            results = json.loads(Path(export.name).read_text())["results"]
            for row, result in zip(rows, results, strict=True):
                median = statistics.median(result["times"])
                best[row.name] = min(best.get(row.name, median), median)
    return best


def main() -> int:
    python = sys.executable
    tool = str(Path(python).parent / "tdxreclaim")
    with tempfile.TemporaryDirectory() as scratch:
        one, many = Path(scratch, "cpuinfo-1"), Path(scratch, "cpuinfo-512")
        one.write_text(big_cpuinfo(1))
        many.write_text(big_cpuinfo(512))
        rows = [
            Row("python -c pass", [python, "-c", "pass"]),
            Row("import click", [python, "-c", "import click"]),
            Row("check --quiet", [tool, "check", "--quiet"], 1.3),
            Row("check --format json", [tool, "check", "--format", "json"], 1.3),
            Row("check --format text", [tool, "check", "--format", "text"], 2.0),
            Row("1 processor", [tool, "check", "--from", str(one), "--quiet"]),
            Row("512 processors", [tool, "check", "--from", str(many), "--quiet"]),
        ]
        best = measure(rows)
    click = best["import click"]
    over = False
    print(f"{'command':24} {'ms':>7} {'x click':>8} {'limit':>6}")
    for row in rows:
        ratio = best[row.name] / click
        over |= row.limit is not None and ratio > row.limit
        limit = "" if row.limit is None else f"{row.limit:.1f}"
        print(f"{row.name:24} {best[row.name] * 1e3:7.1f} {ratio:8.2f} {limit:>6}")
    added = (best["512 processors"] - best["1 processor"]) * 1e3
    over |= added > 10  # noqa: PLR2004  (milliseconds, as the table says)
    print(f"{'511 more processors':24} {added:+7.1f} {'':8} 10 ms")
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
