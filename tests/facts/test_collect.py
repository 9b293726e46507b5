"""What a capture takes and leaves out, and that it answers as its host."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdxreclaim.errors import HostReadError
from tdxreclaim.facts.collect import collect, filter_log, filter_options, manifest, qemu_size
from tdxreclaim.facts.evidence import Origin
from tdxreclaim.facts.host import read_host
from tdxreclaim.facts.kernel import parse_config
from tdxreclaim.facts.places import CPUINFO, IDENTITY, KERNEL_LOGS, MANIFEST, PY_CPUINFO, RELEASES
from tdxreclaim.facts.scrub import _RELEASE, local_release, scrub
from tdxreclaim.facts.sources.base import KERNEL_LOG, Files
from tdxreclaim.facts.sources.live import PyCpuinfo
from tdxreclaim.facts.sources.tree import Tree
from tdxreclaim.policy.decide import decide
from tdxreclaim.policy.model import Verdict

if TYPE_CHECKING:
    from conftest import RunTool

HOSTS = Path(__file__).parents[1] / "hosts"
NAMES = sorted(path.name for path in HOSTS.iterdir())
TICKET = "sosreport-spr-6.18-ticket"


def answer(out: str) -> object:
    """Return a document without what names its source.

    A capture has no stacks but those with KVM or TDX in them, and says local of
    a release that names its builder.
    """
    document = json.loads(_RELEASE.sub(lambda match: local_release(match[0]), out))
    for name in ("source", "logs", "headline"):
        document.pop(name, None)
    for name in ("findings", "timeline"):
        if name in document:
            document[name] = [f for f in document[name] if f["id"] != "stuck-elsewhere"]
    return document


@pytest.mark.parametrize("name", NAMES)
def test_a_capture_answers_as_its_host(name: str, run: RunTool, tmp_path: Path) -> None:
    shutil.copytree(HOSTS / name, tmp_path / "host")
    taken = run("capture", "--from", "host", "-o", "host.tar.gz", cwd=tmp_path)
    assert (taken.status, taken.err) == (0, "")

    for command in (("check", "--explain"), ("triage",)):
        asked = (command[0], "--format", "json", *command[1:], "--from")
        # Of a ticket's logs a capture has the kernel's own alone.
        shutil.rmtree(tmp_path / "host" / "sos_commands" / "logs", ignore_errors=True)
        host = run(*asked, "host", cwd=tmp_path)
        captured = run(*asked, "host.tar.gz", cwd=tmp_path)
        assert captured.status == host.status
        assert answer(captured.out) == answer(host.out)


@pytest.mark.parametrize("name", NAMES)
def test_a_capture_of_a_capture_is_the_capture(
    name: str, run: RunTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1782299237")
    run("capture", "--from", str(HOSTS / name), "-o", "1.tar.gz", cwd=tmp_path)
    run("capture", "--from", "1.tar.gz", "-o", "2.tar.gz", cwd=tmp_path)

    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()


def test_members_are_sorted_and_say_nothing_of_who_made_them(run: RunTool, tmp_path: Path) -> None:
    run("capture", "--from", str(HOSTS / TICKET), "-o", "c.tar.gz", cwd=tmp_path)
    with tarfile.open(tmp_path / "c.tar.gz") as tar:
        members = tar.getmembers()
        manifest = json.loads(tar.extractfile(MANIFEST).read())  # type: ignore[union-attr]

    names = [member.name for member in members]
    assert names == sorted(names)
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime, m.mode) for m in members} == {
        (0, 0, "", "", 0, 0o644)
    }
    assert manifest["schema"] == "tdxreclaim.capture/1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", manifest["date"])
    assert {each["path"] for each in manifest["taken"]} == set(names) - {MANIFEST}


def test_nothing_that_identifies_is_in_a_capture(run: RunTool, tmp_path: Path) -> None:
    run("capture", "--from", str(HOSTS / TICKET), "-o", "c.tar.gz", cwd=tmp_path)
    with tarfile.open(tmp_path / "c.tar.gz") as tar:
        everything = "".join(
            tar.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in tar.getmembers()
        )
    for secret in ("examplehost", "buildhost", "0a1b2c3d", "BOOT_IMAGE", "Example Server", "root="):
        assert secret not in everything
    for kept in ("kvm_intel.tdx=1", "nohibernate", "crashkernel=1G", "kvm_gmem_release"):
        assert kept in everything
    # A stack that has nothing to do with KVM.
    assert "nfs_wait_on_request" not in everything


def test_a_log_keeps_its_line_numbers() -> None:
    text = (HOSTS / TICKET / "sos_commands/kernel/dmesg").read_text()
    filtered = filter_log(text)

    assert filtered.count("\n") == text.count("\n")
    for before, after in zip(text.split("\n"), filtered.split("\n"), strict=True):
        assert (
            not after
            or after.partition("] ")[2].split()[:2] == before.partition("] ")[2].split()[:2]
        )


SECRETS = {
    "a MAC": "52:54:00:12:34:56",
    "an IPv4": "192.168.17.4",
    "an IPv6": "fe80::5054:ff:fe12:3456",
    "a long IPv6": "2001:db8:1:2:3:4:5:6",
    "a UUID": "0a1b2c3d-1111-2222-3333-444455556666",
    "an address of mail": "root@examplehost.example",
    "a serial": "Serial Number: ABC1234",
}


@pytest.mark.parametrize("secret", SECRETS)
def test_scrubbed(secret: str) -> None:
    value = SECRETS[secret]
    line = f"[    1.000000] kvm_intel: something about {value} here"
    kept = filter_log(line)

    assert kept.startswith("[    1.000000] kvm_intel: something about ")
    assert value.rpartition(" ")[2] not in kept


def test_what_tells_of_the_page_is_not_scrubbed() -> None:
    for line in (
        "SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0xc000030000000001, rcx 0x0, rdx, 0x0, r8 0x0",
        "virt/tdx: CMR: [0x100000, 0x77800000)",
        "INFO: task qemu-system-x86:4711 blocked for more than 122 seconds.",
        "mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 1: bd80000000100134",
        "virt/tdx: Module version: 1.5.24",
    ):
        assert scrub(line) == line


@settings(max_examples=200)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=60),
            st.sampled_from([f"virt/tdx: about {value}" for value in SECRETS.values()]),
            st.sampled_from(["Jun 24 11:07:17 examplehost kernel: virt/tdx: module initialized"]),
            st.sampled_from(["[ 1.0] INFO: task qemu:1 blocked for more than 122 seconds."]),
            st.sampled_from(["[ 1.0]  kvm_gmem_release+0x1/0x2", "[ 1.0]  </TASK>"]),
        ),
        max_size=20,
    )
)
def test_no_secret_comes_through_whatever_stands_around_it(lines: list[str]) -> None:
    text = "\n".join(lines)
    filtered = filter_log(text)

    assert filtered.count("\n") == text.count("\n")
    for value in SECRETS.values():
        assert value not in filtered
    assert "examplehost" not in filtered
    assert filter_log(filtered) == filtered


def test_options_of_others_are_left_out() -> None:
    line = "BOOT_IMAGE=/vmlinuz root=UUID=1 ip=10.0.0.1 kvm_intel.tdx=1 quiet crashkernel=1G-:2G"
    assert filter_options(line) == "kvm_intel.tdx=1 crashkernel=1G-:2G\n"


def test_the_hosts_own_name_is_left_out_of_its_log() -> None:
    files = {
        "etc/hostname": "tallinn.example\n",
        "var/log/dmesg": "[ 1.0] kvm_intel: tallinn (tallinn.example) is not in tallinnish\n",
    }
    captured = collect(Files(files))
    log = next(each.text for each in captured.taken if each.path == "var/log/dmesg")
    assert log == "[    1.000000] kvm_intel: scrubbed (scrubbed) is not in tallinnish\n"
    assert "etc/hostname" not in {each.path for each in captured.taken}


def test_simulate_reads_a_capture(run: RunTool, tmp_path: Path) -> None:
    run("capture", "--from", str(HOSTS / "gnr-7.0-active"), "-o", "c.tar.gz", cwd=tmp_path)
    asked = ("simulate", "--memory", "1GiB", "--vcpus", "2", "--compare", "none", "--from")
    ran = run(*asked, "c.tar.gz", cwd=tmp_path)
    assert (ran.status, "7.0.0" in ran.out) == (0, True)


def test_an_arm_serial_number_is_left_out() -> None:
    captured = collect(Files({"proc/cpuinfo": "processor\t: 0\nSerial\t\t: 00000000deadbeef\n"}))
    assert "deadbeef" not in captured.taken[0].text


@pytest.mark.parametrize(
    ("command", "size"),
    [
        ("qemu -m 107G -smp 32,sockets=1", (107 << 30, 32)),
        ("qemu -m size=8192M -smp cpus=4 -object tdx-guest,id=tdx0", (8192 << 20, 4)),
        ("qemu -m 2048", (2048 << 20, None)),
        ("qemu -m nonsense -smp", (None, None)),
        ("", (None, None)),
    ],
)
def test_sizes_of_qemu(command: str, size: tuple[int | None, int | None]) -> None:
    found = qemu_size(command.split(" "))
    assert (found["memory_bytes"], found["vcpus"]) == size
    assert found["td"] is ("tdx-guest" in command)
    assert set(found) == {"memory_bytes", "vcpus", "td"}


def test_list_writes_nothing(run: RunTool, tmp_path: Path) -> None:
    ran = run("capture", "--from", str(HOSTS / TICKET), "--list", cwd=tmp_path)

    assert ran.status == 0
    assert "proc/cpuinfo: " in ran.out
    assert list(tmp_path.iterdir()) == []


def test_a_capture_goes_to_standard_output_whole(run: RunTool, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tdxreclaim", "capture", "--from", str(HOSTS / TICKET), "-o"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1782299237"}
    piped = subprocess.run([*command, "-"], env=environment, capture_output=True, check=True)
    subprocess.run(
        [*command, "c.tar.gz"], env=environment, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL
    )

    assert piped.stderr == b""
    assert piped.stdout == (tmp_path / "c.tar.gz").read_bytes()
    assert run("check", "--from", "c.tar.gz", "--quiet", cwd=tmp_path).status == 10


def test_include_takes_a_file_as_it_is(run: RunTool, tmp_path: Path) -> None:
    arguments = ("capture", "--from", str(HOSTS / TICKET), "-o", "c.tar.gz")
    ran = run(*arguments, "--include", "/PROVENANCE", cwd=tmp_path)

    assert ran.status == 0
    with tarfile.open(tmp_path / "c.tar.gz") as tar:
        text = tar.extractfile("PROVENANCE").read()  # type: ignore[union-attr]
    assert text == (HOSTS / TICKET / "PROVENANCE").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--include", "../etc/shadow"], 2, "--include: '../etc/shadow' is no file of the host"),
        (["--include", "no/such"], 3, "no/such: not there to be included"),
        (["-o", "no/such/folder/c.tar.gz"], 3, "no/such/folder/c.tar.gz: No such file"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], status: int, said: str, run: RunTool, tmp_path: Path
) -> None:
    ran = run("capture", "--from", str(HOSTS / TICKET), *arguments, cwd=tmp_path)

    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith(f"tdxreclaim: {said}")
    assert ran.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="captures the machine that it runs on")
def test_this_machine_can_be_captured_without_its_name(run: RunTool, tmp_path: Path) -> None:
    ran = run("capture", "-o", "me.tar.gz", cwd=tmp_path)

    assert (ran.status, ran.err) == (0, "")
    assert run("check", "--from", "me.tar.gz", "--quiet", cwd=tmp_path).status in (0, 10, 11, 12)
    with tarfile.open(tmp_path / "me.tar.gz") as tar:
        assert "proc/cpuinfo" in tar.getnames()


def test_the_cpus_serial_number_is_scrubbed() -> None:
    for line in (
        "mce: [Hardware Error]: TSC 0 ADDR 12345000 PPIN abcdef1234567890",
        "PPIN: 0xABCDEF",
    ):
        assert not re.search("abcdef", scrub(line), re.IGNORECASE)


def test_options_are_kept_by_their_names_and_values() -> None:
    line = (
        "root=/dev/x kvm-intel.tdx=1 kvm_intel.tdx=on kvm.tdp_mmu=Y kvm.foo=secret kvm.nested=db01"
    )
    assert filter_options(line).split() == ["kvm-intel.tdx=1", "kvm_intel.tdx=on", "kvm.tdp_mmu=Y"]


def test_a_capture_of_a_capture_keeps_the_command_line(run: RunTool, tmp_path: Path) -> None:
    tree = tmp_path / "host"
    (tree / "proc").mkdir(parents=True)
    (tree / "proc/cpuinfo").write_text("vendor_id : GenuineIntel\ncpu family : 6\nmodel : 173\n")
    (tree / "proc/cmdline").write_text("root=/dev/x kvm_intel.tdx=1 nohibernate\n")
    run("capture", "--from", "host", "-o", "1.tar.gz", cwd=tmp_path)
    run("capture", "--from", "1.tar.gz", "-o", "2.tar.gz", cwd=tmp_path)
    with tarfile.open(tmp_path / "2.tar.gz") as tar:
        member = tar.extractfile("proc/cmdline")
        assert member is not None
        assert member.read() == b"kvm_intel.tdx=1 nohibernate\n"


@pytest.mark.parametrize(
    "config",
    [
        "CONFIG_X86=y\n# end of Processor type and features\n",
        "CONFIG_INTEL_TDX_HOST=y\n# end of Processor type and features\n",
        "# CONFIG_INTEL_TDX_HOST is not set\n",
        "CONFIG_X86=y\n",
    ],
)
def test_a_configuration_says_in_a_capture_what_it_said(config: str) -> None:
    texts = {CPUINFO: (HOSTS / "spr-6.18-active" / CPUINFO).read_text(), RELEASES[0]: "6.18.2\n"}
    taken = collect(Files({**texts, "boot/config-6.18.2": config})).taken
    captured = next(each.text for each in taken if each.path == "boot/config-6.18.2")
    assert parse_config(captured) == parse_config(config)


def test_what_belies_the_flags_is_kept() -> None:
    assert filter_options("ro quiet clearcpuid=smap,540 setcpuid=x=y\n") == "clearcpuid=smap,540\n"


CANARIES = {
    "proc/cpuinfo": (
        "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n"
        "model name\t: acmevm77 of tallinn\nstepping\t: 8\nmicrocode\t: 0x2b000603\n"
        "secret key\t: keycanary77\nSerial\t\t: serialcanary77\n"
        "flags\t\t: fpu movdir64b\nbugs\t\t: tdx_pw_mce\nbogomips\t: 4000.00\n\n"
    ),
    "sos_commands/processor/lscpu": (
        "tallinn$ lscpu\nArchitecture: x86_64\nCPU(s): 1\nVendor ID: GenuineIntel\n"
        "  BIOS Model name: biosvm77\n  Model name: acmevm77\n  CPU family: 6\n  Model: 143\n"
        "  Stepping: 8\n  Flags: fpu movdir64b\nL2: 2 MiB (1 instance)\n"
    ),
    "proc/sys/kernel/osrelease": "6.18.3-acmekernel77\n",
    "proc/version": "Linux version 6.18.3-acmekernel77 (build77@farm77) (gcc) #1 SMP\n",
    "proc/cmdline": "BOOT_IMAGE=/vmlinuz-6.18.3-acmekernel77 kvm_intel.tdx=1 tdx=secret77\n",
    "proc/sys/kernel/hostname": "tallinn\n",
    "boot/config-6.18.3-acmekernel77": 'CONFIG_INTEL_TDX_HOST=y\nCONFIG_X="cfgcanary77"\n',
    "sys/module/kvm_intel/parameters/tdx": "paramcanary77\n",
    "sys/fs/cgroup/misc.current": "cgroupcanary77 4\n",
    "proc/kallsyms": (
        "0000000000000000 T startup_64\t[modcanary77]\n"
        "0000000000000000 t tdh_phymem_page_reclaim\t[modcanary77]\n"
    ),
    "var/log/dmesg": (
        "Jun 24 11:07:17 loghost77.example kernel: [    0.000000] Linux version 6.18.3-acmekernel77 (b@farm77)\n"
        "Jun 24 11:07:17 loghost77.example kernel: [    0.1] virt/tdx: loghost77 or tallinn at 10.77.88.99\n"
        "[    0.2] Machine model: boardcanary77\n"
        "[    0.3] DMI: Acme boardcanary77/B77, BIOS 1\n"
        "[    0.3] DMI: QEMU acmevm77, BIOS 1\n"
        "[    1.0] {1}[Hardware Error]:   fru_text: frucanary77 slot 1\n"
        "[    1.1] mce: [Hardware Error]: serial number: serialcanary77\n"
        "[    1.2] kvm_intel: asset_tag=assetcanary77\n"
        "[    1.3] kvm_intel: 52:54:00:77:77:77 0a1b2c3d-7777-2222-3333-444455556666\n"
        "[    1.4] kvm: vm name: acmevm77\n"
        "[    2.0] INFO: task taskcanary77:4711 blocked for more than 120 seconds.\n"
        "[    2.0]       Not tainted 6.18.3-acmekernel77 #1\n"
        "[    2.0]  kvm_gmem_release+0x1/0x2\n[    2.0]  </TASK>\n"
    ),
}


def test_no_canary_sings_in_a_capture(run: RunTool, tmp_path: Path) -> None:
    for path, text in CANARIES.items():
        (tmp_path / "host" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "host" / path).write_text(text)
    ran = run("capture", "--from", "host", "-o", "c.tar", cwd=tmp_path)
    assert ran.status == 0
    with tarfile.open(tmp_path / "c.tar") as tar:
        kept = {m.name: tar.extractfile(m).read().decode() for m in tar}  # type: ignore[union-attr]

    for path, text in kept.items():
        assert not re.search(r"77|tallinn|[Bb]oard|BIOS", f"{path}\n{text}"), (path, text)
    assert kept["proc/sys/kernel/osrelease"] == "6.18.3-local\n"
    assert "Linux version 6.18.3-local" in kept["var/log/dmesg"]
    assert "DMI: QEMU" in kept["var/log/dmesg"]
    assert "boot/config-6.18.3-local" in kept
    assert run("check", "--from", "c.tar", cwd=tmp_path).status == 10


def test_no_canary_sings_in_a_capture_of_a_log_alone(run: RunTool, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(CANARIES["var/log/dmesg"])
    assert run("capture", "--from", "log", "-o", "c.tar", cwd=tmp_path).status == 0
    with tarfile.open(tmp_path / "c.tar") as tar:
        for member in tar:
            text = tar.extractfile(member).read().decode()  # type: ignore[union-attr]
            assert not re.search(r"77|Acme", text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        # Each has a line of which `check` makes a gap.
        ("proc/cpuinfo", "{}processor = 1\n"),
        ("proc/cpuinfo", "{}vendor_id\t: Genu"),
        ("proc/cpuinfo", "{}> model : 143\n"),
    ],
)
def test_what_was_not_understood_is_not_in_a_capture_either(
    path: str, text: str, run: RunTool, tmp_path: Path
) -> None:
    (tmp_path / "host/proc").mkdir(parents=True)
    whole = CANARIES["proc/cpuinfo"].replace("143", "173").replace("tdx_pw_mce", "spectre_v1")
    (tmp_path / "host" / path).write_text(text.format(whole))
    host = run("check", "--from", "host", cwd=tmp_path)
    run("capture", "--from", "host", "-o", "c.tar", cwd=tmp_path)

    assert host.status == run("check", "--from", "c.tar", cwd=tmp_path).status == 11


@pytest.mark.parametrize(
    ("release", "kept"),
    [
        ("6.18.3", "6.18.3"),
        ("7.3.0-rc3", "7.3.0-rc3"),
        ("6.18.3-acme", "6.18.3-local"),
        ("6.18.3+", "6.18.3-local"),
        ("6.18.3-local", "6.18.3-local"),
        ("7.3.4+deb13-amd64", "7.3.4+deb13-amd64"),
        ("5.14.0-427.13.1.el9_4.x86_64", "5.14.0-427.13.1.el9_4.x86_64"),
        ("acme", "local"),
    ],
)
def test_a_release_keeps_that_it_is_not_upstreams(release: str, kept: str) -> None:
    assert local_release(release) == kept


class _Machine(Tree):
    """The machine that a tree was captured from, without a usable /proc/cpuinfo."""

    origin = Origin.LIVE

    def __init__(self, root: Path, cpuinfo: str | None) -> None:
        super().__init__(str(root))
        self._cpuinfo = cpuinfo

    def read(self, path: str) -> str | None:
        if path in IDENTITY:
            return self._cpuinfo if path == CPUINFO else None
        return super().read(KERNEL_LOGS[-1] if path == KERNEL_LOG else path)


def _answered(name: str) -> PyCpuinfo:
    group = read_host(Tree(str(HOSTS / name))).groups[0]
    values = {"arch": "X86_64", "vendor_id_raw": group.vendor, "count": group.size}
    numbers = {"family": group.family, "model": group.model, "stepping": group.stepping}
    flags = ["movdir64b", "tdx_host_platform", "Not a flag: node1"]
    return PyCpuinfo({**values, **numbers, "flags": flags, "hostname": "node1"})


@pytest.mark.parametrize("cpuinfo", [None, "nothing of a CPU\n"])
@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("name", ["gnr-6.18-active", "spr-6.18-active", "unlisted-active"])
def test_a_capture_without_cpuinfo_answers_as_its_host(
    name: str, answers: bool, cpuinfo: str | None
) -> None:
    def ask() -> PyCpuinfo:
        if answers:
            return _answered(name)
        raise HostReadError("py-cpuinfo", "it did not answer, or that is not understood")

    machine = _Machine(HOSTS / name, cpuinfo)
    live = decide(read_host(machine, ask_py_cpuinfo=ask))
    captured = collect(machine, ask_py_cpuinfo=ask)
    texts = {each.path: each.text for each in captured.taken}
    texts[MANIFEST] = manifest(captured, version="1", date="2026-01-01")
    from_capture = decide(read_host(Files(texts)))

    assert "node1" not in "".join(texts.values())
    assert CPUINFO in [each.path for each in captured.left_out]
    for field in ("verdict", "rule", "posture", "warnings"):
        assert getattr(from_capture, field) == getattr(live, field)
    again = collect(Files(texts))
    assert texts[PY_CPUINFO] in [each.text for each in again.taken]


def test_a_record_of_py_cpuinfo_that_is_not_understood_names_nothing() -> None:
    decision = decide(read_host(Files({PY_CPUINFO: "[1"})))
    assert decision.verdict is Verdict.UNDETERMINED
