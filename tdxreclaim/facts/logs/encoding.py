"""Logs in other encodings than UTF-8, as some tools for Windows and some consoles save them."""

from __future__ import annotations

import codecs
import io

# So much of the beginning tells.
_HEAD_BYTES = 1 << 12


_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(head: bytes) -> str | None:
    """Return the codec of a text that is UTF-16 or UTF-32 by its beginning, else ``None``."""
    for mark, codec in _MARKS:
        if head.startswith(mark):
            return codec
    sample = head[:_HEAD_BYTES]
    # ASCII in UTF-16 without a mark has a zero in every other place.
    half = len(sample) // 2
    if half < 8 or not sample.count(0) * 3 > half * 2:  # noqa: PLR2004
        return None
    if sample[1::2].count(0) * 5 > half * 4 and sample[::2].count(0) * 5 < half:
        return "utf-16-le"
    if sample[::2].count(0) * 5 > half * 4 and sample[1::2].count(0) * 5 < half:
        return "utf-16-be"
    return None


class _Recoded(io.RawIOBase):
    """A stream in UTF-8 of one in another encoding."""

    def __init__(self, inner: io.BufferedIOBase, codec: str) -> None:
        self._inner = inner
        self._decoder = codecs.getincrementaldecoder(codec)("replace")
        self._out = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._out:
            data = self._inner.read1(1 << 16)
            self._out = self._decoder.decode(data, final=not data).encode("utf-8", "replace")
            if not data:
                break
        count = min(len(buffer), len(self._out))
        buffer[:count] = self._out[:count]
        self._out = self._out[count:]
        return count


def in_utf8(stream: io.BufferedReader, head: bytes) -> io.BufferedReader:
    """Return *stream*, whose beginning is *head*, in UTF-8."""
    codec = encoding_of(head)
    return stream if codec is None else io.BufferedReader(_Recoded(stream, codec), 1 << 16)
