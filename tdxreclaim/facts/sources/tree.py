"""A captured host as a directory."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from tdxreclaim.errors import HostReadError, MalformedInputError
from tdxreclaim.facts.evidence import Origin
from tdxreclaim.facts.sources.base import _why, decode, read_bounded

if TYPE_CHECKING:
    import io


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
    return Tree(hosts[0])


def _holds_a_host(root: str, wanted: frozenset[str]) -> bool:
    return any(os.path.lexists(os.path.join(root, path)) for path in wanted)
