"""Reads one source, turning what is not there or cannot be read into evidence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from tdxreclaim.errors import HostReadError
from tdxreclaim.facts import places
from tdxreclaim.facts.evidence import (
    ABSENT,
    NOT_NEEDED,
    Evidence,
    Fact,
    Gap,
    Origin,
    not_readable,
    printable,
)
from tdxreclaim.facts.kernel import Symbols, parse_config, parse_release
from tdxreclaim.facts.sources.base import KERNEL_LOG
from tdxreclaim.facts.sources.live import kernel_release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tdxreclaim.facts.logs.reading import LogLine, LogReading
    from tdxreclaim.facts.sources.base import Source

T = TypeVar("T")


class Reader:
    """What stands in a source, as facts; the kernel log is read once.

    Of what is not ``wanted`` nothing is read but the release.
    """

    def __init__(self, source: Source, log: tuple[str, LogReading] | None = None) -> None:
        self.source = source
        self.wanted = True
        self.gaps: list[Gap] = []
        self.other_logs: list[tuple[str, LogReading]] = []
        self.log_path = KERNEL_LOG if self.is_live else places.KERNEL_LOGS[0]
        self._log: LogReading | None = None
        self._log_label: str | None = None
        self._log_evidence: Evidence | None = None
        if log is not None:
            self._log_label, self._log = log
            self._log_evidence = Evidence(self._log_label, "", source.origin)

    @property
    def is_live(self) -> bool:
        """Whether it is this host that is read."""
        return self.source.origin is Origin.LIVE

    def evidence(self, path: str, observed: str) -> Evidence:
        """Return what was *observed* at *path*."""
        return Evidence(self.source.label(path), printable(observed), self.source.origin)

    def note(self, path: str, why: str) -> None:
        """Note that what stands at *path* was not read, or not understood."""
        gap = Gap(self.source.label(path), printable(why), places.part_of(path))
        if gap not in self.gaps:
            self.gaps.append(gap)

    def unread(self, path: str) -> Fact[T]:
        """Return the fact that *path* was not looked at."""
        return Fact(None, self.evidence(path, NOT_NEEDED))

    def text(self, path: str) -> tuple[str | None, Evidence]:
        """Return the text of an optional file, ``None`` with the reason if there is none."""
        try:
            text = self.source.read(path)
        except HostReadError as error:
            self.note(path, error.why)
            return None, self.evidence(path, not_readable(error.why))
        return text, self.evidence(path, ABSENT if text is None else "")

    def fact(self, path: str, parse: Callable[[str], T | None]) -> Fact[T]:
        """Return what *parse* makes of the text at *path*."""
        if not self.wanted:
            return self.unread(path)
        text, evidence = self.text(path)
        if text is None:
            return Fact(None, evidence)
        value = parse(text)
        if value is None:
            self.note(path, "not understood")
            return Fact(None, self.evidence(path, f"not understood: {text[:60]!r}"))
        return Fact(value, self.evidence(path, _observed(value, text)))

    def release(self) -> Fact[str]:
        """Return the kernel release: from a file, this host's uname, or the kernel log."""
        unreadable: Evidence | None = None
        for path in places.RELEASES:
            text, evidence = self.text(path)
            release = None if text is None else parse_release(path, text)
            if release is not None:
                return Fact(printable(release), self.evidence(path, release))
            if evidence.observed not in ("", ABSENT):
                unreadable = unreadable or evidence
        if self.is_live:
            release = kernel_release()
            return Fact(release, Evidence("uname", release or ABSENT, Origin.LIVE))
        if self._log is not None and self._log.release:
            line = self._log.release
            return Fact(printable(line.text), self.log_line(line))
        return Fact(None, unreadable or self.evidence(places.RELEASES[0], ABSENT))

    def config(self, release: str | None) -> Fact[bool]:
        """Return whether the configuration of *release* has CONFIG_INTEL_TDX_HOST."""
        if not self.wanted or release is None or "/" in release:
            return self.unread(places.CONFIGS[0].format(release="*"))
        unusable: Fact[bool] | None = None
        for place in places.CONFIGS:
            fact = self.fact(place.format(release=release), parse_config)
            if fact.value is not None:
                return fact
            # What is there and was not understood says more than what is absent.
            if fact.evidence.observed != ABSENT:
                unusable = unusable or fact
        return unusable or Fact(
            None, self.evidence(places.CONFIGS[0].format(release=release), ABSENT)
        )

    def log(self) -> LogReading:
        """Return the kernel log's reading, an empty one where there is no log.

        Of several the first is the host's; what the others tell of the CPU is kept too.
        """
        if self._log is None:
            from tdxreclaim.facts.logs.reading import LogReading

            self._log = LogReading()
            if self.is_live and not self.wanted:
                self._log_evidence = self.evidence(self.log_path, NOT_NEEDED)
                return self._log
            found = False
            for path in (KERNEL_LOG,) if self.is_live else places.KERNEL_LOGS:
                text, evidence = self.text(path)
                # One that cannot be read tells more than the next one's absence.
                last = self._log_evidence
                if not found and (text is not None or last is None or last.observed == ABSENT):
                    self.log_path, self._log_evidence = path, evidence
                if text is None:
                    continue
                reading = self._parse_log(path, text)
                if found:
                    self.other_logs.append((evidence.path, reading))
                else:
                    self._log, found = reading, True
        return self._log

    def _parse_log(self, path: str, text: str) -> LogReading:
        from tdxreclaim.facts.logs.ring import read_ring

        mangled = 0
        shown: set[tuple[int, int]] = set()
        for line in _cpu_lines(text):
            if line["whole"]:
                shown.add((int(line["family"], 16), int(line["model"], 16)))
            else:
                mangled += 1
        # Also of a line that a mail program broke.
        shown |= {(int(each[1], 16), int(each[2], 16)) for each in re.finditer(_NUMBERS, text)}
        if mangled:
            why = f"{mangled} lines name a CPU and cannot be read"
            self.gaps.append(Gap(self.source.label(path), why))
        label = self.source.label(path)
        reading = read_ring(text) if self.is_live else None
        if reading is None:
            from tdxreclaim.facts.logs.whole import parse_kernel_log

            # Of a live host its own line is no identity.
            reading = parse_kernel_log(text, name=label, watches=not self.is_live)
        known = {(group.family, group.model) for group in reading.groups}
        if shown - known:
            # Quoted, or dressed in another way than the rest.
            why = (
                f"{len(shown - known)} more kinds of CPU stand in lines that are not the log's own"
            )
            self.gaps.append(Gap(self.source.label(path), why))
        if reading.unended:
            from tdxreclaim.facts.logs.whole import MOST_LOOKED_AT

            why = f"more than {MOST_LOOKED_AT} lines that may matter: not read to its end"
            self.gaps.append(Gap(label, why))
        if not self.is_live:
            self._weigh_signs(path, text, reading)
        return reading

    def _weigh_signs(self, path: str, text: str, reading: LogReading) -> None:
        """Note what tells of another, affected CPU in lines that nothing was read from."""
        from tdxreclaim.facts.formats.signs import find_signs, foreign
        from tdxreclaim.facts.logs.dress import undress
        from tdxreclaim.facts.logs.line import Speaker

        def names(line: str) -> bool:
            # QEMU and libvirt name the CPUs that they show to guests; numbers count more.
            spoken = undress(line).line.speaker is Speaker.PROGRAM
            return not spoken and re.search(_NUMBERS, line) is None

        sign = foreign(
            find_signs(text, names=names),
            reading.groups,
            flagged=bool(reading.kexec or reading.check or reading.flagged),
        )
        if sign is not None:
            place = f"{self.source.label(path)}, line {sign.line}"
            self.gaps.append(Gap(place, sign.describe()))

    def log_fact(self, *, yes: LogLine | None, no: LogLine | None = None) -> Fact[bool]:
        """Return what the log says, its later line being the state; of none, why there is none."""
        latest = max((line for line in (yes, no) if line), default=None)
        if latest is not None:
            return Fact(latest is yes, self.log_line(latest))
        evidence = self._log_evidence or self.evidence(self.log_path, ABSENT)
        if not evidence.observed:
            boots = self.log().boots
            evidence = evidence._replace(observed=f"no such line (boots in it: {boots})")
        return Fact(None, evidence)

    @property
    def log_label(self) -> str:
        """The name that evidence shows for the log."""
        return self._log_label or self.source.label(self.log_path)

    def log_text(self, line: LogLine | None) -> Fact[str]:
        """Return what a line of the log gives; of none, why there is none."""
        if line is None:
            return Fact(None, self.log_fact(yes=None).evidence)
        return Fact(printable(line.text), self.log_line(line))

    def log_line(self, line: LogLine) -> Evidence:
        """Return a line of the log as evidence."""
        return Evidence(f"{self.log_label}:{line.number}", printable(line.text), self.source.origin)


