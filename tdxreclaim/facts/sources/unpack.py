"""Decompression within bounds."""

from __future__ import annotations

import io
import sys
import zlib
from typing import TYPE_CHECKING, Protocol, cast

from tdxreclaim.errors import MalformedInputError

if TYPE_CHECKING:
    from collections.abc import Callable

# A sosreport unpacks to some hundred MiB; this stops a bomb.
UNPACKED_LIMIT_BYTES = 4 << 30


# What an xz or zstd stream may ask for its window.
_WINDOW_LOG = 28
_WINDOW_LIMIT_BYTES = 1 << _WINDOW_LOG


# Compressed data is fed in such pieces: what one becomes is in memory at once.
_FED_BYTES = 1 << 10


# The head of a file, from which its form is told.
HEAD_BYTES = 1 << 16


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
    """A stream whose head was read, with the head put back; *error* is what ended it, if one did."""

    def __init__(
        self, head: bytes, rest: io.BufferedIOBase, error: Exception | None = None
    ) -> None:
        self._head = memoryview(head)
        self._rest = rest
        self._error = error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._head and self._error is not None:
            raise self._error
        data = self._head[: len(buffer)] if self._head else self._rest.read1(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def read_up_to(stream: io.BufferedIOBase, size: int) -> tuple[bytes, io.BufferedReader]:
    """Return the first *size* bytes or what came before damage, and the stream with them put back."""
    data = bytearray()
    error: Exception | None = None
    try:
        while len(data) < size and (piece := stream.read1(size - len(data))):
            data += piece
    except UNPACK_ERRORS as raised:
        error = raised
    head = bytes(data)
    return head, io.BufferedReader(_Rejoined(head, stream, error), HEAD_BYTES)


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
    if sys.version_info >= (3, 14):
        from compression import zstd

        options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
        return _Frames(packed, lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError)
    try:
        import zstandard
    except ImportError as error:
        why = 'compressed with zstd, which needs: pip install "tdxreclaim[zst]"'
        raise MalformedInputError(name, why) from error
    whole = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT_BYTES)
    return _Frames(packed, whole.decompressobj, zstandard.ZstdError)


# What reading damaged data raises.
UNPACK_ERRORS: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error)


_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


def looks_packed(head: bytes) -> bool:
    """Whether *head* (6 bytes or more) begins compressed data that `unpack` knows."""
    return head.startswith(_PACKED)
