"""Prometheus text format, for node_exporter's textfile collector.

No time stamps (the collector refuses them; it has the file's own age in
``node_textfile_mtime_seconds``), and no sentence in a label: a reworded one
must not start a new series.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.facts.evidence import Origin
from tdxreclaim.report.check.report import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from enum import StrEnum

    from tdxreclaim.policy.model import Posture, Processor, Verdict
    from tdxreclaim.report.check.report import Report

SCHEMA = "tdxreclaim.prometheus/1"


def render(report: Report) -> str:
    """Return the metrics; of the series of a state set exactly one is 1."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    decision = report.decision
    yield from _one_hot("verdict", "Must this host clear reclaimed TDX pages?", decision.verdict)
    yield from _one_hot("posture", "What follows for this host.", decision.posture)
    yield from family("origin", "Where the facts are from; several may be 1.")
    for origin in Origin:
        yield series("origin", int(origin in report.origins), origin=origin)
    yield from family("evidence_whole", "1: all that tells of the CPU was read and understood.")
    yield series("evidence_whole", int(decision.coverage.whole))
    yield from family("processors", "Logical processors of one kind; 0: not counted.")
    yield from _processors(decision.silicon.processors)
    yield from family("host_info", "The state of TDX on the host.")
    yield series(
        "host_info", 1, state=decision.host.state, module_version=decision.host.module_version
    )
    yield from family("kernel_info", "What the kernel does with reclaimed pages and with kexec.")
    kernel = decision.kernel
    yield series(
        "kernel_info", 1, release=kernel.release, clearing=kernel.clearing, kexec=kernel.kexec
    )
    yield from family("build_info", "The tool, and the schema of these metrics.")
    yield series("build_info", 1, version=VERSION, schema=SCHEMA)


def _processors(processors: tuple[Processor, ...]) -> Iterator[str]:
    counts: dict[tuple[str | int | None, ...], int] = {}
    for processor in processors:  # groups may differ in microcode alone
        group = processor.group
        labels: tuple[str | int | None, ...] = (group.vendor, group.family, group.model)
        key = (*labels, group.stepping, processor.codename, processor.silicon)
        counts[key] = counts.get(key, 0) + (group.size or 0)
    names = ("vendor", "family", "model", "stepping", "codename", "silicon")
    for key, count in counts.items():
        yield series("processors", count, **dict(zip(names, key, strict=True)))


def _one_hot(name: str, text: str, value: Verdict | Posture) -> Iterable[str]:
    values: type[StrEnum] = type(value)
    yield from family(name, text)
    for each in values:
        yield series(name, int(each is value), **{name: each})


def family(name: str, text: str) -> tuple[str, str]:
    """Return the two lines before the series of a metric."""
    return f"# HELP tdxreclaim_{name} {text}", f"# TYPE tdxreclaim_{name} gauge"


def series(name: str, value: int, **labels: str | int | None) -> str:
    """Return one series; a label that is not known is empty."""
    pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"tdxreclaim_{name}{{{pairs}}} {value}" if pairs else f"tdxreclaim_{name} {value}"


def _escaped(value: str | int | None) -> str:
    """Return a label's value; what is not known is empty, as a label that is not there."""
    text = "" if value is None else str(value)
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
