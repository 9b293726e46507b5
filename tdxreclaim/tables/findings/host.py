"""What the host is, from its facts: the posture of `check`."""

from __future__ import annotations

from tdxreclaim.tables.findings.kind import Cause, Kind, Severity
from tdxreclaim.tables.findings.sources import CORE, FLAG, KEXEC, KVM, SKIP
from tdxreclaim.tables.sources import Certainty

CLEARS_NEEDLESSLY = Kind(
    id="clears-needlessly",
    severity=Severity.WARNING,
    sentence="the kernel clears every reclaimed page, which this CPU does not need",
    meaning="Each 4 KiB page that a TD gives back is overwritten with MOVDIR64B once more "
    "than needed. In the order of every upstream release that is a small share of the "
    "shutdown (4 to 13 %, inferred from published times); the 40 % that was published has "
    "no stated baseline.",
    advice="Upgrade to 6.18 or later, which clears on affected CPUs alone; do not expect the "
    "shutdown to become short by it.",
    versions="6.16 and 6.17",
    citations=(SKIP,),
    certainty=Certainty.VERIFIED,
)


AT_RISK = Kind(
    id="at-risk",
    severity=Severity.CRITICAL,
    sentence="this CPU needs reclaimed pages cleared, and the kernel does not clear them",
    meaning="A partial write to a page that was a TD's poisons a line of it; the next read is "
    "a machine check.",
    advice="See tdxreclaim check for this host; do not run TDs on it until that is settled.",
    versions="no upstream release",
    citations=(SKIP,),
    certainty=Certainty.VERIFIED,
)


TDX_IDLE = Kind(
    id="tdx-idle",
    severity=Severity.NOTICE,
    sentence="TDX is not active on this host: {because}",
    meaning="No TD can run, so no shutdown here can be slow because of TDX.",
    advice="Look for another reason; see the other findings if TDX should be active.",
    versions="all",
    citations=(CORE,),
    certainty=Certainty.VERIFIED,
)


NOT_A_TDX_HOST = Kind(
    id="not-a-tdx-host",
    severity=Severity.NOTICE,
    sentence="this is no TDX host: {because}",
    meaning="There are no TDX pages to reclaim; whatever is slow here, it is not TDX reclaim.",
    advice="Look for another reason, or give the facts of the host that ran the TD.",
    versions="all",
    citations=(CORE,),
    certainty=Certainty.VERIFIED,
)


KERNEL_UNKNOWN = Kind(
    id="kernel-unknown",
    severity=Severity.NOTICE,
    sentence="what this kernel does with reclaimed pages is not known: {because}",
    meaning="A distribution's version does not tell what was backported.",
    advice="Look in the host's /proc/kallsyms (no root needed): tdx_clear_page or "
    "reset_tdx_pages means that it clears on every CPU, tdx_quirk_reset_page or "
    "tdx_quirk_reset_paddr that it clears on affected CPUs alone.",
    versions="distribution kernels",
    citations=(SKIP,),
    certainty=Certainty.VERIFIED,
)


KVM_TDX_OFF = Kind(
    id="kvm-tdx-off",
    severity=Severity.ERROR,
    sentence="kvm_intel runs with tdx=N although TDX is on in the BIOS",
    meaning="KVM does not offer TDs: the parameter is off by default, and is set back to N "
    "when the bring-up fails.",
    advice="Load kvm_intel with tdx=1 (kvm_intel.tdx=1 on the kernel's command line); if it "
    "was, the kernel log says why the bring-up failed.",
    versions="6.16 and later",
    citations=(KVM,),
    certainty=Certainty.VERIFIED,
    cause=Cause.BRING_UP,
    rank=8,
    option="kvm_intel.tdx=1",
    then="kvm_intel.tdx=1 is set already, so the bring-up failed: look at the BIOS and its SEAM loader, and update it first.",
)


NO_KDUMP = Kind(
    id="no-kdump",
    severity=Severity.WARNING,
    sentence="this host can have no kdump: {because}",
    meaning="Known from CPU, kernel and TDX state; the log that was given has no refusal in it, "
    "which is printed once, when an image is loaded.",
    advice="Do not count on a crash dump: take dumps another way, or turn TDX off in the BIOS.",
    versions="6.18 to 7.1",
    citations=(KEXEC,),
    certainty=Certainty.VERIFIED,
)


ERRATUM_FLAG_MISSING = Kind(
    id="erratum-flag-missing",
    severity=Severity.ERROR,
    sentence="the kernel has TDX on and did not set tdx_pw_mce, on a CPU that has the erratum: {because}",
    meaning="Kernels from 6.18 on clear reclaimed pages only where they set that flag; all that "
    "know the erratum set it on this CPU once TDX is on. So this kernel is not what it seems, or "
    "what was captured is not whole.",
    advice="Look at the bugs line of /proc/cpuinfo on the host itself. If the flag is missing there, "
    "stop starting TDs, and run an upstream kernel.",
    versions="6.18 and later clear on the flag; 6.16 and 6.17 clear always",
    citations=(FLAG, SKIP),
    certainty=Certainty.VERIFIED,
)


ROWS = (
    CLEARS_NEEDLESSLY,
    AT_RISK,
    ERRATUM_FLAG_MISSING,
    TDX_IDLE,
    NOT_A_TDX_HOST,
    KERNEL_UNKNOWN,
    KVM_TDX_OFF,
    NO_KDUMP,
)
