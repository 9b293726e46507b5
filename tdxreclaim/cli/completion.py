"""What a shell offers after <Tab>: names from the tables, and files.

Nothing here runs unless a shell asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click
    from click.shell_completion import CompletionItem

    Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _among(names: Callable[[], Iterable[str]], *, or_files: bool = False) -> Complete:
    def complete(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found = sorted({name for name in names() if name.startswith(begun)})
        items = [CompletionItem(name) for name in found]
        # Not both: bash takes a file for all that there is.
        return [CompletionItem(begun, type="file")] if or_files and not items else items

    return complete


def _cpu_names() -> Iterable[str]:
    from tdxreclaim.tables.cpus import CPUS

    return (name for cpu in CPUS for name in cpu.short)


def _kernel_releases() -> Iterable[str]:
    from tdxreclaim.tables.kernels import KERNELS
    from tdxreclaim.tables.releases import Version

    return (
        str(version)
        for row in KERNELS
        for version in (row.first, row.last)
        if version != Version(0, 0)
    )


def _scenario_names() -> Iterable[str]:
    from tdxreclaim.engine.scenarios import SCENARIOS

    return SCENARIOS


def _calibration_names() -> Iterable[str]:
    from tdxreclaim.costs.calibration import SHIPPED

    return SHIPPED


def _topic_names() -> Iterable[str]:
    from tdxreclaim.report.explain.topics import all_topics

    return (topic.id for topic in all_topics())


def _finding_ids() -> Iterable[str]:
    from tdxreclaim.tables.findings import CATALOGUE

    return (kind.id for kind in CATALOGUE)


files = _among(tuple, or_files=True)
executors = _among(lambda: ("dask:",))
cpus = _among(_cpu_names)
kernels = _among(_kernel_releases)
scenarios = _among(_scenario_names)
calibrations = _among(_calibration_names, or_files=True)
topics = _among(_topic_names)
findings = _among(_finding_ids)
