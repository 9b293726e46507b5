"""The witnesses in one log: whose line each is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.facts.logs.line import Line, Speaker
from tdxreclaim.facts.logs.needles import begins, begins_fault, is_buried
from tdxreclaim.facts.logs.voice import Voice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tdxreclaim.facts.logs.clock import Since
    from tdxreclaim.facts.logs.stack import LogEvent

# Different hosts and dresses in one log; lines of more are counted and not used.
_MOST_VOICES = 64


# Names that a machine has before it gets its own.
_NAMELESS = frozenset(
    ("", "localhost", "localhost.localdomain", "(none)", "-", "unknown", "fedora", "archlinux")
)


class Voices:
    """The witnesses in one log."""

    def __init__(
        self,
        path: str,
        open_sink: Callable[[str], Callable[[LogEvent], None]],
        since: Since | None,
        host: str | None,
        *,
        watches: bool = False,
    ) -> None:
        self.all: list[Voice] = []
        self._path = path
        self._open_sink = open_sink
        self._since = since
        self._host = host
        self._watches = watches
        self._section = ""
        self._section_host = ""
        self._last: Voice | None = None
        self._others = self._too_many = 0
        self.heard = False
        self._quoting = 0
        # Lines whose words matter, in a place where the kernel does not put them.
        self.buried = 0
        self.ended = True

    @property
    def wait(self) -> bool:
        """Whether a stack, or the beginning of a boot, is being read."""
        return any(voice.waits or voice.window.is_open for voice in self.all)

    def break_off(self, but: Voice | None = None) -> None:
        """Note a line that is not the kernel's of a witness, of all *but* one."""
        for voice in self.all:
            if voice is not but:
                voice.window.cut()

    def take(self, dress: str, line: Line, number: int, *, joined: bool = False) -> None:
        """Hand a line to its witness."""
        self.heard = True
        if line.speaker is Speaker.PROGRAM and not line.message.startswith("Failed to terminate"):
            self._quoting += is_buried(line.message) or begins_fault(line.message)
            self.break_off()
            self.pass_by(dress, "")
            return
        self.buried += line.speaker is Speaker.KERNEL and is_buried(line.message)
        voice = self._voice(self._section + dress, line.host or self._section_host, line)
        self.break_off(but=voice)
        if voice is not None:
            voice.take(line, number, joined=joined, ended=self.ended)
            self._last = voice
            for other in self.all:
                if other is not voice and other.waits:
                    other.pass_by("")

    def pass_by(self, dress: str, text: str) -> None:
        """Note a line that is nobody's, or another program's."""
        if text.strip():
            self.break_off()
        for voice in self.all:
            if voice.waits:
                voice.pass_by(text if voice.dress == self._section + dress else "")

    def cut(self) -> None:
        """Note that lines are left out."""
        for voice in self.all:
            voice.cut()

    def begin_section(self, path: str, host: str) -> None:
        """Note that lines of another file, or host, follow."""
        self.break_off()
        self._section = f"{path}: " if path else ""
        self._section_host = host

    def finish(self) -> None:
        """Let each hand on what it holds."""
        for voice in self.all:
            voice.finish()

    def skipped(self) -> Iterator[str]:
        """Say which lines were not used, for whose they are."""
        if self._others:
            yield f"{self._others} kernel lines that do not name {self._host}: left out"
        if self._quoting:
            lines = "line" if self._quoting == 1 else "lines"
            yield (
                f"{self._quoting} {lines} of other programs that quote a kernel, maybe a guest's: "
                "not used"
            )
        if self.buried:
            yield (
                f"{self.buried} kernel lines with words about TDX or a fault elsewhere than at "
                "their beginning: not used"
            )
        if self._too_many:
            yield f"{self._too_many} kernel lines of further hosts than {_MOST_VOICES}: not used"

    def main_dress(self) -> str | None:
        """Return the dress that the host's own lines wear; ``None`` if none can be told."""
        dresses = {voice.dress for voice in self.all if voice.kernel_lines}
        if "" in dresses:
            return ""
        return dresses.pop() if len(dresses) == 1 else None

    def _voice(self, dress: str, host: str, line: Line) -> Voice | None:
        host = "" if host in _NAMELESS else host
        same = [voice for voice in self.all if voice.dress == dress]
        for voice in same:
            if host and _same_host(voice.host, host):
                return voice
        named = [voice for voice in same if voice.host]
        if not host and len(named) <= 1 and same:
            return (named or same)[0]
        nameless = next((voice for voice in same if not voice.host), None)
        if host and nameless is not None and not named:
            nameless.host = host
            return nameless
        if not host and nameless is not None:
            return nameless
        if not begins(line.message) and line.speaker is Speaker.KERNEL:
            return None
        if self._host is not None and not _same_host(host, self._host):
            self._others += 1
            return None
        if len(self.all) >= _MOST_VOICES:
            self._too_many += 1
            return None
        return self.admit(dress, host)

    def admit(self, dress: str, host: str) -> Voice:
        """Return a new witness."""
        label = self._path
        if self.all:
            what = host or (f'lines after "{dress}"' if dress else "plain lines")
            label = f"{self._path} ({what})"
            taken = {voice.path for voice in self.all}
            label = next(
                each
                for each in (label, *(f"{label} {turn}" for turn in range(2, _MOST_VOICES + 2)))
                if each not in taken
            )
        voice = Voice(label, dress, self._open_sink(label), self._since, watches=self._watches)
        voice.host = host
        self.all.append(voice)
        return voice


def _same_host(one: str, other: str) -> bool:
    """Whether two names are one host's: with and without its domain."""
    if one == other:
        return True
    short, long = sorted((one, other), key=len)
    return bool(short) and "." not in short and long.startswith(f"{short}.")
