"""vmlinuz and vmlinux: the texts in them, and their symbols where they have any."""

from __future__ import annotations

import io
import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.images.cut import Cut
from tdxreclaim.facts.images.elf import Elf
from tdxreclaim.facts.images.lists import names_of, parse_configuration
from tdxreclaim.facts.images.parts import PART_LIMIT_BYTES, TELLING, KernelPart, Text
from tdxreclaim.facts.sources.unpack import UNPACK_ERRORS, _Rejoined, looks_packed, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

# What is searched at once.
_PIECE = 1 << 20


# Longer than any text that is searched for.
_OVERLAP = 512


# "virt/tdx: BIOS enabled: private KeyID range [%u, %u)", from 6.8 on.
_KEY_IDS = b"private KeyID range"


_BANNER = re.compile(rb"Linux version (\d[\x21-\x7e]{2,120}) \(")


# kernel/configs.c: a gzip stream between two marks.
_CONFIG_BEGINS, _CONFIG_ENDS = b"IKCFG_ST", b"IKCFG_ED"


_CONFIG_LIMIT_BYTES = 4 << 20


_CONFIG_DAMAGE: tuple[type[Exception], ...] = (*UNPACK_ERRORS, MalformedInputError)


class _Search:
    """Texts sought in a stream of pieces, across their borders."""

    def __init__(self) -> None:
        self._needles = {_KEY_IDS} | {b"\0%s\0" % name.encode() for name in TELLING}
        self.found: set[bytes] = set()
        self.releases: set[str] = set()
        self._tail = b""
        self._config: bytearray | None = None

    def feed(self, piece: bytes) -> None:
        if self._config is None or not self._config_ended():
            self._feed_config(piece)
        window = self._tail + piece
        for needle in self._needles - self.found:
            if needle in window:
                self.found.add(needle)
        if len(self.releases) < 2:  # noqa: PLR2004  (a second one is a contradiction already)
            self.releases.update(match.decode("ascii") for match in _BANNER.findall(window))
        self._tail = window[-_OVERLAP:]

    def _feed_config(self, piece: bytes) -> None:
        if self._config is not None:
            self._config += piece[:_CONFIG_LIMIT_BYTES]
            return
        window = self._tail + piece
        at = window.find(_CONFIG_BEGINS)
        if at >= 0:
            self._config = bytearray(window[at + len(_CONFIG_BEGINS) :])

    def _config_ended(self) -> bool:
        data = self._config or b""
        return len(data) > _CONFIG_LIMIT_BYTES or _CONFIG_ENDS in data

    def config(self) -> str | None:
        """Return the configuration that the kernel carries, ``None`` if it has none."""
        packed, ended, _ = bytes(self._config or b"").partition(_CONFIG_ENDS)
        if not ended:
            return None
        try:
            text = unpack(io.BytesIO(packed), "", limit=_CONFIG_LIMIT_BYTES).read()
        except _CONFIG_DAMAGE:
            return None
        return text.decode("utf-8", "replace")

    def parts(self, path: str, release: str | None) -> Iterator[KernelPart]:
        releases = self.releases | ({release} if release else set())
        if len(releases) > 1:
            both = " and ".join(sorted(releases))
            raise MalformedInputError(path, f"it says to be two kernels: {both}")
        if not self.releases:
            raise MalformedInputError(path, 'no Linux kernel: there is no "Linux version" in it')
        release = next(iter(releases), None)
        exported = tuple(name for name in TELLING if b"\0%s\0" % name.encode() in self.found)
        text = Text(
            key_ids=_KEY_IDS in self.found,
            exported=exported,
        )
        yield KernelPart(path, release, text)
        config = self.config()
        if config is not None:
            yield KernelPart(f"{path} (IKCONFIG)", release, parse_configuration(config))


class _Boot(NamedTuple):
    """What the header of a bzImage says; offsets and sizes in bytes."""

    release: str | None
    offset: int
    size: int


