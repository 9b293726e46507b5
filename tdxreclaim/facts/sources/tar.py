"""A small bounded reader of tar archives."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# One header of a member (a long name, pax records) is taken into memory whole.
HEADER_LIMIT_BYTES = 1 << 20


# A member has up to four of them.
_MOST_HEADERS = 16


_TAR_MAGIC_AT = 257


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


_READ_SIZE = 1 << 20


# A plain tar may be a pipe without end.
ARCHIVE_LIMIT_BYTES = 64 << 30


# What fills up a tape's block is far shorter.
_LONGEST_END = 64 << 20


SPARSE = "a sparse file in the archive, not read"


class TrailingDataError(tarfile.ReadError):
    """Something follows the end: two archives in one file look so."""


class _Tar:
    """The members of a tar stream.

    Not `tarfile.TarFile`: a few bytes can make that recurse without end, seek
    for hours or fill the memory, and it takes a damaged header for the end.
    Its `tarfile.TarInfo.frombuf` reads the single header.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._unread = 0
        self._passed = 0

    def _check_end(self) -> None:
        """Read what follows the end: two archives in one file look so.

        Raises:
            TrailingDataError: it is more than zeros, or has no end.

        """
        left = _LONGEST_END
        while chunk := self._stream.read(_READ_SIZE):
            left -= len(chunk)
            if chunk.count(0) != len(chunk) or left < 0:
                raise TrailingDataError("more data after the end of the archive")

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
                self._check_end()
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
            refusal = SPARSE
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
        self._passed += size
        if self._passed > ARCHIVE_LIMIT_BYTES:
            raise tarfile.ReadError(f"longer than {ARCHIVE_LIMIT_BYTES >> 30} GiB")
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
