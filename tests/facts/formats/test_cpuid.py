"""Raw CPUID dumps, in both forms and with what is cut from them."""

from __future__ import annotations

from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.cpu import CpuGroup
from tdxreclaim.facts.formats.cpuid import looks_like_cpuid, parse_cpuid

Registers = tuple[int, int, int, int]

INTEL: Registers = (0x20, 0x756E6547, 0x6C65746E, 0x49656E69)
AMD: Registers = (0x1C, 0x68747541, 0x444D4163, 0x69746E65)
HYPERVISOR = 1 << 31
MOVDIR64B = 1 << 28


def leaf_1(signature: int, ecx: int = 0x7FFEFBFF) -> Registers:
    return signature, 0x00800800, ecx, 0xBFEBFBFF


def leaf_7(ecx: int = 0xBB417FEE) -> Registers:
    return 2, 0xF3BFBFFB, ecx, 0xFFDD4430


# A dump is a list of CPUs, each a list of (leaf, sub-leaf, registers).
Cpu = list[tuple[int, int, Registers]]
# The bit for MOVDIR64B is not set in this one.
OTHER_SUB: Registers = (0x1C30, 0, 0, 0)


def cpu(
    signature: int, *, vendor: Registers = INTEL, ecx_1: int = 0, ecx_7: int = MOVDIR64B
) -> Cpu:
    return [
        (0, 0, vendor),
        (1, 0, leaf_1(signature, ecx_1)),
        (4, 0, (0xFC004121, 0x02C0003F, 0x3F, 0)),
        (4, 1, (0xFC004122, 0x01C0003F, 0x3F, 0)),
        (7, 0, leaf_7(ecx_7)),
        (7, 1, OTHER_SUB),
        (0x80000000, 0, (0x80000008, 0, 0, 0)),
    ]


def raw(*cpus: Cpu, sub: bool = True) -> str:
    """Write as ``cpuid -r`` does; old versions have no column for the sub-leaf."""
    lines = []
    for number, rows in enumerate(cpus):
        lines.append(f"CPU {number}:")
        for leaf, sub_leaf, (a, b, c, d) in rows:
            column = f" 0x{sub_leaf:02x}" if sub else ""
            lines.append(
                f"   0x{leaf:08x}{column}: eax=0x{a:08x} ebx=0x{b:08x} ecx=0x{c:08x} edx=0x{d:08x}"
            )
    return "\n".join(lines) + "\n"


def listed(*cpus: Cpu, sub: bool = True) -> str:
    """Write as the InstLatx64 files do, with or without ``[SL nn]``."""
    lines = []
    for number, rows in enumerate(cpus):
        lines.append(f"------[ CPUID Registers / Logical CPU #{number} ]------")
        for leaf, sub_leaf, (a, b, c, d) in rows:
            tail = f" [SL {sub_leaf:02X}]" if sub and leaf in (4, 7) else ""
            vendor = " [GenuineIntel]" if leaf == 0 else ""
            lines.append(f"CPUID {leaf:08X}: {a:08X}-{b:08X}-{c:08X}-{d:08X}{vendor}{tail}")
    return "\n".join(lines) + "\n"


FORMS = [
    pytest.param(raw, True, id="cpuid -r"),
    pytest.param(raw, False, id="old cpuid -r"),
    pytest.param(listed, True, id="listed with SL"),
    pytest.param(listed, False, id="listed"),
]
both = pytest.mark.parametrize(("form", "sub"), FORMS)


class Form(Protocol):
    def __call__(self, *cpus: Cpu, sub: bool = True) -> str: ...


@both
def test_every_cpu_is_counted(form: Form, sub: bool) -> None:
    text = form(cpu(0x806F8), cpu(0xC06F2), cpu(0x806F8), sub=sub)
    assert looks_like_cpuid(text)
    assert parse_cpuid(text).groups == (
        CpuGroup(vendor="GenuineIntel", family=6, model=0x8F, stepping=8, size=2),
        CpuGroup(vendor="GenuineIntel", family=6, model=0xCF, stepping=2, size=1),
    )


@both
def test_stepping_0_and_another_vendor(form: Form, sub: bool) -> None:
    reading = parse_cpuid(form(cpu(0x00A00F10, vendor=AMD), sub=sub))
    assert reading.groups == (
        CpuGroup(vendor="AuthenticAMD", family=25, model=1, stepping=0, size=1),
    )


