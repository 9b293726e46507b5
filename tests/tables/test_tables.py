"""The tables themselves: rows disjoint, cited, nameable, in step with each other."""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING

import jsonschema
import pytest

from tdxreclaim.cli.values import parse_cpu, parse_vendor
from tdxreclaim.costs.scene import COMPARABLE, find_comparable
from tdxreclaim.engine.plan import plan_of
from tdxreclaim.errors import UsageError
from tdxreclaim.facts.cpu import encode_signature
from tdxreclaim.facts.kernel import TDX_SYMBOLS
from tdxreclaim.report.schemas import read_schema
from tdxreclaim.tables.cpus import (
    BRAND_SERIES,
    CPUS,
    INTEL,
    OTHER_VENDORS,
    find_cpu,
    find_cpu_by_name,
)
from tdxreclaim.tables.distributions import DISTRIBUTIONS, find_distribution
from tdxreclaim.tables.errata import ERRATA, OTHER_BUGS
from tdxreclaim.tables.kernels import (
    DISABLES_SINCE,
    FAILURES_STAY_SINCE,
    FIRST_THAT_SKIPS,
    KERNELS,
    RUNS_TDS,
    Clearing,
    Kexec,
    find_kernel,
    spell_rows,
)
from tdxreclaim.tables.modules import MODULES, find_module, platforms_of
from tdxreclaim.tables.releases import Version, spell_span, split_release, upstream_version
from tdxreclaim.tables.sources import Certainty
from tdxreclaim.tables.teardown import Action, Phase

if TYPE_CHECKING:
    from conftest import Compare, RunTool

    from tdxreclaim.tables.cpus import CpuModel


def test_cpu_rows_are_disjoint() -> None:
    assert len({cpu.vfm for cpu in CPUS}) == len(CPUS)
    names = [name for cpu in CPUS for name in {cpu.codename, cpu.macro, *cpu.short}]
    assert len(set(names)) == len(names)


def test_errata_rows_are_disjoint_and_their_cpus_are_listed_as_tdx_cpus() -> None:
    affected = [vfm for erratum in ERRATA for vfm in erratum.affected]
    assert len(set(affected)) == len(affected)
    for vfm in affected:
        row = find_cpu(vfm)
        assert row is not None
        assert row.tdx is Certainty.VERIFIED


def test_every_row_has_a_citation() -> None:
    for row in (*ERRATA, *KERNELS):
        assert row.citations
        assert all(citation.source and citation.locator for citation in row.citations)
    assert all(cpu.citation.locator for cpu in CPUS)


def test_a_row_that_runs_tds_is_enough_for_a_plan_a_trace_and_a_stack() -> None:
    runs = [row for row in KERNELS if row.clearing is not Clearing.NO_TDX_HOST]
    assert list(RUNS_TDS) == runs
    for row in runs:
        plan = plan_of(row.first)
        assert plan is not None
        assert (plan.row, plan.failed_page) == (row, row.failed_page)
        assert row.failed_page_citation is not None
        assert {function.action for function in row.functions} >= set(Action)
        phases = {Phase.GUEST_PAGES, Phase.HKID, Phase.CONTROL_PAGES}
        assert {function.phase for function in row.functions} > phases
        for release in (row.first, row.last):
            assert find_comparable(str(release)) in COMPARABLE
    assert find_comparable(str(KERNELS[0].last)) is None


def test_kernel_rows_have_no_gap_and_no_overlap() -> None:
    for row, after in itertools.pairwise(KERNELS):
        assert row.first <= row.last < after.first
        following = Version(row.last.major, row.last.minor + 1)
        # 6.19 is the last of its series: 7.0 follows it.
        assert after.first in (following, Version(row.last.major + 1, 0))


def test_a_row_that_clears_by_the_erratum_cites_the_commit() -> None:
    for row in KERNELS:
        cited = any("01fb93a363e0" in citation.locator for citation in row.citations)
        assert cited is (row.clearing is Clearing.ON_ERRATUM)


def test_symbols_of_the_table_are_the_ones_that_are_read() -> None:
    assert {name for row in KERNELS for name in row.symbols} < set(TDX_SYMBOLS)


