"""ELF files of 64 bits, little endian, as far as kernels need them.

Source: System V ABI, "Object Files"; AMD64 supplement.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.images.parts import PART_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

MAGIC = b"\x7fELF\x02\x01\x01"


# The byte at 16: a file to be linked, as modules are.
RELOCATABLE = b"\1"


_X86_64 = 62


_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")


# Without what nothing asks for: name, address, info, alignment, size of an entry.
_SECTION = struct.Struct("<4xIQ8xQQI20x")


_SYMBOL = struct.Struct("<IBBHQQ")


_SYMTAB, _RELA, _NOTE, _NOBITS = 2, 4, 7, 8


_ALLOC, _EXEC = 2, 4


_SECTION_SYMBOL, _FILE_SYMBOL = 3, 4


# Rust's names are the longest.
_LONGEST_NAME = 4096


_GNU_BUILD_ID = 3


class _Section(NamedTuple):
    type: int
    flags: int
    offset: int
    size: int
    link: int


class Symbol(NamedTuple):
    """A symbol; ``defined`` is false of what another file has to bring."""

    name: str
    defined: bool


class Elf:
    """An x86-64 ELF file; nothing that it claims is believed beyond the end of the file.

    Raises:
        MalformedInputError: from all methods: it is damaged, cut short, or of
            another machine.

    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._size = file.seek(0, 2)
        # What claims the same bytes over and over must not be read without end.
        self._budget = 3 * self._size + (1 << 20)
        header = self._at(0, _HEADER.size)
        if not header.startswith(MAGIC):
            raise self._malformed("not an ELF file of 64 bits")
        fields = _HEADER.unpack(header)
        if fields[1] != _X86_64:
            raise self._malformed("not for x86-64")
        start, entry, count = fields[5], fields[10], fields[11]
        if entry != _SECTION.size or not count:
            raise self._malformed("it has no sections")
        table = self._at(start, entry * count)
        self._sections = [_Section(*each) for each in _SECTION.iter_unpack(table)]

    def _malformed(self, why: str) -> MalformedInputError:
        return MalformedInputError(self._name, why)

    def _at(self, offset: int, size: int) -> bytes:
        if offset + size > self._size:
            raise self._malformed("damaged or cut short: it ends before its own sections")
        self._budget -= size
        if self._budget < 0 or size > PART_LIMIT_BYTES:
            raise self._malformed("damaged: its sections lie over each other")
        self._file.seek(offset)
        return self._file.read(size)

    def _data(self, section: _Section) -> bytes:
        return self._at(section.offset, section.size)

    def modinfo(self) -> dict[str, str]:
        """Return the module's own description, the first value of each key."""
        found: dict[str, str] = {}
        for section in self._sections:
            # By its content: the names of sections are in one more table.
            if section.type == 1 and section.flags == _ALLOC and section.size < 1 << 16:
                data = self._data(section)
                if b"\0vermagic=" in b"\0" + data:
                    for item in data.decode("utf-8", "replace").split("\0"):
                        key, _, value = item.partition("=")
                        found.setdefault(key, value)
        return found

    def build_id(self) -> str | None:
        """Return the build id in hex, ``None`` if it has none."""
        for section in self._sections:
            if section.type == _NOTE and section.size < 1 << 16:
                build_id = parse_build_id(self._data(section))
                if build_id:
                    return build_id
        return None

    def code(self) -> Iterator[bytes]:
        """Yield the sections that are executed."""
        for section in self._sections:
            if section.flags & _EXEC and section.flags & _ALLOC and section.type != _NOBITS:
                yield self._data(section)

    def loaded(self, piece: int) -> Iterator[bytes]:
        """Yield what is loaded into memory, section by section, *piece* bytes at a time."""
        for section in self._sections:
            if section.flags & _ALLOC and section.type != _NOBITS:
                for start in range(0, section.size, piece):
                    yield self._at(section.offset + start, min(piece, section.size - start))
                yield b"\0"

    def symbols(self) -> list[Symbol]:
        """Return the named symbols; empty if it has no symbol table.

        A table that is shorter than what the relocations refer to, or that
        refers to what is no name, is damaged: a missing symbol would count as
        one that is not used.
        """
        tables = [section for section in self._sections if section.type == _SYMTAB]
        if not tables:
            return []
        if len(tables) > 1 or tables[0].size % _SYMBOL.size:
            raise self._malformed("damaged: its symbol table is not whole")
        table = tables[0]
        self._check_relocations(self._sections.index(table), table.size // _SYMBOL.size)
        if table.link >= len(self._sections):
            raise self._malformed("damaged: its symbols have no names")
        names = self._data(self._sections[table.link])
        entries = _SYMBOL.iter_unpack(self._data(table))
        next(entries, None)  # the first is none, by definition
        return [
            symbol
            for at, info, _, section, _, _ in entries
            if (symbol := self._symbol(names, at, info, section)) is not None
        ]

    def _symbol(self, names: bytes, at: int, info: int, section: int) -> Symbol | None:
        if info & 0xF in (_SECTION_SYMBOL, _FILE_SYMBOL):
            return None
        end = names.find(b"\0", at, at + _LONGEST_NAME)
        name = names[at:end] if end >= 0 else b""
        if not (name.isascii() and name.decode("ascii").isprintable()) or (
            not section and not name
        ):
            raise self._malformed("damaged: a symbol's name is none")
        return Symbol(name.decode("ascii"), defined=section != 0)

    def _check_relocations(self, table: int, count: int) -> None:
        for section in self._sections:
            if section.type == _RELA and section.link == table and section.size:
                if section.size % 24:
                    raise self._malformed("damaged: a relocation is not whole")
                # r_info's upper half, the fourth of six words, is the symbol.
                words = memoryview(self._data(section)).cast("I")
                if max(words[3::6]) >= count:
                    raise self._malformed("damaged: its symbol table is not whole")


def parse_build_id(notes: bytes) -> str | None:
    """Return the build id in an ELF note (as in /sys/module/NAME/notes), in hex.

    >>> parse_build_id(bytes.fromhex("040000000200000003000000474e5500abcd0000"))
    'abcd'
    """
    if len(notes) < 16:  # noqa: PLR2004  (three words and "GNU")
        return None
    name_size, size, kind = struct.unpack_from("<III", notes)
    if kind != _GNU_BUILD_ID or name_size != 4 or notes[12:16] != b"GNU\0":  # noqa: PLR2004
        return None
    build_id = notes[16 : 16 + size]
    return build_id.hex() if len(build_id) == size and size else None
