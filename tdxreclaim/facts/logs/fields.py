"""The text of log lines in JSON, whatever program laid it out.

Each object is looked through for a text under one of the usual names, and for
who wrote it, on which host, when: in itself or in what surrounds it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from tdxreclaim.facts.logs.clock import epoch_seconds, iso
from tdxreclaim.facts.logs.dress import INSIDE, undress_block
from tdxreclaim.facts.logs.line import Line, Speaker, Stamp, read_line
from tdxreclaim.facts.logs.needles import begins

if TYPE_CHECKING:
    from collections.abc import Iterator

# The last part of a field's name, lower case; the first that is there counts.
_TEXTS = (
    "message",
    "msg",
    "_msg",
    "log",
    "line",
    "_raw",
    "textpayload",
    "original",
    "stdout_lines",
    "stdout",
    "text",
    "short_message",
    "@message",
    "body",
    "body.stringvalue",
    "content",
    "syslogmessage",
)


_SPEAKERS = (
    *("syslog_identifier", "identifier", "ident", "program", "programname", "appname"),
    *("app_name", "app-name", "process", "process.name", "app", "syslog.appname", "unit", "_comm"),
    *("_systemd_unit", "systemd_unit", "service.name"),
)


_HOSTS = ("_hostname", "hostname", "host", "host.name", "nodename", "node", "node_name", "server")


_WALLS = (
    *("__realtime_timestamp", "_source_realtime_timestamp", "@timestamp", "timestamp", "time"),
    *("ts", "date", "_time", "datetime", "eventtime"),
)


_BYTE = 256


_DEEPEST = 12


# A number of seconds below this is one since boot.
_LEAST_EPOCH = 10**8


class _About(NamedTuple):
    """What is known of a text by the objects around it."""

    transport: str = ""
    speaker: str = ""
    host: str = ""
    stamp: Stamp = Stamp()
    boot_id: str = ""


# A date and a tag (fluentd), or what marks an event, before a JSON value.
_BEFORE_JSON = re.compile(
    r"(?:data:[ ]?|\x1e|\ufeff|[ \t])*"
    r"(?:\d{4}-\d\d-\d\d[T ][\d:.,]{8,20}(?: ?(?:Z|[+-]\d\d:?\d\d))?[ \t]+[\w./-]{1,100}:?[ \t]+(?=\{))?"
    r"(?=[\[{]\s*(?:[\"{\[]|\Z))"
)


def json_in(text: str) -> str | None:
    """Return the JSON value that a line holds, or begins; ``None`` if it is no such line."""
    match = _BEFORE_JSON.match(text)
    return None if match is None else text[match.end() :]


def read_json(text: str) -> list[Line] | None:
    """Return the lines in one JSON value; ``None`` if it is none."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict | list):
        return None
    return list(_lines(value, _About(), 0))


def text_columns(header: str) -> tuple[str, list[str]] | None:
    """Return the separator and the columns of a table's first line; ``None`` if it is none."""
    for separator in (",", ";", "\t"):
        columns = [each.strip(" \"'#") for each in header.strip("\r\n\ufeff").split(separator)]
        if len(columns) > 1 and all(_COLUMN.fullmatch(each) for each in columns):
            named = any(each.lower().rpartition(".")[2] in _TEXTS for each in columns)
            return (separator, columns) if named else None
    return None


_COLUMN = re.compile(r"[@\w][\w.@-]{0,60}(?: \[\w{1,8}\])?")


def read_row(text: str, separator: str, columns: list[str]) -> list[Line] | None:
    """Return the lines in one row of a table; ``None`` if it is cut or has other columns."""
    import csv

    try:
        row = next(csv.reader([text], delimiter=separator, strict=True), [])
    except csv.Error:
        return None
    if len(row) != len(columns):
        return None
    return read_record(dict(zip(columns, row, strict=True)))


def read_record(record: dict[str, Any]) -> list[Line]:
    """Return the lines in the text field of one record."""
    return list(_of_object(record, _About(), 0))


def _lines(value: object, about: _About, depth: int) -> Iterator[Line]:
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        yield from _of_object(value, about, depth)
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, dict | list) and not _is_pair(each):
                yield from _lines(each, about, depth + 1)
            elif isinstance(each, str):
                yield from _of_text(each, about)
            elif _is_pair(each):
                # Loki: the time in nanoseconds, and the line.
                stamp = _stamp({"ts": each[0]}, about.stamp)
                yield from _of_text(each[1], about._replace(stamp=stamp))


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (2, 3)
        and all(isinstance(each, str) for each in value[:2])
        and value[0].isdigit()
    )


def _of_object(value: dict[str, Any], about: _About, depth: int) -> Iterator[Line]:
    flat: dict[str, Any] = {}
    _flatten(value, "", flat, depth)
    about = _about(flat, about)
    text = _text(flat)
    if text is not None:
        for each in text if isinstance(text, list) else [text]:
            yield from _of_text(each, about)
        return
    lists = [each for each in flat.values() if isinstance(each, list)]
    for inner in lists:
        yield from _lines(inner, about, depth + 1)
    if not lists:
        for each in flat.values():
            if isinstance(each, str) and _has_kernels(each):
                yield from _of_text(each, about)
                return


