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
from typing import TYPE_CHECKING, Protocol

from tdxreclaim.errors import HostReadError, MalformedInputError
from tdxreclaim.facts.evidence import Origin

if TYPE_CHECKING:
    import io
    from collections.abc import Mapping

# A single text (a kernel log is the longest) is read up to here.
TEXT_LIMIT_BYTES = 64 << 20
_READ_SIZE = 1 << 20

KERNEL_LOG = "dev/kmsg"


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

    def close(self) -> None:
        """Let go of what is open."""
        ...


def decode(data: bytes) -> str:
    """Return the text in *data*; bytes that are not UTF-8 come as U+FFFD.

    Zeros at the end are no text: tar fills files of /sys, which are shorter
    than they say, with them.
    """
    return data.rstrip(b"\0").decode("utf-8", "replace")


def _why(error: OSError) -> str:
    return error.strerror or str(error)


def read_bounded(stream: io.BufferedIOBase, what: str, limit: int = TEXT_LIMIT_BYTES) -> bytes:
    """Return all that is left in *stream*.

    Raises:
        HostReadError: it cannot be read, or is longer than *limit*, 64 MiB.

    """
    chunks: list[bytes] = []
    left = limit
    while chunk := stream.read(min(_READ_SIZE, left + 1)):
        chunks.append(chunk)
        left -= len(chunk)
        if left < 0:
            raise too_long(what, limit)
    return b"".join(chunks)


def too_long(what: str, limit: int = TEXT_LIMIT_BYTES) -> HostReadError:
    """Return the error for a text of more than *limit* bytes."""
    return HostReadError(what, f"longer than {limit >> 20} MiB", errno.EFBIG)


