"""Reading a host: which files, what an unreadable one becomes, and what faking replaces."""

from __future__ import annotations

import gzip
import json
import tarfile
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tdxreclaim.errors import HostReadError, MalformedInputError
from tdxreclaim.facts.cpu import CpuGroup
from tdxreclaim.facts.evidence import ABSENT, NOT_KNOWN_OF_FAKED, NOT_NEEDED, Evidence, Fact, Origin
from tdxreclaim.facts.fake import FakedCpu, fake_cpu, fake_kernel, nothing_known
from tdxreclaim.facts.host import HostFacts, read_host
from tdxreclaim.facts.kernel import Symbol, Symbols
from tdxreclaim.facts.places import (
    CMDLINE,
    CONFIGS,
    CPUID,
    CPUINFO,
    FIRMWARE,
    IDENTITY,
    KALLSYMS,
    KERNEL_FILES,
    KERNEL_LOGS,
    KVM_PARAMETER,
    LSCPU,
    LSCPU_JSON,
    MANIFEST,
    MISC_CAPACITY,
    MODULE_VERSION,
    RELEASES,
)
from tdxreclaim.facts.sources.base import KERNEL_LOG, Files
from tdxreclaim.facts.sources.live import PyCpuinfo
from tdxreclaim.facts.sources.recognise import open_capture
from tdxreclaim.facts.sources.tree import Tree

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "boot/config-6.18.0"


def cpuinfo(
    vendor: str = "GenuineIntel",
    model: int | str = 143,
    flags: str = "fpu movdir64b",
    bugs: str = "",
) -> str:
    return (
        f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: 6\nmodel\t\t: {model}\n"
        f"stepping\t: 8\nmicrocode\t: 0x2b\nflags\t\t: {flags}\nbugs\t\t: {bugs}\n\n"
    )


LOG = (
    "[    0.000000] Linux version 6.18.0 (x) #1\n"
    "[    0.100000] virt/tdx: BIOS enabled: private KeyID range [64, 128)\n"
    "[    8.000000] virt/tdx: module initialized\n"
)
LOG_CPU = (
    "[    0.200000] smpboot: CPU0: Intel(R) Xeon(R) (family: 0x6, model: 0x8f, stepping: 0x8)\n"
)

WHOLE = {
    CPUINFO: cpuinfo(flags="fpu movdir64b tdx_host_platform", bugs="tdx_pw_mce"),
    RELEASES[0]: "6.18.0\n",
    KALLSYMS: "0000000000000000 T _stext\n0000000000000000 T tdx_quirk_reset_page\n",
    KVM_PARAMETER: "Y\n",
    MISC_CAPACITY: "tdx 63\n",
    MODULE_VERSION: "1.5.24\n",
    KERNEL_LOGS[0]: LOG,
    CONFIG: "CONFIG_INTEL_TDX_HOST=y\n",
}

# What is there in the end, of a host that is worth the look.
TDX_FILES = {
    KALLSYMS,
    KVM_PARAMETER,
    MISC_CAPACITY,
    MODULE_VERSION,
    KERNEL_LOGS[0],
    CONFIG,
}


class Recording(Files):
    """Files that remember what was asked of them, and refuse some."""

    def __init__(
        self,
        texts: dict[str, str],
        *,
        refused: tuple[str, ...] = (),
        origin: Origin = Origin.CAPTURED,
    ) -> None:
        super().__init__(texts, origin=origin)
        self._refused = refused
        self.asked: list[str] = []

    def read(self, path: str) -> str | None:
        self.asked.append(path)
        if path in self._refused:
            raise HostReadError(path, "Permission denied", 13)
        return super().read(path)


def must_not_ask() -> PyCpuinfo:
    pytest.fail("py-cpuinfo was asked")


def read(texts: dict[str, str], **options: bool) -> HostFacts:
    return read_host(Files(texts), ask_py_cpuinfo=must_not_ask, **options)  # type: ignore[arg-type]


