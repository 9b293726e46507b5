"""A captured host as a directory."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from tdxreclaim.errors import HostReadError, MalformedInputError
from tdxreclaim.facts.evidence import Gap, Origin, flat
from tdxreclaim.facts.places import IDENTITY
from tdxreclaim.facts.sources.base import _why, decode, read_bounded

if TYPE_CHECKING:
    import io


# Where every host has thousands of folders and no other host is.
_NO_HOST_IN = frozenset(("proc", "sys", "dev", "sos_commands"))


_MOST_FOLDERS = 2000


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

    def survey(self) -> tuple[Gap, ...]:
        """Return what is not whole: nothing; see `Source.survey`.

        A host may lie one or two folders down beside the one at the top.
        """
        own = {path: self._text_or_none(path) for path in IDENTITY}
        left = _MOST_FOLDERS
        for folder in self._folders(""):
            for inner in (folder, *self._folders(folder)):
                left -= 1
                if left < 0:
                    return (Gap(self._root, f"more than {_MOST_FOLDERS} folders to look into"),)
                for path, text in own.items():
                    found = self._text_or_none(f"{inner}/{path}")
                    if found is not None and found != text:
                        why = f"several captured hosts are in it: {flat(inner)} and the top"
                        raise MalformedInputError(self._root, why)
        return ()

    def _folders(self, folder: str) -> list[str]:
        """Return the folders in *folder* that may hold a host; links are not followed."""
        below = []
        for name in self.names(folder):
            path = f"{folder}/{name}" if folder else name
            real = os.path.join(self._root, path)
            if path not in _NO_HOST_IN and os.path.isdir(real) and not os.path.islink(real):
                below.append(path)
        return below

    def _text_or_none(self, path: str) -> str | None:
        try:
            return self.read(path)
        except HostReadError as error:
            return f"\0{error.why}"

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
