"""The catalogue, what it matches, and how findings are put together."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import jsonschema
import pytest

import tdxreclaim
from tdxreclaim.facts.logs.needles import words
from tdxreclaim.facts.logs.scanner import LogScanner
from tdxreclaim.facts.logs.stack import Stack
from tdxreclaim.report.schemas import read_schema
from tdxreclaim.tables.beginnings import beginnings, beginnings_of
from tdxreclaim.tables.findings import CATALOGUE
from tdxreclaim.tables.findings.kind import Kind, Severity
from tdxreclaim.tables.seamcalls import name_leaf, name_status
from tdxreclaim.tables.sources import Certainty
from tdxreclaim.triage.match import Match, matches, recognise
from tdxreclaim.triage.stacks import attribute, names_tdx

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Compare, RunTool

MATCHED = [kind for kind in CATALOGUE if kind.pattern]


def test_ids_are_unique_and_plain() -> None:
    ids = [kind.id for kind in CATALOGUE]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", each) for each in ids)


@pytest.mark.parametrize("kind", CATALOGUE, ids=lambda kind: kind.id)
def test_every_row_is_whole(kind: Kind) -> None:
    row = kind
    assert row.citations
    assert all((row.sentence, row.meaning, row.advice, row.versions))
    assert bool(row.pattern) == bool(row.samples)
    assert row.certainty is not Certainty.UNVERIFIED, "an unverified row would be a flat statement"
    assert row.meaning.endswith(".")
    assert row.advice.endswith(".")


SAMPLES = [(kind.id, sample) for kind in MATCHED for sample in kind.samples]


@pytest.mark.parametrize(("kind", "sample"), SAMPLES)
def test_a_sample_is_found_by_its_row_and_no_other(kind: str, sample: str) -> None:
    assert [each.kind.id for each in matches(sample)] == [kind]


PATTERNS = {kind.pattern: kind.id for kind in MATCHED if kind.pattern}


def alternatives(pattern: str) -> list[tuple[int, int]]:
    """Return where each alternative of a pattern begins and ends."""
    found: list[tuple[int, int]] = []
    begun: list[list[int]] = [[0]]
    at = 0
    while at <= len(pattern):
        sign = pattern[at : at + 1]
        if sign == "(":
            opened = re.compile(r"\((?:\?(?:[:=!]|P<\w+>))?").match(pattern, at)
            assert opened
            at = opened.end()
            begun.append([at])
            continue
        if sign in ("|", ")", ""):
            begun[-1].append(at)
        if sign in (")", ""):
            starts = begun.pop()
            if len(starts) > 2:
                ends = [*(start - 1 for start in starts[1:-1]), starts[-1]]
                found += zip(starts[:-1], ends, strict=True)
        elif sign == "|":
            begun[-1][-1] += 1
        elif sign == "[":
            at = re.compile(r"\[\^?\]?(?:[^\]\\]|\\.)*").match(pattern, at).end()  # type: ignore[union-attr]
        at += 2 if sign == "\\" else 1
    return found


def test_alternatives_are_found() -> None:
    pattern = r"a(?:b|c[|\])]\||(?P<d>e|f))?g"
    assert [pattern[a:b] for a, b in alternatives(pattern)] == [
        *("e", "f"),
        *("b", r"c[|\])]\|", "(?P<d>e|f)"),
    ]


@pytest.mark.parametrize("pattern", PATTERNS, ids=PATTERNS.values())
def test_every_alternative_of_a_pattern_has_a_sample(pattern: str) -> None:
    samples = [sample for kind in MATCHED if kind.pattern == pattern for sample in kind.samples]

    def spans(of: str) -> list[tuple[int, int] | None]:
        return [match and match.span() for match in (re.match(of, each) for each in samples)]

    assert None not in spans(pattern)
    for begin, end in alternatives(pattern):
        without = f"{pattern[:begin]}(?!){pattern[end:]}"
        assert spans(without) != spans(pattern), pattern[begin:end]


@pytest.mark.parametrize(("kind", "sample"), SAMPLES)
def test_a_sample_begins_as_is_derived(kind: str, sample: str) -> None:
    pattern = next(each.pattern for each in MATCHED if each.id == kind)
    assert sample.startswith(beginnings_of(pattern or ""))
    assert sample.startswith(beginnings())


def test_no_pattern_begins_with_just_anything() -> None:
    assert min(map(len, beginnings())) > 3


@pytest.mark.parametrize("sample", [sample for kind, sample in SAMPLES if kind != "not-killable"])
def test_a_sample_is_found_in_a_log(sample: str) -> None:
    for line in (f"[    1.0] {sample}", sample, f"Jun 24 11:07:17 h kernel: {sample}"):
        scanner = LogScanner("log", lambda _: lambda _event: None)
        scanner.feed(f"noise\n{line}\n".encode())
        assert scanner.finish()[0].kernel_lines == 1, line


@pytest.mark.parametrize("word", words())
def test_every_beginning_is_found_after_whatever_stands_before(word: str) -> None:
    for head in ("", "[    1.0] ", "Jun 24 11:07:17 h kernel: ", "kern  :info  : "):
        stack = f"{head}INFO: task x:1 blocked for more than 12 s\n"
        for before, lines in (("", 1), (stack, 2)):
            scanner = LogScanner("log", lambda _: lambda _event: None)
            scanner.feed(f"noise\n{before}{head}{word}\n".encode())
            assert scanner.finish()[0].kernel_lines == lines, head


LINES = {
    "SEAMCALL (28) failed: 0xc000030000000001": "reclaim-failed",
    "SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0x0, rcx 0x0, rdx, 0x0, r8 0x0": "reclaim-failed",
    "kvm_intel: SEAMCALL TDH_MNG_KEY_FREEID failed: 0xc000060700000000": "teardown-seamcall-failed",
    "SEAMCALL (0x7) failed: 0x8000020000000092": "page-removal-failed",
    "SEAMCALL (0x26) failed: 0x8000020100000000": "teardown-seamcall-failed",
    "kvm_intel: SEAMCALL TDH_MEM_TRACK failed: 0xe000060400000000": "td-fatal",
    "SEAMCALL (0x0000000000000006) failed: 0xc000010000000000": "seamcall-failed",
    "WARNING: arch/x86/kvm/vmx/tdx.c:275 at __tdx_reclaim_page+0x7a/0xa0, CPU#3: q/9": "reclaim-warning",
    "WARNING: CPU: 1 PID: 2 at arch/x86/kvm/vmx/tdx.c:9 tdx_track.isra.0+0x1/0x2": "reclaim-warning",
    "virt/tdx: TDX-Module initialized": "module-initialized",
    "virt/tdx: TDX-Module initialization failed (-19)": "module-init-failed",
    "virt/tdx: Module version: 1.5.24": "module-details",
    "virt/tdx: MOVDIR64B is required for TDX": "host-requirement-missing",
    "kvm_intel: EPT is required for TDX": "host-requirement-missing",
    "virt/tdx: TDX not supported by the host platform": "host-platform-unsupported",
    "kvm_intel: TDX not supported by the host platform": "kvm-no-keyids",
    "mce: [Hardware Error]: TDX private memory error. Possible kernel bug.": "private-memory-machine-check",
    "mce: [Hardware Error]: Machine check: Instruction fetch error in SEAM non-root mode": "seam-machine-check",
    "virt/tdx: something new": "unknown-tdx-lines",
    "SEAMCALL (0x0000000000000022) failed: 0xc000050500000000": "init-seamcall-failed",
    "seamldr: SEAMCALL (0x8000000000000000) failed: 0x8000000000000005": "init-seamcall-failed",
    "kvm_intel: VMX not enabled": "",
    "WARNING: CPU: 1 PID: 2 at net/core/dev.c:9 dev_open+0x1/0x2": "",
    "mce: [Hardware Error]: Machine check events logged": "machine-check-logged",
    "virt/tdx: RCX 0x0000000000000000 RDX 0x9100000100000008 R08 0x0000000000000000": "",
}


@pytest.mark.parametrize(("line", "kind"), LINES.items())
def test_lines(line: str, kind: str) -> None:
    found = recognise(line)
    assert (found.kind.id if isinstance(found, Match) else "") == kind


def test_leaves_and_statuses_have_names_in_both_old_and_new_spellings() -> None:
    assert {name_leaf(each) for each in ("28", "0x1c", "0x3001c", "TDH_PHYMEM_PAGE_RECLAIM")} == {
        "TDH.PHYMEM.PAGE.RECLAIM"
    }
    assert name_status("0x8000020000000092") == "TDX_OPERAND_BUSY, operand SEPT_TREE"
    assert name_status("0x8000ff00ffff0000").startswith("VMfailInvalid")


STACKS = {
    "stuck-guest-pages": ("tdh_phymem_page_wbinvd_hkid", "tdp_mmu_zap_leafs", "kvm_gmem_release"),
    "stuck-hkid": ("smp_call_function_many_cond", "tdx_mmu_release_hkid", "kvm_destroy_vm"),
    "stuck-control-pages": (
        "tdx_quirk_reset_page",
        "tdx_reclaim_td_control_pages",
        "kvm_arch_destroy_vm",
    ),
    "stuck-on-lock": ("__schedule", "__mutex_lock", "kvm_vm_ioctl_set_memory_region"),
    "stuck-elsewhere": ("__schedule", "io_schedule", "nfs_wait_on_request"),
}


@pytest.mark.parametrize(("kind", "frames"), STACKS.items())
def test_a_stack_is_put_down_to_its_phase(kind: str, frames: tuple[str, ...]) -> None:
    assert attribute(Stack("qemu", 1, "hung task", 122, frames)).kind.id == kind


def test_a_clear_alone_is_most_likely_a_guest_page() -> None:
    stack = Stack("qemu", 1, "soft lockup", 26, ("tdx_clear_page",))
    assert attribute(stack).kind.id == "stuck-guest-pages"


def test_a_lock_of_somebody_else_is_elsewhere() -> None:
    stack = Stack("cat", 1, "hung task", 122, ("__schedule", "__mutex_lock", "ext4_file_write"))
    assert attribute(stack).kind.id == "stuck-elsewhere"


def test_many_alike_are_counted_together(run: RunTool, tmp_path: Path) -> None:
    lines = [
        f"[ {n}.0] kvm_intel: tdh_mng_key_freeid() failed. HKID {n} is leaked." for n in range(500)
    ]
    (tmp_path / "dmesg.txt").write_text("\n".join(lines) + "\n")
    ran = run("triage", "--from", "dmesg.txt", "--format", "json", cwd=tmp_path)

    findings = [each for each in json.loads(ran.out)["findings"] if each["id"] == "hkid-leaked"]
    assert len(findings) <= 21
    assert sum(each["count"] for each in findings) == 500
    assert all(len(each["evidence"]) <= 3 for each in findings)


def test_the_catalogue_is_golden(run: RunTool, golden: Compare) -> None:
    golden("findings.text", run("findings").out)


def test_the_catalogue_fits_its_schema(run: RunTool) -> None:
    document = json.loads(run("findings", "--format", "json").out)
    jsonschema.validate(document, json.loads(read_schema("findings")))
    assert [each["id"] for each in document["findings"]] == [kind.id for kind in CATALOGUE]


def test_one_finding_is_explained(run: RunTool) -> None:
    one = run("findings", "hkid-leaked")
    assert one.status == 0
    assert one.out.startswith("hkid-leaked (critical)")
    assert "HKID" in run("explain", "hkid-leaked").out


def test_no_such_finding(run: RunTool) -> None:
    ran = run("findings", "nonsense")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "tdxreclaim: ID: 'nonsense' is no finding (tdxreclaim findings lists them)\n"


def test_severities_that_count_are_the_first() -> None:
    assert [severity.counts for severity in Severity] == [True, True, True, False, False]


def test_the_version_is_in_the_document(run: RunTool) -> None:
    document = json.loads(run("findings", "hkid-leaked", "--format", "json").out)
    assert document["tool"]["version"] == tdxreclaim.__version__


def test_an_ordinary_guests_stack_is_not_a_tds() -> None:
    ordinary = ("kvm_tdp_mmu_unmap_gfn_range", "kvm_mmu_notifier_invalidate_range_start")
    assert attribute(Stack("qemu", 1, "hung task", 122, ordinary)).kind.id == "stuck-elsewhere"
    assert not names_tdx(Stack("qemu", 1, "hung task", 122, ("kvm_gmem_release",)))
    assert names_tdx(
        Stack("qemu", 1, "hung task", 122, ("tdh_mem_page_remove", "kvm_gmem_release"))
    )
