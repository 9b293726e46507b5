"""What a capture leaves out, so that it identifies nobody."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tdxreclaim.errors import HostReadError
from tdxreclaim.facts.kernel import parse_release

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdxreclaim.facts.sources.base import Source

SCRUBBED = "scrubbed"


# What identifies, wherever it stands.
_SCRUBS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"), SCRUBBED),
    (re.compile(r"(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}"), SCRUBBED),
    (re.compile(r"(?:\d{1,3}\.){3}\d{1,3}"), SCRUBBED),
    (re.compile(r"(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}"), SCRUBBED),
    (re.compile(r"(?:[0-9a-fA-F]{1,4}:){1,6}:[0-9a-fA-F:]{0,30}"), SCRUBBED),
    (re.compile(r"(?<![\w.+-])[\w.+-]+@[\w.-]+"), SCRUBBED),
    (
        re.compile(
            r"(serial|asset tag|uuid|hostname)((?: number| no\.?)? ?[:=#] ?)\S.*", re.IGNORECASE
        ),
        rf"\1\2{SCRUBBED}",
    ),
    (re.compile(r"(\bPPIN:? ?(?:0x)?)[0-9a-fA-F]+", re.IGNORECASE), rf"\1{SCRUBBED}"),
    (re.compile(r"Hardware name: .*"), f"Hardware name: {SCRUBBED}"),
)


_MODEL_SPECIFIC = (
    # ARM's serial number, and s390's of each processor.
    (re.compile(r"^(Serial\s*:).*$", re.MULTILINE), r"\1 0"),
    (re.compile(r"(identification = )[0-9A-Fa-f]+"), r"\g<1>000000"),
)


def _host_names(source: Source) -> list[str]:
    """Return the names that the host goes by, as far as they can be read."""
    names: set[str] = set()
    for path in ("proc/sys/kernel/hostname", "etc/hostname", "hostname"):
        try:
            text = (source.read(path) or "").strip()
        except HostReadError:
            continue
        names |= {text, text.partition(".")[0]}
    return sorted((name for name in names if _NAME.fullmatch(name)), key=len, reverse=True)


# Shorter names, and such as every machine may have, are in too many words.
_NAME = re.compile(r"(?!localhost|linux|kernel|host\Z)[\w.-]{3,255}", re.IGNORECASE)


def _unnamed(text: str, names: Iterable[str]) -> str:
    for name in names:
        text = re.sub(rf"(?<![\w]){re.escape(name)}(?![\w])", SCRUBBED, text)
    return text


def scrub(text: str) -> str:
    """Return *text* without addresses, UUIDs and serial numbers.

    >>> scrub("eth0 52:54:00:12:34:56 at 10.0.0.7")
    'eth0 scrubbed at scrubbed'
    """
    for pattern, instead in _SCRUBS:
        text = pattern.sub(instead, text)
    return _TASK.sub(_unnamed_task, text)


# Where the kernel names a task.
_TASK = re.compile(
    r"(?P<before>INFO: task |\btask:|\bComm: ?|stuck for \d{1,9}s! \[)"
    r"(?P<name>[^\n]{1,40}?)(?P<after>:\d+[ \]]| +state:| (?:Not tainted|Tainted|Kdump))"
)


# The names that tell something, and that every host has.
_COMMON_TASK = re.compile(
    r"qemu[\w.:-]{0,20}|kvm[\w./-]{0,20}|CPU \d+/KVM|IO mon_iothread|(?:kworker|ksoftirqd|migration"
    r"|swapper|cpuhp|watchdog|irq)/[\w:.+-]*|vhost-\d+|libvirtd|virtqemud|khugepaged|kswapd\d+"
    r"|kcompactd\d+|systemd(?:-\w+)?|rcu_\w+|kthreadd|bash|sh"
)


def _unnamed_task(match: re.Match[str]) -> str:
    if _COMMON_TASK.fullmatch(match["name"]):
        return match[0]
    return f"{match['before']}{SCRUBBED}{match['after']}"


def _scrub_cpuinfo(text: str) -> str:
    for pattern, instead in _MODEL_SPECIFIC:
        text = pattern.sub(instead, text)
    return text


def _scrub_version(text: str) -> str | None:
    release = parse_release("proc/version", text)
    return None if release is None else f"Linux version {release}\n"


def _scrub_uname(text: str) -> str | None:
    words = text.split()
    return f"Linux {SCRUBBED} {words[2]}\n" if words[:1] == ["Linux"] and words[2:] else None
