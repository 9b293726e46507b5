"""Which files of a capture may name a CPU beside those that have a place in `places`."""

from __future__ import annotations

import re
from enum import Enum


class Witness(Enum):
    """What a file beside those in `places.WANTED` may name a CPU in."""

    LISTING = "listing"
    LOG = "log"
    ARCHIVE = "archive"


# Of a program's folders and an installer's no file is a capture of this host.
_NO_CAPTURE_IN = re.compile(
    r"(?:.*/)?(?:usr|lib|lib64|bin|sbin|snap|anaconda|installer)/.*", re.DOTALL
)


# How a word stands in a name: "lscpu_-ae", "node1-lscpu.txt.gz", not "mylscpux".
_WORD = r"(?:[^/]*[^a-z/])?(?:{})(?:[^a-z/][^/]*)?"


_WITNESSES = tuple(
    (witness, re.compile(f"(?:.*/)?(?:{names})", re.IGNORECASE | re.DOTALL))
    for witness, names in (
        (Witness.LISTING, "sos_commands/processor/[^/]+|" + _WORD.format("cpuinfo|lscpu|cpuid")),
        # supportconfig's.
        (Witness.LISTING, r"(?:hardware|proc)\.txt"),
        (Witness.LOG, _WORD.format("dmesg|journalctl|messages|syslog|localmessages")),
        (Witness.LOG, _WORD.format(r"kern(?:el)?\.log|boot\.(?:log|o?msg|txt)|kernlog")),
        (Witness.LOG, r"var/log/(?:kernel|debug|warn|console)[^/]*|[^/]*\.journal~?"),
        (Witness.ARCHIVE, r"[^/]*\.(?:tar(?:\.\w{1,4})?|tgz|txz|tbz2?|tzst)"),
    )
)


def witness_at(path: str) -> Witness | None:
    """Return what *path*, from wherever in a capture, may name a CPU in; ``None`` if nothing.

    >>> witness_at("b/var/log/messages-20240101.gz"), witness_at("sos_commands/processor/lscpu_-ae")
    (<Witness.LOG: 'log'>, <Witness.LISTING: 'listing'>)
    """
    if _NO_CAPTURE_IN.fullmatch(path):
        return None
    return next((kind for kind, names in _WITNESSES if names.fullmatch(path)), None)
