"""A root, /boot or a modules folder as the place of a kernel's parts."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from tdxreclaim.errors import HostReadError
from tdxreclaim.facts.images.members import Member, Role, member_of

if TYPE_CHECKING:
    import io

_MODULES = ("usr/lib/modules", "lib/modules")


# What depmod leaves in the folder of a release.
_MARKS = ("modules.dep", "modules.order", "modules.builtin", "kernel/arch")


_IN_MODULES = ("config", "System.map", "symvers", "symvers.gz", "symvers.xz", "vmlinuz")


_MODULE = "kernel/arch/x86/kvm/kvm-intel.ko"


_IN_DEP = re.compile(r"^((?:[\w.+-]+/)*kvm-intel\.ko(?:\.\w+)?):", re.MULTILINE)


_DEP_LIMIT_BYTES = 16 << 20


# A root has a handful of kernels.
_MOST_NAMES = 100_000


def open_regular(path: str, name: str | None = None) -> io.BufferedReader:
    """Return the regular file at *path*, without waiting; messages call it *name*.

    Raises:
        HostReadError: it cannot be opened, or is a device, a FIFO or a folder.

    """
    name = name or path
    try:
        # Opening a FIFO would wait for its writer.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise HostReadError(name, error.strerror or str(error), error.errno) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise HostReadError(name, "not a regular file")
    return file


class Folder:
    """A folder given for ``--image``, or the root of this host.

    Links inside it are not followed, as far as they lead out of the place
    where they stand.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._real = os.path.realpath(path)

    def label(self, path: str) -> str:
        """Return how messages and evidence name *path*."""
        return os.path.join(self._path, path)

    def members(self) -> list[Member]:
        """Return the parts of kernels in it."""
        if self._is_modules(""):
            release = os.path.basename(self._real)
            return self.modules("", release if release[:1].isdigit() else None)
        folders = [folder for folder in _MODULES if self.names(folder)]
        if not folders and not self.names("boot"):
            folders = [""]
        found = [
            member
            for folder in folders
            for name in self.names(folder)
            if name[:1].isdigit() and self._is_modules(os.path.join(folder, name))
            for member in self.modules(os.path.join(folder, name), name)
        ]
        boot = "boot" if self.names("boot") else ""
        for name in self.names(boot):
            member = member_of(f"boot/{name}")
            if member is not None:
                found.append(member._replace(path=os.path.join(boot, name)))
        return [member for member in found if self._is_regular(member.path)]

    def releases(self) -> list[str]:
        """Return the releases that have a folder of modules."""
        return [
            name
            for folder in _MODULES
            for name in self.names(folder)
            if name[:1].isdigit() and self._is_modules(os.path.join(folder, name))
        ]

    def of_release(self, release: str) -> list[Member]:
        """Return the module and the configuration of *release* of a root."""
        wanted = (Role.MODULE, Role.CONFIGURATION)
        found = [
            member
            for folder in _MODULES
            for member in self.modules(os.path.join(folder, release), release)
            if member.role in wanted
        ]
        found.append(Member(f"boot/config-{release}", Role.CONFIGURATION, release))
        return [member for member in found if self._is_regular(member.path)]

    def modules(self, folder: str, release: str | None) -> list[Member]:
        """Return the parts in the modules folder of a release, whether they are there or not."""
        found: list[Member] = []
        for name in (*_IN_MODULES, self._module(folder)):
            member = member_of(f"lib/modules/{release or '0'}/{name}")
            path = os.path.join(folder, name)
            if member is not None and self._is_regular(path):
                found.append(Member(path, member.role, release))
        return found

    def _module(self, folder: str) -> str:
        """Return where kvm-intel.ko is: as depmod found it, or at its usual place."""
        try:
            with self.stream(os.path.join(folder, "modules.dep")) as file:
                listed = _IN_DEP.search(file.read(_DEP_LIMIT_BYTES).decode("utf-8", "replace"))
        except HostReadError:
            listed = None
        if listed and ".." not in listed[1].split("/"):
            return listed[1]
        names = self.names(os.path.join(folder, os.path.dirname(_MODULE)))
        name = next((name for name in names if name.startswith("kvm-intel.ko")), "kvm-intel.ko")
        return os.path.join(os.path.dirname(_MODULE), name)

    def stream(self, path: str) -> io.BufferedReader:
        """Return the regular file at *path*.

        Raises:
            HostReadError: it cannot be opened, or a link leads to it.

        """
        inner = os.path.join(self._real, path)
        if os.path.realpath(inner) != inner:
            raise HostReadError(self.label(path), "a link, not followed")
        return open_regular(inner, self.label(path))

    def _is_regular(self, path: str) -> bool:
        try:
            return stat.S_ISREG(os.lstat(os.path.join(self._real, path)).st_mode)
        except OSError:
            return False

    def _is_modules(self, folder: str) -> bool:
        return any(os.path.lexists(os.path.join(self._real, folder, mark)) for mark in _MARKS)

    def names(self, folder: str) -> list[str]:
        """Return the names in *folder*, sorted; none if it is not there or a link leads to it."""
        inner = os.path.join(self._real, folder) if folder else self._real
        if os.path.realpath(inner) != inner:
            return []
        try:
            return sorted(os.listdir(inner))[:_MOST_NAMES]
        except OSError:
            return []
