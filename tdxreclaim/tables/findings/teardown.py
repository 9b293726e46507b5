"""The teardown of a TD, other SEAMCALLs, and kexec."""

from __future__ import annotations

from tdxreclaim.tables.findings.kind import HEX, SEAMCALL, WARNING, Kind, Part, Severity
from tdxreclaim.tables.findings.sources import CANONICAL_149, DISABLE, KEXEC, KVM
from tdxreclaim.tables.sources import Certainty

KEXEC_REFUSED = Kind(
    id="kexec-refused",
    severity=Severity.WARNING,
    sentence="kexec was refused because of tdx_pw_mce, so this host has no kdump",
    meaning="On an affected CPU with TDX on in the BIOS, 6.18 to 7.1 refuse to load any kexec "
    "or kdump image, even if no TD ever ran and with kvm_intel.tdx=0.",
    advice="Do not count on a crash dump: take dumps another way, or turn TDX off in the BIOS. "
    "7.2 lifts the refusal and relies on TDH.SYS.DISABLE, which needs a new TDX module.",
    versions="6.18 to 7.1",
    citations=(KEXEC,),
    certainty=Certainty.VERIFIED,
    pattern=r"kexec: Not allowed on platform with tdx_pw_mce bug",
    samples=("kexec: Not allowed on platform with tdx_pw_mce bug",),
)


ROWS = (
    Kind(
        id="reclaim-failed",
        severity=Severity.CRITICAL,
        sentence="{leaf} failed: {status}",
        meaning="The page was not given back: it is leaked until the next reboot. With "
        "TDX_PAGE_METADATA_INCORRECT the page was not in the state that the kernel took it to "
        "be in; with TDX_LIFECYCLE_STATE_INCORRECT its TD had not been torn down.",
        advice="Report it with the lines around it, the kernel and the TDX module version; "
        "reboot when leaked memory matters.",
        versions="6.16 and later by name; earlier trees by number",
        citations=(KVM, CANONICAL_149),
        certainty=Certainty.VERIFIED,
        pattern=SEAMCALL,
        part=Part.RECLAIM,
        samples=(
            "SEAMCALL (0x000000000000001c) failed: 0xc000030000000001 RCX 0x0000000000000000",
        ),
    ),
    Kind(
        id="teardown-seamcall-failed",
        severity=Severity.CRITICAL,
        sentence="{leaf} failed in a teardown: {status}",
        meaning="The page, or with the HKID steps the whole TD, is not given back: leaked until "
        "the next reboot. A TD that a machine check made FATAL fails so, page by page.",
        advice="Look for a machine check before it; report it with the lines around it.",
        versions="6.16 and later by name; earlier trees by number",
        citations=(KVM,),
        certainty=Certainty.VERIFIED,
        pattern=SEAMCALL,
        part=Part.TEARDOWN,
        samples=(
            "kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0x8000020000000092, rcx 0x0, rdx, 0x0, r8 0x0",
        ),
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
        part=Part.OTHER,
        samples=("kvm_intel: SEAMCALL TDH_MEM_PAGE_AUG failed: 0x8000020000000092",),
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
    ),
    Kind(
        id="reclaim-warning",
        severity=Severity.CRITICAL,
        sentence="the kernel warned in the reclaim path, in {function}() (tdx.c:{line})",
        meaning="A step of a teardown failed that must not fail; the pages concerned are leaked "
        "until the next reboot. RAX in the registers that follow is the module's answer.",
        advice="Report it with the whole warning; reboot when leaked memory matters.",
        versions="all; seen on 6.8.0-1004-intel",
        citations=(CANONICAL_149, KVM),
        certainty=Certainty.VERIFIED,
        pattern=WARNING,
        part=Part.TEARDOWN,
        samples=(
            "WARNING: CPU: 3 PID: 999 at arch/x86/kvm/vmx/tdx.c:275 __tdx_reclaim_page+0x7a/0xa0 [kvm_intel]",
            "WARNING: arch/x86/kvm/vmx/tdx.c:275 at __tdx_reclaim_page+0x7a/0xa0, CPU#3: qemu/999",
        ),
    ),
    Kind(
        id="tdx-warning",
        severity=Severity.WARNING,
        sentence="the kernel warned in TDX code outside the reclaim path, in {function}() "
        "(tdx.c:{line})",
        meaning="Not a step of a teardown, so no reason for a slow shutdown by itself.",
        advice="Report it with the whole warning if TDs fail.",
        versions="all",
        citations=(KVM,),
        certainty=Certainty.VERIFIED,
        pattern=WARNING,
        part=Part.OTHER,
        samples=(
            "WARNING: CPU: 131 PID: 34217 at arch/x86/kvm/vmx/tdx.c:1494 tdx_mem_page_aug+0x102/0x1d0 [kvm_intel]",
            "WARNING: CPU: 0 PID: 1 at arch/x86/virt/vmx/tdx/tdx.c:9 tdx_cpu_enable+0x1/0x2",
        ),
    ),
    KEXEC_REFUSED,
    Kind(
        id="sys-disable-failed",
        severity=Severity.ERROR,
        sentence="TDH.SYS.DISABLE failed on the way into a kexec: {status}",
        meaning="The TDX module kept its memory, and poison of partial writes may be left in it.",
        advice="Upgrade the TDX module; on an affected CPU reboot instead of kexec.",
        versions="7.2 and later",
        citations=(DISABLE,),
        certainty=Certainty.INFERRED,
        pattern=rf"virt/tdx: TDH\.SYS\.DISABLE failed: (?P<status>{HEX})",
        samples=("virt/tdx: TDH.SYS.DISABLE failed: 0xc000010000000000",),
    ),
)