class Live:
    """This host."""

    origin = Origin.LIVE

    def read(self, path: str) -> str | None:
        """Return the text at *path* under ``/``; see `Source.read`.

        ``dev/kmsg`` gives the kernel log as lines, without waiting for more.
        """
        if path == KERNEL_LOG:
            return _read_kernel_log()
        try:
            # Bounded: what is named may have no end.
            with open("/" + path, "rb") as file:
                data = read_bounded(file, "/" + path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HostReadError("/" + path, _why(error), error.errno) from error
        return decode(data)

    def label(self, path: str) -> str:
        """Return the absolute path."""
        return "/" + path

    def close(self) -> None:
        """Do nothing: every file is closed once it is read."""


def _read_kernel_log() -> str | None:
    """Return this host's kernel log, one message a line, ``None`` without /dev/kmsg.

    Source: linux Documentation/ABI/testing/dev-kmsg.
    """
    try:
        descriptor = os.open("/" + KERNEL_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostReadError("/" + KERNEL_LOG, _why(error), error.errno) from error
    lines: list[str] = []
    try:
        while True:
            try:
                record = os.read(descriptor, 8192)
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # this record was overwritten; the next read gives the next one
            line = _kmsg_line(decode(record))
            if line is not None:
                lines.append(line)
    except OSError as error:
        raise HostReadError("/" + KERNEL_LOG, _why(error), error.errno) from error
    finally:
        os.close(descriptor)
    return "\n".join(lines) + "\n"


def _kmsg_line(record: str) -> str | None:
    """Return ``[seconds.micros] message`` of a record, ``None`` if a program wrote it."""
    head, _, rest = record.partition(";")
    priority, _, stamp = head.split(",")[0], None, head.split(",")[2:3]
    if not priority.isdigit() or int(priority) >> 3 or not stamp or not stamp[0].isdigit():
        return None
    seconds, micros = divmod(int(stamp[0]), 1_000_000)
    return f"[{seconds:5d}.{micros:06d}] {rest.partition(chr(10))[0]}"


def kernel_release() -> str | None:
    """Return this host's uname(2) release, ``None`` where that is not Linux."""
    if not hasattr(os, "uname"):
        return None
    name = os.uname()
    return name.release if name.sysname == "Linux" else None


def machine() -> str:
    """Return this host's uname(2) machine (``x86_64``), empty where there is no uname."""
    return os.uname().machine if hasattr(os, "uname") else ""


class PyCpuinfo:
    """What py-cpuinfo found out about this host's first processor.

    Values are as py-cpuinfo gives them: a stepping or model of 0 is missing,
    the flags are a union of several sources.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def text(self, key: str) -> str | None:
        """Return the text under *key*, ``None`` if there is none."""
        value = self._values.get(key)
        return value if isinstance(value, str) and value else None

    def number(self, key: str) -> int | None:
        """Return the number under *key*, ``None`` if there is none."""
        value = self._values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def words(self, key: str) -> frozenset[str]:
        """Return the list of words under *key*, empty if there is none."""
        value = self._values.get(key)
        return frozenset(map(str, value)) if isinstance(value, list) else frozenset()


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


def read_py_cpuinfo() -> PyCpuinfo:
    """Ask py-cpuinfo about this host; takes more than a second.

    It runs in a process of its own: it forks, maps machine code, and raises
    at import on an architecture that it does not know.

    Raises:
        HostReadError: it failed, or found nothing.

    """
    import json
    import subprocess

    what = "py-cpuinfo"
    command = [sys.executable, "-I", "-S", "-c", _ASK_PY_CPUINFO, _find_py_cpuinfo()]
    try:
        # Our own interpreter, with nothing of the user in its path.
        run = subprocess.run(  # noqa: S603
            command, cwd="/", capture_output=True, check=False, timeout=60
        )
    except subprocess.TimeoutExpired as error:
        raise HostReadError(what, "it did not answer within 60 s") from error
    except OSError as error:
        raise HostReadError(what, _why(error), error.errno) from error
    try:
        values = json.loads(run.stdout)
    except ValueError as error:
        last_line = decode(run.stderr).strip().rpartition("\n")[2]
        raise HostReadError(what, last_line or "no JSON came back") from error
    if not isinstance(values, dict) or not values:
        raise HostReadError(what, "it found nothing")
    return PyCpuinfo(values)


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
    ) -> None:
        self._texts = texts
        self._label = label
        self.origin = origin

    def read(self, path: str) -> str | None:
        """Return the text at *path*; see `Source.read`."""
        return self._texts.get(path)

    def label(self, path: str) -> str:
        """Return the captured file's name, or *path* if there is none."""
        return self._label if self._label and path in self._texts else path

    def close(self) -> None:
        """Do nothing: the texts are in memory."""


def _open_at_once(path: str, flags: int) -> int:
    # Opening a FIFO would wait for its writer.
    return os.open(path, flags | os.O_NONBLOCK)


class Tree:
    """A captured host as a directory: a sysroot or an unpacked sosreport."""

    origin = Origin.CAPTURED

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)

    def read(self, path: str) -> str | None:
        """Return the text at *path* in the tree; see `Source.read`.

        A symbolic link is followed as far as it stays inside the tree.
        """
        # realpath of what does not exist is harmless: open says so.
        real = os.path.realpath(os.path.join(self._root, path))
        if os.path.commonpath((self._root, real)) != self._root:
            raise HostReadError(path, "a symbolic link that leads out of the tree")
        try:
            with open(real, "rb", opener=_open_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise HostReadError(path, "not a regular file")
                return decode(read_bounded(file, path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HostReadError(path, _why(error), error.errno) from error

    def names(self, folder: str) -> list[str]:
        """Return the names in *folder*, sorted; none if it cannot be listed."""
        real = os.path.realpath(os.path.join(self._root, folder))
        if os.path.commonpath((self._root, real)) != self._root:
            return []
        try:
            return sorted(os.listdir(real))
        except OSError:
            return []

    def stream(self, path: str) -> io.BufferedReader:
        """Return the regular file at *path* as a stream.

        Raises:
            HostReadError: it cannot be opened, leads out of the tree, or is
                no regular file.

        """
        real = os.path.realpath(os.path.join(self._root, path))
        if os.path.commonpath((self._root, real)) != self._root:
            raise HostReadError(path, "a symbolic link that leads out of the tree")
        try:
            descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise HostReadError(path, _why(error), error.errno) from error
        file = os.fdopen(descriptor, "rb")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            file.close()
            raise HostReadError(path, "not a regular file")
        return file

    def label(self, path: str) -> str:
        """Return *path*."""
        return path

    def close(self) -> None:
        """Do nothing: every file is closed once it is read."""


NO_HOST = "no captured host: no proc/cpuinfo or the like in it, nor one folder down"


def file_size(file: io.BufferedReader) -> int | None:
    """Return the size of an open regular file, ``None`` of anything else."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def open_tree(path: str, wanted: frozenset[str]) -> Tree:
    """Return the captured host in directory *path*, or in its only sub-directory.

    Raises:
        MalformedInputError: none of the *wanted* files is in it, or several
            sub-directories are hosts.
        HostReadError: it cannot be listed.

    """
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise HostReadError(path, _why(error), error.errno) from error
    if _holds_a_host(path, wanted):
        return Tree(path)
    hosts = [
        inner
        for name in names
        if not os.path.islink(inner := os.path.join(path, name)) and _holds_a_host(inner, wanted)
    ]
    if len(hosts) > 1:
        raise MalformedInputError(path, f"{len(hosts)} captured hosts are in it; name one of them")
    if not hosts:
        raise MalformedInputError(path, NO_HOST)
    return Tree(hosts[0])


def _holds_a_host(root: str, wanted: frozenset[str]) -> bool:
    return any(os.path.lexists(os.path.join(root, path)) for path in wanted)


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


_CALIBRATIONS = "tdxreclaim.engine.calibrations"


def read_shipped_calibration(name: str) -> str:
    """Return the TOML text of a calibration that comes with the package.

    Raises:
        FileNotFoundError: there is none of that name.

    """
    from importlib.resources import files

    return files(_CALIBRATIONS).joinpath(f"{name}.toml").read_text(encoding="utf-8")


def read_shipped_observations(name: str) -> str:
    """Return the TOML text that a shipped calibration was made of.

    Raises:
        FileNotFoundError: there is none of that name.

    """
    return read_shipped_calibration(f"{name}.observations")
