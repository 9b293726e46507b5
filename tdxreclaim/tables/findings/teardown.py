"""The teardown of a TD, other SEAMCALLs, and kexec."""

from __future__ import annotations

from tdxreclaim.tables.findings.kind import HEX, SEAMCALL, WARNING, Cause, Kind, Severity, Subject
from tdxreclaim.tables.findings.sources import (
    CANONICAL_149,
    DISABLE,
    KEXEC,
    KVM,
    NO_PIN,
    PINNED,
    SHUTDOWN,
)
from tdxreclaim.tables.kernels import HANDING_BACK, LEAKING
from tdxreclaim.tables.sources import Certainty, Citation

_FAILED_PAGE = (
    f"{LEAKING} keep such a page: it is leaked until the next reboot, and does no harm. "
    f"{HANDING_BACK} hand it back to the host, not cleared and still the TD's (read from code; not "
    "seen in the field): on a CPU with tdx_pw_mce the next partial write poisons a line of it, on "
    "any CPU a line that is written back late is lost to the host, and a later TD that gets the "
    "page is killed."
)


# By what the kernel does with such a page.
LEAKED_ADVICE = "Reboot when the leaked memory matters."


HANDED_BACK_ADVICE = (
    "Take the host out of service now: stop the other TDs first, then reboot it; no kexec on a CPU "
    "with tdx_pw_mce."
)


EITHER_ADVICE = (
    f"Find out the kernel. {HANDING_BACK}: take the host out of service now, stop the other TDs "
    f"first, then reboot it; no kexec on a CPU with tdx_pw_mce. {LEAKING}: reboot when the "
    "leaked memory matters."
)


# What made a TD fatal, or its pages fail.
_MACHINE_CHECKS = ("machine-check", "seam-machine-check", "private-memory-machine-check")


TD_FATAL = Kind(
    id="td-fatal",
    severity=Severity.CRITICAL,
    sentence="a TD is FATAL, and the module refuses to take its pages away: {leaf}: {status}",
    meaning="After a machine check in the TD the module lets nobody block or remove its pages. "
    + _FAILED_PAGE,
    advice=EITHER_ADVICE,
    versions="6.16 and later",
    citations=(NO_PIN, PINNED, KVM),
    certainty=Certainty.INFERRED,
    pattern=SEAMCALL,
    samples=(
        "kvm_intel: SEAMCALL TDH_MEM_RANGE_BLOCK failed: 0xe000060400000000, rcx 0x0, rdx, 0x0",
    ),
    subject=Subject.FATAL,
    cause=Cause.REMOVAL,
    follows=_MACHINE_CHECKS,
)


PAGE_REMOVAL_FAILED = Kind(
    id="page-removal-failed",
    severity=Severity.CRITICAL,
    sentence="{leaf} of a guest page failed: {status}",
    meaning="The page could not be taken from the TD. " + _FAILED_PAGE,
    advice=EITHER_ADVICE,
    versions="6.16 and later; from 6.19 one line a VM, however many pages failed",
    citations=(NO_PIN, PINNED, KVM),
    certainty=Certainty.INFERRED,
    pattern=SEAMCALL,
    samples=(
        "kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0x8000020000000092, rcx 0x0, rdx, 0x0, r8 0x0",
    ),
    subject=Subject.REMOVAL,
    cause=Cause.REMOVAL,
    rank=1,
    follows=_MACHINE_CHECKS,
)


RECLAIM_WARNING = Kind(
    id="reclaim-warning",
    severity=Severity.CRITICAL,
    sentence="the kernel warned in the reclaim path, in {function}() (tdx.c:{line})",
    meaning="A step of a teardown failed that must not fail. What becomes of the page is told "
    "by the SEAMCALL that failed; this warning is printed once a place and boot, however "
    "often it fails.",
    advice="Report it with the whole warning; reboot when leaked memory matters.",
    versions="all; seen on 6.8.0-1004-intel",
    citations=(CANONICAL_149, KVM),
    certainty=Certainty.VERIFIED,
    pattern=WARNING,
    samples=(
        "WARNING: CPU: 3 PID: 999 at arch/x86/kvm/vmx/tdx.c:275 __tdx_reclaim_page+0x7a/0xa0 [kvm_intel]",
        "WARNING: arch/x86/kvm/vmx/tdx.c:275 at __tdx_reclaim_page+0x7a/0xa0, CPU#3: qemu/999",
    ),
    subject=Subject.TEARDOWN,
    cause=Cause.RECLAIM,
    rank=2,
    follows=_MACHINE_CHECKS,
)


