"""Captures: recognised, opened and bounded, whoever made them."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import io
import itertools
import lzma
import os
import tarfile
import tracemalloc
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tdxreclaim.errors import HostReadError, MalformedInputError, TdxReclaimError
from tdxreclaim.facts.evidence import Origin
from tdxreclaim.facts.host import read_host
from tdxreclaim.facts.places import CPUID, CPUINFO, KERNEL_LOGS, LSCPU, LSCPU_JSON, WANTED
from tdxreclaim.facts.sources.archive import Archive
from tdxreclaim.facts.sources.base import TEXT_LIMIT_BYTES
from tdxreclaim.facts.sources.recognise import CaptureFormat, open_capture, recognise
from tdxreclaim.facts.sources.tar import HEADER_LIMIT_BYTES, looks_like_tar
from tdxreclaim.facts.sources.tree import Tree
from tdxreclaim.facts.sources.unpack import HEAD_BYTES, UNPACK_ERRORS, read_head, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHARED_CASES = Path(__file__).parents[4] / "shared" / "cases"

SPR = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nstepping\t: 8\nflags\t\t: fpu movdir64b\nbugs\t\t:\n\n"
AMD = SPR.replace("GenuineIntel", "AuthenticAMD")
TEXTS = {
    CaptureFormat.CPUINFO: SPR,
    CaptureFormat.LSCPU: "Architecture: x86_64\nVendor ID: GenuineIntel\nCPU family: 6\nModel: 143\n",
    CaptureFormat.LSCPU_JSON: '{"lscpu": [{"field": "Vendor ID:", "data": "GenuineIntel"},'
    '{"field": "CPU family:", "data": "6"}, {"field": "Model:", "data": "143"}]}',
    CaptureFormat.CPUID: "CPUID 00000000: 00000020-756E6547-6C65746E-49656E69\n"
    "CPUID 00000001: 000806F8-00800800-7FFEFBFF-BFEBFBFF\n",
    CaptureFormat.KERNEL_LOG: "[    0.000000] smpboot: CPU0: Intel(R) Xeon(R) "
    "(family: 0x6, model: 0x8f, stepping: 0x8)\n",
}
PLACES = {
    CaptureFormat.CPUINFO: CPUINFO,
    CaptureFormat.LSCPU: LSCPU,
    CaptureFormat.LSCPU_JSON: LSCPU_JSON,
    CaptureFormat.CPUID: CPUID,
    CaptureFormat.KERNEL_LOG: KERNEL_LOGS[0],
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "bz2": lambda data: bz2.compress(data, 1),
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}
packed_in = pytest.mark.parametrize("packing", PACKERS)
# Those that notice by themselves where their data end.
cut_in = pytest.mark.parametrize("packing", [name for name in PACKERS if name != "plain"])


class Spec(NamedTuple):
    """A tar member: its text, or the type and link of one that has none."""

    name: str
    text: bytes = b""
    kind: bytes = tarfile.REGTYPE
    link: str = ""


def tar_of(*members: Spec | tuple[str, str], format_: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as tar:
        for member in members:
            spec = member if isinstance(member, Spec) else Spec(member[0], member[1].encode())
            info = tarfile.TarInfo(spec.name)
            info.type, info.linkname = spec.kind, spec.link
            info.size = len(spec.text)
            tar.addfile(info, io.BytesIO(spec.text))
    return buffer.getvalue()


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return one header block, which may claim any size."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 512)


END = b"\0" * 1024


def as_stream(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(data))


def archive(data: bytes) -> Archive:
    return Archive(as_stream(data), WANTED, "x.tar")


def save(folder: Path, data: bytes | str, name: str = "capture") -> str:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


@contextlib.contextmanager
def opened(
    path: str, form: CaptureFormat | None = None
) -> Iterator[tuple[CaptureFormat, str | None]]:
    """Give the form of a capture, and the text where that form stands in a host."""
    capture = open_capture(path, form)
    with contextlib.closing(capture.source):
        yield capture.format, capture.source.read(PLACES.get(capture.format, CPUINFO))


class Trickle(io.RawIOBase):
    """A pipe whose writer is slow: each read gives one byte."""

    def __init__(self, data: bytes) -> None:
        self._rest = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._rest.read(min(1, len(buffer)))
        buffer[: len(data)] = data
        return len(data)


class Counting(io.RawIOBase):
    """A stream that knows how much was taken from it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._chunk = self._chunk or next(self._chunks, b"")
        data, self._chunk = self._chunk[: len(buffer)], self._chunk[len(buffer) :]
        buffer[: len(data)] = data
        self.taken += len(data)
        return len(data)


