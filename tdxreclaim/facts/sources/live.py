"""This host: its files, its kernel log, uname(2) and py-cpuinfo."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from tdxreclaim.errors import HostReadError
from tdxreclaim.facts.evidence import Origin
from tdxreclaim.facts.kernel import select_symbols
from tdxreclaim.facts.places import KALLSYMS
from tdxreclaim.facts.sources.base import (
    _ASK_PY_CPUINFO,
    KERNEL_LOG,
    Survey,
    _find_py_cpuinfo,
    _why,
    decode,
    read_bounded,
    read_chunks,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tdxreclaim.facts.images.installed import InstalledKernels


class Live:
    """This host."""

    origin = Origin.LIVE

    def read(self, path: str) -> str | None:
        """Return the text at *path* under ``/``; see `Source.read`.

        ``dev/kmsg`` gives the kernel log as lines, without waiting for more,
        ``proc/kallsyms`` the symbols that may tell of TDX (`select_symbols`).
        """
        if path == KERNEL_LOG:
            return _read_kernel_log()
        if "\0" in path:
            return None  # no name has it; what was read of the host may
        try:
            # Bounded: what is named may have no end.
            with open("/" + path, "rb") as file:
                if path == KALLSYMS:
                    return select_symbols(read_chunks(file, "/" + path, size=_SYMBOLS_AT_ONCE))
                data = read_bounded(file, "/" + path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HostReadError("/" + path, _why(error), error.errno) from error
        return decode(data)

    def label(self, path: str) -> str:
        """Return the absolute path."""
        return "/" + path

    def survey(self) -> Survey:
        """Return nothing: the kernel gives its files whole."""
        return Survey()

    def close(self) -> None:
        """Do nothing: every file is closed once it is read."""


# What stays in a processor's cache.  The whole list, of 5 MB, costs 8 ms more.
_SYMBOLS_AT_ONCE = 1 << 17


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


def installed_kernels() -> InstalledKernels | None:
    """Return the kernels of this host, ``None`` without any trace of one in its folders."""
    places = ("/usr/lib/modules", "/lib/modules", "/sys/kernel/livepatch")
    if not any(map(os.path.isdir, places)):
        return None
    from tdxreclaim.facts.images.installed import InstalledKernels

    return InstalledKernels()


_KEPT_TEXTS = {
    "arch": r"[A-Z0-9_]{1,16}",
    # The vendor of CPUID has twelve letters.
    "vendor_id_raw": r"[A-Za-z/0-9]{1,12}",
}


class PyCpuinfo:
    """What py-cpuinfo found out about this host's first processor.

    Values are as py-cpuinfo gives them: a stepping or model of 0 is missing,
    the flags are a union of several sources.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    @classmethod
    def kept(cls, text: str, name: str) -> PyCpuinfo:
        """Return what `keep` made of an answer.

        Raises:
            HostReadError: there was none, or it is not understood.

        """
        import json

        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or not values:
            raise HostReadError(name, "it did not answer, or that is not understood")
        return cls(values)

    def keep(self) -> str:
        """Return as JSON what `kept` reads: the values that are used, of known forms alone."""
        import json

        values: dict[str, object] = {
            key: self.text(key)
            for key, form in _KEPT_TEXTS.items()
            if re.fullmatch(form, self.text(key) or "", re.ASCII)
        }
        numbers = {key: self.number(key) for key in ("family", "model", "stepping", "count")}
        values |= {key: number for key, number in numbers.items() if number is not None}
        words = sorted(word for word in self.words("flags") if re.fullmatch(r"[a-z0-9_]+", word))
        return json.dumps(values | {"flags": words}, indent=2) + "\n"

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


def read_py_cpuinfo() -> PyCpuinfo:
    """Ask py-cpuinfo about this host; takes more than a second.

    It runs in a process of its own: it forks, maps machine code, and raises
    at import on an architecture that it does not know.

    Raises:
        HostReadError: it failed, or found nothing.

    """
    what = "py-cpuinfo"
    try:
        import json
        import subprocess
    except ImportError as error:
        # Where executable mappings are forbidden Python's own libraries do not load.
        raise HostReadError(what, f"{error.name} cannot be loaded ({error})") from error
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
