"""Compressed files, and a captured host as a tar: read once, as a stream.

A tar is read no further than the last member that is asked for.  Whoever made
it may mean harm: nothing is written to disk, links and devices are not
followed, and what is unpacked is bounded.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from tdxreclaim.errors import HostReadError, MalformedInputError
from tdxreclaim.facts.evidence import Origin, flat
from tdxreclaim.facts.source import TEXT_LIMIT_BYTES, decode, too_long

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A sosreport unpacks to some hundred MiB; this stops a bomb.
UNPACKED_LIMIT_BYTES = 4 << 30
# One header of a member (a long name, pax records) is taken into memory whole.
HEADER_LIMIT_BYTES = 1 << 20
# A member has up to four of them.
_MOST_HEADERS = 16
# A host has a handful of kernels; each of their configurations is kept.
_MOST_CONFIGS = 64
# What an xz or zstd stream may ask for its window.
_WINDOW_LIMIT_BYTES = 256 << 20
# Compressed data is fed in such pieces: what one becomes is in memory at once.
_FED_BYTES = 1 << 10

# The head of a file, from which its form is told.
HEAD_BYTES = 1 << 16
_TAR_MAGIC_AT = 257


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than a limit."""

    def __init__(self, inner: io.BufferedIOBase, name: str, limit: int) -> None:
        self._inner = inner
        self._name = name
        self._limit = limit
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._inner.read1(len(buffer))
        self._given += len(data)
        if self._given > self._limit:
            limit = f"{self._limit >> 20} MiB"
            raise MalformedInputError(self._name, f"it unpacks to more than {limit}: not read on")
        buffer[: len(data)] = data
        return len(data)


