"""Machine checks, what the memory controllers report, and panics."""

from __future__ import annotations

from tdxreclaim.tables.findings.kind import Cause, Kind, Severity, Subject
from tdxreclaim.tables.findings.sources import ADDRESS, MCE, SEVERITY_C
from tdxreclaim.tables.sources import Certainty, Citation

_RECORD = (
    r"(?:mce: )?\[Hardware Error\]: CPU (?P<cpu>\d{1,5}): Machine Check(?P<how> Exception| Event)?"
    r"(?:: (?P<mcg>(?:0x)?[0-9a-f]{1,16}) Bank (?P<bank>\d{1,3})(?:: (?P<mci>(?:0x)?[0-9a-f]{16}))?)?"
)


_EDAC = Citation("linux v7.3.4", "drivers/edac/edac_mc.c, skx_common.c")


MACHINE_CHECK = Kind(
    id="machine-check",
    severity=Severity.ERROR,
    sentence="{count} machine check{plural}: {what}",
    meaning="On a CPU with tdx_pw_mce a partial write to a page that was a TD's looks so: an "
    'uncorrected data load. The line "TDX private memory error" may be missing then: the '
    "address that is looked up can have KeyID bits in it, which the module's lookup does not "
    "expect. On other CPUs it is not this erratum.",
    advice="Look at EDAC and the firmware's log for failing memory; on a CPU with tdx_pw_mce "
    "also for TDs that were shut down before.",
    versions="all",
    citations=(ADDRESS, MCE),
    certainty=Certainty.INFERRED,
    pattern=_RECORD,
    samples=(
        "mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 1: bd80000000100134",
        "mce: [Hardware Error]: CPU 12: Machine Check: 0 Bank 1: bd80000000100134",
        "mce: [Hardware Error]: CPU 12: Machine Check Event: 0 Bank 1: bd80000000100134",
    ),
    subject=Subject.UNCORRECTED,
    cause=Cause.MACHINE_CHECK,
    rank=2,
    follows=("page-removal-failed", "td-fatal"),
)


FATAL_MACHINE_CHECK = Kind(
    id="fatal-machine-check",
    severity=Severity.ERROR,
    sentence='a machine check ended in a panic: "{what}"',
    meaning="The host went down with it. The records of the machine check, if they are in the log, "
    "say which CPU and bank.",
    advice="Look at EDAC and the firmware's log for failing memory; on a CPU with tdx_pw_mce "
    "also for TDs that were shut down before.",
    versions="all",
    citations=(MCE,),
    certainty=Certainty.VERIFIED,
    pattern=r"Kernel panic - not syncing: (?P<what>Fatal (?:local )?[Mm]achine [Cc]heck"
    r"|Timeout: Not all CPUs entered broadcast exception handler"
    r"|Machine check from unknown source)",
    samples=(
        "Kernel panic - not syncing: Fatal local machine check",
        "Kernel panic - not syncing: Timeout: Not all CPUs entered broadcast exception handler",
        "Kernel panic - not syncing: Machine check from unknown source",
    ),
    cause=Cause.MACHINE_CHECK,
    rank=4,
)


KERNEL_PANIC = Kind(
    id="kernel-panic",
    severity=Severity.NOTICE,
    sentence='the kernel panicked: "{what}"',
    meaning="Nothing in the line says that it is TDX's.",
    advice="Look at the lines before it.",
    versions="all",
    citations=(Citation("linux v7.3.4", "kernel/panic.c"),),
    certainty=Certainty.VERIFIED,
    pattern=r"Kernel panic - not syncing: (?P<what>.{0,100})",
    samples=("Kernel panic - not syncing: VFS: Unable to mount root fs",),
    turn=1,
)


PRIVATE_MEMORY = Kind(
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
    cause=Cause.MACHINE_CHECK,
    follows=("page-removal-failed", "td-fatal"),
)


CORRECTED = Kind(
    id="corrected-machine-check",
    severity=Severity.NOTICE,
    sentence="a machine check that the hardware corrected: {what}",
    meaning="Nothing was lost, and it is not the erratum, whose poison cannot be corrected. "
    "Many of one place foretell memory that fails.",
    advice="Watch EDAC's counters; replace what keeps being corrected.",
    versions="all",
    citations=(SEVERITY_C,),
    certainty=Certainty.INFERRED,
    pattern=_RECORD,
    samples=(
        "mce: [Hardware Error]: CPU 4: Machine Check: 0 Bank 13: 8c000040000800c2",
        "mce: [Hardware Error]: CPU 4: Machine Check Event: 0 Bank 13: 8c000040000800c2",
    ),
    subject=Subject.CORRECTED,
)


