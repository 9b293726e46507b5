"""Files of many hosts: CSV and JSON, line by line; and the names that a user gave for them."""

from __future__ import annotations

import io
import json
import os
import re
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.errors import HostReadError, MalformedInputError
from tdxreclaim.facts.sources import unpack
from tdxreclaim.facts.sources.base import TEXT_LIMIT_BYTES, is_directory, open_captured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Form(StrEnum):
    """What a source of a fleet is, told by its beginning."""

    CSV = "csv"
    LINES = "jsonl"
    DOCUMENT = "json"
    CAPTURE = "capture"


class Rows(NamedTuple):
    """An opened source; ``text`` is closed by who asked for it."""

    form: Form
    text: io.TextIOBase
    file: io.BufferedReader


# Names at the top of a directory that is one captured host.
_OF_A_HOST = frozenset(("proc", "sys", "sos_commands", "lscpu.json", "cpuinfo"))

HOST_COLUMNS = ("host", "host_name", "hostname", "name", "node", "instance")
CPU_COLUMNS = ("model", "cpu_model", "cpu", "signature", "schema")

# A row of an inventory is short; a document of check some ten KiB.
LONGEST_LINE = 16 << 20


def expand(given: Iterable[str]) -> Iterator[str]:
    """Return the sources that *given* names: of a directory or a pattern each one in it, sorted.

    A directory that is a captured host is one source; so is what does not exist.
    """
    for name in given:
        if is_directory(name):
            try:
                inside = sorted(os.listdir(name))
            except OSError:  # said when it is opened
                inside = []
            if inside and _OF_A_HOST.isdisjoint(inside):
                yield from (os.path.join(name, one) for one in inside)
                continue
        elif not os.path.lexists(name) and any(c in name for c in "*?["):
            from glob import glob

            found = sorted(glob(name))
            if found:
                yield from found
                continue
        yield name


def open_rows(name: str) -> Rows | None:
    """Return *name* opened as rows, ``None`` if it is a capture of one host.

    Raises:
        HostReadError, MalformedInputError: it cannot be read.

    """
    if is_directory(name):
        return None
    file = open_captured(name)
    try:
        head, stream = unpack.read_head(unpack.unpack(file, name))
    except unpack.UNPACK_ERRORS as error:
        file.close()
        raise HostReadError(name, f"damaged or cut short ({error})") from error
    except BaseException:
        file.close()
        raise
    form = recognise_rows(head.decode("utf-8-sig", "replace"))
    if form is Form.CAPTURE:
        file.close()
        if name == "-":
            raise MalformedInputError(
                "standard input", "neither JSONL nor CSV; for one host: tdxreclaim check --from -"
            )
        return None
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="")
    return Rows(form, text, file)


def recognise_rows(head: str) -> Form:
    """Return what the beginning of a file looks like."""
    lines = head.lstrip().splitlines()
    first = lines[0] if lines else ""
    # A list of objects; a kernel log begins with "[    0.000000]".
    if re.match(r"\[\s*[{\]]", head.lstrip()):
        return Form.DOCUMENT
    if first[:1] == "{":
        if _is_object(first):
            return Form.LINES
        return Form.DOCUMENT if '"schema"' in head and "tdxreclaim." in head else Form.CAPTURE
    return Form.CSV if _is_header(first) else Form.CAPTURE


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        # A document that is longer than the head, or not whole.
        return line.startswith('{"schema": "tdxreclaim.')


def delimiter_of(header: str) -> str:
    """Return what stands between the columns of *header*."""
    return max(",;\t", key=header.count)


def column(title: str) -> str:
    """Return the title of a column as it is looked up: ``CPU family`` is ``cpu_family``."""
    return title.strip().strip('"').lower().replace(" ", "_").replace("-", "_")


def _is_header(line: str) -> bool:
    titles = {column(title) for title in line.split(delimiter_of(line))}
    return (
        len(titles) > 1
        and not titles.isdisjoint((*HOST_COLUMNS, "source"))
        and not titles.isdisjoint((*CPU_COLUMNS, "vendor", "family"))
    )


def lines(text: io.TextIOBase, name: str) -> Iterator[str]:
    """Return the lines of *text*.

    Raises:
        HostReadError, MalformedInputError: it cannot be read on, or a line is too long.

    """
    try:
        while line := text.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise MalformedInputError(name, f"a line of more than {LONGEST_LINE >> 20} MiB")
            yield line
    except unpack.UNPACK_ERRORS as error:
        raise HostReadError(name, f"damaged or cut short ({error})") from error


def documents(text: io.TextIOBase, name: str) -> Iterator[object]:
    """Return the JSON values of *text*: of an array each element, read one by one.

    Raises:
        HostReadError, MalformedInputError: it cannot be read, or is no JSON.

    """
    decoder, buffer, at, array, ended = json.JSONDecoder(), "", 0, False, False
    while True:
        at = _skip(buffer, at, " \t\r\n,\ufeff")
        if not array and buffer[at : at + 1] == "[":
            array, at = True, at + 1
            continue
        if array and buffer[at : at + 1] == "]":
            array, at = False, at + 1
            continue
        if at < len(buffer):
            try:
                value, at = decoder.raw_decode(buffer, at)
            except (ValueError, RecursionError) as error:
                if ended or len(buffer) - at > TEXT_LIMIT_BYTES:
                    raise MalformedInputError(name, f"no JSON ({error})") from error
            else:
                yield value
                continue
        elif ended:
            if array:
                raise MalformedInputError(name, "the JSON array is cut short")
            return
        try:
            # Twice as much each time, so that a long value is not decoded often.
            more = text.read(max(1 << 16, len(buffer) - at))
        except unpack.UNPACK_ERRORS as error:
            raise HostReadError(name, f"damaged or cut short ({error})") from error
        ended = not more
        buffer, at = buffer[at:] + more, 0


def _skip(text: str, at: int, blank: str) -> int:
    while at < len(text) and text[at] in blank:
        at += 1
    return at
