"""Parts of kernels, made by hand with just what is looked at: as they should be, and damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import resource
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jsonschema
import pytest

from tdxreclaim.errors import HostReadError, MalformedInputError, TdxReclaimError
from tdxreclaim.facts.collect import collect
from tdxreclaim.facts.evidence import Origin
from tdxreclaim.facts.host import HostFacts, read_host
from tdxreclaim.facts.images.elf import parse_build_id
from tdxreclaim.facts.images.installed import InstalledKernels
from tdxreclaim.facts.images.open import read_images
from tdxreclaim.facts.images.parts import Configuration, Module, Text, fits
from tdxreclaim.facts.places import KERNEL_FILES
from tdxreclaim.facts.sources.base import Files
from tdxreclaim.policy.decide import decide
from tdxreclaim.policy.image import judge_images
from tdxreclaim.report.check import json as check_json
from tdxreclaim.report.check import text as check_text
from tdxreclaim.report.check.report import Report
from tdxreclaim.report.schemas import read_schema
from tdxreclaim.tables.errata import ANY
from tdxreclaim.tables.kernels import Clearing
from tdxreclaim.tables.sources import Certainty

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Ran, RunTool

    from tdxreclaim.policy.image import ImageFinding

MOVDIR64B = b"\x66\x0f\x38\xf8\x02"
KERNEL_TEXT = b"\0Linux version 6.18.5-made (nobody) #1\0"
UPSTREAM = ("tdh_mem_page_remove", "tdh_phymem_page_reclaim", "tdx_cpu_enable")


class Section(NamedTuple):
    kind: int
    flags: int
    data: bytes
    link: int = 0
    entry: int = 0


def elf(  # noqa: PLR0913
    *,
    imports: tuple[str, ...] = ("printk",),
    defined: tuple[str, ...] = ("vmx_init",),
    code: bytes = b"\x90" * 64,
    vermagic: str | None = "6.18.5-made SMP preempt mod_unload ",
    name: str = "kvm_intel",
    kind: int = 1,
    machine: int = 62,
    text: bytes = b"",
) -> bytes:
    names, symbols = b"\0", bytes(24)
    for index, symbol in enumerate((*imports, *defined)):
        where = 1 if index >= len(imports) else 0
        symbols += struct.pack("<IBBHQQ", len(names), 0x12, 0, where, 0, 0)
        names += symbol.encode() + b"\0"
    last = len(symbols) // 24 - 1
    modinfo = b"" if vermagic is None else f"name={name}\0vermagic={vermagic}\0".encode()
    note = struct.pack("<III", 4, 4, 3) + b"GNU\0" + bytes.fromhex("0badcafe")
    sections = [
        Section(0, 0, b""),
        Section(1, 6, code),
        Section(1, 2, modinfo),
        Section(7, 2, note),
        Section(1, 2, text),
        Section(2, 0, symbols, link=6, entry=24),
        Section(3, 0, names),
        Section(4, 0, struct.pack("<QQq", 0, last << 32 | 2, -4), link=5, entry=24),
    ]
    body, headers = b"", b""
    for section in sections:
        at = 64 + len(body)
        size = len(section.data)
        headers += struct.pack(
            "<IIQQQQIIQQ", 0, section.kind, section.flags, 0, at, size, section.link, 0, 1, 0
        )
        body += section.data
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(kind, machine, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, len(sections), 0),
    )
    return header + body + headers


class Shape(NamedTuple):
    """The module of a generation of the reclaim code, and what it does with pages."""

    clearing: str
    data: bytes


SHAPES = {
    "clears itself": Shape(
        "clears-always",
        elf(imports=UPSTREAM, defined=("tdx_vm_destroy",), code=b"\x90" * 99 + MOVDIR64B + b"\xc3"),
    ),
    "page": Shape(
        "clears-on-erratum",
        elf(imports=(*UPSTREAM, "tdx_quirk_reset_page"), defined=("tdx_vm_destroy",)),
    ),
    "paddr": Shape(
        "clears-on-erratum",
        elf(imports=(*UPSTREAM, "tdx_quirk_reset_paddr"), defined=("tdx_vm_destroy",)),
    ),
    "no TDX": Shape("no-tdx-host", elf(defined=("vmx_init", "handle_tdx_instruction"))),
}


def vmlinux(*texts: bytes) -> bytes:
    return elf(kind=2, vermagic=None, text=b"\0".join((KERNEL_TEXT, *texts, b"")))


def vmlinuz(kernel: bytes, release: str = "6.18.5-made", *, packed: bytes | None = None) -> bytes:
    payload = gzip.compress(kernel) if packed is None else packed
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x20F)
    struct.pack_into("<H", head, 0x20E, 0x300 - 0x200)
    head[0x300:0x380] = f"{release} (nobody) #1".encode().ljust(0x80, b"\0")
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + bytes(16) + payload + b"\xcc" * 100


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.TarFile(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def deb(files: dict[str, bytes]) -> bytes:
    members = {"debian-binary": b"2.0\n", "control.tar.gz": b"odd", "data.tar.gz": b""}
    members["data.tar.gz"] = gzip.compress(tar(files))
    out = b"!<arch>\n"
    for name, data in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        out += data + b"\n" * (len(data) % 2)
    return out


CONFIG_OFF = """#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 6.18.5 Kernel Configuration
#
#
# Processor type and features
#
# CONFIG_INTEL_TDX_HOST is not set
# end of Processor type and features
"""
CONFIG_ON = CONFIG_OFF.replace("# CONFIG_INTEL_TDX_HOST is not set", "CONFIG_INTEL_TDX_HOST=y")


def system_map(*names: str, stub: bool = False) -> bytes:
    if stub:
        return b"ffffffffffffffff B The real System.map is in the linux-image-6.18.5-made-dbg package\n"
    rows = [f"ffffffff81{index:06x} t filler_{index}" for index in range(20_001)]
    rows += [f"ffffffff82000000 T {name}" for name in names]
    return ("\n".join(rows) + "\n").encode()


def symvers(*names: str) -> bytes:
    rows = [f"0x{index:08x}\tfiller_{index}\tvmlinux\tEXPORT_SYMBOL\t" for index in range(3_001)]
    rows += [f"0x00000000\t{name}\tvmlinux\tEXPORT_SYMBOL_GPL\t" for name in names]
    rows += ["0x00000000\tkvm_vcpu_load\tarch/x86/kvm/kvm\tEXPORT_SYMBOL_GPL\t"]
    return ("\n".join(rows) + "\n").encode()


def judge(path: Path, data: bytes | None = None, release: str | None = None) -> ImageFinding:
    if data is not None:
        path.write_bytes(data)
    return judge_images(read_images([str(path)], release))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)],
)
def test_a_module(tmp_path: Path, shape: str, suffix: str, pack: type[bytes]) -> None:
    finding = judge(tmp_path / f"kvm-intel.ko{suffix}", pack(SHAPES[shape].data))

    assert finding.clearing == SHAPES[shape].clearing
    inferred = finding.clearing is Clearing.ON_ERRATUM
    assert finding.certainty is (Certainty.INFERRED if inferred else Certainty.VERIFIED)


def test_a_module_compressed_with_zstd(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    packed = zstandard.ZstdCompressor().compress(SHAPES["clears itself"].data)
    assert judge(tmp_path / "kvm-intel.ko.zst", packed).clearing is Clearing.ALWAYS


MOVDIR64B_FORMS = {
    "rdx to rax": b"\x66\x0f\x38\xf8\x02",
    "r8 to r9": b"\x66\x45\x0f\x38\xf8\x08",
    "with displacement": b"\x66\x0f\x38\xf8\x40\x10",
}


@pytest.mark.parametrize("form", MOVDIR64B_FORMS)
def test_every_form_of_the_instruction_is_seen(tmp_path: Path, form: str) -> None:
    data = elf(imports=UPSTREAM, code=b"\x90" + MOVDIR64B_FORMS[form] + b"\xc3")
    assert judge(tmp_path / "kvm-intel.ko", data).clearing is Clearing.ALWAYS


def test_bytes_like_it_with_a_register_operand_are_no_instruction(tmp_path: Path) -> None:
    data = elf(code=b"\x66\x0f\x38\xf8\xc2")
    assert judge(tmp_path / "kvm-intel.ko", data).clearing is Clearing.NO_TDX_HOST


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(elf(imports=UPSTREAM), id="wrappers, and no clear of either kind"),
        pytest.param(elf(imports=("__seamcall_ret",)), id="SEAMCALLs without wrappers"),
        pytest.param(elf(code=b"\x90\x66\x0f\x01\xcf"), id="the instruction itself"),
        pytest.param(elf(defined=("tdx_vm_destroy",)), id="a TD's end, and no SEAMCALL"),
        pytest.param(elf(imports=("tdx_quirk_reset_page",)), id="a clear, and no SEAMCALL"),
    ],
)
def test_a_module_of_no_known_tree_is_not_judged(tmp_path: Path, data: bytes) -> None:
    finding = judge(tmp_path / "kvm-intel.ko", data)
    assert (finding.clearing, finding.rule) == (Clearing.UNKNOWN, "image-not-understood")


REFUSED = {
    "another module": (elf(name="kvm"), "the module 'kvm', not kvm_intel"),
    "no module": (elf(vermagic=None), "no vermagic"),
    "another machine": (elf(machine=183), "not for x86-64"),
    "cut in half": (SHAPES["page"].data[:600], "cut short"),
    "no symbols": (elf().replace(struct.pack("<IIQ", 0, 2, 0), bytes(16)), "no symbol table"),
    "a name that is none": (elf(imports=("",)), "a symbol's name is none"),
    "no kernel": (elf(kind=2, vermagic=None), 'no "Linux version" in it'),
    "rpm": (b"\xed\xab\xee\xdb" + bytes(600), "rpm2cpio FILE | cpio -idm"),
    "UKI": (b"MZ" + bytes(300) + b".linux\0\0" + bytes(300), "objcopy -O binary"),
    "EFI program": (b"MZ" + bytes(700), "an EFI program"),
    "initramfs": (b"070701" + bytes(600), "cpio -idm"),
    "lz4": (vmlinuz(b"", packed=b"\x02\x21\x4c\x18" + bytes(99)), "lz4"),
    "no payload": (vmlinuz(b"", packed=b""), "does not say where its kernel is"),
    "not a kernel in it": (vmlinuz(b"#!/bin/sh\n"), "no ELF file"),
    "cut vmlinuz": (vmlinuz(vmlinux())[:1200], "cut short"),
    "two kernels": (vmlinuz(vmlinux(), "6.12.1"), "two kernels"),
    "stub": (system_map(stub=True), "a stub"),
    "arm64": (CONFIG_OFF.replace("x86", "arm64").encode(), "for arm64"),
    "empty": (b"", "empty"),
    "text": (b"hello\n", "not recognised"),
    "zeros": (bytes(4096), "not recognised"),
    "deb without data": (b"!<arch>\ndebian-binary   " + bytes(40), "damaged"),
    "empty deb": (deb({}), "no kernel in it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_tells_nothing_is_one_line(tmp_path: Path, name: str) -> None:
    data, why = REFUSED[name]
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(TdxReclaimError) as raised:
        read_images([str(path)])
    assert why in raised.value.why
    assert "\n" not in str(raised.value)


TEXTS = {
    "no TDX host": ((), Clearing.NO_TDX_HOST),
    "guest and flags alone": ((b"tdx_pw_mce", b"tdx_host_platform"), Clearing.NO_TDX_HOST),
    "the refusal alone": ((b"Not allowed on platform with tdx_pw_mce bug",), Clearing.NO_TDX_HOST),
    "core alone": ((b"private KeyID range [",), Clearing.UNKNOWN),
    "6.17": ((b"private KeyID range [", b"tdh_phymem_page_reclaim"), Clearing.ALWAYS),
    "6.18": (
        (b"private KeyID range [", b"tdh_phymem_page_reclaim", b"tdx_quirk_reset_page"),
        Clearing.ON_ERRATUM,
    ),
}


@pytest.mark.parametrize("packing", ["gzip", "xz", "bzip2", "vmlinux", "vmlinux.gz"])
@pytest.mark.parametrize("name", TEXTS)
def test_the_texts_of_an_image(tmp_path: Path, name: str, packing: str) -> None:
    texts, clearing = TEXTS[name]
    kernel = vmlinux(*texts)
    size = struct.pack("<I", len(kernel))
    data = {
        "gzip": vmlinuz(kernel),
        # The build appends the unpacked size to all but gzip.
        "xz": vmlinuz(kernel, packed=lzma.compress(kernel) + size),
        "bzip2": vmlinuz(kernel, packed=bz2.compress(kernel) + size),
        "vmlinux": kernel,
        "vmlinux.gz": gzip.compress(kernel),
    }[packing]
    path = tmp_path / "vmlinuz"
    path.write_bytes(data)
    images = read_images([str(path)])

    assert images.release == "6.18.5-made"
    finding = judge_images(images)
    assert finding.clearing is clearing
    assert finding.certainty is not Certainty.VERIFIED


def test_a_text_across_two_pieces_is_found(tmp_path: Path) -> None:
    for shift in range(0, 40, 7):
        kernel = vmlinux(bytes((1 << 20) - 700 + shift), b"private KeyID range [")
        path = tmp_path / "vmlinuz"
        path.write_bytes(vmlinuz(kernel))
        text = read_images([str(path)]).parts[0].content
        assert isinstance(text, Text)
        assert text.key_ids


@pytest.mark.parametrize("gap", [0, (1 << 20) - 800])
def test_the_configuration_inside_an_image(tmp_path: Path, gap: int) -> None:
    inside = b"IKCFG_ST" + gzip.compress(CONFIG_OFF.encode()) + b"IKCFG_ED"
    path = tmp_path / "vmlinuz"
    path.write_bytes(vmlinuz(vmlinux(bytes(gap), inside)))
    images = read_images([str(path)])

    assert Configuration(tdx_host=False, base="6.18.5") in [part.content for part in images.parts]
    assert judge_images(images).certainty is Certainty.VERIFIED


@pytest.mark.parametrize(
    ("data", "clearing", "certainty"),
    [
        (system_map(), Clearing.NO_TDX_HOST, Certainty.VERIFIED),
        (system_map("__seamcall"), Clearing.UNKNOWN, None),
        (
            system_map("tdh_phymem_page_reclaim"),
            Clearing.ALWAYS,
            Certainty.INFERRED,
        ),
        (
            system_map("tdh_phymem_page_reclaim", "tdx_quirk_reset_paddr"),
            Clearing.ON_ERRATUM,
            Certainty.INFERRED,
        ),
        (system_map("tdx_clear_page.isra.0", "tdh_mem_track"), Clearing.ALWAYS, Certainty.INFERRED),
        (system_map("tdx_clear_page", "tdx_quirk_reset_page"), Clearing.UNKNOWN, None),
        (symvers("tdh_phymem_page_reclaim"), Clearing.ALWAYS, Certainty.INFERRED),
        (
            symvers("tdh_phymem_page_reclaim", "tdx_quirk_reset_page"),
            Clearing.ON_ERRATUM,
            Certainty.INFERRED,
        ),
        (symvers(), Clearing.NO_TDX_HOST, Certainty.INFERRED),
        (CONFIG_OFF.encode(), Clearing.NO_TDX_HOST, Certainty.VERIFIED),
        (CONFIG_ON.encode(), Clearing.UNKNOWN, None),
        (b"CONFIG_KVM=y\n", Clearing.UNKNOWN, None),
    ],
)
def test_the_lists_beside_a_kernel(
    tmp_path: Path, data: bytes, clearing: Clearing, certainty: Certainty | None
) -> None:
    finding = judge(tmp_path / "list", data)
    assert (finding.clearing, finding.certainty) == (clearing, certainty)


def test_a_list_that_is_cut_proves_no_absence(tmp_path: Path) -> None:
    cut = system_map("tdh_phymem_page_reclaim", "tdx_quirk_reset_page")[:-5]
    assert judge(tmp_path / "map", cut).clearing is Clearing.UNKNOWN
    # Without kvm's exports, KVM may be built in, and takes nothing by export.
    built_in = symvers().replace(b"arch/x86/kvm/kvm", b"vmlinux")
    with pytest.raises(MalformedInputError, match="tells nothing"):
        judge(tmp_path / "symvers", built_in)


R = "6.18.5-made"
PLACES = {
    f"boot/vmlinuz-{R}": vmlinuz(vmlinux()),
    f"boot/config-{R}": CONFIG_OFF.encode(),
    f"boot/System.map-{R}": system_map(stub=True),
    f"usr/lib/modules/{R}/modules.order": b"",
    f"usr/lib/modules/{R}/kernel/arch/x86/kvm/kvm-intel.ko.xz": lzma.compress(
        SHAPES["no TDX"].data
    ),
    f"usr/lib/modules/{R}/kernel/arch/x86/kvm/kvm.ko.xz": b"not looked at",
}


def lay(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.mark.parametrize("place", ["", "boot", "usr/lib/modules", f"usr/lib/modules/{R}", "deb"])
def test_a_folder_and_a_package_hold_the_parts(tmp_path: Path, place: str) -> None:
    path = lay(tmp_path / "root", PLACES) / place
    if place == "deb":
        path = tmp_path / "linux-image.deb"
        path.write_bytes(deb(PLACES))
    images = read_images([str(path)])

    assert {part.release for part in images.parts} == {R}
    assert judge_images(images).clearing is Clearing.NO_TDX_HOST
    kinds = {type(part.content) for part in images.parts}
    assert kinds == {
        "boot": {Text, Configuration},
        "usr/lib/modules": {Module},
        f"usr/lib/modules/{R}": {Module},
    }.get(place, {Module, Configuration, Text})
    assert not images.failures


def test_of_several_kernels_one_has_to_be_named(tmp_path: Path) -> None:
    other = "6.17.8-other"
    root = lay(tmp_path, PLACES)
    module = elf(vermagic=f"{other} SMP", imports=UPSTREAM, code=MOVDIR64B)
    lay(root, {f"usr/lib/modules/{other}/kernel/arch/x86/kvm/kvm-intel.ko": module})
    with pytest.raises(MalformedInputError, match=f"2 kernels are in it .*{other}.*--kernel"):
        judge(root)
    assert judge(root, release=other).clearing is Clearing.ALWAYS
    assert judge(root, release=R).clearing is Clearing.NO_TDX_HOST
    with pytest.raises(MalformedInputError, match=r"no kernel 6\.1 in it, but 6"):
        judge(root, release="6.1")


def test_the_module_that_depmod_chose_counts(tmp_path: Path) -> None:
    root = lay(tmp_path, PLACES)
    chosen = elf(imports=UPSTREAM, code=MOVDIR64B)
    files = {
        "updates/kvm-intel.ko": chosen,
        "modules.dep": b"updates/kvm-intel.ko: kernel/kvm.ko\n",
    }
    folder = lay(root / f"usr/lib/modules/{R}", files)
    assert judge(folder).clearing is Clearing.ALWAYS


def test_no_link_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.ko"
    outside.write_bytes(SHAPES["page"].data)
    folder = tmp_path / "root" / "lib/modules" / R
    lay(folder, {"modules.order": b""})
    module = folder / "kernel/arch/x86/kvm/kvm-intel.ko"
    module.parent.mkdir(parents=True)
    module.symlink_to(outside)
    with pytest.raises(MalformedInputError, match="no kernel in it"):
        judge(tmp_path / "root")
    # Nor a folder on the way.
    shutil.rmtree(folder / "kernel")
    lay(tmp_path / "kernel", {"arch/x86/kvm/kvm-intel.ko": SHAPES["page"].data})
    (folder / "kernel").symlink_to(tmp_path / "kernel")
    with pytest.raises(TdxReclaimError, match="a link, not followed"):
        judge(tmp_path / "root")


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "kvm-intel.ko")
    with pytest.raises(HostReadError, match="not a regular file"):
        judge(tmp_path / "kvm-intel.ko")
    with pytest.raises(HostReadError, match="not a regular file"):
        read_images(["/dev/zero"])
    with pytest.raises(HostReadError, match="No such file"):
        read_images([str(tmp_path / "none")])


def test_parts_of_two_kernels_are_not_merged(tmp_path: Path) -> None:
    module = tmp_path / "kvm-intel.ko"
    module.write_bytes(SHAPES["page"].data)
    config = tmp_path / "config"
    config.write_text(CONFIG_ON.replace("6.18.5", "6.12.117"))
    with pytest.raises(MalformedInputError, match=r"of 6\.12\.117, but .* is of 6\.18\.5-made"):
        read_images([str(module), str(config)])
    upstream = tmp_path / "vmlinuz"
    upstream.write_bytes(vmlinuz(vmlinux().replace(b"6.18.5-made", b"6.18.5"), "6.18.5"))
    with pytest.raises(MalformedInputError, match="not one kernel"):
        read_images([str(module), str(upstream)])
    (tmp_path / "other").write_text(CONFIG_ON)
    with pytest.raises(MalformedInputError, match="not one kernel"):
        read_images([str(config), str(tmp_path / "other")])
    with pytest.raises(MalformedInputError, match=r"--kernel|is of"):
        read_images([str(module)], "6.17")
    assert read_images([str(module)], "6.18.5-made").release == "6.18.5-made"
    # A name that says other than the file.
    (tmp_path / "config-6.18.5-made").write_text(config.read_text())
    with pytest.raises(MalformedInputError, match="not one kernel"):
        read_images([str(tmp_path / "config-6.18.5-made")])
    (tmp_path / "vmlinuz-6.18.35").write_bytes(vmlinuz(vmlinux()))
    with pytest.raises(MalformedInputError, match="its name says"):
        read_images([str(tmp_path / "vmlinuz-6.18.35")])


CONTRADICTIONS = {
    "built without, and runs TDs": [SHAPES["clears itself"].data, CONFIG_OFF.encode()],
    "two generations": [SHAPES["page"].data, system_map("tdh_phymem_page_reclaim")],
    "no text of it, and SEAMCALLs": [vmlinux(), system_map("__seamcall")],
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_parts_that_contradict_each_other_decide_nothing(tmp_path: Path, name: str) -> None:
    paths = [tmp_path / str(index) for index in range(len(CONTRADICTIONS[name]))]
    for path, data in zip(paths, CONTRADICTIONS[name], strict=True):
        path.write_bytes(data)
    finding = judge_images(read_images([str(path) for path in paths]))

    assert (finding.clearing, finding.rule) == (Clearing.UNKNOWN, "image-contradicts")
    assert all(str(path) in finding.because for path in paths)


def test_a_core_that_kvm_does_not_use_is_no_contradiction(tmp_path: Path) -> None:
    lay(tmp_path, {"ko": SHAPES["no TDX"].data, "config": CONFIG_ON.encode()})
    (tmp_path / "map").write_bytes(system_map("tdh_phymem_page_reclaim"))
    paths = [str(tmp_path / name) for name in ("config", "map", "ko")]
    finding = judge_images(read_images(paths))
    assert (finding.clearing, finding.rule) == (Clearing.NO_TDX_HOST, "image-no-tdx-host")


@pytest.mark.parametrize(
    ("base", "release", "expected"),
    [
        ("6.18.5", "6.18.5", True),
        ("6.18.5", "6.18.5+deb13-amd64", True),
        ("6.1.192", "6.1.0-56-amd64", True),
        ("6.8.12", "6.8.0-45-generic", True),
        ("6.18.5", "6.18.35", False),
        ("6.18.5", "6.18.0", False),
        ("6.18.0", "6.18.0", True),
        ("6.18.0", "6.18", True),
        ("6.1.0", "6.10.0", False),
        ("6.18.5", "next", False),
    ],
)
def test_a_heading_and_a_release(base: str, release: str, expected: bool) -> None:
    assert fits(base, release) is expected


def test_a_build_id() -> None:
    assert parse_build_id(b"") is None
    assert parse_build_id(struct.pack("<III", 6, 4, 3) + b"Linux\0\0\0" + bytes(4)) is None
    assert parse_build_id(struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes(4)) is None


# What gcc and objcopy make, where they are.
SOURCES = {
    "clears-always": """
        long tdh_phymem_page_reclaim(void);
        void tdx_clear_page(void *to, const void *from) {
            asm volatile(".byte 0x66, 0x0f, 0x38, 0xf8, 0x02" : : "a"(to), "d"(from) : "memory");
        }
        long tdx_reclaim_page(void *to) { tdx_clear_page(to, to); return tdh_phymem_page_reclaim(); }
    """,
    "clears-on-erratum": """
        long tdh_phymem_page_reclaim(void); void tdx_quirk_reset_paddr(unsigned long, unsigned long);
        long tdx_reclaim_page(void) { tdx_quirk_reset_paddr(0, 1); return tdh_phymem_page_reclaim(); }
    """,
    "no-tdx-host": "void printk(void); void vmx_init(void) { printk(); }",
}


@pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("objcopy")), reason="no gcc and objcopy here"
)
@pytest.mark.parametrize("clearing", SOURCES)
def test_what_a_compiler_makes(tmp_path: Path, clearing: str) -> None:
    source = tmp_path / "kvm-intel.c"
    source.write_text(
        SOURCES[clearing]
        + """
        __attribute__((section(".modinfo"), used)) static const char info[] =
            "name=kvm_intel\\0vermagic=6.18.5-made SMP preempt mod_unload ";
        """
    )
    module = tmp_path / "kvm-intel.ko"
    command = ["gcc", "-O2", "-g", "-fcf-protection", "-mcmodel=kernel", "-fno-pic", "-c"]
    subprocess.run([*command, str(source), "-o", str(module)], check=True, capture_output=True)
    assert judge(module).clearing == clearing
    # As a distribution strips its modules.
    subprocess.run(["objcopy", "--strip-debug", str(module)], check=True)
    assert judge(module).clearing == clearing
    subprocess.run(["objcopy", "--strip-all", str(module)], check=True)
    with pytest.raises(MalformedInputError):
        judge(module)


HOSTS = Path(__file__).parents[2] / "hosts"


@pytest.fixture
def ko(tmp_path: Path) -> Callable[[str], str]:
    """Write the module of a shape and return its path."""

    def write(shape: str) -> str:
        path = tmp_path / f"{shape}.ko"
        path.write_bytes(SHAPES[shape].data)
        return str(path)

    return write


class Answered(NamedTuple):
    status: int
    verdict: str
    posture: str
    clearing: str
    rule: str


def answered(ran: Ran) -> Answered:
    document = json.loads(ran.out)
    kernel = document["kernel"]
    assert document["exit_status"] == ran.status
    return Answered(
        ran.status, document["verdict"], document["posture"], kernel["clearing"], kernel["rule"]
    )


@pytest.mark.parametrize(
    ("shape", "cpu", "status", "posture"),
    [
        ("clears itself", "spr", 10, "clears-as-required"),
        ("clears itself", "gnr", 0, "clears-needlessly"),
        ("page", "spr", 10, "clears-as-required"),
        ("page", "gnr", 0, "skips-safely"),
        ("no TDX", "spr", 10, "idle"),
        ("no TDX", "gnr", 0, "idle"),
    ],
)
def test_check_lays_a_kernel_over_a_cpu(
    run: RunTool, ko: Callable[[str], str], shape: str, cpu: str, status: int, posture: str
) -> None:
    ran = answered(run("check", "--image", ko(shape), "--cpu", cpu, "-f", "json"))
    assert (ran.status, ran.posture, ran.clearing) == (status, posture, SHAPES[shape].clearing)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_a_cpu_there_is_no_verdict(
    run: RunTool, ko: Callable[[str], str], shape: str
) -> None:
    path = ko(shape)
    ran = answered(run("check", "--image", path, "-f", "json"))
    assert (ran.status, ran.verdict, ran.clearing) == (11, "undetermined", SHAPES[shape].clearing)
    text = run("check", "--image", path)
    assert text.status == 11
    assert text.out.startswith("This kernel ")
    assert "No CPU was given" in " ".join(text.out.split())
    assert "--cpu" in text.out
    assert run("check", "--image", path, "--quiet").status == 11
    evidence = json.loads(run("check", "--image", path, "-f", "json").out)["evidence"]
    assert path in [piece["path"] for piece in evidence]


def test_what_could_not_be_read_and_what_is_not_known_is_said(run: RunTool, tmp_path: Path) -> None:
    root = lay(tmp_path, PLACES)
    lay(root, {f"boot/vmlinuz-{R}": vmlinuz(b"", packed=b"\x02\x21\x4c\x18" + bytes(99))})
    out = run("check", "--image", str(root), "--cpu", "spr", "--explain").out
    assert "lz4" in out
    packed = run("check", "--image", str(root / f"boot/vmlinuz-{R}"), "--cpu", "spr")
    assert (packed.status, packed.out) == (3, "")
    odd = tmp_path / "odd.ko"
    odd.write_bytes(elf(imports=UPSTREAM))
    ran = run("check", "--image", str(odd))
    assert ran.out.startswith("What this kernel does with reclaimed pages is not known")
    system_map = tmp_path / "System.map"
    system_map.write_bytes(CONFIG_ON.replace("# Linux/x86 6.18.5 Kernel", "# Kernel").encode())
    assert "release unknown" in run("check", "--image", str(system_map)).out


def test_over_its_own_host_a_module_adds_to_what_is_known(run: RunTool, tmp_path: Path) -> None:
    captured = HOSTS / "emr-ubuntu-6.17"
    release = (captured / "proc/sys/kernel/osrelease").read_text().strip()
    before = answered(run("check", "--from", str(captured), "-f", "json"))
    assert before.clearing == "unknown"
    module = tmp_path / "kvm-intel.ko"
    module.write_bytes(elf(imports=UPSTREAM, code=MOVDIR64B, vermagic=f"{release} SMP"))
    ran = run("check", "--from", str(captured), "--image", str(module), "-f", "json")
    after = answered(ran)
    assert (after.status, after.rule) == (before.status, "image-clears-always")
    # TDX is still on there: the kernel is the host's, not another one.
    document = json.loads(ran.out)
    assert document["host"]["state"] == "initialized"
    assert not document["source"]["faked"]


def test_over_another_host_it_takes_the_kernels_place(
    run: RunTool, ko: Callable[[str], str]
) -> None:
    host = str(HOSTS / "gnr-6.18-active")
    document = json.loads(run("check", "--from", host, "--image", ko("page"), "-f", "json").out)
    assert document["kernel"]["release"] == "6.18.5-made"
    assert document["source"]["faked"]


def test_symbols_that_contradict_the_module_decide_nothing(run: RunTool, tmp_path: Path) -> None:
    captured = HOSTS / "gnr-6.18-active"
    release = (captured / "proc/sys/kernel/osrelease").read_text().strip()
    module = tmp_path / "kvm-intel.ko"
    module.write_bytes(elf(imports=UPSTREAM, code=MOVDIR64B, vermagic=f"{release} SMP"))
    ran = answered(run("check", "--from", str(captured), "--image", str(module), "-f", "json"))
    assert (ran.rule, ran.posture) == ("image-contradicts", "unknown")


def test_simulate_takes_the_kernel_of_a_module(run: RunTool, ko: Callable[[str], str]) -> None:
    for shape, cleared in (("clears itself", True), ("page", False)):
        ran = run(
            *("simulate", "--image", ko(shape), "--cpu", "gnr", "--memory", "1G", "--vcpus", "1"),
            *("-f", "json"),
        )
        assert ran.status == 0
        assert json.loads(ran.out)["plan"]["clears"] is cleared


def test_triage_takes_the_module_of_its_own_kernel(run: RunTool, tmp_path: Path) -> None:
    log = tmp_path / "dmesg"
    log.write_text(
        "[    0.000000] Linux version 6.18.5-made (a@b) #1\n"
        "[    0.000000] smpboot: CPU0: Intel(R) Xeon (family: 0x6, model: 0xad, stepping: 0x1)\n"
        "[    9.000000] virt/tdx: module initialized\n"
    )
    module = tmp_path / "kvm-intel.ko"
    module.write_bytes(SHAPES["clears itself"].data)
    found = run("triage", "--from", str(log), "--image", str(module), "-f", "json").out
    assert "clears-needlessly" in found
    log.write_text(log.read_text().replace("6.18.5-made", "6.17.8-other"))
    ran = run("triage", "--from", str(log), "--image", str(module))
    assert (ran.status, ran.out) == (3, "")
    assert "not one kernel" in ran.err


def test_a_kernel_file_in_another_place_names_the_option(run: RunTool, tmp_path: Path) -> None:
    files = {
        "vmlinuz": vmlinuz(vmlinux()),
        "kvm-intel.ko": SHAPES["page"].data,
        "config": CONFIG_ON.encode() + b"CONFIG_X86_64=y\n",
        "System.map": system_map("tdh_mem_track"),
        "image.deb": deb({}),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        ran = run("check", "--from", str(tmp_path / name))
        assert ran.status == 3
        assert f"--image {tmp_path / name}" in ran.err
    ran = run("check", "--kernel", "./vmlinuz", cwd=tmp_path)
    assert (ran.status, ran.out) == (2, "")
    assert "--image ./vmlinuz" in ran.err
    assert run("check", "--image", "").status == 2


CPUINFO = (HOSTS / "gnr-6.18-active/proc/cpuinfo").read_text()
NOTE = struct.pack("<III", 4, 4, 3) + b"GNU\0" + bytes.fromhex("0badcafe")
ACME = "6.18.5-made"


def module_place(release: str) -> str:
    return f"usr/lib/modules/{release}/kernel/arch/x86/kvm/kvm-intel.ko"


def live(root: Path, release: str = ACME, kallsyms: str | None = None) -> HostFacts:
    texts = {"proc/cpuinfo": CPUINFO, "proc/sys/kernel/osrelease": f"{release}\n"}
    if kallsyms is not None:
        texts["proc/kallsyms"] = kallsyms
    source = Files(texts, origin=Origin.LIVE)
    return read_host(source, installed=lambda: InstalledKernels(str(root)))


def test_the_module_that_would_be_loaded_next(tmp_path: Path) -> None:
    lay(tmp_path, {module_place(ACME): SHAPES["clears itself"].data})
    kernel = decide(live(tmp_path)).kernel
    assert (kernel.clearing, kernel.rule) == (Clearing.ALWAYS, "image-clears-always")
    assert "not loaded" in kernel.because
    assert kernel.origin is Origin.LIVE


def test_the_module_that_runs_is_known_by_its_build_id(tmp_path: Path) -> None:
    loaded = {"sys/module/kvm_intel/notes/.note.gnu.build-id": NOTE}
    lay(tmp_path, {module_place(ACME): SHAPES["clears itself"].data, **loaded})
    kernel = decide(live(tmp_path)).kernel
    assert (kernel.clearing, kernel.certainty) == (Clearing.ALWAYS, Certainty.VERIFIED)
    assert "not loaded" not in kernel.because

    other = NOTE.replace(bytes.fromhex("0badcafe"), bytes.fromhex("12345678"))
    lay(tmp_path, dict.fromkeys(loaded, other))
    decision = decide(live(tmp_path))
    assert decision.kernel.clearing is Clearing.UNKNOWN
    assert any("build id differs" in piece.observed for piece in decision.evidence)
    # Loaded, and without a build id nothing shows that it is the same.
    lay(tmp_path, dict.fromkeys(loaded, b""))
    assert decide(live(tmp_path)).kernel.clearing is Clearing.UNKNOWN


def test_where_the_symbols_tell_no_file_is_read(tmp_path: Path) -> None:
    lay(tmp_path, {module_place(ACME): SHAPES["clears itself"].data})
    facts = live(tmp_path, kallsyms="0000000000000000 T tdx_quirk_reset_page\n")
    assert facts.images is None
    assert decide(facts).kernel.rule == "symbols-clear-on-erratum"


def test_a_livepatch_is_a_doubt(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/livepatch/fix_1").mkdir(parents=True)
    assert any("livepatch" in warning for warning in decide(live(tmp_path)).warnings)
    assert not any("livepatch" in warning for warning in decide(live(tmp_path / "none")).warnings)


@pytest.mark.parametrize(
    ("running", "newest", "clearing"),
    [
        pytest.param("6.17.3", "6.18.5-made", Clearing.ON_ERRATUM, id="a newer one"),
        pytest.param("6.9.1", "6.18.5-made", Clearing.ON_ERRATUM, id="6.9 is older than 6.18"),
        pytest.param("6.19.1", "6.18.5-made", None, id="an older one"),
        pytest.param("6.18.1", "6.18.5-made", None, id="one that does the same"),
    ],
)
def test_the_newest_installed_kernel(
    tmp_path: Path, running: str, newest: str, clearing: Clearing | None
) -> None:
    assert newest == ACME
    lay(tmp_path, {module_place(newest): SHAPES["page"].data})
    lay(tmp_path, {module_place("6.2.1-made"): SHAPES["no TDX"].data})
    found = decide(live(tmp_path, running)).next_kernel
    assert (found and found.clearing) == clearing
    assert not found or found.release == newest


def test_a_configuration_rules_the_newest_kernel_out(tmp_path: Path) -> None:
    lay(tmp_path, {module_place(ACME): b"not read", f"boot/config-{ACME}": CONFIG_OFF.encode()})
    found = decide(live(tmp_path, "6.17.3")).next_kernel
    assert found is not None
    assert (found.clearing, found.certainty) == (Clearing.NO_TDX_HOST, Certainty.VERIFIED)


def test_check_says_what_a_reboot_brings(tmp_path: Path) -> None:
    lay(tmp_path, {module_place(ACME): SHAPES["page"].data})
    report = Report(decide(live(tmp_path, "6.17.3")), "this host", "live")
    text = " ".join(check_text.render(report).split())
    assert f"after a reboot into {ACME}: skips, but on CPUs with {ANY} (inferred)" in text
    document = json.loads(check_json.render(report))
    assert document["next_kernel"]["clearing"] == "clears-on-erratum"
    jsonschema.validate(document, json.loads(read_schema("check")))


def test_a_capture_answers_as_the_host_does(tmp_path: Path) -> None:
    root = tmp_path / "root"
    lay(
        root,
        {
            module_place("6.17.3-acme"): elf(
                imports=UPSTREAM, vermagic="6.17.3-acme SMP", code=MOVDIR64B
            )
        },
    )
    lay(root, {module_place(ACME): SHAPES["page"].data})
    (root / "sys/kernel/livepatch/fix_1").mkdir(parents=True)
    texts = {"proc/cpuinfo": CPUINFO, "proc/sys/kernel/osrelease": "6.17.3-acme\n"}
    source = Files(texts, origin=Origin.LIVE)
    kernels = InstalledKernels(str(root))
    captured = collect(source, installed=kernels)
    again = collect(Files({each.path: each.text for each in captured.taken}))
    texts = {each.path: each.text for each in again.taken}
    assert "fix_1" not in texts[KERNEL_FILES]

    answers = [
        decide(read_host(source, installed=lambda: kernels)),
        decide(read_host(Files(texts))),
    ]
    live_one, captured_one = (
        (answer.verdict, answer.kernel.rule, answer.kernel.because, answer.warnings)
        for answer in answers
    )
    assert live_one == captured_one
    assert answers[1].kernel.rule == "image-clears-always"
    nexts = [answer.next_kernel for answer in answers]
    assert nexts[0] is not None
    assert nexts[1] is not None
    assert nexts[0].because == nexts[1].because


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema": "tdxreclaim.kernel/2"}',
        '{"schema": "tdxreclaim.kernel/1", "running": 1, "newest": null, "livepatches": 0}',
        '{"schema": "tdxreclaim.kernel/1", "running": null, "newest": null, "livepatches": -1}',
        "[" * 100_000,
    ],
)
def test_a_record_that_is_none_is_evidence(text: str) -> None:
    texts = {"proc/cpuinfo": CPUINFO, "proc/version": "Linux version 6.18.2", KERNEL_FILES: text}
    facts = read_host(Files(texts))
    assert facts.images is None
    assert any("not understood" in piece.observed for piece in facts.notes)


KERNELS = Path(__file__).parents[4] / "shared" / "cases" / "kernels"


@pytest.mark.parametrize("folder", sorted(KERNELS.glob("*")), ids=lambda folder: folder.name)
def test_the_kernels_of_the_shared_cases(tmp_path: Path, folder: Path) -> None:
    truth = json.loads((folder / "facts.json").read_text())
    clearing = {"always": "clears-always", "on-erratum": "clears-on-erratum"}.get(
        truth["clearing"], truth["clearing"]
    )
    release = (folder / "osrelease").read_text().strip()
    known = truth.get("kvm_intel") or truth.get("movdir64b")
    found = []
    config = folder / "config"
    if config.exists():
        (tmp_path / f"config-{release}").write_bytes(config.read_bytes())
        found.append(tmp_path / f"config-{release}")
    if known:
        imports = folder / "kvm-intel.imports"
        names = tuple(imports.read_text().split()) if imports.exists() else ("printk",)
        count = truth["movdir64b"]["kvm"] if imports.exists() else known["movdir64b"]
        module = elf(imports=names, code=MOVDIR64B * count + b"\xc3", vermagic=f"{release} SMP")
        (tmp_path / "kvm-intel.ko").write_bytes(module)
        found.append(tmp_path / "kvm-intel.ko")
    if truth.get("vmlinux"):
        texts = [b"tdx_pw_mce", b"tdx_host_platform"]
        texts += [b"Not allowed on platform with tdx_pw_mce bug"] * truth["vmlinux"][
            "kexec_refusal_text"
        ]
        kernel = vmlinux(*texts).replace(b"6.18.5-made", release.encode())
        (tmp_path / "vmlinuz").write_bytes(vmlinuz(kernel, release))
        found.append(tmp_path / "vmlinuz")
    for path in found:
        assert judge(path).clearing in (clearing, Clearing.UNKNOWN), path
    finding = judge_images(read_images([str(path) for path in found]))
    assert finding.clearing == clearing
    image_alone = [path.name for path in found] == ["vmlinuz"]
    inferred = finding.clearing is Clearing.ON_ERRATUM or image_alone
    assert finding.certainty is (Certainty.INFERRED if inferred else Certainty.VERIFIED)


def _mutate(data: bytes, luck: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(luck.choice((1, 1, 2, 8))):
        at = luck.randrange(len(changed))
        match luck.randrange(6):
            case 0:
                changed[at] ^= 1 << luck.randrange(8)
            case 1:
                changed[at] = luck.choice((0, 0xFF, 0x7F, 0x80))
            case 2:
                del changed[at : at + luck.randrange(1, 64)]
            case 3:
                changed[at : at + 64] = bytes(min(64, len(changed) - at))
            case 4:
                changed[at:at] = luck.randbytes(luck.randrange(1, 64))
            case _:
                del changed[max(1, at) :]
        if len(changed) < 2:
            break
    return bytes(changed)


MUTATED = {
    "clears-always.ko": SHAPES["clears itself"].data,
    "no-tdx-host.ko": SHAPES["no TDX"].data,
    "clears-always.xz": lzma.compress(SHAPES["clears itself"].data),
    "clears-always.vmlinuz": vmlinuz(vmlinux(b"private KeyID range [", b"tdh_phymem_page_reclaim")),
    "clears-always.deb": deb(
        {
            f"usr/lib/modules/{R}/kernel/arch/x86/kvm/kvm-intel.ko": SHAPES["clears itself"].data,
            f"boot/config-{R}": CONFIG_ON.encode(),
        }
    ),
}


def test_damage_is_one_line_and_never_makes_a_kernel_skip(tmp_path: Path) -> None:
    luck = random.Random(13)
    path = tmp_path / "file"
    outcomes = dict.fromkeys(("read", "refused"), 0)
    lines: set[int] = set()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(2000):
        name = list(MUTATED)[number % len(MUTATED)]
        path.write_bytes(_mutate(MUTATED[name], luck))
        try:
            finding = judge(path)
        except TdxReclaimError as error:
            lines.add(str(error).count("\n"))
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        assert finding.clearing in (name.partition(".")[0], Clearing.UNKNOWN), number
    assert min(outcomes.values()) > 100, outcomes
    assert lines == {0}
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 << 10


def test_claims_beyond_the_end_are_not_believed(tmp_path: Path) -> None:
    # A section of 2**63 bytes, and a table of as many sections as there can be.
    data = bytearray(elf())
    struct.pack_into("<H", data, 60, 0xFFFF)
    with pytest.raises(MalformedInputError, match="cut short"):
        judge(tmp_path / "sections", bytes(data))
    data = bytearray(elf())
    (start,) = struct.unpack_from("<Q", data, 40)
    struct.pack_into("<Q", data, start + 64 + 32, 1 << 63)
    with pytest.raises(MalformedInputError, match="cut short"):
        judge(tmp_path / "size", bytes(data))


def test_sections_that_lie_over_each_other_are_not_read_without_end(tmp_path: Path) -> None:
    count, big = 4000, 1 << 20
    body = bytearray(elf()[:64]) + b"vermagic=6.18.5-made\0" + bytes(big)
    struct.pack_into("<IBBHQQ", body, 128 + 24, 0, 0x12, 0, 1, 0, 0)
    struct.pack_into("<Q", body, 40, len(body))
    struct.pack_into("<H", body, 60, count)
    section = struct.pack("<IIQQQQIIQQ", 0, 1, 6, 0, 64, big, 0, 0, 1, 0)
    info = struct.pack("<IIQQQQIIQQ", 0, 1, 2, 0, 64, 21, 0, 0, 1, 0)
    symbols = struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, 128, 48, 1, 0, 1, 24)
    data = bytes(body) + info + symbols + section * (count - 2)
    with pytest.raises(MalformedInputError, match="over each other"):
        judge(tmp_path / "over", data)


def test_a_long_list_is_not_taken_apart_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "System.map"
    path.write_bytes(b"ffffffff81000000 T a_function\n" * 1_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert judge(path).clearing is Clearing.NO_TDX_HOST
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    with pytest.raises(HostReadError, match="longer than 32 MiB"):
        judge(path, b"ffffffff81000000 T a_function\n" * 1_200_000)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(SHAPES["page"].data + bytes(100 << 20), 1)
    with pytest.raises(MalformedInputError, match="longer than 96 MiB"):
        judge(tmp_path / "kvm-intel.ko.gz", bomb)
