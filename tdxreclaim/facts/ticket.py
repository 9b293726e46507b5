"""What a ticket came with: captured hosts and logs, read together, once, as streams.

Everything that is given is taken for one host.  Logs are scanned as they are
met and never kept; the few other files that tell of the host are.
"""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tdxreclaim.errors import HostReadError, MalformedInputError, NotReadError, TdxReclaimError
from tdxreclaim.facts import host, places
from tdxreclaim.facts.evidence import Evidence, Gap, Origin, Part, flat
from tdxreclaim.facts.logs.encoding import encoding_of, in_utf8
from tdxreclaim.facts.logs.prose import add_prose
from tdxreclaim.facts.logs.reading import LogReading
from tdxreclaim.facts.logs.scanner import LogScanner, scan_log
from tdxreclaim.facts.logs.whole import choose_log
from tdxreclaim.facts.sources import recognise as capture
from tdxreclaim.facts.sources import tar, unpack
from tdxreclaim.facts.sources.base import (
    KERNEL_LOG,
    TEXT_LIMIT_BYTES,
    Files,
    Source,
    Survey,
    file_size,
    is_directory,
    open_captured,
    too_long,
)
from tdxreclaim.facts.sources.live import Live, installed_kernels
from tdxreclaim.facts.sources.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tdxreclaim.facts.host import HostFacts
    from tdxreclaim.facts.logs.clock import Since
    from tdxreclaim.facts.logs.stack import LogEvent
    from tdxreclaim.facts.logs.voice import ScannedLog

# A log may be larger than a host's files together: it is never in memory.
_LOG_LIMIT_BYTES = 1 << 40


_ERRORS: tuple[type[Exception], ...] = (
    *unpack.UNPACK_ERRORS,
    tarfile.TarError,
    MalformedInputError,
)


_FOLDERS = ("", "sos_commands/kernel", "sos_commands/logs", "var/log")


_LOG_NAME = re.compile(
    r"(?:sos_commands/kernel/dmesg[\w.-]*|sos_commands/logs/journalctl[\w.-]*"
    r"|(?:var/log/)?(?:dmesg|messages|kern\.log|syslog)(?:-\d{8}|\.\d{1,4})?"
    r"|(?:dmesg|journal|journalctl)[\w-]*\.(?:txt|log|json))(?:\.(?:gz|bz2|xz|zst))?"
)


_BINARY_JOURNAL = b"LPKSHHRH"


_MOST_LOGS = 1000


class Sink(Protocol):
    """Gives each log, by its name, a place to put its lines."""

    def __call__(self, path: str) -> Callable[[LogEvent], None]:
        """Return what takes the lines of the log *path*."""
        ...


class Ticket(NamedTuple):
    """What was read.  ``facts`` are ``None`` where nothing tells of the host.

    ``unread`` says what was there and could not be used.
    """

    facts: HostFacts
    name: str
    form: str
    logs: tuple[ScannedLog, ...]
    unread: tuple[Evidence, ...]


class _Together:
    """Several sources of one host: a file comes from the first that has it."""

    def __init__(self, sources: Sequence[Source], origin: Origin) -> None:
        self._sources = sources
        self.origin = origin
        # Whose each file is, so that none is read again for its label.
        self._owners: dict[str, Source] = {}

    def read(self, path: str) -> str | None:
        """Return the text at *path*; see `Source.read`."""
        for source in self._sources:
            # Of one that cannot be read too.
            self._owners[path] = source
            text = source.read(path)
            if text is not None:
                return text
        self._owners.pop(path, None)
        return None

    def label(self, path: str) -> str:
        """Return the label that the source of *path* has for it."""
        alone = self._sources[0] if len(self._sources) == 1 else None
        owner = self._owners.get(path, alone)
        return path if owner is None else owner.label(path)

    def survey(self) -> Survey:
        """Read all of them to their end; see `Source.survey`."""
        found = [source.survey() for source in self._sources]
        return Survey(
            tuple(gap for each in found for gap in each.gaps),
            tuple(named for each in found for named in each.named),
        )

    def close(self) -> None:
        """Close them all."""
        for source in self._sources:
            source.close()


class _Kept:
    """The files of a host that were met in a tar: texts, and why some are none."""

    origin = Origin.CAPTURED

    def __init__(self, found: dict[str, str | HostReadError]) -> None:
        self._found = found

    def read(self, path: str) -> str | None:
        match self._found.get(path):
            case HostReadError() as error:
                raise error
            case text:
                return text

    def label(self, path: str) -> str:
        return path

    def survey(self) -> Survey:
        return Survey()

    def close(self) -> None:
        pass