def observed(fact: Fact[bool] | Fact[int] | Fact[str]) -> str:
    return fact.evidence.observed


class TestWhatIsRead:
    def test_everything_of_a_tdx_host(self) -> None:
        source = Recording(WHOLE)
        facts = read_host(source)
        # lscpu or another log may name another CPU: they are looked for beside /proc/cpuinfo.
        beside = {*IDENTITY, *KERNEL_LOGS, KERNEL_FILES, CMDLINE, *FIRMWARE}
        assert set(source.asked) == {*WHOLE, *beside}
        assert len(source.asked) == len(set(source.asked)), "each once"
        assert facts.groups == (
            CpuGroup(
                vendor="GenuineIntel", family=6, model=143, stepping=8, microcode=0x2B, size=1
            ),
        )
        values = {
            name: getattr(facts, name).value
            for name in vars(facts)
            if isinstance(getattr(facts, name), Fact)
        }
        assert values == {
            "hypervisor": False,
            "tdx_guest": False,
            "tdx_host_platform": True,
            "movdir64b": True,
            "pw_mce": True,
            "kvm_parameter": True,
            "key_ids": 63,
            "module_version": "1.5.24",
            "log_enabled": True,
            "log_off": False,
            "log_ready": True,
            "log_module": None,
            "log_kexec": None,
            "release": "6.18.0",
            "symbols": Symbols((Symbol("T", "tdx_quirk_reset_page", None),)),
            "config": True,
        }
        assert facts.notes == ()

    @pytest.mark.parametrize(
        "changed",
        [
            pytest.param(cpuinfo("AuthenticAMD"), id="AMD"),
            pytest.param(cpuinfo(flags="fpu hypervisor"), id="a VM"),
            pytest.param(cpuinfo(flags="fpu hypervisor tdx_guest"), id="a TD"),
            pytest.param("CPU implementer : 0x41\n", id="ARM"),
        ],
    )
    def test_nothing_but_identity_and_release_of_what_is_no_tdx_host(self, changed: str) -> None:
        source = Recording(WHOLE | {CPUINFO: changed})
        facts = read_host(source)
        # Another file may name another CPU.
        # A guest's flags may be an option's.
        assert set(source.asked) - {CMDLINE} == {*IDENTITY, *KERNEL_LOGS, RELEASES[0], MANIFEST}
        for fact in (facts.kvm_parameter, facts.key_ids, facts.module_version):
            assert (fact.value, observed(fact)) == (None, NOT_NEEDED)

    @pytest.mark.parametrize(
        "changed",
        [
            pytest.param(cpuinfo(flags="hypervisor", bugs="tdx_pw_mce"), id="the erratum flag"),
            pytest.param(cpuinfo("GenuineIotel"), id="a garbled vendor"),
            pytest.param(cpuinfo(model="unknown"), id="a model that is not told"),
            pytest.param(cpuinfo("AuthenticAMD") + cpuinfo(), id="one Intel CPU among others"),
            pytest.param(cpuinfo(flags="hypervisor") + cpuinfo(), id="a guest and a host in one"),
        ],
    )
    def test_what_may_be_a_tdx_host_is_read_whole(self, changed: str) -> None:
        source = Recording(WHOLE | {CPUINFO: changed})
        read_host(source)
        assert set(source.asked) >= TDX_FILES

    def test_symbols_and_configuration_can_be_left_out(self) -> None:
        source = Recording(WHOLE)
        facts = read_host(source, symbols=False)
        assert {KALLSYMS, CONFIG}.isdisjoint(source.asked)
        assert (facts.symbols.value, facts.config.value) == (None, None)
        assert facts.log_ready.value is True, "what the verdict depends on is not left out"

    def test_the_live_kernel_log_is_the_ring_buffer(self) -> None:
        texts = {path: text for path, text in WHOLE.items() if path not in KERNEL_LOGS}
        source = Recording(texts | {KERNEL_LOG: LOG}, origin=Origin.LIVE)
        facts = read_host(source)
        assert KERNEL_LOG in source.asked
        assert set(KERNEL_LOGS).isdisjoint(source.asked)
        assert facts.log_ready.value is True
        assert facts.log_ready.evidence.origin is Origin.LIVE

    def test_a_release_that_leads_elsewhere_names_no_file(self) -> None:
        source = Recording(WHOLE | {RELEASES[0]: "../../etc/passwd\n"})
        assert read_host(source).config.value is None
        assert not any("passwd" in path for path in source.asked)


