"""What one JSON document says to a fleet, by its schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.evidence import flat
from tdxreclaim.fleet import inventory
from tdxreclaim.fleet.answer import ROW_SCHEMA, read_report, read_row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tdxreclaim.fleet.answer import Answer

PART_SCHEMA = "tdxreclaim.fleet-part/1"
SOURCE_SCHEMA = "tdxreclaim.fleet-source/1"
REFUSED_SCHEMA = "tdxreclaim.fleet-refused/1"
FINDING_SCHEMA = "tdxreclaim.fleet-finding/1"

# A name that says nothing of the host.
_NAMELESS = ("this host", "standard input", "command line", "")


class HostRow(NamedTuple):
    """A host and its answer."""

    host: str
    answer: Answer
    memory_bytes: int | None = None


class PartRow(NamedTuple):
    """The head of what ``--shard part/of`` wrote."""

    part: int
    of: int
    duplicates: int


class SourceRow(NamedTuple):
    """A source that a part read."""

    name: str
    answers: int


class RefusedRow(NamedTuple):
    """What gave no answer."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A finding of triage and the hosts that have it."""

    id: str
    severity: str
    hosts: tuple[str, ...]


Said: TypeAlias = HostRow | PartRow | SourceRow | RefusedRow | FindingRow


def read_document(document: object, what: str) -> Said:
    """Return what *document* says; *what* is where it stands, for errors and nameless hosts.

    Raises:
        MalformedInputError: it is nothing that a fleet is made of, or not whole.

    """
    if not isinstance(document, dict):
        raise MalformedInputError(what, "no JSON object")
    schema = str(document.get("schema", ""))
    read = _READERS.get(schema)
    if read is None and schema.startswith("tdxreclaim.check/"):
        read = _report
    if read is None and not schema:
        read = _inventory
    if read is None:
        raise MalformedInputError(what, f"schema {flat(schema)} is no answer of check")
    try:
        return read(document, what)
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedInputError(what, f"not what {schema} is ({error})") from error


def _report(document: Mapping[str, object], what: str) -> HostRow:
    answer = read_report(document, what)
    source = document.get("source")
    name = document.get("host_name") or (source.get("name") if isinstance(source, dict) else "")
    if name in _NAMELESS or not isinstance(name, str):
        name = what
    return HostRow(name, answer)


def _error(document: Mapping[str, object], what: str) -> RefusedRow:
    error = cast("dict[str, object]", document["error"])
    name = str(document.get("host_name") or what)
    why = error["why"] if error["what"] == name else f"{error['what']}: {error['why']}"
    return RefusedRow(name, flat(str(why)))


def _row(document: Mapping[str, object], what: str) -> HostRow:
    memory = document.get("memory_bytes")
    size = int(memory) if isinstance(memory, int) else None
    return HostRow(_text(document, "host"), read_row(document, what), size)


def _part(document: Mapping[str, object], _: str) -> PartRow:
    return PartRow(*(_integer(document, name) for name in ("part", "of", "duplicates")))


def _source(document: Mapping[str, object], _: str) -> SourceRow:
    return SourceRow(_text(document, "source"), _integer(document, "answers"))


def _refused(document: Mapping[str, object], _: str) -> RefusedRow:
    return RefusedRow(flat(_text(document, "source")), flat(_text(document, "why")))


def _finding(document: Mapping[str, object], _: str) -> FindingRow:
    hosts = document["hosts"]
    if not isinstance(hosts, list):
        raise TypeError("hosts")
    return FindingRow(_text(document, "id"), _text(document, "severity"), tuple(map(str, hosts)))


def _inventory(document: Mapping[str, object], what: str) -> HostRow:
    host, vendor, family, model, stepping, kernel, memory = inventory.read_columns(document)
    if not host:
        raise MalformedInputError(what, "neither a schema nor a host")
    answer = inventory.answer(vendor, family, model, stepping, kernel)
    return HostRow(host, answer, inventory.memory(memory))


def _text(document: Mapping[str, object], name: str) -> str:
    value = document[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value


def _integer(document: Mapping[str, object], name: str) -> int:
    value = document[name]
    if not isinstance(value, int):
        raise TypeError(name)
    return value


_READERS: dict[str, Callable[[Mapping[str, object], str], Said]] = {
    "tdxreclaim.error/1": _error,
    ROW_SCHEMA: _row,
    PART_SCHEMA: _part,
    SOURCE_SCHEMA: _source,
    REFUSED_SCHEMA: _refused,
    FINDING_SCHEMA: _finding,
}
