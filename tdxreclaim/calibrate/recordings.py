"""Step times out of what a kernel's tracers recorded of a TD's shutdown.

Three forms are read: ftrace's ``function_graph`` text, ``trace-cmd report`` of
the same, and maps that bpftrace printed (``hist``, ``lhist``, ``stats``).

In a graph a function is a line with its time (``f();``) or two lines, the
second with the time (``f() {`` and ``}``), and those of all CPUs are mixed.  So
each task, or each CPU where the tasks are not shown, has a stack of its own.  A
time counts unless something else ran in it (an interrupt, another task), its
beginning or end is missing, or events were lost meanwhile; how many were left
out for what is part of the result.  A function inside another one for the same
step (`tdx_quirk_reset_paddr()` in `tdx_quirk_reset_page()`) is not counted again.

A tracer takes time, which is in what it records: little in a function without
traced functions in it, as all of these are if nothing else is traced.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.costs.calibration import (
    Beyond,
    Calibration,
    CostPoint,
    HostRecord,
    Provenance,
    StepCost,
)
from tdxreclaim.errors import MalformedInputError
from tdxreclaim.tables.kernels import FIRST_WITH_TDS, RUNS_TDS
from tdxreclaim.tables.teardown import Action
from tdxreclaim.units import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tdxreclaim.tables.kernels import KernelRow
    from tdxreclaim.tables.releases import Version


class Traced(NamedTuple):
    """A kernel function, the step that it is, and the releases that have it."""

    function: str
    action: Action | None
    """None: it holds steps, and tells the kernel."""
    since: Version
    until: Version | None
    """None: the newest release that is known has it."""


def _traced() -> tuple[Traced, ...]:
    """All that the kernel rows say is traced, each once."""
    rows: dict[tuple[str, Action | None], list[KernelRow]] = {}
    for row in RUNS_TDS:
        for function in row.functions:
            if function.traced:
                rows.setdefault((function.name, function.action), []).append(row)
    return tuple(
        Traced(
            name,
            action,
            since=having[0].first,
            until=None if having[-1] is RUNS_TDS[-1] else having[-1].last,
        )
        for (name, action), having in rows.items()
    )


FUNCTIONS = _traced()


_BY_NAME = {each.function: each for each in FUNCTIONS}


def functions_of(series: Version) -> tuple[Traced, ...]:
    """The functions that a release has."""
    return tuple(
        each
        for each in FUNCTIONS
        if each.since <= series and (each.until is None or series <= each.until)
    )


# What a recording is, is seen in so many characters.
_BEGINNING = 1 << 16


# After so many bytes it is told how far a recording is read.
_TELL_EVERY = 1 << 20


class Times(NamedTuple):
    """How long a step took."""

    samples: int
    span: Span
    """Low and high are the 10th and 90th of 100, likely the mean without the outermost 1 %."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """What a recording holds."""

    form: str
    """``function_graph``, ``trace-cmd report`` or ``bpftrace``; several with commas."""
    times: Mapping[Action, Times]
    cpus: Mapping[int, int]
    """Times that count, by CPU; empty of bpftrace, which does not say."""
    interrupted: int
    """Left out: something else ran meanwhile."""
    lost: int
    """Left out: events were lost while it ran, or its beginning or end is missing."""
    lost_events: int
    """As the tracer says; some tracers do not say how many."""
    lost_notices: int
    nested: int
    """Not counted again: inside another function for the same step."""
    other_functions: int
    """Functions that are no step."""
    functions: tuple[str, ...]
    """Those of the table that were seen."""

    @property
    def kernels(self) -> tuple[Version, Version | None] | None:
        """The releases that have all the functions seen; None: no release has."""
        seen = [_BY_NAME[name] for name in self.functions]
        since = max((each.since for each in seen), default=FIRST_WITH_TDS)
        until = min((each.until for each in seen if each.until is not None), default=None)
        return None if until is not None and since > until else (since, until)


class _Frame:
    __slots__ = ("action", "interrupted", "name")

    def __init__(self, name: str, action: Action | None) -> None:
        self.name = name
        self.action = action
        self.interrupted = False


@dataclass(slots=True)
class _Tally:
    """What was read so far, of all files."""

    samples: dict[Action, list[int]] = field(default_factory=dict)
    buckets: dict[Action, Counter[tuple[int, int]]] = field(default_factory=dict)
    means: dict[Action, tuple[int, int]] = field(default_factory=dict)
    """Count and total nanoseconds, as bpftrace's stats() says."""
    forms: list[str] = field(default_factory=list)
    cpus: Counter[int] = field(default_factory=Counter)
    interrupted: int = 0
    lost: int = 0
    lost_events: int = 0
    lost_notices: int = 0
    nested: int = 0
    other: int = 0
    functions: dict[str, None] = field(default_factory=dict)


