"""Recognises what a user gave as a captured host, and opens it as a source."""

from __future__ import annotations

import codecs
import contextlib
import re
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.errors import HostReadError, MalformedInputError
from tdxreclaim.facts import places
from tdxreclaim.facts.evidence import Gap
from tdxreclaim.facts.formats import cpuid, cpuinfo, lscpu
from tdxreclaim.facts.images.members import looks_like_part
from tdxreclaim.facts.logs import whole as klog
from tdxreclaim.facts.sources import archive, tar, unpack
from tdxreclaim.facts.sources.base import Files, Source, is_directory, open_captured, read_bounded
from tdxreclaim.facts.sources.tree import NO_HOST, open_tree

if TYPE_CHECKING:
    import io


class CaptureFormat(StrEnum):
    """What ``--from`` can be; the values are its ``--from-format`` names."""

    CPUINFO = "cpuinfo"
    LSCPU = "lscpu"
    LSCPU_JSON = "lscpu-json"
    CPUID = "cpuid"
    KERNEL_LOG = "kernel-log"
    TREE = "tree"
    TAR = "tar"


# Where a single text stands in the tree of a host.
PLACE = {
    CaptureFormat.CPUINFO: places.CPUINFO,
    CaptureFormat.LSCPU: places.LSCPU,
    CaptureFormat.LSCPU_JSON: places.LSCPU_JSON,
    CaptureFormat.CPUID: places.CPUID,
    CaptureFormat.KERNEL_LOG: places.KERNEL_LOGS[0],
}


class Capture(NamedTuple):
    """An opened capture, and what it was recognised as."""

    source: Source
    format: CaptureFormat


def recognise(text: str) -> CaptureFormat | None:
    """Return the form of a text by its beginning, ``None`` if it is none of ours."""
    if text.lstrip().startswith("{") and '"lscpu"' in text:
        return CaptureFormat.LSCPU_JSON
    for form, looks in (
        (CaptureFormat.CPUID, cpuid.looks_like_cpuid),
        (CaptureFormat.LSCPU, lscpu.looks_like_lscpu),
        (CaptureFormat.CPUINFO, cpuinfo.looks_like_cpuinfo),
        (CaptureFormat.KERNEL_LOG, klog.looks_like_kernel_log),
    ):
        if looks(text):
            return form
    return None


def open_capture(
    path: str,
    form: CaptureFormat | None = None,
    *,
    also: frozenset[str] = frozenset(),
) -> Capture:
    """Return the captured host at *path* (a file, ``-``, a directory or a tar).

    *form* overrides what its beginning looks like; *also* are further files
    that may be asked for, of a tar.

    Raises:
        HostReadError: it cannot be read.
        MalformedInputError: it is not recognised, or not what *form* says.

    """
    name = "standard input" if path == "-" else path
    if is_directory(path):
        if form not in (None, CaptureFormat.TREE):
            raise MalformedInputError(name, f"a directory, not {form}")
        return Capture(open_tree(path, places.WANTED), CaptureFormat.TREE)
    if form is CaptureFormat.TREE:
        raise MalformedInputError(name, "not a directory")

    file = open_captured(path)
    with contextlib.ExitStack() as stack:
        stack.callback(file.close)
        capture = _open_file(file, name, form, places.WANTED | also)
        if capture.format is CaptureFormat.TAR:
            # It is read as it is asked, and closes the file in the end.
            stack.pop_all()
    return capture


