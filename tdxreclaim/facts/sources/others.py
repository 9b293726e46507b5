"""What else in a capture names a CPU: other logs, other listings, other hosts' files.

They are searched and not kept: a capture has gigabytes of them.  Only what
would contradict the host that is read is taken from them.
"""

from __future__ import annotations

import io
import re
import tarfile
from typing import TYPE_CHECKING

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.cpu import FAMILY_MAX, MODEL_MAX, CpuGroup, decode_signature
from tdxreclaim.facts.evidence import Gap, Part, flat, printable
from tdxreclaim.facts.logs.bringup import vendor_of_brand
from tdxreclaim.facts.sources.base import Named, Survey
from tdxreclaim.facts.sources.tar import MemberStream, looks_like_tar, members
from tdxreclaim.facts.sources.unpack import UNPACK_ERRORS, read_head, unpack
from tdxreclaim.facts.witness import Witness, witness_at
from tdxreclaim.tables.cpus import INTEL

if TYPE_CHECKING:
    from collections.abc import Callable

# All of them together, unpacked: a sosreport has a few GiB of logs.
SEARCHED_LIMIT_BYTES = 16 << 30


_DEEPEST_ARCHIVE = 3


_MOST_GAPS = 16


# Of one capture so many different CPUs are kept.
_MOST_NAMED = 64


_PIECE_BYTES = 1 << 20


# A match reaches no further than this over the end of a piece.
_OVERLAP_BYTES = 1 << 12


# One of these is in whatever the pattern below matches.
_LOG_NEEDLES = (
    b"smpboot: CPU0: ",
    b"family: 0x",
    b": PROCESSOR 0:",
    b"with tdx_pw_mce bug",
    b"TDX private memory error",
    b"Hypervisor detected: ",
)


_IN_LOGS = re.compile(
    rb"(?:smpboot: )?CPU0: (?P<brand>(?!Thermal|Hyper)[^\n]{0,160}?)"
    rb"\(family: 0x(?P<family>[0-9a-f]{1,8}), model: 0x(?P<model>[0-9a-f]{1,8})"
    rb"|\(family: 0x(?P<family2>[0-9a-f]{1,8}), model: 0x(?P<model2>[0-9a-f]{1,8})"
    rb"|smpboot: CPU0: (?P<cut>(?!Thermal|Hyper)[^\n]{0,160})"
    rb"|\[Hardware Error\]: PROCESSOR 0:(?P<signature>[0-9a-f]{1,8})"
    rb"|(?P<flagged>kexec: Not allowed on platform with tdx_pw_mce bug"
    rb"|TDX private memory error\. Possible kernel bug)"
    rb"|(?P<virtual>Hypervisor detected: )",
    re.IGNORECASE,
)


# A processor of cpuinfo, lscpu, lscpu -J or cpuid, however it is laid out.
_NUMBER = rb"\W{1,40}(?:data\W{1,9})?(?:0x[0-9a-f]{1,8} \()?(?P<%s>\d{1,9})\b"
_FAMILY = rb"(?:\bcpu family|\bfamily synth)"
_IN_LISTINGS = re.compile(
    _FAMILY
    + _NUMBER % b"family"
    + rb"(?P<between>[\s\S]{0,600}?)\b(?:model|model synth)"
    + _NUMBER % b"model"
    + rb"|\b(?:0x|CPUID )00000001(?: 0x00: eax=0x|: )(?P<signature>[0-9a-f]{8})\b"
    + rb"|^bugs\s*:[^\n]{0,4000}\b(?P<flagged>tdx_pw_mce)\b",
    re.IGNORECASE | re.MULTILINE,
)
_ANY_FAMILY = re.compile(_FAMILY, re.IGNORECASE)


_SEARCH_ERRORS: tuple[type[Exception], ...] = (*UNPACK_ERRORS, tarfile.TarError)


