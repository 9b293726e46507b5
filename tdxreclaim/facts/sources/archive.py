"""Compressed files, and a captured host as a tar: read once, as a stream.

A tar is read no further than the last member that is asked for.  Whoever made
it may mean harm: nothing is written to disk, links and devices are not
followed, and what is unpacked is bounded.
"""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

from tdxreclaim.errors import HostReadError, MalformedInputError
from tdxreclaim.facts.evidence import Gap, Origin, flat
from tdxreclaim.facts.places import identity_at, is_config
from tdxreclaim.facts.sources.base import TEXT_LIMIT_BYTES, Survey, decode, too_long
from tdxreclaim.facts.sources.others import Others, guarded
from tdxreclaim.facts.sources.tar import SPARSE, MemberStream, _Member, _Tar
from tdxreclaim.facts.sources.unpack import UNPACK_ERRORS

if TYPE_CHECKING:
    import io

# A host has a handful of kernels; each of their configurations is kept.
_MOST_CONFIGS = 64


_MOST_OTHERS = 10_000


_TAR_ERRORS: tuple[type[Exception], ...] = (*UNPACK_ERRORS, tarfile.TarError)


def _same(one: str | HostReadError, other: str | HostReadError) -> bool:
    # Of two that cannot be read nobody knows.
    return isinstance(one, str) and one == other


class Archive:
    """A captured host in a tar stream.

    ``wanted`` are the paths that may be asked for: those that come by on the
    way to another are kept.  The first of them fixes the folder that the host
    is in.  At the top of the archive the host is alone, whatever its folders
    hold; a second one beside a first in a folder is refused, and so is a file
    that comes twice and differs: which of them counts is not for us to say.
    ``file`` is what to close in the end.
    """

    origin = Origin.CAPTURED

    def __init__(
        self,
        stream: io.BufferedReader,
        wanted: frozenset[str],
        name: str,
        file: io.BufferedIOBase | None = None,
    ) -> None:
        self._file = file
        self._name = name
        self._wanted = wanted
        self._found: dict[str, str | HostReadError] = {}
        self._prefix: str | None = None
        self._damage: str | None = None
        self._configs = 0
        self._kept = 0
        self._others: list[tuple[str, str, int]] = []
        """Files that identify a host, elsewhere than at the one that is read: by hash."""
        self._beside = Others()
        self._tar: _Tar | None = _Tar(stream)

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

    def survey(self) -> Survey:
        """Read it to its end; see `Source.survey`."""
        while self._advance():
            pass
        self._check_hosts()
        found = self._beside.survey()
        if self._damage:
            gap = Gap(self._name, f"not read to its end ({self._damage})")
            return found._replace(gaps=(gap, *found.gaps))
        return found

    def _check_hosts(self) -> None:
        for name, path, seen in self._others:
            if self._digest(path) != seen:
                why = f"several captured hosts are in it: {flat(name)} is of another one"
                raise MalformedInputError(self._name, why)

    def _digest(self, path: str) -> int | None:
        found = self._found.get(path)
        return hash(found) if isinstance(found, str) else None

    def close(self) -> None:
        """Close the file; what was read of it stays."""
        if self._file is not None:
            self._file.close()

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
                return True
        except _TAR_ERRORS as error:
            self._damage = str(error)
        self._tar = None
        return False

    def _keep(self, tar: _Tar, member: _Member) -> None:
        prefix, path = self._split(member.name)
        if path is None or (self._prefix == "" and prefix):
            self._note_other(tar, member)
            return
        if self._prefix is None:
            self._prefix = prefix
        elif self._prefix != prefix:
            both = f"{flat(self._prefix)} and {flat(prefix or 'the top')}"
            raise MalformedInputError(self._name, f"several captured hosts are in it: {both}")
        if path in self._found:
            if not _same(self._found[path], self._text(tar, member, path)):
                why = f"{path} is in it twice, and not the same"
                raise MalformedInputError(self._name, why)
            return
        if path not in self._wanted:
            self._configs += 1
            if self._configs > _MOST_CONFIGS:
                raise tarfile.ReadError(f"more than {_MOST_CONFIGS} kernel configurations")
        self._found[path] = self._text(tar, member, path)

    def _note_other(self, tar: _Tar, member: _Member) -> None:
        parts = [part for part in member.name.split("/") if part not in ("", ".", "..")]
        name = "/".join(parts)
        path = identity_at(name)
        if path is None:
            self._look(tar, member, name)
            return
        if len(self._others) >= _MOST_OTHERS:
            raise tarfile.ReadError(f"more than {_MOST_OTHERS} files of other hosts")
        self._others.append((name, path, hash(self._text(tar, member, path))))

    def _look(self, tar: _Tar, member: _Member, name: str) -> None:
        if member.refusal is None:
            self._beside.look(name, guarded(MemberStream(tar, member.size)))
        elif member.refusal == SPARSE:
            self._beside.refuse(name, member.refusal)

    def _text(self, tar: _Tar, member: _Member, path: str) -> str | HostReadError:
        if member.refusal is not None:
            return HostReadError(path, member.refusal)
        kept = 0 if path in self._found else self._kept
        if kept + member.size > TEXT_LIMIT_BYTES:
            return too_long(path)
        text = decode(tar.text(member))
        if path not in self._found:
            self._kept += member.size
        return text

    def _split(self, name: str) -> tuple[str, str | None]:
        """Return the folder that the host would be in, and the wanted path."""
        # "a/./b" is unpacked as "a/b", and so is "a//b".
        parts = [part for part in name.split("/") if part not in ("", ".")]
        name = "" if ".." in parts else "/".join(parts)
        if name in self._wanted or is_config(name):
            return "", name
        folder, _, rest = name.partition("/")
        if rest in self._wanted or is_config(rest):
            return folder, rest
        return "", None
