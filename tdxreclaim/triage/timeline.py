"""The boots of several logs, joined."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tdxreclaim.facts.logs.boots import Boot
    from tdxreclaim.facts.logs.voice import ScannedLog


class Timeline(NamedTuple):
    """The boots of logs that continue each other, such as rotated ones."""

    boots: tuple[Boot, ...]
    offsets: Mapping[str, int]

    def from_end(self, path: str, boot: int) -> int:
        """Return how many boots before the last one a log's *boot* is."""
        return max(len(self.boots) - 1 - self.offsets[path] - boot, 0)


def join_logs(logs: Sequence[ScannedLog]) -> tuple[Timeline, ...]:
    """Return the timelines of logs: those of one name, rotated, the oldest first."""
    families: dict[str, list[ScannedLog]] = {}
    for log in logs:
        families.setdefault(_family(log.path)[0], []).append(log)
    return tuple(
        _timeline(sorted(family, key=lambda log: _family(log.path)[1]))
        for family in families.values()
    )


def _timeline(logs: Iterable[ScannedLog]) -> Timeline:
    boots: list[Boot] = []
    offsets: dict[str, int] = {}
    for log in logs:
        continues = bool(boots and log.boots and not log.boots[0].whole)
        offsets[log.path] = len(boots) - continues
        boots.extend(log.boots[1:] if continues else log.boots)
    return Timeline(tuple(boots), offsets)


_ROTATED = re.compile(r"(?:-(?P<date>\d{8})|\.(?P<turn>\d{1,4}))?(?:\.(?:gz|bz2|xz|zst))?\Z")


def _family(path: str) -> tuple[str, tuple[int, int]]:
    """Return the name without what rotation adds, and the place in time: later is greater."""
    match = _ROTATED.search(path)
    stem = path[: match.start()] if match else path
    if match and match["date"]:
        return stem, (0, int(match["date"]))
    if match and match["turn"]:
        return stem, (0, -int(match["turn"]))
    return stem, (1, 0)