def test_a_distribution_is_known_by_its_whole_release_within_the_series_that_were_read() -> None:
    for each in DISTRIBUTIONS:
        assert each.citations
        assert each.first <= each.last
        re.compile(each.form)
    for release, name in (
        ("6.12.118+deb13-amd64", "Debian"),
        ("7.3.4+deb14-amd64", "Debian"),
        ("7.4.1+deb14-amd64", None),
        ("6.12.118+deb13-arm64", None),
        ("6.12.118-amd64-custom", None),
        ("6.17.7-300.fc43.x86_64", "Fedora"),
        ("7.2.0-300.fc45.x86_64", "Fedora"),
        ("7.3.0-300.fc45.x86_64", None),
        ("6.15.0-0.rc2.22.eln147.x86_64", "Fedora ELN"),
        ("6.8.0-1010-intel", "Ubuntu (canonical/tdx)"),
        ("6.8.0-55-generic", None),
        ("6.6.134.1-2.azl3", "Azure Linux"),
        ("5.14.0-611.5.1.el9_7.x86_64", "RHEL 9"),
        ("7.3.4", None),
        ("", None),
    ):
        found = find_distribution(release)
        assert (found and found.name) == name, release


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.17", (6, 17)),
        ("6.18.0", (6, 18)),
        ("6.18.35", (6, 18)),
        ("7.0-rc1", (7, 0)),
        ("6.18.0-rc7", (6, 18)),
        ("6.19", (6, 19)),
        ("6.20", None),
        ("5.99.1", None),
        ("6.17.0+", None),
        ("6.17.0-5-generic", None),
        ("6.8.0-1004-intel", None),
        ("6.18.2-arch1-1", None),
        ("6.18.", None),
        ("6.18-", None),
        ("6.18-rc", None),
        ("6", None),
        ("6.18.2.1", None),
        ("", None),
        ("six.eighteen", None),
        ("6.18.0-rc1-00123-gabcdef012345", None),
        ("\u0666.\u0661\u0668", None),
    ],
)
def test_upstream_version(release: str, version: tuple[int, int] | None) -> None:
    assert upstream_version(release) == version


@pytest.mark.parametrize(
    ("text", "base", "rest"),
    [
        ("6.18", "6.18", ""),
        ("6.18.2", "6.18.2", ""),
        ("6.18-rc3", "6.18-rc3", ""),
        ("6.18.0-rc7-00123-gabcdef", "6.18.0-rc7", "-00123-gabcdef"),
        ("6.18.2-1.fc43", "6.18.2", "-1.fc43"),
        ("6.18-rc", "6.18", "-rc"),
        ("6.18-rc3a", "6.18-rc3", "a"),
    ],
)
def test_a_release_taken_apart(text: str, base: str, rest: str) -> None:
    release = split_release(text)
    assert release is not None
    assert (release.base, release.rest, str(release)) == (base, rest, text)


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ((6, 16), (6, 16), "6.16"),
        ((6, 16), (6, 17), "6.16 and 6.17"),
        ((7, 1), (7, 2), "7.1 and 7.2"),
        ((6, 16), (6, 18), "6.16 to 6.18"),
        ((6, 19), (7, 0), "6.19 to 7.0"),
        ((0, 0), (6, 7), "up to 6.7"),
    ],
)
def test_a_span_in_words(first: tuple[int, int], last: tuple[int, int], words: str) -> None:
    assert spell_span(Version(*first), Version(*last)) == words


def test_rows_in_words_are_one_span_where_they_are_neighbours() -> None:
    up_to_6_7, to_6_15, first, second, third = KERNELS[:5]
    assert spell_rows(()) == ""
    assert spell_rows((second, first)) == "6.16 to 6.18"
    assert spell_rows((first, third)) == "6.16 and 6.17, 6.19 to 7.1"
    assert spell_rows((up_to_6_7, to_6_15, second, third)) == "up to 6.15, 6.18 to 7.1"
    assert spell_rows((first, second), onwards=True) == "6.16 to 6.18"
    newest = KERNELS[-1].first
    assert spell_rows((first, KERNELS[-1]), onwards=True) == f"6.16 and 6.17, {newest} and later"


def test_since_when_a_kernel_does_so() -> None:
    for since, does in (
        (FIRST_THAT_SKIPS, lambda row: row.clearing is Clearing.ON_ERRATUM),
        (DISABLES_SINCE, lambda row: row.kexec is Kexec.AFTER_DISABLE),
        (FAILURES_STAY_SINCE, lambda row: row.failures_stay),
    ):
        assert not any(does(row) for row in KERNELS if row.last < since)
        at = find_kernel(since)
        assert at is not None
        assert does(at)