class TestWhatIsMissing:
    @pytest.mark.parametrize("path", sorted(TDX_FILES))
    def test_an_unreadable_optional_file_is_evidence(self, path: str) -> None:
        facts = read_host(Recording(WHOLE, refused=(path,)))
        whole = read(WHOLE)
        assert facts.groups == whole.groups
        lost = [
            fact
            for fact in vars(facts).values()
            if isinstance(fact, Fact)
            and fact.evidence.observed == "not readable: Permission denied"
        ]
        assert lost
        assert all(fact.value is None and fact.evidence.path == path for fact in lost)

    @pytest.mark.parametrize("path", sorted(TDX_FILES - {KERNEL_LOGS[0]}))
    def test_an_absent_file_is_unknown_and_not_no(self, path: str) -> None:
        facts = read({name: text for name, text in WHOLE.items() if name != path})
        absent = [
            f
            for f in vars(facts).values()
            if isinstance(f, Fact) and f.evidence == (path, ABSENT, Origin.CAPTURED)
        ]
        assert [fact.value for fact in absent] == [None]

    @pytest.mark.parametrize("path", sorted(TDX_FILES - {KERNEL_LOGS[0], MODULE_VERSION}))
    def test_nonsense_is_unknown_and_shown(self, path: str) -> None:
        facts = read(WHOLE | {path: "\x1b[31mnonsense " + "x" * 500})
        (fact,) = (
            f
            for f in vars(facts).values()
            if isinstance(f, Fact) and f.evidence.observed.startswith("not understood")
        )
        assert fact.value is None
        assert fact.evidence.observed.isprintable()
        assert len(fact.evidence.observed) <= 160

    def test_no_log_at_all(self) -> None:
        facts = read({name: text for name, text in WHOLE.items() if name != KERNEL_LOGS[0]})
        assert (facts.log_enabled.value, observed(facts.log_enabled)) == (None, ABSENT)

    def test_a_log_without_the_line(self) -> None:
        facts = read(WHOLE | {KERNEL_LOGS[0]: "[    0.000000] Linux version 6.18.0 (x)\n"})
        assert (facts.log_ready.value, observed(facts.log_ready)) == (
            None,
            "no such line (boots in it: 1)",
        )

    def test_the_second_log_is_read_where_the_first_is_not_there(self) -> None:
        texts = {name: text for name, text in WHOLE.items() if name != KERNEL_LOGS[0]}
        facts = read(texts | {KERNEL_LOGS[1]: LOG})
        assert facts.log_ready.value is True
        assert facts.log_ready.evidence.path == f"{KERNEL_LOGS[1]}:3"

    def test_the_second_log_is_read_where_the_first_cannot_be(self) -> None:
        source = Recording(WHOLE | {KERNEL_LOGS[1]: LOG}, refused=(KERNEL_LOGS[0],))
        assert read_host(source).log_ready.evidence.path == f"{KERNEL_LOGS[1]}:3"

    def test_flags_that_are_missing_are_unknown(self) -> None:
        text = "vendor_id : GenuineIntel\ncpu family : 6\nmodel : 143\n"
        facts = read({CPUINFO: text})
        for fact in (facts.hypervisor, facts.tdx_guest, facts.tdx_host_platform, facts.movdir64b):
            assert (fact.value, observed(fact)) == (None, "flags: not known whole")
        assert (facts.pw_mce.value, observed(facts.pw_mce)) == (None, "bugs: not known whole")

    def test_an_empty_host_says_nothing(self) -> None:
        facts = read({})
        assert (facts.architecture, facts.groups) == (None, ())
        assert facts.identity == Evidence(CPUINFO, ABSENT, Origin.CAPTURED)
        assert all(fact.value is None for fact in vars(facts).values() if isinstance(fact, Fact))