def _open_file(
    file: io.BufferedReader, name: str, form: CaptureFormat | None, wanted: frozenset[str]
) -> Capture:
    errors = unpack.UNPACK_ERRORS
    try:
        head, stream = unpack.read_head(unpack.unpack(file, name))
    except errors as error:
        raise HostReadError(name, _reason(error)) from error
    if form is CaptureFormat.TAR or (form is None and tar.looks_like_tar(head)):
        opened = archive.Archive(stream, wanted, name, file)
        if not opened.find_any():
            why = NO_HOST
            if opened.damage:
                why = f"not readable as tar ({opened.damage})"
            raise MalformedInputError(name, why)
        return Capture(opened, CaptureFormat.TAR)

    if not head:
        raise MalformedInputError(name, "empty")
    if form is not None and b"\0" in head:
        raise MalformedInputError(name, f"binary, and so not {form}")
    if form is None:
        form = recognise(head.decode("utf-8", "replace"))
    if form is None:
        why = "binary, and no archive" if b"\0" in head else "not recognised as any captured form"
        if looks_like_part(head):
            why = f"a part of a kernel, not a captured host: give it as --image {name}"
        raise MalformedInputError(name, why)
    try:
        text = as_text(read_bounded(stream, name))
    except errors as error:
        raise HostReadError(name, _reason(error)) from error
    return Capture(files_of(text, name, form), form)


# One letter beyond the first plane makes every letter of a text take four bytes.
_BEYOND = re.compile("[\U00010000-\U0010ffff]")


_PIECE_BYTES = 1 << 20


def as_text(data: bytes) -> str:
    """Return the text in *data*; what is not UTF-8, or of no use in a long text, as U+FFFD."""
    if len(data) <= _PIECE_BYTES:
        return data.decode("utf-8", "replace").removeprefix("\ufeff")
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = (
        decoder.decode(data[at : at + _PIECE_BYTES], final=at + _PIECE_BYTES >= len(data))
        for at in range(0, len(data), _PIECE_BYTES)
    )
    text = "".join(
        piece if piece.isascii() else _BEYOND.sub("\N{REPLACEMENT CHARACTER}", piece)
        for piece in pieces
    )
    return text.removeprefix("\ufeff")


# How each form shows, wherever it stands in a text and whatever stands before it.
_TRACES = {
    CaptureFormat.CPUINFO: re.compile(
        r"^[^\n:]{0,40}\b(?:vendor_id|cpu family)\s*[:=]|^[^\n:]{0,40}\bprocessor\s*[:=]\s*\d",
        re.MULTILINE,
    ),
    CaptureFormat.LSCPU: re.compile(r"^[^\n:]{0,40}\b(?:Vendor ID|CPU family):", re.MULTILINE),
    CaptureFormat.LSCPU_JSON: re.compile(r'"lscpu"\s*:\s*\['),
    CaptureFormat.CPUID: re.compile(
        r"\beax=0x[0-9a-f]{8}\b|\bCPUID [0-9a-f]{8}: [0-9a-f]{8}-", re.IGNORECASE
    ),
    CaptureFormat.KERNEL_LOG: re.compile(
        r"smpboot: CPU0: |CPU0: [^\n]{0,200}family: 0x|^[^\n]{0,80}Linux version \d"
        # What tells of an affected CPU in other lines of the kernel.
        r"|\[Hardware Error\]: PROCESSOR 0:|kexec: Not allowed on platform|TDX private memory error",
        re.MULTILINE | re.IGNORECASE,
    ),
}


# The forms whose parsers understand every line, or say that they do not.
_STRICT = {CaptureFormat.CPUINFO, CaptureFormat.LSCPU, CaptureFormat.LSCPU_JSON}


# In capitals they tell lscpu from cpuinfo.
_AS_WRITTEN = frozenset((CaptureFormat.LSCPU,))


# A trace has one of these, in lower case: looking for them costs a tenth of the pattern.
_WORDS_OF_TRACES = {
    CaptureFormat.CPUINFO: ("vendor_id", "cpu family", "processor"),
    CaptureFormat.LSCPU: ("Vendor ID", "CPU family"),
    CaptureFormat.LSCPU_JSON: ('"lscpu"',),
    CaptureFormat.CPUID: ("eax=0x", *(f"cpuid {digit:x}" for digit in range(16))),
    CaptureFormat.KERNEL_LOG: (
        *("cpu0: ", "linux version", "processor 0:", "kexec: not allowed", "tdx private memory"),
    ),
}