@pytest.mark.parametrize(
    ("brand", "codename"),
    [
        ("Intel(R) Xeon(R) Platinum 8480+", "Sapphire Rapids"),
        ("INTEL(R) XEON(R) GOLD 6530", "Emerald Rapids"),
        ("Intel(R) Xeon(R) 6980P", "Granite Rapids"),
        ("Intel(R) Xeon(R) 6780E", "Sierra Forest"),
        ("Intel(R) Xeon(R) Platinum 8380", None),
    ],
)
def test_what_a_brand_name_tells_of_the_generation(brand: str, codename: str | None) -> None:
    found = [vfm for pattern, vfm in BRAND_SERIES if re.search(pattern, brand, re.IGNORECASE)]
    cpus = [cpu.codename for vfm in found if (cpu := find_cpu(vfm))]
    assert cpus == ([codename] if codename else [])


def test_a_release_after_the_last_row_is_in_no_row() -> None:
    last = KERNELS[-1].last
    assert find_kernel(last) is KERNELS[-1]
    assert find_kernel(Version(last.major, last.minor + 1)) is None
    assert find_kernel(Version(last.major + 1, 0)) is None


@pytest.mark.parametrize("cpu", CPUS, ids=lambda cpu: cpu.macro)
def test_a_cpu_is_found_however_its_name_is_spelt(cpu: CpuModel) -> None:
    name = cpu.codename
    spellings = {
        name,
        name.upper(),
        name.replace(" ", "").lower(),
        name.replace(" ", "-"),
        name.replace(" ", "_"),
        cpu.macro,
        cpu.macro.removeprefix("INTEL_").lower(),
        *cpu.short,
    }
    for spelling in spellings:
        assert find_cpu_by_name(spelling) is cpu, spelling


@pytest.mark.parametrize("cpu", CPUS, ids=lambda cpu: cpu.macro)
def test_every_way_to_fake_a_cpu_means_the_same(cpu: CpuModel) -> None:
    _, family, model = cpu.vfm
    signature = encode_signature(family, model, 3)
    for text in (
        cpu.codename,
        f"{family}/{model:#x}",
        f"{family}/{model}",
        f"GenuineIntel/{family}/{model}",
        f"{family:02x}-{model:02x}-03",
        f"{family:02X}-{model:02X}",
        f"{signature:#x}",
        f"0X{signature:08X}",
    ):
        faked = parse_cpu(text)
        assert (faked.vendor or INTEL, faked.family, faked.model) == cpu.vfm, text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0x1000806F8", "32 bits"),
        ("0x8f", "for a model write"),
        ("6/300", "out of range"),
        ("271/1", "out of range"),
        ("6/143/16", "out of range"),
        ("5/0x8f", "no signature"),
        ("06-8f-10", "no signature"),
        ("6/", "not known"),
        ("6/-1", "not known"),
        ("6/0xzz", "not a number"),
        ("pentium", "not known"),
        ("", "not known"),
        ("GenuineIntle/6/143", "not a CPUID vendor"),
        ("\u0666/\u0661", "not known"),
        ("6/" + "9" * 5000, "not a number"),
    ],
)
def test_a_cpu_that_cannot_be_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        parse_cpu(text)
    assert caught.value.what == "--cpu"


def test_a_misspelt_intel_is_not_another_vendor() -> None:
    assert INTEL not in OTHER_VENDORS
    assert parse_vendor("--vendor", "intel") == INTEL
    assert parse_vendor("--vendor", "genuineintel") == INTEL
    with pytest.raises(UsageError, match="not a CPUID vendor"):
        parse_vendor("--vendor", "GenuineIntle")


def test_errata_text(run: RunTool, golden: Compare) -> None:
    ran = run("errata")
    assert max(map(len, ran.out.splitlines())) <= 80
    golden("errata.text", ran.out)


def test_errata_json_has_every_row_and_fits_its_schema(run: RunTool) -> None:
    document = json.loads(run("errata", "--format", "json").out)

    jsonschema.validate(document, json.loads(read_schema("errata")))
    assert len(document["errata"]) == len(ERRATA)
    assert len(document["cpus"]) == len(CPUS)
    assert len(document["kernels"]) == len(KERNELS)


