"""/proc/cpuinfo: a census that believes nothing that is not there whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.cpu import CpuGroup
from tdxreclaim.facts.formats.cpuinfo import looks_like_cpuinfo, parse_cpuinfo
from tdxreclaim.facts.identity import describe

if TYPE_CHECKING:
    import random

FLAGS = "fpu vme movdir64b tdx_host_platform"
BUGS = "spectre_v1 tdx_pw_mce"


def block(number: int = 0, /, **changed: str | None) -> str:
    """Return a processor as Linux prints it; a key changed to ``None`` is left out."""
    fields: dict[str, str | None] = {
        "processor": str(number),
        "vendor_id": "GenuineIntel",
        "cpu family": "6",
        "model": "143",
        "model name": "Intel(R) Xeon(R) Platinum 8480+",
        "stepping": "8",
        "microcode": "0x2b000181",
        "cpu MHz": f"{2000 + number}.000",
        "flags": FLAGS,
        "vmx flags": "vnmi ept",
        "bugs": BUGS,
        "power management": "",
    }
    fields.update(changed)
    return (
        "".join(f"{key}\t: {value}\n" for key, value in fields.items() if value is not None) + "\n"
    )


def group(model: int | None = 143, size: int = 1, /, **changed: object) -> CpuGroup:
    whole = CpuGroup(
        vendor="GenuineIntel", family=6, model=model, stepping=8, microcode=0x2B000181, size=size
    )
    return whole._replace(**changed)


def test_one_processor() -> None:
    reading = parse_cpuinfo(block())
    assert reading.architecture == "x86"
    assert reading.groups == (group(),)
    assert reading.flags.has("movdir64b") is True
    assert reading.flags.has("hypervisor") is False
    assert reading.bugs.has("tdx_pw_mce") is True
    assert reading.notes == ()


def test_vmx_flags_are_not_flags() -> None:
    assert parse_cpuinfo(block()).flags.has("ept") is False


def test_mixed_sockets_are_counted_apart() -> None:
    text = block(0) + block(1, model="173", stepping="1") + block(2)
    assert parse_cpuinfo(text).groups == (group(size=2), group(173, 1, stepping=1))


def test_microcode_that_differs_makes_a_group() -> None:
    text = block(0) + block(1, microcode="0x2b000190")
    assert {g.microcode for g in parse_cpuinfo(text).groups} == {0x2B000181, 0x2B000190}


def test_zero_is_a_value() -> None:
    text = block(**{"cpu family": "0"}, model="0", stepping="0", microcode="0x0")
    assert parse_cpuinfo(text).groups == (
        CpuGroup(vendor="GenuineIntel", family=0, model=0, stepping=0, microcode=0, size=1),
    )


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_foreign_line_ends_change_nothing(newline: str) -> None:
    text = block(0) + block(1)
    assert parse_cpuinfo(text.replace("\n", newline)) == parse_cpuinfo(text)


def test_no_final_newline_after_a_line_that_does_not_count() -> None:
    text = block(0) + block(1).rstrip()
    assert parse_cpuinfo(text) == parse_cpuinfo(block(0) + block(1))


@pytest.mark.parametrize("digits", ["1", "14", "143"])
def test_a_model_cut_short_is_not_believed(digits: str) -> None:
    text = block(0) + block(1).partition("model\t")[0] + f"model\t: {digits}"
    reading = parse_cpuinfo(text)
    assert {g.model for g in reading.groups} == {143, None}
    assert any("model" in note for note in reading.notes)


def test_a_number_of_which_nothing_but_the_key_arrived_is_unknown() -> None:
    reading = parse_cpuinfo(block(0) + block(1).partition("stepping")[0] + "step")
    assert [g.stepping for g in reading.groups] == [8, None]
    assert any("key is cut off" in note for note in reading.notes)


@pytest.mark.parametrize(
    "tail", ["processor\t: 1", "processor\t: 1\n", "processor\t: 1\nvendor_id\t: Genui"]
)
def test_a_processor_that_is_only_begun_counts_as_unknown(tail: str) -> None:
    reading = parse_cpuinfo(block(0, model="173") + tail)
    assert sum(g.size or 0 for g in reading.groups) == 2
    assert not all(g.identified for g in reading.groups)
    assert reading.flags.has("hypervisor") is None


@pytest.mark.parametrize(
    ("tail", "word"), [("flags\t: fpu tdx_gue", "tdx_guest"), ("flags\t: fpu", "hypervisor")]
)
def test_flags_cut_short_say_nothing_of_what_they_lack(tail: str, word: str) -> None:
    reading = parse_cpuinfo(block().partition("flags")[0] + tail)
    assert reading.flags.has(word) is None
    assert reading.flags.has(tail.rpartition(" ")[2]) is None, "the last word may be half of one"


def test_a_word_cut_short_is_not_believed() -> None:
    # tdx_pw_mce may be the beginning of a longer name.
    reading = parse_cpuinfo(block().partition("bugs")[0] + f"bugs\t: {BUGS}")
    assert reading.bugs.has("tdx_pw_mce") is None
    assert reading.bugs.has("spectre_v1") is True


@pytest.mark.parametrize("key", ["flags", "bugs"])
def test_a_line_missing_from_one_processor_makes_no_a_dont_know(key: str) -> None:
    reading = parse_cpuinfo(block(0) + block(1, **{key: None}))
    words = reading.flags if key == "flags" else reading.bugs
    assert words.has("nosuch") is None
    assert words.has("fpu" if key == "flags" else "tdx_pw_mce") is True


def test_an_empty_bugs_line_is_no_list_of_bugs() -> None:
    assert parse_cpuinfo(block(bugs="spectre_v1")).bugs.has("tdx_pw_mce") is False
    assert parse_cpuinfo(block(bugs="")).bugs.has("tdx_pw_mce") is None


def test_processors_that_disagree_make_no_guest() -> None:
    text = block(0, flags=FLAGS + " hypervisor") + block(1)
    reading = parse_cpuinfo(text)
    assert reading.flags.has("hypervisor") is True
    assert reading.flags.all_have("hypervisor") is None
    assert reading.flags.all_have("fpu") is True
    assert reading.flags.all_have("nosuch") is False


def test_a_guest_whose_last_flags_are_cut_off_is_still_a_guest() -> None:
    text = (
        block(0, flags=FLAGS + " hypervisor") + block(1).partition("flags")[0] + "flags\t: fpu vm"
    )
    assert parse_cpuinfo(text).flags.all_have("hypervisor") is True
    assert parse_cpuinfo(text).flags.all_have("nosuch") is None


def test_flags_cut_off_in_the_only_processor_dispute_nothing() -> None:
    text = block().partition("flags")[0] + "flags\t: fpu hypervisor vm"
    assert parse_cpuinfo(text).flags.all_have("hypervisor") is True


def test_numbering_with_holes() -> None:
    text = "".join(block(number) for number in (0, 2, 7, 511))
    assert parse_cpuinfo(text).groups == (group(size=4),)


def test_512_processors() -> None:
    text = "".join(block(number) for number in range(511)) + block(511, model="207")
    assert parse_cpuinfo(text).groups == (group(size=511), group(207))


def test_processors_that_lost_the_blank_lines_between_them() -> None:
    text = (block(0) + block(1, model="173")).replace("\n\n", "\n")
    assert parse_cpuinfo(text).groups == parse_cpuinfo(block(0) + block(1, model="173")).groups


def test_grepped_lines() -> None:
    text = "vendor_id : GenuineIntel\ncpu family : 6\nmodel : 143\n" * 3
    assert parse_cpuinfo(text).groups == (
        CpuGroup(vendor="GenuineIntel", family=6, model=143, size=3),
    )


@pytest.mark.parametrize("order", [0, 1])
def test_another_architectures_text_beside_it_hides_no_intel_cpu(order: int) -> None:
    # Two captures in one file: the x86 one counts.
    other = "vendor_id       : IBM/S390\n# processors    : 4\nbogomips per cpu: 3033.00\n\n"
    reading = parse_cpuinfo("".join((block(), other) if order else (other, block())))
    assert (reading.architecture, group() in reading.groups) == ("x86", True)


OTHERS = {
    "arm": "Processor\t: ARMv7 Processor rev 4 (v7l)\nprocessor\t: 0\nBogoMIPS\t: 1694.10\n\n"
    "Features\t: swp half\nCPU implementer\t: 0x41\nCPU architecture: 7\n",
    "arm64": "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n"
    "CPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n\n",
    "s390": "vendor_id       : IBM/S390\n# processors    : 4\nbogomips per cpu: 3033.00\n"
    "features\t: esan3 zarch\nprocessor 0: version = 00,  identification = 0133E8,  machine = 2964\n",
    "powerpc": "processor\t: 0\ncpu\t\t: POWER9, altivec supported\nclock\t\t: 3800.000000MHz\n"
    "revision\t: 2.2 (pvr 004e 1202)\n\ntimebase\t: 512000000\nplatform\t: PowerNV\n"
    "model\t\t: 8335-GTH\nmachine\t\t: PowerNV 8335-GTH\n",
    "riscv": "processor\t: 0\nhart\t\t: 2\nisa\t\t: rv64imafdc\nmmu\t\t: sv39\nuarch\t\t: sifive,u74\n",
    "mips": "system type\t\t: Atheros AR9330 rev 1\nprocessor\t\t: 0\ncpu model\t\t: MIPS 24Kc V7.4\n",
    "loongarch": "system type\t\t: generic-loongson-machine\nprocessor\t\t: 0\npackage\t\t\t: 0\n"
    "CPU Family\t\t: Loongson-64bit\nModel Name\t\t: Loongson-3A5000\n",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures(name: str) -> None:
    text = OTHERS[name]
    reading = parse_cpuinfo(text)
    assert looks_like_cpuinfo(text)
    assert (reading.architecture, reading.groups) == (name.removesuffix("64"), ())
    assert reading.flags.has("hypervisor") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stepping", "unknown"),
        ("stepping", "16"),
        ("stepping", "-1"),
        ("model", "300"),
        ("model", "0x8f"),
        ("model", "143.0"),
        ("model", "١٤٣"),
        ("model", "9" * 5000),
        ("cpu family", "271"),
        ("cpu family", ""),
        ("microcode", "0x" + "f" * 5000),
        ("microcode", "-0x1"),
        ("microcode", "0x1_0"),
        ("microcode", "unknown"),
        ("vendor_id", ""),
    ],
)
def test_a_value_that_cannot_be_is_unknown(key: str, value: str) -> None:
    (only,) = parse_cpuinfo(block(**{key: value})).groups
    field = {"cpu family": "family", "vendor_id": "vendor"}.get(key, key)
    assert only == group(**{field: None})


def test_a_missing_identity_is_noted() -> None:
    reading = parse_cpuinfo(block(0) + block(1, model="300"))
    assert any(note.startswith("1 of 2 processors") for note in reading.notes)


def test_bytes_that_are_not_utf8_in_a_model_name() -> None:
    text = block().encode().replace(b"Platinum", b"\xff\xfe").decode("utf-8", "replace")
    assert parse_cpuinfo(text).groups == (group(),)


@pytest.mark.parametrize(
    "strange", ["\x1b[2Jmodel\t: 1", "a\x0bmodel\t: 1", "a\x85model\t: 1", "a\u2028model : 1"]
)
def test_a_model_name_begins_no_line_of_its_own(strange: str) -> None:
    assert parse_cpuinfo(block(**{"model name": strange})).groups == (group(),)


def test_an_escape_sequence_in_the_vendor_makes_another_vendor() -> None:
    (only,) = parse_cpuinfo(block(vendor_id="Genuine\x1b[31mIntel")).groups
    assert only.vendor != "GenuineIntel"


@pytest.mark.parametrize(
    "text", ["", "\n\n\n", "garbage", "a: b\nc: d\n", "processor : 0\n", "\0" * 100]
)
def test_what_describes_no_processor_is_malformed(text: str) -> None:
    with pytest.raises(MalformedInputError):
        parse_cpuinfo(text)


def test_more_processors_than_linux_counts_are_no_host() -> None:
    with pytest.raises(MalformedInputError, match="processors"):
        parse_cpuinfo("model : 1\n\n" * 70_000)


@pytest.mark.parametrize("text", ["[    0.000000] Linux version 6.18\n", "Dear all: hello\n", "{}"])
def test_other_texts_do_not_look_like_it(text: str) -> None:
    assert not looks_like_cpuinfo(text)


models = st.sampled_from(["143", "207", "173", "0", "unknown"])


@given(st.lists(models, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_processors_does_not_matter(chosen: list[str], chance: random.Random) -> None:
    blocks = [block(number, model=model) for number, model in enumerate(chosen)]
    straight = parse_cpuinfo("".join(blocks))
    chance.shuffle(blocks)
    shuffled = parse_cpuinfo("".join(blocks))
    assert (shuffled.groups, shuffled.flags) == (straight.groups, straight.flags)
    assert sum(g.size or 0 for g in straight.groups) == len(chosen)


TWO = block(0) + block(1, model="173")


@given(st.integers(0, len(TWO)))
def test_a_cut_anywhere_invents_nothing(at: int) -> None:
    try:
        reading = parse_cpuinfo(TWO[:at])
    except MalformedInputError:
        return
    assert {g.model for g in reading.groups} <= {143, 173, None}
    assert {g.vendor for g in reading.groups} <= {"GenuineIntel", None}
    for words, word in ((reading.flags, "movdir64b"), (reading.bugs, "tdx_pw_mce")):
        assert words.has(word) is not False, "both processors have it"


@given(
    st.integers(0, len(TWO)),
    st.integers(0, 40),
    st.text(st.sampled_from("\n\r:\t 0149xabc\x00\x1b\ufffd") | st.characters(), max_size=40),
)
@example(0, 0, "vendor_id : \n")
@example(0, 40, ":" * 40)
def test_mangled_texts_raise_nothing_but_malformed(at: int, gone: int, put: str) -> None:
    text = TWO[:at] + put + TWO[at + gone :]
    looks_like_cpuinfo(text)
    try:
        reading = parse_cpuinfo(text)
    except MalformedInputError:
        return
    assert describe(reading)


@given(st.text(max_size=200))
def test_any_text_raises_nothing_but_malformed(text: str) -> None:
    try:
        parse_cpuinfo(text)
    except MalformedInputError as error:
        assert error.what  # noqa: PT017  (what is raised is the assertion)


def test_a_processor_of_lines_without_number_is_refused() -> None:
    text = block(0).rstrip("\n") + "\n" + "".join(f"key{n}\t: 1\n" for n in range(300))
    with pytest.raises(MalformedInputError, match="more than 256 lines"):
        parse_cpuinfo(text)


DRESSES = ("> ", "12:", "+", "| ", "\x1b[32m", "node1: ", '"')


@pytest.mark.parametrize("dress", DRESSES)
def test_a_processor_in_another_dress_is_a_gap(dress: str) -> None:
    dressed = "".join(f"{dress}{line}\n" for line in block(1).splitlines())
    assert not parse_cpuinfo(block(0)).gaps
    assert parse_cpuinfo(block(0) + dressed).gaps


@pytest.mark.parametrize("at", [1, 4, 6, 9])
def test_an_end_inside_the_word_processor_is_a_gap(at: int) -> None:
    assert parse_cpuinfo(block(0) + "processor"[:at]).gaps


def test_a_prompt_and_a_comment_are_no_gap() -> None:
    text = "user@host:~$ cat /proc/cpuinfo\n# taken today\n" + block(0)
    assert not parse_cpuinfo(text).gaps


BLOCK = (
    "processor\t: {n}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: {model}\n"
    "stepping\t: 1\ncore id\t\t: {n}\nflags\t\t: fpu movdir64b\nbugs\t\t: spectre_v1\n"
    "bogomips\t: 4000.00\n\n"
)


@pytest.mark.parametrize("at", [0, 1, 3, 511])
def test_a_processor_among_many_alike_is_seen_wherever_it_stands(at: int) -> None:
    blocks = [BLOCK.format(n=n, model=173) for n in range(512)]
    blocks[at] = BLOCK.format(n=at, model=143)
    sizes = {group.model: group.size for group in parse_cpuinfo("".join(blocks)).groups}
    assert sizes == {173: 511, 143: 1}


def test_lines_of_many_alike_are_counted() -> None:
    text = "".join(BLOCK.format(n=n, model=173) for n in range(100))
    gaps = parse_cpuinfo(f"{text}processor : x\n\n").gaps
    assert f"line {text.count(chr(10)) + 1}" in {gap.place for gap in gaps}
    again = parse_cpuinfo(text + BLOCK.format(n=5, model=173)).gaps
    assert any("processor 5 again" in gap.why for gap in again)


def test_what_nothing_was_read_from_is_kept_once() -> None:
    reading = parse_cpuinfo(block(0) + "# a note\nother : 1\n" + block(1))
    assert reading.odd.split("\n") == [*("vnmi ept", "# a note", "other : 1")]


def test_more_different_lines_than_a_host_has_are_no_host() -> None:
    names = "".join(f"# {number:0>200}\n" for number in range(6000))
    with pytest.raises(MalformedInputError, match="more than 1 MiB of lines"):
        parse_cpuinfo(block(0) + names)
    assert not parse_cpuinfo(block(0) + names[: 1 << 19] + "\n").gaps


def test_more_kinds_than_a_host_has_are_no_host() -> None:
    kinds = "".join(block(each, microcode=f"{each:#x}") for each in range(1100))
    with pytest.raises(MalformedInputError, match="more than 1024 kinds"):
        parse_cpuinfo(kinds)


def test_more_words_than_a_kernel_knows_are_no_host() -> None:
    with pytest.raises(MalformedInputError, match="more than 16384 flags"):
        parse_cpuinfo(
            "".join(
                block(each, flags=" ".join(f"w{each}_{word}" for word in range(4000)))
                for each in range(5)
            )
        )
