"""Hosts and real captures through `triage`, against golden files; what is asked of time."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest

from tdxreclaim.costs.shipped import read_shipped_calibration
from tdxreclaim.report.schemas import read_schema

if TYPE_CHECKING:
    from conftest import Compare, Ran, RunTool

HOSTS = Path(__file__).parents[1] / "hosts"
NAMES = sorted(path.name for path in HOSTS.iterdir())
TICKET = "sosreport-spr-6.18-ticket"
LINE = "virt/tdx: module not loaded"


def ids(ran: Ran) -> list[str]:
    findings = json.loads(ran.out)["findings"]
    return [each["id"] for finding in findings for each in (finding, *finding["same_cause"])]


@pytest.mark.parametrize("format_", ["text", "markdown"])
def test_shared_case(
    case: str, format_: str, run: RunTool, golden: Compare, shared_cases: Path
) -> None:
    ran = run("triage", "--from", case, "--format", format_, cwd=shared_cases)

    assert ran.err == ""
    golden(f"triage/case-{case}.{format_}", ran.golden)


@pytest.mark.parametrize("format_", ["text", "markdown", "json"])
@pytest.mark.parametrize("name", [TICKET, "gnr-6.17-active", "spr-hibernation"])
def test_host(name: str, format_: str, run: RunTool, golden: Compare) -> None:
    ran = run("triage", "--from", name, "--format", format_, cwd=HOSTS)

    assert ran.err == ""
    golden(f"triage/{name}.{format_}", ran.golden)


@pytest.mark.parametrize("name", NAMES)
def test_every_host_fits_the_schema_and_says_the_same_in_every_format(
    name: str, run: RunTool
) -> None:
    ran = run("triage", "--from", name, "--format", "json", cwd=HOSTS)
    document = json.loads(ran.out)

    jsonschema.validate(document, json.loads(read_schema("triage")))
    assert document["exit_status"] == ran.status
    for format_ in ("text", "markdown"):
        other = run("triage", "--from", name, "--format", format_, cwd=HOSTS)
        assert other.status == ran.status
    text = run("triage", "--from", name, cwd=HOSTS).out
    assert max(map(len, text.splitlines())) <= 80


def test_the_ticket_has_what_happened_to_its_host(run: RunTool) -> None:
    found = ids(run("triage", "--from", TICKET, "--format", "json", cwd=HOSTS))
    wanted = {
        "reclaim-failed",
        "reclaim-warning",
        "kexec-refused",
        "stuck-guest-pages",
        "stuck-on-lock",
        "not-killable",
        "hibernation-blocks-tdx",
    }
    assert wanted <= set(found)
    assert "module-not-loaded" not in found, "sshd quoted it"


def test_a_tar_of_the_ticket_says_the_same(run: RunTool, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz") as tar:
        tar.add(HOSTS / TICKET, f"sosreport-{TICKET}")
    tree = json.loads(run("triage", "--from", TICKET, "-f", "json", cwd=HOSTS).out)
    tarred = json.loads(run("triage", "--from", "s.tar.gz", "-f", "json", cwd=tmp_path).out)

    assert tarred["source"]["format"] == "tar"
    for key in ("findings", "host", "unread", "exit_status"):
        assert tarred[key] == tree[key]
    by_path = sorted(tree["logs"], key=lambda log: str(log["path"]))
    assert sorted(tarred["logs"], key=lambda log: str(log["path"])) == by_path


@pytest.mark.parametrize(
    ("observed", "memory", "vcpus", "kind"),
    [
        ("5539s", "400GiB", "64", "time-fits"),
        ("467s", "400GiB", "64", "time-too-short"),
        ("5h", "400GiB", "64", "time-too-long"),
        ("30s", "8GiB", None, "time-unproven"),
        ("30min", "8GiB", "4", "time-too-long"),
        (None, "107GiB", "32", "time-expected"),
        ("4h", "1TiB", "8", "time-one-cause"),
        ("70min", "1TiB", "8", "time-one-cause"),
        ("2h", "1TiB", "8", "time-one-cause"),
        ("24h", "1TiB", "8", "time-too-long"),
        ("10min", "1TiB", "8", "time-too-short"),
    ],
)
def test_time(
    observed: str | None, memory: str, vcpus: str | None, kind: str, run: RunTool
) -> None:
    arguments = ["triage", "--from", "gnr-7.0-active", "-f", "json", "--memory", memory]
    arguments += ["--observed", observed] if observed else []
    arguments += ["--vcpus", vcpus] if vcpus else []
    document = json.loads(run(*arguments, cwd=HOSTS).out)

    jsonschema.validate(document, json.loads(read_schema("triage")))
    assert document["time"]["finding"] == kind
    assert document["time"]["shares"]["clearing"] == 0
    assert [each["id"] for each in document["findings"]].count(kind) == 1


@pytest.mark.parametrize("format_", ["text", "markdown"])
@pytest.mark.parametrize(
    "asked",
    [
        ("--observed", "5539s", "--memory", "400GiB", "--vcpus", "64"),
        ("--observed", "30s", "--memory", "8GiB"),
    ],
    ids=["large", "small"],
)
def test_time_is_golden(
    asked: tuple[str, ...], format_: str, run: RunTool, golden: Compare
) -> None:
    ran = run("triage", "--from", "gnr-7.0-active", *asked, "-f", format_, cwd=HOSTS)
    golden(f"triage/time-{asked[1]}.{format_}", ran.golden)


@pytest.mark.parametrize(
    ("observed", "explained_by"), [("4h", ["memory"]), ("70min", ["vcpus"]), ("2h", [])]
)
def test_between_the_causes_it_says_which_would_explain_the_time(
    observed: str, explained_by: list[str], run: RunTool
) -> None:
    asked = ("--observed", observed, "--memory", "1TiB", "--vcpus", "8")
    base = ("triage", "--from", "gnr-7.0-active", *asked)
    time = json.loads(run(*base, "-f", "json", cwd=HOSTS).out)["time"]
    text = " ".join(run(*base, cwd=HOSTS).out.split())

    assert time["explained_by"] == explained_by
    assert set(time["causes"]) == {"vcpus", "memory"}
    assert ("a cost that grows with memory explains it" in text) == (explained_by == ["memory"])
    assert "that settles it" in text
    assert "not reclaim alone" not in text


@pytest.mark.parametrize("name", ["epyc-bare", "spr-guest", "spr-hibernation"])
def test_no_td_no_reclaim(name: str, run: RunTool) -> None:
    asked = ("--observed", "9min", "--memory", "8GiB", "-f", "json")
    ran = run("triage", "--from", name, *asked, cwd=HOSTS)
    assert json.loads(ran.out)["time"]["finding"] == "time-not-reclaim"


def test_an_affected_host_says_what_clearing_takes(run: RunTool) -> None:
    asked = ("--observed", "517s", "--memory", "107GiB", "--vcpus", "32", "-f", "json")
    time = json.loads(run("triage", "--from", "spr-6.18-active", *asked, cwd=HOSTS).out)["time"]
    assert time["finding"] == "time-fits"
    assert 0.05 < time["shares"]["clearing"] < 0.2


def test_rotated_logs_continue_each_other(run: RunTool, tmp_path: Path) -> None:
    folder = tmp_path / "var" / "log"
    folder.mkdir(parents=True)
    first = "Jun 22 08:00:00 h kernel: Linux version 6.17.0 (a@b)\n"
    with gzip.open(folder / "kern.log.2.gz", "wt") as packed:
        packed.write(first)
    (folder / "kern.log.1").write_text(f"Jun 23 08:00:00 h kernel: {LINE}\n")
    (folder / "kern.log").write_text(
        f"Jun 24 08:00:00 h kernel: Linux version 6.18.0 (a@b)\nJun 24 09:00:00 h kernel: {LINE}\n"
    )
    ran = run("triage", "--from", ".", "-f", "json", cwd=tmp_path)

    found = [each for each in json.loads(ran.out)["findings"] if each["id"] == "module-not-loaded"]
    assert [(each["boot"], each["evidence"][0]["path"]) for each in found] == [
        (2, "var/log/kern.log"),
        (1, "var/log/kern.log.1"),
    ]


def test_several_logs_of_one_host_are_not_added_up(run: RunTool, tmp_path: Path) -> None:
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text(f"[    1.0] {LINE}\n")
    ran = run("triage", "--from", "one.txt", "--from", "two.txt", "-f", "json", cwd=tmp_path)

    (finding,) = json.loads(ran.out)["findings"]
    assert (finding["count"], finding["also_in"]) == (1, ["two.txt"])


def test_facts_of_the_host_come_from_the_last_boot_of_its_log(run: RunTool, tmp_path: Path) -> None:
    lines = (
        "[ 0.0] Linux version 6.17.0 (a@b)",
        "[ 9.0] virt/tdx: module initialized",
        "[ 0.0] Linux version 6.18.0 (a@b)",
        "[ 1.0] smpboot: CPU0: Intel(R) Xeon(R) 8480+ (family: 0x6, model: 0x8f, stepping: 0x8)",
        "[ 1.0] virt/tdx: BIOS enabled: private KeyID range [64, 128)",
    )
    (tmp_path / "dmesg.txt").write_text("\n".join(lines) + "\n")
    ran = run("triage", "--from", "dmesg.txt", "-f", "json", cwd=tmp_path)

    document = json.loads(ran.out)
    assert (document["host"]["kernel"], document["host"]["state"]) == ("6.18.0", "bios-enabled")
    by_id = {each["id"]: each for each in document["findings"]}
    assert by_id["bios-on-no-module"]["evidence"][0]["line"] == 5
    assert by_id["module-initialized"]["boot"] == 1


def test_two_hosts_are_refused(run: RunTool) -> None:
    ran = run("triage", "--from", "gnr-7.0-active", "--from", "spr-6.18-active", cwd=HOSTS)
    assert (ran.status, ran.out) == (3, "")
    assert ran.err == (
        "tdxreclaim: spr-6.18-active: another CPU than in gnr-7.0-active: run it by itself\n"
    )


def test_a_host_and_its_journal_go_together(run: RunTool, tmp_path: Path) -> None:
    shutil.copytree(HOSTS / "gnr-7.0-active", tmp_path / "host")
    (tmp_path / "journal.txt").write_text(f"Jun 24 08:00:00 h kernel: {LINE}\n")
    ran = run("triage", "--from", "host", "--from", "journal.txt", "-f", "json", cwd=tmp_path)

    assert json.loads(ran.out)["host"]["codenames"] == ["Granite Rapids"]
    assert "module-not-loaded" in ids(ran)


def test_the_report_of_canonicals_script_is_read(run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text(
        "### Kernel version\n\n```\n6.8.0-1004-intel #11-Ubuntu SMP x86_64 GNU/Linux\n```\n\n"
        f"### TDX kernel logs\n\n```\n[    1.423525] {LINE}\n```\n"
    )
    ran = run("triage", "--from", "report.md", "-f", "json", cwd=tmp_path)

    assert json.loads(ran.out)["host"]["kernel"] == "6.8.0-1004-intel"
    assert "module-not-loaded" in ids(ran)
    # Canonical's tree of 2024 is known by the form of its release.
    assert "kernel-unknown" not in ids(ran)


def test_two_archives_with_the_same_names_in_them_are_kept_apart(
    run: RunTool, tmp_path: Path
) -> None:
    for name, lines in (("a", [LINE]), ("b", [LINE, LINE])):
        folder = tmp_path / name / "sos_commands" / "kernel"
        folder.mkdir(parents=True)
        (folder / "dmesg").write_text("".join(f"[    1.0] {line}\n" for line in lines))
    ran = run("triage", "--from", "a", "--from", "b", "--from", "b", "-f", "json", cwd=tmp_path)

    (finding,) = json.loads(ran.out)["findings"]
    assert finding["count"] == 2
    assert finding["evidence"][0]["path"] == "b/sos_commands/kernel/dmesg"
    assert finding["also_in"] == [
        "a/sos_commands/kernel/dmesg",
        "b/sos_commands/kernel/dmesg (2)",
    ]


BAD = {
    "journal": (["--from", "j.journal"], 13, "j.journal: a binary journal: give what journalctl"),
    "missing": (["--from", "nowhere"], 3, "nowhere: No such file or directory"),
    "empty": (["--from", "empty"], 3, "empty: empty"),
    "folder": (["--from", "folder"], 3, "folder: no captured host"),
    "tar": (["--from", "empty.tar"], 3, "empty.tar: neither a captured host nor a log is in it"),
    "since": (["--since", "tuesday"], 2, "--since: 'tuesday' is no date, stamp or span"),
    "observed": (
        ["--observed", "soon", "--memory", "1G"],
        2,
        "--observed: 'soon' is not a duration",
    ),
    "nothing": (["--observed", "0s", "--memory", "1G"], 2, "--observed: must be greater than 0"),
    "alone": (["--observed", "5s"], 2, "--observed: requires --memory"),
    "vcpus": (["--vcpus", "5"], 2, "--vcpus: requires --memory"),
}


def test_two_logs_of_different_cpus_are_refused(run: RunTool, tmp_path: Path) -> None:
    for name, model in (("a", "0x8f"), ("b", "0xad")):
        cpu = f"(family: 0x6, model: {model}, stepping: 0x1)"
        (tmp_path / name).write_text(f"[    0.1] smpboot: CPU0: Intel(R) Xeon(R) {cpu}\n")
    ran = run("triage", "--from", "a", "--from", "b", cwd=tmp_path)

    assert ran.status == 3
    assert ran.err == "tdxreclaim: b: another CPU than in a: run it by itself\n"


@pytest.mark.parametrize("data", [bytes(range(256)) * 4, b"Once upon a time.\n"])
def test_what_is_not_understood_is_no_clean_bill(data: bytes, run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "what").write_bytes(data)
    ran = run("triage", "--from", "what", cwd=tmp_path)

    assert ran.status == 13
    assert ran.out.startswith("NOT READ: ")
    assert ran.err == "tdxreclaim: what: not read: none of its lines was understood\n"


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name: str, run: RunTool, tmp_path: Path) -> None:
    arguments, status, said = BAD[name]
    (tmp_path / "empty").touch()
    (tmp_path / "j.journal").write_bytes(b"LPKSHHRH" + bytes(300))
    (tmp_path / "folder").mkdir()
    with tarfile.open(tmp_path / "empty.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("hello"), io.BytesIO())
    ran = run("triage", *arguments, cwd=tmp_path)

    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith(f"tdxreclaim: {said}")
    assert ran.err.count("\n") == 1


def test_markdown_of_a_hostile_log_stays_text(run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "dmesg.txt").write_text(
        "[ 1.0] virt/tdx: module not loaded ``` <img src=x> [a](http://b) @everyone\n"
        "[ 2.0] INFO: task <b>*x*</b>:12 blocked for more than 122 seconds.\n"
    )
    out = run("triage", "--from", "dmesg.txt", "-f", "markdown", cwd=tmp_path).out

    prose = re.sub(r"(`+).*?\1", "", out)
    assert "<img" not in prose
    assert "<b>" not in prose.replace("\\<", "")
    assert "@everyone" not in prose


def test_exit_zero(run: RunTool) -> None:
    assert run("triage", "--from", TICKET, "--exit-zero", cwd=HOSTS).status == 0


def test_output_to_a_file(run: RunTool, tmp_path: Path) -> None:
    printed = run("triage", "--from", str(HOSTS / TICKET))
    ran = run("triage", "--from", str(HOSTS / TICKET), "-o", str(tmp_path / "out"))
    assert (ran.status, ran.out) == (20, "")
    assert (tmp_path / "out").read_text() == printed.out


def test_the_calibration_is_the_users_choice(run: RunTool, tmp_path: Path) -> None:
    slow = tmp_path / "slow.toml"
    text = read_shipped_calibration("published")
    # Clearing that takes a hundred times as long.
    slower = re.sub(
        r"low_ns = 1_800\nlikely_ns = 1_900\nhigh_ns = 2_000",
        "low_ns = 180_000\nlikely_ns = 190_000\nhigh_ns = 200_000",
        text,
    )
    assert slower != text
    slow.write_text(slower)
    question = ("--observed", "5539s", "--memory", "400GiB", "--vcpus", "64")
    base = ("triage", "--from", str(HOSTS / "gnr-6.17-active"), *question, "-f", "json")
    assert "time-fits" in run(*base).out
    assert "time-fits" not in run(*base, "--calibration", str(slow)).out
    wrong = run(*base, "--calibration", "no-such")
    assert wrong.status == 3
    assert wrong.err.startswith("tdxreclaim: no-such: ")


# Ten findings fit a screen of 30 lines; nothing that counts is left out of them.
TEN = (
    "[    1.0] Linux version 6.18.3 (b@h) (gcc) #1 SMP\n"
    "[    1.1] smpboot: CPU0: Intel(R) Xeon(R) (family: 0x6, model: 0x8f, stepping: 0x8)\n"
    "[    1.6] virt/tdx: BIOS enabled: private KeyID range [32, 64)\n"
    "[    9.1] virt/tdx: module initialized\n"
    "[   12.5] kexec: Not allowed on platform with tdx_pw_mce bug\n"
    "[  261.3] kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0xc000030000000001, rcx 0x1, "
    "rdx 0x0, r8 0x0\n"
    "[  310.1] kvm_intel: tdh_mng_key_freeid() failed. HKID 65 is leaked.\n"
    "[  311.1] kvm_intel: tdh_mng_vpflushdone() failed. HKID 66 is leaked.\n"
    "[  312.1] kvm_intel: tdh_mng_key_freeid() failed. HKID 67 is leaked.\n"
    "[  313.1] kvm_intel: tdh_mng_key_freeid() failed. HKID 68 is leaked.\n"
    "[  314.1] kvm_intel: tdh_mng_key_freeid() failed. HKID 69 is leaked.\n"
    "[  400.0] mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 1: bd80000000100134\n"
    "[  615.1] INFO: task qemu-system-x86:4711 blocked for more than 122 seconds.\n"
    "[  615.1] Call Trace:\n[  615.1]  kvm_gmem_release+0x10/0x20\n"
    "[  700.1] INFO: task qemu-system-x86:4712 blocked for more than 122 seconds.\n"
    "[  700.1] Call Trace:\n[  700.1]  kvm_gmem_release+0x10/0x20\n"
)


def test_ten_findings_fit_a_screen_in_the_order_in_which_they_happened(
    run: RunTool, tmp_path: Path
) -> None:
    (tmp_path / "ten.log").write_text(TEN)
    ran = run("triage", "--from", "ten.log", cwd=tmp_path)
    lines = ran.out.splitlines()
    assert ran.status == 20
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    numbers = [int(found[1]) for line in lines if (found := re.search(r" :(\d+)$", line))]
    assert len(numbers) == 10
    assert numbers == sorted(numbers)
    document = json.loads(run("triage", "--from", "ten.log", "-f", "json", cwd=tmp_path).out)
    counted = [f for f in document["findings"] if f["severity"] in ("critical", "error", "warning")]
    assert len(counted) == len(numbers)


def test_the_page_has_a_time_line_and_every_finding(run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "ten.log").write_text(TEN + "[  800.0] kvm_intel: <script>alert(1)</script>\n")
    ran = run("triage", "--from", "ten.log", "--html", "page.html", cwd=tmp_path)
    assert ran.status == 20
    html = (tmp_path / "page.html").read_text()
    document = json.loads(run("triage", "--from", "ten.log", "-f", "json", cwd=tmp_path).out)
    assert "<svg" in html
    assert "<script" not in html
    assert not re.findall(r"(?:src|href)=|url\(|@import", html)
    for finding in document["findings"]:
        assert f"{finding['id']}: " in html
    assert html.count("<details") == len(document["findings"])


def test_a_page_needs_a_file(run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "ten.log").write_text(TEN)
    ran = run("triage", "--from", "ten.log", "--html", "-", cwd=tmp_path)
    assert (ran.status, ran.err) == (2, "tdxreclaim: --html: needs the name of a file\n")


def test_a_host_that_no_line_names_is_no_clean_bill(run: RunTool, tmp_path: Path) -> None:
    line = "Jun 24 11:00:00 node kernel: kvm_intel: tdh_mng_key_freeid() failed. HKID 65 is leaked."
    (tmp_path / "j.txt").write_text(line + "\n")
    assert run("triage", "--from", "j.txt", "--host", "node", cwd=tmp_path).status == 20
    ran = run("triage", "--from", "j.txt", "--host", "other", cwd=tmp_path)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "tdxreclaim: --host: no line that was read is of 'other'\n"