class TestIdentity:
    LSCPU_TEXT = "Architecture: x86_64\nVendor ID: GenuineIntel\nCPU family: 6\nModel: 207\n\n"

    def test_cpuinfo_comes_first(self) -> None:
        facts = read({CPUINFO: cpuinfo(), LSCPU: self.LSCPU_TEXT})
        assert facts.groups[0].model == 143

    @pytest.mark.parametrize("refused", [True, False], ids=["unreadable", "malformed"])
    def test_the_next_best_file_is_taken_and_the_failure_noted(self, refused: bool) -> None:
        texts = {CPUINFO: "garbage", LSCPU: self.LSCPU_TEXT}
        facts = read_host(Recording(texts, refused=(CPUINFO,) if refused else ()))
        assert facts.groups[0].model == 207
        assert facts.identity.path == LSCPU
        (note,) = facts.notes
        assert note.path == CPUINFO
        assert note.observed.startswith("not readable: ")

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            (LSCPU, LSCPU_TEXT),
            (
                LSCPU_JSON,
                json.dumps(
                    {
                        "lscpu": [
                            {"field": "Vendor ID:", "data": "GenuineIntel"},
                            {"field": "CPU family:", "data": "6"},
                            {"field": "Model:", "data": "207"},
                        ]
                    }
                ),
            ),
            (
                CPUID,
                (
                    "CPUID 00000000: 00000020-756E6547-6C65746E-49656E69\n"
                    "CPUID 00000001: 000C06F2-00800800-7FFEFBFF-BFEBFBFF\n"
                ),
            ),
        ],
    )
    def test_each_form_identifies_alone(self, path: str, text: str) -> None:
        facts = read({path: text})
        assert (facts.groups[0].vendor, facts.groups[0].model) == ("GenuineIntel", 207)
        assert facts.identity.path == path

    def test_a_kernel_log_identifies_where_nothing_else_does(self) -> None:
        facts = read({KERNEL_LOGS[0]: LOG + LOG_CPU})
        assert facts.groups == (
            CpuGroup(vendor="GenuineIntel", family=6, model=143, stepping=8, size=1),
        )
        assert facts.identity.path == f"{KERNEL_LOGS[0]}:4"
        assert facts.release.value == "6.18.0"
        assert facts.log_ready.value is True
        assert facts.hypervisor.value is None

    def test_where_nothing_can_be_used_the_first_failure_is_raised(self) -> None:
        with pytest.raises(HostReadError, match="Permission denied"):
            read_host(Recording({LSCPU: "garbage"}, refused=(CPUINFO,)))
        with pytest.raises(MalformedInputError):
            read({CPUINFO: "garbage"})

    def test_the_notes_of_a_cut_capture_are_kept(self) -> None:
        facts = read({CPUINFO: cpuinfo().partition("stepping")[0] + "stepping : 8"})
        assert any("stepping" in note.observed for note in facts.notes)
        assert facts.groups[0].stepping is None

    def test_the_census_is_printable(self) -> None:
        facts = read({CPUINFO: cpuinfo("\x1b[2J\x07")})
        assert facts.identity.observed.isprintable()

    def test_processors_that_disagree_on_being_a_guest(self) -> None:
        facts = read({CPUINFO: cpuinfo(flags="hypervisor movdir64b") + cpuinfo(flags="fpu")})
        assert facts.hypervisor.value is None
        assert observed(facts.hypervisor) == "flags: processors disagree on hypervisor"
        assert facts.movdir64b.value is True

    def test_processors_that_disagree_on_the_closed_list(self) -> None:
        # Else the flag of one would settle an unlisted CPU for the other.
        facts = read({CPUINFO: cpuinfo(flags="tdx_host_platform") + cpuinfo(bugs="tdx_pw_mce")})
        assert facts.tdx_host_platform.value is None
        assert facts.pw_mce.value is True, "one is enough"


