"""What people paste along with a listing of a CPU, and what may be a CPU in a dress."""

from __future__ import annotations

import re

# No line that is not understood may hold one of these: it may be another processor.
SIGNS = re.compile(
    r"p\s?r\s?o\s?c\s?e\s?s|vendor|family|model|stepping|flags|bugs|\bcpu|intel|amd\b|hygon|xeon"
    r"|tdx_|\x00|\ufffd",
    re.IGNORECASE,
)


_COMMENT = re.compile(r"# .*|(?:[\w.@:~/\[\]() -]{0,80}[$#%])(?: .*)?", re.DOTALL)


_COMMANDS = re.compile(r"/proc/cpuinfo|\blscpu\b|\bcpuid\b")


def is_harmless(line: str) -> bool:
    """Whether *line* is a comment or a shell's prompt with no sign of a processor in it.

    >>> is_harmless("user@host:~$ cat /proc/cpuinfo"), is_harmless("# processor : 1")
    (True, False)
    """
    return bool(_COMMENT.fullmatch(line)) and not SIGNS.search(_COMMANDS.sub("", line))
