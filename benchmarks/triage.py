#!/usr/bin/env python3
"""How fast `tdxreclaim triage` reads a log, against grep for the same alternatives, in one run.

    python benchmarks/triage.py [MIB]       # 1024 MiB unless told otherwise

Logs are made up: lines as a journal has them, kernel lines of other subsystems
among them, a TDX line every 50,000.  Each command runs three times in turn and
the best counts; both read from the page cache.  Peak memory is the largest
that any run of the tool took.  Exits 1 if the tool has less than a third of
grep's speed on a journal or takes 100 MB.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tdxreclaim.facts.logs.needles import NOT_KILLED, words

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3
LEAST_RATIO = 1 / 3
MOST_MEGABYTES = 100
MESSAGES = (
    ("systemd[1]", "Started Session 33 of User root."),
    ("sshd[2213]", "Accepted publickey for root from 10.0.0.1 port 22 ssh2"),
    ("kernel", "audit: type=1400 audit(1718000000.123:456): apparmor=STATUS"),
    ("containerd[99]", 'time="2026-06-24T11:07:17" level=info msg="shim disconnected" id=abc'),
    ("kernel", "br0: port 3(vnet2) entered forwarding state"),
    ("kubelet[1]", "I0624 11:07:17.000 reconciler.go:224] operationExecutor started for volume"),
    ("NetworkManager[88]", "<info> device (vnet2): state change: disconnected -> prepare"),
    ("libvirtd[9]", "internal error: End of file from qemu monitor"),
)
NEEDLE = ("kernel", "virt/tdx: module initialized")
EVERY = 50_000


def short(number: int, tag: str, message: str) -> str:
    clock = f"{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}"
    return f"Jun 24 {clock} host17 {tag}: {message}"


def as_json(number: int, tag: str, message: str) -> str:
    record = {
        "__REALTIME_TIMESTAMP": str(1782299237000000 + number),
        "_BOOT_ID": "0f" * 16,
        "_TRANSPORT": "kernel" if tag == "kernel" else "syslog",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": tag.partition("[")[0],
        "MESSAGE": message,
    }
    return json.dumps(record, separators=(",", ":"))


def dmesg(number: int, _tag: str, message: str) -> str:
    return f"[{number / 100:12.6f}] {message}"


FORMS: dict[str, Callable[[int, str, str], str]] = {
    "journal, short": short,
    "journal, json": as_json,
    "dmesg": dmesg,
}


def write_log(path: Path, form: Callable[[int, str, str], str], size: int) -> None:
    """Write a block of lines over and over until *size* bytes are there."""
    choice = random.Random(1)  # noqa: S311  (the same log each time)
    lines = [
        form(number, *(choice.choice(MESSAGES) if number % EVERY else NEEDLE))
        for number in range(1, 4 * EVERY + 1)
    ]
    block = ("\n".join(lines) + "\n").encode()
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block)


def timed(command: list[str]) -> tuple[float, float]:
    """Return wall seconds and peak megabytes of a command."""
    began = time.perf_counter()
    # To a pipe: grep stops at its first match if its output is /dev/null.
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    if process.stdout is not None:
        process.stdout.read()
    _, _, usage = os.wait4(process.pid, 0)
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def main() -> int:
    if sys.argv[1:2] == ["--write"]:
        write_log(Path(sys.argv[2]), FORMS[sys.argv[3]], int(sys.argv[4]))
        return 0
    size = int(sys.argv[1] if len(sys.argv) > 1 else "1024") << 20
    tool = [sys.executable, "-m", "tdxreclaim", "triage", "--from"]
    texts = [*words(), NOT_KILLED.decode()]
    grep = [
        "grep",
        "-E",
        "-c",
        "|".join(re.sub(r"[][().*+?^$\\|{}]", r"\\\g<0>", each) for each in texts),
    ]
    failed = False
    print(f"{'log':16} {'MiB':>6} {'grep s':>7} {'triage s':>9} {'ratio':>6} {'peak MB':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        for name in FORMS:
            path = Path(scratch, "log")
            # In a process of its own: a child's peak memory begins with its parent's.
            write = [sys.executable, __file__, "--write", str(path), name, str(size)]
            subprocess.run(write, check=True)
            runs = [
                (timed([*grep, str(path)])[0], *timed([*tool, str(path)])) for _ in range(ROUNDS)
            ]
            grepped = min(run[0] for run in runs)
            read = min(run[1] for run in runs)
            peak = max(run[2] for run in runs)
            ratio = grepped / read
            # A ring buffer is never so long: its speed is shown, and not judged.
            slow = ratio < LEAST_RATIO and name != "dmesg"
            failed |= slow or peak >= MOST_MEGABYTES
            mib = path.stat().st_size >> 20
            print(f"{name:16} {mib:6} {grepped:7.2f} {read:9.2f} {ratio:6.2f} {peak:8.1f}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
