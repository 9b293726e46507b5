"""A captured host as a directory."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from tdxreclaim.errors import HostReadError, MalformedInputError
from tdxreclaim.facts.evidence import Origin, flat
from tdxreclaim.facts.places import IDENTITY, WANTED, identity_at, is_config
from tdxreclaim.facts.sources.base import Survey, _why, decode, read_bounded
from tdxreclaim.facts.sources.others import Others
from tdxreclaim.facts.witness import witness_at

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator


# A host's whole file system has some ten thousand.
_MOST_FOLDERS = 100_000


# What the kernel shows in proc and sys, in thousands of folders: no host lies there.
_KERNELS = re.compile(
    r".*/proc/(?:\d+|acpi|asound|bus|driver|dynamic_debug|fs|irq|net|pressure|scsi|sys|sysvipc|tty)"
    r"|.*/sys/(?:block|bus|class|dev|devices|firmware|fs|hypervisor|kernel|module|power)",
    re.DOTALL,
)


def _is_kernels(path: str) -> bool:
    return _KERNELS.fullmatch(path) is not None


def _open_at_once(path: str, flags: int) -> int:
    # Opening a FIFO would wait for its writer.
    return os.open(path, flags | os.O_NONBLOCK)


class Tree:
    """A captured host as a directory: a sysroot or an unpacked sosreport."""

    origin = Origin.CAPTURED

    def __init__(self, root: str, given: str | None = None) -> None:
        """Read the host at *root*; *given* is the folder that it was found in."""
        self._root = os.path.realpath(root)
        self._given = os.path.realpath(root if given is None else given)

    def read(self, path: str) -> str | None:
        """Return the text at *path* in the tree; see `Source.read`.

        A symbolic link is followed as far as it stays inside the tree.
        """
        if "\0" in path:
            return None  # no name has it; what was read of the host may
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

    def survey(self) -> Survey:
        """Search what was given to its last folder; see `Source.survey`."""
        others = Others()
        own = {path: self._text_or_none(path) for path in IDENTITY}
        for path in self._files(others):
            name = os.path.relpath(path, self._given)
            mine = os.path.relpath(path, self._root)
            if mine in WANTED or is_config(mine):
                continue
            identity = identity_at(name)
            if identity is None:
                if witness_at(name) is not None:
                    _look(others, name, path)
            elif _text_at(path) != own[identity]:
                why = f"several captured hosts are in it: {flat(name)} is of another one"
                raise MalformedInputError(self._given, why)
        return others.survey()

    def _files(self, others: Others) -> Iterator[str]:
        """Yield the regular files below what was given; links are not followed."""
        folders, left = [self._given], _MOST_FOLDERS
        while folders:
            folder = folders.pop()
            left -= 1
            if left < 0:
                others.doubt(self._given, f"more than {_MOST_FOLDERS:,} folders to look into")
                return
            try:
                with os.scandir(folder) as scan:
                    entries = sorted(scan, key=lambda entry: entry.name)
            except OSError as error:
                others.refuse_folder(os.path.relpath(folder, self._given), _why(error))
                continue
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    yield entry.path
                elif entry.is_dir(follow_symlinks=False) and not _is_kernels(entry.path):
                    folders.append(entry.path)

    def _text_or_none(self, path: str) -> str | None:
        try:
            return self.read(path)
        except HostReadError as error:
            return f"\0{error.why}"

    def close(self) -> None:
        """Do nothing: every file is closed once it is read."""


def _open(path: str) -> io.BufferedReader:
    return open(path, "rb", opener=_open_at_once)


def _look(others: Others, name: str, path: str) -> None:
    try:
        others.look(name, lambda: _open(path))
    except OSError as error:
        others.refuse(name, _why(error))


def _text_at(path: str) -> str:
    """Return the text at *path*; of one that cannot be read a text that no file has."""
    try:
        with _open(path) as file:
            return decode(read_bounded(file, path))
    except (HostReadError, OSError):
        return f"\0{path}"


NO_HOST = "no captured host found: no proc/cpuinfo or similar at the top or one folder down"


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
    return Tree(hosts[0], path)


def _holds_a_host(root: str, wanted: frozenset[str]) -> bool:
    return any(os.path.lexists(os.path.join(root, path)) for path in wanted)
