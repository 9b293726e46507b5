"""The bring-up of TDX, line by line."""

from __future__ import annotations

from tdxreclaim.tables.findings.kind import SEAMCALL, Kind, Part, Severity
from tdxreclaim.tables.findings.sources import CANONICAL_149, CORE, CORE_71, KVM, KVM_OLD
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
    pattern=r"virt/tdx: BIOS enabled: private KeyID range:? \[(?P<first>\d{1,9}), (?P<last>\d{1,9})\)",
    samples=("virt/tdx: BIOS enabled: private KeyID range [64, 128)",),
)


BIOS_ON_NO_MODULE = Kind(
    id="bios-on-no-module",
    severity=Severity.ERROR,
    sentence="TDX is on in the BIOS, and the log of that boot says nothing of the TDX module",
    meaning="Up to 7.0 the module is brought up when kvm_intel loads with tdx=1, so most "
    "likely it never did; from 7.1 the core does it at boot, and one of its lines is missing.",
    advice="Load kvm_intel with tdx=1 (up to 7.0); look whether the log is whole.",
    versions="up to 7.0; later a log that is cut",
    citations=(CORE, KVM_OLD),
    certainty=Certainty.INFERRED,
)


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
        pattern=r"virt/tdx: (?:TDX-Module|module) initialized",
        samples=(
            "virt/tdx: module initialized",
            "virt/tdx: TDX-Module initialized",
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
        pattern=r"virt/tdx: (?P<what>\d{1,12} KBs? allocated for PAMT|Module version: \d[\d.]*)",
        samples=(
            "virt/tdx: 1050636 KB allocated for PAMT",
            "virt/tdx: Module version: 1.5.24",
        ),
        brings_up=True,
    ),
    Kind(
        id="out-of-tree-kernel",
        severity=Severity.NOTICE,
        sentence="a line that no upstream release prints: the kernel has an older TDX "
        "implementation of its own",
        meaning="Ubuntu's 6.8-intel and other trees from before KVM TDX was merged print it. What "
        "is said here of upstream releases need not hold; that they clear on every CPU is "
        "inferred from their age.",
        advice="Ask who made the kernel, or move to an upstream release (6.18 or later).",
        versions="Ubuntu 6.8-intel and other pre-upstream trees",
        citations=(CANONICAL_149,),
        certainty=Certainty.VERIFIED,
        pattern=r"virt/tdx: (?:TDX module: attributes |CMR: \[)",
        samples=(
            (
                "virt/tdx: TDX module: attributes 0x0, vendor_id 0x8086, major_version 1, "
                "minor_version 5, build_date 20240129, build_num 698"
            ),
            "virt/tdx: CMR: [0x100000, 0x77800000)",
        ),
        brings_up=True,
    ),
    Kind(
        id="s3-disabled",
        severity=Severity.BENIGN,
        sentence="ACPI S3 (suspend to RAM) is off because TDX is on",
        meaning="Benign: a sign that the kernel has activated TDX.",
        advice="Nothing to do; turn TDX off in the BIOS where S3 is needed.",
        versions="6.16 to 7.1 at least",
        citations=(CORE,),
        certainty=Certainty.VERIFIED,
        pattern=r"virt/tdx: Disable ACPI S3\. ",
        samples=("virt/tdx: Disable ACPI S3. Turn off TDX in the BIOS to use ACPI S3.",),
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
    ),
    Kind(
        id="hibernation-blocks-tdx",
        severity=Severity.ERROR,
        sentence="TDX stays off: the kernel supports hibernation",
        meaning="The kernel refuses TDX while hibernation is possible. tdx_pw_mce is not set "
        "either, whatever the CPU.",
        advice="Boot with nohibernate.",
        versions="6.16 to 7.1 at least",
        citations=(CORE,),
        certainty=Certainty.VERIFIED,
        pattern=r"virt/tdx: initialization failed: Hibernation support is enabled",
        samples=("virt/tdx: initialization failed: Hibernation support is enabled",),
        brings_up=True,
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
    ),
    Kind(
        id="module-not-loaded",
        severity=Severity.ERROR,
        sentence="no TDX module answers",
        meaning="The BIOS did not load one, or an error inside it shut TDX down for good until "
        "the next reboot.",
        advice="Early in the log: look for the module in the BIOS settings. Later, after TDs ran: "
        "look for machine checks before it, and reboot.",
        versions="all",
        citations=(CORE,),
        certainty=Certainty.VERIFIED,
        pattern=r"virt/tdx: module not loaded",
        samples=("virt/tdx: module not loaded",),
        brings_up=True,
    ),
    Kind(
        id="module-init-failed",
        severity=Severity.ERROR,
        sentence="the TDX module was not initialised (error {errno})",
        meaning="No TD can run in this boot. The lines before say at which SEAMCALL it failed.",
        advice="See the other findings of this boot; check that BIOS and TDX module fit together.",
        versions="up to 7.0 as 'module', from 7.1 as 'TDX-Module'",
        citations=(CORE, CORE_71),
        certainty=Certainty.VERIFIED,
        pattern=r"virt/tdx: (?:TDX-Module|module) initialization failed \((?P<errno>-?\d{1,5})\)",
        samples=(
            "virt/tdx: module initialization failed (-5)",
            "virt/tdx: TDX-Module initialization failed (-19)",
        ),
        brings_up=True,
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
        sentence="SEAMCALL {leaf} failed during the bring-up: {status}",
        meaning="The TDX module refused a step of its own initialisation.",
        advice="Check that BIOS, P-SEAMLDR and TDX module fit together; report it with these lines.",
        versions="all",
        citations=(CORE,),
        certainty=Certainty.VERIFIED,
        pattern=SEAMCALL,
        part=Part.BRING_UP,
        samples=(
            "virt/tdx: SEAMCALL (0x0000000000000022) failed: 0xc000050500000000",
            "virt/tdx: SEAMCALL (33) failed: 0xc000092100000122",
        ),
        brings_up=True,
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
    ),
    Kind(
        id="package-offline",
        severity=Severity.WARNING,
        sentence="a package had, or would have had, no online CPU",
        meaning="TDX needs a CPU online in every package, to create a TD and as long as one "
        "exists: keys are configured and caches flushed package by package.",
        advice="Bring a CPU of every package online; delete all TDs before taking a package down.",
        versions="6.16 and later",
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
