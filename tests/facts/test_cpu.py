"""CPUID.01H:EAX, against Intel's rule written down a second time, in other terms."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tdxreclaim.facts.cpu import (
    FAMILY_MAX,
    MODEL_MAX,
    SIGNATURE_MAX,
    STEPPING_MAX,
    CpuGroup,
    Signature,
    decode_signature,
    encode_signature,
)


class Fields(NamedTuple):
    """The register cut up from a string of its bits, most significant first."""

    reserved_high: int
    extended_family: int
    extended_model: int
    reserved_low: int
    processor_type: int
    family: int
    model: int
    stepping: int


WIDTHS = Fields(4, 8, 4, 2, 2, 4, 4, 4)


def cut(eax: int) -> Fields:
    bits = iter(f"{eax:032b}")
    return Fields(*(int("".join(itertools.islice(bits, width)), 2) for width in WIDTHS))


def join(fields: Fields) -> int:
    return int(
        "".join(f"{value:0{width}b}" for value, width in zip(fields, WIDTHS, strict=True)), 2
    )


def sdm(fields: Fields) -> Signature:
    """Return what the manual's pseudocode displays (SDM 2A, CPUID, INPUT EAX = 01H)."""
    family = fields.extended_family + fields.family if fields.family == 15 else fields.family
    model = fields.model
    if fields.family in (6, 15):
        model = fields.extended_model * 16 + fields.model
    return Signature(family, model, fields.stepping)


signatures = st.integers(0, SIGNATURE_MAX)


def test_cutting_and_joining_are_each_others_inverse() -> None:
    assert sum(WIDTHS) == 32
    assert join(cut(0x000C06F2)) == 0x000C06F2


@given(signatures)
@example(0x000806F8)
@example(SIGNATURE_MAX)
def test_decodes_as_the_manual_says_except_where_linux_differs(eax: int) -> None:
    fields = cut(eax)
    expected = sdm(fields)
    if 7 <= fields.family <= 14:
        # Linux joins the extended model from family 6 on; Intel has made none of these.
        expected = expected._replace(model=fields.extended_model * 16 + fields.model)
    assert decode_signature(eax) == expected


def test_every_family_and_model_field() -> None:
    differing = set()
    every_family = itertools.product(range(256), (0, 9), range(16), (0, 15))
    every_model = itertools.product((0, 3, 255), range(16), range(16), range(16))
    for extended_family, extended_model, family, model in (*every_family, *every_model):
        fields = Fields(0, extended_family, extended_model, 0, 0, family, model, 5)
        decoded, expected = decode_signature(join(fields)), sdm(fields)
        if decoded != expected:
            assert (decoded.family, decoded.stepping) == (expected.family, expected.stepping)
            assert decoded.model == extended_model * 16 + model
            differing.add(family)
    assert differing == set(range(7, 15))


@given(signatures)
def test_type_and_reserved_bits_change_nothing(eax: int) -> None:
    bare = cut(eax)._replace(reserved_high=0, reserved_low=0, processor_type=0)
    assert decode_signature(eax) == decode_signature(join(bare))


@given(signatures)
def test_every_signature_is_in_range(eax: int) -> None:
    family, model, stepping = decode_signature(eax)
    assert 0 <= family <= FAMILY_MAX == 270
    assert 0 <= model <= MODEL_MAX == 255
    assert 0 <= stepping <= STEPPING_MAX == 15


def test_round_trip_of_every_family_and_model() -> None:
    for family in range(271):
        for model in range(256 if family >= 6 else 16):
            for stepping in (0, 1, 8, 15):
                eax = encode_signature(family, model, stepping)
                assert decode_signature(eax) == (family, model, stepping)


@given(signatures)
def test_encoding_what_was_decoded_keeps_what_counts(eax: int) -> None:
    again = encode_signature(*decode_signature(eax))
    assert decode_signature(again) == decode_signature(eax)
    assert again & ~eax == 0, "no bit is set that was not there"


@pytest.mark.parametrize(
    ("eax", "display"),
    [
        pytest.param(0x000806F8, (6, 0x8F, 8), id="SPR"),
        pytest.param(0x000C06F2, (6, 0xCF, 2), id="EMR"),
        pytest.param(0x000A06D1, (6, 0xAD, 1), id="GNR"),
        pytest.param(0x00400F10, (19, 0x01, 0), id="DMR"),
        pytest.param(0x00A00F11, (25, 0x01, 1), id="Milan"),
        pytest.param(0x000307B0, (7, 0x3B, 0), id="Zhaoxin, where Linux and the manual differ"),
        pytest.param(0x00000000, (0, 0, 0), id="zero"),
        pytest.param(0xFFFFFFFF, (270, 255, 15), id="ones"),
    ],
)
def test_known_signatures(eax: int, display: tuple[int, int, int]) -> None:
    assert decode_signature(eax) == display


@pytest.mark.parametrize(
    ("family", "model", "stepping"),
    [(271, 0, 0), (-1, 0, 0), (6, 256, 0), (6, -1, 0), (6, 0, 16), (6, 0, -1), (5, 16, 0)],
)
def test_what_no_signature_says_is_refused(family: int, model: int, stepping: int) -> None:
    with pytest.raises(ValueError, match="no signature"):
        encode_signature(family, model, stepping)


@pytest.mark.parametrize(
    ("group", "signature"),
    [
        (CpuGroup(vendor="GenuineIntel", family=6, model=0x8F, stepping=0), 0x806F0),
        (CpuGroup(vendor="GenuineIntel", family=0, model=0, stepping=0), 0),
        (CpuGroup(vendor="GenuineIntel", family=6, model=0x8F, stepping=None), None),
        (CpuGroup(vendor="GenuineIntel", family=5, model=0x8F, stepping=1), None),
    ],
)
def test_a_group_rebuilds_its_signature_only_if_it_is_whole(
    group: CpuGroup, signature: int | None
) -> None:
    assert group.signature == signature