class _Rejoined(io.RawIOBase):
    """A stream whose head was read, with the head put back."""

    def __init__(self, head: bytes, rest: io.BufferedIOBase) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._head[: len(buffer)] if self._head else self._rest.read1(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def read_head(stream: io.BufferedIOBase) -> tuple[bytes, io.BufferedReader]:
    """Return the first 64 KiB, and the stream with them put back.

    `io.BufferedReader.peek` will not do: of a pipe it shows what one read gave.
    """
    head = bytearray()
    while len(head) < HEAD_BYTES and (data := stream.read1(HEAD_BYTES - len(head))):
        head += data
    return bytes(head), io.BufferedReader(_Rejoined(bytes(head), stream), HEAD_BYTES)


def unpack(
    stream: io.BufferedIOBase, name: str, *, limit: int = UNPACKED_LIMIT_BYTES
) -> io.BufferedReader:
    """Return *stream* decompressed (gzip, bzip2, xz, zstd) or, if it is not packed, as it is.

    Reading the result raises what `unpack_errors` lists, and
    `MalformedInputError` after *limit* bytes.

    Raises:
        MalformedInputError: it is zstd and the library is not installed.

    """
    head, packed = read_head(stream)
    inner: io.BufferedIOBase
    # Each import is for one compression alone.
    if head.startswith(b"\x1f\x8b"):
        import gzip

        inner = gzip.GzipFile(fileobj=packed)
    elif head.startswith(b"BZh"):
        import bz2

        inner = bz2.BZ2File(packed)
    elif head.startswith(b"\xfd7zXZ\x00"):
        inner = cast("io.BufferedIOBase", _unpack_xz(packed))
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        inner = cast("io.BufferedIOBase", _unpack_zstd(packed, name))
    else:
        return packed
    return io.BufferedReader(_Bounded(inner, name, limit), HEAD_BYTES)


class _Decompressor(Protocol):
    """What `lzma` and zstandard have in common: it takes one frame apart."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Frames:
    """Compressed frames, one after the other.

    The libraries' own readers will not do: lzma's takes no limit for the
    window, and zstandard's takes a frame that is cut off for its end.
    """

    def __init__(
        self,
        packed: io.BufferedReader,
        new: Callable[[], _Decompressor],
        error: type[Exception],
    ) -> None:
        self._packed = packed
        self._new = new
        self._error = error
        self._frame: _Decompressor | None = None
        self._left = b""
        self._out = io.BytesIO()

    def read1(self, size: int) -> bytes:
        while not (data := self._out.read(size)):
            packed = self._left or self._packed.read(_FED_BYTES)
            if packed:
                self._feed(packed)
            elif self._frame is None:
                break
            else:
                raise EOFError("it ends before the end of its data")
        return data

    def _feed(self, packed: bytes) -> None:
        self._left = b""
        if self._frame is None:
            # xz may fill up with zeros between frames.
            packed = packed.lstrip(b"\0")
            if not packed:
                return
            self._frame = self._new()
        try:
            self._out = io.BytesIO(self._frame.decompress(packed))
        except self._error as error:
            raise zlib.error(str(error)) from error
        if self._frame.eof:
            self._left, self._frame = self._frame.unused_data, None


def _unpack_xz(packed: io.BufferedReader) -> _Frames:
    import lzma

    def new() -> _Decompressor:
        return lzma.LZMADecompressor(memlimit=_WINDOW_LIMIT_BYTES)

    return _Frames(packed, new, lzma.LZMAError)


def _unpack_zstd(packed: io.BufferedReader, name: str) -> _Frames:
    try:
        import zstandard
    except ImportError as error:
        why = 'compressed with zstd, which needs: pip install "tdxreclaim[zst]"'
        raise MalformedInputError(name, why) from error
    whole = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT_BYTES)
    return _Frames(packed, whole.decompressobj, zstandard.ZstdError)


# What reading damaged data raises.
UNPACK_ERRORS: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error)
_TAR_ERRORS: tuple[type[Exception], ...] = (*UNPACK_ERRORS, tarfile.TarError)


_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


def looks_packed(head: bytes) -> bool:
    """Whether *head* (6 bytes or more) begins compressed data that `unpack` knows."""
    return head.startswith(_PACKED)


def looks_like_tar(head: bytes) -> bool:
    """Whether *head* (512 bytes or more) begins a tar archive."""
    return head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar"


class _Member(NamedTuple):
    """A member of a tar; ``refusal`` says why its text is not read, if it is not."""

    name: str
    size: int
    refusal: str | None


class _Headers(NamedTuple):
    """What stands before a member's own header; ``None`` leaves that as it is."""

    name: str | None = None
    size: int | None = None
    sparse: bool = False


class _Tar:
    """The members of a tar stream.

    Not `tarfile.TarFile`: a few bytes can make that recurse without end, seek
    for hours or fill the memory, and it takes a damaged header for the end.
    Its `tarfile.TarInfo.frombuf` reads the single header.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._unread = 0

    def next(self) -> _Member | None:
        """Return the next member, ``None`` at the end.

        Raises:
            tarfile.TarError: a header is damaged, or claims too much.
            EOFError: it is cut off.

        """
        self._skip(self._unread)
        self._unread = 0
        before = _Headers()
        for _ in range(_MOST_HEADERS):
            block = self._stream.read(tarfile.BLOCKSIZE)
            try:
                header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                return None
            if header.size < 0:
                raise tarfile.ReadError("a member's size is negative")
            if header.type not in _HEADER_TYPES:
                return self._member(header, block, before)
            before = self._read_header(header, before)
        raise tarfile.ReadError(f"more than {_MOST_HEADERS} headers on one member")

    def text(self, member: _Member) -> bytes:
        """Return what is in the member that `next` gave last.

        Raises:
            EOFError: it is cut off.

        """
        data = self._take(member.size)
        self._unread -= member.size
        return data

    def part(self, size: int) -> bytes:
        """Return the next *size* bytes of the member that `next` gave last.

        Raises:
            EOFError: it is cut off.

        """
        data = self._take(size)
        self._unread -= size
        return data

    def _member(self, header: tarfile.TarInfo, block: bytes, before: _Headers) -> _Member:
        sparse = before.sparse or header.type == tarfile.GNUTYPE_SPARSE
        if header.type == tarfile.GNUTYPE_SPARSE:
            more = block[_SPARSE_GOES_ON_AT]
            while more:
                more = self._take(tarfile.BLOCKSIZE)[_SPARSE_MAP_GOES_ON_AT]
        size = header.size if before.size is None else before.size
        if header.isreg() or header.type not in tarfile.SUPPORTED_TYPES:
            self._unread = _padded(size)
        refusal = None
        if header.issym() or header.islnk():
            refusal = "a link in the archive, not followed"
        elif sparse:
            refusal = "a sparse file in the archive, not read"
        elif not header.isreg():
            refusal = "not a regular file in the archive, not followed"
        return _Member(before.name or header.name, size, refusal)

    def _read_header(self, header: tarfile.TarInfo, before: _Headers) -> _Headers:
        # Global records and link targets tell nothing that is asked.
        if header.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            self._skip(_padded(header.size))
            return before
        if header.size > HEADER_LIMIT_BYTES:
            raise tarfile.ReadError("a member's header is longer than 1 MiB")
        data = self._take(_padded(header.size))[: header.size]
        if header.type == tarfile.GNUTYPE_LONGNAME:
            return before._replace(name=_decode_name(data.partition(b"\0")[0]))
        return _pax_headers(data, before)

    def _take(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError("it is cut off")
        return data

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._take(min(size, HEADER_LIMIT_BYTES)))


_PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_HEADER_TYPES = frozenset(
    (*_PAX_TYPES, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
)
# Where a sparse member's header, and each block of its map, say that more of the map follows.
_SPARSE_GOES_ON_AT = 482
_SPARSE_MAP_GOES_ON_AT = 504
# The length of a pax record and of a file have no more digits.
_LONGEST_NUMBER = 20


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _decode_name(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _pax_headers(data: bytes, before: _Headers) -> _Headers:
    """Return *before* with what the pax records ``LENGTH KEY=VALUE`` say.

    Source: POSIX.1-2017, pax, "pax Extended Header".
    """
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + _LONGEST_NUMBER)
        length = data[at : max(at, space)]
        end = at + int(length) if length.isdigit() else at
        if not at < space < end <= len(data):
            raise tarfile.ReadError("a damaged pax header")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise tarfile.ReadError("a damaged pax header")
        if key in (b"path", b"GNU.sparse.name"):
            before = before._replace(name=_decode_name(value))
        elif key == b"size" and value.isdigit() and len(value) < _LONGEST_NUMBER:
            before = before._replace(size=int(value))
        if key.startswith(b"GNU.sparse."):
            before = before._replace(sparse=True)
        at = end
    return before


class Archive:
    """A captured host in a tar stream.

    ``wanted`` are the paths that may be asked for: those that come by on the
    way to another are kept.  The first of them fixes the folder that the host
    is in.  At the top of the archive the host is alone, whatever its folders
    hold; a second one beside a first in a folder is refused, and so is a file
    that comes twice and differs: which of them counts is not for us to say.
    ``file`` is what to close in the end.
    """

    origin = Origin.CAPTURED

    def __init__(
        self,
        stream: io.BufferedReader,
        wanted: frozenset[str],
        name: str,
        file: io.BufferedIOBase | None = None,
    ) -> None:
        self._file = file
        self._name = name
        self._wanted = wanted
        self._found: dict[str, str | HostReadError] = {}
        self._prefix: str | None = None
        self._damage: str | None = None
        self._configs = 0
        self._tar: _Tar | None = _Tar(stream)

    def read(self, path: str) -> str | None:
        """Return the text of member *path*; see `Source.read`.

        Raises:
            MalformedInputError: the archive unpacks to more than 4 GiB.

        """
        while path not in self._found and self._advance():
            pass
        match self._found.get(path):
            case HostReadError() as error:
                raise error
            case None if self._damage:
                raise HostReadError(path, f"the archive is damaged before it ({self._damage})")
            case text:
                return text

    def label(self, path: str) -> str:
        """Return *path*."""
        return path

    def close(self) -> None:
        """Close the file; what was read of it stays."""
        if self._file is not None:
            self._file.close()

    def find_any(self) -> bool:
        """Whether any of the wanted files is in it; reads up to the first."""
        while not self._found and self._advance():
            pass
        return bool(self._found)

    @property
    def damage(self) -> str | None:
        """Why the rest of the archive could not be read, if it could not."""
        return self._damage

    def _advance(self) -> bool:
        """Take the next member; false at the end."""
        if self._tar is None:
            return False
        try:
            member = self._tar.next()
            if member is not None:
                self._keep(self._tar, member)
                return True
        except _TAR_ERRORS as error:
            self._damage = str(error)
        self._tar = None
        return False

    def _keep(self, tar: _Tar, member: _Member) -> None:
        prefix, path = self._split(member.name)
        if path is None or (self._prefix == "" and prefix):
            return
        if self._prefix is None:
            self._prefix = prefix
        elif self._prefix != prefix:
            both = f"{flat(self._prefix)} and {flat(prefix or 'the top')}"
            raise MalformedInputError(self._name, f"several captured hosts are in it: {both}")
        if path in self._found:
            if self._found[path] != self._text(tar, member, path):
                why = f"{path} is in it twice, and not the same"
                raise MalformedInputError(self._name, why)
            return
        if path not in self._wanted:
            self._configs += 1
            if self._configs > _MOST_CONFIGS:
                raise tarfile.ReadError(f"more than {_MOST_CONFIGS} kernel configurations")
        self._found[path] = self._text(tar, member, path)

    @staticmethod
    def _text(tar: _Tar, member: _Member, path: str) -> str | HostReadError:
        if member.refusal is not None:
            return HostReadError(path, member.refusal)
        if member.size > TEXT_LIMIT_BYTES:
            return too_long(path)
        return decode(tar.text(member))

    def _split(self, name: str) -> tuple[str, str | None]:
        """Return the folder that the host would be in, and the wanted path."""
        # "a/./b" is unpacked as "a/b", and so is "a//b".
        parts = [part for part in name.split("/") if part not in ("", ".")]
        name = "" if ".." in parts else "/".join(parts)
        if name in self._wanted or self._is_config(name):
            return "", name
        folder, _, rest = name.partition("/")
        if rest in self._wanted or self._is_config(rest):
            return folder, rest
        return "", None

    @staticmethod
    def _is_config(path: str) -> bool:
        # Its name has the kernel release in it, which may come later.
        return path.startswith("boot/config-")


class MemberStream(io.RawIOBase):
    """What is in a member of a tar, as a stream; only until the next member is taken."""

    def __init__(self, tar: _Tar, size: int) -> None:
        self._tar = tar
        self._left = size

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill *buffer* with what comes next."""
        data = self._tar.part(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


class Member(NamedTuple):
    """A member of a tar: ``refusal`` says why it is not read, if it is not."""

    name: str
    size: int
    refusal: str | None
    stream: MemberStream


def members(stream: io.BufferedReader) -> Iterator[Member]:
    """Yield the members of a tar stream in order, each to be read before the next is taken.

    Raises:
        tarfile.TarError, and what `UNPACK_ERRORS` lists: it is damaged.

    """
    tar = _Tar(stream)
    while (member := tar.next()) is not None:
        readable = member.size if member.refusal is None else 0
        yield Member(
            member.name.removeprefix("./").lstrip("/"),
            member.size,
            member.refusal,
            MemberStream(tar, readable),
        )