# The line with which the kernel names its processor, also where it was broken.
_NUMBERS = r"(?i)\(family: 0x([0-9a-f]{1,8}), model: 0x([0-9a-f]{1,8})"
_CPU_LINE = (
    r"(?im)(?:smpboot: CPU0: (?!Thermal|Hyper)|CPU0: (?=[^\n]{0,200}famil))[^\n]{0,200}?"
    r"(?:(?P<whole>\(family: 0x(?P<family>[0-9a-f]{1,8}), model: 0x(?P<model>[0-9a-f]{1,8})(?:, stepping: 0x[0-9a-f]+)?\))|$)"
)


def _cpu_lines(text: str) -> Iterator[re.Match[str]]:
    """Yield where a line names the processor; only lines that have the word are gone over."""
    pattern = re.compile(_CPU_LINE)
    lower, at = text.lower(), 0
    if len(lower) != len(text):  # a capital whose small letter is two
        yield from pattern.finditer(text)
        return
    while (at := lower.find("cpu0: ", at)) >= 0:
        stop = text.find("\n", at)
        stop = len(text) if stop < 0 else stop
        yield from pattern.finditer(text, text.rfind("\n", 0, at) + 1, stop)
        at = stop


def _observed(value: object, text: str) -> str:
    """Return what evidence shows of an optional file that was understood."""
    match value:
        case bool() if "CONFIG_" in text:
            return "CONFIG_INTEL_TDX_HOST=y" if value else "CONFIG_INTEL_TDX_HOST is not set"
        case Symbols():
            return value.describe()
        case int() if not isinstance(value, bool):
            return f"tdx {value}" if value else "no tdx line"
        case _:
            return text.strip()
