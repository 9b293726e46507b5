"""What whole processes cost: CPU seconds, which others on the machine hardly change, and wall time."""

from __future__ import annotations

import os
import time
from typing import NamedTuple


class Cost(NamedTuple):
    """The least of many runs, in milliseconds: user and system together, and by the clock."""

    cpu: float
    wall: float


def measure(commands: dict[str, list[str]], runs: int) -> dict[str, Cost]:
    """Return what each command costs, output to /dev/null.

    They run in turn, since the speed of a machine drifts.
    """
    least: dict[str, Cost] = {}
    for _ in range(runs):
        for name, command in commands.items():
            cost = _run(command)
            known = least.get(name, cost)
            least[name] = Cost(*map(min, known, cost))
    return least


def _run(command: list[str]) -> Cost:
    nowhere = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    begun = time.perf_counter()
    child = os.posix_spawn(command[0], command, os.environ, file_actions=nowhere)
    _, _, used = os.wait4(child, 0)
    wall = time.perf_counter() - begun
    return Cost((used.ru_utime + used.ru_stime) * 1e3, wall * 1e3)


def show(costs: dict[str, Cost], limits: dict[str, float], base: str = "import click") -> bool:
    """Print the costs and their ratios to *base*; return whether one is over its limit, by CPU."""
    print(f"{'command':24} {'cpu ms':>7} {'x click':>8} {'limit':>6} {'wall ms':>8} {'x click':>8}")
    over = False
    for name, cost in costs.items():
        ratio = cost.cpu / costs[base].cpu
        over |= ratio > limits.get(name, ratio)
        wall = f"{cost.wall:8.1f} {cost.wall / costs[base].wall:8.2f}"
        print(f"{name:24} {cost.cpu:7.1f} {ratio:8.2f} {limits.get(name, ''):>6} {wall}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    return over
