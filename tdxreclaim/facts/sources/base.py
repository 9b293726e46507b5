"""The one door to the host.

Nothing else in the package opens files under /proc, /sys or /boot, opens what
a user captured, runs CPUID or calls uname(2), so a captured host cannot be
mixed with this one.

A captured tree or archive is hostile until shown otherwise.  No member is
written to disk; a link, device or FIFO inside is not followed; what is read
and unpacked is bounded by the limits below.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tdxreclaim.errors import HostReadError
from tdxreclaim.facts.evidence import Origin

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator, Mapping

    from tdxreclaim.facts.cpu import CpuGroup
    from tdxreclaim.facts.evidence import Gap

# A single text (kallsyms, or a kernel log) is read up to here, and no more than
# this is kept of all texts of one capture together.
TEXT_LIMIT_BYTES = 32 << 20


_READ_SIZE = 1 << 20


KERNEL_LOG = "dev/kmsg"


class Named(NamedTuple):
    """A CPU that a capture names elsewhere than where its identity is read."""

    place: str
    group: CpuGroup
    virtual: bool
    """Whether the log there is of virtual machines, whose CPU may change from boot to boot."""


class Survey(NamedTuple):
    """What the rest of a capture says: what could not be read, and the CPUs it names."""

    gaps: tuple[Gap, ...] = ()
    named: tuple[Named, ...] = ()


class Source(Protocol):
    """A host, wherever its files come from.

    Paths are relative to the host's root (``proc/cpuinfo``).
    """

    origin: Origin

    def read(self, path: str) -> str | None:
        """Return the text at *path*, or ``None`` if there is no such file.

        Bytes that are not UTF-8 come as U+FFFD.

        Raises:
            HostReadError: it is there and cannot be read.

        """
        ...

    def label(self, path: str) -> str:
        """Return the name that evidence shows for *path*."""
        ...

    def survey(self) -> Survey:
        """Read a capture to its end; return what is left to be said of the CPU.

        Raises:
            MalformedInputError: another host is in it.

        """
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


def decode(data: bytes) -> str:
    """Return the text in *data*; bytes that are not UTF-8 come as U+FFFD.

    Zeros at the end are no text: tar fills files of /sys, which are shorter
    than they say, with them.  What is packed by gzip is unpacked.
    """
    if data.startswith(_GZIP):
        data = _gunzip(data)
    return data.rstrip(b"\0").decode("utf-8", "replace")


# /proc/config.gz.
_GZIP = b"\x1f\x8b\x08"


_LONGEST_GUNZIPPED = 16 << 20


def _gunzip(data: bytes) -> bytes:
    """Return what *data* unpacks to, as it is if it does not or if that has no end."""
    import zlib

    try:
        unpacker = zlib.decompressobj(wbits=31)
        unpacked = unpacker.decompress(data, _LONGEST_GUNZIPPED)
    except zlib.error:
        return data
    return unpacked if unpacker.eof else data


def _why(error: OSError) -> str:
    return error.strerror or str(error)


def read_bounded(stream: io.BufferedIOBase, what: str, limit: int = TEXT_LIMIT_BYTES) -> bytes:
    """Return all that is left in *stream*; see `read_chunks`."""
    return b"".join(read_chunks(stream, what, limit))


def read_chunks(
    stream: io.BufferedIOBase, what: str, limit: int = TEXT_LIMIT_BYTES, size: int = _READ_SIZE
) -> Iterator[bytes]:
    """Yield all that is left in *stream*.

    Raises:
        HostReadError: it cannot be read, or is longer than *limit*, 64 MiB.

    """
    left = limit
    while chunk := stream.read(min(size, left + 1)):
        yield chunk
        left -= len(chunk)
        if left < 0:
            raise too_long(what, limit)


def too_long(what: str, limit: int = TEXT_LIMIT_BYTES) -> HostReadError:
    """Return the error for a text of more than *limit* bytes."""
    return HostReadError(what, f"longer than {limit >> 20} MiB", errno.EFBIG)


# Runs with -I -S, so that its path is the standard library and then the folder
# handed over: neither the current directory nor PYTHON* can slip a module in,
# and a user install or a single file, which -I alone would hide, still works.
_ASK_PY_CPUINFO = """
import runpy, sys
sys.path.append(sys.argv[1])
sys.argv[1:] = ["--json"]
runpy.run_module("cpuinfo", run_name="__main__", alter_sys=True)
"""


def _find_py_cpuinfo() -> str:
    """Return the folder or archive that holds the ``cpuinfo`` of this process.

    The current directory is passed over, although ``python -m`` and PYTHONPATH
    put it in the path: what lies there is not ours.

    Raises:
        HostReadError: there is none.

    """
    from importlib.machinery import PathFinder

    try:
        here = os.getcwd()
    except OSError:
        here = ""  # deleted: nothing can lie in it
    path = [entry for entry in sys.path if os.path.isabs(entry) and entry != here]
    spec = PathFinder.find_spec("cpuinfo", path)
    if spec is None or spec.origin is None:
        raise HostReadError("py-cpuinfo", "not installed outside the current directory")
    # .../cpuinfo/__init__.py
    return os.path.dirname(os.path.dirname(spec.origin))


class Files:
    """A host of which a few texts are known: single captured files, tests.

    ``texts`` maps paths to texts, ``label`` names the file they came from.
    """

    def __init__(
        self,
        texts: Mapping[str, str],
        *,
        label: str | None = None,
        origin: Origin = Origin.CAPTURED,
        gaps: tuple[Gap, ...] = (),
    ) -> None:
        self._texts = texts
        self._gaps = gaps
        self._label = label
        self.origin = origin

    def read(self, path: str) -> str | None:
        """Return the text at *path*; see `Source.read`."""
        return self._texts.get(path)

    def label(self, path: str) -> str:
        """Return the captured file's name, or *path* if there is none."""
        return self._label if self._label and path in self._texts else path

    def survey(self) -> Survey:
        """Return what was known to be missing when the texts were given."""
        return Survey(self._gaps)

    def close(self) -> None:
        """Do nothing: the texts are in memory."""


def file_size(file: io.BufferedReader) -> int | None:
    """Return the size of an open regular file, ``None`` of anything else."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def is_directory(path: str) -> bool:
    """Whether *path* is a directory (``-`` never is)."""
    return path != "-" and os.path.isdir(path)


def open_captured(path: str) -> io.BufferedReader:
    """Return the captured file at *path* as a stream; ``-`` is standard input.

    Raises:
        HostReadError: it cannot be opened.

    """
    try:
        if path == "-":
            return os.fdopen(os.dup(0), "rb")
        return open(path, "rb")
    except OSError as error:
        raise HostReadError(path, _why(error), error.errno) from error


def read_beginning(path: str, size: int = 4096) -> bytes:
    """Return the first bytes of a file that a user named.

    Raises:
        HostReadError: it cannot be read.

    """
    with open_captured(path) as file:
        try:
            return file.read(size)
        except OSError as error:
            raise HostReadError(path, _why(error), error.errno) from error


# A tracer writes a line for every function: 2 GiB of a TD are some 250 MB.
RECORDING_LIMIT_BYTES = 1 << 30


def read_file(path: str, limit: int = TEXT_LIMIT_BYTES) -> str:
    """Return the text of a file that a user named (``-`` is standard input).

    Raises:
        HostReadError: it cannot be read, or is longer than *limit*, 64 MiB.

    """
    with open_captured(path) as file:
        try:
            return decode(read_bounded(file, path, limit))
        except OSError as error:
            raise HostReadError(path, _why(error), error.errno) from error
