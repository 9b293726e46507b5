#!/usr/bin/env python3
"""What live commands cost where an active TDX CPU is shown, as ratios to importing click.

Needs root, to lay a captured /proc/cpuinfo over this machine's in a mount
namespace of its own, and tdxreclaim installed (not in editable mode) in the
environment of the Python that runs this:

    /tmp/bench/bin/python benchmarks/tdx_host.py

Everything but the CPU is this machine's: its kernel log and its kallsyms are
read.  Exits 1 if a ratio is over its aim.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from processes import measure, show

CPUINFO = Path(__file__).parents[1] / "tests" / "hosts" / "spr-6.18-active" / "proc" / "cpuinfo"
RUNS = 40
AIMS = {"check --format json": 2.0, "check --format text": 2.5, "triage": 5.0}


def main() -> int:
    if "--inside" not in sys.argv:
        inside = [sys.executable, __file__, "--inside"]
        mount = f"mount --bind '{CPUINFO}' /proc/cpuinfo"
        return subprocess.run(
            ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *inside], check=False
        ).returncode
    tool = str(Path(sys.executable).parent / "tdxreclaim")
    commands = {
        "import click": [sys.executable, "-c", "import click"],
        # What the kernel takes to write its symbols, which nobody can save who reads them.
        "cat /proc/kallsyms": ["/bin/cat", "/proc/kallsyms"],
        **{name: [tool, *name.split()] for name in ("check --quiet", *AIMS)},
    }
    return int(show(measure(commands, RUNS), AIMS))


if __name__ == "__main__":
    sys.exit(main())
