"""The tables behind the decision, as text and as JSON (``tdxreclaim.errata/2``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.tables.cpus import CPUS, CpuModel, find_cpu, find_cpu_by_name
from tdxreclaim.tables.errata import ERRATA, Erratum
from tdxreclaim.tables.kernels import (
    KERNELS,
    FailedPage,
    KernelRow,
    Version,
    find_kernel,
    upstream_version,
)

if TYPE_CHECKING:
    from tdxreclaim.report.page import Page
    from tdxreclaim.tables.sources import Citation

SCHEMA = "tdxreclaim.errata/2"


class Tables(NamedTuple):
    """The rows to show."""

    errata: tuple[Erratum, ...]
    cpus: tuple[CpuModel, ...]
    kernels: tuple[KernelRow, ...]


ALL = Tables(ERRATA, CPUS, KERNELS)


def select(name: str) -> Tables | None:
    """Return the rows that *name* means: an erratum, a CPU or an upstream release.

    ``None`` if it means none.
    """
    for erratum in ERRATA:
        if erratum.id == name:
            affected = tuple(cpu for vfm in erratum.affected if (cpu := find_cpu(vfm)))
            return Tables((erratum,), affected, ())
    version = upstream_version(name.removeprefix("v"))
    if version is not None:
        row = find_kernel(version)
        return Tables((), (), (row,)) if row else None
    cpu = find_cpu_by_name(name)
    if cpu is None:
        return None
    return Tables(tuple(e for e in ERRATA if cpu.vfm in e.affected), (cpu,), ())


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
        }
    )


def render_text(tables: Tables, *, width: int = 80, color: bool = False) -> str:
    """Return the rows as text of *width* columns."""
    from tdxreclaim.report.page import Page

    page = Page(width, color=color)
    for erratum in tables.errata:
        page.paragraph(f"Erratum {erratum.id}", "bold")
        page.paragraph(f"{erratum.summary}; {erratum.consequence}.", first="  ", indent=2)
        for vfm in erratum.affected:
            cpu = find_cpu(vfm)
            page.labelled("affects", f"{vfm}{f'  {cpu.codename}' if cpu else ''}")
        page.labelled("kernel", _honoured(erratum))
        _sources(page, erratum.citations)
        page.blank()
    if tables.cpus:
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
    if tables.cpus:
        page.blank()
    if tables.kernels:
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
    return page.text().rstrip("\n") + "\n"


def _honoured(erratum: Erratum) -> str:
    if erratum.flag is None or erratum.honoured_since is None:
        return "none is known that clears for it alone"
    by = f" (by {' or '.join(erratum.honoured_by)})" if erratum.honoured_by else ""
    return f"sets {erratum.flag} under bugs; clears for it since {erratum.honoured_since}{by}"


def _sources(page: Page, citations: tuple[Citation, ...]) -> None:
    for citation in citations:
        page.labelled("", f"source: {citation}")


def _sources_of(row: KernelRow) -> tuple[Citation, ...]:
    failed = row.failed_page_citation
    return row.citations if failed is None else (*row.citations, failed)


_FAILED = {
    FailedPage.LEAKED: "leaks until the next reboot",
    FailedPage.HANDED_BACK: "is handed back, not cleared and still the TD's",
}
