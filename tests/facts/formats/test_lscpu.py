"""lscpu's output, in the shapes that its versions and the people who paste it give it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.cpu import CpuGroup
from tdxreclaim.facts.formats.lscpu import looks_like_lscpu, parse_lscpu, parse_lscpu_json

# util-linux 2.38: indented groups, flags in the middle.
NEW = """\
Architecture:            x86_64
  CPU op-mode(s):        32-bit, 64-bit
CPU(s):                  192
  On-line CPU(s) list:   0-191
Vendor ID:               GenuineIntel
  BIOS Vendor ID:        Intel(R) Corporation
  Model name:            INTEL(R) XEON(R) PLATINUM 8558
    BIOS Model name:     INTEL(R) XEON(R) PLATINUM 8558
    BIOS CPU family:     179
    CPU family:          6
    Model:               207
    Thread(s) per core:  2
    Stepping:            2
    BogoMIPS:            4200.00
    Flags:               fpu vme movdir64b tdx_host_platform
Caches (sum of all):
  L1d:                   4.5 MiB (96 instances)
Vulnerabilities:
  Meltdown:              Not affected
"""
# util-linux 2.23: flat, the model number before its name, flags at the end.
OLD = """\
Architecture:          x86_64
CPU op-mode(s):        32-bit, 64-bit
CPU(s):                4
Vendor ID:             GenuineIntel
CPU family:            6
Model:                 207
Model name:            INTEL(R) XEON(R) PLATINUM 8558
Stepping:              2
NUMA node0 CPU(s):     0-3
Flags:                 fpu vme movdir64b tdx_host_platform
"""
EMR = CpuGroup(vendor="GenuineIntel", family=6, model=207, stepping=2)


def test_new_field_order() -> None:
    reading = parse_lscpu(NEW)
    assert reading.groups == (EMR.sized(192),)
    assert reading.architecture == "x86"
    assert reading.flags.has("movdir64b") is True
    assert reading.flags.has("hypervisor") is False
    assert reading.hypervisor is None
    assert reading.notes == ()


def test_lscpu_never_shows_the_kernels_bugs() -> None:
    assert parse_lscpu(NEW).bugs.has("tdx_pw_mce") is None


def test_old_field_order() -> None:
    assert parse_lscpu(OLD).groups == (EMR.sized(4),)


def test_flags_at_the_very_end_may_have_been_cut() -> None:
    reading = parse_lscpu(OLD)
    assert reading.flags.has("movdir64b") is True
    assert reading.flags.has("hypervisor") is None
    assert reading.notes == ("the flags are cut off",)


@pytest.mark.parametrize(
    "wrapped",
    [
        "fpu vme movdir\n                         64b tdx_host_platform",
        "fpu vme\n                         movdir64b\n   tdx_host\n   _platform",
    ],
    ids=["in a word", "between words and in one"],
)
def test_wrapped_flags(wrapped: str) -> None:
    reading = parse_lscpu(NEW.replace("fpu vme movdir64b tdx_host_platform", wrapped))
    for word in ("fpu", "vme", "movdir64b", "tdx_host_platform"):
        assert reading.flags.has(word) is True
    assert reading.flags.has("hypervisor") is False


def test_wrapped_flags_that_come_last_are_cut() -> None:
    text = NEW.partition("Caches")[0] + "                         clwb intel_pt\n"
    reading = parse_lscpu(text)
    assert reading.flags.has("intel_pt") is True
    assert reading.flags.has("hypervisor") is None


def test_no_flags_at_all() -> None:
    text = "".join(line for line in NEW.splitlines(keepends=True) if "Flags" not in line)
    assert parse_lscpu(text).flags.has("fpu") is None


def test_foreign_line_ends() -> None:
    assert parse_lscpu(NEW.replace("\n", "\r\n")) == parse_lscpu(NEW)


@pytest.mark.parametrize("digits", ["2", "20", "207"])
def test_a_model_cut_short_is_not_believed(digits: str) -> None:
    (only,) = parse_lscpu(NEW.partition("    Model:")[0] + f"    Model:   {digits}").groups
    assert (only.family, only.model) == (6, None)


def test_an_architecture_cut_short_is_not_another_one() -> None:
    with pytest.raises(MalformedInputError):
        parse_lscpu("Architecture:   x86_6")


def test_a_guest_says_so() -> None:
    text = NEW.replace("Caches (", "Hypervisor vendor:       KVM\nCaches (")
    assert parse_lscpu(text).hypervisor is True


@pytest.mark.parametrize("first", [NEW, OLD])
def test_two_models_in_one_machine(first: str) -> None:
    text = first.replace("CPU(s):", "CPUs:").rstrip() + (
        "\nModel name:  Genuine Intel(R) CPU 0000\nCPU family: 6\nModel: 173\nStepping: 0\n"
    )
    assert set(parse_lscpu(text).groups) == {EMR, EMR._replace(model=173, stepping=0)}


def test_mixed_sockets_have_no_count_of_their_own() -> None:
    text = OLD + OLD.replace("207", "173")
    assert parse_lscpu(text).groups == (EMR, EMR._replace(model=173))


@pytest.mark.parametrize("name", ["aarch64", "s390x", "ppc64le", "riscv64", "loongarch64"])
def test_other_architectures(name: str) -> None:
    reading = parse_lscpu(f"Architecture: {name}\nCPU(s): 4\nVendor ID: ARM\nModel: 1\n")
    assert (reading.architecture, reading.groups) == (name, ())


@pytest.mark.parametrize("name", ["amd64", "x86-64", "x86_64 (virtual)"])
def test_an_intel_cpu_is_x86_however_its_architecture_is_spelt(name: str) -> None:
    reading = parse_lscpu(NEW.replace("x86_64", name))
    assert (reading.architecture, len(reading.groups)) == ("x86", 1)


@pytest.mark.parametrize("value", ["300", "-", "0xcf", "unknown", ""])
def test_a_model_that_cannot_be_is_unknown(value: str) -> None:
    (only,) = parse_lscpu(NEW.replace("207", value)).groups
    assert only.model is None


def test_stepping_0_and_model_0() -> None:
    text = NEW.replace("207", "0").replace("Stepping:            2", "Stepping:            0")
    (only,) = parse_lscpu(text).groups
    assert (only.model, only.stepping) == (0, 0)


@pytest.mark.parametrize("text", ["", "\n", "garbage", "Architecture: x86_64\nCPU(s): 4\n"])
def test_what_names_no_processor_is_malformed(text: str) -> None:
    with pytest.raises(MalformedInputError):
        parse_lscpu(text)


def test_a_value_that_goes_on_without_end_is_refused() -> None:
    with pytest.raises(MalformedInputError, match="without end"):
        parse_lscpu("Vendor ID: x\nFlags: a\n" + " b\n" * 100_000)


@pytest.mark.parametrize("text", [NEW, OLD])
def test_recognised(text: str) -> None:
    assert looks_like_lscpu(text)


def test_cpuinfo_does_not_look_like_it() -> None:
    assert not looks_like_lscpu("processor : 0\nvendor_id : GenuineIntel\nmodel : 143\n")


Entry = dict[str, object]


def entry(field: str, data: str | None, *children: Entry) -> Entry:
    whole: Entry = {"field": field, "data": data}
    return whole | {"children": list(children)} if children else whole


LEAVES = (
    entry("CPU family:", "6"),
    entry("Model:", "207"),
    entry("Stepping:", "2"),
    entry("Flags:", "fpu movdir64b"),
)
FLAT = [
    entry("Architecture:", "x86_64"),
    entry("CPU(s):", "192"),
    entry("Vendor ID:", "GenuineIntel"),
    entry("Model name:", "INTEL(R) XEON(R) PLATINUM 8558"),
    *LEAVES,
]
NESTED = [
    *FLAT[:2],
    entry("Vendor ID:", "GenuineIntel", entry("Model name:", "INTEL(R) XEON(R)", *LEAVES)),
    entry("Vulnerabilities:", None, entry("Meltdown:", "Not affected")),
]


def dump(entries: list[Entry]) -> str:
    return json.dumps({"lscpu": entries})


@pytest.mark.parametrize("entries", [FLAT, NESTED], ids=["a pipe", "a terminal"])
def test_json(entries: list[Entry]) -> None:
    reading = parse_lscpu_json(dump(entries))
    assert reading.groups == (EMR.sized(192),)
    assert reading.flags.has("movdir64b") is True
    assert reading.flags.has("hypervisor") is False, "JSON that parses was not cut"


def test_json_of_two_models() -> None:
    second = entry("Model name:", "x", entry("CPU family:", "6"), entry("Model:", "173"))
    assert {g.model for g in parse_lscpu_json(dump([*NESTED, second])).groups} == {207, 173}


def test_json_of_another_architecture() -> None:
    reading = parse_lscpu_json(dump([entry("Architecture:", "aarch64")]))
    assert (reading.architecture, reading.groups) == ("aarch64", ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lscpu",
        "{",
        dump(FLAT)[:-9],
        "[]",
        "{}",
        '{"lscpu": {}}',
        '{"lscpu": [1]}',
        '{"lscpu": []}',
        '{"lscpu": [{"field": 1, "data": 2, "children": 3}]}',
        '{"lscpu": [{"field": "Model:", "data": "207"}]}',
        "[" * 100_000,
        '{"lscpu": ' + "9" * 5000 + "}",
    ],
    ids=range(13),
)
def test_json_that_is_none_of_lscpus_is_malformed(text: str) -> None:
    with pytest.raises(MalformedInputError):
        parse_lscpu_json(text)


@given(st.integers(0, len(NEW)), st.integers(0, 30), st.text(max_size=30))
def test_mangled_texts_raise_nothing_but_malformed(at: int, gone: int, put: str) -> None:
    text = NEW[:at] + put + NEW[at + gone :]
    looks_like_lscpu(text)
    try:
        parse_lscpu(text)
    except MalformedInputError as error:
        assert error.why  # noqa: PT017  (what is raised is the assertion)


@given(st.integers(0, len(NEW)))
def test_a_cut_anywhere_invents_nothing(at: int) -> None:
    try:
        reading = parse_lscpu(NEW[:at])
    except MalformedInputError:
        return
    assert reading.architecture == "x86"
    assert {g.model for g in reading.groups} <= {207, None}
    assert reading.flags.has("tdx_host_platform") is not False


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["field", "data", "children", "lscpu"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_raises_nothing_but_malformed(value: object) -> None:
    try:
        parse_lscpu_json(json.dumps({"lscpu": value}))
    except MalformedInputError as error:
        assert error.why  # noqa: PT017  (what is raised is the assertion)


@pytest.mark.parametrize(
    "line",
    [
        "Family: 6 Model: 143",
        "CPU family: 6 Model: 143",
        "Model name: Intel(R) Xeon(R) Model: 143",
        "Processor Family: 6",
        "        cpu family 6 model 143",
        "        Vendor ID  GenuineIntel",
        "Intel Model: 143",
    ],
)
def test_a_line_that_lscpu_does_not_print_is_a_gap(line: str) -> None:
    whole = NEW.rstrip("\n") + "\n"
    for number in (0, 1, whole.count("\n")):
        lines = whole.splitlines()
        lines.insert(number, line)
        assert parse_lscpu("\n".join(lines) + "\n").gaps
    assert not parse_lscpu(whole).gaps


@pytest.mark.parametrize(
    "more",
    [
        {"lscpu2": FLAT},
        {"field": "Model:", "data": "143"},
        {"cpus": [{"model": "143"}]},
        {"lscpu": [*FLAT, {"field": "Model:", "value": "143"}]},
        {"lscpu": [*FLAT, {"field": "L3:", "data": "x", "nested": [entry("Model:", "143")]}]},
        {"lscpu": [*FLAT, {"field": "L3:", "data": 143}]},
        {"lscpu": [*FLAT, {"field": "L3:", "data": "x", "children": {"Model:": "143"}}]},
        {"lscpu": [*FLAT, entry("Family: 6 Model:", "143")]},
    ],
    ids=range(8),
)
def test_json_that_lscpu_does_not_print_is_a_gap(more: dict[str, object]) -> None:
    assert parse_lscpu_json(json.dumps({"lscpu": FLAT} | more)).gaps
    assert not parse_lscpu_json(dump(FLAT)).gaps


def test_what_is_odd_in_another_architectures_listing_is_a_gap() -> None:
    arm = "Architecture: aarch64\nVendor ID: ARM\nModel name: Neoverse-N1\nModel: 1\n"
    assert not parse_lscpu(arm).gaps
    for odd in (NEW, "Family: 6 Model: 143\n", "vendor: genuineintel\n", "  Model: 143\n  Intel\n"):
        assert parse_lscpu(arm + odd).gaps


def test_another_architecture_with_intels_vendor_is_no_identity() -> None:
    reading = parse_lscpu(NEW.replace("x86_64", "aarch64").replace("207", "173"))
    assert [group.vendor for group in reading.groups] == [None]
    assert any("contradict" in note for note in reading.notes)