EDAC_CORRECTED = Kind(
    id="edac-corrected",
    severity=Severity.NOTICE,
    sentence="the memory controller corrected errors",
    meaning="Nothing was lost, and it is not the erratum. Many on one DIMM foretell its failure.",
    advice="Watch EDAC's counters; replace what keeps being corrected.",
    versions="all",
    citations=(_EDAC,),
    certainty=Certainty.INFERRED,
    pattern=r"EDAC MC\d{1,3}: \d{1,9} CE ",
    samples=(
        "EDAC MC5: 1 CE memory read error on CPU_SrcID#1_MC#1_Chan#0_DIMM#0 (channel:0 slot:0)",
    ),
)


EDAC_UNCORRECTED = Kind(
    id="edac-uncorrected",
    severity=Severity.ERROR,
    sentence="the memory controller reports errors that it could not correct",
    meaning="Data of a DIMM was lost. It speaks for failing memory, and so against the erratum, "
    "where a machine check stands beside it.",
    advice="Replace the DIMM that is named.",
    versions="all",
    citations=(_EDAC,),
    certainty=Certainty.INFERRED,
    pattern=r"EDAC MC\d{1,3}: \d{1,9} UE ",
    samples=(
        "EDAC MC5: 1 UE memory scrubbing error on CPU_SrcID#1_MC#1_Chan#0_DIMM#0 (channel:0 slot:0)",
    ),
)


ROWS = (
    PRIVATE_MEMORY,
    Kind(
        id="seam-machine-check",
        severity=Severity.ERROR,
        sentence="a machine check while a TD ran: {what}",
        meaning="The TD is killed and its memory is to be taken back. The page itself is not "
        "marked as bad in 6.16 to 7.3: the address that the handler looks up still has the "
        "KeyID in it.",
        advice="Treat the memory as suspect until it is known; look at EDAC and the firmware's log.",
        versions="6.16 to 7.3; earlier not verified",
        citations=(SEVERITY_C, ADDRESS),
        certainty=Certainty.VERIFIED,
        pattern=r"(?:mce: )?\[Hardware Error\]: (?:Machine check: )?"
        r"(?P<what>(?:Data load|Instruction fetch) error in SEAM non-root mode)",
        samples=(
            "mce: [Hardware Error]: Machine check: Data load error in SEAM non-root mode",
            "mce: [Hardware Error]: Machine check: Instruction fetch error in SEAM non-root mode",
        ),
        cause=Cause.MACHINE_CHECK,
        rank=1,
    ),
    MACHINE_CHECK,
    FATAL_MACHINE_CHECK,
    Kind(
        id="machine-check-severity",
        severity=Severity.ERROR,
        sentence='the kernel on a machine check: "{what}"',
        meaning="The kernel's own judgement of the record beside it. \"Data load in unrecoverable "
        'area of kernel" is where poison of the erratum ends when the kernel reads it; so does '
        "other memory that fails.",
        advice="See the record: bank, status and address.",
        versions="all",
        citations=(SEVERITY_C,),
        certainty=Certainty.VERIFIED,
        pattern=r"(?:mce: )?\[Hardware Error\]: Machine check: (?P<what>.{1,100})",
        samples=(
            "mce: [Hardware Error]: Machine check: Data load in unrecoverable area of kernel",
        ),
        turn=1,
        cause=Cause.MACHINE_CHECK,
        rank=3,
    ),
    CORRECTED,
    Kind(
        id="machine-check-logged",
        severity=Severity.NOTICE,
        sentence="machine checks were recorded elsewhere; this log does not say whether they were "
        "corrected",
        meaning="The records are mcelog's or rasdaemon's. Most such lines are corrected errors.",
        advice="See ras-mc-ctl --errors, or mcelog's log.",
        versions="all",
        citations=(MCE,),
        certainty=Certainty.INFERRED,
        pattern=r"(?:mce: )?\[Hardware Error\]: Machine check events logged"
        r"|EDAC .{0,40}HANDLING MCE MEMORY ERROR",
        samples=(
            "mce: [Hardware Error]: Machine check events logged",
            "EDAC skx MC5: HANDLING MCE MEMORY ERROR",
        ),
    ),
    EDAC_CORRECTED,
    EDAC_UNCORRECTED,
    KERNEL_PANIC,
)
