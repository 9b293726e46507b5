"""Exit statuses and error types; imports nothing of ours.

An error carries facts (what, why, status), never a finished sentence that
somebody would have to read back.
"""

from __future__ import annotations

from enum import IntEnum


class NagiosState(IntEnum):
    """What a monitoring plugin may end with."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class ExitStatus(IntEnum):
    """Every exit status of every command; the only list of them in the code.

    Part of the interface: a number keeps its meaning for good, and the ones
    that are not listed are reserved.
    """

    NOT_REQUIRED = 0
    BUG = 1
    USAGE = 2
    BAD_INPUT = 3
    REQUIRED = 10
    UNDETERMINED = 11
    NOT_APPLICABLE = 12
    NOT_READ = 13
    FINDINGS = 20
    INTERRUPTED = 130
    CLOSED_PIPE = 141

    @property
    def meaning(self) -> str:
        """What the status tells a script, as README and man page print it."""
        return _MEANINGS[self]

    @property
    def nagios(self) -> NagiosState:
        """What ``--format nagios`` ends with instead; a posture may tell more."""
        return _NAGIOS.get(self, NagiosState.UNKNOWN)


_MEANINGS = {
    ExitStatus.NOT_REQUIRED: (
        "clearing is not required, positively safe to skip; or: the command worked"
    ),
    ExitStatus.BUG: "a bug in tdxreclaim",
    ExitStatus.USAGE: "the command line is wrong",
    ExitStatus.BAD_INPUT: (
        "a file is missing, unreadable or malformed, output cannot be written, "
        "or a cluster cannot be used"
    ),
    ExitStatus.REQUIRED: "clearing is required",
    ExitStatus.UNDETERMINED: "undetermined: treat as required",
    ExitStatus.NOT_APPLICABLE: "not applicable: this is not a TDX host",
    ExitStatus.NOT_READ: (
        "not read: of a log or capture nothing, or not all that tells of the CPU, was understood; "
        "never a clean bill"
    ),
    ExitStatus.FINDINGS: "triage found something to act on, or an emulated shutdown ends badly, or a watched one is stuck",
    ExitStatus.INTERRUPTED: "interrupted (Ctrl-C)",
    ExitStatus.CLOSED_PIPE: "the reader of the output went away (a closed pipe)",
}


# Whatever is not here is a failure, or not known: UNKNOWN.
_NAGIOS = {
    ExitStatus.NOT_REQUIRED: NagiosState.OK,
    ExitStatus.REQUIRED: NagiosState.WARNING,
    ExitStatus.NOT_APPLICABLE: NagiosState.OK,
}


class TdxReclaimError(Exception):
    """What a user can act on: one line, ``tdxreclaim: WHAT: WHY``.

    ``what`` names the file, option or value; ``why`` is the problem with it.
    """

    kind: str = "error"
    exit_status: ExitStatus = ExitStatus.BAD_INPUT

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")
        self.what = what
        self.why = why

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way from a worker: the arguments, not the sentence of them."""
        return type(self), (self.what, self.why), self.__dict__


class HostReadError(TdxReclaimError):
    """It is there and cannot be read.  ``errno`` is the kernel's, if it gave one."""

    kind = "unreadable"

    def __init__(self, what: str, why: str, errno: int | None = None) -> None:
        super().__init__(what, why)
        self.errno = errno


class MalformedInputError(TdxReclaimError):
    """It was read and is not what it should be."""

    kind = "malformed"


class BugError(TdxReclaimError):
    """Ours: what nobody expected, with where it happened."""

    kind = "bug"
    exit_status = ExitStatus.BUG


class NotReadError(TdxReclaimError):
    """It could be opened, and nothing of it was understood: no answer, good or bad."""

    kind = "not-read"
    exit_status = ExitStatus.NOT_READ


class UsageError(TdxReclaimError):
    """An option's value, or a combination of options, that makes no sense."""

    kind = "usage"
    exit_status = ExitStatus.USAGE


class UnmeasurableError(TdxReclaimError):
    """This host does not let something be measured."""

    kind = "unmeasurable"


class ClusterError(TdxReclaimError):
    """A cluster cannot be used: nobody answers, or a worker differs from us."""

    kind = "cluster"


class InterruptedWorkError(TdxReclaimError):
    """Ctrl-C, with how far the work had got."""

    kind = "interrupted"
    exit_status = ExitStatus.INTERRUPTED


class OutputError(TdxReclaimError):
    """The result cannot be written."""

    kind = "output"
