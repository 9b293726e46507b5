#!/usr/bin/env python3
"""What starting `tdxreclaim check` costs, as ratios to importing click, in one run.

Needs tdxreclaim installed (not in editable mode, which costs start-up) in the
environment of the Python that runs this:

    python3 -m venv /tmp/bench && /tmp/bench/bin/pip install -q .
    /tmp/bench/bin/python benchmarks/startup.py

Exits 1 if a ratio is over its limit.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from processes import measure, show

HOSTS = Path(__file__).parents[1] / "tests" / "hosts"
RUNS = 60
# At most so many times `import click`.
LIMITS = {"check --quiet": 1.3, "check --format json": 1.3, "check --format text": 2.0}
MOST_MS_FOR_511_CPUS = 10


def big_cpuinfo(processors: int) -> str:
    block = (HOSTS / "gnr-6.18-active" / "proc" / "cpuinfo").read_text().split("\n\n")[0]
    return "".join(
        block.replace("processor\t: 0", f"processor\t: {number}")
        .replace("apicid\t\t: 0", f"apicid\t\t: {number}")
        .replace("cpu MHz\t\t: 2000.000", f"cpu MHz\t\t: {2000 + number}.{number:03d}")
        + "\n\n"
        for number in range(processors)
    )


def main() -> int:
    python = sys.executable
    tool = str(Path(python).parent / "tdxreclaim")
    with tempfile.TemporaryDirectory() as scratch:
        one, many = Path(scratch, "cpuinfo-1"), Path(scratch, "cpuinfo-512")
        one.write_text(big_cpuinfo(1))
        many.write_text(big_cpuinfo(512))
        commands = {
            "python -c pass": [python, "-c", "pass"],
            "import click": [python, "-c", "import click"],
            **{name: [tool, *name.split()] for name in LIMITS},
            "1 processor": [tool, "check", "--from", str(one), "--quiet"],
            "512 processors": [tool, "check", "--from", str(many), "--quiet"],
        }
        costs = measure(commands, RUNS)
    over = show(costs, LIMITS)
    added = costs["512 processors"].cpu - costs["1 processor"].cpu
    print(f"511 more processors: {added:+.1f} ms of CPU time (limit {MOST_MS_FOR_511_CPUS})")
    return int(over or added > MOST_MS_FOR_511_CPUS)


if __name__ == "__main__":
    sys.exit(main())