@pytest.mark.parametrize(
    ("name", "errata", "cpus", "kernels"),
    [
        ("tdx_pw_mce", 1, 2, 0),
        ("spr", 1, 1, 0),
        ("INTEL_GRANITERAPIDS_X", 0, 1, 0),
        ("6.17", 0, 0, 1),
        ("7.1.5", 0, 0, 1),
        ("2.0.18", 0, 0, 0),
        ("seamret_invd_vmcs", 0, 0, 0),
    ],
)
def test_errata_of_a_name(name: str, errata: int, cpus: int, kernels: int, run: RunTool) -> None:
    document = json.loads(run("errata", name, "--format", "json").out)
    rows = [len(document[key]) for key in ("errata", "cpus", "kernels")]

    assert rows == [errata, cpus, kernels]
    assert run("errata", name).out


def test_module_rows_fit_their_branch_and_their_cpus() -> None:
    assert len({row.version for row in MODULES}) == len(MODULES)
    assert len({row.build for row in MODULES if row.build}) == sum(1 for r in MODULES if r.build)
    affected = {vfm for erratum in ERRATA for vfm in erratum.affected}
    for row in MODULES:
        for vfm in row.platforms:
            cpu = find_cpu(vfm)
            assert cpu is not None
            assert cpu.tdx is Certainty.VERIFIED
        # No branch but 1.5 has a platform that the erratum is on.
        assert row.version.startswith("1.5") or affected.isdisjoint(row.platforms)


@pytest.mark.parametrize(
    ("version", "row", "short"),
    [
        ("1.5.24", "1.5.24", ("spr", "emr")),
        ("1.5.05.46", "1.5.05", ("spr", "emr", "srf")),
        ("1.5.5", "1.5.05", ("spr", "emr", "srf")),
        ("2.0.08.00", "2.0.08", ("gnr", "gnrd")),
        ("1.5 (build 698, 20240129)", "1.5.05", ("spr", "emr", "srf")),
        ("1.5 (build 1, 20240129)", None, ("spr", "emr", "srf")),
        ("1.5", None, ("spr", "emr", "srf")),
        ("1.5.34", "1.5.34", ("spr", "emr", "srf")),
        ("2.0.99", None, ("gnr", "gnrd", "cwf")),
        ("3.0.01", None, ()),
        ("1.0 (build 457, 20230206)", "1.0", ()),
        ("nonsense", None, ()),
        ("", None, ()),
    ],
)
def test_module_of_a_version(version: str, row: str | None, short: tuple[str, ...]) -> None:
    found = find_module(version)
    assert (found and found.version) == row
    names = [cpu.short[0] for vfm in platforms_of(version) if (cpu := find_cpu(vfm))]
    assert tuple(names) == short


def test_a_signature_names_no_vendor(run: RunTool) -> None:
    amd = run("check", "--cpu", "0x00A10F11", "--vendor", "AuthenticAMD", "--format", "json")
    assert (amd.status, amd.err) == (12, "")
    (processor,) = json.loads(amd.out)["silicon"]["processors"]
    assert (processor["vendor"], processor["family"], processor["model"]) == (
        "AuthenticAMD",
        25,
        17,
    )
    alone = run("check", "--cpu", "0x806F8")
    assert alone.status == 10
    assert alone.err == (
        "tdxreclaim: --cpu: a CPUID signature names no vendor: GenuineIntel is assumed "
        "(--vendor names another)\n"
    )
    for cpu in ("spr", "GenuineIntel/6/0x8f", "6/0x8f", "06-8f-08"):
        refused = run("check", "--cpu", cpu, "--vendor", "AuthenticAMD")
        assert (refused.status, refused.out) == (2, "")


def test_another_bug_is_never_taken_for_the_erratum() -> None:
    words = {bug.word for bug in OTHER_BUGS}
    assert words == {"seamret_invd_vmcs"}
    assert words.isdisjoint(erratum.flag for erratum in ERRATA)


@pytest.mark.parametrize("name", ["nonsense", "99.1", "tdx_pw"])
def test_errata_of_no_name(name: str, run: RunTool) -> None:
    ran = run("errata", name)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("tdxreclaim: NAME: ")
