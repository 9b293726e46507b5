"""Debian packages: an ar archive whose member data.tar holds the files.

Source: deb(5).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.images.cut import Cut
from tdxreclaim.facts.sources.unpack import unpack

if TYPE_CHECKING:
    from typing import BinaryIO

_MAGIC = b"!<arch>\ndebian-binary"


_HEADER_BYTES = 60


# debian-binary, control.tar, data.tar, and signatures.
_MOST_MEMBERS = 16


def looks_like_deb(head: bytes) -> bool:
    """Whether *head* (21 bytes or more) begins a Debian package."""
    return head.startswith(_MAGIC)


def deb_data(file: BinaryIO, name: str) -> io.BufferedReader:
    """Return the tar of the files in the package that begins in *file*.

    Raises:
        MalformedInputError: it is damaged, or there is none.

    """
    file.seek(len(b"!<arch>\n"))
    for _ in range(_MOST_MEMBERS):
        header = file.read(_HEADER_BYTES)
        size = header[48:58].strip()
        if len(header) < _HEADER_BYTES or header[58:] != b"`\n" or not size.isdigit():
            break
        if header.startswith(b"data.tar"):
            return unpack(io.BufferedReader(Cut(file, int(size))), name)
        # Members begin at even places.
        file.seek(int(size) + int(size) % 2, 1)
    raise MalformedInputError(name, "damaged: a Debian package without data.tar")