KEXEC_REFUSED = Kind(
    id="kexec-refused",
    severity=Severity.WARNING,
    sentence="kexec was refused because of tdx_pw_mce, so this host has no kdump",
    meaning="On an affected CPU with TDX on in the BIOS, 6.18 to 7.1 refuse to load any kexec "
    "or kdump image, even if no TD ever ran and with kvm_intel.tdx=0. It does not tell what the "
    "kernel clears: Fedora's 6.17 prints it too, and clears on every CPU.",
    advice="Do not count on a crash dump: take dumps another way, or turn TDX off in the BIOS. "
    "7.2 lifts the refusal and relies on TDH.SYS.DISABLE, which needs a new TDX module.",
    versions="6.18 to 7.1; Fedora's 6.17",
    citations=(KEXEC,),
    certainty=Certainty.VERIFIED,
    pattern=r"kexec: Not allowed on platform with tdx_pw_mce bug",
    samples=("kexec: Not allowed on platform with tdx_pw_mce bug",),
)


SYS_DISABLE_FAILED = Kind(
    id="sys-disable-failed",
    severity=Severity.NOTICE,
    sentence="the TDX module was not disabled at shutdown: TDH.SYS.DISABLE: {status}",
    meaning="With 0xc000010000000000 the module is older than the leaf: 7.2 and later print it at "
    "every reboot, power-off and kexec then. It matters only where a kexec follows on a CPU with "
    "tdx_pw_mce: poison of partial writes is left to the new kernel.",
    advice="Nothing to do, unless this host uses kexec or kdump on an affected CPU: upgrade the "
    "TDX module, and reboot instead of kexec until then.",
    versions="7.2 and later",
    citations=(DISABLE, SHUTDOWN),
    certainty=Certainty.VERIFIED,
    pattern=rf"virt/tdx: TDH\.SYS\.DISABLE failed: (?P<status>{HEX})",
    samples=("virt/tdx: TDH.SYS.DISABLE failed: 0xc000010000000000",),
)


KEXEC_STARTED = Kind(
    id="kexec-started",
    severity=Severity.NOTICE,
    sentence="this boot ended with a kexec",
    meaning="Another kernel took over without a reset of the machine.",
    advice="Nothing to do.",
    versions="all",
    citations=(Citation("linux v7.3.4", "kernel/kexec_core.c, kernel_kexec()"),),
    certainty=Certainty.INFERRED,
    pattern=r"(?:kexec_core: )?Starting new kernel",
    samples=("kexec_core: Starting new kernel",),
)


