"""Machine checks."""

from __future__ import annotations

from tdxreclaim.tables.findings.kind import Kind, Severity
from tdxreclaim.tables.findings.sources import ADDRESS, MCE, SEVERITY_C
from tdxreclaim.tables.sources import Certainty

MACHINE_CHECK = Kind(
    id="machine-check",
    severity=Severity.ERROR,
    sentence="a machine check{erratum}",
    meaning="On a CPU with tdx_pw_mce a partial write to a page that was a TD's looks so. "
    'The line "TDX private memory error" may be missing then: the address that is looked '
    "up can have KeyID bits in it, which the module's lookup does not expect. On other CPUs "
    "it is not this erratum.",
    advice="Look at EDAC and the firmware's log for failing memory; on a CPU with tdx_pw_mce "
    "also for TDs that were shut down before.",
    versions="all",
    citations=(ADDRESS, MCE),
    certainty=Certainty.INFERRED,
    pattern=r"(?:mce: )?\[Hardware Error\]: CPU \d+: Machine Check(?: Exception|: \d| Event)?",
    samples=(
        "mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 1: bd80000000100134",
        "mce: [Hardware Error]: CPU 12: Machine Check: 0 Bank 1: bd80000000100134",
        "mce: [Hardware Error]: CPU 12: Machine Check Event: 0 Bank 1: bd80000000100134",
    ),
)


ROWS = (
    Kind(
        id="private-memory-machine-check",
        severity=Severity.CRITICAL,
        sentence="a machine check on TDX private memory",
        meaning="The kernel found that the bad address was a TD's page: poison by a partial write "
        "is likely, and a kernel bug behind it possible.",
        advice="Report it with all lines of the machine check and the kernel version.",
        versions="6.8 and later, on a CPU with tdx_pw_mce",
        citations=(MCE,),
        certainty=Certainty.VERIFIED,
        pattern=r"(?:mce: )?\[Hardware Error\]: (?:Machine check: )?TDX private memory error\. "
        r"Possible kernel bug",
        samples=(
            "mce: [Hardware Error]: Machine check: TDX private memory error. Possible kernel bug.",
        ),
    ),
    Kind(
        id="seam-machine-check",
        severity=Severity.ERROR,
        sentence="a machine check while a TD ran: {what}",
        meaning="The TD is killed and its memory is to be taken back. The page itself is not "
        "marked as bad in 6.16 to 7.1: the address that the handler looks up still has the "
        "KeyID in it.",
        advice="Treat the memory as suspect until it is known; look at EDAC and the firmware's log.",
        versions="6.16 to 7.1; earlier not verified",
        citations=(SEVERITY_C, ADDRESS),
        certainty=Certainty.VERIFIED,
        pattern=r"(?:mce: )?\[Hardware Error\]: (?:Machine check: )?"
        r"(?P<what>(?:Data load|Instruction fetch) error in SEAM non-root mode)",
        samples=(
            "mce: [Hardware Error]: Machine check: Data load error in SEAM non-root mode",
            "mce: [Hardware Error]: Machine check: Instruction fetch error in SEAM non-root mode",
        ),
    ),
    MACHINE_CHECK,
)
