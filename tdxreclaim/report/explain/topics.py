"""What an output can name, and what each of these words means.

Every text is that of the table that has it: nothing is explained twice.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.errors import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tdxreclaim.tables.cpus import CpuModel

_FAMILY_AND_MODEL = re.compile(r"(\d{1,3})/(0x[0-9a-f]{1,3}|[1-9]\d{0,2}|0)", re.IGNORECASE)
_SIGNATURE = re.compile(r"0x[0-9a-f]{1,8}", re.IGNORECASE)

_CLOSE_ENOUGH = 0.6
_MOST_NEAREST = 3


class Topic(NamedTuple):
    """A word: ``lines`` are labels with their texts, ``sources`` citations."""

    id: str
    kind: str
    lines: tuple[tuple[str, str], ...]
    sources: tuple[str, ...] = ()


def all_topics() -> tuple[Topic, ...]:
    """Return every topic, kind by kind."""
    return tuple(topic for provide in _PROVIDERS for topic in provide())


def find(name: str) -> tuple[Topic, ...]:
    """Return what *name* means, all of it; nothing if it means nothing.

    A kind (``posture``, ``exit status``) means all of its topics.
    """
    wanted = _plain(name)
    topics = all_topics()
    found = [topic for topic in topics if wanted in (_plain(topic.id), *_aliases(topic))]
    found += [topic for look_up in _LOOK_UPS for topic in look_up(name) if topic not in found]
    return tuple(found) or tuple(
        topic for topic in topics if wanted in (_plain(topic.kind), f"{_plain(topic.kind)}s")
    )


def nearest(name: str) -> list[str]:
    """Return the topics and kinds that *name* may have been meant for, best first."""
    from difflib import get_close_matches

    names = {_plain(word): word for topic in all_topics() for word in (topic.id, topic.kind)}
    close = get_close_matches(_plain(name), names, n=_MOST_NEAREST, cutoff=_CLOSE_ENOUGH)
    return [names[word] for word in close]


def _plain(name: str) -> str:
    """Return *name* as it is compared: dots, blanks and underscores are hyphens.

    >>> _plain("TDH.MEM.TRACK"), _plain("exit status")
    ('tdh-mem-track', 'exit-status')
    """
    return "-".join(name.lower().replace("_", " ").replace(".", " ").replace("-", " ").split())


def _aliases(topic: Topic) -> tuple[str, ...]:
    return tuple(_plain(text) for label, text in topic.lines if label == "leaf") + (
        (_plain(f"exit {topic.id}"),) if topic.kind == "exit status" else ()
    )


def _words() -> Iterator[Topic]:
    from tdxreclaim.tables.glossary import WORDS

    for word in WORDS:
        lines = [("means", word.meaning)]
        if word.action:
            lines.append(("do", word.action))
        yield Topic(word.id, word.kind, tuple(lines))


def _errata() -> Iterator[Topic]:
    from tdxreclaim.tables.cpus import find_cpu
    from tdxreclaim.tables.errata import ERRATA

    for erratum in ERRATA:
        affected = ", ".join(
            f"{cpu.codename} ({vfm})" if (cpu := find_cpu(vfm)) else str(vfm)
            for vfm in erratum.affected
        )
        lines = (("means", f"{erratum.summary}; {erratum.consequence}"), ("affects", affected))
        yield Topic(erratum.id, "erratum", lines, tuple(map(str, erratum.citations)))


def _other_bugs() -> Iterator[Topic]:
    from tdxreclaim.tables.errata import OTHER_BUGS

    for bug in OTHER_BUGS:
        lines = (("means", bug.summary), ("instead", f"no erratum about clearing: {bug.instead}"))
        yield Topic(bug.word, "word under bugs", lines, (str(bug.citation),))


def _findings() -> Iterator[Topic]:
    from tdxreclaim.tables.findings import CATALOGUE

    for kind in CATALOGUE:
        lines = [("severity", kind.severity), ("means", kind.meaning), ("do", kind.advice)]
        lines += [("line", sample) for sample in kind.samples]
        lines += [("versions", kind.versions), ("known", kind.certainty)]
        yield Topic(kind.id, "finding", tuple(lines), tuple(map(str, kind.citations)))


def _steps() -> Iterator[Topic]:
    from tdxreclaim.tables.teardown import Action

    for action in Action:
        leaf = (("leaf", action.label),) if action.leaf else ()
        means = "a step of a TD's shutdown that the emulator counts and a calibration prices"
        yield Topic(action.value, "step", (("means", f"{action.label}: {means}"), *leaf))


def _scenarios() -> Iterator[Topic]:
    from tdxreclaim.engine.scenarios import SCENARIOS

    for name, scenario in SCENARIOS.items():
        lines = (("shows", scenario.says), ("play", f"tdxreclaim scenario {name}"))
        yield Topic(name, "scenario", lines)


def _calibrations() -> Iterator[Topic]:
    from tdxreclaim.costs.calibration import SHIPPED
    from tdxreclaim.costs.shipped import read_calibration

    for name in SHIPPED:
        record = read_calibration(name).itself
        lines = (("host", record.host), ("show", f"tdxreclaim calibrate show {name}"))
        yield Topic(name, "calibration", lines)


def _statuses() -> Iterator[Topic]:
    for status in ExitStatus:
        yield Topic(str(status.value), "exit status", (("means", status.meaning),))


_PROVIDERS: tuple[Callable[[], Iterator[Topic]], ...] = (
    *(_words, _errata, _other_bugs, _findings),
    *(_steps, _scenarios, _calibrations, _statuses),
)


def _kernel(name: str) -> Iterator[Topic]:
    from tdxreclaim.tables.kernels import find_kernel_by_name

    row = find_kernel_by_name(name)
    if row is None:
        return
    lines = [
        ("clearing", f"{row.clearing} ({row.certainty}): {row.summary}"),
        ("kexec", f"{row.kexec} ({row.kexec_certainty}): {row.kexec_summary}"),
    ]
    if row.symbols:
        lines.append(("symbols", ", ".join(row.symbols)))
    yield Topic(f"Linux {row.span}", "kernel", tuple(lines), tuple(map(str, row.citations)))


def _cpu(name: str) -> Iterator[Topic]:
    from tdxreclaim.tables.cpus import find_cpu_by_name
    from tdxreclaim.tables.errata import errata_of

    cpu = find_cpu_by_name(name) or _cpu_by_number(name.strip())
    if cpu is None:
        return
    errata = ", ".join(erratum.id for erratum in errata_of(cpu.vfm)) or "no erratum"
    lines = [("codename", cpu.codename), ("TDX", cpu.tdx or "none known"), ("errata", errata)]
    if cpu.note:
        lines.append(("note", cpu.note))
    yield Topic(str(cpu.vfm), "CPU", tuple(lines), (str(cpu.citation),))


def _cpu_by_number(text: str) -> CpuModel | None:
    """Return the CPU of a family and model (``6/0x8f``) or of a CPUID signature."""
    from tdxreclaim.facts.cpu import SIGNATURE_MAX, decode_signature
    from tdxreclaim.tables.cpus import INTEL, Vfm, find_cpu

    match = _FAMILY_AND_MODEL.fullmatch(text)
    if match is not None:
        return find_cpu(Vfm(INTEL, int(match[1]), int(match[2], 0)))
    if not _SIGNATURE.fullmatch(text) or int(text, 16) > SIGNATURE_MAX:
        return None
    signature = decode_signature(int(text, 16))
    return find_cpu(Vfm(INTEL, signature.family, signature.model))


# A completion status has bits from 32 up; what is smaller is the number of a leaf.
_STATUS_FROM = 1 << 32


def _number(name: str) -> Iterator[Topic]:
    from tdxreclaim.tables.seamcalls import name_leaf, name_status

    digits = name.strip().lower()
    try:
        value = int(digits, 16 if digits.startswith("0x") else 10)
    except ValueError:
        return
    if value >= 1 << 64 or value < 0:
        return
    if value < _STATUS_FROM:
        leaf = name_leaf(digits)
        if leaf.startswith("TD"):
            yield Topic(name, "SEAMCALL leaf", (("means", leaf),))
        return
    yield Topic(f"0x{value:016x}", "status", (("means", name_status(f"0x{value:x}")),))


def _by_name(name: str) -> Iterator[Topic]:
    """Yield the leaf (``TDH.SYS.DISABLE``) or the status of that name."""
    from tdxreclaim.tables.seamcalls import Leaf, Status

    plain = _plain(name).replace("-", "_").upper()
    if plain in Leaf.__members__:
        leaf = Leaf[plain]
        yield Topic(leaf.spelling, "SEAMCALL leaf", (("means", f"leaf number {int(leaf)}"),))
    for status in Status:
        if plain in (status.name, status.name.removeprefix("TDX_")):
            code = ("code", f"0x{int(status):016x}")
            yield Topic(status.name, "status", (code,))


_LOOK_UPS = (_kernel, _cpu, _number, _by_name)
