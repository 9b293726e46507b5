"""Release, symbols, configuration and the small files under /sys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.facts.kernel import (
    TDX_SYMBOLS,
    Symbol,
    Symbols,
    parse_capacity,
    parse_config,
    parse_release,
    parse_switch,
    parse_symbols,
    select_symbols,
    whole_heading,
)


def found(text: str) -> tuple[Symbol, ...] | None:
    symbols = parse_symbols(text)
    return None if symbols is None else symbols.found


FILLER = "0000000000000000 A fixed_percpu_data\n0000000000000000 T _stext\n"


@pytest.mark.parametrize("address", ["0000000000000000", "ffffffff81234560", "c1234560"])
def test_addresses_do_not_matter(address: str) -> None:
    text = f"{FILLER}{address} t tdx_quirk_reset_page\n{address} T tdx_quirk_reset_paddr\n"
    assert found(text) == (
        Symbol("t", "tdx_quirk_reset_page", None),
        Symbol("T", "tdx_quirk_reset_paddr", None),
    )


@pytest.mark.parametrize(
    "suffix", ["", ".isra.0", ".constprop.0", ".part.0.isra.0", ".cold", ".llvm.1"]
)
def test_what_a_compiler_hangs_on_a_name(suffix: str) -> None:
    text = f"{FILLER}0000000000000000 t tdx_clear_page{suffix}\t[kvm_intel]\n"
    assert found(text) == (Symbol("t", "tdx_clear_page", "kvm_intel"),)


@pytest.mark.parametrize(
    "name",
    [
        "tdx_clear_page_range",
        "my_tdx_clear_page",
        "__pfx_tdx_clear_page",
        "__ksymtab_tdx_quirk_reset_page",
        "tdx_quirk_reset_pages",
        "tdx_quirk_reset",
        "TDX_CLEAR_PAGE",
    ],
)
def test_lookalikes(name: str) -> None:
    assert found(f"{FILLER}0000000000000000 t {name}\n") == ()


@pytest.mark.parametrize(
    "line",
    [
        "0000000000000000 t tdx_clear_page",
        "0000000000000000 t tdx_clear_page extra\n",
        "0000000000000000 tt tdx_clear_page\n",
        "0000000000000000  t tdx_clear_page\n",
        "# 0000000000000000 t tdx_clear_page\n",
        "zzzz t tdx_clear_page\n",
        "t tdx_clear_page\n",
        "0 t tdx_clear_page" + "x" * 5000,
    ],
    ids=["cut off", "extra", "type", "space", "comment", "address", "no address", "long"],
)
def test_a_line_that_is_none_of_the_kernels(line: str) -> None:
    assert found(FILLER + line) == ()


def test_the_same_symbol_twice_counts_once_and_modules_apart() -> None:
    line = "0000000000000000 t tdx_clear_page"
    text = f"{FILLER}{line}\t[kvm_intel]\n{line}\t[kvm_intel]\n{line}\t[other]\n{line}\n"
    assert set(found(text) or ()) == {
        Symbol("t", "tdx_clear_page", module) for module in ("kvm_intel", "other", None)
    }


def test_foreign_line_ends() -> None:
    text = f"{FILLER}0000000000000000 t tdx_clear_page\t[kvm_intel]\n0000000000000000 t tdx_quirk_reset_page\n"
    assert parse_symbols(text.replace("\n", "\r\n")) == parse_symbols(text)
    assert len(found(text) or ()) == 2


def test_none_of_them_is_an_answer_and_no_kallsyms_is_none() -> None:
    assert found(FILLER) == ()
    assert parse_symbols("") is None
    assert parse_symbols("kptr_restrict forbids it\n") is None


def test_a_line_of_megabytes_is_not_gone_over_for_each_hit() -> None:
    # A test that hangs is how this fails.
    assert found(FILLER + " tdx_clear_page" * 200_000) == ()


@given(
    st.lists(st.tuples(st.sampled_from("tTdDbBrW"), st.sampled_from([*TDX_SYMBOLS, "x", "y.cold"])))
)
def test_symbols_among_others(lines: list[tuple[str, str]]) -> None:
    text = FILLER + "".join(f"0000000000000000 {kind} {name}\n" for kind, name in lines)
    expected = {Symbol(kind, name, None) for kind, name in lines if name in TDX_SYMBOLS}
    assert set(found(text) or ()) == expected


@pytest.mark.parametrize(
    ("path", "text", "release"),
    [
        ("proc/sys/kernel/osrelease", "6.18.2-arch1-1\n", "6.18.2-arch1-1"),
        ("proc/sys/kernel/osrelease", "\n", None),
        (
            "proc/version",
            "Linux version 6.8.0-45-generic (buildd@x) (gcc) #45\n",
            "6.8.0-45-generic",
        ),
        ("proc/version", "Linux version", None),
        ("proc/version", "Darwin Kernel Version 23\n", None),
        ("proc/version", "", None),
        ("sos_commands/kernel/uname_-a", "Linux host 6.16.0 #1 SMP x86_64 GNU/Linux\n", "6.16.0"),
        ("sos_commands/kernel/uname_-a", "Linux host", None),
        ("sos_commands/kernel/uname_-a", "FreeBSD host 14.1-RELEASE", None),
    ],
)
def test_release(path: str, text: str, release: str | None) -> None:
    assert parse_release(path, text) == release


MENU_END = "# end of Processor type and features\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("CONFIG_X86=y\nCONFIG_INTEL_TDX_HOST=y\n", True),
        ("CONFIG_X86=y\r\nCONFIG_INTEL_TDX_HOST=y\r\n", True),
        ("CONFIG_X86=y\n# CONFIG_INTEL_TDX_HOST is not set\n", False),
        ("CONFIG_X86=y\n" + MENU_END, False),
        pytest.param("CONFIG_X86=y\n", None, id="cut off before the place"),
        pytest.param("CONFIG_X86=y\nCONFIG_INTEL_TDX_HOST=", None, id="cut off in the line"),
        pytest.param("CONFIG_INTEL_TDX_HOST=yes\n" + MENU_END, False, id="lookalike value"),
        pytest.param("#CONFIG_INTEL_TDX_HOST=y\n", None, id="comment"),
        ("", None),
        ("<html>\n", None),
    ],
)
def test_config(text: str, value: bool | None) -> None:
    assert parse_config(text) is value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sev 10\ntdx 63\n", 63),
        ("sev 10\r\ntdx 63\r\n", 63),
        ("tdx 0\n", 0),
        ("sev 10\n", 0),
        ("sev_tdx 5\n", 0),
        ("", 0),
        ("tdx\n", None),
        ("tdx max\n", None),
        ("tdx -1\n", None),
        ("tdx 99999999999\n", None),
        ("<html> no such file </html>\n", None),
    ],
)
def test_capacity(text: str, value: int | None) -> None:
    assert parse_capacity(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Y\n", True),
        ("N\n", False),
        ("1", True),
        ("0", False),
        ("", None),
        ("y", None),
        ("YN", None),
    ],
)
def test_switch(text: str, value: bool | None) -> None:
    assert parse_switch(text) is value


def whole(*symbols: str) -> str:
    lines = [f"0000000000000000 t f{number}" for number in range(20_000)]
    named = [f"0000000000000000 {symbol}" for symbol in ("T _stext", *symbols, "T _einittext")]
    return "\n".join([named[0], *lines, *named[1:], ""])


def test_a_list_is_whole_from_the_code_to_the_init_code_and_to_its_last_newline() -> None:
    text = whole()
    assert parse_symbols(text) == Symbols((), seamcalls=False, whole=True)
    for part in (
        text[:-1],
        text.replace("T _einittext", "T other"),
        text.replace("T _stext", "T other"),
        text[: len(text) // 2] + "T _einittext\n",
        FILLER,
    ):
        symbols = parse_symbols(part)
        assert symbols is not None
        assert not symbols.whole


@pytest.mark.parametrize(
    ("symbol", "seamcalls"),
    [
        ("T __seamcall", True),
        ("T tdh_vp_enter", True),
        ("t tdh_phymem_page_wbinvd_hkid.cold", True),
        ("t handle_tdx_instruction", False),
        ("T tdx_hypercall", False),
        ("T __tdh_x", False),
        ("r __ksymtab___seamcall", False),
    ],
)
def test_seamcalls_are_seen_whatever_their_leaf(symbol: str, seamcalls: bool) -> None:
    symbols = parse_symbols(whole(symbol))
    assert symbols is not None
    assert symbols.seamcalls is seamcalls


def test_a_filtered_list_says_that_it_was_whole() -> None:
    text = whole("T __seamcall")
    kept = f"{whole_heading(text)}0000000000000000 T _stext\n0000000000000000 T __seamcall\n"
    assert parse_symbols(kept) == parse_symbols(text)
    assert whole_heading(kept) == whole_heading(text)
    assert whole_heading(FILLER) == ""


_NAMES = (*TDX_SYMBOLS, "tdh_vp_enter", "tdx_other", "__seamcall_ret", "__set_bit", "x", "_stext")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["0000000000000000 ", "ffffffff81000000 ", "# ", ""]),
            st.sampled_from(["t ", "T ", "d ", "tt "]),
            st.sampled_from(_NAMES),
            st.sampled_from(
                ["\n", "\t[kvm_intel]\n", ".isra.0\n", "\r\n", " tdx_clear_page\n", ""]
            ),
        )
    ),
    st.booleans(),
    st.integers(1, 1 << 18),
)
def test_what_is_selected_says_the_same(
    lines: list[tuple[str, ...]], is_whole: bool, size: int
) -> None:
    text = "".join("".join(line) for line in lines)
    if is_whole:
        text = whole().replace("T _einittext", f"T _einittext\n{text}".rstrip("\n"))
    data = text.encode()
    size = max(size, len(data) >> 8)
    selected = select_symbols(data[at : at + size] for at in range(0, len(data), size))
    assert parse_symbols(selected) == parse_symbols(text)
    assert whole_heading(selected) == whole_heading(text)
    assert len(selected) <= len(text) + 100


def test_of_a_whole_list_a_few_lines_are_kept() -> None:
    text = whole("T __seamcall", "t tdx_clear_page", "T other")
    heading, first, *kept = select_symbols([text.encode()]).splitlines()
    assert heading == whole_heading(text).rstrip()
    assert first.endswith("T _stext")
    names = [line.split()[-1] for line in kept]
    assert names == ["__seamcall", "tdx_clear_page", "_einittext"]


def test_what_is_no_list_stays_none() -> None:
    assert select_symbols([]) == ""
    assert parse_symbols(select_symbols([b"kptr_restrict ", b"forbids it"])) is None
    assert len(select_symbols([b"x" * 100_000])) < 2_000
