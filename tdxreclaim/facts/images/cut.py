"""A part of a stream as a stream."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO


class Cut(io.RawIOBase):
    """The next ``left`` bytes of a stream."""

    def __init__(self, stream: BinaryIO | io.BufferedIOBase, left: int) -> None:
        self._stream = stream
        self.left = left

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill *buffer* with what comes next."""
        data = self._stream.read(max(0, min(len(buffer), self.left)))
        self.left -= len(data)
        buffer[: len(data)] = data
        return len(data)