class TicketReader:
    """Reads what a ticket came with; ``progress`` is called with bytes done and in all."""

    def __init__(
        self,
        sink: Sink,
        *,
        since: Since | None = None,
        host: str | None = None,
        progress: Callable[[int, int | None], None] = lambda _done, _total: None,
    ) -> None:
        self._sink = sink
        self._since = since
        self._host = host
        self._progress = progress
        self._done = 0
        self._total: int | None = 0
        self._logs: list[ScannedLog] = []
        self._unread: list[Evidence] = []
        self._sources: list[Source] = []
        self._inside = ""
        self._alone = True
        # The first that told which CPUs its host has, and which.
        self._known: tuple[str, object] | None = None
        # The beginnings of texts, which may say more of the host than their log lines.
        self._prose: dict[str, str] = {}

    def read(self, paths: Sequence[str]) -> Ticket:
        """Return what *paths* tell; none of them is this host.

        Raises:
            HostReadError, MalformedInputError: one of them cannot be read, is
                not recognised, or tells of another host than the one before.

        """
        if not paths:
            return self._read_live()
        forms: list[str] = []
        self._alone = len(paths) == 1
        for path in paths:
            # Two sosreports have files of the same names.
            self._inside = "" if self._alone else f"{path}/"
            sources, logs = len(self._sources), len(self._logs)
            forms.append(self._read_path(path))
            if not self._alone:
                self._check_same_host(path, self._sources[sources:], self._logs[logs:])
        names = ["standard input" if path == "-" else path for path in paths]
        return self._ticket(", ".join(names), ", ".join(dict.fromkeys(forms)), Origin.CAPTURED)

    def _read_live(self) -> Ticket:
        live = Live()
        try:
            text = live.read(KERNEL_LOG)
        except HostReadError as error:
            self._unread.append(Evidence(error.what, error.why, Origin.LIVE))
            text = None
        if text is not None:
            self._scan(io.BytesIO(text.encode()), "/" + KERNEL_LOG)
        self._scan_tree(Tree("/"), ("var/log",), "/")
        self._sources.append(live)
        return self._ticket("this host", "live", Origin.LIVE)

    def _ticket(self, name: str, form: str, origin: Origin) -> Ticket:
        together = _Together(self._sources, origin)
        log = self._log_of_host(name) if origin is Origin.CAPTURED else None
        if any(map(self._has_log, self._sources)):
            log = None
        facts = host.read_host(
            together, log=log, installed=installed_kernels if origin is Origin.LIVE else None
        )
        return Ticket(facts, name, form, tuple(self._logs), tuple(self._unread))

    def _log_of_host(self, name: str) -> tuple[str, LogReading] | None:
        """Return what the logs, and the texts that they stand in, tell of the host, and which."""
        log = choose_log(tuple(self._logs), name)
        if log is not None:
            return log.path, add_prose(log.reading, self._prose.get(log.path, ""))
        for path, text in self._prose.items():
            reading = add_prose(LogReading(), text)
            if reading != LogReading():
                return path, reading
        return None

    @staticmethod
    def _has_log(source: Source) -> bool:
        try:
            return any(source.read(path) is not None for path in places.KERNEL_LOGS)
        except HostReadError:
            return True

    def _check_same_host(
        self, path: str, sources: Sequence[Source], logs: Sequence[ScannedLog]
    ) -> None:
        groups = [log.reading.group for log in logs if log.reading.group and not log.quoted]
        for source in sources:
            with contextlib.suppress(TdxReclaimError):
                groups += host.read_host(source, symbols=False).groups
        told = {(group.vendor, group.family, group.model) for group in groups}
        if not told:
            return
        name = "standard input" if path == "-" else path
        if self._known is not None and self._known[1] != told:
            why = f"another CPU than in {self._known[0]}: run it by itself"
            raise MalformedInputError(name, why)
        self._known = self._known or (name, told)

    def _read_path(self, path: str) -> str:
        name = "standard input" if path == "-" else path
        if is_directory(path):
            return self._read_directory(path)
        with open_captured(path) as file:
            size = file_size(file)
            self._total = None if size is None or self._total is None else self._total + size
            try:
                head, stream = unpack.read_head(unpack.unpack(file, name, limit=_LOG_LIMIT_BYTES))
            except unpack.UNPACK_ERRORS as error:
                raise HostReadError(name, f"damaged or cut short ({error})") from error
            if tar.looks_like_tar(head):
                self._read_tar(stream, name)
                return "tar"
            return self._read_file(head, _direct(file, stream), name)

    def _read_file(self, head: bytes, stream: io.BufferedReader, name: str) -> str:
        if not head:
            raise MalformedInputError(name, "empty")
        if head.startswith(_BINARY_JOURNAL):
            why = "a binary journal: give what journalctl --file=FILE -k -o short-iso prints of it"
            raise NotReadError(name, why)
        text = head.decode(encoding_of(head) or "utf-8", "replace")
        form = capture.recognise(text)
        if form is not None and form is not capture.CaptureFormat.KERNEL_LOG:
            with stream:
                self._read_listing(_whole(stream, name), name, form)
            return form
        stream = in_utf8(stream, head)
        if form is not None and self._host is None:
            stream = self._read_log_as_capture(stream, name)
        # Of what was not understood the log says so itself.
        for log in self._scan(stream, name):
            self._prose[log.path] = text
        return "log"

    def _read_listing(self, data: bytes, name: str, form: capture.CaptureFormat) -> None:
        """Take a listing of a CPU, and the kernel's lines that were pasted along with it."""
        files = capture.files_of(capture.as_text(data), name, form)
        if gaps := files.survey().gaps:
            found = host.read_host(files, symbols=False)
            named = (*found.groups, *(fact.value for fact in found.witnesses if fact.value))
            if len({(each.vendor, each.family, each.model) for each in named}) > 1:
                raise MalformedInputError(name, gaps[0].why)
        self._sources.append(files)
        before = len(self._logs)
        if not any(log.kernel_lines for log in self._scan(io.BytesIO(data), name)):
            del self._logs[before:]

    def _read_log_as_capture(self, stream: io.BufferedReader, name: str) -> io.BufferedReader:
        """Take what a log tells `check`, other machines in it too; return the log as it was.

        One that is too long for that is searched for no other machine.
        """
        data, stream = unpack.read_up_to(stream, TEXT_LIMIT_BYTES + 1)
        gaps: tuple[Gap, ...] = ()
        if len(data) > TEXT_LIMIT_BYTES:
            why = f"longer than {TEXT_LIMIT_BYTES >> 20} MiB: not searched for other machines"
            gaps = (Gap(name, why, absent=True),)
        else:
            files = capture.files_of(capture.as_text(data), name, capture.CaptureFormat.KERNEL_LOG)
            if self._alone:
                self._sources.append(files)
                return stream
            with contextlib.suppress(TdxReclaimError):
                found = host.read_host(files, symbols=False).coverage.of(Part.IDENTITY)
                gaps = tuple(gap for gap in found if not gap.absent)
        self._sources.append(Files({}, label=name, gaps=gaps))
        return stream

    def _read_directory(self, path: str) -> str:
        try:
            opened = capture.open_capture(path)
            tree: Source = opened.source
        except MalformedInputError:
            # It may have logs and nothing else.
            tree = Tree(path)
            if not any(self._logs_in(tree, _FOLDERS)):
                raise
        self._sources.append(tree)
        if isinstance(tree, Tree):
            self._scan_tree(tree, _FOLDERS, "")
        return "tree"

    @staticmethod
    def _logs_in(tree: Tree, folders: Sequence[str]) -> list[str]:
        return [
            path
            for folder in folders
            for name in tree.names(folder)
            if _LOG_NAME.fullmatch(path := f"{folder}/{name}" if folder else name)
        ]

    def _scan_tree(self, tree: Tree, folders: Sequence[str], root: str) -> None:
        for path in self._logs_in(tree, folders)[:_MOST_LOGS]:
            try:
                with tree.stream(path) as file:
                    size = file_size(file)
                    self._total = (
                        None if size is None or self._total is None else self._total + size
                    )
                    stream = unpack.unpack(file, path, limit=_LOG_LIMIT_BYTES)
                    self._scan(_direct(file, stream), f"{self._inside}{root}{path}")
            except (HostReadError, MalformedInputError) as error:
                self._unread.append(Evidence(error.what, error.why, tree.origin))
            except unpack.UNPACK_ERRORS as error:
                self._unread.append(Evidence(root + path, str(error), tree.origin))

    def _read_tar(self, stream: io.BufferedReader, name: str) -> None:
        found: dict[str, str | HostReadError] = {}
        before = len(self._logs)
        prefix: str | None = None
        cpuinfos: list[tuple[str, int]] = []
        try:
            for member in tar.members(stream):
                inside, path = _split(member.name)
                if path is None:
                    continue
                if path == places.CPUINFO and member.refusal is None:
                    # Whoever unpacks it has the last one; one that differs is another host.
                    text = io.BufferedReader(member.stream).read(TEXT_LIMIT_BYTES)
                    cpuinfos.append((member.name, hash(text)))
                    if prefix in (None, inside):
                        prefix = inside
                        found.setdefault(path, text.decode("utf-8", "replace"))
                elif prefix in (None, inside):
                    prefix = inside
                    self._read_member(member, path, found)
        except tar.TrailingDataError as error:
            raise MalformedInputError(name, str(error)) from error
        except _ERRORS as error:
            self._unread.append(
                Evidence(name, f"the archive is damaged or cut short ({error})", Origin.CAPTURED)
            )
        other = next((each for each, seen in cpuinfos if seen != cpuinfos[0][1]), None)
        if other is not None:
            why = f"several captured hosts are in it: {flat(other)} is of another one"
            raise MalformedInputError(name, why)
        if not found and len(self._logs) == before:
            why = "neither a captured host nor a log is in it"
            if self._unread:
                why = f"not readable as tar ({self._unread[-1].observed})"
            raise MalformedInputError(name, why)
        self._sources.append(_Kept(found))

    def _read_member(
        self, member: tar.Member, path: str, found: dict[str, str | HostReadError]
    ) -> None:
        if member.refusal is not None:
            self._refuse(found, path, member.refusal)
        elif _is_host_file(path):
            kept = sum(len(text) for text in found.values() if isinstance(text, str))
            if kept + member.size > TEXT_LIMIT_BYTES:
                found.setdefault(path, too_long(path))
                return
            text = io.BufferedReader(member.stream).read()
            found.setdefault(path, text.decode("utf-8", "replace"))
            if path in places.KERNEL_LOGS:
                self._scan(io.BytesIO(text), self._inside + path)
        elif len(self._logs) < _MOST_LOGS:
            self._scan_member(member, path)

    def _refuse(self, found: dict[str, str | HostReadError], path: str, why: str) -> None:
        if _is_host_file(path):
            found.setdefault(path, HostReadError(path, why))
        else:
            self._unread.append(Evidence(path, why, Origin.CAPTURED))

    def _scan_member(self, member: tar.Member, path: str) -> None:
        inner = io.BufferedReader(member.stream)
        try:
            stream = unpack.unpack(inner, path, limit=_LOG_LIMIT_BYTES)
            self._scan(stream, self._inside + path)
        except MalformedInputError as error:
            self._unread.append(Evidence(path, error.why, Origin.CAPTURED))

    def _scan(self, stream: io.BufferedIOBase, path: str) -> tuple[ScannedLog, ...]:
        again = sum(log.path == path or log.path.startswith(f"{path} (") for log in self._logs)
        if again:
            path = f"{path} ({again + 1})"
        scanner = LogScanner(path, self._sink, since=self._since, host=self._host)

        def progress(count: int) -> None:
            self._done += count
            self._progress(self._done, self._total)

        scanned = scan_log(stream, scanner, _ERRORS, progress)
        self._logs.extend(scanned)
        return scanned


def _direct(file: io.BufferedReader, stream: io.BufferedReader) -> io.BufferedReader:
    """Return *file* from its beginning if it is a regular one and not packed, else *stream*.

    Each layer of `unpack.unpack` copies what it passes on, which counts in
    a log of gigabytes.
    """
    if file_size(file) is None:
        return stream
    position = file.tell()
    file.seek(0)
    packed = unpack.looks_packed(file.read(8))
    file.seek(position if packed else 0)
    return stream if packed else file


def _whole(stream: io.BufferedReader, name: str) -> bytes:
    from tdxreclaim.facts.sources.base import read_bounded

    try:
        return read_bounded(stream, name)
    except unpack.UNPACK_ERRORS as error:
        raise HostReadError(name, f"damaged or cut short ({error})") from error


def _is_host_file(path: str) -> bool:
    return path in places.WANTED or places.is_config(path)


def _split(name: str) -> tuple[str, str | None]:
    """Return the folder that the host is in, and the path in it of what is wanted."""
    if _is_host_file(name) or _LOG_NAME.fullmatch(name):
        return "", name
    folder, _, rest = name.partition("/")
    if folder != ".." and (_is_host_file(rest) or _LOG_NAME.fullmatch(rest)):
        return folder, rest
    return "", None