class Others:
    """Searches the files of a capture that are witnesses by their names."""

    def __init__(self) -> None:
        self._named: dict[tuple[CpuGroup, bool], str] = {}
        self._gaps: list[Gap] = []
        self._left = SEARCHED_LIMIT_BYTES
        self._depth = 0

    def survey(self) -> Survey:
        """Return what was found."""
        named = tuple(Named(place, *what) for what, place in self._named.items())
        return Survey(tuple(self._gaps), named)

    def look(self, name: str, open_: Callable[[], io.BufferedIOBase]) -> None:
        """Search the file *name*, if it is one that may name a CPU.

        Raises:
            MalformedInputError, and what reading *open_* gives: the capture
                around it cannot be read on.

        """
        witness = witness_at(name)
        if witness is None or self._left <= 0:
            return
        part = Part.LOG if witness is Witness.LOG else Part.IDENTITY
        try:
            with open_() as stream:
                self._unpack(name, stream, witness)
        except _Outside as error:
            raise error.cause from error
        except _SEARCH_ERRORS as error:
            self._note(name, f"damaged or cut short ({error})", part)
        except MalformedInputError as error:
            if error.what != name:
                raise
            self._note(name, error.why, part)

    def refuse(self, name: str, why: str) -> None:
        """Note that the file *name*, if it is one that may name a CPU, is not read."""
        witness = witness_at(name)
        if witness is not None:
            part = Part.LOG if witness is Witness.LOG else Part.IDENTITY
            self._note(name, why, part)

    def _unpack(self, name: str, stream: io.BufferedIOBase, witness: Witness) -> None:
        head, plain = read_head(unpack(stream, name, limit=self._left))
        if looks_like_tar(head):
            self._look_into(name, plain)
        elif witness is not Witness.ARCHIVE:
            self._search(name, plain, witness)

    def _look_into(self, name: str, plain: io.BufferedReader) -> None:
        if self._depth >= _DEEPEST_ARCHIVE:
            self._note(name, f"more than {_DEEPEST_ARCHIVE} archives in each other", Part.IDENTITY)
            return
        self._depth += 1
        try:
            for member in members(plain):
                self._spend(512 + member.size)
                if member.refusal is None:
                    self.look(f"{name}/{flat(member.name)}", guarded(member.stream))
        finally:
            self._depth -= 1

    def _search(self, name: str, plain: io.BufferedReader, witness: Witness) -> None:
        search = _Log(self, name) if witness is Witness.LOG else _Listing(self, name)
        before, line = b"", 1
        while piece := plain.read(_PIECE_BYTES):
            self._spend(len(piece))
            if self._left <= 0:
                break
            data = before + piece
            search.take(data, line)
            before = search.again(data)
            line += data.count(NEWLINE, 0, len(data) - len(before))
        search.take(before, line)
        search.end()

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left <= 0:
            limit = f"more than {SEARCHED_LIMIT_BYTES >> 30} GiB of logs and listings"
            self._note("the capture", f"{limit}: not all searched", Part.IDENTITY)

    def _note(self, name: str, why: str, part: Part) -> None:
        gap = Gap(printable(name), printable(why), part)
        # One that leaves the CPU open is never left out for others.
        others = sum(each.part is part for each in self._gaps)
        if gap not in self._gaps and others < _MOST_GAPS:
            self._gaps.append(gap)

    def refuse_folder(self, name: str, why: str) -> None:
        """Note that the folder *name* cannot be listed."""
        self._note(name, why, Part.LOG)

    def doubt(self, place: str, why: str) -> None:
        """Note what leaves open which CPU the host has."""
        self._note(place, why, Part.IDENTITY)

    def name(self, place: str, group: CpuGroup, *, virtual: bool = False) -> None:
        """Note a CPU that *place* names."""
        if len(self._named) < _MOST_NAMED:
            self._named.setdefault((group, virtual), printable(place))
        elif (group, virtual) not in self._named:
            self._note(place, f"more than {_MOST_NAMED} kinds of CPU are named", Part.IDENTITY)