# A console's output begins with what the firmware says.
_MOST_LOOKED_AT = 2000


def _has_kernels(text: str) -> bool:
    lines = text.split("\n", _MOST_LOOKED_AT)[:_MOST_LOOKED_AT]
    return any(read_line(line).speaker is Speaker.KERNEL for line in lines)


def _flatten(value: dict[str, Any], prefix: str, flat: dict[str, Any], depth: int) -> None:
    for key, each in value.items():
        name = f"{prefix}{key.lower()}"
        if isinstance(each, dict) and depth < _DEEPEST:
            _flatten(each, f"{name}.", flat, depth + 1)
        else:
            flat[name] = each


def _text(flat: dict[str, Any]) -> str | list[str] | None:
    """Return the text, or a list of lines, under the first of the usual names."""
    for wanted in _TEXTS:
        for name, value in flat.items():
            if name != wanted and not name.endswith(f".{wanted}"):
                continue
            if isinstance(value, str):
                return value
            if isinstance(value, list) and value:
                if all(isinstance(each, int) and 0 <= each < _BYTE for each in value):
                    # journalctl writes what is not UTF-8 as a list of bytes.
                    return bytes(value).decode("utf-8", "replace")
                if all(isinstance(each, str) for each in value):
                    return value
    return None


def _about(flat: dict[str, Any], outer: _About) -> _About:
    speaker = _first(flat, _SPEAKERS) or outer.speaker
    facility = flat.get("facility", flat.get("fac"))
    if facility not in (None, 0, "0", "kern", "kernel"):
        speaker = speaker or "another facility"
    priority = flat.get("pri")
    if isinstance(priority, int) and priority > 7:  # noqa: PLR2004  (facility 0 has eight)
        speaker = "another facility"
    if flat.get("_pid") not in (None, ""):
        speaker = "a process"
    boot_id = flat.get("_boot_id")
    return _About(
        transport=str(flat.get("_transport") or outer.transport),
        speaker=speaker,
        host=_first(flat, _HOSTS) or outer.host,
        stamp=_stamp(flat, outer.stamp),
        boot_id=boot_id if isinstance(boot_id, str) else outer.boot_id,
    )


def _first(flat: dict[str, Any], names: tuple[str, ...]) -> str:
    for wanted in names:
        for name, value in flat.items():
            if (name == wanted or name.endswith(f".{wanted}")) and isinstance(value, str) and value:
                return value
    return ""


def _stamp(flat: dict[str, Any], outer: Stamp) -> Stamp:
    monotonic = epoch_seconds(flat.get("__monotonic_timestamp"), unit=1e6)
    for wanted in _WALLS:
        value = next(
            (v for name, v in flat.items() if name == wanted or name.endswith(f".{wanted}")), None
        )
        if isinstance(value, str) and not value.isdigit():
            return Stamp(monotonic, value[:60])
        seconds = epoch_seconds(value)
        if seconds is None:
            continue
        if seconds < _LEAST_EPOCH:
            return Stamp(seconds)
        return Stamp(monotonic, iso(seconds), seconds)
    return outer if monotonic is None else Stamp(monotonic)


_KERNELS_NAME = re.compile(r"(?:kern(?:el)?|vmunix)(?:\[\d+\])?:?|kmsg|dmesg")


def _of_text(text: str, about: _About) -> Iterator[Line]:
    plain = undress_block(text.encode("utf-8", "replace")).replace(INSIDE, b"\n")
    for each in plain.decode("utf-8", "replace").split("\n"):
        if each.strip():
            yield _spoken(each, about)


def _spoken(text: str, about: _About) -> Line:
    line = read_line(text)
    kernels = about.transport == "kernel" or (
        not about.transport and _KERNELS_NAME.fullmatch(about.speaker.lower())
    )
    # The journal's transport decides; anybody can call himself "kernel".
    others = (about.transport not in ("", "kernel")) or (about.speaker and not kernels)
    speaker, message = line.speaker, line.message
    if others and not message.startswith("Failed to terminate process"):
        speaker = Speaker.PROGRAM
    elif (kernels and speaker is Speaker.NOBODY) or (speaker is Speaker.NOBODY and begins(text)):
        speaker, message = Speaker.KERNEL, text
    elif speaker is Speaker.NOBODY:
        message = text
    stamp = about.stamp
    if line.stamp.seconds is not None and stamp.seconds is None:
        stamp = stamp._replace(seconds=line.stamp.seconds)
    stamp = stamp._replace(
        when=stamp.when or line.stamp.when, caller=stamp.caller or line.stamp.caller
    )
    return Line(speaker, message, stamp, line.host or about.host, about.boot_id)