_CONTROL = re.compile(r"\x1b\[[\d;]{0,20}[A-Za-z]|\x00")


# A processor of cpuinfo or lscpu, whatever a mail program, grep or diff made of it.
_IN_DRESS = re.compile(
    r"vendor[_ ]id\W{1,40}(?:data\W{1,9})?(?:genuine|authentic|hygon|centaur)"
    r"|\bcpu family\W{1,40}(?:data\W{1,9})?\d|\bmodel\W{1,9}data\W{1,9}\d"
    r"|\bprocessor\s*[:=]\s*\d|\bmodel\s*=\s*(?:0x)?\d|\blscpu\W{1,8}\["
    r"|^\W{0,8}(?:model|stepping|architecture|cpu\(s\))\s*[:=]\s*(?:x86|i\d86|\d)",
    re.IGNORECASE | re.MULTILINE,
)


_WORDS_OF_DRESS = (
    *("vendor id", "vendor_id", "cpu family", "model", "processor", "lscpu", "stepping"),
    *("architecture", "cpu(s)"),
)


# Nothing that is looked for begins further before its word, or ends further behind it.
_BEFORE, _BEHIND = 100, 400


# A text has its words in other places some hundred times; one of more is taken for what it may be.
_MOST_PLACES = 50_000


def _shows(plain: str, letters: str, words: tuple[str, ...], pattern: re.Pattern[str]) -> bool:
    """Whether *pattern* is in *plain*; one of *words*, of *letters*, is in whatever it matches."""
    left = _MOST_PLACES
    for word in words:
        at = letters.find(word)
        while at >= 0:
            left -= 1
            if left < 0 or pattern.search(plain, max(at - _BEFORE, 0), at + _BEHIND):
                return True
            at = letters.find(word, at + 1)
    return False


def files_of(text: str, name: str, form: CaptureFormat) -> Files:
    """Return *text* as the file of its form, and of every other form that shows in it.

    People paste one after the other: each is a witness, and none of them is whole.
    """
    if form is CaptureFormat.CPUINFO and _is_all_cpuinfo(text):
        return Files({places.CPUINFO: text}, label=name)
    plain = text
    if "\x1b" in plain or "\0" in plain:
        # Piece by piece: millions of places at once would fill the memory.
        pieces = range(0, len(plain), _PIECE_BYTES)
        plain = "".join(_CONTROL.sub("", plain[at : at + _PIECE_BYTES]) for at in pieces)
    plain = plain.replace("\xa0", " ").replace("\u0130", "I")
    # As long as it is: no other letter becomes two.
    lower = plain.lower()
    traces = [
        each
        for each, trace in _TRACES.items()
        if each is not form
        and _shows(plain, plain if each in _AS_WRITTEN else lower, _WORDS_OF_TRACES[each], trace)
    ]
    strict = form in _STRICT or set(traces) & _STRICT
    if not strict and _shows(plain, lower, _WORDS_OF_DRESS, _IN_DRESS):
        traces.append(CaptureFormat.CPUINFO)
    forms = list(dict.fromkeys((form, *traces)))
    if len(forms) == 1:
        return Files({PLACE[form]: text}, label=name)
    shown = " and ".join(map(str, forms))
    return Files(
        {PLACE[each]: text for each in forms},
        label=name,
        gaps=(Gap(name, f"several captures in one text ({shown}): give each by itself"),),
    )


def _is_all_cpuinfo(text: str) -> bool:
    """Whether every line of *text* is one of x86's /proc/cpuinfo: then nothing else is in it."""
    try:
        reading = cpuinfo.parse_cpuinfo(text)
    except MalformedInputError:
        return False
    return reading.architecture == "x86" and not reading.gaps


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"damaged or cut short ({error})"