class _Log:
    """A kernel log, of however many boots."""

    def __init__(self, others: Others, name: str) -> None:
        self._others = others
        self._name = name
        self._found: dict[CpuGroup, str] = {}
        self._boots = self._virtual = 0

    def again(self, data: bytes) -> bytes:
        """Return what of *data* is to be searched with what follows: a line that does not end."""
        return data[max(data.rfind(NEWLINE) + 1, len(data) - _OVERLAP_BYTES) :]

    def take(self, data: bytes, line: int) -> None:
        """Search *data*, whose first line is number *line*."""
        if not any(needle in data for needle in _LOG_NEEDLES):
            return
        for match in _IN_LOGS.finditer(data):
            # Lines are counted for the few that are shown.
            at = f"{flat(self._name)}:{line + data.count(NEWLINE, 0, match.start())}"
            self._take_match(match, at)

    def _take_match(self, match: re.Match[bytes], at: str) -> None:
        if match["virtual"]:
            self._virtual += 1
        elif match["flagged"]:
            self._others.doubt(at, "printed only by a kernel that has set tdx_pw_mce")
        elif match["signature"]:
            self._add(at, _of_signature(match["signature"], INTEL))
        elif match["cut"] is not None:
            self._others.doubt(at, "names a CPU and cannot be read")
        else:
            self._boots += match["brand"] is not None
            brand = (match["brand"] or b"").decode("ascii", "replace")
            family = int(match["family"] or match["family2"], 16)
            model = int(match["model"] or match["model2"], 16)
            self._add(at, _group(vendor_of_brand(brand), family, model))

    def _add(self, at: str, group: CpuGroup) -> None:
        if len(self._found) <= _MOST_NAMED:
            self._found.setdefault(group, at)

    def end(self) -> None:
        """Note the CPUs: those of a log of virtual machines alone as such."""
        virtual = self._virtual >= self._boots > 0
        for group, at in self._found.items():
            self._others.name(at, group, virtual=virtual)


class _Listing:
    """What cpuinfo, lscpu or cpuid printed."""

    def __init__(self, others: Others, name: str) -> None:
        self._others = others
        self._name = flat(name)
        self._unfinished = False

    def again(self, data: bytes) -> bytes:
        """Return what of *data* is to be searched with what follows."""
        return data[-_OVERLAP_BYTES:]

    def take(self, data: bytes, line: int) -> None:  # noqa: ARG002
        """Search *data*."""
        end = 0
        vendor = INTEL if INTEL.encode() in data else None
        for match in _IN_LISTINGS.finditer(data):
            end = match.end()
            if match["flagged"]:
                self._others.doubt(self._name, "bugs: tdx_pw_mce")
            elif match["signature"]:
                self._others.name(self._name, _of_signature(match["signature"]))
            else:
                self._take_pair(match, vendor)
        self._unfinished = _ANY_FAMILY.search(data, end) is not None

    def _take_pair(self, match: re.Match[bytes], vendor: str | None) -> None:
        family, model = int(match["family"]), int(match["model"])
        self._others.name(self._name, _group(vendor, family, model))
        if _ANY_FAMILY.search(match["between"]):
            self._others.doubt(self._name, "a CPU in it has no model")

    def end(self) -> None:
        """Note a last CPU that is cut."""
        if self._unfinished:
            self._others.doubt(self._name, "a CPU in it has no model")


NEWLINE = b"\n"


def _of_signature(digits: bytes, vendor: str | None = None) -> CpuGroup:
    family, model, _ = decode_signature(int(digits, 16))
    return CpuGroup(vendor=vendor, family=family, model=model)


def _group(vendor: str | None, family: int, model: int) -> CpuGroup:
    return CpuGroup(
        vendor=vendor,
        family=family if family <= FAMILY_MAX else None,
        model=model if model <= MODEL_MAX else None,
    )


class _Outside(Exception):  # noqa: N818  (it carries an error)
    """The archive around a member is damaged, and not the member."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Guarded(io.RawIOBase):
    """A member's stream, whose errors are those of the archive around it."""

    def __init__(self, stream: MemberStream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            return self._stream.readinto(buffer)
        except _SEARCH_ERRORS as error:
            raise _Outside(error) from error


def guarded(stream: MemberStream) -> Callable[[], io.BufferedIOBase]:
    """Return what opens *stream* for `Others.look`."""
    return lambda: io.BufferedReader(_Guarded(stream))
