"""The tables behind the decision, as text and as JSON (``tdxreclaim.errata/2``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.tables.cpus import CPUS, CpuModel, find_cpu, find_cpu_by_name
from tdxreclaim.tables.errata import ERRATA, OTHER_BUGS, Erratum, OtherBug
from tdxreclaim.tables.kernels import KERNELS, FailedPage, KernelRow, find_kernel_by_name
from tdxreclaim.tables.modules import MODULES, TdxModule
from tdxreclaim.tables.releases import Version

if TYPE_CHECKING:
    from tdxreclaim.report.page import Page
    from tdxreclaim.tables.sources import Citation

SCHEMA = "tdxreclaim.errata/2"


class Tables(NamedTuple):
    """The rows to show."""

    errata: tuple[Erratum, ...] = ()
    cpus: tuple[CpuModel, ...] = ()
    kernels: tuple[KernelRow, ...] = ()
    modules: tuple[TdxModule, ...] = ()
    other_bugs: tuple[OtherBug, ...] = ()


ALL = Tables(ERRATA, CPUS, KERNELS, MODULES, OTHER_BUGS)


def select(name: str) -> Tables | None:
    """Return the rows that *name* means: an erratum, a CPU, a TDX module or an upstream release.

    ``None`` if it means none.
    """
    for erratum in ERRATA:
        if erratum.id == name:
            affected = tuple(cpu for vfm in erratum.affected if (cpu := find_cpu(vfm)))
            return Tables((erratum,), affected)
    for module in MODULES:
        if module.version == name:
            return Tables(modules=(module,))
    for bug in OTHER_BUGS:
        if bug.word == name:
            return Tables(other_bugs=(bug,))
    row = find_kernel_by_name(name)
    if row is not None:
        return Tables(kernels=(row,))
    cpu = find_cpu_by_name(name)
    if cpu is None:
        return None
    return Tables(tuple(e for e in ERRATA if cpu.vfm in e.affected), (cpu,))


def render_json(tables: Tables) -> str:
    """Return the rows as one JSON object."""
    from tdxreclaim.report.document import dump, tool

    def cited(citations: tuple[object, ...]) -> list[str]:
        return [str(citation) for citation in citations]

    return dump(
        {
            "schema": SCHEMA,
            "tool": tool(),
            "errata": [
                {
                    "id": erratum.id,
                    "summary": erratum.summary,
                    "consequence": erratum.consequence,
                    "affected": [
                        {"vendor": vfm.vendor, "family": vfm.family, "model": vfm.model}
                        for vfm in erratum.affected
                    ],
                    "flag": erratum.flag,
                    "honoured_since": erratum.honoured_since and str(erratum.honoured_since),
                    "honoured_by": list(erratum.honoured_by),
                    "citations": cited(erratum.citations),
                }
                for erratum in tables.errata
            ],
            "cpus": [
                {
                    "vendor": cpu.vfm.vendor,
                    "family": cpu.vfm.family,
                    "model": cpu.vfm.model,
                    "codename": cpu.codename,
                    "macro": cpu.macro,
                    "names": list(cpu.short),
                    "market": cpu.market or None,
                    "tdx": cpu.tdx,
                    "errata": [e.id for e in ERRATA if cpu.vfm in e.affected],
                    "note": cpu.note or None,
                    "citations": cited((cpu.citation,)),
                }
                for cpu in tables.cpus
            ],
            "kernels": [
                {
                    "first": None if row.first == Version(0, 0) else str(row.first),
                    "last": str(row.last),
                    "clearing": row.clearing,
                    "certainty": row.certainty,
                    "summary": row.summary,
                    "kexec": row.kexec,
                    "kexec_certainty": row.kexec_certainty,
                    "kexec_summary": row.kexec_summary,
                    "failed_page": row.failed_page,
                    "symbols": list(row.symbols),
                    "functions": [function.name for function in row.functions],
                    "citations": cited(_sources_of(row)),
                }
                for row in tables.kernels
            ],
            "modules": [
                {
                    "version": row.version,
                    "build": row.build,
                    "date": row.date,
                    "platforms": [
                        {"vendor": vfm.vendor, "family": vfm.family, "model": vfm.model}
                        for vfm in row.platforms
                    ],
                    "dynamic_pamt": row.dynamic_pamt,
                    "sys_disable": row.sys_disable,
                    "citations": cited((row.citation,)),
                }
                for row in tables.modules
            ],
            "other_bugs": [
                {
                    "word": bug.word,
                    "summary": bug.summary,
                    "instead": bug.instead,
                    "since": str(bug.since),
                    "citations": cited((bug.citation,)),
                }
                for bug in tables.other_bugs
            ],
        }
    )


def render_text(tables: Tables, *, width: int = 80, color: bool = False) -> str:
    """Return the rows as text of *width* columns."""
    from tdxreclaim.report.page import Page

    page = Page(width, color=color)
    for section, rows in (
        (_errata, tables.errata),
        (_cpus, tables.cpus),
        (_kernels, tables.kernels),
        (_modules, tables.modules),
        (_other_bugs, tables.other_bugs),
    ):
        if rows:
            section(page, tables)
            page.blank()
    return page.text().rstrip("\n") + "\n"


def _errata(page: Page, tables: Tables) -> None:
    for number, erratum in enumerate(tables.errata):
        if number:
            page.blank()
        page.paragraph(f"Erratum {erratum.id}", "bold")
        page.paragraph(f"{erratum.summary}; {erratum.consequence}.", first="  ", indent=2)
        for vfm in erratum.affected:
            cpu = find_cpu(vfm)
            page.labelled("affects", f"{vfm}{f'  {cpu.codename}' if cpu else ''}")
        page.labelled("kernel", _honoured(erratum))
        _sources(page, erratum.citations)


def _cpus(page: Page, tables: Tables) -> None:
    page.paragraph("CPUs", "bold")
    for cpu in tables.cpus:
        errata = ", ".join(e.id for e in ERRATA if cpu.vfm in e.affected) or "no erratum"
        names = ", ".join((*cpu.short, cpu.macro))
        page.paragraph(f"{cpu.vfm}  {cpu.codename}", first="  ", indent=4)
        page.labelled("", f"TDX: {cpu.tdx or 'none known'}; {errata}")
        page.labelled("", f"names: {names}")
        if cpu.note:
            page.labelled("", cpu.note)
        page.labelled("", f"source: {cpu.citation}")


def _kernels(page: Page, tables: Tables) -> None:
    page.paragraph("Kernels (upstream releases)", "bold")
    for row in tables.kernels:
        page.paragraph(f"{row.span}  {row.clearing} ({row.certainty})", first="  ", indent=4)
        page.labelled("", row.summary)
        page.labelled("", f"kexec: {row.kexec} ({row.kexec_certainty}): {row.kexec_summary}")
        if row.failed_page:
            page.labelled("", f"a page whose removal fails: {_FAILED[row.failed_page]}")
        if row.symbols:
            page.labelled("", f"symbols: {', '.join(row.symbols)}")
        _sources(page, _sources_of(row))


def _modules(page: Page, tables: Tables) -> None:
    page.paragraph("TDX modules", "bold")
    for module in tables.modules:
        page.paragraph(_module(module), first="  ", indent=4)
    _sources(page, tuple(dict.fromkeys(module.citation for module in tables.modules)))


def _other_bugs(page: Page, tables: Tables) -> None:
    page.paragraph("Other words under bugs in /proc/cpuinfo", "bold")
    for bug in tables.other_bugs:
        page.paragraph(f"{bug.word}  since {bug.since}: {bug.summary}", first="  ", indent=4)
        page.labelled("", f"not an erratum about clearing: {bug.instead}")
        _sources(page, (bug.citation,))


def _honoured(erratum: Erratum) -> str:
    if erratum.flag is None or erratum.honoured_since is None:
        return "none is known that clears for it alone"
    by = f" (by {' or '.join(erratum.honoured_by)})" if erratum.honoured_by else ""
    return f"sets {erratum.flag} under bugs; clears for it since {erratum.honoured_since}{by}"


def _sources(page: Page, citations: tuple[Citation, ...]) -> None:
    for citation in citations:
        page.labelled("", f"source: {citation}")


def _module(module: TdxModule) -> str:
    names = [cpu.short[0] for vfm in module.platforms if (cpu := find_cpu(vfm))]
    parts = [
        f"build {module.build}" if module.build else "",
        module.date or "",
        f"for {', '.join(names)}" if names else "platforms not known",
        "Dynamic PAMT" if module.dynamic_pamt else "",
        "no TDH.SYS.DISABLE" if module.sys_disable is False else "",
    ]
    return f"{module.version}  {'; '.join(filter(None, parts))}"


def _sources_of(row: KernelRow) -> tuple[Citation, ...]:
    failed = row.failed_page_citation
    return row.citations if failed is None else (*row.citations, failed)


_FAILED = {
    FailedPage.LEAKED: "leaks until the next reboot",
    FailedPage.HANDED_BACK: "is handed back, not cleared and still the TD's",
}
