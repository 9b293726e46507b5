"""The grammar of a log line: its stamps, its host, who wrote it, its message.

One grammar for every command: `check`, `triage` and `capture` see the same
line, whatever stands before the message.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from tdxreclaim.facts.logs.needles import begins


class Speaker(Enum):
    """Who wrote a line.  ``NOBODY``: it does not say, and is not known."""

    KERNEL = "kernel"
    PROGRAM = "program"
    NOBODY = "nobody"


class Stamp(NamedTuple):
    """When a line was written, as far as it says.

    ``seconds`` since boot; ``when`` is the wall clock's text as it stands;
    ``moment`` is seconds since 1970, where the line tells them.  ``caller`` is
    the thread (T123) or CPU (C5) that printed it, of a kernel that says so.
    """

    seconds: float | None = None
    when: str = ""
    moment: float | None = None
    caller: str = ""


class Line(NamedTuple):
    """A line, read.  ``boot_id`` and ``host`` are empty where it does not say."""

    speaker: Speaker
    message: str = ""
    stamp: Stamp = Stamp()
    host: str = ""
    boot_id: str = ""


# <3>, <3>1 of RFC 5424: the facility is what is above its lowest three bits.
_PRIORITY = re.compile(r"<(?P<priority>\d{1,3})>(?:1 (?=\d{4}-|- ))?")


_KERN_PRIORITIES = 8


# "kern  :info  : ", as dmesg -x prints it.
_FACILITY = re.compile(
    r"(?P<facility>[a-z]{2,8}\d?) *:[a-z]{3,6} *: ?"
    r"|(?P<spaced>kern|user|daemon|syslog|auth): (?:emerg|alert|crit|err|error|warning|notice|info|debug): "
)


# "6,0,1630945,-,caller=T1;", as /dev/kmsg and netconsole have it: time in microseconds.
_RECORD = re.compile(
    r"(?P<priority>\d{1,4}),\d{1,20},(?P<time>\d{1,18}),[^;,]{0,8}"
    r"(?:,(?:caller=(?P<caller>[TC]\d{1,10})|[^;,]{1,40})){0,4};"
)


# A word of a date in any language.
_WORD = r"[^\s\[\]<>{}\"'`|=:]{1,16}"


_CLOCK = r"\d{1,2}:\d\d:\d\d(?:[.,]\d{1,9})?"


_ZONE = r"(?:[ ]?(?:Z|[+-]\d\d(?::?\d\d)?)(?!\S)|[ ](?!kernel)[A-Z]{2,5}(?=[ ](?!kernel[:\[])))?"


_DATE = re.compile(
    rf"(?P<iso>(?:{_WORD}[ ])?\d{{4}}[-/.]\d\d[-/.]\d\d[T ]{_CLOCK}{_ZONE})(?:\s|$)"
    rf"|(?P<words>(?:{_WORD}[ ]{{1,2}}){{0,4}}?{_CLOCK}(?:[ ][AP]M)?{_ZONE}(?:[ ]\d{{4}}(?=\s))?)(?:\s|$)"
    r"|(?P<unix>\d{9,10}\.\d{1,9}|\d{13}|\d{16}|\d{19})\s"
)


# Since boot ("[    1.234567] "), since the line before ("[+0.000012]"), by thread
# or CPU ("[    T1]"), by the clock ("[Nov22 11:49]"); ".234567] " lost its beginning.
_BRACKET = re.compile(
    r"(?:\[(?:\s*(?P<uptime>\d{1,12}\.\d{1,9})(?: ?<[ \d.]{1,20}>)?|\s*(?P<caller>[TC]\d{1,10})"
    r"|\s*(?:<[ \d.]{1,20}>|\+\d{1,9}\.\d{1,9})"
    r"|(?P<wall>[^\[\]\n]{0,40}?\d:\d\d[^\[\]\n]{0,45}))"
    r"|(?<![\s\S])\d{0,6}\.\d{3,9})\]:?(?:[ \t]|(?=\[)|$)"
    r"|(?<![\s\S])(?P<bare>\d{1,8}\.\d{6})[ \t]"
)


_MOST_STAMPS = 6


_MOST_DATES = 2


_LABELS = re.compile(r"\{[^{}\n]{1,400}\}[ \t]+")


_WROTE = re.compile(r"\b(?:job|unit|app|service|container|identifier)\w*=\"([^\"]*)\"")


_TAG = re.compile(
    r"(?:(?P<host>[^\s\[\]<>{}\"'`|=]{0,254}[^\s\[\]<>{}\"'`|=:])[ \t]+)?"
    r"(?:(?P<facility>[a-z]{2,8}\d?)\.[a-z]{3,7}[ \t]+)?"
    r"kernel(?:\[\d{1,10}\])?(?::(?:[ \t]|$)| (?:\d{1,10}|-) [^\s\[]{1,32} (?:\[[^\n]{0,400}?\] |- )?\ufeff?)"
)


_PROGRAM = re.compile(r"(?:[^\s:]\S{0,254}[ \t]+)?[^\s:|]\S{0,100}?(?:\[\d{1,10}\])?: ?")


# What a container engine puts before a line (CRI): "stdout F ".
_STREAM = re.compile(r"std(?:out|err) [FP] ")


_LIBVIRT = re.compile(
    r".{0,400}?(?P<message>Failed to terminate process (?:\d+|\S+) with SIGKILL: Devic.*)"
)


_SHORTEST_MARGIN = re.compile(r"[ \t\ufeff\u200b]{0,64}")


# Of a longer head nothing is looked at.
_LONGEST_HEAD = 600


def read_line(text: str) -> Line:
    """Return what a line without its dress says."""
    head = _Head(text)
    head.read()
    return head.line()


class _Head:
    """Reads what stands before a message, from the left."""

    def __init__(self, text: str) -> None:
        self._text = text
        margin = _SHORTEST_MARGIN.match(text)
        self._at = margin.end() if margin else 0
        self._host = ""
        self._when = ""
        self._seconds: str | None = None
        self._caller = ""
        self._dated = self._bracketed = self._tagged = False
        self._kernels_date = False
        self._dates = 0
        self._foreign = False

    def read(self) -> None:
        """Take the head's parts, in the order in which programs write them."""
        self._record()
        self._priority()
        self._stamps()
        # crash(8) prints it behind the stamp.
        self._priority()
        if _STREAM.match(self._text, self._at) and self._dated:
            self._at += len("stdout F ")
            self._priority()
            self._stamps()
        self._tag()

    def line(self) -> Line:
        """Return the line, with what was read before it."""
        message = self._text[self._at :]
        stamp = Stamp(
            float(self._seconds) if self._seconds else None, self._when, None, self._caller
        )
        headed = self._dated or self._bracketed or self._tagged
        if self._foreign:
            return Line(Speaker.PROGRAM, message, stamp, self._host)
        if self._tagged or self._bracketed or self._kernels_date or begins(message):
            return Line(Speaker.KERNEL, message if headed else message.lstrip(), stamp, self._host)
        refused = _LIBVIRT.match(self._text)
        if refused:
            return Line(Speaker.PROGRAM, refused["message"], stamp)
        # A date alone makes no log line of a program that is known.
        named = self._dated and _PROGRAM.match(message)
        return Line(Speaker.PROGRAM if named else Speaker.NOBODY, message, stamp)

    def _record(self) -> None:
        if match := _RECORD.match(self._text, self._at):
            self._at = match.end()
            self._foreign |= int(match["priority"]) >= _KERN_PRIORITIES
            self._seconds = str(int(match["time"]) / 1e6)
            self._caller = match["caller"] or ""
            self._bracketed = True

    def _priority(self) -> None:
        if match := _PRIORITY.match(self._text, self._at):
            self._at = match.end()
            self._foreign |= int(match["priority"]) >= _KERN_PRIORITIES
        if match := _FACILITY.match(self._text, self._at):
            self._at = match.end()
            self._foreign |= (match["facility"] or match["spaced"]) != "kern"

    def _stamps(self) -> None:
        for _ in range(_MOST_STAMPS):
            if not (self._bracket() or self._date()):
                return

    def _bracket(self) -> bool:
        match = _BRACKET.match(self._text, self._at)
        if match is None or match.end() > _LONGEST_HEAD:
            return False
        self._at = match.end()
        self._bracketed = True
        self._seconds = self._seconds or match["uptime"] or match["bare"]
        self._caller = self._caller or match["caller"] or ""
        self._when = self._when or (match["wall"] or "").strip()
        return True

    def _date(self) -> bool:
        # A relay puts its own before the sender's.
        if self._dates >= _MOST_DATES or (self._when and not self._dates):
            return False
        match = _DATE.match(self._text, self._at)
        if match is None:
            return False
        self._at = match.end()
        self._dated = True
        self._dates += 1
        self._when = self._when or match[0].strip()
        # Only dmesg --time-format iso has a comma, and it is the kernel's alone.
        self._kernels_date = bool(match["iso"] and "," in match["iso"])
        self._labels()
        return True

    def _labels(self) -> None:
        """Pass over Loki's labels; who wrote the line may stand in them."""
        match = _LABELS.match(self._text, self._at)
        if match:
            self._at = match.end()
            wrote = _WROTE.search(match[0])
            kernel = wrote is not None and wrote[1].startswith("kern")
            self._tagged |= kernel
            self._foreign |= wrote is not None and not kernel

    def _tag(self) -> None:
        match = _TAG.match(self._text, self._at)
        if match is None or (match["host"] and not (self._dated or self._bracketed)):
            return
        self._at = match.end()
        self._tagged = True
        self._host = match["host"] or ""
        self._foreign |= match["facility"] not in (None, "kern")
        while self._bracket():
            pass


def show_head(line: Line) -> str:
    """Return a head that says the same without the host's name, as a capture keeps it."""
    uptime = "" if line.stamp.seconds is None else f"[{line.stamp.seconds:12.6f}]"
    caller = f"[{line.stamp.caller:>7}]" if line.stamp.caller else ""
    stamps = f"{uptime}{caller} " if uptime or caller else ""
    return f"{line.stamp.when} host kernel: {stamps}" if line.stamp.when else stamps
