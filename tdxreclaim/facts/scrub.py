"""What a capture leaves out, so that it identifies nobody."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tdxreclaim.errors import HostReadError
from tdxreclaim.facts.kernel import parse_release
from tdxreclaim.tables.distributions import DISTRIBUTIONS
from tdxreclaim.tables.releases import split_release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tdxreclaim.facts.sources.base import Source

SCRUBBED = "scrubbed"


_VIRTUAL = (
    r"DMI: (?:QEMU|Red Hat KVM|VMware, Inc\. VMware|innotek GmbH VirtualBox|Bochs|Xen HVM domU"
    r"|Google Google Compute Engine|Microsoft Corporation Virtual Machine|OpenStack|Parallels)"
)


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
            r"(serial|asset[ _]tag|uuid|host ?name|fru|board|\b(?:vm|guest) name)"
            r"((?:[ _](?:number|no\.?|text|id))?\s?[:=#]\s*)\S.*",
            re.IGNORECASE,
        ),
        rf"\1\2{SCRUBBED}",
    ),
    (re.compile(r"(\bPPIN:? ?(?:0x)?)[0-9a-fA-F]+", re.IGNORECASE), rf"\1{SCRUBBED}"),
    (re.compile(r"(Hardware name|Machine model): .*"), rf"\1: {SCRUBBED}"),
    # A maker that tells of a virtual machine stays.
    (re.compile(rf"({_VIRTUAL}).*"), rf"\1 {SCRUBBED}"),
    (re.compile(rf"(^DMI: )(?!{_VIRTUAL[5:]}).*"), rf"\1{SCRUBBED}"),
)


def _host_names(source: Source) -> list[str]:
    """Return the names that the host goes by, as far as they can be read."""
    names: set[str] = set()
    for path in ("proc/sys/kernel/hostname", "etc/hostname", "hostname"):
        try:
            text = (source.read(path) or "").strip()
        except HostReadError:
            continue
        names.add(text)
    return known_names(names)


def known_names(hosts: Iterable[str]) -> list[str]:
    """Return the names to leave out, and their first labels, longest first."""
    names = {name for host in hosts for name in (host, host.partition(".")[0])}
    return sorted((name for name in names if _NAME.fullmatch(name)), key=len, reverse=True)


# Shorter names, and such as every machine may have, are in too many words; the
# others are what the lines themselves are about.
_NAME = re.compile(
    r"(?!(?:localhost|linux|kernel|host|tdx|kvm|kvm_intel|virt|mce|kexec|intel|module|cpu\d*|bios"
    r"|seamcall|smpboot|error|hardware|scrubbed|tainted|local)(?:\.|\Z))[\w.-]{3,255}",
    re.IGNORECASE,
)


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
    text = _RELEASE.sub(lambda match: local_release(match[0]), text)
    return _TASK.sub(_unnamed_task, text)


# A release with what its builder added, as oopses name it.
_RELEASE = re.compile(r"(?<![\w.])\d{1,2}\.\d{1,3}\.\d{1,3}[-+][\w.+~-]{1,200}", re.ASCII)


def local_release(release: str) -> str:
    """Return *release*, what is not upstream's or a known distribution's of it as ``-local``.

    Never cut off: it would be taken for upstream's.

    >>> local_release("6.18.3-acme"), local_release("6.17.0-8-generic")
    ('6.18.3-local', '6.17.0-8-generic')
    """
    if not release or any(re.fullmatch(each.form, release, re.ASCII) for each in DISTRIBUTIONS):
        return release
    parsed = split_release(release)
    if parsed is None:
        return "local"
    return f"{parsed.base}-local" if parsed.rest else release


def _local_releases(releases: Iterable[str]) -> Callable[[str], str]:
    """Return what makes each of *releases* local in a text."""
    changed = [each for each in releases if local_release(each) != each]
    if not changed:
        return str
    # A folder's name may have the kind of its module behind it, none before.
    longest_first = sorted(changed, key=len, reverse=True)
    pattern = re.compile(
        rf"(?<![\w.])(?:{'|'.join(map(re.escape, longest_first))})(?![\w~+]|[.-]\w)"
    )
    return lambda text: pattern.sub(lambda match: local_release(match[0]), text)


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


def _scrub_version(text: str) -> str | None:
    release = parse_release("proc/version", text)
    return None if release is None else f"Linux version {release}\n"


def _scrub_uname(text: str) -> str | None:
    words = text.split()
    return f"Linux {SCRUBBED} {words[2]}\n" if words[:1] == ["Linux"] and words[2:] else None
