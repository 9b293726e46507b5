"""The bring-up of TDX, line by line."""

from __future__ import annotations

from tdxreclaim.tables.findings.kind import SEAMCALL, Cause, Kind, Severity, Subject
from tdxreclaim.tables.findings.sources import (
    CANONICAL_33,
    CANONICAL_149,
    CANONICAL_161,
    CORE,
    CORE_71,
    KVM,
    KVM_OLD,
    TDX_TOOLS_234,
)
from tdxreclaim.tables.seamcalls import Status
from tdxreclaim.tables.sources import Certainty, Citation

TDX_ON_IN_BIOS = Kind(
    id="tdx-on-in-bios",
    severity=Severity.NOTICE,
    sentence="TDX is on in the BIOS, with {keyids} private KeyIDs",
    meaning="It does not mean that the TDX module is loaded or initialised.",
    advice="Nothing to do.",
    versions="6.8 and later",
    citations=(CORE,),
    certainty=Certainty.VERIFIED,
    pattern=r"(?:virt/)?tdx: BIOS enabled: private KeyID range:? \[(?P<first>\d{1,9}), (?P<last>\d{1,9})\)",
    samples=(
        "virt/tdx: BIOS enabled: private KeyID range [64, 128)",
        "tdx: BIOS enabled: private KeyID range [32, 64)",
    ),
)


BIOS_ON_NO_MODULE = Kind(
    id="bios-on-no-module",
    severity=Severity.ERROR,
    sentence="TDX is on in the BIOS, and {because}",
    meaning="Up to 7.0 the module is brought up when kvm_intel loads with tdx=1. From 7.1 the "
    "core does it at boot, and says nothing where a SEAMCALL faults (seen with 7.3.4): no line "
    "after the first is a failure then, if the log is whole.",
    advice="Up to 7.0: load kvm_intel with tdx=1. From 7.1: look at the BIOS and its SEAM loader, and "
    "update it first.",
    versions="all",
    citations=(CORE, KVM_OLD),
    certainty=Certainty.INFERRED,
    cause=Cause.BRING_UP,
    rank=7,
    option="kvm_intel.tdx=1",
    then="kvm_intel.tdx=1 is set already: look at the BIOS and its SEAM loader, and update it first.",
)


UNKNOWN_TDX_LINES = Kind(
    id="unknown-tdx-lines",
    severity=Severity.NOTICE,
    sentence="the kernel says something of TDX that is not in the catalogue",
    meaning="Nothing was concluded from these lines. They may be harmless, or of a kernel "
    "that is newer than this tool.",
    advice="Read them; report them with the kernel's release if they matter.",
    versions="unknown",
    citations=(CORE,),
    certainty=Certainty.INFERRED,
    pattern=r"(?:virt/)?tdx: |seamldr: |kvm_intel: (?=.{0,200}(?:TDX|tdx|SEAMCALL|tdh_))",
    samples=(
        "virt/tdx: something new",
        "seamldr: something new",
        "kvm_intel: something new of TDX",
        "kvm_intel: tdx_something() did what it did",
        "kvm_intel: SEAMCALL did what it did",
        "kvm_intel: tdh_something() did what it did",
    ),
    turn=2,
)


# What a refusal of the bring-up meant where it was met.
STATUS_MEANINGS = {
    Status.TDX_SYS_NOT_READY: (
        "the module is not initialised; with TDH.SYS.RD it is a 1.0 module under a kernel made "
        "for 1.5 (canonical/tdx issues 83, 331)"
    ),
    Status.TDX_INCORRECT_CPUID_VALUE: (
        "the BIOS is too old for the module (canonical/tdx issue 161)"
    ),
    Status.TDX_INCORRECT_MSR_VALUE: (
        "the BIOS set an MSR otherwise than the module wants; the operand is its number "
        "(canonical/tdx issue 25)"
    ),
    Status.TDX_METADATA_FIELD_ID_INCORRECT: (
        "the module does not know a field that the kernel asks for: it is too old for this kernel "
        "(intel/tdx-module issue 12)"
    ),
}


