"""Signs of an affected CPU: every notation of it, and the near ones that are none."""

from __future__ import annotations

import pytest

from tdxreclaim.facts.cpu import CpuGroup, encode_signature
from tdxreclaim.facts.formats.signs import find_signs, foreign, foreign_sign
from tdxreclaim.tables.cpus import INTEL, find_cpu
from tdxreclaim.tables.errata import ERRATA, FLAGS

AFFECTED = [vfm for each in ERRATA for vfm in each.affected]
SPR = CpuGroup(vendor=INTEL, family=6, model=0x8F)
EMR = CpuGroup(vendor=INTEL, family=6, model=0xCF)
GNR = CpuGroup(vendor=INTEL, family=6, model=0xAD)


@pytest.mark.parametrize("vfm", AFFECTED, ids=str)
@pytest.mark.parametrize(
    "notation",
    [
        "Family {f}, Model {m}",
        "Family {f} (0x{f:x}), Model {m} (0x{m:x}), Stepping 8",
        "Signature: Type 0, Family {f}, Model {m}, Stepping 8",
        "(fam: {f:02x}, model: {m:x}, stepping: 08)",
        "(family: 0x{f:x}, model: 0x{m:x}, stepping: 0x8)",
        "CPU family : {f}\nModel      : {m}",
        "model: {m} family: {f}",
        "family='{f}' model='{m}'",
        '"family": "{f}",\n "model": "{m}"',
        "cpu_family={f},cpu_model={m}",
        "<td>Family</td><td>{f}</td><td>Model</td><td>{m}</td>",
        "family: {f} model-id: 0x{m:X} ({m})",
        "PROCESSOR 0:{s:x} TIME 1",
        "sig=0x{s:x}, pf=0x10",
        "eax = {s:08X} ebx",
        "(raw {s:08x})",
        "version: {f}.{m}.8",
        "family:model:stepping 0x{f:x}:{m:x}:8 ({f}:{m}:8)",
        "({f}:{m}:8)",
        "intel-ucode/{f:02x}-{m:02x}-08",
        "GenuineIntel-{f:X}-{m:X}-8",
        "{f:02X}_{m:02X}H",
        "{f}/0x{m:x}",
        "Intel {f:02x}/{m:02x}",
        "\0".join("sig=0x{s:x}"),
    ],
)
def test_a_notation(notation: str, vfm: tuple[str, int, int]) -> None:
    _, family, model = vfm
    signature = encode_signature(family, model, 8)
    plain = notation.replace("\0", "").format(f=family, m=model, s=signature)
    text = "\0".join(plain) if "\0" in notation else plain
    for shown in (text, f"a line\n{text}\nanother", text.upper(), text.lower()):
        sign = foreign_sign(shown, [GNR])
        assert sign is not None
        assert sign.of == vfm
        assert not sign.by_name


@pytest.mark.parametrize("stepping", range(16))
def test_a_signature_of_any_stepping_and_as_dmidecode_writes_it(stepping: int) -> None:
    for vfm in AFFECTED:
        signature = encode_signature(vfm.family, vfm.model, stepping)
        assert foreign_sign(f"{signature:x}") is not None
        turned = " ".join(f"{byte:02X}" for byte in signature.to_bytes(4, "little"))
        assert foreign_sign(f"ID: {turned} FF FB EB BF") is not None


@pytest.mark.parametrize("vfm", AFFECTED, ids=str)
def test_its_name(vfm: tuple[str, int, int]) -> None:
    row = find_cpu(vfm)  # type: ignore[arg-type]
    assert row is not None
    for name in (row.codename, row.codename.replace(" ", ""), row.codename.replace(" ", "_")):
        (sign,) = find_signs(f"Model name: Intel Xeon Processor ({name})")
        assert sign.by_name
        assert sign.of == vfm
        assert not find_signs(name, names=lambda _line: False)


@pytest.mark.parametrize("flag", FLAGS)
def test_the_kernels_word(flag: str) -> None:
    sign = foreign_sign(f"kexec: Not allowed on platform with {flag} bug", [GNR])
    assert sign is not None
    assert flag in sign.describe()
    assert foreign_sign(flag, [GNR], flagged=True) is None


@pytest.mark.parametrize(
    "brand", ["Xeon(R) Platinum 8480+", "XEON(R) PLATINUM 8558", "Xeon Gold 6430"]
)
def test_a_number_of_its_series(brand: str) -> None:
    sign = foreign_sign(f"model name: Intel(R) {brand}", [GNR])
    assert sign is not None
    assert sign.by_name


@pytest.mark.parametrize(
    "text",
    [
        "Family 6, Model 173, Stepping 1",
        "(family: 0x6, model: 0xad, stepping: 0x1)",
        "Family 15, Model 143",
        "family: 6 " + "x" * 200 + " model: 143",
        "00:06:8f:12:34:56 and 00-06-8f-08-01-02",
        "RAX: 00000000000806f8 RBX: ffff8000806f8000",
        "[mem 0x00000000000806f8-0x00000000806f8fff]",
        "Intel(R) Xeon(R) Gold 6240 CPU @ 2.60GHz, Core(TM) i5-8400, Opteron 8431",
        "Linux version 6.18.143, 6.14.3",
        "16/143 done, 6-207",
        "",
    ],
)
def test_what_is_near_is_no_sign(text: str) -> None:
    assert find_signs(text) == ()


def test_the_own_cpu_is_no_foreign_sign() -> None:
    signs = find_signs("806f8 Sapphire Rapids")
    assert foreign(signs, [SPR]) is None
    assert foreign(signs, [GNR]) is not None
    # The kernel on Emerald Rapids calls its events those of Sapphire Rapids.
    assert foreign_sign("Sapphire Rapids events", [EMR]) is None


def test_the_line_is_told_far_into_a_text() -> None:
    text = "x" * 99 + "\n"
    far = text * 30_000 + "Family 6, Model 143\n"
    (sign,) = find_signs(far)
    assert sign.line == 30_001
    for size in range(1 << 20, (1 << 20) + 40, 3):
        assert find_signs(" " * (size - 20) + "Family 6, Model 143\n")
