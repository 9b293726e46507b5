"""One line of a kernel log: its dress, its stamp, who wrote it, its message."""

from __future__ import annotations

import re
from typing import NamedTuple

# How every message begins that is looked at.
_WORDS = (
    b"virt/tdx: ",
    b"kvm_intel: ",
    b"SEAMCALL",
    b"WARNING: ",
    b"Linux version ",
    b"smpboot: CPU0: ",
    b"INFO: task ",
    b"watchdog: BUG: soft",
    b"BUG: soft lockup",
    b"mce: [Hardware",
    b"[Hardware Error]: ",
    b"Kernel command line: ",
    b"Command line: ",
    b"Hypervisor detected: ",
    b"tdx: Guest detected",
    b"kexec: Not allowed",
    b"TDX requires ",
    b"All packages need ",
    b"tdh_mng_",
    b"task:",
)


BEGINNINGS = b"|".join(re.escape(word).replace(rb"\ ", b" ") for word in _WORDS)


_STAMPS = rb"(?:\[(?!Hardware)[^\]\n]{1,40}\] ?)*"


_BEGINS = re.compile(BEGINNINGS.decode())


_LINE = re.compile(
    r"[ |\t]{0,8}(?:<\d{1,3}>)?(?:kern *:[a-z]{3,6} *: ?)?"
    r"(?:\d )?"
    r"(?:(?:(?P<when>[^:\n\[]{0,40}?\d{1,2}:\d\d:\d\d\S{0,20}(?: [A-Z]{1,5}| [+-]\d{2,5})?)"
    r"|\[ *(?P<monotonic>\d{1,12}\.\d{1,9})\]) "
    r"\S{1,255} kernel(?:\[\d+\])?(?:: | - - (?:- )?))?"
    r"(?P<stamps>(?:\[(?!Hardware)[^\]\n]{1,40}\] ?)*)(?P<message>.*)",
    re.DOTALL,
)


_UPTIME = re.compile(r"\[ *(\d{1,12}\.\d{1,9})\]")


_CALLER = re.compile(r"\[ *([TC]\d{1,10})\]")


_WALL = re.compile(r"\[([^\]]*\d:\d\d:\d\d[^\]]*)\]")


_LIBVIRT = re.compile(
    r"(?P<when>[^:\n\[]{0,40}?\d{1,2}:\d\d:\d\d\S{0,20}(?: [A-Z]{1,5})?) .{0,300}?"
    r"(?P<message>Failed to terminate process (?:\d+|\S+) with SIGKILL: Device or resource busy)"
)


_STACK_BEGINS = re.compile(
    r"INFO: task (?P<hung>.{1,40}?):(?P<hung_pid>\d+) (?:<writer> )?blocked for more than (?P<seconds>\d+) sec"
    r"|(?:watchdog: )?BUG: soft lockup - CPU#\d+ stuck for (?P<stuck>\d+)s! "
    r"\[(?P<locked>.{1,40}?):(?P<locked_pid>\d+)\]"
    r"|task:(?P<task>.{1,40}?) +state:(?P<state>\S)\S* .*?pid: ?(?P<task_pid>\d+)"
)


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


def split_line(text: str) -> tuple[str, str | None]:
    """Return what stands before a kernel message, without the host's name, and the message.

    The message is ``None`` for a line that is not the kernel's as far as it tells.
    """
    match = _LINE.fullmatch(text.rstrip("\r"))
    if match is None or text.startswith("{"):
        return "", None
    head = match["stamps"]
    if match["when"]:
        head = f"{match['when'].strip()} host kernel: {head}"
    elif match["monotonic"]:
        head = f"[{match['monotonic']}] host kernel: {head}"
    return head, match["message"]


def matters(message: str) -> str:
    """Return ``stack`` for the first line of one, ``line`` for another that may matter, else nothing."""
    if _STACK_BEGINS.match(message):
        return "stack"
    return "line" if _BEGINS.match(message) and not message.startswith("task:") else ""