class TestLog:
    def log_of(self, *messages: str) -> HostFacts:
        lines = [f"[    {number}.000000] {message}\n" for number, message in enumerate(messages)]
        return read({CPUINFO: "vendor_id : GenuineIntel\n", KERNEL_LOGS[0]: "".join(lines)})

    def test_of_two_lines_that_contradict_the_later_one_counts(self) -> None:
        ready, failed = (
            "virt/tdx: module initialized",
            "virt/tdx: module initialization failed (-5)",
        )
        assert self.log_of(failed, ready).log_ready.value is True
        assert self.log_of(ready, failed).log_ready.value is False
        assert self.log_of(ready, failed).log_ready.evidence.path == f"{KERNEL_LOGS[0]}:2"

    def test_a_kernel_that_refused(self) -> None:
        facts = self.log_of(
            "virt/tdx: BIOS enabled: private KeyID range [64, 128)",
            "virt/tdx: initialization failed: Hibernation support is enabled",
        )
        assert (facts.log_enabled.value, facts.log_ready.value) == (False, False)
        assert [note.path for note in facts.notes if "Hibernation" in note.observed] == [
            f"{KERNEL_LOGS[0]}:2"
        ]

    def test_kexec_is_never_told_to_be_allowed(self) -> None:
        refused = self.log_of("kexec: Not allowed on platform with tdx_pw_mce bug")
        assert refused.log_kexec.value is True
        assert self.log_of("Linux version 6.18.0 (x)").log_kexec.value is None

    def test_a_guest_by_its_log_where_the_flags_are_not_known(self) -> None:
        facts = self.log_of("Hypervisor detected: KVM", "tdx: Guest detected")
        assert (facts.hypervisor.value, facts.tdx_guest.value) == (True, True)

    def test_flags_that_are_known_count_over_the_log(self) -> None:
        texts = {
            CPUINFO: cpuinfo(),
            KERNEL_LOGS[0]: "Hypervisor detected: KVM\ntdx: Guest detected\n",
        }
        facts = read(texts)
        assert (facts.hypervisor.value, facts.tdx_guest.value) == (False, False)


PY = {
    "arch": "X86_64",
    "vendor_id_raw": "GenuineIntel",
    "family": 6,
    "model": 143,
    "stepping": 8,
    "count": 4,
    "flags": ["fpu", "movdir64b"],
}


def answering(values: dict[str, object]) -> PyCpuinfo:
    return PyCpuinfo(values)


def failing() -> PyCpuinfo:
    raise HostReadError("py-cpuinfo", "it found nothing")


