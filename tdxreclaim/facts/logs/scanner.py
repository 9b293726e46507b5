"""Kernel lines in logs, read as a stream: journals and dmesg of any size, as dirty as they come.

A log is scanned in pieces of a few MiB with regular expressions that begin
with what stands before a kernel message; only the hits are decoded and looked
at whole.  A line counts only if the kernel wrote it: a syslog or journal line
of another program never does, whatever it quotes.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tdxreclaim.facts.logs.clock import _iso, _microseconds, _moment
from tdxreclaim.facts.logs.line import (
    _BEGINS,
    _CALLER,
    _LIBVIRT,
    _LINE,
    _STACK_BEGINS,
    _STAMPS,
    _UPTIME,
    _WALL,
    _WORDS,
    BEGINNINGS,
    Stamp,
)
from tdxreclaim.facts.logs.stack import LogEvent, _StackReader

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

CHUNK_BYTES = 2 << 20


# Of a longer line only this much is looked at, and what follows a NUL.
LINE_BYTES = 1 << 16


_OVERLAP_BYTES = 1 << 12


_MOST_STACKS = 64


MOST_BOOTS = 4096


_HOST_LINES = 200


# Stamps of different CPUs' lines are out of order by less than this; a boot is not.
_BACKWARDS_SECONDS = 60.0


def _letters(at: int) -> bytes:
    return b"[" + b"".join(sorted({re.escape(word[at : at + 1]) for word in _WORDS})) + b"]"


# Looked at before the alternatives, as that is quicker.
_FIRST_LETTERS = b"(?=" + b"".join(_letters(at) for at in range(3)) + b")"


_AFTER_TAG = re.compile(
    b"kernel: (?=" + _letters(0) + b")" + _STAMPS + rb"(?:" + BEGINNINGS + rb")"
)


_AFTER_STAMP = re.compile(rb"\] " + _FIRST_LETTERS + rb"(?:" + BEGINNINGS + rb")")


_BARE = re.compile(
    rb"\n(?=[^\[]|\[H)[ |\t]{0,8}(?:kern *:[a-z]{3,6} *: ?)?(?:" + BEGINNINGS + rb")"
)


_IN_JSON = re.compile(rb'"MESSAGE" ?: ?(?:\[|"' + _STAMPS + rb"(?:" + BEGINNINGS + rb"))")


# What libvirt says when a process cannot be killed: not the kernel's, and told apart.
_NOT_KILLED = b"with SIGKILL: Device or resource busy"


_HOST_LINE = re.compile(
    r"Linux version |smpboot: CPU0: |Hypervisor detected: |tdx: Guest detected"
    r"|virt/tdx: |kexec: Not allowed"
)


_Needle: TypeAlias = "re.Pattern[bytes] | bytes"


class Boot(NamedTuple):
    """One boot in a log; ``whole`` if its beginning is there."""

    whole: bool
    line: int
    release: str | None = None


class HostLine(NamedTuple):
    """A line that tells of the host, for `klog`."""

    number: int
    text: str


class ScannedLog(NamedTuple):
    """A log that was read to its end, or as far as it could be.

    ``skipped`` says what was not read or not used, a phrase each.
    ``host_lines`` are the last boot's.
    """

    path: str
    lines: int
    size: int
    kernel_lines: int
    boots: tuple[Boot, ...]
    skipped: tuple[str, ...]
    host_lines: tuple[HostLine, ...]


class LogScanner:
    """Finds the kernel's lines in one log and hands each to *sink*, in order.

    ``since`` (seconds since 1970) leaves out lines that say they are older.
    """

    def __init__(
        self, path: str, sink: Callable[[LogEvent], None], since: float | None = None
    ) -> None:
        self._path = path
        self._sink = sink
        self._since = since
        self._carry = b""
        self._lines = 0
        self._size = 0
        self._kernel_lines = 0
        self._boots: list[Boot] = []
        self._boot_ids: dict[str, int] = {}
        self._boot = 0
        self._last_seconds: float | None = None
        self._host_lines: list[HostLine] = []
        self._first = True
        self._bare = True
        self._inside_line = False
        self._long_lines = self._nuls = self._undecodable = self._malformed = 0
        self._too_old = self._undated = 0
        self._damage: str | None = None
        # By the thread or CPU that prints, where the kernel says it ("" where not).
        self._stacks: dict[str, _StackReader] = {}

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the log."""
        self._size += len(chunk)
        buffer = self._carry + chunk if self._carry else chunk
        end = buffer.rfind(b"\n") + 1
        if end:
            self._scan(buffer, end)
            self._carry = buffer[end:]
            self._inside_line = False
        else:
            self._carry = buffer
        if len(self._carry) > CHUNK_BYTES:
            self._give_up_on_line()

    def finish(self, damage: str | None = None) -> ScannedLog:
        """Return what was scanned; *damage* says why the rest could not be read."""
        if self._carry:
            self._scan(self._carry, len(self._carry))
            self._lines += 1
            self._carry = b""
        self._end_stacks()
        self._damage = damage
        return ScannedLog(
            self._path,
            self._lines,
            self._size,
            self._kernel_lines,
            tuple(self._boots),
            tuple(self._skipped()),
            tuple(self._host_lines),
        )

    def _skipped(self) -> Iterator[str]:
        if self._damage:
            yield f"cut short or damaged after line {self._lines}: {self._damage}"
        if self._long_lines:
            yield (
                f"{self._long_lines} lines of more than {LINE_BYTES >> 10} KiB: only their "
                "beginning, and what follows a NUL, was looked at"
            )
        if self._nuls:
            yield f"{self._nuls} NUL bytes: taken for the end of a line"
        if self._undecodable:
            yield f"{self._undecodable} kernel lines with bytes that are not UTF-8: shown as �"
        if self._malformed:
            yield f"{self._malformed} lines of JSON that are cut off or malformed: not used"
        if self._too_old:
            yield f"{self._too_old} kernel lines older than --since: left out"
        if self._undated:
            yield f"{self._undated} kernel lines whose date is not told: kept whatever --since says"
        if len(self._boots) == MOST_BOOTS:
            yield f"boots after the {MOST_BOOTS}th: counted as that one"

    def _give_up_on_line(self) -> None:
        """Scan what there is of a line without end, and keep a rest in case of a split word."""
        if not self._inside_line:
            self._long_lines += 1
        cut = len(self._carry) - _OVERLAP_BYTES
        self._scan(self._carry, cut)
        self._carry = self._carry[cut:]
        self._inside_line = True

    def _scan(self, buffer: bytes, end: int) -> None:
        if buffer.find(b"\0", 0, end) >= 0:
            self._nuls += buffer.count(b"\0", 0, end)
        counted, position = 0, 0
        number = self._lines + 1
        hits = _Hits(buffer, end, self._choose(buffer, end), first_line=not self._inside_line)
        while position < end:
            if self._stacks:
                start: int | None = _past_nuls(buffer, position)
                line_end = _line_end(buffer, start or 0, end)
            else:
                hit = hits.next(position)
                if hit is None:
                    break
                start, line_end = _line_start(buffer, hit, position), _line_end(buffer, hit, end)
            # The middle of a line is not what a kernel message begins with.
            if start is not None and (start or not self._inside_line):
                number += buffer.count(b"\n", counted, start)
                counted = start
                # A line without end is counted where it is given up on.
                self._long_lines += line_end - start > LINE_BYTES and line_end < end
                self._line(buffer[start : min(line_end, start + LINE_BYTES)], number)
            position = line_end + 1
        self._lines += buffer.count(b"\n", 0, end)

    def _choose(self, buffer: bytes, end: int) -> list[_Needle]:
        """Return the expressions that can match in this piece at all."""
        tagged = buffer.find(b"kernel: ", 0, end) >= 0
        in_json = buffer.find(b'"MESSAGE"', 0, end) >= 0
        chosen: list[_Needle] = [_NOT_KILLED]
        if tagged:
            chosen.append(_AFTER_TAG)
        if in_json:
            chosen.append(_IN_JSON)
        if self._first:
            # A journal's pieces are alike: bare messages are not looked for in every one.
            self._bare = not (tagged or in_json) or end < CHUNK_BYTES // 2
            self._first = False
        if self._bare or not (tagged or in_json):
            chosen += [_AFTER_STAMP, _BARE]
        return chosen

    def _line(self, raw: bytes, number: int) -> None:
        text = raw.rstrip(b"\r").decode("utf-8", "replace")
        split = self._split(text)
        if split is None:
            self._pass_stack_lines()
            return
        stamp, message, boot_id = split
        begins = _BEGINS.match(message)
        reader = self._stacks.get(stamp.caller)
        if reader is not None and not begins:
            if reader.take(message):
                self._end_stack(stamp.caller)
            return
        if self._stacks and not begins:
            self._pass_stack_lines()
        if not begins and not message.startswith("Failed to terminate process"):
            return
        if not self._new_enough(stamp):
            return
        if "\N{REPLACEMENT CHARACTER}" in text:
            self._undecodable += 1
        self._kernel_lines += 1
        self._note_boot(message, stamp, boot_id, number)
        self._keep_host_line(message, number)
        self._hand_on(LogEvent(number, self._boot, stamp, message))

    def _hand_on(self, event: LogEvent) -> None:
        """Give an event to the sink, or keep it until its stack is read."""
        begins = _STACK_BEGINS.match(event.text)
        if begins is None:
            if event.text.startswith("task:"):
                return
            self._sink(event)
            return
        caller = event.stamp.caller
        reader = self._stacks.get(caller)
        if reader is not None and begins["task"] and reader.adopts(begins["task_pid"]):
            return
        self._end_stack(caller)
        if len(self._stacks) >= _MOST_STACKS:
            self._end_stacks()
        self._stacks[caller] = _StackReader(event, begins)

    def _pass_stack_lines(self) -> None:
        for caller in [each for each, reader in self._stacks.items() if reader.passes()]:
            self._end_stack(caller)

    def _end_stack(self, caller: str) -> None:
        reader = self._stacks.pop(caller, None)
        if reader is not None:
            self._sink(reader.event())

    def _end_stacks(self) -> None:
        for caller in list(self._stacks):
            self._end_stack(caller)

    def _split(self, text: str) -> tuple[Stamp, str, str] | None:
        """Return stamp, message and boot id of a kernel line; ``None`` of another's."""
        if text.startswith("{"):
            return self._split_json(text)
        match = _LINE.fullmatch(text)
        if match is None:
            return None
        message = match["message"]
        if match["when"] is None and not match["stamps"] and not match["monotonic"]:
            refused = _LIBVIRT.match(text)
            if refused:
                return self._stamp(refused["when"], "", None), refused["message"], ""
        return self._stamp(match["when"], match["stamps"], match["monotonic"]), message, ""

    def _stamp(self, when: str | None, stamps: str, monotonic: str | None) -> Stamp:
        uptime = _UPTIME.match(stamps)
        wall = _WALL.match(stamps)
        seconds = monotonic or (uptime[1] if uptime else None)
        told = when or (wall[1] if wall else "")
        moment = None
        if self._since is not None and told:
            moment = _moment(told, self._since)
        caller = _CALLER.search(stamps)
        return Stamp(
            float(seconds) if seconds else None, told.strip(), moment, caller[1] if caller else ""
        )

    def _split_json(self, text: str) -> tuple[Stamp, str, str] | None:
        try:
            record: Any = json.loads(text)
        except (ValueError, RecursionError):
            self._malformed += 1
            return None
        if not isinstance(record, dict):
            return None
        message = record.get("MESSAGE")
        if isinstance(message, list) and all(
            isinstance(byte, int) and 0 <= byte < 256  # noqa: PLR2004  (a byte)
            for byte in message
        ):
            # journalctl writes what is not UTF-8 as a list of bytes.
            message = bytes(message).decode("utf-8", "replace")
        if not isinstance(message, str):
            return None
        # The journal's transport decides; anybody can call himself "kernel".
        kernels = record.get("_TRANSPORT") == "kernel" or (
            "_TRANSPORT" not in record
            and record.get("SYSLOG_IDENTIFIER") == "kernel"
            and "_PID" not in record
        )
        refused = message.startswith("Failed to terminate process") and "SIGKILL" in message
        if not kernels and not refused:
            return None
        match = _LINE.fullmatch(message.partition("\n")[0])
        moment = _microseconds(record.get("__REALTIME_TIMESTAMP"))
        when = "" if moment is None else _iso(moment)
        stamp = Stamp(_microseconds(record.get("__MONOTONIC_TIMESTAMP")), when, moment)
        boot_id = record.get("_BOOT_ID")
        return (
            stamp,
            match["message"] if match else message,
            boot_id if isinstance(boot_id, str) else "",
        )

    def _new_enough(self, stamp: Stamp) -> bool:
        if self._since is None:
            return True
        if stamp.moment is None:
            self._undated += 1
            return True
        if stamp.moment < self._since:
            self._too_old += 1
            return False
        return True

    def _note_boot(self, message: str, stamp: Stamp, boot_id: str, number: int) -> None:
        begins = message.startswith("Linux version ")
        words = message.split(maxsplit=3)
        release = words[2] if begins and len(words) > 2 else None  # noqa: PLR2004  (Linux version X)
        if boot_id:
            if boot_id not in self._boot_ids and len(self._boot_ids) < MOST_BOOTS:
                self._begin_boot(Boot(begins, number, release))
                self._boot_ids[boot_id] = self._boot
            self._boot = self._boot_ids.get(boot_id, len(self._boots) - 1)
            if begins:
                self._boots[self._boot] = self._boots[self._boot]._replace(
                    whole=True, release=release
                )
            return
        backwards = (
            stamp.seconds is not None
            and self._last_seconds is not None
            and stamp.seconds < self._last_seconds - _BACKWARDS_SECONDS
        )
        if begins or backwards or not self._boots:
            self._begin_boot(Boot(begins, number, release))
        if stamp.seconds is not None:
            self._last_seconds = stamp.seconds

    def _begin_boot(self, boot: Boot) -> None:
        self._last_seconds = None
        if len(self._boots) < MOST_BOOTS:
            self._boots.append(boot)
            self._host_lines.clear()
        self._boot = len(self._boots) - 1

    def _keep_host_line(self, message: str, number: int) -> None:
        if _HOST_LINE.match(message) and len(self._host_lines) < _HOST_LINES:
            self._host_lines.append(HostLine(number, message[:400]))