@both
@pytest.mark.parametrize("has", [True, False])
def test_movdir64b_is_that_of_sub_leaf_0(form: Form, sub: bool, has: bool) -> None:
    text = form(cpu(0x806F8, ecx_7=MOVDIR64B if has else ~MOVDIR64B & 0xFFFF_FFFF), sub=sub)
    assert parse_cpuid(text).movdir64b is has


@both
@pytest.mark.parametrize("has", [True, False])
def test_hypervisor(form: Form, sub: bool, has: bool) -> None:
    reading = parse_cpuid(form(cpu(0x806F8, ecx_1=HYPERVISOR * has), sub=sub))
    assert reading.hypervisor is has


@both
def test_a_dump_has_none_of_the_kernels_words(form: Form, sub: bool) -> None:
    reading = parse_cpuid(form(cpu(0x806F8), sub=sub))
    assert reading.flags.has("tdx_host_platform") is None
    assert reading.bugs.has("tdx_pw_mce") is None


@both
def test_foreign_line_ends(form: Form, sub: bool) -> None:
    text = form(cpu(0x806F8), cpu(0xC06F2), sub=sub)
    assert parse_cpuid(text.replace("\n", "\r\n")) == parse_cpuid(text)


def test_hexadecimal_in_either_case() -> None:
    assert parse_cpuid(raw(cpu(0xC06F2)).upper().replace("0X", "0x")).groups[0].model == 0xCF


def test_cpus_that_disagree_make_no_guest() -> None:
    assert parse_cpuid(raw(cpu(0x806F8, ecx_1=HYPERVISOR), cpu(0x806F8))).hypervisor is None


def test_a_cpu_whose_features_are_not_told_makes_no_a_dont_know() -> None:
    assert parse_cpuid(raw(cpu(0x606A6, ecx_7=0), cpu(0x606A6)[:3])).movdir64b is None
    assert parse_cpuid(raw(cpu(0x606A6), cpu(0x606A6)[:3])).movdir64b is True
    assert parse_cpuid(raw(cpu(0x606A6)[:3])).movdir64b is None


def test_a_cpu_without_leaf_0_does_not_take_its_neighbours_vendor() -> None:
    reading = parse_cpuid(raw(cpu(0x806F8), cpu(0xC06F2)[1:]))
    assert CpuGroup(vendor=None, family=6, model=0xCF, stepping=2, size=1) in reading.groups


def test_one_leaf_alone_has_no_vendor() -> None:
    assert parse_cpuid(raw(cpu(0x806F8)[1:2])).groups == (
        CpuGroup(vendor=None, family=6, model=0x8F, stepping=8, size=1),
    )


@pytest.mark.parametrize("text", ["", "CPU 0:\n", raw(cpu(0x806F8)[:1]), listed(cpu(0x806F8)[:1])])
def test_without_leaf_1_it_is_malformed(text: str) -> None:
    with pytest.raises(MalformedInputError, match="leaf 1"):
        parse_cpuid(text)


@pytest.mark.parametrize("form", [raw, listed])
def test_a_register_cut_short_is_not_believed(form: Form) -> None:
    text = form(cpu(0x806F8)[:2]).rstrip()
    assert parse_cpuid(text).groups[0].model == 0x8F
    with pytest.raises(MalformedInputError):
        parse_cpuid(text[:-1])


@pytest.mark.parametrize("text", ["\n" * 65_536, " " * 65_536, ("\n" * 60 + "0x") * 1000])
def test_blank_lines_are_gone_over_once(text: str) -> None:
    # A test that hangs is how this fails: every blank line used to begin a new search.
    assert not looks_like_cpuid(text)


DUMP = raw(cpu(0x806F8), cpu(0xC06F2))


@given(st.integers(0, len(DUMP)), st.integers(0, 30), st.text(max_size=30))
def test_mangled_dumps_raise_nothing_but_malformed(at: int, gone: int, put: str) -> None:
    try:
        parse_cpuid(DUMP[:at] + put + DUMP[at + gone :])
    except MalformedInputError as error:
        assert error.why  # noqa: PT017  (what is raised is the assertion)


@given(st.lists(st.integers(0, 0xFFFF_FFFF), min_size=1, max_size=4))
def test_both_forms_say_the_same(signatures: list[int]) -> None:
    cpus = [cpu(signature) for signature in signatures]
    assert parse_cpuid(raw(*cpus)) == parse_cpuid(listed(*cpus))


def test_more_kinds_than_a_host_has_are_no_host() -> None:
    rows = "".join(
        f"CPUID 00000001: {number:08X}-00800800-7FFEFBFF-BFEBFBFF\n" for number in range(1100)
    )
    with pytest.raises(MalformedInputError, match="more than 1024 kinds"):
        parse_cpuid(rows)
