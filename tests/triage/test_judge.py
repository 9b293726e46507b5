"""What findings come to together: causes, kernels, options, machine checks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from tdxreclaim.report.schemas import read_schema
from tdxreclaim.tables.findings import CATALOGUE
from tdxreclaim.tables.findings.kind import Cause
from tdxreclaim.tables.kernels import KERNELS
from tdxreclaim.triage.fromlines import failed_page

if TYPE_CHECKING:
    from conftest import RunTool

HOSTS = Path(__file__).parents[1] / "hosts"
SPR = "[    0.5] smpboot: CPU0: Intel(R) Xeon(R) 8480+ (family: 0x6, model: 0x8f, stepping: 0x8)"
GNR = "[    0.5] smpboot: CPU0: Intel(R) Xeon(R) 6980P (family: 0x6, model: 0xad, stepping: 0x1)"
ON = "[    0.3] virt/tdx: BIOS enabled: private KeyID range [64, 128)"
READY = "[    9.0] virt/tdx: module initialized"
RECORD = (
    "[  400.0] mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 1: bd80000000100134"
)
PANIC = "[  400.1] Kernel panic - not syncing: Fatal local machine check"
REMOVE = "[  500.0] kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0x8000020000000092, rcx 0x0, rdx, 0x0"
FATAL = "[  401.0] kvm_intel: SEAMCALL TDH_MEM_RANGE_BLOCK failed: 0xe000060400000000, rcx 0x0, rdx, 0x0"
DISABLE = "[ 9000.0] virt/tdx: TDH.SYS.DISABLE failed: 0xc000010000000000"
KEXEC = "[ 9001.0] kexec_core: Starting new kernel"


def banner(release: str) -> str:
    return f"[    0.0] Linux version {release} (a@b) #1 SMP"


class Triaged(dict[str, Any]):
    """The findings by their ids, those of the same cause included."""

    document: dict[str, Any]


@pytest.fixture
def triage(run: RunTool, tmp_path: Path) -> Any:  # noqa: ANN401  (a function)
    def read(*lines: str) -> Triaged:
        (tmp_path / "dmesg.txt").write_text("\n".join(lines) + "\n")
        ran = run("triage", "--from", "dmesg.txt", "--format", "json", cwd=tmp_path)
        document = json.loads(ran.out)
        jsonschema.validate(document, json.loads(read_schema("triage")))
        found = Triaged()
        found.document = document
        for finding in document["findings"]:
            for each in (finding, *finding["same_cause"]):
                found[each["id"]] = each
        return found

    return read


def test_rows_name_rows_that_exist_and_have_a_root_for_each_cause() -> None:
    ids = {kind.id for kind in CATALOGUE}
    for kind in CATALOGUE:
        assert set(kind.follows) <= ids
        assert bool(kind.option) == bool(kind.then)
    for cause in Cause:
        assert min(kind.rank for kind in CATALOGUE if kind.cause is cause) == 0


def test_a_failed_bring_up_is_one_finding_with_its_root(triage: Any) -> None:  # noqa: ANN401
    found = triage(
        ON,
        "[   10.1] virt/tdx: SEAMCALL (0x0000000000000022) failed: 0xc000050500000000",
        "[   10.2] virt/tdx: module initialization failed (-5)",
        "[   10.3] kvm_intel: Failed to initialize TDX module.",
    )
    (root,) = [each for each in found.document["findings"] if each["severity"] == "error"]
    assert root["id"] == "init-seamcall-failed"
    assert "TDX_SYS_NOT_READY" in root["sentence"]
    assert [each["id"] for each in root["same_cause"]] == [
        "module-init-failed",
        "kvm-module-init-failed",
    ]
    assert "Update the BIOS" in root["advice"]
    assert found.document["exit_status"] == 20


def test_a_bring_up_without_a_word_is_not_a_log_that_is_cut(triage: Any) -> None:  # noqa: ANN401
    found = triage(banner("7.3.4"), ON, SPR, "[ 1.0] Run /init as init process")
    assert "without a word" in found["bios-on-no-module"]["sentence"]
    cut = triage(ON, SPR, "[ 1.0]       Not tainted 7.3.4 #1")
    assert "without a word" not in cut["bios-on-no-module"]["sentence"]


def test_advice_that_was_followed_is_not_given(triage: Any) -> None:  # noqa: ANN401
    options = "[    0.0] Command line: BOOT_IMAGE=/vmlinuz ro kvm_intel.tdx=1"
    asked = triage(banner("6.17.0"), ON)["bios-on-no-module"]["advice"]
    assert "load kvm_intel with tdx=1" in asked
    given = triage(banner("6.17.0"), options, ON)["bios-on-no-module"]
    assert "load kvm_intel" not in given["advice"]
    assert "although kvm_intel.tdx=1 is set" in given["sentence"]


@pytest.mark.parametrize(
    ("release", "advice"),
    [
        ("6.17.3", "Reboot when"),
        ("6.18.3", "Reboot when"),
        ("6.19.0", "Take the host out of service"),
        ("7.3.4", "Take the host out of service"),
        ("7.0.0-12-generic", "Take the host out of service"),
        ("6.17.0-5-generic", "Find out the kernel"),
        ("99.1.0", "Take the host out of service"),
    ],
)
def test_what_a_failed_removal_asks_for_depends_on_the_kernel(
    release: str,
    advice: str,
    triage: Any,  # noqa: ANN401
) -> None:
    found = triage(banner(release), SPR, ON, READY, FATAL, REMOVE)
    assert found["td-fatal"]["advice"].startswith(advice)
    assert found["page-removal-failed"]["severity"] == "critical"
    assert "TDX_TD_FATAL" in found["td-fatal"]["sentence"]


def test_the_kernel_table_decides_what_becomes_of_a_page() -> None:
    for row in KERNELS:
        assert failed_page(str(row.last)) is row.failed_page
    assert failed_page(None) is None


def test_a_td_that_a_machine_check_made_fatal_comes_after_it(triage: Any) -> None:  # noqa: ANN401
    found = triage(banner("7.1.0"), SPR, ON, READY, RECORD, FATAL)
    assert found["td-fatal"]["after"] == ["machine-check"]
    assert found["machine-check"]["after"] == []


def test_corrected_uncorrected_and_fatal_look_different(triage: Any) -> None:  # noqa: ANN401
    corrected = triage(
        SPR, "[  400.0] mce: [Hardware Error]: CPU 4: Machine Check: 0 Bank 13: 8c000040000800c2"
    )
    assert corrected.document["exit_status"] == 0
    assert corrected["corrected-machine-check"]["severity"] == "notice"
    uncorrected = triage(SPR, ON, RECORD)
    assert uncorrected["machine-check"]["severity"] == "error"
    fatal = triage(SPR, ON, RECORD, PANIC)
    assert fatal["machine-check"]["severity"] == "critical"
    (one,) = [each for each in fatal.document["findings"] if each["severity"] == "critical"]
    assert [each["id"] for each in one["same_cause"]] == ["fatal-machine-check"]
    assert one["sentence"].endswith("; the kernel panicked")


def test_what_speaks_for_and_against_the_erratum_is_said_where_it_can_be(triage: Any) -> None:  # noqa: ANN401
    edac = "[  400.2] EDAC MC5: 1 UE memory scrubbing error on CPU_SrcID#1_MC#1_Chan#0_DIMM#0"
    details = triage(banner("6.17.0"), SPR, ON, READY, RECORD, edac)["machine-check"]["details"]
    assert any(each.startswith("for the erratum: an uncorrected load") for each in details)
    assert any(each.startswith("against it: the memory controller reports") for each in details)
    other = triage(banner("6.18.0"), GNR, ON, READY, RECORD)["machine-check"]
    assert other["severity"] == "warning"
    assert other["details"] == [
        "CPU 12, bank 1: VAL UC EN MISCV ADDRV S AR",
        "this CPU does not have the erratum: it is not that",
    ]


def test_a_record_from_before_the_boot_is_told_apart(triage: Any) -> None:  # noqa: ANN401
    record = "[    0.06] mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 4: a600000000020408"
    finding = triage(SPR, ON, record)["machine-check"]
    assert (finding["severity"], "before this boot" in finding["sentence"]) == ("warning", True)


def test_a_module_without_the_leaf_matters_only_where_another_kernel_takes_over(
    triage: Any,  # noqa: ANN401
) -> None:
    def severity(*lines: str) -> str:
        return str(triage(banner("7.2.0"), *lines)["sys-disable-failed"]["severity"])

    assert severity(SPR, ON, DISABLE) == "notice"
    assert severity(SPR, ON, DISABLE, KEXEC) == "error"
    assert severity(SPR, ON, "[ 8999.0] Kernel panic - not syncing: hung", DISABLE) == "error"
    assert severity(GNR, ON, DISABLE, KEXEC) == "notice"


def test_the_register_of_a_warning_is_decoded(triage: Any) -> None:  # noqa: ANN401
    found = triage(
        "[  300.1] WARNING: CPU: 76 PID: 2842 at arch/x86/kvm/vmx/tdx.c:275 __tdx_reclaim_page+0xac/0xe0",
        "[  300.2] RIP: 0010:__tdx_reclaim_page+0xac/0xe0 [kvm_intel]",
        "[  300.3] RAX: c000030000000001 RBX: ff4d1d2a0f3c0000 RCX: 0000000000000000",
    )
    assert found["reclaim-warning"]["details"] == [
        "the module's answer (RAX): 0xc000030000000001 (TDX_PAGE_METADATA_INCORRECT, operand RCX)"
    ]


def test_lines_of_tdx_that_no_row_knows_are_one_notice(triage: Any) -> None:  # noqa: ANN401
    lines = [f"[ {n}.0] virt/tdx: news {n}" for n in range(1, 6)]
    found = triage(banner("8.1.0"), *lines)["unknown-tdx-lines"]
    assert (found["count"], len(found["evidence"])) == (5, 3)
    assert found["details"] == ["kernel 8.1.0"]


def test_stamps_are_numbers(triage: Any) -> None:  # noqa: ANN401
    found = triage(RECORD)["machine-check"]
    assert found["first"] == {"seconds": 400.0, "time": None, "text": None}


def test_what_is_asked_is_answered_first(run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("\n".join((banner("6.17.0"), SPR, ON, READY, RECORD)) + "\n")
    asked = ("--observed", "5h", "--memory", "107GiB", "--vcpus", "32")
    ran = run("triage", "--from", "d.txt", *asked, cwd=tmp_path)
    assert ran.out.startswith("The observed 5")


def test_a_log_that_was_not_understood_is_no_clean_bill(run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("2026-06-24 11:07:17;h;something\n" * 20)
    ran = run("triage", "--from", "d.txt", cwd=tmp_path)
    assert ran.status == 13
    assert ran.out.startswith("NOT READ: 20 lines, none understood.")
    assert "Nothing" not in ran.out
    assert ran.err.startswith("tdxreclaim: d.txt: not read: ")


def test_the_time_line_is_in_order_whatever_is_worst(triage: Any) -> None:  # noqa: ANN401
    document = triage(banner("7.1.0"), SPR, ON, READY, RECORD, FATAL, REMOVE).document
    order = [each["id"] for each in document["timeline"]]
    assert order == [
        "tdx-on-in-bios",
        "module-initialized",
        "machine-check",
        "td-fatal",
        "page-removal-failed",
    ]
    assert document["findings"][0]["severity"] == "critical"


def test_what_is_known_of_the_host_is_in_the_document(triage: Any) -> None:  # noqa: ANN401
    options = "[    0.1] Command line: BOOT_IMAGE=/vmlinuz root=/dev/secret ro kvm_intel.tdx=1 nohibernate"
    host = triage(banner("7.1.0"), options, SPR, ON).document["host"]
    assert host["options"] == ["kvm_intel.tdx=1", "nohibernate"]
    assert host["signatures"] == ["0x806f8"]


@pytest.mark.parametrize(
    ("release", "id_", "severity"),
    [
        ("6.17.3", "erratum-flag-missing", "warning"),
        ("6.18.3-acme", "erratum-flag-missing", "error"),
        ("6.18.3", "at-risk", "critical"),
    ],
)
def test_an_affected_cpu_with_tdx_on_and_no_flag_is_a_finding(
    release: str, id_: str, severity: str, run: RunTool, tmp_path: Path
) -> None:
    shutil.copytree(HOSTS / "spr-6.18-active", tmp_path / "h")
    cpuinfo = tmp_path / "h/proc/cpuinfo"
    cpuinfo.write_text(cpuinfo.read_text().replace(" tdx_pw_mce", ""))
    (tmp_path / "h/proc/sys/kernel/osrelease").write_text(f"{release}\n")
    (tmp_path / "h/proc/kallsyms").unlink()
    log = tmp_path / "h/var/log/dmesg"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if "kexec" not in line))
    found = json.loads(run("triage", "--from", "h", "-f", "json", cwd=tmp_path).out)["findings"]
    assert [(each["id"], each["severity"]) for each in found if each["id"] == id_] == [
        (id_, severity)
    ]
    both = {"at-risk", "erratum-flag-missing"}
    assert len([each for each in found if each["id"] in both]) == 1


def test_a_reboot_that_disables_the_module_is_told(triage: Any) -> None:  # noqa: ANN401
    found = triage(
        banner("7.2.0"),
        "[ 8000.0] INFO: task systemd-shutdow:1 blocked for more than 122 seconds.",
        "[ 8000.1] task:systemd-shutdow state:D stack:0     pid:1     tgid:1     ppid:0",
        "[ 8000.2] Call Trace:",
        "[ 8000.3]  <TASK>",
        "[ 8000.4]  __seamcall+0x5/0x30",
        "[ 8000.5]  tdx_sys_disable+0x41/0x90",
        "[ 8000.6]  </TASK>",
    )
    assert found["stuck-sys-disable"]["severity"] == "warning"


def test_a_warning_belongs_to_the_phase_of_its_function(triage: Any) -> None:  # noqa: ANN401
    warning = (
        "[  401.5] WARNING: arch/x86/kvm/vmx/tdx.c:1700 at tdx_sept_remove_private_spte+0x7a/0xa0"
    )
    found = triage(banner("7.1.0"), SPR, ON, READY, FATAL, warning)
    assert [each["id"] for each in found["td-fatal"]["same_cause"]] == ["reclaim-warning"]


def test_a_kernel_that_hands_pages_back_does_not_speak_against_the_erratum(
    triage: Any,  # noqa: ANN401
) -> None:
    later = "[  900.0] mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 1: bd80000000100134"
    details = triage(banner("7.1.0"), SPR, ON, READY, REMOVE, later)["machine-check"]["details"]
    assert "for the erratum: pages of a TD could not be removed before it" in details
    assert not any("clears every page" in each for each in details)
