"""One witness in a log: the lines of one host, in one dress, and what they come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdxreclaim.facts.logs.boots import MOST_BOOTS, Boot, Boots
from tdxreclaim.facts.logs.bringup import Bringup
from tdxreclaim.facts.logs.clock import Since, moment_of
from tdxreclaim.facts.logs.line import Line, Speaker, Stamp, read_line
from tdxreclaim.facts.logs.needles import begins
from tdxreclaim.facts.logs.stack import LogEvent, Stacks
from tdxreclaim.facts.logs.uncut import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tdxreclaim.facts.logs.reading import LogReading

# Where a log is cut, its tail may say again what its head said: so much is compared.
_MOST_SEEN = 4096


@dataclass(frozen=True, kw_only=True)
class Unread:
    """What was not understood: about how many lines, and the first of them.

    ``looks_like`` is the likely form, ``command`` what makes a readable log.
    """

    lines: int
    number: int
    text: str
    looks_like: str
    command: str


@dataclass(frozen=True, kw_only=True)
class ScannedLog:
    """What was read of one witness in a log.

    ``lines`` and ``size`` are the whole log's, ``kernel_lines`` those of the
    kernel that were looked at.  ``understood``: some line of the log was.
    ``skipped`` says what was not read or not used, a phrase each; ``unread``
    is what was not understood.  ``host`` is empty where no line names it.
    ``quoted``: lines in other dress beside plain ones, of a host not known.
    """

    path: str
    lines: int
    size: int
    kernel_lines: int
    boots: tuple[Boot, ...]
    skipped: tuple[str, ...]
    reading: LogReading
    host: str = ""
    quoted: bool = False
    understood: bool = True
    unread: Unread | None = None


class Voice:
    """Takes the lines of one host in one dress; ``sink`` gets those that may matter."""

    def __init__(
        self,
        path: str,
        dress: str,
        sink: Callable[[LogEvent], None],
        since: Since | None,
        *,
        watches: bool = False,
    ) -> None:
        self.path = path
        self.dress = dress
        self.host = ""
        self.kernel_lines = 0
        self.boots = Boots()
        self.bringup = Bringup()
        self.window = Window()
        self._watches = watches
        self._since = since
        self._stacks = Stacks(sink)
        self._headless = False
        self._cut = False
        self._seen: set[tuple[float | None, str]] = set()
        self._too_old = self._undated = self._undecodable = 0

    @property
    def waits(self) -> bool:
        """Whether the lines to come belong to a stack."""
        return bool(self._stacks)

    def take(self, line: Line, number: int, *, joined: bool = False, ended: bool = True) -> None:
        """Note a line that the kernel wrote, or what libvirt says of a process.

        One that is not *ended* is the log's last, and may be cut in a word.
        """
        if line.speaker is Speaker.KERNEL:
            self.window.take(line)
            if not begins(line.message):
                self._stacks.take(line)
                return
        else:
            self.window.cut()
        # JSON has the stamp beside the message, for every line of a stack or for none.
        untagged = line.stamp.seconds is None and not line.host
        self._headless = untagged or self.dress.endswith("{")
        known = (line.stamp.seconds, line.message)
        if (self._cut and known in self._seen) or not self._new_enough(line.stamp):
            return
        if len(self._seen) < _MOST_SEEN and line.stamp.seconds is not None:
            self._seen.add(known)
        self._undecodable += "\N{REPLACEMENT CHARACTER}" in line.message
        self.kernel_lines += 1
        boot, new = self.boots.note(line, number)
        if new:
            self.window.forget()
            self.bringup.new_boot(number)
        message = line.message.lstrip()
        if line.speaker is Speaker.KERNEL:
            self._tell(number, line, f"{message}\n" if ended else message)
        if (release := self.bringup.reading.release) is not None:
            self.boots.name(release.text)
        self._stacks.begin(
            LogEvent(number=number, boot=boot, stamp=line.stamp, text=message, joined=joined)
        )

    def _tell(self, number: int, line: Line, message: str) -> None:
        """Hand a message on to what it tells of the host."""
        known = self.bringup.reading
        self.bringup.take(number, message, uncut=self.window.uncut)
        told = self.bringup.reading
        if told.boots > known.boots and self._watches:
            self.window.begin(line)
        elif told.cpu is not known.cpu:
            self.window.end()

    def pass_by(self, text: str) -> None:
        """Note a line that is not known to be the kernel's, while a stack is open."""
        if self._headless:
            self._stacks.take(Line(Speaker.KERNEL, read_line(text).message or text))
        else:
            self._stacks.pass_by()

    def cut(self) -> None:
        """Note that lines are left out here."""
        self._cut = True
        self._stacks.finish()
        self.window.cut()

    def finish(self) -> None:
        """Hand on what is open."""
        self._stacks.finish()

    def skipped(self) -> Iterator[str]:
        """Say what was not used, a phrase each."""
        if self._undecodable:
            yield f"{self._undecodable} kernel lines with bytes that are not UTF-8: shown as �"
        if self._too_old:
            yield f"{self._too_old} kernel lines older than --since: left out"
        if self._undated:
            yield f"{self._undated} kernel lines whose date is not told: kept whatever --since says"
        if len(self.boots.found) == MOST_BOOTS:
            yield f"boots after the {MOST_BOOTS}th: counted as that one"

    def _new_enough(self, stamp: Stamp) -> bool:
        since = self._since
        if since is None:
            return True
        if since.moment is None:
            told, least = stamp.seconds, since.uptime
        else:
            told, least = stamp.moment, since.moment
            if told is None and stamp.when:
                told = moment_of(stamp.when, since.moment)
        if told is None or least is None:
            self._undated += 1
            return True
        self._too_old += told < least
        return told >= least
