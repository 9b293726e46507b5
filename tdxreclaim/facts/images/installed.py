"""The kernel's own files on this host: what runs, would be loaded next, or was installed last."""

from __future__ import annotations

import re

from tdxreclaim.errors import TdxReclaimError
from tdxreclaim.facts.evidence import Evidence, Origin, not_readable
from tdxreclaim.facts.images.folder import Folder
from tdxreclaim.facts.images.members import Role
from tdxreclaim.facts.images.parts import Configuration, Images, KernelFiles, KernelPart, Module

_LOADED = "sys/module/kvm_intel"


_NOTE = f"{_LOADED}/notes/.note.gnu.build-id"


_LIVEPATCHES = "sys/kernel/livepatch"


class InstalledKernels:
    """The kernels under a root, of which one runs."""

    def __init__(self, root: str = "/") -> None:
        self._folder = Folder(root)

    def read(self, running: str, *, module: bool) -> KernelFiles:
        """Return what the folders tell, of the running kernel's *module* if that is asked for."""
        return KernelFiles(
            self._running(running) if module else None,
            self._newest(running),
            len(self._folder.names(_LIVEPATCHES)),
        )

    def _running(self, release: str) -> Images | None:
        """Return what the module of the running kernel tells, ``None`` if there is none.

        Where kvm_intel is loaded, a file with another build id is not what
        runs, and is passed over; where it is not, the file would be loaded next.
        """
        found, failures = self._parts(release, Role.MODULE)
        loaded = bool(self._folder.names(_LOADED))
        runs = self._build_id() if loaded else None
        mine = [part for part in found if not loaded or (runs and _build_id_of(part) == runs)]
        failures += tuple(_not_what_runs(part) for part in found if part not in mine)
        if not (mine or failures):
            return None
        return Images(tuple(mine), failures, Origin.LIVE, loaded=loaded)

    def _build_id(self) -> str | None:
        from tdxreclaim.facts.images.elf import parse_build_id

        try:
            with self._folder.stream(_NOTE) as file:
                return parse_build_id(file.read(1 << 10))
        except (TdxReclaimError, OSError):
            return None

    def _newest(self, running: str) -> Images | None:
        """Return what the newest kernel that is installed tells, ``None`` if that one runs."""
        newest = max(self._folder.releases(), key=_by_version, default=running)
        if _by_version(newest) <= _by_version(running):
            return None
        found, failures = self._parts(newest, Role.CONFIGURATION)
        if not any(_rules_tdx_out(part) for part in found):
            module, failed = self._parts(newest, Role.MODULE)
            found, failures = found + module, failures + failed
        return Images(tuple(found), failures, Origin.LIVE) if found else None

    def _parts(self, release: str, role: Role) -> tuple[list[KernelPart], tuple[Evidence, ...]]:
        members = [member for member in self._folder.of_release(release) if member.role is role]
        if not members:
            return [], ()
        from tdxreclaim.facts.images.open import as_evidence, read_members

        found, failed = read_members(self._folder, members)
        return found, as_evidence(failed, Origin.LIVE)


def _rules_tdx_out(part: KernelPart) -> bool:
    return isinstance(part.content, Configuration) and part.content.tdx_host is False


def _build_id_of(part: KernelPart) -> str | None:
    return part.content.build_id if isinstance(part.content, Module) else None


def _not_what_runs(part: KernelPart) -> Evidence:
    why = "not the module that runs (its build id differs)"
    return Evidence(part.path, not_readable(why), Origin.LIVE)


def _by_version(release: str) -> list[int]:
    """Return a key that sorts 6.9 before 6.18, and -100 after -99."""
    return [int(number[:9]) for number in re.findall(r"\d+", release)]