class TestRecognition:
    @pytest.mark.parametrize("form", TEXTS)
    def test_by_its_beginning(self, form: CaptureFormat) -> None:
        assert recognise(TEXTS[form]) is form

    @packed_in
    @pytest.mark.parametrize("form", TEXTS)
    def test_of_a_packed_text(self, form: CaptureFormat, packing: str, tmp_path: Path) -> None:
        path = save(tmp_path, PACKERS[packing](TEXTS[form].encode()))
        with opened(path) as found:
            assert found == (form, TEXTS[form])

    @packed_in
    def test_of_a_packed_tar(self, packing: str, tmp_path: Path) -> None:
        path = save(tmp_path, PACKERS[packing](tar_of(("host/" + CPUINFO, SPR))))
        with opened(path) as found:
            assert found == (CaptureFormat.TAR, SPR)

    def test_of_a_directory(self, tmp_path: Path) -> None:
        (tmp_path / "proc").mkdir()
        save(tmp_path, SPR, CPUINFO)
        for form in (None, CaptureFormat.TREE):
            with opened(str(tmp_path), form) as found:
                assert found == (CaptureFormat.TREE, SPR)

    @pytest.mark.parametrize("form", TEXTS)
    def test_is_overridden_by_the_option(self, form: CaptureFormat, tmp_path: Path) -> None:
        with opened(save(tmp_path, "nothing of the kind"), form) as found:
            assert found == (form, "nothing of the kind")

    def test_a_tar_is_not_read_as_a_text(self, tmp_path: Path) -> None:
        path = save(tmp_path, tar_of((CPUINFO, SPR)))
        with pytest.raises(MalformedInputError, match="binary, and so not cpuinfo"):
            open_capture(str(path), CaptureFormat.CPUINFO)

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (b"", "empty"),
            (gzip.compress(b"", mtime=0), "empty"),
            (b"hello\n", "not recognised"),
            (b"\x7fELF\0\0\0", "binary"),
            (b"{}", "not recognised"),
            (b"\xff\xfe" * 1000, "not recognised"),
            (b"\n" * HEAD_BYTES, "not recognised"),
            (b"nonsense " * 100_000, "not recognised"),
        ],
    )
    def test_what_is_none_of_ours(self, data: bytes, why: str, tmp_path: Path) -> None:
        path = save(tmp_path, data)
        with pytest.raises(MalformedInputError, match=why) as raised:
            open_capture(path)
        assert raised.value.what == path

    def test_a_form_that_cannot_be(self, tmp_path: Path) -> None:
        path = save(tmp_path, SPR)
        with pytest.raises(MalformedInputError, match="not a directory"):
            open_capture(path, CaptureFormat.TREE)
        with pytest.raises(MalformedInputError, match="a directory, not cpuinfo"):
            open_capture(str(tmp_path), CaptureFormat.CPUINFO)
        with pytest.raises(MalformedInputError, match="not readable as tar"):
            open_capture(path, CaptureFormat.TAR)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(HostReadError) as raised:
            open_capture(str(tmp_path / "nowhere"))
        assert raised.value.errno == errno.ENOENT

    def test_a_file_that_may_not_be_read(self, tmp_path: Path) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may read every file")
        path = save(tmp_path, SPR)
        Path(path).chmod(0)
        with pytest.raises(HostReadError) as raised:
            open_capture(path)
        assert raised.value.errno == errno.EACCES

    def test_standard_input(self, tmp_path: Path) -> None:
        # The descriptor itself: what the tool reads is no Python object.
        saved, file = os.dup(0), os.open(save(tmp_path, SPR), os.O_RDONLY)
        try:
            os.dup2(file, 0)
            with opened("-") as found:
                assert found == (CaptureFormat.CPUINFO, SPR)
        finally:
            os.dup2(saved, 0)
            os.close(saved)
            os.close(file)

    def test_a_text_that_is_too_long_is_not_read_whole(self, tmp_path: Path) -> None:
        path = save(tmp_path, SPR)
        os.truncate(path, TEXT_LIMIT_BYTES + 1)
        with pytest.raises(HostReadError, match="longer than 32 MiB"):
            open_capture(path)

    def test_evidence_is_labelled_with_the_file(self, tmp_path: Path) -> None:
        path = save(tmp_path, SPR)
        facts = read_host(open_capture(path).source)
        assert facts.identity.path == path
        assert facts.identity.origin is Origin.CAPTURED