def read(
    texts: Iterable[tuple[str, str]], seen: Callable[[int, int], None] = lambda _done, _of: None
) -> Recording:
    """Read recordings, each a name and its text, as one.

    *seen* is told now and then how many bytes of how many are read so far.

    Raises:
        MalformedInputError: one is in none of the three forms, or there is no
            step in any of them.
    """
    tally = _Tally()
    what, done = "", 0
    for what, text in texts:
        beginning = text[:_BEGINNING]
        before, done = done, done + len(text)
        lines = _each_line(text, before, seen)
        if re.search(r"^@\w*\[", beginning, re.MULTILINE):
            tally.forms.append("bpftrace")
            _read_bpftrace(lines, what, tally)
        elif "funcgraph_e" in beginning:
            tally.forms.append("trace-cmd report")
            _Graph(tally).read(lines, _COMMAND)
        elif any(
            _FTRACE.match(line) and "|" in line
            for line in beginning.split("\n")
            if len(line) <= _LONGEST_LINE
        ):
            tally.forms.append("function_graph")
            _Graph(tally).read(lines, _FTRACE)
        else:
            raise MalformedInputError(
                what, "neither function_graph text, nor trace-cmd report of it, nor bpftrace maps"
            )
    times = {action: each for action in Action if (each := _times(tally, action)) is not None}
    if not times:
        raise MalformedInputError(what, "no step of a TD's shutdown is in it")
    return Recording(
        form=", ".join(dict.fromkeys(tally.forms)),
        times=times,
        cpus=dict(sorted(tally.cpus.items())),
        interrupted=tally.interrupted,
        lost=tally.lost,
        lost_events=tally.lost_events,
        lost_notices=tally.lost_notices,
        nested=tally.nested,
        other_functions=tally.other,
        functions=tuple(tally.functions),
    )


def calibration(recording: Recording, record: HostRecord, *, vcpus: int | None) -> Calibration:
    """The steps that were recorded, as a calibration that has no others.

    *vcpus* is how many the TD had: what depends on them is then known for that
    number alone.
    """
    return Calibration(
        name=record.name,
        host=record.host,
        kernel=record.kernel,
        date=record.date,
        origin=record.origin,
        cpu=record.cpu,
        assumptions=(
            "what the tracer itself takes is in the recorded times, and was not taken off",
            *(
                ("the recording does not say how many vCPUs the TD had: costs hold for any",)
                if vcpus is None
                else ()
            ),
        ),
        leaves_out=("what no traced function covers: the walk of the page tables, yields, locks",),
        steps={
            action: StepCost(
                points=(CostPoint(vcpus or 1, times.span),),
                beyond=Beyond.RISE if vcpus and action is Action.KICK else Beyond.HOLD,
                provenance=Provenance.MEASURED,
                source=f"{recording.form}, {times.samples} times",
            )
            for action, times in recording.times.items()
        },
        rows=(),
    )


_TRIM = 200  # of so many, one at each end does not count: 0.5 %