ROWS = (
    TDX_ON_IN_BIOS,
    Kind(
        id="module-initialized",
        severity=Severity.NOTICE,
        sentence="the TDX module is initialised",
        meaning="TDs can run, if kvm_intel has tdx=Y.",
        advice="Nothing to do.",
        versions="up to 7.0 when kvm_intel loads with tdx=1; from 7.1 at boot",
        citations=(CORE, CORE_71),
        certainty=Certainty.VERIFIED,
        pattern=r"(?:virt/)?tdx: (?:TDX-Module|TDX module|module) initialized",
        samples=(
            "virt/tdx: module initialized",
            "virt/tdx: TDX-Module initialized",
            "tdx: TDX module initialized.",
        ),
        brings_up=True,
    ),
    Kind(
        id="module-details",
        severity=Severity.NOTICE,
        sentence="the TDX module's bring-up: {what}",
        meaning="Part of a bring-up that goes as it should.",
        advice="Nothing to do.",
        versions="PAMT: all; module version: 7.1 and later",
        citations=(CORE, CORE_71),
        certainty=Certainty.VERIFIED,
        pattern=(
            r"virt/tdx: (?P<what>\d{1,12} KB\S? allocated for PAMT|Module version: \d[\d.]*"
            r"|Enable Dynamic PAMT)"
        ),
        samples=(
            "virt/tdx: 1050636 KB allocated for PAMT",
            "virt/tdx: Module version: 1.5.24",
            "virt/tdx: Enable Dynamic PAMT",
        ),
        brings_up=True,
    ),
    Kind(
        id="out-of-tree-kernel",
        severity=Severity.NOTICE,
        sentence="TDX module {major}.{minor}{version}, build {build}{older} of {date}{dated}: a line that "
        "no upstream release prints, of a kernel with an older TDX implementation",
        meaning="Ubuntu's 6.8-intel and other trees from before KVM TDX was merged print it. What "
        "is said here of upstream releases need not hold; that they clear on every CPU is "
        "inferred from their age.",
        advice="Ask who made the kernel, or move to an upstream release (6.18 or later).",
        versions="Ubuntu 6.8-intel and other pre-upstream trees",
        citations=(CANONICAL_149,),
        certainty=Certainty.VERIFIED,
        pattern=(
            r"virt/tdx: TDX module(?:: attributes \S+ vendor_id \S+ major_version (?P<major>\d{1,5}), "
            r"minor_version (?P<minor>\d{1,5}), build_date (?P<date>\w{1,16}), "
            r"build_num (?P<build>\d{1,9})"
            r"| (?P<version>\d[\d.]{1,30}), build number (?P<older>\d{1,9}), build date "
            r"(?P<dated>\w{1,16}))"
        ),
        samples=(
            (
                "virt/tdx: TDX module: attributes 0x0, vendor_id 0x8086, major_version 1, "
                "minor_version 5, build_date 20240129, build_num 698"
            ),
            "virt/tdx: TDX module 2.0.08.00, build number 882, build date 0134fed5",
        ),
        brings_up=True,
    ),
    Kind(
        id="s3-disabled",
        severity=Severity.BENIGN,
        sentence="ACPI S3 (suspend to RAM) is off because TDX is on",
        meaning="Benign: a sign that the kernel has activated TDX.",
        advice="Nothing to do; turn TDX off in the BIOS where S3 is needed.",
        versions="6.8 and later",
        citations=(CORE,),
        certainty=Certainty.VERIFIED,
        pattern=r"virt/tdx: Disable ACPI S3(?: suspend)?\.",
        samples=(
            "virt/tdx: Disable ACPI S3. Turn off TDX in the BIOS to use ACPI S3.",
            "virt/tdx: Disable ACPI S3 suspend. Turn off TDX in the BIOS to use ACPI S3.",
        ),
    ),
    Kind(
        id="host-platform-unsupported",
        severity=Severity.BENIGN,
        sentence='"TDX not supported by the host platform" is printed on every machine without TDX',
        meaning="Benign where TDX is not wanted: 7.1 and later print it on every machine that is "
        "no TDX host, AMD's included. Where TDX is wanted, it is off in the BIOS.",
        advice="Nothing to do, or turn TDX on in the BIOS.",
        versions="7.1 and later",
        citations=(CORE_71,),
        certainty=Certainty.VERIFIED,
        pattern=r"virt/tdx: TDX not supported by the host platform",
        samples=("virt/tdx: TDX not supported by the host platform",),
    ),
    Kind(
        id="too-few-keyids",
        severity=Severity.ERROR,
        sentence="TDX stays off: fewer than two private KeyIDs",
        meaning="The module takes one for itself, so none would be left for a TD. tdx_pw_mce is "
        "not set either, whatever the CPU.",
        advice="Give TDX more KeyIDs in the BIOS (the split between MKTME and TDX).",
        versions="all",
        citations=(CORE,),
        certainty=Certainty.VERIFIED,
        pattern=r"virt/tdx: initialization failed: too few private KeyIDs available",
        samples=("virt/tdx: initialization failed: too few private KeyIDs available.",),
        brings_up=True,
        cause=Cause.BRING_UP,
    ),
    Kind(
        id="hibernation-blocks-tdx",
        severity=Severity.ERROR,
        sentence="TDX stays off: the kernel supports hibernation",
        meaning="The kernel refuses TDX while hibernation is possible. tdx_pw_mce is not set "
        "either, whatever the CPU.",
        advice="Boot with nohibernate.",
        versions="6.8 and later",
        citations=(CORE,),
        certainty=Certainty.VERIFIED,
        pattern=r"virt/tdx: initialization failed: Hibernation support is enabled",
        samples=("virt/tdx: initialization failed: Hibernation support is enabled",),
        brings_up=True,
        cause=Cause.BRING_UP,
        option="nohibernate",
        then="nohibernate is set by now; if the last boot still has this line, see whether the "
        "kernel took it.",
    ),
    Kind(
        id="memory-notifier-failed",
        severity=Severity.ERROR,
        sentence="TDX stays off: register_memory_notifier() failed ({errno})",
        meaning="The kernel could not watch memory hotplug.",
        advice="Report it to the kernel's maintainers.",
        versions="all",
        citations=(CORE,),
        certainty=Certainty.VERIFIED,
        pattern=r"virt/tdx: initialization failed: register_memory_notifier\(\) failed \((?P<errno>-?\d{1,5})\)",
        samples=("virt/tdx: initialization failed: register_memory_notifier() failed (-12)",),
        cause=Cause.BRING_UP,
    ),
    Kind(
        id="module-not-loaded",
        severity=Severity.ERROR,
        sentence="no TDX module answers",
        meaning="The BIOS did not load one, or an error inside it shut TDX down for good until "
        "the next reboot.",
        advice="Early in the log: update the BIOS and look at its settings of TDX and of the SEAM loader; "
        "that is the maintainers' usual answer. Later, after TDs ran: look for machine checks "
        "before it, and reboot.",
        versions="all",
        citations=(CORE,),
        certainty=Certainty.VERIFIED,
        pattern=r"(?:virt/)?tdx: module not loaded",
        samples=("virt/tdx: module not loaded",),
        brings_up=True,
        cause=Cause.BRING_UP,
        rank=1,
        follows=("machine-check", "private-memory-machine-check", "seam-machine-check"),
    ),
    Kind(
        id="module-init-failed",
        severity=Severity.ERROR,
        sentence="the TDX module was not initialised (error {errno})",
        meaning="No TD can run in this boot. The lines before say at which SEAMCALL it failed.",
        advice="See the other lines of this finding; update the BIOS first, which brings a newer module.",
        versions="up to 7.0 as 'module', from 7.1 as 'TDX-Module'",
        citations=(CORE, CORE_71),
        certainty=Certainty.VERIFIED,
        pattern=r"virt/tdx: (?:TDX-Module|module) initialization failed \((?P<errno>-?\d{1,5})\)",
        samples=(
            "virt/tdx: module initialization failed (-5)",
            "virt/tdx: TDX-Module initialization failed (-19)",
        ),
        brings_up=True,
        cause=Cause.BRING_UP,
        rank=4,
    ),
    Kind(
        id="kvm-module-init-failed",
        severity=Severity.ERROR,
        sentence="kvm_intel gave up on the TDX module",
        meaning="A line of kernels from before KVM TDX was merged; the virt/tdx lines before it "
        "say why.",
        advice="See the other findings of this boot.",
        versions="pre-upstream trees",
        citations=(
            Citation("a captured kernel log", "kvm_intel: Failed to initialize TDX module."),
        ),
        certainty=Certainty.INFERRED,
        pattern=r"kvm_intel: Failed to initialize TDX module",
        samples=("kvm_intel: Failed to initialize TDX module.",),
        cause=Cause.BRING_UP,
        rank=5,
    ),
    Kind(
        id="rbp-clobber",
        severity=Severity.ERROR,
        sentence="the TDX module overwrites the frame pointer, and the kernel refuses it",
        meaning="It lacks TDX_FEATURES0 bit 18, which every module since 1.5.01 has.",
        advice="Upgrade the TDX module.",
        versions="6.16 and later",
        citations=(CORE,),
        certainty=Certainty.VERIFIED,
        pattern=r"virt/tdx: frame pointer \(RBP\) clobber bug present",
        samples=("virt/tdx: frame pointer (RBP) clobber bug present, upgrade TDX module",),
        brings_up=True,
        cause=Cause.BRING_UP,
    ),
    Kind(
        id="tdmr-limits",
        severity=Severity.ERROR,
        sentence="the memory does not fit into the module's regions: {what}",
        meaning="The TDX module takes a limited number of memory regions and holes in them.",
        advice="Report it with the kernel's memory map (the e820 lines of its log).",
        versions="all",
        citations=(CORE,),
        certainty=Certainty.VERIFIED,
        pattern=r"virt/tdx: (?P<what>(?:initialization failed: )?(?:TDMRs exhausted|TDMR \[[^\]\n]{1,60}\): reserved "
        r"areas exhausted|consumed TDMRs reaching limit: \d+ used out of \d+))",
        samples=(
            "virt/tdx: initialization failed: TDMRs exhausted.",
            "virt/tdx: initialization failed: TDMR [0x0, 0x40000000): reserved areas exhausted.",
            "virt/tdx: consumed TDMRs reaching limit: 64 used out of 64",
        ),
        brings_up=True,
        cause=Cause.BRING_UP,
    ),
    Kind(
        id="pamt-on-node-0",
        severity=Severity.NOTICE,
        sentence="PAMT memory was taken from NUMA node 0 for want of a local one",
        meaning="The module's per-page metadata is farther away than it could be.",
        advice="Nothing to do for correctness.",
        versions="all",
        citations=(CORE,),
        certainty=Certainty.VERIFIED,
        pattern=r"virt/tdx: .{0,100}unable to find local NUMA node for PAMT allocation",
        samples=(
            (
                "virt/tdx: TDMR [0x100000, 0x40000000): unable to find local NUMA node for PAMT "
                "allocation, fallback to use node 0."
            ),
        ),
    ),
    Kind(
        id="init-seamcall-failed",
        severity=Severity.ERROR,
        sentence="the TDX module refused {leaf} in its bring-up: {status}",
        meaning="A step of the module's own initialisation failed, so no TD can run in this boot.",
        advice="Update the BIOS first: it brings a newer TDX module and P-SEAMLDR, and is the maintainers' "
        "usual answer. If it is the newest, report these lines to its vendor.",
        versions="all",
        citations=(CORE, CANONICAL_161),
        certainty=Certainty.VERIFIED,
        pattern=SEAMCALL,
        subject=Subject.BRING_UP,
        samples=(
            "virt/tdx: SEAMCALL (0x0000000000000022) failed: 0xc000050500000000",
            "virt/tdx: SEAMCALL (33) failed: 0xc000092100000122",
            "tdx: SEAMCALL failed: CPU 94: leaf 33, error 0xc000092100000122.",
            "seamldr: SEAMCALL (0x8000000000000001) failed: 0x8000000000000005",
        ),
        brings_up=True,
        cause=Cause.BRING_UP,
        rank=1,
    ),
    Kind(
        id="host-requirement-missing",
        severity=Severity.ERROR,
        sentence="TDX needs something that this host does not give: {what}",
        meaning="A TDX CPU has it, so most likely it is switched off: by the BIOS or a parameter of "
        "the kernel or of KVM.",
        advice="Switch on what is named (kvm_intel.ept, kvm.tdp_mmu, kvm_intel.enable_apicv, ...).",
        versions="kvm_intel: 6.16 and later; virt/tdx: 7.1 and later",
        citations=(KVM, CORE_71),
        certainty=Certainty.VERIFIED,
        pattern=r"(?:virt/tdx|kvm_intel): (?:tdx: )?(?P<what>(?:EPT|TDP MMU and MMIO caching and EPT A/D bit|APICv"
        r"|OSXSAVE|XSAVE|MOVDIR64B|Self-snoop) is required for TDX)",
        samples=(
            "kvm_intel: tdx: MOVDIR64B is required for TDX",
            "kvm_intel: EPT is required for TDX",
            "kvm_intel: TDP MMU and MMIO caching and EPT A/D bit is required for TDX",
            "kvm_intel: APICv is required for TDX",
            "kvm_intel: tdx: OSXSAVE is required for TDX",
            "virt/tdx: XSAVE is required for TDX",
            "virt/tdx: Self-snoop is required for TDX",
        ),
        brings_up=True,
        cause=Cause.BRING_UP,
    ),
    Kind(
        id="tdp-mmu-needed",
        severity=Severity.WARNING,
        sentence="a TD could not be created: KVM's TDP MMU is off",
        meaning="A line of kernels from before KVM TDX was merged.",
        advice="Load kvm with tdp_mmu=Y.",
        versions="pre-upstream trees",
        citations=(Citation("a captured kernel log", "TDX requires TDP MMU."),),
        certainty=Certainty.INFERRED,
        pattern=r"(?:kvm_intel: )?TDX requires TDP MMU\.",
        samples=("TDX requires TDP MMU.  Please enable TDP MMU for TDX.",),
        option="kvm.tdp_mmu=Y",
        then="kvm.tdp_mmu=Y is on the command line: see what sets it back (modprobe.d, or who loads kvm).",
    ),
    Kind(
        id="virt-at-load-off",
        severity=Severity.ERROR,
        sentence="kvm_intel refuses TDX: kvm.enable_virt_at_load is 0",
        meaning="TDX needs virtualization switched on while the module is loaded.",
        advice="Load kvm with enable_virt_at_load=1.",
        versions="6.16 to 7.0",
        citations=(KVM_OLD,),
        certainty=Certainty.VERIFIED,
        pattern=r"kvm_intel: (?:tdx: )?tdx requires kvm\.enable_virt_at_load=1",
        samples=("kvm_intel: tdx: tdx requires kvm.enable_virt_at_load=1",),
        brings_up=True,
        cause=Cause.BRING_UP,
        option="kvm.enable_virt_at_load=1",
        then="kvm.enable_virt_at_load=1 is on the command line: see what sets it back (modprobe.d, or who loads kvm).",
    ),
    Kind(
        id="kvm-no-keyids",
        severity=Severity.ERROR,
        sentence="kvm_intel was loaded with tdx=1, and the kernel has no private KeyIDs for it",
        meaning="TDX is off in the BIOS, or the kernel refused to activate it earlier in the log.",
        advice="Turn TDX on in the BIOS; look for virt/tdx lines early in the boot.",
        versions="6.16 to 7.0; from 7.1 'TDX not supported by the host platform'",
        citations=(KVM_OLD, CORE_71),
        certainty=Certainty.VERIFIED,
        pattern=r"kvm_intel: (?:(?:tdx: )?no TDX private KeyIDs available"
        r"|TDX not supported by the host platform)",
        samples=(
            "kvm_intel: tdx: no TDX private KeyIDs available",
            "kvm_intel: TDX not supported by the host platform",
        ),
        brings_up=True,
        cause=Cause.BRING_UP,
        rank=6,
    ),
    Kind(
        id="too-few-vcpus-per-td",
        severity=Severity.ERROR,
        sentence="kvm_intel refuses TDX: the module takes {most} vCPUs a TD, the host has {cpus} "
        "logical CPUs",
        meaning="KVM wants a TD to be able to have as many vCPUs as the host has CPUs.",
        advice="Upgrade the TDX module, or run the host with fewer logical CPUs.",
        versions="6.16 and later",
        citations=(KVM,),
        certainty=Certainty.VERIFIED,
        pattern=r"kvm_intel: Disable TDX: MAX_VCPU_PER_TD \((?P<most>\d{1,9})\) smaller than number of logical CPUs "
        r"\((?P<cpus>\d{1,9})\)",
        samples=(
            "kvm_intel: Disable TDX: MAX_VCPU_PER_TD (64) smaller than number of logical CPUs (224).",
        ),
        brings_up=True,
        cause=Cause.BRING_UP,
    ),
    Kind(
        id="not-enabled-by-bios",
        severity=Severity.ERROR,
        sentence="the kernel found TDX not enabled by the BIOS",
        meaning="A line of trees from before 6.8. Where the BIOS did reserve KeyIDs (a line before "
        "says so), the SEAM loader or the module is what is missing.",
        advice="Turn on TDX and the SEAM loader in the BIOS, and update it.",
        versions="5.x to 6.5 trees",
        citations=(CANONICAL_33,),
        certainty=Certainty.VERIFIED,
        pattern=r"tdx: (?:\[firmware bug\]: TDX is )?not enabled by BIOS",
        samples=(
            "tdx: not enabled by BIOS.",
            "tdx: [firmware bug]: TDX is not enabled by BIOS.",
        ),
        brings_up=True,
        cause=Cause.BRING_UP,
    ),
    Kind(
        id="no-tdx-platform",
        severity=Severity.NOTICE,
        sentence="the kernel calls this a TDX disabled platform",
        meaning="A line of trees from before 6.8: the CPU has no TDX, or the BIOS has it off.",
        advice="See whether the CPU has TDX at all, then the BIOS.",
        versions="5.x to 6.5 trees",
        citations=(TDX_TOOLS_234,),
        certainty=Certainty.VERIFIED,
        pattern=r"tdx: Cannot enable TDX on TDX disabled platform",
        samples=("tdx: Cannot enable TDX on TDX disabled platform",),
        brings_up=True,
    ),
    Kind(
        id="initialization-failed",
        severity=Severity.ERROR,
        sentence='TDX stays off: "{what}"',
        meaning="The kernel gave up on TDX; the reason is not one that is known here, or the line "
        "is cut.",
        advice="Look at the whole line in the log of the host; update the BIOS first.",
        versions="all",
        citations=(CORE,),
        certainty=Certainty.VERIFIED,
        pattern=r"(?:virt/)?tdx: initialization failed(?P<what>.{0,100})",
        samples=("virt/tdx: initialization failed: T",),
        turn=1,
        brings_up=True,
        cause=Cause.BRING_UP,
        rank=3,
    ),
    UNKNOWN_TDX_LINES,
    Kind(
        id="package-offline",
        severity=Severity.WARNING,
        sentence="a package had, or would have had, no online CPU",
        meaning="TDX needs a CPU online in every package, to create a TD and as long as one "
        "exists: keys are configured and caches flushed package by package.",
        advice="Bring a CPU of every package online; delete all TDs before taking a package down.",
        versions="kvm_intel: 6.16 to 7.0; virt/tdx: 7.1 and later",
        citations=(KVM,),
        certainty=Certainty.VERIFIED,
        pattern=r"(?:kvm_intel: |virt/tdx: )?(?:TDX requires all packages to have an online CPU"
        r"|All packages need to have online CPU to create TD)",
        samples=(
            "kvm_intel: All packages need to have online CPU to create TD. Online CPU and retry.",
            "virt/tdx: TDX requires all packages to have an online CPU. Delete all TDs in order to offline all CPUs of a package.",
            "TDX requires all packages to have an online CPU. Delete all TDs in order to offline all CPUs of a package.",
        ),
    ),
    BIOS_ON_NO_MODULE,
)
