"""An observed time against the expected one."""

from __future__ import annotations

from tdxreclaim.tables.findings.kind import Kind, Severity
from tdxreclaim.tables.findings.sources import CORE, KATA, NUMBERS
from tdxreclaim.tables.sources import Certainty

TIME_EXPECTED = Kind(
    id="time-expected",
    severity=Severity.NOTICE,
    sentence="such a TD is expected to take {expected} to shut down here",
    meaning="By the emulator, for this host's CPU, kernel and order; all of the TD's memory "
    "counted as private.",
    advice="Compare it with what was observed (--observed).",
    versions="as the kernel that is named",
    citations=(NUMBERS,),
    certainty=Certainty.INFERRED,
)


TIME_FITS = Kind(
    id="time-fits",
    severity=Severity.WARNING,
    sentence="the observed {observed} fits the upstream order of giving pages back, for which "
    "{expected} is expected",
    meaning="The time goes into taking the pages back one by one; that is how every upstream "
    "release does it.",
    advice="Give the TD less memory, or raise the timeouts. What would change it "
    "is an order that releases the HKID first, which no release has.",
    versions="6.16 and later",
    citations=(NUMBERS,),
    certainty=Certainty.INFERRED,
)


TIME_ONE_CAUSE = Kind(
    id="time-one-cause",
    severity=Severity.WARNING,
    sentence="the observed {observed} may be reclaim, of which {expected} is expected: {because}",
    meaning="The timed shutdowns vary vCPUs and memory together, so that nobody knows which of "
    "the two makes a page dearer. This time fits one of them, or lies between them.",
    advice="Time a TD of the same memory with other vCPUs, or the reverse: that settles it "
    "(tdxreclaim calibrate fit). If the cause that fits is not the one here, look for what else "
    "took the time.",
    versions="6.16 and later",
    citations=(NUMBERS,),
    certainty=Certainty.INFERRED,
)


TIME_TOO_SHORT = Kind(
    id="time-too-short",
    severity=Severity.NOTICE,
    sentence="the observed {observed} is less than the {expected} expected of giving all pages "
    "back",
    meaning="Not all of the TD's memory was private and mapped, or the hardware is faster "
    "than that of the published times.",
    advice="Nothing to do: it is faster than expected.",
    versions="6.16 and later",
    citations=(NUMBERS,),
    certainty=Certainty.INFERRED,
)


TIME_TOO_LONG = Kind(
    id="time-too-long",
    severity=Severity.WARNING,
    sentence="the observed {observed} is more than the {expected} that giving pages back "
    "explains: this is not reclaim alone",
    meaning="Something else takes the rest: a stop that was never sent, a guest that takes its "
    "time to shut down, TDs that were stopped one after another.",
    advice="Find out when QEMU got its signal and when it was gone; look for other TDs that "
    "were shut down at the same time.",
    versions="6.16 and later",
    citations=(NUMBERS, KATA),
    certainty=Certainty.INFERRED,
)


TIME_UNPROVEN = Kind(
    id="time-unproven",
    severity=Severity.WARNING,
    sentence="the observed {observed} does not look like reclaim alone: nothing as small as "
    "this TD was ever timed, and the {expected} that the model extrapolates is its most",
    meaning="It would take all of the memory private and mapped, at the slow pace of far "
    "larger TDs. A small TD was seen to be gone 0.4 s after it was told to stop, and hangs "
    "that were put down to TDX were not its (kata-containers).",
    advice="Find out when QEMU got its signal and when it was gone; what comes before and "
    "after (a guest's own shutdown, a grace period, a shim) is not reclaim.",
    versions="6.16 and later",
    citations=(KATA, NUMBERS),
    certainty=Certainty.INFERRED,
)


TIME_NOT_RECLAIM = Kind(
    id="time-not-reclaim",
    severity=Severity.WARNING,
    sentence="the observed {observed} is not TDX reclaim: {because}",
    meaning="Where no TD can run, no TD can be slow to shut down.",
    advice="Look for another reason, or give the facts of the host that ran the TD.",
    versions="all",
    citations=(CORE,),
    certainty=Certainty.VERIFIED,
)


ROWS = (
    TIME_EXPECTED,
    TIME_FITS,
    TIME_ONE_CAUSE,
    TIME_TOO_SHORT,
    TIME_TOO_LONG,
    TIME_UNPROVEN,
    TIME_NOT_RECLAIM,
)