class TestPipe:
    def test_the_head_is_filled_from_single_bytes(self) -> None:
        data = bytes(range(256)) * (HEAD_BYTES // 256) + b"tail"
        head, stream = read_head(io.BufferedReader(Trickle(data), 1))
        assert head == data[:HEAD_BYTES]
        assert stream.read() == data

    def test_a_short_stream_is_its_own_head(self) -> None:
        head, stream = read_head(io.BufferedReader(Trickle(b"ab"), 1))
        assert (head, stream.read(), stream.read()) == (b"ab", b"ab", b"")

    @packed_in
    def test_a_tar_from_a_slow_pipe(self, packing: str) -> None:
        data = PACKERS[packing](tar_of(("a/b", "x" * 3000), ("a/" + CPUINFO, SPR)))
        head, stream = read_head(unpack(io.BufferedReader(Trickle(data), 1), "-"))
        assert looks_like_tar(head)
        assert Archive(stream, WANTED, "-").read(CPUINFO) == SPR


class TestPacked:
    @cut_in
    def test_a_bomb_is_stopped_by_the_limit(self, packing: str) -> None:
        bomb = PACKERS[packing](b"\0" * (8 << 20))
        assert len(bomb) < 1 << 15
        stream = unpack(as_stream(bomb), "bomb", limit=1 << 20)
        with pytest.raises(MalformedInputError, match="more than 1 MiB"):
            stream.read()

    @cut_in
    def test_what_just_fits_is_no_bomb(self, packing: str) -> None:
        data = os.urandom(1 << 10) * (1 << 10)
        assert unpack(as_stream(PACKERS[packing](data)), "x", limit=len(data)).read() == data

    @cut_in
    def test_several_frames_are_one_text(self, packing: str) -> None:
        pack = PACKERS[packing]
        assert unpack(as_stream(pack(b"one ") + pack(b"") + pack(b"two")), "x").read() == b"one two"

    def test_padding_after_xz(self) -> None:
        data = lzma.compress(b"one ") + b"\0" * 8000 + lzma.compress(b"two") + b"\0" * 4
        assert unpack(as_stream(data), "x").read() == b"one two"

    @cut_in
    @pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
    def test_a_text_cut_short_is_an_error(self, packing: str, kept: float, tmp_path: Path) -> None:
        # Noise, or it would compress into a single block.
        data = PACKERS[packing](SPR.encode() + os.urandom(1 << 16).hex().encode() + b"\n")
        path = save(tmp_path, data[: int(len(data) * kept)])
        with pytest.raises(HostReadError, match="cut short"):
            open_capture(path, CaptureFormat.CPUINFO)

    @cut_in
    def test_a_cut_between_lines_is_an_error_too(self, packing: str, tmp_path: Path) -> None:
        # All of the text is there; that it was all is not.
        data = PACKERS[packing](SPR.encode())
        with pytest.raises(HostReadError):
            open_capture(save(tmp_path, data[:-1]))

    @cut_in
    def test_garbage_inside_is_an_error(self, packing: str, tmp_path: Path) -> None:
        pack = PACKERS[packing]
        if packing == "zst":  # as its command line does, and its library does not
            pack = zstandard.ZstdCompressor(write_checksum=True).compress
        data = pack(Random(packing).randbytes(1 << 16))
        middle = len(data) // 2
        path = save(tmp_path, data[:middle] + b"\xa5" * 600 + data[middle + 600 :])
        # What comes out before the damage shows may already be no text.
        with pytest.raises((HostReadError, MalformedInputError)):
            open_capture(path, CaptureFormat.CPUINFO)

    @pytest.mark.parametrize("later", [False, True], ids=["first frame", "second frame"])
    def test_an_xz_window_of_a_gigabyte_is_refused(self, later: bool) -> None:
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 4096}]
        small = lzma.compress(b"x", filters=filters)
        # Written by hand, since to make one takes that memory: LZMA2's property
        # byte 37 is 1.5 GiB, and the block header has a checksum of its own.
        import zlib

        block = bytes.fromhex("02002101") + bytes([37, 0, 0, 0])
        greedy = small[:12] + block + zlib.crc32(block).to_bytes(4, "little") + small[24:]
        stream = unpack(as_stream(small * later + greedy), "x")
        with pytest.raises(UNPACK_ERRORS, match=r"[Mm]emory"):
            stream.read()

    def test_a_zstd_window_of_a_gigabyte_is_refused(self) -> None:
        # Magic, no content size, window descriptor 2^30, an empty last block.
        stream = unpack(as_stream(bytes.fromhex("28b52ffd 00 a0 010000")), "x")
        with pytest.raises(UNPACK_ERRORS, match="memory"):
            stream.read()

    @given(st.sampled_from(sorted(PACKERS)), st.data())
    def test_mangled_data_raises_nothing_unforeseen(
        self, packing: str, draw: st.DataObject
    ) -> None:
        data = bytearray(PACKERS[packing](tar_of((CPUINFO, SPR), ("proc/version", "Linux"))))
        for _ in range(draw.draw(st.integers(1, 4))):
            data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
        end = draw.draw(st.integers(0, len(data)))
        with contextlib.suppress(TdxReclaimError, *UNPACK_ERRORS):
            head, stream = read_head(unpack(as_stream(bytes(data[:end])), "x"))
            tar = Archive(stream, WANTED, "x")
            assert len(head) <= HEAD_BYTES
            tar.read(CPUINFO)