def _times(tally: _Tally, action: Action) -> Times | None:
    samples = sorted(tally.samples.get(action, ()))
    if samples:
        trim = len(samples) // _TRIM
        inner = samples[trim : len(samples) - trim]
        count, likely = len(samples), round(sum(inner) / len(inner))
        low, high = samples[count // 10], samples[(count - 1) * 9 // 10]
    elif action in tally.buckets or action in tally.means:
        count, low, likely, high = _from_buckets(
            tally.buckets.get(action, Counter()), tally.means.get(action)
        )
    else:
        return None
    if not count or likely <= 0:
        return None  # below what the clock can tell, or never called: no time was measured
    return Times(count, Span(min(low, likely), likely, max(high, likely)))


def _from_buckets(
    buckets: Counter[tuple[int, int]], mean: tuple[int, int] | None
) -> tuple[int, int, int, int]:
    """Count, low, likely and high of a histogram; a mean that was printed beats its guess."""
    total = sum(buckets.values())
    if not total:
        count, whole = mean or (0, 0)
        likely = whole // max(count, 1)
        return count, likely, likely, likely
    reached, low, high, guess = 0, None, 0, 0.0
    for (first, last), count in sorted(buckets.items()):
        reached += count
        if low is None and reached * 10 >= total:
            low = first
        if (reached - count) * 10 < total * 9:
            high = last
        # Buckets grow by powers of two: the middle is that of the logarithms.
        guess += count * (sqrt(first * last) if first else last / 2)
    likely = mean[1] // max(mean[0], 1) if mean else round(guess / total)
    return total, low or 0, likely, high


# Lines of a graph.  trace-cmd puts the task, the CPU and the time first.
_COMMAND = re.compile(
    r"\s*(?P<task>\S.*?-\d+)\s+\[(?P<cpu>\d+)\]\s(?:\s*[^\s:]{3,10}\s)?\s*[\d.]+:"
    r"\s*funcgraph_(?:entry|exit):(?P<rest>.*)",
    re.ASCII,
)


_FTRACE = re.compile(r"\s*(?:[\d.]+\s*\|\s*)?(?P<cpu>\d+)\)(?P<rest>.*)", re.ASCII)


_SWITCH = re.compile(r"\s*(?P<old>\S.*?-\d+)\s*=>\s*(?P<new>\S.*?-\d+)\s*$", re.ASCII)


_TASK = re.compile(r"\s*(\S.*?-\d+)\s*$", re.ASCII)


_DURATION = re.compile(r"\s*[$@*#!+]?\s*(\d+)(?:\.(\d{1,3}))? us\s*$", re.ASCII)


_LEAF_OR_ENTRY = re.compile(r"([A-Za-z_]\w*)[\w.]*\s*(?:\[\w+\]\s*)?\(.*\)\s*(\{|;)", re.ASCII)


_END_NAME = re.compile(r"/\*\s*([A-Za-z_]\w*)", re.ASCII)


_LOST = re.compile(
    r"CPU:\s*(?P<cpu>\d+) \[(?:LOST )?(?P<count>\d+)? ?EVENTS(?: DROPPED)?\]", re.ASCII
)


# Functions that are no part of a step: what they are in was held up.
_HOLDS_UP = re.compile(r"sysvec_|_interrupt$|irq_enter|^exc_nmi|^asm_|^__?schedule$|^schedule$")


# Where an interrupt begins and ends, in the column of durations.
_ARROWS = ("==========>", "<==========")


class _Graph:
    """A function graph, line by line."""

    def __init__(self, tally: _Tally) -> None:
        self._tally = tally
        self._stacks: dict[object, list[_Frame]] = {}
        self._task: dict[int, object] = {}

    def read(self, lines: Iterable[str], form: re.Pattern[str]) -> None:
        for line in lines:
            if len(line) > _LONGEST_LINE:
                continue
            lost = _LOST.search(line) if "EVENTS" in line else None
            if lost is not None:
                self._lose(int(lost["cpu"]), int(lost["count"] or 0))
                continue
            match = form.match(line)
            if match is None:
                continue
            cpu, rest = int(match["cpu"]), match["rest"]
            if form is _COMMAND:
                self._runs(cpu, match["task"])
            if "|" in rest:
                self._event(cpu, rest)
                continue
            switch = _SWITCH.match(rest)
            if switch is not None:
                self._switch(cpu, switch["old"], switch["new"])
        for stack in self._stacks.values():
            self._tally.lost += sum(frame.action is not None for frame in stack)

    def _stack(self, cpu: int) -> list[_Frame]:
        return self._stacks.setdefault(self._task.get(cpu, cpu), [])

    def _runs(self, cpu: int, task: object) -> None:
        """Note that *task* is on *cpu*; the one that was there is held up."""
        if self._task.get(cpu, task) != task:
            self._hold_up(cpu)
        self._task[cpu] = task

    def _switch(self, cpu: int, old: str, new: str) -> None:
        self._hold_up(cpu)
        if cpu not in self._task and cpu in self._stacks:
            self._stacks[old] = self._stacks.pop(cpu)
        self._task[cpu] = new

    def _hold_up(self, cpu: int) -> None:
        for frame in self._stack(cpu):
            frame.interrupted = True

    def _lose(self, cpu: int, count: int) -> None:
        self._tally.lost_notices += 1
        self._tally.lost_events += count
        stack = self._stack(cpu)
        self._tally.lost += sum(frame.action is not None for frame in stack)
        stack.clear()

    def _event(self, cpu: int, rest: str) -> None:
        before, _, function = rest.rpartition("|")
        *columns, duration = before.split("|")
        if columns and (task := _TASK.match(columns[0])):
            self._runs(cpu, task[1])
        function = function.strip()
        if duration.strip() in _ARROWS:
            self._hold_up(cpu)
        elif function.startswith("}"):
            name = _END_NAME.search(function)
            self._end(cpu, _nanoseconds(duration), name[1] if name else None)
        elif (match := _LEAF_OR_ENTRY.match(function)) is not None:
            self._begin(cpu, match[1], entry=match[2] == "{", ns=_nanoseconds(duration))

    def _begin(self, cpu: int, name: str, *, entry: bool, ns: int | None) -> None:
        stack = self._stack(cpu)
        traced = _BY_NAME.get(name)
        if traced is None:
            self._tally.other += 1
            if _HOLDS_UP.search(name):
                self._hold_up(cpu)
        else:
            self._tally.functions[name] = None
        action = traced.action if traced is not None else None
        if action is not None and any(frame.action is action for frame in stack):
            self._tally.nested += 1
            action = None
        frame = _Frame(name, action)
        if entry:
            stack.append(frame)
        else:
            self._count(cpu, frame, ns)

    def _end(self, cpu: int, ns: int | None, name: str | None) -> None:
        stack = self._stack(cpu)
        if name is not None and any(frame.name == name for frame in stack):
            while stack[-1].name != name:
                self._tally.lost += stack.pop().action is not None
        elif name is not None and stack:
            return  # it began before the recording, or before events were lost
        if stack:
            self._count(cpu, stack.pop(), ns)
        elif name is None or (name in _BY_NAME and _BY_NAME[name].action is not None):
            self._tally.lost += 1

    def _count(self, cpu: int, frame: _Frame, ns: int | None) -> None:
        if frame.action is None:
            return
        if frame.interrupted:
            self._tally.interrupted += 1
        elif ns is None:
            self._tally.lost += 1
        else:
            self._tally.samples.setdefault(frame.action, []).append(ns)
            self._tally.cpus[cpu] += 1


# No line of a tracer is longer; what is, is not searched for patterns.
_LONGEST_LINE = 1000


def _each_line(text: str, before: int, seen: Callable[[int, int], None]) -> Iterator[str]:
    """Yield the lines one by one: a list of all would be several times as big as the text.

    *before* are the bytes of texts that were read before this one.
    """
    at = shown = 0
    while (end := text.find("\n", at)) >= 0:
        yield text[at:end]
        at = end + 1
        if at - shown > _TELL_EVERY:
            shown = at
            seen(before + at, before + len(text))
    if at < len(text):
        yield text[at:]


def _nanoseconds(text: str) -> int | None:
    """The time in a graph's column of durations, ``+ 12.345 us``; None if there is none."""
    match = _DURATION.match(text)
    if match is None or len(match[1]) > 15:  # noqa: PLR2004  (31 years)
        return None
    return int(match[1]) * 1000 + int((match[2] or "").ljust(3, "0"))


_MAP = re.compile(r"@(?P<map>\w*)\[(?P<key>[^\]]+)\]:(?P<rest>.*)", re.ASCII)


_NUMBER = r"(\d{1,12})([KMGT]?)"


_BUCKET = re.compile(
    rf"[\[(](?:{_NUMBER}|\.\.\.)(?:, (?:{_NUMBER}|\.\.\.))?[\])]\s+(\d{{1,18}})\b", re.ASCII
)


_STATS = re.compile(r"\s*count (\d{1,18}), average \d+, total (\d{1,30})", re.ASCII)


_BPF_LOST = re.compile(r"[Ll]ost (\d{1,12}) events", re.ASCII)


def _read_bpftrace(lines: Iterable[str], what: str, tally: _Tally) -> None:
    action: Action | None = None
    scale = 1
    for number, line in enumerate(lines, start=1):
        if len(line) > _LONGEST_LINE:
            continue
        lost = _BPF_LOST.search(line)
        if lost is not None:
            tally.lost_notices += 1
            tally.lost_events += int(lost[1])
            continue
        header = _MAP.match(line)
        if header is not None:
            name = re.split(r"[:,\s]+", header["key"].strip('" '))[-1]
            traced = _BY_NAME.get(name)
            action = traced.action if traced is not None else None
            if traced is None:
                tally.other += 1
            else:
                tally.functions[name] = None
            # A map whose name ends so is in microseconds; without, in nanoseconds.
            scale = 1000 if re.search(r"(?:^|_)us(?:ecs)?$", header["map"]) else 1
            stats = _STATS.match(header["rest"])
            if stats is not None and action is not None:
                count, total = tally.means.get(action, (0, 0))
                tally.means[action] = count + int(stats[1]), total + int(stats[2]) * scale
            continue
        if action is None or not line.strip().startswith(("[", "(")):
            continue
        bucket = _BUCKET.match(line.strip())
        if bucket is None:
            raise MalformedInputError(what, f"line {number}: not a bucket of a histogram")
        first, last = _bounds(bucket)
        counts = tally.buckets.setdefault(action, Counter())
        counts[first * scale, last * scale] += int(bucket[5])


_BINARY = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _bounds(bucket: re.Match[str]) -> tuple[int, int]:
    """A bucket's bounds; an open one is taken for the bound that it has."""
    first = int(bucket[1]) * _BINARY[bucket[2]] if bucket[1] else None
    last = int(bucket[3]) * _BINARY[bucket[4]] if bucket[3] else None
    if first is None:
        return last or 0, last or 0
    return first, first if last is None else last
