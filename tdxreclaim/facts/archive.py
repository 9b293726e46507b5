"""Compressed files, and a captured host as a tar: read once, as a stream.

A tar is read no further than the last member that is asked for.  Whoever made
it may mean harm: nothing is written to disk, links and devices are not
followed, and what is unpacked is bounded.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from typing import TYPE_CHECKING, cast

from tdxreclaim.errors import HostReadError, MalformedInputError
from tdxreclaim.facts.evidence import Origin
from tdxreclaim.facts.source import read_bounded

if TYPE_CHECKING:
    from typing import Self

# A sosreport unpacks to some hundred MiB; this stops a bomb.
UNPACKED_LIMIT_BYTES = 4 << 30
# The name and pax headers of one member: tarfile takes them into memory whole.
HEADER_LIMIT_BYTES = 1 << 20
# What an xz or zstd stream may ask for its window.
_WINDOW_LIMIT_BYTES = 256 << 20

# The head of a file, from which its form is told.
HEAD_BYTES = 1 << 16
_TAR_MAGIC_AT = 257


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than 4 GiB."""

    def __init__(self, inner: io.BufferedIOBase, name: str) -> None:
        self._inner = inner
        self._name = name
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._inner.read1(len(buffer))
        self._given += len(data)
        if self._given > UNPACKED_LIMIT_BYTES:
            limit = f"{UNPACKED_LIMIT_BYTES >> 30} GiB"
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
    head = b""
    while len(head) < HEAD_BYTES and (data := stream.read1(HEAD_BYTES - len(head))):
        head += data
    return head, io.BufferedReader(_Rejoined(head, stream), HEAD_BYTES)


def unpack(stream: io.BufferedIOBase, name: str) -> io.BufferedReader:
    """Return *stream* decompressed (gzip, bzip2, xz, zstd) or, if it is not packed, as it is.

    Reading the result raises what `unpack_errors` lists, and
    `MalformedInputError` after 4 GiB.

    Raises:
        MalformedInputError: it is zstd and the library is not installed, or
            its window would take more than 256 MiB.

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
        import lzma

        try:
            # LZMAFile takes no limit; a trial of the head does.
            lzma.LZMADecompressor(memlimit=_WINDOW_LIMIT_BYTES).decompress(head, 1)
        except lzma.LZMAError as error:
            raise MalformedInputError(name, f"not readable as xz ({error})") from error
        inner = lzma.LZMAFile(packed)  # noqa: SIM115  (read by the caller)
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        inner = _unpack_zstd(packed, name)
    else:
        return packed
    return io.BufferedReader(_Bounded(inner, name), HEAD_BYTES)


def _unpack_zstd(packed: io.BufferedReader, name: str) -> io.BufferedIOBase:
    try:
        import zstandard
    except ImportError as error:
        why = 'compressed with zstd, which needs: pip install "tdxreclaim[zst]"'
        raise MalformedInputError(name, why) from error
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT_BYTES)
    reader = decompressor.stream_reader(packed, read_across_frames=True)
    return cast("io.BufferedIOBase", _Zstd(cast("io.RawIOBase", reader)))


class _Zstd:
    """zstandard's reader, with its error as one that the other libraries raise."""

    def __init__(self, reader: io.RawIOBase) -> None:
        self._reader = reader

    def read1(self, size: int) -> bytes:
        import zstandard

        try:
            return self._reader.read(size) or b""
        except zstandard.ZstdError as error:
            raise zlib.error(str(error)) from error


# What reading damaged data raises; LZMAError is no OSError, but zlib's twin.
UNPACK_ERRORS: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error, tarfile.TarError)


def unpack_errors() -> tuple[type[Exception], ...]:
    """Return every exception that reading a damaged file can raise."""
    import lzma

    return (*UNPACK_ERRORS, lzma.LZMAError)


def looks_like_tar(head: bytes) -> bool:
    """Whether *head* (512 bytes or more) begins a tar archive."""
    return head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar"


class _Member(tarfile.TarInfo):
    """A member whose headers are bounded: tarfile would read them whole."""

    _HEADERS = frozenset(
        (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        )
    )

    # The hook that tarfile names for subclasses: how a member goes on.
    def _proc_member(self, archive: tarfile.TarFile) -> Self:
        if self.type in self._HEADERS and self.size > HEADER_LIMIT_BYTES:
            raise tarfile.ReadError("a member's header is longer than 1 MiB")
        return cast("Self", super()._proc_member(archive))  # type: ignore[misc]


class Archive:
    """A captured host in a tar stream.

    ``wanted`` are the paths that may be asked for: those that come by on the
    way to another are kept.  The first of them fixes the folder that the host
    is in; the same names elsewhere in the archive are not this host's.
    """

    origin = Origin.CAPTURED

    def __init__(self, stream: io.BufferedReader, wanted: frozenset[str], name: str) -> None:
        self._name = name
        self._wanted = wanted
        self._found: dict[str, str | HostReadError] = {}
        self._prefix: str | None = None
        self._damage: str | None = None
        self._errors = unpack_errors()
        try:
            self._tar: tarfile.TarFile | None = tarfile.open(  # noqa: SIM115  (lives as long as we do)
                fileobj=stream, mode="r|", tarinfo=_Member
            )
        except self._errors as error:
            raise MalformedInputError(name, f"not readable as tar ({error})") from error

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
                # tarfile remembers each member; an archive can have millions.
                self._tar.members = []  # type: ignore[attr-defined]
                return True
        except self._errors as error:
            self._damage = str(error)
        self._tar = None
        return False

    def _keep(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        prefix, path = self._split(member.name)
        if path is None or path in self._found:
            return
        if self._prefix is None:
            self._prefix = prefix
        elif self._prefix != prefix:
            return
        if not member.isreg():
            kind = "a link" if member.issym() or member.islnk() else "not a regular file"
            self._found[path] = HostReadError(path, f"{kind} in the archive, not followed")
            return
        file = tar.extractfile(member)
        try:
            data = read_bounded(cast("io.BufferedIOBase", file), path)
        except HostReadError as error:
            self._found[path] = error
        else:
            self._found[path] = data.decode("utf-8", "replace")

    def _split(self, name: str) -> tuple[str, str | None]:
        """Return the folder that the host would be in, and the wanted path."""
        name = name.removeprefix("./").lstrip("/")
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