_BOOT_MAGIC_AT, _BOOT_MAGIC = 0x202, b"HdrS"


# The first protocol that says where the payload is.
_PROTOCOL = 0x208


_SECTOR = 512


def looks_like_vmlinuz(head: bytes) -> bool:
    """Whether *head* (1 KiB or more) begins an x86 boot image."""
    return head[_BOOT_MAGIC_AT : _BOOT_MAGIC_AT + 4] == _BOOT_MAGIC


def _read_boot_header(head: bytes, name: str) -> _Boot:
    """Return what the boot header in *head*, 64 KiB, says.

    Source: linux Documentation/arch/x86/boot.rst.
    """
    (protocol,) = struct.unpack_from("<H", head, 0x206)
    offset, size = struct.unpack_from("<II", head, 0x248)
    if protocol < _PROTOCOL or not size:
        raise MalformedInputError(name, "a boot image that does not say where its kernel is")
    (version_at,) = struct.unpack_from("<H", head, 0x20E)
    version = head[version_at + 0x200 :][:256] if version_at else b""
    words = version.partition(b"\0")[0].decode("utf-8", "replace").split()
    setup = (head[0x1F1] or 4) + 1
    return _Boot(words[0] if words else None, setup * _SECTOR + offset, size)


def read_vmlinuz(stream: io.BufferedIOBase, head: bytes, name: str) -> Iterator[KernelPart]:
    """Yield the parts in a boot image; *stream* stands at its beginning.

    Raises:
        MalformedInputError: it is damaged, cut short, or packed in a way that
            Python cannot unpack.

    """
    boot = _read_boot_header(head, name)
    before = Cut(stream, boot.offset)
    while before.read(_PIECE):
        pass
    magic = stream.read(_MAGIC_BYTES)
    if not looks_packed(magic):
        how = next((how for begin, how in _OTHERS.items() if magic.startswith(begin)), "unknown")
        raise MalformedInputError(
            name, f"packed as {how}: unpack it with the kernel's scripts/extract-vmlinux"
        )
    # The unpacked size stands behind all but gzip.
    trailer = 0 if magic.startswith(b"\x1f\x8b") else 4
    rest = io.BufferedReader(Cut(stream, boot.size - len(magic) - trailer))
    payload = io.BufferedReader(_Rejoined(magic, rest))
    yield from _search(unpack(payload, name, limit=PART_LIMIT_BYTES), name, boot.release)


_MAGIC_BYTES = 6


_OTHERS = {
    b"\x02\x21\x4c\x18": "lz4",
    b"\x89LZO": "lzo",
    b"\x5d\x00\x00": "lzma",
}


def _search(stream: io.BufferedIOBase, name: str, release: str | None) -> Iterator[KernelPart]:
    """Yield what a vmlinux in *stream* tells, to its end."""
    search = _Search()
    begins = True
    while piece := stream.read(_PIECE):
        if begins and not piece.startswith(b"\x7fELF"):
            raise MalformedInputError(name, "what is packed in it is no kernel (no ELF file)")
        begins = False
        search.feed(piece)
    if begins:
        raise MalformedInputError(name, "nothing is packed in it")
    yield from search.parts(name, release)


def read_packed_vmlinux(stream: io.BufferedIOBase, name: str) -> Iterator[KernelPart]:
    """Yield what an unpacked stream of a vmlinux tells: its texts, not its symbols."""
    yield from _search(stream, name, None)


def read_vmlinux(file: BinaryIO, name: str) -> Iterator[KernelPart]:
    """Yield what a vmlinux tells: its texts, and its symbols if it has them."""
    elf = Elf(file, name)
    search = _Search()
    for piece in elf.loaded(_PIECE):
        search.feed(piece)
    parts = list(search.parts(name, None))
    yield from parts
    names = names_of([symbol.name for symbol in elf.symbols() if symbol.defined])
    if names.whole or names.telling:
        yield KernelPart(name, parts[0].release, names)
