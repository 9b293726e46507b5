"""Results of a long run on disk, chunk by chunk, so that it can go on where it ended.

A file of lines: a digest, a blank, a JSON document.  The first says of what the
results are, each other one is of a chunk, in the order in which they came.  A
line that is torn or altered ends the file, whatever comes after it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from hashlib import blake2b
from typing import IO, TYPE_CHECKING, Any, Self

from tdxreclaim.errors import HostReadError, MalformedInputError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DIGEST_BYTES = 8
_LONGEST_LINE = 1 << 26


class Part:
    """A file of results that is open, and where in it each chunk is."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        self.path = path
        self.header: dict[str, Any] = {}
        self._file = file
        self._end = 0
        self._chunks: dict[int, tuple[int, int]] = {}
        for start, line in _lines(file):
            document = _read_line(line)
            if document is None:
                break
            number = document.get("chunk")
            if not self.header:
                self.header = document
            elif isinstance(number, int):
                self._chunks.setdefault(number, (start, len(line)))
            else:
                break
            self._end = start + len(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    @property
    def chunks(self) -> frozenset[int]:
        """The numbers of those that are there."""
        return frozenset(self._chunks)

    def chunk(self, number: int) -> dict[str, Any]:
        """Return the results of a chunk."""
        return self._document(*self._chunks[number])

    def lines(self) -> Iterator[str]:
        """Return the file as it is when its chunks came in their order."""
        yield _line(self.header).decode()
        for number in sorted(self._chunks):
            yield _line(self.chunk(number)).decode()

    def start(self, header: Mapping[str, Any]) -> None:
        """Begin anew, or behind the last line that is whole.

        Raises:
            OutputError: it cannot be written, or is a file of something else.
        """
        try:
            if not self.header:
                self._check_beginning(_line(header))
            self._file.seek(self._end)
            self._file.truncate()
        except OSError as error:
            raise _unwritten(self.path, error) from error
        if not self.header:
            self.header = dict(header)
            self._append(self.header)

    def _check_beginning(self, line: bytes) -> None:
        """See that the file is empty, or that writing its first line was cut short."""
        self._file.seek(0)
        there = self._file.read(len(line))
        if not line.startswith(there):
            raise OutputError(self.path, "is not of a run: remove it, or give another --output")

    def add(self, number: int, document: Mapping[str, Any]) -> None:
        """Keep the results of a chunk; of one that is there already nothing.

        Raises:
            OutputError: it cannot be written; what was there is as it was.
        """
        if number not in self._chunks:
            start = self._end
            self._append({"chunk": number, **document})
            self._chunks[number] = start, self._end - start

    def _append(self, document: dict[str, Any]) -> None:
        line = _line(document)
        try:
            self._file.seek(self._end)
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise _unwritten(self.path, error) from error
        self._end += len(line)

    def _document(self, start: int, length: int) -> dict[str, Any]:
        self._file.seek(start)
        document = _read_line(self._file.read(length))
        if document is None:
            raise HostReadError(self.path, "changed while it was read")
        return document


def open_to_write(path: str) -> Part:
    """Return the results at *path*, of which there may be none yet; nobody else writes them now.

    Raises:
        OutputError: it cannot be written, or somebody else does.
    """
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        file = os.fdopen(descriptor, "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Part(file, path)
        except BaseException:
            file.close()
            raise
    except OSError as error:
        busy = error.errno == errno.EWOULDBLOCK
        why = "another run writes it now" if busy else error.strerror or str(error)
        raise OutputError(path, why) from error


def temporary(what: str) -> Part:
    """Return results that nobody finds: they go when they are closed.

    Raises:
        OutputError: there is no room for them.
    """
    from tempfile import TemporaryFile

    try:
        return Part(TemporaryFile(), what)
    except OSError as error:
        raise _unwritten(what, error) from error


def open_to_read(path: str) -> Part:
    """Return the results at *path*.

    Raises:
        HostReadError: it cannot be read.
        MalformedInputError: it is no such file.
    """
    try:
        part = Part(open(path, "rb"), path)  # noqa: SIM115 - the part closes it
    except OSError as error:
        raise HostReadError(path, error.strerror or str(error), error.errno) from error
    if not part.header:
        part.close()
        raise MalformedInputError(path, "not a part of a run, or its first line is torn")
    return part


def remove(path: str) -> None:
    """Remove a file that is not needed any more."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def _unwritten(path: str, error: OSError) -> OutputError:
    return OutputError(path, error.strerror or str(error))


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    start = 0
    file.seek(0)
    while line := file.readline(_LONGEST_LINE):
        yield start, line
        start += len(line)


def _line(document: Mapping[str, Any]) -> bytes:
    data = json.dumps(document, separators=(",", ":")).encode()
    return b"%s %s\n" % (_digest(data), data)


def _read_line(line: bytes) -> dict[str, Any] | None:
    """Return the document in a line, None if it is not whole."""
    digest, _, data = line.partition(b" ")
    if not data.endswith(b"\n") or digest != _digest(data[:-1]):
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST_BYTES).hexdigest().encode()