class _Hits:
    """The next place where any of some expressions matches, each looked for once."""

    def __init__(
        self, buffer: bytes, end: int, patterns: list[_Needle], *, first_line: bool
    ) -> None:
        self._buffer = buffer
        self._end = end
        self._patterns = patterns
        self._next = [-1] * len(patterns)
        self._first_line = first_line

    def next(self, position: int) -> int | None:
        """Return the first hit at or after *position*."""
        best: int | None = None
        for index, pattern in enumerate(self._patterns):
            at = self._next[index]
            if at < position:
                at = self._next[index] = self._find(pattern, position)
            if at < self._end and (best is None or at < best):
                best = at
        return best

    def _find(self, pattern: _Needle, position: int) -> int:
        if isinstance(pattern, bytes):
            # Much faster than an expression for the same letters.
            found = self._buffer.find(pattern, position, self._end)
            return self._end if found < 0 else found
        if pattern is _BARE:
            # The newline before belongs to the match; before the first line there is none.
            if position == 0 and self._first_line and _BEGINS_BARE.match(self._buffer):
                return 0
            match = pattern.search(self._buffer, max(position - 1, 0), self._end)
            return match.start() + 1 if match else self._end
        match = pattern.search(self._buffer, position, self._end)
        return match.start() if match else self._end