class TestPyCpuinfo:
    def live(
        self, texts: dict[str, str], values: dict[str, object] | None, **options: bool
    ) -> HostFacts:
        source = Files({RELEASES[0]: "6.18.0\n"} | texts, origin=Origin.LIVE)
        ask = failing if values is None else lambda: answering(values)
        return read_host(source, ask_py_cpuinfo=ask, **options)  # type: ignore[arg-type]

    def test_it_is_asked_where_a_live_host_has_no_cpuinfo(self) -> None:
        facts = self.live({}, PY)
        assert facts.groups == (
            CpuGroup(vendor="GenuineIntel", family=6, model=143, stepping=8, size=4),
        )
        assert facts.identity.path == "py-cpuinfo"
        assert facts.movdir64b.value is True

    def test_what_its_flags_lack_is_unknown(self) -> None:
        facts = self.live({}, PY)
        for fact in (facts.hypervisor, facts.tdx_host_platform, facts.pw_mce):
            assert fact.value is None

    @pytest.mark.parametrize("key", ["model", "stepping", "family", "vendor_id_raw"])
    def test_what_it_drops_may_have_been_zero_and_is_unknown(self, key: str) -> None:
        (only,) = self.live({}, {name: value for name, value in PY.items() if name != key}).groups
        assert getattr(only, "vendor" if key == "vendor_id_raw" else key) is None

    @pytest.mark.parametrize("model", [300, -1, True, "143", None, 1.5])
    def test_a_model_that_cannot_be_is_unknown(self, model: object) -> None:
        (only,) = self.live({}, PY | {"model": model}).groups
        assert only.model is None

    def test_another_architecture(self) -> None:
        facts = self.live({}, {"arch": "ARM_8", "count": 8})
        assert (facts.architecture, facts.groups) == ("ARM_8", ())

    def test_an_architecture_that_it_does_not_name_is_unknown(self) -> None:
        facts = self.live({}, {"count": 8})
        assert (facts.architecture, facts.groups) == (None, ())

    def test_its_failure_is_evidence(self) -> None:
        facts = self.live({}, None)
        assert (facts.architecture, facts.groups) == (None, ())
        assert facts.identity == Evidence(
            "py-cpuinfo", "not readable: it found nothing", Origin.LIVE
        )

    def test_it_is_not_asked_without_need(self) -> None:
        source = Files({CPUINFO: cpuinfo(), RELEASES[0]: "6.18.0\n"}, origin=Origin.LIVE)
        assert read_host(source, ask_py_cpuinfo=must_not_ask).witnesses == ()

    @pytest.mark.parametrize("texts", [{}, {KERNEL_LOGS[0]: LOG}])
    def test_it_never_answers_for_a_captured_host(self, texts: dict[str, str]) -> None:
        assert read(texts).groups == ()

    def test_the_cross_check_is_a_fact_of_its_own(self) -> None:
        facts = self.live({CPUINFO: cpuinfo(model=207)}, PY, cross_check=True)
        assert facts.groups[0].model == 207
        (witness,) = facts.witnesses
        assert witness.value == CpuGroup(
            vendor="GenuineIntel", family=6, model=143, stepping=8, size=4
        )
        assert "6/0x8f" in witness.evidence.observed

    def test_a_cross_check_that_fails(self) -> None:
        facts = self.live({CPUINFO: cpuinfo()}, None, cross_check=True)
        evidence = Evidence("py-cpuinfo", "not readable: it found nothing", Origin.LIVE)
        assert facts.witnesses == (Fact(None, evidence),)

    def test_an_intel_cpu_that_only_the_cross_check_sees_is_looked_into(self) -> None:
        texts = {CPUINFO: cpuinfo("AuthenticAMD"), KVM_PARAMETER: "Y\n"}
        assert self.live(texts, PY).kvm_parameter.value is None
        assert self.live(texts, PY, cross_check=True).kvm_parameter.value is True


