"""Truth tables of the policy: every rule with a match and a near miss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.costs.scene import set_scene
from tdxreclaim.engine.plan import ClearWhen
from tdxreclaim.facts.cpu import CpuGroup
from tdxreclaim.facts.evidence import NOT_NEEDED, Coverage, Evidence, Fact, Gap, Origin, Part
from tdxreclaim.facts.fake import FakedCpu, fake_cpu, fake_kernel, nothing_known
from tdxreclaim.facts.host import read_host
from tdxreclaim.facts.images.parts import Configuration, Images, KernelPart
from tdxreclaim.facts.kernel import Symbol, Symbols
from tdxreclaim.facts.sources.base import Files
from tdxreclaim.policy.decide import decide
from tdxreclaim.policy.kernel import IMAGE_RULES, KERNEL_RULES
from tdxreclaim.policy.model import Decision, HostState, KernelRule, Posture, Silicon, Verdict
from tdxreclaim.policy.state import STATE_RULES
from tdxreclaim.policy.verdict import VERDICT_RULES
from tdxreclaim.report.check.report import Report
from tdxreclaim.report.check.text import render
from tdxreclaim.tables.cpus import CPUS, Vfm
from tdxreclaim.tables.errata import ERRATA, Erratum
from tdxreclaim.tables.kernels import FIRST_THAT_SKIPS, Clearing, Kexec
from tdxreclaim.tables.kernels import KERNELS as KERNEL_ROWS
from tdxreclaim.tables.releases import Version
from tdxreclaim.tables.sources import Certainty, Citation

if TYPE_CHECKING:
    from tdxreclaim.facts.host import HostFacts

REQUIRED = Verdict.CLEAR_REQUIRED
NOT_REQUIRED = Verdict.CLEAR_NOT_REQUIRED
UNDETERMINED = Verdict.UNDETERMINED
NOT_APPLICABLE = Verdict.NOT_APPLICABLE
INTEL = "GenuineIntel"
AMD = "AuthenticAMD"


def cpuinfo(
    vendor: str = INTEL,
    family: int | str = 6,
    model: int | str = 0x8F,
    *,
    flags: str | None = "movdir64b",
    bugs: str | None = "spectre_v1",
    stepping: int | str = 8,
) -> str:
    lines = [f"vendor_id\t: {vendor}", f"cpu family\t: {family}", f"model\t\t: {model}"]
    lines += [f"stepping\t: {stepping}"]
    lines += [] if flags is None else [f"flags\t\t: fpu {flags}"]
    lines += [] if bugs is None else [f"bugs\t\t: {bugs}"]
    return "\n".join(["processor\t: 0", *lines, "bogomips\t: 4000.00", "", ""])


MODULE_LOG = "[    1.000000] virt/tdx: Module version: {}\n"


def host(*texts: str, **files: str) -> HostFacts:
    paths = {
        "release": "proc/sys/kernel/osrelease",
        "kallsyms": "proc/kallsyms",
        "parameter": "sys/module/kvm_intel/parameters/tdx",
        "capacity": "sys/fs/cgroup/misc.capacity",
        "version": "sys/devices/faux/tdx_host/version",
        "log": "var/log/dmesg",
        "cmdline": "proc/cmdline",
        "firmware": "sys/class/dmi/id/sys_vendor",
        "config": "boot/config-" + files.get("release", ""),
    }
    found = {paths[name]: text for name, text in files.items()}
    if texts:
        found["proc/cpuinfo"] = "".join(texts)
    return read_host(Files(found))


def faked(**parts: int | str) -> HostFacts:
    return fake_cpu(nothing_known(), FakedCpu("--cpu", **parts))  # type: ignore[arg-type]


ACTIVE = "movdir64b tdx_host_platform"
# The release after the newest row.
NEWER = f"{KERNEL_ROWS[-1].last.major}.{KERNEL_ROWS[-1].last.minor + 1}"

VERDICTS = [
    # The table: every row, and the nearest that it must not match.
    pytest.param(host(cpuinfo(model=0x8F)), REQUIRED, "tdx_pw_mce", id="SPR"),
    pytest.param(host(cpuinfo(model=0xCF)), REQUIRED, "tdx_pw_mce", id="EMR"),
    pytest.param(host(cpuinfo(model=0x8F, stepping=0)), REQUIRED, "tdx_pw_mce", id="SPR-A0"),
    pytest.param(host(cpuinfo(model=0xAD)), NOT_REQUIRED, "no-erratum", id="GNR"),
    pytest.param(host(cpuinfo(model=0xAE)), NOT_REQUIRED, "no-erratum", id="GNR-D"),
    pytest.param(host(cpuinfo(model=0xAF)), NOT_REQUIRED, "no-erratum", id="SRF"),
    pytest.param(host(cpuinfo(model=0xDD)), NOT_REQUIRED, "no-erratum", id="CWF"),
    # A table keyed on the model alone would look for 6/0x01.
    pytest.param(host(cpuinfo(family=19, model=1)), NOT_REQUIRED, "no-erratum", id="DMR"),
    pytest.param(host(cpuinfo(family=6, model=1)), NOT_APPLICABLE, "no-tdx-sign", id="not-DMR"),
    pytest.param(
        host(cpuinfo(family=19, model=0x8F)), NOT_APPLICABLE, "no-tdx-sign", id="family-19-0x8f"
    ),
    pytest.param(
        host(cpuinfo(AMD, 6, 0x8F)), NOT_APPLICABLE, "not-intel", id="AMD-with-SPR's-numbers"
    ),
    # The host's state changes the posture, not what the silicon needs.
    pytest.param(host(cpuinfo(flags=ACTIVE)), REQUIRED, "tdx_pw_mce", id="SPR-active"),
    pytest.param(host(cpuinfo(flags=None, bugs=None)), REQUIRED, "tdx_pw_mce", id="SPR-no-flags"),
    pytest.param(faked(vendor=INTEL, family=6, model=0x8F), REQUIRED, "tdx_pw_mce", id="SPR-faked"),
    # The kernel's own word outranks the table.
    pytest.param(
        host(cpuinfo(model=0xAD, flags=ACTIVE, bugs="tdx_pw_mce")),
        REQUIRED,
        "kernel-flag",
        id="GNR-flagged",
    ),
    pytest.param(
        host(cpuinfo(family=19, model=7, bugs="tdx_pw_mce")), REQUIRED, "kernel-flag", id="flagged"
    ),
    pytest.param(
        host(cpuinfo(model=0xAD, flags="movdir64b hypervisor", bugs="tdx_pw_mce")),
        REQUIRED,
        "kernel-flag",
        id="flagged-under-a-hypervisor",
    ),
    pytest.param(
        host(cpuinfo(flags="movdir64b hypervisor", bugs="tdx_pw_mce")),
        REQUIRED,
        "tdx_pw_mce",
        id="SPR-root-partition",
    ),
    pytest.param(
        host(cpuinfo(model=0xAD, flags=ACTIVE, bugs="seamret_invd_vmcs")),
        NOT_REQUIRED,
        "no-erratum",
        id="GNR-with-another-bug",
    ),
    pytest.param(
        host(cpuinfo(model=0xAD, bugs="tdx_pw_mce_like")),
        NOT_REQUIRED,
        "no-erratum",
        id="lookalike",
    ),
    # Guests.
    pytest.param(
        host(cpuinfo(flags="movdir64b hypervisor")), NOT_APPLICABLE, "guest-vm", id="SPR-guest"
    ),
    pytest.param(host(cpuinfo(flags="hypervisor tdx_guest")), NOT_APPLICABLE, "guest-td", id="TD"),
    pytest.param(host(cpuinfo(flags="hypervisors")), REQUIRED, "tdx_pw_mce", id="not-a-guest"),
    # Other vendors and architectures.
    pytest.param(host(cpuinfo(AMD, 26, 2)), NOT_APPLICABLE, "not-intel", id="AMD"),
    pytest.param(
        host("CPU implementer\t: 0x41\nCPU architecture: 8\n"),
        NOT_APPLICABLE,
        "not-x86",
        id="arm",
    ),
    pytest.param(
        host(cpuinfo("GenuineIntei", 6, 0xAD)), UNDETERMINED, "vendor-unknown", id="garbled-vendor"
    ),
    # Intel, in no table.
    pytest.param(
        host(cpuinfo(model=0xC3, flags=ACTIVE)),
        NOT_REQUIRED,
        "kernel-closed-list",
        id="unlisted-active",
    ),
    pytest.param(
        host(cpuinfo(model=0xC3, flags=ACTIVE, bugs=None)),
        UNDETERMINED,
        "cpu-unlisted",
        id="unlisted-active-bugs-not-told",
    ),
    pytest.param(host(cpuinfo(model=0x6A, flags="tme")), NOT_APPLICABLE, "no-movdir64b", id="ICX"),
    pytest.param(
        host(cpuinfo(model=0x9A)), NOT_APPLICABLE, "no-tdx-sign", id="movdir64b-and-no-sign"
    ),
    pytest.param(
        host(cpuinfo(model=0x9A), parameter="Y\n"),
        UNDETERMINED,
        "cpu-unlisted",
        id="unlisted-with-a-sign",
    ),
    pytest.param(
        host(cpuinfo(model=0x9A, flags=None)), UNDETERMINED, "cpu-unlisted", id="flags-not-told"
    ),
    pytest.param(
        faked(vendor=INTEL, family=6, model=0x6A), UNDETERMINED, "cpu-unlisted", id="number-only"
    ),
    pytest.param(
        host(cpuinfo(model=0x6A, flags="tme"), cpuinfo(model=0xAD)),
        UNDETERMINED,
        "cpu-unlisted",
        id="ICX-without-movdir64b+GNR",
    ),
    pytest.param(
        host(cpuinfo(model=0x6A, flags=None), cpuinfo(model=0x9A, flags="tme")),
        UNDETERMINED,
        "cpu-unlisted",
        id="two-unlisted-one-untold",
    ),
    # What the version of the TDX module tells of its platform.
    pytest.param(
        host(cpuinfo(model=0xAD, flags=ACTIVE), version="1.5.24\n"),
        UNDETERMINED,
        "module-contradicts",
        id="GNR-with-a-module-of-SPR",
    ),
    pytest.param(
        host(cpuinfo(model=0xAD, flags=ACTIVE), version="2.0.08\n"),
        NOT_REQUIRED,
        "no-erratum",
        id="GNR-with-its-module",
    ),
    pytest.param(
        host(cpuinfo(model=0xAD, flags=ACTIVE), version="2.0.99\n"),
        NOT_REQUIRED,
        "no-erratum",
        id="GNR-with-a-module-that-is-not-listed",
    ),
    pytest.param(
        host(cpuinfo(model=0xDD, flags=ACTIVE), log=MODULE_LOG.format("2.0.16")),
        UNDETERMINED,
        "module-contradicts",
        id="CWF-with-a-module-that-is-too-old",
    ),
    pytest.param(
        host(cpuinfo(flags=ACTIVE), version="1.5.25\n"),
        REQUIRED,
        "tdx_pw_mce",
        id="SPR-with-a-module-of-SRF",
    ),
    pytest.param(
        fake_cpu(
            host(cpuinfo(flags=ACTIVE), version="1.5.24\n"), FakedCpu("--cpu", INTEL, 6, 0xAD)
        ),
        NOT_REQUIRED,
        "no-erratum",
        id="faked-GNR-over-a-host-with-a-module-of-SPR",
    ),
    # Not knowing.
    pytest.param(nothing_known(), UNDETERMINED, "cpu-unknown", id="nothing"),
    pytest.param(host(cpuinfo(model="unknown")), UNDETERMINED, "cpu-unknown", id="model-not-told"),
    pytest.param(host(cpuinfo(model=300)), UNDETERMINED, "cpu-unknown", id="model-impossible"),
    # Processors that disagree: the strictest wins.
    pytest.param(
        host(cpuinfo(model=0xAD), cpuinfo(model=0x8F)), REQUIRED, "tdx_pw_mce", id="GNR+SPR"
    ),
    pytest.param(
        host(cpuinfo(model=0xAD), cpuinfo(model="?")), UNDETERMINED, "cpu-unknown", id="GNR+unread"
    ),
    pytest.param(
        host(cpuinfo(model=0x8F).replace("\n\n", "\n"), cpuinfo(model=0xAD).replace("\n\n", "\n")),
        REQUIRED,
        "tdx_pw_mce",
        id="SPR+GNR-without-blank-lines",
    ),
    pytest.param(
        host(cpuinfo(model="?"), cpuinfo(model=0x8F)), REQUIRED, "tdx_pw_mce", id="unread+SPR"
    ),
    pytest.param(
        host(cpuinfo(model=0xAD), cpuinfo(AMD, 25, 17)),
        UNDETERMINED,
        "vendors-differ",
        id="GNR+AMD",
    ),
    pytest.param(
        host(cpuinfo(AMD, 25, 17), cpuinfo(model=0xCF)), REQUIRED, "tdx_pw_mce", id="AMD+EMR"
    ),
    pytest.param(
        host(cpuinfo(model=0xAD), cpuinfo(model=0x9A)),
        UNDETERMINED,
        "cpu-unlisted",
        id="GNR+unlisted",
    ),
    pytest.param(
        host(cpuinfo(model=0xAD), cpuinfo(model=0xAF)),
        UNDETERMINED,
        "evidence-incomplete",
        id="GNR+SRF",
    ),
]


@pytest.mark.parametrize(("facts", "verdict", "rule"), VERDICTS)
def test_verdict(facts: HostFacts, verdict: Verdict, rule: str) -> None:
    decision = decide(facts)

    assert (decision.verdict, decision.rule) == (verdict, rule)
    assert decision.evidence, "a decision without evidence is an opinion"
    assert decision.because


def test_the_kernel_flag_is_said_where_it_agrees_and_where_it_is_not_set() -> None:
    def weighed(*texts: str) -> str:
        return next(s.because for s in decide(host(*texts)).weighed if s.rule == "kernel-flag")

    assert weighed(SPR) == "the kernel has set tdx_pw_mce, and the table agrees"
    assert "alone proves nothing" in weighed(cpuinfo(flags=ACTIVE))


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("1.5.24", "Sapphire Rapids or Emerald Rapids, which have tdx_pw_mce"),
        ("1.5.28", "of which some have tdx_pw_mce"),
        ("2.0.18", "Clearwater Forest, which no erratum lists"),
    ],
)
def test_the_tdx_module_tells_of_a_cpu_that_was_not_read(version: str, words: str) -> None:
    # A clue, and no identity: it decides nothing.
    for facts in (
        host(release="7.3.4", version=f"{version}\n"),
        host(release="7.3.4", log=MODULE_LOG.format(version)),
    ):
        decision = decide(facts)
        assert (decision.verdict, decision.rule) == (UNDETERMINED, "cpu-unknown")
        assert words in decision.because


def test_every_verdict_rule_has_a_row() -> None:
    assert {row.values[2] for row in VERDICTS} == set(VERDICT_RULES)


def test_required_whenever_an_erratum_lists_the_cpu_of_a_host() -> None:
    for erratum in ERRATA:
        for vfm in erratum.affected:
            text = cpuinfo(*vfm, flags=ACTIVE)
            assert decide(host(text)).rule == erratum.id


MADE_UP = Erratum(
    id="made_up",
    summary="a full write is not enough either",
    consequence="only clearing helps",
    affected=(Vfm(INTEL, 6, 0xAD), Vfm(INTEL, 6, 0x55)),
    flag=None,
    honoured_since=None,
    citations=(Citation("a test", "made up"),),
)


@pytest.mark.parametrize(
    ("files", "posture"),
    [
        ({"kallsyms": "0 T tdx_quirk_reset_page\n"}, Posture.AT_RISK),
        ({"release": "7.1.5"}, Posture.AT_RISK),
        ({"release": "6.17.3"}, Posture.CLEARS_AS_REQUIRED),
        ({"release": "6.17.0-5-generic"}, Posture.UNKNOWN),
    ],
)
def test_an_erratum_that_no_kernel_honours_is_never_called_cleared(
    files: dict[str, str], posture: Posture
) -> None:
    decision = decide(host(GNR, **files), (*ERRATA, MADE_UP))

    assert (decision.verdict, decision.rule, decision.posture) == (REQUIRED, "made_up", posture)
    assert decision.kernel.ignores == ((MADE_UP,) if posture is Posture.AT_RISK else ())
    if posture is Posture.AT_RISK:
        assert "none is known that clears for made_up" in decision.advice[0]
        assert "tdx_pw_mce" not in " ".join((decision.posture_because, *decision.advice))
        assert decision.kernel.kexec is Kexec.UNKNOWN
        assert set_scene(decision, packages=1).plan.clearing is ClearWhen.NEVER


def test_an_erratum_that_no_kernel_honours_is_unknown_while_tdx_may_be_off() -> None:
    faked_gnr = fake_kernel(faked(vendor=INTEL, family=6, model=0xAD), "7.1")

    decision = decide(faked_gnr, (*ERRATA, MADE_UP))
    assert (decision.verdict, decision.posture) == (REQUIRED, Posture.UNKNOWN)
    assert set_scene(decision, packages=1).plan.clearing is ClearWhen.NEVER
    idle = decide(host(cpuinfo(model=0xAD), release="7.1"), (*ERRATA, MADE_UP))
    assert idle.posture is Posture.IDLE
    assert "no release is known that clears for made_up" in idle.advice[0]


def test_an_erratum_with_a_flag_of_its_own_is_asked_for_that_flag() -> None:
    row = MADE_UP._replace(flag="made_up", honoured_since=Version(7, 1))
    errata = (*ERRATA, row)

    def posture(bugs: str, release: str) -> Posture:
        return decide(
            host(cpuinfo(model=0xAD, flags=ACTIVE, bugs=bugs), release=release), errata
        ).posture

    # The row of 6.19 to 7.1 begins before the release that honours it.
    assert posture("made_up", "7.2") is Posture.CLEARS_AS_REQUIRED
    assert posture("made_up", "6.18") is Posture.AT_RISK
    assert posture("spectre_v1", "7.2") is Posture.AT_RISK
    assert posture("tdx_pw_mce", "7.2") is Posture.AT_RISK


FLAGGED = MADE_UP._replace(flag="made_up", honoured_since=Version(6, 18))


@pytest.mark.parametrize(
    ("flags", "bugs", "release", "posture"),
    [
        (ACTIVE, "made_up", "6.18.2", Posture.CLEARS_AS_REQUIRED),
        (ACTIVE, None, "6.18.2", Posture.CLEARS_AS_REQUIRED),
        (ACTIVE, "spectre_v1", "6.18.2", Posture.AT_RISK),
        (ACTIVE, "made_up", "6.17.3", Posture.CLEARS_AS_REQUIRED),
        ("movdir64b", "spectre_v1", "6.18.2", Posture.IDLE),
        (ACTIVE, "made_up", "6.12.0-55.el10.x86_64", Posture.UNKNOWN),
    ],
)
def test_an_erratum_with_a_flag_needs_its_row_alone(
    flags: str, bugs: str | None, release: str, posture: Posture
) -> None:
    facts = host(cpuinfo(model=0xAD, flags=flags, bugs=bugs), release=release)
    decision = decide(facts, (*ERRATA, FLAGGED))

    assert (decision.verdict, decision.rule, decision.posture) == (REQUIRED, "made_up", posture)
    assert decision.kernel.kexec is not Kexec.REFUSED
    said = (decision.because, decision.posture_because, decision.kernel.kexec_because)
    text = render(Report(decision=decision, source="a test", form="folder"))
    assert "tdx_pw_mce" not in " ".join((*said, *decision.advice, *decision.warnings, text))


def test_the_flag_of_any_erratum_outranks_the_sign_of_a_hypervisor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errata = (*ERRATA, FLAGGED)
    monkeypatch.setattr("tdxreclaim.policy.state.ERRATA", errata)
    facts = host(cpuinfo(model=0xAD, flags=f"{ACTIVE} hypervisor", bugs="made_up"))

    decision = decide(facts, errata)
    assert (decision.verdict, decision.rule) == (REQUIRED, "made_up")
    assert "made_up says otherwise" in " ".join(step.because for step in decision.weighed)


def test_a_cpu_in_no_table_but_the_errata_is_named_by_its_number() -> None:
    decision = decide(host(cpuinfo(model=0x55)), (MADE_UP,))
    assert (decision.verdict, decision.rule) == (REQUIRED, "made_up")
    assert "None" not in decision.because


def test_the_kernels_list_does_not_settle_an_erratum_that_it_does_not_flag() -> None:
    unlisted = host(cpuinfo(model=0xC3, flags=ACTIVE))
    assert decide(unlisted).verdict is NOT_REQUIRED
    assert decide(unlisted, (*ERRATA, MADE_UP)).verdict is UNDETERMINED


def test_no_cpu_but_the_listed_ones_is_affected() -> None:
    affected = {
        (family, model)
        for family in (*range(16), 18, 19, 20)
        for model in range(256)
        if decide(faked(vendor=INTEL, family=family, model=model)).silicon.status
        is Silicon.AFFECTED
    }

    assert affected == {(vfm.family, vfm.model) for row in ERRATA for vfm in row.affected}


def kallsyms(*symbols: str) -> str:
    lines = ["0000000000000000 T _text", *(f"0000000000000000 {symbol}" for symbol in symbols)]
    return "\n".join([*lines, ""])


CORE = ("T tdx_guest_keyid_alloc", "T tdh_phymem_page_reclaim")


def whole_kallsyms(*symbols: str) -> str:
    filler = [f"t f{number}" for number in range(20_000)]
    return kallsyms("T _stext", *filler, *symbols, "T _einittext", "t g [kvm]")


OLD = kallsyms(*CORE, "t tdx_clear_page\t[kvm_intel]")
NEW = kallsyms("t tdx_quirk_reset_paddr", "T tdx_quirk_reset_page")
NEWEST = kallsyms("T tdx_quirk_reset_paddr", "t tdx_sys_disable")
GNR = cpuinfo(model=0xAD, flags=ACTIVE)
SPR = cpuinfo(model=0x8F, flags=ACTIVE, bugs="tdx_pw_mce")

KERNELS = [
    pytest.param({"kallsyms": OLD}, Clearing.ALWAYS, "symbols-clear-always", id="old"),
    pytest.param(
        {"kallsyms": kallsyms("t tdx_clear_page.isra.0 [kvm_intel]")},
        Clearing.ALWAYS,
        "symbols-clear-always",
        id="suffix",
    ),
    pytest.param(
        {"kallsyms": kallsyms(*CORE), "release": "6.17.0-5-generic"},
        Clearing.ALWAYS,
        "symbols-clear-always",
        id="kvm_intel-not-loaded",
    ),
    pytest.param(
        {"kallsyms": kallsyms("T tdh_phymem_page_reclaim"), "release": "6.17.0-5-generic"},
        Clearing.UNKNOWN,
        "release-not-upstream",
        id="filtered-to-the-seamcalls",
    ),
    pytest.param(
        {"kallsyms": whole_kallsyms(), "release": "6.17.0-5-generic"},
        Clearing.NO_TDX_HOST,
        "symbols-no-tdx-host",
        id="whole-list-without-seamcalls",
    ),
    pytest.param(
        {"kallsyms": whole_kallsyms()[:-1], "release": "6.17.0-5-generic"},
        Clearing.UNKNOWN,
        "release-not-upstream",
        id="cut-list-without-seamcalls",
    ),
    pytest.param(
        {"kallsyms": whole_kallsyms(), "release": "6.17.0-5-generic", "parameter": "Y\n"},
        Clearing.UNKNOWN,
        "release-not-upstream",
        id="whole-list-that-KVM-belies",
    ),
    pytest.param(
        {"kallsyms": whole_kallsyms("T __seamcall"), "release": "6.12.3"},
        Clearing.NO_TDX_HOST,
        "release-listed",
        id="core-without-kvm",
    ),
    pytest.param({"kallsyms": NEW}, Clearing.ON_ERRATUM, "symbols-clear-on-erratum", id="new"),
    pytest.param({"kallsyms": NEWEST}, Clearing.ON_ERRATUM, "symbols-clear-on-erratum", id="7.2"),
    pytest.param(
        {"kallsyms": kallsyms("t tdx_clear_pages", "t my_tdx_quirk_reset_page")},
        Clearing.UNKNOWN,
        "kernel-unknown",
        id="lookalike-symbols",
    ),
    pytest.param(
        {"kallsyms": OLD, "release": "6.18.2"},
        Clearing.ALWAYS,
        "symbols-clear-always",
        id="symbols-over-release",
    ),
    pytest.param(
        {"kallsyms": kallsyms("t tdx_clear_page", "T tdx_quirk_reset_page")},
        Clearing.UNKNOWN,
        "symbols-contradict",
        id="both-generations",
    ),
    pytest.param(
        {"release": "6.17.0-5-generic", "config": "# CONFIG_INTEL_TDX_HOST is not set\n"},
        Clearing.NO_TDX_HOST,
        "config-no-tdx-host",
        id="config-off",
    ),
    pytest.param(
        {"release": "6.17.0-5-generic", "config": "CONFIG_INTEL_TDX_HOST=y\n"},
        Clearing.UNKNOWN,
        "release-not-upstream",
        id="config-on",
    ),
    pytest.param(
        {"release": "6.12.0", "parameter": "Y\n"}, Clearing.UNKNOWN, "release-belied", id="belied"
    ),
    pytest.param(
        {"release": "6.12.0", "capacity": "tdx 31\n"},
        Clearing.UNKNOWN,
        "release-belied",
        id="belied-by-misc-capacity-alone",
    ),
    pytest.param({"release": "6.15.9"}, Clearing.NO_TDX_HOST, "release-listed", id="6.15"),
    pytest.param({"release": "6.16"}, Clearing.ALWAYS, "release-listed", id="6.16"),
    pytest.param({"release": "6.17.13"}, Clearing.ALWAYS, "release-listed", id="6.17"),
    pytest.param({"release": "6.18.0-rc1"}, Clearing.ON_ERRATUM, "release-listed", id="6.18-rc1"),
    pytest.param({"release": "7.1.5"}, Clearing.ON_ERRATUM, "release-listed", id="7.1"),
    pytest.param({"release": "7.2"}, Clearing.ON_ERRATUM, "release-listed", id="7.2-release"),
    pytest.param({"release": "7.3.4"}, Clearing.ON_ERRATUM, "release-listed", id="7.3"),
    pytest.param(
        {"release": f"{NEWER}.1", "kallsyms": NEWEST},
        Clearing.ON_ERRATUM,
        "symbols-clear-on-erratum",
        id="newer-whose-symbols-fit",
    ),
    pytest.param(
        {"release": "7.3.4+deb13-cloud-amd64"},
        Clearing.UNKNOWN,
        "release-not-upstream",
        id="debian-belied-by-tdx_host_platform",
    ),
    pytest.param(
        {"release": "6.17.7-300.fc43.x86_64"}, Clearing.ALWAYS, "distribution-listed", id="fedora"
    ),
    pytest.param(
        {"release": "6.18.4-200.fc43.x86_64"},
        Clearing.ON_ERRATUM,
        "distribution-listed",
        id="fedora-6.18",
    ),
    pytest.param(
        {"release": "6.17.7-ba28.fc43.x86_64"},
        Clearing.UNKNOWN,
        "release-not-upstream",
        id="not-fedora's",
    ),
    pytest.param(
        {"release": "6.17.7-300.fc43.x86_64", "kallsyms": NEW},
        Clearing.ON_ERRATUM,
        "symbols-clear-on-erratum",
        id="symbols-over-distribution",
    ),
    pytest.param(
        {"release": f"{NEWER}.0"}, Clearing.UNKNOWN, "release-newer-than-table", id="newer"
    ),
    pytest.param({"release": "10.0"}, Clearing.UNKNOWN, "release-newer-than-table", id="10.0"),
    pytest.param({"release": "6.17.0+"}, Clearing.UNKNOWN, "release-not-upstream", id="plus"),
    pytest.param(
        {"release": "5.14.0-427.13.1.el9_4.x86_64"},
        Clearing.UNKNOWN,
        "release-not-upstream",
        id="distribution",
    ),
    pytest.param({}, Clearing.UNKNOWN, "kernel-unknown", id="nothing"),
]


@pytest.mark.parametrize(("files", "clearing", "rule"), KERNELS)
def test_kernel(files: dict[str, str], clearing: Clearing, rule: str) -> None:
    kernel = decide(host(GNR, **files)).kernel

    assert (kernel.clearing, kernel.rule) == (clearing, rule)


def test_every_kernel_rule_has_a_row() -> None:
    # Those of files have theirs in tests/facts/images.
    assert {row.values[2] for row in KERNELS} == set(KERNEL_RULES) - set(IMAGE_RULES)


STATES = [
    pytest.param(host(cpuinfo(flags="hypervisor")), HostState.GUEST, "guest-vm", id="vm"),
    pytest.param(host(cpuinfo(flags="hypervisor tdx_guest")), HostState.GUEST, "guest-td", id="td"),
    pytest.param(host(cpuinfo(AMD, 26, 2)), HostState.OFF, "tdx-impossible", id="amd"),
    pytest.param(host(GNR, parameter="Y\n"), HostState.INITIALIZED, "tdx-initialized", id="kvm"),
    pytest.param(
        host(GNR, capacity="tdx 63\n"), HostState.INITIALIZED, "tdx-initialized", id="misc"
    ),
    pytest.param(
        host(GNR, version="1.5.24\n"), HostState.INITIALIZED, "tdx-initialized", id="faux"
    ),
    pytest.param(
        host(GNR, log="[    1.000000] virt/tdx: TDX-Module initialized\n"),
        HostState.INITIALIZED,
        "tdx-initialized",
        id="log",
    ),
    pytest.param(
        host(GNR, parameter="N\n", capacity="rdma 1\n"),
        HostState.BIOS_ENABLED,
        "tdx-bios-enabled",
        id="platform",
    ),
    pytest.param(
        host(GNR, log="[    1.000000] virt/tdx: module initialization failed (-5)\n"),
        HostState.BIOS_ENABLED,
        "tdx-bios-enabled",
        id="failed",
    ),
    pytest.param(
        host(
            GNR,
            log="[    1.000000] virt/tdx: module initialized\n"
            "[    2.000000] virt/tdx: module not loaded\n",
        ),
        HostState.BIOS_ENABLED,
        "tdx-bios-enabled",
        id="shut-down-later",
    ),
    pytest.param(host(cpuinfo(model=0xAD)), HostState.OFF, "tdx-off", id="flags"),
    pytest.param(
        host(
            cpuinfo(model=0xAD, flags=None),
            log="[    1.000000] virt/tdx: BIOS enabled: private KeyID range [64, 128)\n"
            "[    1.000001] virt/tdx: initialization failed: Hibernation support is enabled\n",
        ),
        HostState.OFF,
        "tdx-off",
        id="hibernation",
    ),
    pytest.param(
        host(cpuinfo(model=0xAD, flags=None)), HostState.UNKNOWN, "tdx-unknown", id="not-told"
    ),
]


@pytest.mark.parametrize(("facts", "state", "rule"), STATES)
def test_state(facts: HostFacts, state: HostState, rule: str) -> None:
    found = decide(facts).host

    assert (found.state, found.rule) == (state, rule)


def test_every_state_rule_has_a_row() -> None:
    assert {row.values[2] for row in STATES} == set(STATE_RULES)


POSTURES = [
    pytest.param(host(SPR, kallsyms=OLD), Posture.CLEARS_AS_REQUIRED, id="SPR-always"),
    pytest.param(host(SPR, kallsyms=NEW), Posture.CLEARS_AS_REQUIRED, id="SPR-on-erratum"),
    pytest.param(
        host(cpuinfo(flags=ACTIVE), kallsyms=NEW), Posture.AT_RISK, id="SPR-on-erratum-no-flag"
    ),
    pytest.param(
        host(cpuinfo(flags=ACTIVE), kallsyms=OLD),
        Posture.CLEARS_AS_REQUIRED,
        id="SPR-always-no-flag",
    ),
    pytest.param(
        host(cpuinfo(model=0xAD, flags=ACTIVE), cpuinfo(flags=ACTIVE), kallsyms=NEW),
        Posture.AT_RISK,
        id="boot-CPU-not-affected-other-socket-is",
    ),
    pytest.param(host(cpuinfo(), kallsyms=NEW), Posture.IDLE, id="SPR-off"),
    pytest.param(
        host(cpuinfo(flags=None), kallsyms=NEW), Posture.UNKNOWN, id="SPR-no-flag-state-unknown"
    ),
    pytest.param(
        host(SPR, release="6.12.0", parameter="Y\n"), Posture.UNKNOWN, id="SPR-release-belied"
    ),
    pytest.param(host(SPR, release="6.12"), Posture.IDLE, id="SPR-kernel-without-TDs"),
    pytest.param(host(SPR, release="6.17.0-5-generic"), Posture.UNKNOWN, id="SPR-distribution"),
    pytest.param(host(GNR, kallsyms=OLD), Posture.CLEARS_NEEDLESSLY, id="GNR-always"),
    pytest.param(host(GNR, kallsyms=NEW), Posture.SKIPS_SAFELY, id="GNR-on-erratum"),
    pytest.param(host(cpuinfo(model=0xAD), kallsyms=OLD), Posture.IDLE, id="GNR-off"),
    pytest.param(host(GNR, release=NEWER), Posture.UNKNOWN, id="GNR-newer"),
    pytest.param(host(cpuinfo(AMD, 26, 2), release="6.17"), Posture.NOT_APPLICABLE, id="AMD"),
    pytest.param(nothing_known(), Posture.UNKNOWN, id="nothing"),
]


@pytest.mark.parametrize(("facts", "posture"), POSTURES)
def test_posture(facts: HostFacts, posture: Posture) -> None:
    decision = decide(facts)

    assert decision.posture is posture
    assert decision.posture_because


def test_every_posture_has_a_row() -> None:
    assert {row.values[1] for row in POSTURES} == set(Posture)


KEXECS = [
    # With TDX off nothing asks for the flag, whatever the kernel would do with TDX on.
    pytest.param(
        host(cpuinfo(bugs=None), release="6.18.2"), Kexec.ALLOWED, id="SPR-off-flag-not-told"
    ),
    pytest.param(host(SPR, release="6.18.2"), Kexec.REFUSED, id="SPR-6.18"),
    pytest.param(host(SPR, release="7.1"), Kexec.REFUSED, id="SPR-7.1"),
    pytest.param(host(SPR, release="7.2"), Kexec.AFTER_DISABLE, id="SPR-7.2"),
    pytest.param(host(SPR, release="6.17"), Kexec.NOT_BUILT, id="SPR-6.17"),
    pytest.param(host(SPR, release="6.12"), Kexec.NOT_BUILT, id="SPR-6.12"),
    pytest.param(host(SPR, release="5.15"), Kexec.ALLOWED, id="SPR-5.15"),
    # A release that is belied tells no generation.
    pytest.param(host(SPR, release="5.15", parameter="Y\n"), Kexec.UNKNOWN, id="SPR-belied"),
    pytest.param(host(cpuinfo(), release="6.17"), Kexec.UNKNOWN, id="SPR-6.17-off"),
    pytest.param(host(SPR, release="6.17.0-5-generic"), Kexec.UNKNOWN, id="distribution"),
    pytest.param(
        host(SPR, release="6.17.0-5-generic", kallsyms=NEW), Kexec.REFUSED, id="by-symbols"
    ),
    pytest.param(
        host(SPR, release="6.17.0-5-generic", kallsyms=NEWEST),
        Kexec.AFTER_DISABLE,
        id="by-newest-symbols",
    ),
    pytest.param(
        host(
            SPR,
            release="6.17.0-5-generic",
            log="[    9.000000] kexec: Not allowed on platform with tdx_pw_mce bug\n",
        ),
        Kexec.REFUSED,
        id="by-the-log",
    ),
    pytest.param(host(GNR, release="6.18.2"), Kexec.ALLOWED, id="GNR-6.18"),
    pytest.param(host(GNR, release="6.17"), Kexec.NOT_BUILT, id="GNR-6.17"),
    pytest.param(host(cpuinfo(), release="6.18.2"), Kexec.ALLOWED, id="SPR-off"),
    pytest.param(
        host(cpuinfo(flags=ACTIVE), release="6.18.2"), Kexec.ALLOWED, id="SPR-active-no-flag"
    ),
    pytest.param(host(cpuinfo(AMD, 26, 2), release="6.18"), Kexec.ALLOWED, id="AMD"),
    pytest.param(
        fake_kernel(faked(vendor=INTEL, family=6, model=0xCF), "7.0"), Kexec.REFUSED, id="EMR-faked"
    ),
]


@pytest.mark.parametrize(("facts", "kexec"), KEXECS)
def test_kexec(facts: HostFacts, kexec: Kexec) -> None:
    kernel = decide(facts).kernel

    assert kernel.kexec is kexec
    assert kernel.kexec_because


def test_weighed_has_every_rule_and_one_decision_of_each_kind() -> None:
    weighed = decide(host(GNR, kallsyms=NEW)).weighed

    assert [step.rule for step in weighed] == [
        *VERDICT_RULES,
        *STATE_RULES,
        *KERNEL_RULES[len(IMAGE_RULES) :],
    ]
    assert [step.rule for step in weighed if step.fired] == [
        "no-erratum",
        "tdx-bios-enabled",
        "symbols-clear-on-erratum",
    ]
    assert all(step.because for step in weighed)


def _warned(facts: HostFacts, words: str) -> bool:
    return any(words in warning for warning in decide(facts).warnings)


def test_kernel_and_table_disagreeing_is_a_warning_either_way() -> None:
    assert _warned(host(cpuinfo(model=0xAD, flags=ACTIVE, bugs="tdx_pw_mce")), "believed")
    assert _warned(host(cpuinfo(flags=ACTIVE)), "believed")
    assert not _warned(host(SPR), "believed")
    # Where TDX is not active the flag's absence proves nothing.
    assert not _warned(host(cpuinfo()), "believed")


def test_a_backported_name_without_the_check_is_possible_in_a_distribution_alone() -> None:
    assert _warned(host(GNR, kallsyms=NEW, release="6.17.0-5-generic"), "code tells")
    assert not _warned(host(GNR, kallsyms=NEW, release="6.18.2"), "code tells")


DEBIAN = [
    "6.12.118+deb13-amd64",
    "7.3.4+deb13-amd64",
    "6.12.118+deb13-rt-amd64",
    "7.2.13-cloud-amd64",
    "6.1.0-56-amd64",
    "6.1.0-0.deb11.7-amd64",
]


@pytest.mark.parametrize("release", DEBIAN)
def test_debian_is_no_tdx_host_for_posture_and_advice_alone(release: str) -> None:
    # Nothing told of the host but CPU and release.
    def of(model: int, name: str) -> Decision:
        return decide(fake_kernel(faked(vendor=INTEL, family=6, model=model), name))

    for model, verdict in ((0xAD, NOT_REQUIRED), (0x8F, REQUIRED), (0x9A, UNDETERMINED)):
        decision = of(model, release)
        assert decision.verdict is verdict
        assert decision.kernel.rule is KernelRule.DISTRIBUTION_LISTED
        assert decision.kernel.clearing is Clearing.NO_TDX_HOST
        assert decision.kernel.certainty is Certainty.INFERRED
        assert decision.host.state is HostState.UNKNOWN
    assert of(0xAD, release).posture is Posture.IDLE


@pytest.mark.parametrize(
    "evidence",
    [
        {"config": "CONFIG_INTEL_TDX_HOST=y\n"},
        {"kallsyms": kallsyms("T __seamcall")},
        {"parameter": "Y\n"},
        {"version": "1.5.24\n"},
        {"log": "[    1.000000] virt/tdx: BIOS enabled: private KeyID range [64, 128)\n"},
    ],
)
def test_debians_form_is_never_over_what_the_host_shows(evidence: dict[str, str]) -> None:
    # What would tell is looked at only where TDX may be on.
    untold = cpuinfo(model=0xAD, flags=None)
    release = "7.3.4+deb13-amd64"
    assert decide(host(untold, release=release)).kernel.clearing is Clearing.NO_TDX_HOST
    assert decide(host(untold, release=release, **evidence)).kernel.clearing is Clearing.UNKNOWN


def test_symbols_tell_the_row_whose_teardown_a_kernel_has() -> None:
    def row(release: str, *symbols: str) -> str | None:
        found = decide(host(GNR, release=release, kallsyms=kallsyms(*symbols))).kernel.row
        return None if found is None else str(found.first)

    paddr, page = "t tdx_quirk_reset_paddr", "T tdx_quirk_reset_page"
    assert row("6.18.2", paddr, page) == "6.18"
    assert row("6.18.2-acme", paddr, page) == "6.18"
    assert row("7.0.0-31-generic", paddr, page) == "6.19"
    # Of two that fit the one that hands failed pages back.
    assert row("acme", paddr, page) == "6.19"
    assert row("acme", paddr) == "6.19"
    assert (
        row("acme", paddr.upper().replace("TDX_QUIRK_RESET_PADDR", "tdx_quirk_reset_paddr"))
        == "7.2"
    )
    assert row("6.12.0-55.el10", page, paddr) == "6.19"
    assert row("acme", "t tdx_clear_page") == "6.16"
    assert row("acme", *CORE) == "6.16"
    assert row(f"{NEWER}.0", "T tdx_quirk_reset_paddr", "T tdx_sys_disable") == "7.2"
    assert row(f"{NEWER}.0", page, paddr) == "6.19"
    assert row("acme") is None


def test_rows_that_differ_in_kexec_or_in_failed_pages_are_said() -> None:
    page = kallsyms("T tdx_quirk_reset_page", "t tdx_quirk_reset_paddr")
    decision = decide(host(SPR, release="acme", kallsyms=page))
    assert [str(row.first) for row in decision.kernel.rows] == ["6.18", "6.19"]
    assert decision.kernel.kexec is Kexec.REFUSED
    assumed = set_scene(decision, packages=1).assumed
    assert any("6.18 or 6.19 to 7.1" in each for each in assumed)
    told = set_scene(decide(host(SPR, release="6.18.2", kallsyms=page)), packages=1).assumed
    assert not any("which differ in it" in each for each in told)
    # As files of a kernel give it, that name no release.
    either = kallsyms("T tdx_quirk_reset_paddr", "T tdx_clear_page")
    assert decide(host(SPR, release="acme", kallsyms=either)).kernel.rows == ()


def test_a_newer_release_is_judged_by_its_symbols_and_said_to_be_newer() -> None:
    newer = decide(host(SPR, release=f"{NEWER}.1", kallsyms=NEWEST))
    assert (newer.kernel.kexec, newer.kernel.certainty) == (
        Kexec.AFTER_DISABLE,
        Certainty.INFERRED,
    )
    assert "newer" in newer.kernel.kexec_because
    assert any(
        f"{NEWER}.1 is newer than what is known here ({KERNEL_ROWS[-1].last})" in each
        for each in newer.warnings
    )
    assert not _warned(host(SPR, release="7.3.4", kallsyms=NEWEST), "newer")
    without = decide(host(SPR, release=f"{NEWER}.1"))
    assert without.kernel.clearing is Clearing.UNKNOWN
    assert without.kernel.row is None


def test_a_module_without_the_leaf_is_said_where_kexec_depends_on_it() -> None:
    old = decide(host(SPR, release="7.3.4", log=MODULE_LOG.format("1.5.01")))
    assert "1.5.01 has no TDH.SYS.DISABLE" in old.advice[-1]
    new = decide(host(SPR, release="7.3.4", log=MODULE_LOG.format("1.5.28")))
    assert "find out whether" in new.advice[-1]
    assert new.host.module_version == "1.5.28"


def test_the_kexec_line_proves_no_skip() -> None:
    log = "[    9.000000] kexec: Not allowed on platform with tdx_pw_mce bug\n"
    fedora = decide(host(SPR, release="6.17.7-300.fc43.x86_64", log=log))
    assert fedora.kernel.clearing is Clearing.ALWAYS
    assert fedora.kernel.kexec is Kexec.REFUSED
    assert fedora.kernel.row is not None
    assert fedora.kernel.row.first == (6, 16)
    unnamed = decide(host(SPR, log=log))
    assert unnamed.kernel.clearing is Clearing.UNKNOWN


def test_a_release_that_its_symbols_belie_is_a_warning() -> None:
    assert _warned(host(GNR, kallsyms=OLD, release="6.18.2"), "code is believed")
    assert not _warned(host(GNR, kallsyms=OLD, release="6.17.2"), "code is believed")


def test_a_guest_is_told_that_its_cpu_may_be_faked() -> None:
    decision = decide(host(cpuinfo(flags="hypervisor")))

    assert "faked" in decision.because
    assert _warned(host(cpuinfo(flags="hypervisor")), "hypervisor chose")


def test_the_saving_is_never_the_mailing_lists_figure() -> None:
    decision = decide(host(GNR, kallsyms=OLD))
    said = " ".join(decision.advice)

    assert "4 to 13 %" in said
    assert "not measured here" in said
    assert "40" not in said


LOG_OF_EMR = (
    "[    1.000000] smpboot: CPU0: INTEL(R) XEON(R) PLATINUM 8558 "
    "(family: 0x6, model: 0xcf, stepping: 0x2)\n"
)


def test_a_log_or_lscpu_of_another_cpu_in_the_capture_is_not_overlooked() -> None:
    by_log = decide(host(GNR, log=LOG_OF_EMR))
    files = {
        "proc/cpuinfo": GNR,
        "sos_commands/processor/lscpu": "Architecture: x86_64\nVendor ID: GenuineIntel\n"
        "CPU family: 6\nModel: 207\nStepping: 2\nL1d: 1\n",
    }
    by_lscpu = decide(read_host(Files(files)))

    for decision in (by_log, by_lscpu):
        assert decision.verdict is REQUIRED
        assert any("disagree" in warning for warning in decision.warnings)
    agreeing = LOG_OF_EMR.replace("0xcf", "0xad")
    assert decide(host(GNR, log=agreeing)).verdict is NOT_REQUIRED


def test_a_log_line_that_only_a_flagged_kernel_prints_counts_as_the_flag() -> None:
    for line in (
        "kexec: Not allowed on platform with tdx_pw_mce bug",
        "mce: [Hardware Error]: TDX private memory error. Possible kernel bug.",
    ):
        decision = decide(host(GNR, log=f"[    9.000000] {line}\n"))
        assert (decision.verdict, decision.rule) == (REQUIRED, "kernel-flag")


def test_two_boots_on_different_cpus_are_judged_by_the_stricter() -> None:
    boots = "".join(
        f"[    0.000000] Linux version 6.18.2 (x) #1\n{LOG_OF_EMR.replace('0xcf', model)}"
        for model in ("0x8f", "0xad")
    )
    decision = decide(read_host(Files({"var/log/dmesg": boots})))
    assert decision.verdict is REQUIRED
    assert any("disagree" in warning for warning in decision.warnings)


def test_an_unverified_tdx_cpu_is_a_warning() -> None:
    assert _warned(host(cpuinfo(family=19, model=1)), "not verified")
    assert not _warned(host(GNR), "not verified")


def test_a_cpu_settled_by_the_kernels_list_alone_is_a_warning() -> None:
    assert _warned(host(cpuinfo(model=0xC9, flags=ACTIVE)), "newer than the kernel")


def test_a_faked_cpu_is_not_off_because_the_real_one_is() -> None:
    base = host(cpuinfo(AMD, 26, 2))
    decision = decide(fake_cpu(base, FakedCpu("--cpu", INTEL, 6, 0x8F)))
    assert (decision.host.state, decision.posture) == (HostState.UNKNOWN, Posture.UNKNOWN)


def test_a_faked_kernel_has_brought_nothing_up() -> None:
    decision = decide(fake_kernel(host(SPR, parameter="Y\n", kallsyms=NEW), "6.1"))
    assert decision.host.state is HostState.BIOS_ENABLED
    assert decision.posture is Posture.IDLE


def test_py_cpuinfo_that_sees_an_affected_cpu_is_believed() -> None:
    seen = CpuGroup(vendor=INTEL, family=6, model=0x8F, stepping=8)
    evidence = Evidence("py-cpuinfo", seen.describe(), Origin.LIVE)
    facts = host(cpuinfo(model=0xAD))._replace(witnesses=(Fact(seen, evidence),))

    decision = decide(facts)

    assert decision.verdict is REQUIRED
    assert evidence in decision.evidence
    assert any("disagree" in warning for warning in decision.warnings)


def test_py_cpuinfo_that_drops_a_zero_model_does_not_disagree() -> None:
    seen = CpuGroup(vendor=INTEL, family=6, model=None, stepping=None)
    evidence = Evidence("py-cpuinfo", seen.describe(), Origin.LIVE)
    facts = host(cpuinfo(model=0xAD))._replace(witnesses=(Fact(seen, evidence),))

    assert decide(facts).verdict is NOT_REQUIRED


# Every combination of what can be known, in one strategy.
_tristate = st.sampled_from([None, False, True])
_groups = st.lists(
    st.builds(
        CpuGroup,
        vendor=st.sampled_from([None, INTEL, AMD, "GenuineIntei"]),
        family=st.sampled_from([None, 6, 19]),
        model=st.sampled_from([None, 0, 1, 0x6A, 0x8F, 0xAD, 0xCF]),
        size=st.just(1),
    ),
    max_size=3,
).map(tuple)
_symbols = st.none() | st.lists(
    st.builds(
        Symbol,
        st.sampled_from("tT"),
        st.sampled_from(["tdx_clear_page", "tdx_quirk_reset_page", "tdx_sys_disable"]),
        st.none(),
    ),
    max_size=2,
).map(lambda found: Symbols(tuple(found)))


@st.composite
def _facts(draw: st.DrawFn) -> HostFacts:
    blank = nothing_known()
    values = {
        name: getattr(blank, name)._replace(value=draw(_tristate))
        for name in (
            "hypervisor",
            "tdx_guest",
            "tdx_host_platform",
            "movdir64b",
            "pw_mce",
            "kvm_parameter",
            "log_enabled",
            "log_off",
            "log_ready",
            "log_kexec",
            "config",
        )
    }
    release = draw(st.none() | st.sampled_from(["6.12", "6.17", "6.18.2", "7.2", "8.0", "6.8-x"]))
    return blank._replace(
        groups=draw(_groups),
        architecture=draw(st.sampled_from([None, "x86", "arm"])),
        release=blank.release._replace(value=release),
        symbols=blank.symbols._replace(value=draw(_symbols)),
        **values,
    )


def test_a_processor_of_intel_counts_over_an_architecture_that_was_read_elsewhere() -> None:
    facts = host(cpuinfo(flags="vmx tdx_host_platform movdir64b"), release="6.18.2")
    decision = decide(facts._replace(architecture="arm"))
    assert decision.posture is not Posture.IDLE
    assert decision.host.state is HostState.BIOS_ENABLED


@given(_facts())
def test_safe_to_skip_is_said_only_when_every_processor_is_known_not_to_need_it(
    facts: HostFacts,
) -> None:
    decision = decide(facts)

    if decision.verdict is NOT_REQUIRED:
        assert facts.groups
        assert not facts.pw_mce.value
        assert all(group.vendor == INTEL and group.identified for group in facts.groups)
        listed = {cpu.vfm for cpu in CPUS if cpu.tdx}
        affected = {vfm for erratum in ERRATA for vfm in erratum.affected}
        for group in facts.groups:
            vfm = (group.vendor, group.family, group.model)
            assert vfm not in affected
            assert vfm in listed or (facts.tdx_host_platform.value and facts.pw_mce.value is False)
    if decision.posture is Posture.SKIPS_SAFELY:
        assert decision.verdict is NOT_REQUIRED
    if decision.posture is Posture.IDLE:
        assert not (
            facts.tdx_host_platform.value and decision.kernel.clearing is Clearing.ON_ERRATUM
        )


@given(_facts(), st.permutations([0, 1, 2]))
def test_the_order_of_processors_does_not_matter(facts: HostFacts, order: list[int]) -> None:
    shuffled = tuple(facts.groups[n] for n in order if n < len(facts.groups))
    one, other = decide(facts), decide(facts._replace(groups=shuffled))

    assert (one.verdict, one.rule, one.posture) == (other.verdict, other.rule, other.posture)


@pytest.mark.parametrize("model", [0xAD, 0xAF, 0xAE])
def test_no_gap_in_the_identity_leaves_a_skip(model: int) -> None:
    whole = host(cpuinfo(model=model))
    cut = whole._replace(coverage=Coverage((Gap("x", "cut"),)))
    log_unread = whole._replace(coverage=Coverage((Gap("dev/kmsg", "refused", Part.LOG),)))

    assert decide(whole).verdict is NOT_REQUIRED
    assert (decide(cut).verdict, decide(cut).rule) == (UNDETERMINED, "evidence-incomplete")
    assert decide(log_unread).verdict is NOT_REQUIRED


@pytest.mark.parametrize(
    ("cpu", "cmdline", "rule"),
    [
        # Unlisted, and settled by flags alone until these may be forced.
        ({"model": 0xF0, "flags": ACTIVE}, "quiet", "kernel-closed-list"),
        ({"model": 0xF0, "flags": ACTIVE}, "clearcpuid=smap", "kernel-closed-list"),
        ({"model": 0xF0, "flags": ACTIVE}, "clearcpuid=tdx_pw_mce", "cpu-unlisted"),
        ({"model": 0xF0, "flags": ACTIVE}, "clearcpuid=639", "cpu-unlisted"),
        ({"model": 0xF0, "flags": ACTIVE}, "setcpuid=TDX_HOST_PLATFORM", "cpu-unlisted"),
        ({"model": 0x55, "flags": ""}, "quiet", "no-movdir64b"),
        ({"model": 0xF0, "flags": ""}, "clearcpuid=540,tdx_host_platform", "cpu-unlisted"),
        ({"model": 0x8F, "flags": "movdir64b hypervisor"}, "quiet", "guest-vm"),
        ({"model": 0x8F, "flags": "movdir64b hypervisor"}, "setcpuid=hypervisor", "tdx_pw_mce"),
        ({"model": 0x8F, "flags": "movdir64b tdx_guest"}, "setcpuid=278", "tdx_pw_mce"),
        # The table needs no flag.
        ({"model": 0xAD, "flags": "movdir64b"}, "clearcpuid=tdx_pw_mce", "no-erratum"),
    ],
)
def test_nothing_rests_on_a_flag_that_an_option_may_force(
    cpu: dict[str, str], cmdline: str, rule: str
) -> None:
    decision = decide(host(cpuinfo(**cpu), cmdline=f"ro {cmdline}\n"))
    assert decision.rule == rule
    assert any(cmdline in warning for warning in decision.warnings) is ("cpuid=" in cmdline)
    if rule == "cpu-unlisted":
        assert "boot without setcpuid= and clearcpuid=" in decision.advice[0]


def test_a_log_tells_of_forced_flags_too() -> None:
    log = "[    0.000000] Command line: ro clearcpuid=tdx_pw_mce\n"
    decision = decide(host(cpuinfo(model=0xF0, flags=ACTIVE), log=log))
    assert decision.rule == "cpu-unlisted"


@pytest.mark.parametrize(
    ("vendor", "rule"),
    [("QEMU\n", "guest-vm"), ("Dell Inc.\n", "tdx_pw_mce"), ("Google\n", "tdx_pw_mce")],
)
def test_the_firmware_names_a_virtual_machine(vendor: str, rule: str) -> None:
    assert decide(host(cpuinfo(), firmware=vendor)).rule == rule


def _with_newest(facts: HostFacts, release: str) -> HostFacts:
    part = KernelPart(f"boot/config-{release}", release, Configuration(True))
    return facts._replace(newest=Images((part,), origin=Origin.LIVE))


@pytest.mark.parametrize(
    ("facts", "newest", "said", "not_said"),
    [
        (
            host(cpuinfo(model=0xAD, flags=ACTIVE), release="6.17.2"),
            "6.18.3",
            "Reboot into 6.18.3, which is installed and clears on affected CPUs alone.",
            "Move to",
        ),
        (host(cpuinfo(model=0xAD, flags=ACTIVE), release="6.17.2"), "6.17.9", "Move to 6.18", "X"),
        (
            host(cpuinfo(flags=ACTIVE), release="6.18.2"),
            "6.17.9",
            "reboot into 6.17.9, which is installed and clears on every CPU.",
            "one that sets",
        ),
        (
            host(cpuinfo(model=0xAD, flags="movdir64b"), release="6.17.2"),
            "6.18.3",
            "For TDX reboot into 6.18.3, which is installed and does not clear",
            "choose",
        ),
        (
            host(cpuinfo(model=0xAD, flags="movdir64b"), release="6.18.2"),
            None,
            "With TDX on this kernel does not clear on this CPU.",
            "6.18",
        ),
        (
            host(SPR, release="6.8.0-x", kallsyms="ffffffff81000000 T _text\n"),
            None,
            "Its symbols were read and do not tell. Load kvm_intel",
            "/proc/kallsyms",
        ),
        (
            host(cpuinfo(model=0x1, flags="movdir64b"), parameter="Y\n"),
            None,
            "boot upstream 6.16 or later with TDX on",
            "/proc/cpuinfo",
        ),
    ],
)
def test_what_was_done_is_not_advised(
    facts: HostFacts, newest: str | None, said: str, not_said: str
) -> None:
    decision = decide(facts if newest is None else _with_newest(facts, newest))
    assert said in " ".join(decision.advice)
    assert not_said not in " ".join(decision.advice)


def test_a_live_host_is_not_told_to_capture_itself() -> None:
    facts = host(cpuinfo(model=0xAD, flags=ACTIVE))
    gap = Coverage((Gap("/proc/cpuinfo", "cannot be used"),))
    live = facts._replace(identity=facts.identity._replace(origin=Origin.LIVE), coverage=gap)
    assert "let /proc/cpuinfo be read here" in decide(live).advice[0]
    assert "capture the host again" in decide(facts._replace(coverage=gap)).advice[0]


def test_what_was_not_read_is_what_to_read() -> None:
    facts = host(cpuinfo(model=0xAD, flags=ACTIVE), release="6.18.2")
    unread = Gap("proc/kallsyms", "Permission denied", Part.KERNEL)
    decision = decide(facts._replace(coverage=Coverage((unread,))))
    assert decision.posture is Posture.UNKNOWN
    assert "Let proc/kallsyms be read" in decision.advice[0]


@pytest.mark.parametrize(
    ("facts", "advice"),
    [
        (host(cpuinfo(), release="6.18.2"), "Nothing while TDX is off. Once it is on, this CPU"),
        (host(cpuinfo(), release="6.12"), "Nothing while TDX is off. Once it is on, this CPU"),
        (host(cpuinfo(model=0xAD), release="6.12"), "Nothing: this kernel runs no TD. For TDX"),
        (host(cpuinfo(model=0xAD), release="6.17"), "Nothing while TDX is off. For TDX"),
        (host(cpuinfo(model=0xAD), release="6.18"), "Nothing while TDX is off. With TDX on this"),
        (host(cpuinfo(flags="movdir64b hypervisor")), "Run this on the host, or on a capture"),
        (host(SPR, release="6.17"), "Leave the clearing alone"),
        (host(GNR, release="6.17"), f"Move to {FIRST_THAT_SKIPS} or later."),
        (host(GNR, release="6.18.2"), "Nothing. If a TD is slow"),
        (host(cpuinfo(flags=ACTIVE), release="6.18.2"), "Start no TD and reuse no TD's page"),
        (host(SPR, release="6.17.0-5-generic"), "Look in /proc/kallsyms (no root needed): with"),
    ],
)
def test_what_is_advised_first(facts: HostFacts, advice: str) -> None:
    assert decide(facts).advice[0].startswith(advice)


def test_another_host_than_a_guest_without_tdx_is_advised_nothing() -> None:
    assert decide(host(cpuinfo(AMD, 26, 2))).advice == ()


def test_both_generations_clear_where_the_flag_is_set() -> None:
    both = " Here both clear."
    assert decide(host(SPR, release="6.17.0-5-generic")).advice[0].endswith(both)
    assert not decide(host(GNR, release="6.17.0-5-generic")).advice[0].endswith(both)
    unflagged = host(cpuinfo(flags=ACTIVE), release="6.17.0-5-generic")
    assert not decide(unflagged).advice[0].endswith(both)


def test_an_erratum_honoured_later_is_not_said_to_be_cleared_by_every_release() -> None:
    facts = host(cpuinfo(model=0xAD), release="7.2")
    late = MADE_UP._replace(flag="made_up", honoured_since=Version(7, 1))
    advice = "no release is known that clears for made_up"
    assert advice in decide(facts, (*ERRATA, late)).advice[0]
    assert advice not in decide(facts, (*ERRATA, FLAGGED)).advice[0]


def test_the_first_gap_is_named_and_the_others_are_counted() -> None:
    gaps = tuple(Gap(f"file-{n}", f"why {n}") for n in range(3))
    facts = host(GNR, release="6.18.2")

    def because(*given: Gap) -> str:
        return decide(facts._replace(coverage=Coverage(given))).because

    assert because(gaps[0]).endswith("file-0: why 0")
    assert because(*gaps[:2]).endswith("file-0: why 0, and 1 more")
    assert because(*gaps).endswith("file-0: why 0, and 2 more")


def test_what_was_not_read_of_the_kernel_is_named_first_to_last() -> None:
    gaps = tuple(Gap(f"file-{n}", f"why {n}", Part.KERNEL) for n in range(2))
    decision = decide(host(GNR, release="6.18.2")._replace(coverage=Coverage(gaps)))
    assert decision.posture is Posture.UNKNOWN
    assert decision.posture_because == "file-0 was not read (why 0)"


def test_a_gap_of_the_state_matters_until_the_module_shows_itself() -> None:
    gap = Coverage((Gap("sys/module", "refused", Part.STATE),))
    active = host(GNR, kallsyms=NEW)._replace(coverage=gap)
    shown = host(GNR, kallsyms=NEW, parameter="Y\n")._replace(coverage=gap)
    assert decide(active).posture is Posture.UNKNOWN
    assert decide(shown).posture is Posture.SKIPS_SAFELY


def test_an_idle_or_needless_posture_rests_on_what_was_read_of_the_kernel_too() -> None:
    gap = Coverage((Gap("proc/kallsyms", "refused", Part.KERNEL),))
    by_name = host(GNR, release="6.17")._replace(coverage=gap)
    by_symbols = host(GNR, kallsyms=OLD)._replace(coverage=gap)
    assert decide(by_name).posture is Posture.UNKNOWN
    assert decide(by_symbols).posture is Posture.CLEARS_NEEDLESSLY
    # One that is at risk stays so.
    at_risk = host(cpuinfo(flags=ACTIVE), release="6.18.2")
    assert decide(at_risk._replace(coverage=gap)).posture is Posture.AT_RISK


def test_of_two_errata_the_one_whose_flag_is_missing_is_the_risk() -> None:
    facts = host(cpuinfo(flags=ACTIVE, bugs="made_up"), release="6.18.2")
    decision = decide(facts, (*ERRATA, FLAGGED))
    assert {each.id for each in decision.silicon.errata} == {"tdx_pw_mce", "made_up"}
    assert decision.posture is Posture.AT_RISK
    assert "with tdx_pw_mce set, and it is not set" in decision.posture_because


def test_a_module_of_another_platform_is_named_as_the_reason() -> None:
    decision = decide(host(GNR, version="1.5.24\n", release="6.18.2"))
    assert decision.rule == "module-contradicts"
    assert "1.5.24" in decision.because


def test_forced_flags_are_advised_on_only_where_they_are_what_is_open() -> None:
    forcing = {"cmdline": "setcpuid=movdir64b\n"}
    unlisted = decide(host(cpuinfo(model=0x9A, flags=None), **forcing))
    unknown = decide(host("processor\t: 0\nvendor_id\t: GenuineIntel\n", **forcing))
    assert "boot without setcpuid=" in unlisted.advice[0]
    assert unknown.rule == "cpu-unknown"
    assert "boot without setcpuid=" not in unknown.advice[0]


def test_the_next_kernel_is_told_only_where_it_does_other_than_this_one() -> None:
    def following(release: str, newest: str) -> Clearing | None:
        found = decide(_with_newest(host(GNR, release=release), newest)).next_kernel
        return None if found is None else found.clearing

    assert following("6.17.3", "6.18.9") is Clearing.ON_ERRATUM
    assert following("6.18.2", "6.18.9") is None


FEDORA = "6.18.3-200.fc43.x86_64"


@pytest.mark.parametrize(
    ("cpu", "release", "kexec"),
    [
        (SPR, FEDORA, Kexec.REFUSED),
        (GNR, FEDORA, Kexec.ALLOWED),
        (cpuinfo(), FEDORA, Kexec.ALLOWED),
        (cpuinfo(flags=ACTIVE), FEDORA, Kexec.ALLOWED),
        (cpuinfo(flags=None, bugs=None), FEDORA, Kexec.REFUSED),
        (cpuinfo(model=0x9A, flags=None, bugs=None), FEDORA, Kexec.UNKNOWN),
        (SPR, "6.17.7-300.fc43.x86_64", Kexec.REFUSED),
        (SPR, "7.2.4-300.fc45.x86_64", Kexec.AFTER_DISABLE),
        (cpuinfo(flags=None, bugs=None), "7.3.4+deb14-amd64", Kexec.ALLOWED),
        (SPR, "6.8.0-1010-intel", Kexec.UNKNOWN),
    ],
)
def test_kexec_of_a_distribution_goes_by_cpu_and_flag(cpu: str, release: str, kexec: Kexec) -> None:
    kernel = decide(host(cpu, release=release)).kernel
    assert kernel.kexec is kexec
    assert kernel.rule in (KernelRule.DISTRIBUTION_LISTED, KernelRule.RELEASE_NOT_UPSTREAM)


def test_symbols_that_an_upstream_release_confirms_are_as_certain_as_its_row() -> None:
    assert decide(host(GNR, release="6.18.2", kallsyms=NEW)).kernel.certainty is Certainty.VERIFIED
    assert decide(host(GNR, release="6.17.3", kallsyms=NEW)).kernel.certainty is Certainty.INFERRED
    assert decide(host(GNR, kallsyms=NEW)).kernel.certainty is Certainty.INFERRED


def test_one_function_clears_and_two_clear() -> None:
    def because(*symbols: str) -> str:
        return decide(host(GNR, kallsyms=kallsyms(*symbols))).kernel.because

    assert because("T tdx_quirk_reset_page").startswith("tdx_quirk_reset_page clears only")
    assert because("T tdx_quirk_reset_page", "t tdx_quirk_reset_paddr").startswith(
        "tdx_quirk_reset_paddr and tdx_quirk_reset_page clear only"
    ) or because("T tdx_quirk_reset_page", "t tdx_quirk_reset_paddr").startswith(
        "tdx_quirk_reset_page and tdx_quirk_reset_paddr clear only"
    )


def test_nothing_that_was_not_asked_for_is_evidence() -> None:
    for facts in (host(cpuinfo(model=0xAD), release="6.17.0-5-generic"), host(GNR, kallsyms=OLD)):
        assert all(piece.observed != NOT_NEEDED for piece in decide(facts).evidence)
    read = decide(host(GNR, release="6.17.0-5-generic", kallsyms=kallsyms("T _text")))
    assert any(piece.path.endswith("kallsyms") for piece in read.evidence)