ROWS = (
    TD_FATAL,
    PAGE_REMOVAL_FAILED,
    Kind(
        id="reclaim-failed",
        severity=Severity.CRITICAL,
        sentence="{leaf} failed: {status}",
        meaning="A control or Secure-EPT page was not given back: it is leaked until the next "
        "reboot, under every kernel. With TDX_PAGE_METADATA_INCORRECT the page was not in the "
        "state that the kernel took it to be in; with TDX_LIFECYCLE_STATE_INCORRECT its TD had "
        "not been torn down.",
        advice="Report it with the lines around it, the kernel and the TDX module version; "
        "reboot when leaked memory matters.",
        versions="6.16 and later by name; earlier trees by number",
        citations=(KVM, CANONICAL_149),
        certainty=Certainty.VERIFIED,
        pattern=SEAMCALL,
        samples=(
            "SEAMCALL (0x000000000000001c) failed: 0xc000030000000001 RCX 0x0000000000000000",
        ),
        subject=Subject.RECLAIM,
        cause=Cause.RECLAIM,
        follows=("td-fatal", "page-removal-failed", *_MACHINE_CHECKS),
    ),
    Kind(
        id="teardown-seamcall-failed",
        severity=Severity.CRITICAL,
        sentence="{leaf} failed in a teardown: {status}",
        meaning="A step that releases the TD's HKID, or the tracking before a removal, failed: "
        "the TD's control pages, or the page, stay taken until the next reboot.",
        advice="Report it with the lines around it; reboot when leaked memory or HKIDs matter.",
        versions="6.16 and later by name; earlier trees by number",
        citations=(KVM,),
        certainty=Certainty.VERIFIED,
        pattern=SEAMCALL,
        samples=("kvm_intel: SEAMCALL TDH_MNG_KEY_FREEID failed: 0xc000060700000000, rcx 0x0",),
        subject=Subject.TEARDOWN,
        cause=Cause.HKID,
        rank=1,
        follows=("td-fatal", "page-removal-failed", *_MACHINE_CHECKS),
    ),
    Kind(
        id="seamcall-failed",
        severity=Severity.WARNING,
        sentence="{leaf} failed: {status}",
        meaning="Not a step of the teardown; a TD could not be built or run.",
        advice="Report it with the lines around it if TDs fail.",
        versions="all",
        citations=(KVM,),
        certainty=Certainty.VERIFIED,
        pattern=SEAMCALL,
        samples=("kvm_intel: SEAMCALL TDH_MEM_PAGE_AUG failed: 0x8000020000000092",),
        subject=Subject.OTHER,
        follows=("page-removal-failed", "td-fatal"),
    ),
    Kind(
        id="hkid-leaked",
        severity=Severity.CRITICAL,
        sentence="HKID {hkid} is leaked: {function}() failed",
        meaning="The TD's key and all its control pages stay taken until the next reboot; when "
        "the KeyIDs run out, no TD can start.",
        advice="Compare misc.current with misc.capacity for what is left; report it; reboot.",
        versions="6.16 and later",
        citations=(KVM,),
        certainty=Certainty.VERIFIED,
        pattern=r"(?:kvm_intel: )?(?P<function>tdh_mng_vpflushdone|tdh_mng_key_freeid)\(\) failed\. HKID "
        r"(?P<hkid>\d{1,9}) is leaked",
        samples=(
            "kvm_intel: tdh_mng_key_freeid() failed. HKID 65 is leaked.",
            "kvm_intel: tdh_mng_vpflushdone() failed. HKID 65 is leaked.",
        ),
        cause=Cause.HKID,
        follows=("td-fatal", "page-removal-failed", "reclaim-failed", *_MACHINE_CHECKS),
    ),
    RECLAIM_WARNING,
    Kind(
        id="tdx-warning",
        severity=Severity.WARNING,
        sentence="the kernel warned in TDX code, in {function}() (tdx.c:{line}), which is not a step "
        "of a teardown alone",
        meaning="Building or running a TD went wrong (from 7.2 tdx_sept_set_private_spte() takes "
        "pages away as well); no reason for a slow shutdown by itself.",
        advice="Report it with the whole warning if TDs fail.",
        versions="all",
        citations=(KVM,),
        certainty=Certainty.VERIFIED,
        pattern=WARNING,
        samples=(
            "WARNING: CPU: 131 PID: 34217 at arch/x86/kvm/vmx/tdx.c:1494 tdx_mem_page_aug+0x102/0x1d0 [kvm_intel]",
            "WARNING: CPU: 0 PID: 1 at arch/x86/virt/vmx/tdx/tdx.c:9 tdx_cpu_enable+0x1/0x2",
        ),
        subject=Subject.OTHER,
    ),
    Kind(
        id="guest-unaccepted-page",
        severity=Severity.WARNING,
        sentence="a guest used memory that it had not accepted, and was killed",
        meaning="A fault of the guest's kernel or firmware, and none of the host's: no reclaim "
        "problem.",
        advice="Look at the guest.",
        versions="7.2 and later",
        citations=(Citation("linux v7.3.4", "arch/x86/kvm/vmx/tdx.c"),),
        certainty=Certainty.VERIFIED,
        pattern=r"kvm_intel: Guest access before accepting 0x[0-9a-f]{1,16} on vCPU \d+",
        samples=("kvm_intel: Guest access before accepting 0x7f000000 on vCPU 3",),
    ),
    KEXEC_REFUSED,
    SYS_DISABLE_FAILED,
    KEXEC_STARTED,
)