_BEGINS_BARE = re.compile(_BARE.pattern.removeprefix(rb"\n"))


# No line of the kernel has its message further from its beginning, not even as JSON.
_LONGEST_HEAD = 1 << 14


_NULS = re.compile(rb"\0*")


def _line_start(buffer: bytes, hit: int, position: int) -> int | None:
    """Return where the line of *hit* begins; ``None`` if that is too far before it."""
    least = max(position, hit - _LONGEST_HEAD)
    newline = buffer.rfind(b"\n", least, hit)
    found = max(newline, buffer.rfind(b"\0", max(newline, least), hit))
    if found >= 0:
        return found + 1
    return position if least == position else None


def _line_end(buffer: bytes, start: int, end: int) -> int:
    """Return where the line ends: at a newline or NUL, or where the buffer does."""
    newline = buffer.find(b"\n", start, end)
    if newline < 0:
        newline = end
    nul = buffer.find(b"\0", start, newline)
    return newline if nul < 0 else nul


def _past_nuls(buffer: bytes, position: int) -> int:
    match = _NULS.match(buffer, position)
    return match.end() if match else position


def scan_log(
    stream: io.BufferedIOBase,
    scanner: LogScanner,
    errors: tuple[type[Exception], ...],
    progress: Callable[[int], None],
) -> ScannedLog:
    """Read *stream* to its end through *scanner*; damage ends it and is said."""
    while True:
        pieces: list[bytes] = []
        size = 0
        damage: str | None = None
        try:
            # read1, since read would lose what came before the damage.
            while size < CHUNK_BYTES and (piece := stream.read1(CHUNK_BYTES - size)):
                pieces.append(piece)
                size += len(piece)
        except errors as error:
            damage = str(error) or type(error).__name__
        if pieces:
            scanner.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            progress(size)
        if damage is not None or not pieces:
            return scanner.finish(damage)