class TestFaked:
    SPR = FakedCpu("--cpu spr", "GenuineIntel", 6, 143)

    def test_nothing_known_says_nothing(self) -> None:
        facts = nothing_known()
        assert all(fact.value is None for fact in vars(facts).values() if isinstance(fact, Fact))
        origins = {fact.evidence.origin for fact in vars(facts).values() if isinstance(fact, Fact)}
        assert origins == {Origin.FAKED}

    def test_a_cpu_over_nothing(self) -> None:
        facts = fake_cpu(nothing_known(), self.SPR)
        assert facts.groups == (CpuGroup(vendor="GenuineIntel", family=6, model=143),)
        assert facts.architecture == "x86"
        assert facts.identity == Evidence("--cpu spr", "GenuineIntel 6/0x8f", Origin.FAKED)

    def test_what_the_real_cpu_said_of_itself_goes_and_the_hosts_state_stays(self) -> None:
        real = read(WHOLE)
        facts = fake_cpu(real, FakedCpu("--cpu gnr", "GenuineIntel", 6, 173))
        for fact in (facts.movdir64b, facts.pw_mce, facts.log_kexec):
            assert (fact.value, observed(fact)) == (None, NOT_KNOWN_OF_FAKED)
            assert fact.evidence.origin is Origin.FAKED
        assert facts.tdx_host_platform == real.tdx_host_platform
        assert (facts.release, facts.symbols) == (real.release, real.symbols)
        assert facts.witnesses == ()

    def test_one_part_is_laid_over_every_group(self) -> None:
        real = read({CPUINFO: cpuinfo(model=143) + cpuinfo(model=207)})
        facts = fake_cpu(real, FakedCpu("--stepping", stepping=0))
        assert {(g.model, g.stepping, g.microcode, g.size) for g in facts.groups} == {
            (143, 0, None, 1),
            (207, 0, None, 1),
        }

    def test_groups_that_become_one_are_counted_together(self) -> None:
        real = read({CPUINFO: cpuinfo(model=143) * 3 + cpuinfo(model=207)})
        facts = fake_cpu(real, FakedCpu("--model", model=173))
        assert facts.groups == (
            CpuGroup(vendor="GenuineIntel", family=6, model=173, stepping=8, size=4),
        )

    def test_zero_is_laid_over_too(self) -> None:
        real = read({CPUINFO: cpuinfo()})
        facts = fake_cpu(real, FakedCpu("--model", "GenuineIntel", 0, 0, 0))
        assert facts.groups == (
            CpuGroup(vendor="GenuineIntel", family=0, model=0, stepping=0, size=1),
        )

    def test_a_part_over_a_host_that_is_not_identified_stays_a_part(self) -> None:
        facts = fake_cpu(read({}), FakedCpu("--model", model=143))
        assert facts.groups == (CpuGroup(vendor=None, family=None, model=143),)

    def test_a_kernel_takes_the_real_ones_symbols_with_it(self) -> None:
        real = read(WHOLE)
        facts = fake_kernel(real, "6.17")
        assert facts.release == Fact("6.17", Evidence("--kernel", "6.17", Origin.FAKED))
        for fact in (facts.symbols, facts.config, facts.log_kexec):
            assert fact.value is None
            assert fact.evidence.origin is Origin.FAKED
        assert (facts.groups, facts.pw_mce) == (real.groups, real.pw_mce)

    def test_both_in_either_order(self) -> None:
        real = read(WHOLE)
        one, other = (
            fake_kernel(fake_cpu(real, self.SPR), "6.17"),
            fake_cpu(fake_kernel(real, "6.17"), self.SPR),
        )
        assert one._replace(log_kexec=real.log_kexec) == other._replace(log_kexec=real.log_kexec)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", CONFIGS)
def test_a_configuration_is_found_wherever_kernels_put_it(
    place: str, packed: bool, tmp_path: Path
) -> None:
    files = {
        "proc/cpuinfo": cpuinfo(flags="fpu movdir64b tdx_host_platform"),
        "proc/sys/kernel/osrelease": "7.3.4+deb13-amd64\n",
        place.format(release="7.3.4+deb13-amd64"): "# CONFIG_INTEL_TDX_HOST is not set\n",
    }
    for path, text in files.items():
        file = tmp_path / "host" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        data = text.encode()
        file.write_bytes(gzip.compress(data) if packed and text.startswith("#") else data)
    with tarfile.open(tmp_path / "host.tar", "w") as tar:
        tar.add(tmp_path / "host", ".")

    for source in (Tree(str(tmp_path / "host")), open_capture(str(tmp_path / "host.tar")).source):
        with closing(source):
            facts = read_host(source)
        assert facts.config.value is False
        assert facts.config.evidence.observed == "CONFIG_INTEL_TDX_HOST is not set"


def test_a_damaged_configuration_is_not_understood_and_another_place_is_looked_at() -> None:
    files = {
        "proc/cpuinfo": cpuinfo(flags="fpu movdir64b tdx_host_platform"),
        "proc/sys/kernel/osrelease": "7.3.4\n",
        "boot/config-7.3.4": "nothing",
    }
    assert "not understood" in read_host(Files(files)).config.evidence.observed
    files["usr/lib/modules/7.3.4/config"] = "CONFIG_INTEL_TDX_HOST=y\n"
    assert read_host(Files(files)).config.value is True