class TestTar:
    @pytest.mark.parametrize("prefix", ["", "./", "host/", "./host/", "/"])
    @pytest.mark.parametrize(
        "format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
    )
    def test_where_the_host_may_be(self, prefix: str, format_: int) -> None:
        data = tar_of((prefix + CPUINFO, SPR), (prefix + "proc/version", "Linux"), format_=format_)
        tar = archive(data)
        assert tar.read("proc/version") == "Linux"
        assert tar.read(CPUINFO) == SPR, "kept on the way to the other"
        assert tar.read(LSCPU) is None

    def test_two_hosts_are_not_taken_for_the_first(self) -> None:
        tar = archive(tar_of(("a/" + CPUINFO, SPR), ("b/" + CPUINFO, AMD)))
        assert tar.read(CPUINFO) == SPR
        with pytest.raises(MalformedInputError, match="several captured hosts are in it: a and b"):
            tar.read("proc/version")

    def test_a_host_at_the_top_is_alone(self) -> None:
        tar = archive(tar_of((CPUINFO, SPR), ("chroot/" + CPUINFO, AMD)))
        assert tar.read("proc/version") is None
        assert tar.read(CPUINFO) == SPR

    def test_a_name_with_a_dot_in_it_is_the_file_that_it_unpacks_to(self) -> None:
        for name in ("a/proc/./cpuinfo", "a//proc/cpuinfo", "./a/./proc/cpuinfo"):
            tar = archive(tar_of(("a/" + CPUINFO, AMD), (name, SPR)))
            with pytest.raises(MalformedInputError, match="is in it twice"):
                tar.read("proc/version")

    def test_a_file_that_comes_twice_counts_only_if_it_is_the_same(self) -> None:
        same = archive(tar_of((CPUINFO, SPR), (CPUINFO, SPR)))
        assert same.read("proc/version") is None
        changed = archive(tar_of((CPUINFO, AMD), (CPUINFO, SPR)))
        assert changed.read(CPUINFO) == AMD
        with pytest.raises(MalformedInputError, match="is in it twice, and not the same"):
            changed.read("proc/version")

    def test_a_host_deeper_down_is_none(self) -> None:
        assert not archive(tar_of(("a/b/" + CPUINFO, SPR))).find_any()

    @pytest.mark.parametrize("name", ["../" + CPUINFO, "../../" + CPUINFO, "a/../" + CPUINFO])
    def test_a_name_that_leads_out_is_no_file_of_the_host(self, name: str) -> None:
        assert not archive(tar_of((name, AMD))).find_any()

    def test_nothing_is_written_to_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        tar = archive(tar_of(("../escaped", "x"), (CPUINFO, SPR), ("/tmp/../absolute", "x")))  # noqa: S108
        assert tar.read("proc/version") is None
        assert list(tmp_path.iterdir()) == []
        assert not (tmp_path.parent / "escaped").exists()

    @pytest.mark.parametrize(
        ("kind", "link", "why"),
        [
            (tarfile.SYMTYPE, "/proc/cpuinfo", "a link"),
            (tarfile.SYMTYPE, "../../etc/passwd", "a link"),
            (tarfile.LNKTYPE, "/proc/cpuinfo", "a link"),
            (tarfile.CHRTYPE, "", "not a regular file"),
            (tarfile.BLKTYPE, "", "not a regular file"),
            (tarfile.FIFOTYPE, "", "not a regular file"),
            (tarfile.DIRTYPE, "", "not a regular file"),
        ],
    )
    def test_what_is_no_regular_file_is_not_followed(
        self, kind: bytes, link: str, why: str
    ) -> None:
        tar = archive(tar_of(Spec(CPUINFO, kind=kind, link=link), ("proc/version", "Linux")))
        with pytest.raises(HostReadError, match=why):
            tar.read(CPUINFO)
        assert tar.read("proc/version") == "Linux"

    def test_a_link_for_the_processors_is_an_error_and_not_this_machine(
        self, tmp_path: Path
    ) -> None:
        path = save(tmp_path, tar_of(Spec(CPUINFO, kind=tarfile.SYMTYPE, link="/proc/cpuinfo")))
        with (
            contextlib.closing(open_capture(path).source) as source,
            pytest.raises(HostReadError, match="a link"),
        ):
            read_host(source)

    def test_zeros_that_tar_puts_after_a_file_of_sys_are_no_text(self) -> None:
        parameter = "sys/module/kvm_intel/parameters/tdx"
        tar = archive(tar_of((CPUINFO, SPR), (parameter, "Y\n" + "\0" * 4094)))
        assert tar.read(parameter) == "Y\n"

    def test_a_file_of_proc_that_tar_made_empty_is_named_as_such(self, tmp_path: Path) -> None:
        capture = open_capture(save(tmp_path, tar_of((CPUINFO, ""))))
        with (
            contextlib.closing(capture.source),
            pytest.raises(MalformedInputError, match="empty, as tar makes it"),
        ):
            read_host(capture.source)

    def test_long_names_of_every_kind(self) -> None:
        long = "x" * 300
        for format_ in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            tar = archive(
                tar_of(
                    (long + "/junk", "y"),
                    Spec("link", kind=tarfile.SYMTYPE, link=long),
                    (long + "/" + CPUINFO, SPR),
                    format_=format_,
                )
            )
            assert tar.read(CPUINFO) == SPR

    def test_a_pax_size_counts_over_the_headers(self) -> None:
        record = b"12 size=600\n"
        text = b"x" * 600
        data = (
            header("pax", len(record), tarfile.XHDTYPE)
            + padded(record)
            + header("junk", 5)
            + padded(text)
        )
        assert archive(data + tar_of((CPUINFO, SPR))).read(CPUINFO) == SPR

    def test_global_records_are_passed_over(self) -> None:
        record = b"19 path=elsewhere1\n"
        start = header("pax", len(record), tarfile.XGLTYPE) + padded(record)
        assert archive(start * 9 + tar_of((CPUINFO, SPR))).read(CPUINFO) == SPR
        assert archive(start + tar_of((CPUINFO, SPR))).read(CPUINFO) == SPR

    @pytest.mark.parametrize("name", [CPUINFO, "other"])
    def test_a_sparse_member_is_not_read_and_what_follows_is(self, name: str) -> None:
        sparse = bytearray(header(name, 512, tarfile.GNUTYPE_SPARSE))
        sparse[482] = 1  # more of the map follows, two blocks of it
        sparse[148:156] = b" " * 8
        sparse[148:156] = b"%06o\0 " % sum(sparse)
        more, last = bytearray(512), bytearray(512)
        more[504] = 1
        tar = archive(bytes(sparse + more + last) + b"x" * 512 + tar_of(("proc/version", "Linux")))
        assert tar.read("proc/version") == "Linux"
        if name == CPUINFO:
            with pytest.raises(HostReadError, match="sparse"):
                tar.read(CPUINFO)

    @pytest.mark.parametrize(
        "keys",
        [
            ["GNU.sparse.map=0,a,,"],
            ["GNU.sparse.size=9", "GNU.sparse.offset=x"],
            ["GNU.sparse.major=1", "GNU.sparse.minor=0", f"GNU.sparse.name={CPUINFO}"],
        ],
    )
    def test_a_sparse_map_in_pax_records_is_not_taken_apart(self, keys: list[str]) -> None:
        records = b"".join(b"%02d %s\n" % (len(key) + 4, key.encode()) for key in keys)
        data = header("pax", len(records), tarfile.XHDTYPE) + padded(records)
        data += header(CPUINFO, 6) + padded(b"x\ny\nz\n") + tar_of(("proc/version", "Linux"))
        tar = archive(data)
        assert tar.read("proc/version") == "Linux"
        with pytest.raises(HostReadError, match="sparse"):
            tar.read(CPUINFO)

    @pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
    def test_a_header_of_many_mebibytes_is_refused_unread(self, kind: bytes) -> None:
        size = 64 << 20
        stream = Counting(itertools.chain([header("x", size, kind)], itertools.repeat(b"1" * 4096)))
        tar = Archive(io.BufferedReader(stream), WANTED, "x")
        assert not tar.find_any()
        assert tar.damage == "a member's header is longer than 1 MiB"
        assert stream.taken <= HEADER_LIMIT_BYTES

    @pytest.mark.parametrize(
        "data",
        [
            b"1" * (1 << 20),
            b"9 size=1\n" * 5 + b"0 path=x\n",
            b"99 path=x\n",
            b"3 x",
            b" path=x\n",
            b"1e3 path=x\n",
            "\u0664 x=y\n".encode(),
            b"-5 path=x\n",
        ],
        ids=range(8),
    )
    def test_damaged_pax_records(self, data: bytes) -> None:
        # The first took minutes, and the second went round for ever.
        tar = archive(
            header("pax", len(data), tarfile.XHDTYPE) + padded(data) + tar_of((CPUINFO, SPR))
        )
        with pytest.raises(HostReadError, match="damaged pax header"):
            tar.read(CPUINFO)

    @pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
    def test_headers_without_end_do_not_recurse(self, kind: bytes) -> None:
        tar = archive(header("x", 0, kind) * 5000 + tar_of((CPUINFO, SPR)))
        with pytest.raises(HostReadError, match="headers on one member"):
            tar.read(CPUINFO)

    @pytest.mark.parametrize("size", [1 << 33, 1 << 62, 1 << 80])
    def test_a_size_that_cannot_be_is_not_sought(self, size: int) -> None:
        # A test that hangs is how this fails.
        tar = archive(header("junk", size) + END)
        with pytest.raises(HostReadError, match="cut off"):
            tar.read(CPUINFO)

    def test_a_wanted_member_that_claims_too_much_is_not_read(self) -> None:
        with pytest.raises(HostReadError, match="longer than 32 MiB"):
            archive(header(CPUINFO, 1 << 62) + END).read(CPUINFO)

    def test_a_negative_size(self) -> None:
        block = bytearray(header("junk", 0))
        block[124:136] = b"\xff" * 12
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        with pytest.raises(HostReadError, match="negative"):
            archive(bytes(block) + END).read(CPUINFO)

    @packed_in
    def test_cut_short_before_the_member_it_is_unreadable(self, packing: str) -> None:
        # More than the head from which the form is told, which must be whole.
        noise = os.urandom(4 * HEAD_BYTES)
        data = PACKERS[packing](
            tar_of((CPUINFO, SPR), Spec("noise", noise), ("proc/version", "Linux"))
        )
        _, stream = read_head(unpack(as_stream(data[: len(data) // 2]), "x"))
        tar = Archive(stream, WANTED, "x")
        assert tar.read(CPUINFO) == SPR, "before the damage"
        with pytest.raises(HostReadError, match="damaged before it"):
            tar.read("proc/version")

    def test_cut_short_in_the_member_it_is_unreadable(self) -> None:
        data = tar_of((CPUINFO, SPR))
        with pytest.raises(HostReadError, match="damaged"):
            archive(data[: 512 + 40]).read(CPUINFO)

    @pytest.mark.parametrize(
        "kept", [512 * 2, 512 * 2 + 100], ids=["between members", "in a header"]
    )
    def test_a_missing_end_is_damage_and_not_absence(self, kept: int) -> None:
        data = tar_of((CPUINFO, SPR), ("proc/version", "Linux"))
        tar = archive(data[:kept])
        assert tar.read(CPUINFO) == SPR
        with pytest.raises(HostReadError, match="damaged before it"):
            tar.read("proc/version")

    def test_a_damaged_header_is_damage_and_not_the_end(self) -> None:
        data = bytearray(tar_of((CPUINFO, SPR), ("proc/version", "Linux")))
        data[512 * 2 + 3] ^= 0xFF
        with pytest.raises(HostReadError, match="damaged before it"):
            archive(bytes(data)).read("proc/version")

    def test_an_empty_archive(self, tmp_path: Path) -> None:
        with pytest.raises(MalformedInputError, match="no captured host"):
            open_capture(save(tmp_path, END), CaptureFormat.TAR)
        with pytest.raises(MalformedInputError, match="no captured host"):
            open_capture(save(tmp_path, tar_of(("readme", "x"))))

    def test_a_damaged_archive_is_named_as_such(self, tmp_path: Path) -> None:
        with pytest.raises(MalformedInputError, match="not readable as tar"):
            open_capture(save(tmp_path, tar_of(("readme", "x" * 900))[:1000]))

    def test_it_is_read_to_its_end_before_it_says_that_there_is_no_tdx(self) -> None:
        host = tar_of(
            ("h/" + CPUINFO, AMD), ("h/proc/sys/kernel/osrelease", "6.18.0\n"), ("h/last", "")
        ).removesuffix(b"\0" * 512)
        size = 256 << 20
        rest = itertools.chain(
            [host.rstrip(b"\0").ljust(512 * 5, b"\0"), header("big", size)],
            itertools.repeat(b"x" * 4096, size // 4096),
        )
        stream = Counting(rest)
        facts = read_host(Archive(io.BufferedReader(stream), WANTED, "x"))
        assert facts.groups[0].vendor == "AuthenticAMD"
        assert facts.release.value == "6.18.0"
        assert stream.taken > size

    def test_members_are_not_kept(self) -> None:
        def members() -> Iterator[bytes]:
            for number in range(4000):
                yield header(f"folder/{number:0>90}")
            yield tar_of((CPUINFO, SPR))

        tracemalloc.start()
        try:
            tar = Archive(io.BufferedReader(Counting(members())), WANTED, "x")
            assert tar.read(CPUINFO) == SPR
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2 << 20

    def test_kernel_configurations_without_number_are_not_kept(self) -> None:
        configs = [(f"boot/config-{number}", "x") for number in range(200)]
        with pytest.raises(HostReadError, match="more than 64 kernel configurations"):
            archive(tar_of(*configs, (CPUINFO, SPR))).read(CPUINFO)

    def test_the_configuration_of_the_running_kernel_is_found(self) -> None:
        tar = archive(tar_of(("boot/config-6.18.0", "CONFIG_INTEL_TDX_HOST=y\n"), (CPUINFO, SPR)))
        assert tar.read(CPUINFO) == SPR
        assert tar.read("boot/config-6.18.0") == "CONFIG_INTEL_TDX_HOST=y\n"
        assert tar.read("boot/config-6.17.0") is None

    @given(st.binary(max_size=3000))
    def test_any_bytes(self, data: bytes) -> None:
        with contextlib.suppress(TdxReclaimError):
            archive(data).read(CPUINFO)

    @given(st.integers(0, 511), st.binary(min_size=1, max_size=8), st.booleans())
    def test_any_header(self, at: int, put: bytes, correct: bool) -> None:
        block = bytearray(header(CPUINFO, len(SPR)))
        block[at : at + len(put)] = put
        del block[512:]
        if correct:
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
        with contextlib.suppress(TdxReclaimError):
            text = archive(bytes(block) + padded(SPR.encode()) + END).read(CPUINFO)
            assert text is None or SPR.startswith(text) or text.startswith(SPR)


class TestTree:
    @staticmethod
    def make(root: Path, *, cpuinfo: str | None = SPR) -> Path:
        (root / "proc").mkdir(parents=True)
        if cpuinfo is not None:
            save(root, cpuinfo, CPUINFO)
        return root

    def test_a_host_one_folder_down(self, tmp_path: Path) -> None:
        self.make(tmp_path / "sosreport-x")
        with opened(str(tmp_path)) as found:
            assert found == (CaptureFormat.TREE, SPR)

    def test_several_hosts_are_a_question(self, tmp_path: Path) -> None:
        self.make(tmp_path / "a")
        self.make(tmp_path / "b")
        with pytest.raises(MalformedInputError, match="2 captured hosts"):
            open_capture(str(tmp_path))

    @pytest.mark.parametrize("names", [[], ["readme"]])
    def test_no_host(self, names: list[str], tmp_path: Path) -> None:
        for name in names:
            save(tmp_path, "x", name)
        with pytest.raises(MalformedInputError, match="no captured host"):
            open_capture(str(tmp_path))

    def test_a_folder_reached_by_a_link_is_no_host_in_it(self, tmp_path: Path) -> None:
        self.make(tmp_path / "elsewhere" / "host")
        (tmp_path / "given").mkdir()
        (tmp_path / "given" / "link").symlink_to(tmp_path / "elsewhere" / "host")
        with pytest.raises(MalformedInputError, match="no captured host"):
            open_capture(str(tmp_path / "given"))

    def test_the_root_itself_may_be_a_link(self, tmp_path: Path) -> None:
        self.make(tmp_path / "host")
        (tmp_path / "link").symlink_to("host")
        with opened(str(tmp_path / "link")) as found:
            assert found == (CaptureFormat.TREE, SPR)

    @pytest.mark.parametrize("target", ["/proc/cpuinfo", "../../outside", "../../host-too/cpuinfo"])
    def test_a_link_that_leads_out_is_refused(self, target: str, tmp_path: Path) -> None:
        root = self.make(tmp_path / "host", cpuinfo=None)
        save(tmp_path, AMD, "outside")
        (tmp_path / "host-too").mkdir()
        save(tmp_path, AMD, "host-too/cpuinfo")
        (root / CPUINFO).symlink_to(target)
        with pytest.raises(HostReadError, match="leads out of the tree"):
            Tree(str(root)).read(CPUINFO)

    def test_a_folder_that_is_a_link_out_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "host").mkdir()
        (tmp_path / "host" / "proc").symlink_to("/proc")
        with pytest.raises(HostReadError, match="leads out of the tree"):
            read_host(open_capture(str(tmp_path / "host")).source)

    def test_a_link_that_stays_inside_is_followed(self, tmp_path: Path) -> None:
        root = self.make(tmp_path / "host", cpuinfo=None)
        save(root, SPR, "kept")
        (root / CPUINFO).symlink_to("../kept")
        assert Tree(str(root)).read(CPUINFO) == SPR

    def test_a_link_in_a_circle(self, tmp_path: Path) -> None:
        root = self.make(tmp_path / "host", cpuinfo=None)
        (root / CPUINFO).symlink_to("cpuinfo")
        with pytest.raises(HostReadError) as raised:
            Tree(str(root)).read(CPUINFO)
        assert raised.value.errno == errno.ELOOP

    def test_a_link_to_nothing_is_absent(self, tmp_path: Path) -> None:
        root = self.make(tmp_path / "host", cpuinfo=None)
        (root / CPUINFO).symlink_to("nothing")
        assert Tree(str(root)).read(CPUINFO) is None

    def test_a_fifo_does_not_hang(self, tmp_path: Path) -> None:
        root = self.make(tmp_path / "host", cpuinfo=None)
        os.mkfifo(root / CPUINFO)
        with pytest.raises(HostReadError, match="not a regular file"):
            Tree(str(root)).read(CPUINFO)

    def test_a_folder_in_a_files_place(self, tmp_path: Path) -> None:
        root = self.make(tmp_path / "host", cpuinfo=None)
        (root / CPUINFO).mkdir()
        with pytest.raises(HostReadError):
            Tree(str(root)).read(CPUINFO)

    def test_a_file_in_a_folders_place_is_absent(self, tmp_path: Path) -> None:
        save(tmp_path, "x", "proc")
        assert Tree(str(tmp_path)).read(CPUINFO) is None

    def test_a_file_that_may_not_be_read(self, tmp_path: Path) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may read every file")
        root = self.make(tmp_path / "host")
        (root / CPUINFO).chmod(0)
        with pytest.raises(HostReadError) as raised:
            Tree(str(root)).read(CPUINFO)
        assert raised.value.errno == errno.EACCES

    def test_a_file_that_is_too_long(self, tmp_path: Path) -> None:
        root = self.make(tmp_path / "host")
        os.truncate(root / CPUINFO, TEXT_LIMIT_BYTES + 1)
        with pytest.raises(HostReadError, match="longer than 32 MiB"):
            Tree(str(root)).read(CPUINFO)

    def test_bytes_that_are_not_utf8(self, tmp_path: Path) -> None:
        root = self.make(tmp_path / "host")
        (root / CPUINFO).write_bytes(SPR.encode() + b"model name\t: \xff\n")
        assert read_host(Tree(str(root))).groups[0].model == 143

    def test_a_tree_and_its_tar_say_the_same(self, tmp_path: Path) -> None:
        root = self.make(tmp_path / "host")
        (root / "proc" / "version").write_text("Linux version 6.18.0 (x)\n")
        packed = tmp_path / "host.tar"
        with tarfile.open(packed, "w") as tar:
            tar.add(root, "host")
        with contextlib.closing(open_capture(str(packed)).source) as source:
            assert read_host(source) == read_host(open_capture(str(root)).source)


# What each shared capture is recognised as, and the vendor, family and model in it.
CASES = {
    "cpuid-GenuineIntel00606A6_ICX_04.txt": ("cpuid", "GenuineIntel", 6, 0x6A, 96),
    "cpuid-GenuineIntel00806F8_SapphireRapids_05.txt": ("cpuid", "GenuineIntel", 6, 0x8F, 40),
    "cpuinfo-sapphirerapids-8480plus-bare-metal.txt": ("cpuinfo", "GenuineIntel", 6, 0x8F, 1),
    "cpuinfo-zen5.txt": ("cpuinfo", "AuthenticAMD", 26, 0x44, 1),
    "dmesg-module-init-failed.txt": ("kernel-log", None, None, None, None),
    "dmesg-reclaim-seamcall-failed.txt": ("kernel-log", None, None, None, None),
    "dmesg-spr-8480ctdx-module-initialized.txt": ("kernel-log", "GenuineIntel", 6, 0x8F, 1),
    "lscpu-emr-8558.txt": ("lscpu", "GenuineIntel", 6, 0xCF, 192),
    "sysroot-armv7.tar.gz": ("tar", None, None, None, None),
    "sysroot-x86_64-epyc_7451.tar.gz": ("tar", "AuthenticAMD", 23, 1, 96),
}


def shared_cases() -> Path:
    if not SHARED_CASES.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{SHARED_CASES} is not there, and CI must have it")
        pytest.skip(f"{SHARED_CASES} is not there")
    return SHARED_CASES


@pytest.mark.parametrize("name", CASES)
def test_shared_cases(name: str) -> None:
    form, vendor, family, model, size = CASES[name]
    capture = open_capture(str(shared_cases() / name))
    with contextlib.closing(capture.source):
        facts = read_host(capture.source)
    assert capture.format == form
    identities = [(g.vendor, g.family, g.model, g.size) for g in facts.groups]
    assert identities == ([] if vendor is None else [(vendor, family, model, size)])
    assert facts.architecture == ("arm" if "armv7" in name else "x86" if vendor else None)
    origins = {fact.evidence.origin for fact in (facts.release, facts.hypervisor, facts.pw_mce)}
    assert origins == {Origin.CAPTURED}
    assert facts.pw_mce.value is not True


def test_the_shared_logs_tell_the_modules_state() -> None:
    ready = read_host(
        open_capture(str(shared_cases() / "dmesg-spr-8480ctdx-module-initialized.txt")).source
    )
    failed = read_host(open_capture(str(shared_cases() / "dmesg-module-init-failed.txt")).source)
    assert (ready.log_enabled.value, ready.log_ready.value) == (True, True)
    assert (failed.log_enabled.value, failed.log_ready.value) == (None, False)
