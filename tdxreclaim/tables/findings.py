"""The catalogue of findings: one row each; what `findings` prints is what `triage` uses.

To add a finding: add its row with a source and how well that is known and, if
a kernel line tells it, the pattern of the message (what stands after the
stamps, from its first character) and a sample that it matches; then run
``pytest --accept`` and review the golden files.  A message is matched by at
most one row (tested on the samples), so their order means nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from tdxreclaim.tables.sources import Certainty, Citation


class Severity(StrEnum):
    """How bad a finding is, worst first; public: every format prints it."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"
    BENIGN = "benign"

    @property
    def counts(self) -> bool:
        """Whether it makes the exit status 20: something to act on."""
        return self in (Severity.CRITICAL, Severity.ERROR, Severity.WARNING)


class Kind(NamedTuple):
    """A row.  ``sentence`` has the pattern's groups and other facts in braces.

    ``pattern`` is matched against a kernel message from its beginning;
    ``None`` for what is found otherwise.  ``versions``: which kernels do or
    print it.
    """

    id: str
    severity: Severity
    sentence: str
    meaning: str
    advice: str
    versions: str
    citations: tuple[Citation, ...]
    certainty: Certainty
    pattern: str | None = None
    sample: str = ""


_V, _I, _U = Certainty.VERIFIED, Certainty.INFERRED, Certainty.UNVERIFIED


_CORE = Citation("linux v6.16-v7.1", "arch/x86/virt/vmx/tdx/tdx.c")


_KVM = Citation("linux v6.16-v7.1", "arch/x86/kvm/vmx/tdx.c")


_KVM_OLD = Citation("linux v6.16-v7.0", "arch/x86/kvm/vmx/tdx.c")


_CORE_71 = Citation("linux v7.1", "arch/x86/virt/vmx/tdx/tdx.c")


_KEXEC = Citation(
    "linux v6.18",
    'commit b18651f70ce0 ("Disable kexec/kdump on platforms with TDX partial write erratum")',
)


_DISABLE = Citation(
    "linux", 'commit 5b25f249be32 ("x86/tdx: Disable the TDX module during kexec and kdump")'
)


_MCE = Citation("linux v6.16-v7.1", "arch/x86/kernel/cpu/mce/core.c, mce_panic()")


_SEVERITY_C = Citation("linux v6.16-v7.1", "arch/x86/kernel/cpu/mce/severity.c")


_CANONICAL_149 = Citation("github.com/canonical/tdx", "issue 149")


_KATA = Citation("github.com/kata-containers/kata-containers", "issues 13564, 13641, 13665, 13666")


_SKIP = Citation(
    "linux v6.18",
    'commit 01fb93a363e0 ("x86/tdx: Skip clearing reclaimed pages unless X86_BUG_TDX_PW_MCE is '
    'present")',
)


_NUMBERS = Citation(
    "lore.kernel.org", "20250611095158.19398-1-adrian.hunter@intel.com and earlier versions"
)


_ADDRESS = Citation(
    "lore.kernel.org",
    "20250819162436.137625-2-adrian.hunter@intel.com (x86/mce: Fix missing address mask...)",
)


_HEX = r"0x[0-9a-fA-F]{1,16}"


_CALL = (
    r"(?:kvm_intel: )?SEAMCALL ?[(\[]?(?P<leaf>%s)[)\]]? failed: (?P<status>0x[0-9a-fA-F]{1,16})"
)


_RECLAIM_LEAF = r"0x0*1c|28|TDH_PHYMEM_PAGE_RECLAIM"


_TEARDOWN_LEAVES = (
    r"0x0*(?:7|12|13|14|1d|26|28|29)|7|18|19|20|29|38|40|41|TDH_MEM_PAGE_REMOVE|"
    r"TDH_MEM_RANGE_BLOCK|TDH_MEM_TRACK|TDH_PHYMEM_PAGE_WBINVD|TDH_PHYMEM_CACHE_WB|"
    r"TDH_MNG_VPFLUSHDONE|TDH_MNG_KEY_FREEID|TDH_VP_FLUSH"
)


_OTHER_LEAVES = rf"(?!(?:{_RECLAIM_LEAF}|{_TEARDOWN_LEAVES})\b)(?:{_HEX}|\d{{1,5}}|TDH_[A-Z_.]+)"


# "WARNING: CPU: 1 PID: 2 at FILE:LINE FUNCTION+0x.."; newer "WARNING: FILE:LINE at FUNCTION+".
_WARNING = (
    r"WARNING: (?:CPU: \d+ PID: \d+ at )?arch/x86/(?:kvm/vmx|virt/vmx/tdx)/tdx\.c:(?P<line>\d+)"
    r"(?: at)? (?P<function>%s)(?:\.[\w.]+)?\+0x"
)


_TEARDOWN_FUNCTIONS = (
    "(?:__tdx_reclaim_page|tdx_reclaim_\\w+|tdx_sept_remove_private_spte"
    "|tdx_sept_drop_private_spte|tdx_sept_zap_private_spte|tdx_sept_free_private_spt|tdx_track"
    "|tdx_mmu_release_hkid|tdx_flush_vp\\w*|tdx_hkid_free|tdx_vm_destroy|tdx_vcpu_free"
    "|smp_func_do_phymem_cache_wb|tdh_phymem_\\w+|tdh_mem_page_remove|tdh_mem_range_block"
    "|tdh_mem_track|tdh_mng_vpflushdone|tdh_mng_key_freeid|tdh_vp_flush)"
)


CATALOGUE = (
    # What the host is, from its facts: the posture of `check`.
    Kind(
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
        citations=(_SKIP,),
        certainty=_V,
    ),
    Kind(
        id="at-risk",
        severity=Severity.CRITICAL,
        sentence="this CPU needs reclaimed pages cleared, and the kernel does not clear them",
        meaning="A partial write to a page that was a TD's poisons a line of it; the next read is "
        "a machine check.",
        advice="See tdxreclaim check for this host; do not run TDs on it until that is settled.",
        versions="no upstream release",
        citations=(_SKIP,),
        certainty=_V,
    ),
    Kind(
        id="tdx-idle",
        severity=Severity.NOTICE,
        sentence="TDX is not active on this host: {because}",
        meaning="No TD can run, so no shutdown here can be slow because of TDX.",
        advice="Look for another reason; see the other findings if TDX should be active.",
        versions="all",
        citations=(_CORE,),
        certainty=_V,
    ),
    Kind(
        id="not-a-tdx-host",
        severity=Severity.NOTICE,
        sentence="this is no TDX host: {because}",
        meaning="There are no TDX pages to reclaim; whatever is slow here, it is not TDX reclaim.",
        advice="Look for another reason, or give the facts of the host that ran the TD.",
        versions="all",
        citations=(_CORE,),
        certainty=_V,
    ),
    Kind(
        id="kernel-unknown",
        severity=Severity.NOTICE,
        sentence="what this kernel does with reclaimed pages is not known: {because}",
        meaning="A distribution's version does not tell what was backported.",
        advice="Look in the host's /proc/kallsyms (no root needed): tdx_clear_page or "
        "reset_tdx_pages means that it clears on every CPU, tdx_quirk_reset_page or "
        "tdx_quirk_reset_paddr that it clears on affected CPUs alone.",
        versions="distribution kernels",
        citations=(_SKIP,),
        certainty=_V,
    ),
    Kind(
        id="kvm-tdx-off",
        severity=Severity.ERROR,
        sentence="kvm_intel runs with tdx=N although TDX is on in the BIOS",
        meaning="KVM does not offer TDs: the parameter is off by default, and is set back to N "
        "when the bring-up fails.",
        advice="Load kvm_intel with tdx=1 (kvm_intel.tdx=1 on the kernel's command line); if it "
        "was, the kernel log says why the bring-up failed.",
        versions="6.16 and later",
        citations=(_KVM,),
        certainty=_V,
    ),
    Kind(
        id="bios-on-no-module",
        severity=Severity.ERROR,
        sentence="TDX is on in the BIOS, and the log of that boot says nothing of the TDX module",
        meaning="Up to 7.0 the module is brought up when kvm_intel loads with tdx=1, so most "
        "likely it never did; from 7.1 the core does it at boot, and one of its lines is missing.",
        advice="Load kvm_intel with tdx=1 (up to 7.0); look whether the log is whole.",
        versions="up to 7.0; later a log that is cut",
        citations=(_CORE, _KVM_OLD),
        certainty=_I,
    ),
    Kind(
        id="no-kdump",
        severity=Severity.WARNING,
        sentence="this host can have no kdump: {because}",
        meaning="Known from CPU, kernel and TDX state; the log that was given has no refusal in it, "
        "which is printed once, when an image is loaded.",
        advice="Do not count on a crash dump: take dumps another way, or turn TDX off in the BIOS.",
        versions="6.18 to 7.1",
        citations=(_KEXEC,),
        certainty=_V,
    ),
    # Bring-up, line by line.
    Kind(
        id="tdx-on-in-bios",
        severity=Severity.NOTICE,
        sentence="TDX is on in the BIOS, with {keyids} private KeyIDs",
        meaning="It does not mean that the TDX module is loaded or initialised.",
        advice="Nothing to do.",
        versions="6.8 and later",
        citations=(_CORE,),
        certainty=_V,
        pattern=r"virt/tdx: BIOS enabled: private KeyID range:? \[(?P<first>\d{1,9}), (?P<last>\d{1,9})\)",
        sample="virt/tdx: BIOS enabled: private KeyID range [64, 128)",
    ),
    Kind(
        id="module-initialized",
        severity=Severity.NOTICE,
        sentence="the TDX module is initialised",
        meaning="TDs can run, if kvm_intel has tdx=Y.",
        advice="Nothing to do.",
        versions="up to 7.0 when kvm_intel loads with tdx=1; from 7.1 at boot",
        citations=(_CORE, _CORE_71),
        certainty=_V,
        pattern=r"virt/tdx: (?:TDX-Module|module) initialized",
        sample="virt/tdx: module initialized",
    ),
    Kind(
        id="module-details",
        severity=Severity.NOTICE,
        sentence="the TDX module's bring-up: {what}",
        meaning="Part of a bring-up that goes as it should.",
        advice="Nothing to do.",
        versions="PAMT: all; module version: 7.1 and later",
        citations=(_CORE, _CORE_71),
        certainty=_V,
        pattern=r"virt/tdx: (?P<what>\d{1,12} KBs? allocated for PAMT|Module version: \d[\d.]*)",
        sample="virt/tdx: 1050636 KB allocated for PAMT",
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
        citations=(_CANONICAL_149,),
        certainty=_V,
        pattern=r"virt/tdx: (?:TDX module: attributes |CMR: \[)",
        sample="virt/tdx: TDX module: attributes 0x0, vendor_id 0x8086, major_version 1, "
        "minor_version 5, build_date 20240129, build_num 698",
    ),
    Kind(
        id="s3-disabled",
        severity=Severity.BENIGN,
        sentence="ACPI S3 (suspend to RAM) is off because TDX is on",
        meaning="Benign: a sign that the kernel has activated TDX.",
        advice="Nothing to do; turn TDX off in the BIOS where S3 is needed.",
        versions="6.16 to 7.1 at least",
        citations=(_CORE,),
        certainty=_V,
        pattern=r"virt/tdx: Disable ACPI S3\. ",
        sample="virt/tdx: Disable ACPI S3. Turn off TDX in the BIOS to use ACPI S3.",
    ),
    Kind(
        id="host-platform-unsupported",
        severity=Severity.BENIGN,
        sentence='"TDX not supported by the host platform" is printed on every machine without TDX',
        meaning="Benign where TDX is not wanted: 7.1 and later print it on every machine that is "
        "no TDX host, AMD's included. Where TDX is wanted, it is off in the BIOS.",
        advice="Nothing to do, or turn TDX on in the BIOS.",
        versions="7.1 and later",
        citations=(_CORE_71,),
        certainty=_V,
        pattern=r"virt/tdx: TDX not supported by the host platform",
        sample="virt/tdx: TDX not supported by the host platform",
    ),
    Kind(
        id="too-few-keyids",
        severity=Severity.ERROR,
        sentence="TDX stays off: fewer than two private KeyIDs",
        meaning="The module takes one for itself, so none would be left for a TD. tdx_pw_mce is "
        "not set either, whatever the CPU.",
        advice="Give TDX more KeyIDs in the BIOS (the split between MKTME and TDX).",
        versions="all",
        citations=(_CORE,),
        certainty=_V,
        pattern=r"virt/tdx: initialization failed: too few private KeyIDs available",
        sample="virt/tdx: initialization failed: too few private KeyIDs available.",
    ),
    Kind(
        id="hibernation-blocks-tdx",
        severity=Severity.ERROR,
        sentence="TDX stays off: the kernel supports hibernation",
        meaning="The kernel refuses TDX while hibernation is possible. tdx_pw_mce is not set "
        "either, whatever the CPU.",
        advice="Boot with nohibernate.",
        versions="6.16 to 7.1 at least",
        citations=(_CORE,),
        certainty=_V,
        pattern=r"virt/tdx: initialization failed: Hibernation support is enabled",
        sample="virt/tdx: initialization failed: Hibernation support is enabled",
    ),
    Kind(
        id="memory-notifier-failed",
        severity=Severity.ERROR,
        sentence="TDX stays off: register_memory_notifier() failed ({errno})",
        meaning="The kernel could not watch memory hotplug.",
        advice="Report it to the kernel's maintainers.",
        versions="all",
        citations=(_CORE,),
        certainty=_V,
        pattern=r"virt/tdx: initialization failed: register_memory_notifier\(\) failed \((?P<errno>-?\d{1,5})\)",
        sample="virt/tdx: initialization failed: register_memory_notifier() failed (-12)",
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
        citations=(_CORE,),
        certainty=_V,
        pattern=r"virt/tdx: module not loaded",
        sample="virt/tdx: module not loaded",
    ),
    Kind(
        id="module-init-failed",
        severity=Severity.ERROR,
        sentence="the TDX module was not initialised (error {errno})",
        meaning="No TD can run in this boot. The lines before say at which SEAMCALL it failed.",
        advice="See the other findings of this boot; check that BIOS and TDX module fit together.",
        versions="up to 7.0 as 'module', from 7.1 as 'TDX-Module'",
        citations=(_CORE, _CORE_71),
        certainty=_V,
        pattern=r"virt/tdx: (?:TDX-Module|module) initialization failed \((?P<errno>-?\d{1,5})\)",
        sample="virt/tdx: module initialization failed (-5)",
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
        certainty=_I,
        pattern=r"kvm_intel: Failed to initialize TDX module",
        sample="kvm_intel: Failed to initialize TDX module.",
    ),
    Kind(
        id="rbp-clobber",
        severity=Severity.ERROR,
        sentence="the TDX module overwrites the frame pointer, and the kernel refuses it",
        meaning="It lacks TDX_FEATURES0 bit 18, which every module since 1.5.01 has.",
        advice="Upgrade the TDX module.",
        versions="6.16 and later",
        citations=(_CORE,),
        certainty=_V,
        pattern=r"virt/tdx: frame pointer \(RBP\) clobber bug present",
        sample="virt/tdx: frame pointer (RBP) clobber bug present, upgrade TDX module",
    ),
    Kind(
        id="tdmr-limits",
        severity=Severity.ERROR,
        sentence="the memory does not fit into the module's regions: {what}",
        meaning="The TDX module takes a limited number of memory regions and holes in them.",
        advice="Report it with the kernel's memory map (the e820 lines of its log).",
        versions="all",
        citations=(_CORE,),
        certainty=_V,
        pattern=r"virt/tdx: (?P<what>(?:initialization failed: )?(?:TDMRs exhausted|TDMR \[[^\]\n]{1,60}\): reserved "
        r"areas exhausted|consumed TDMRs reaching limit: \d+ used out of \d+))",
        sample="virt/tdx: initialization failed: TDMRs exhausted.",
    ),
    Kind(
        id="pamt-on-node-0",
        severity=Severity.NOTICE,
        sentence="PAMT memory was taken from NUMA node 0 for want of a local one",
        meaning="The module's per-page metadata is farther away than it could be.",
        advice="Nothing to do for correctness.",
        versions="all",
        citations=(_CORE,),
        certainty=_V,
        pattern=r"virt/tdx: .{0,100}unable to find local NUMA node for PAMT allocation",
        sample="virt/tdx: TDMR [0x100000, 0x40000000): unable to find local NUMA node for PAMT "
        "allocation, fallback to use node 0.",
    ),
    Kind(
        id="init-seamcall-failed",
        severity=Severity.ERROR,
        sentence="SEAMCALL {leaf} failed during the bring-up: {status}",
        meaning="The TDX module refused a step of its own initialisation.",
        advice="Check that BIOS, P-SEAMLDR and TDX module fit together; report it with these lines.",
        versions="all",
        citations=(_CORE,),
        certainty=_V,
        pattern=rf"virt/tdx: SEAMCALL ?[(\[]?(?P<leaf>{_HEX}|\d{{1,5}})[)\]]? failed: (?P<status>{_HEX})",
        sample="virt/tdx: SEAMCALL (0x0000000000000022) failed: 0xc000050500000000",
    ),
    Kind(
        id="host-requirement-missing",
        severity=Severity.ERROR,
        sentence="TDX needs something that this host does not give: {what}",
        meaning="A TDX CPU has it, so most likely it is switched off: by the BIOS or a parameter of "
        "the kernel or of KVM.",
        advice="Switch on what is named (kvm_intel.ept, kvm.tdp_mmu, kvm_intel.enable_apicv, ...).",
        versions="kvm_intel: 6.16 and later; virt/tdx: 7.1 and later",
        citations=(_KVM, _CORE_71),
        certainty=_V,
        pattern=r"(?:virt/tdx|kvm_intel): (?:tdx: )?(?P<what>(?:EPT|TDP MMU and MMIO caching and EPT A/D bit|APICv"
        r"|OSXSAVE|XSAVE|MOVDIR64B|Self-snoop) (?:is|are) required for TDX)",
        sample="kvm_intel: tdx: MOVDIR64B is required for TDX",
    ),
    Kind(
        id="tdp-mmu-needed",
        severity=Severity.WARNING,
        sentence="a TD could not be created: KVM's TDP MMU is off",
        meaning="A line of kernels from before KVM TDX was merged.",
        advice="Load kvm with tdp_mmu=Y.",
        versions="pre-upstream trees",
        citations=(Citation("a captured kernel log", "TDX requires TDP MMU."),),
        certainty=_I,
        pattern=r"(?:kvm_intel: )?TDX requires TDP MMU\.",
        sample="TDX requires TDP MMU.  Please enable TDP MMU for TDX.",
    ),
    Kind(
        id="virt-at-load-off",
        severity=Severity.ERROR,
        sentence="kvm_intel refuses TDX: kvm.enable_virt_at_load is 0",
        meaning="TDX needs virtualization switched on while the module is loaded.",
        advice="Load kvm with enable_virt_at_load=1.",
        versions="6.16 to 7.0",
        citations=(_KVM_OLD,),
        certainty=_V,
        pattern=r"kvm_intel: (?:tdx: )?tdx requires kvm\.enable_virt_at_load=1",
        sample="kvm_intel: tdx: tdx requires kvm.enable_virt_at_load=1",
    ),
    Kind(
        id="kvm-no-keyids",
        severity=Severity.ERROR,
        sentence="kvm_intel was loaded with tdx=1, and the kernel has no private KeyIDs for it",
        meaning="TDX is off in the BIOS, or the kernel refused to activate it earlier in the log.",
        advice="Turn TDX on in the BIOS; look for virt/tdx lines early in the boot.",
        versions="6.16 to 7.0; from 7.1 'TDX not supported by the host platform'",
        citations=(_KVM_OLD, _CORE_71),
        certainty=_V,
        pattern=r"kvm_intel: (?:(?:tdx: )?no TDX private KeyIDs available"
        r"|TDX not supported by the host platform)",
        sample="kvm_intel: tdx: no TDX private KeyIDs available",
    ),
    Kind(
        id="too-few-vcpus-per-td",
        severity=Severity.ERROR,
        sentence="kvm_intel refuses TDX: the module takes {most} vCPUs a TD, the host has {cpus} "
        "logical CPUs",
        meaning="KVM wants a TD to be able to have as many vCPUs as the host has CPUs.",
        advice="Upgrade the TDX module, or run the host with fewer logical CPUs.",
        versions="6.16 and later",
        citations=(_KVM,),
        certainty=_V,
        pattern=r"kvm_intel: Disable TDX: MAX_VCPU_PER_TD \((?P<most>\d{1,9})\) smaller than number of logical CPUs "
        r"\((?P<cpus>\d{1,9})\)",
        sample="kvm_intel: Disable TDX: MAX_VCPU_PER_TD (64) smaller than number of logical CPUs (224).",
    ),
    Kind(
        id="package-offline",
        severity=Severity.WARNING,
        sentence="a package had, or would have had, no online CPU",
        meaning="TDX needs a CPU online in every package, to create a TD and as long as one "
        "exists: keys are configured and caches flushed package by package.",
        advice="Bring a CPU of every package online; delete all TDs before taking a package down.",
        versions="6.16 and later",
        citations=(_KVM,),
        certainty=_V,
        pattern=r"(?:kvm_intel: |virt/tdx: )?(?:TDX requires all packages to have an online CPU"
        r"|All packages need to have online CPU to create TD)",
        sample="kvm_intel: All packages need to have online CPU to create TD. Online CPU and retry.",
    ),
    # The reclaim path.
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
        citations=(_KVM, _CANONICAL_149),
        certainty=_V,
        pattern=_CALL % _RECLAIM_LEAF,
        sample="SEAMCALL (0x000000000000001c) failed: 0xc000030000000001 RCX 0x0000000000000000",
    ),
    Kind(
        id="teardown-seamcall-failed",
        severity=Severity.CRITICAL,
        sentence="{leaf} failed in a teardown: {status}",
        meaning="The page, or with the HKID steps the whole TD, is not given back: leaked until "
        "the next reboot. A TD that a machine check made FATAL fails so, page by page.",
        advice="Look for a machine check before it; report it with the lines around it.",
        versions="6.16 and later by name; earlier trees by number",
        citations=(_KVM,),
        certainty=_V,
        pattern=_CALL % _TEARDOWN_LEAVES,
        sample="kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0x8000020000000092, rcx 0x0, rdx, 0x0, r8 0x0",
    ),
    Kind(
        id="seamcall-failed",
        severity=Severity.WARNING,
        sentence="{leaf} failed: {status}",
        meaning="Not a step of the teardown; a TD could not be built or run.",
        advice="Report it with the lines around it if TDs fail.",
        versions="all",
        citations=(_KVM,),
        certainty=_V,
        pattern=_CALL % _OTHER_LEAVES,
        sample="kvm_intel: SEAMCALL TDH_MEM_PAGE_AUG failed: 0x8000020000000092",
    ),
    Kind(
        id="hkid-leaked",
        severity=Severity.CRITICAL,
        sentence="HKID {hkid} is leaked: {function}() failed",
        meaning="The TD's key and all its control pages stay taken until the next reboot; when "
        "the KeyIDs run out, no TD can start.",
        advice="Compare misc.current with misc.capacity for what is left; report it; reboot.",
        versions="6.16 and later",
        citations=(_KVM,),
        certainty=_V,
        pattern=r"(?:kvm_intel: )?(?P<function>tdh_mng_vpflushdone|tdh_mng_key_freeid)\(\) failed\. HKID "
        r"(?P<hkid>\d{1,9}) is leaked",
        sample="kvm_intel: tdh_mng_key_freeid() failed. HKID 65 is leaked.",
    ),
    Kind(
        id="reclaim-warning",
        severity=Severity.CRITICAL,
        sentence="the kernel warned in the reclaim path, in {function}() (tdx.c:{line})",
        meaning="A step of a teardown failed that must not fail; the pages concerned are leaked "
        "until the next reboot. RAX in the registers that follow is the module's answer.",
        advice="Report it with the whole warning; reboot when leaked memory matters.",
        versions="all; seen on 6.8.0-1004-intel",
        citations=(_CANONICAL_149, _KVM),
        certainty=_V,
        pattern=_WARNING % _TEARDOWN_FUNCTIONS,
        sample="WARNING: CPU: 3 PID: 999 at arch/x86/kvm/vmx/tdx.c:275 __tdx_reclaim_page+0x7a/0xa0 [kvm_intel]",
    ),
    Kind(
        id="tdx-warning",
        severity=Severity.WARNING,
        sentence="the kernel warned in TDX code outside the reclaim path, in {function}() "
        "(tdx.c:{line})",
        meaning="Not a step of a teardown, so no reason for a slow shutdown by itself.",
        advice="Report it with the whole warning if TDs fail.",
        versions="all",
        citations=(_KVM,),
        certainty=_V,
        pattern=_WARNING % rf"(?!{_TEARDOWN_FUNCTIONS}[.+])\w+",
        sample="WARNING: CPU: 131 PID: 34217 at arch/x86/kvm/vmx/tdx.c:1494 tdx_mem_page_aug+0x102/0x1d0 [kvm_intel]",
    ),
    # kexec.
    Kind(
        id="kexec-refused",
        severity=Severity.WARNING,
        sentence="kexec was refused because of tdx_pw_mce, so this host has no kdump",
        meaning="On an affected CPU with TDX on in the BIOS, 6.18 to 7.1 refuse to load any kexec "
        "or kdump image, even if no TD ever ran and with kvm_intel.tdx=0.",
        advice="Do not count on a crash dump: take dumps another way, or turn TDX off in the BIOS. "
        "7.2 lifts the refusal and relies on TDH.SYS.DISABLE, which needs a new TDX module.",
        versions="6.18 to 7.1",
        citations=(_KEXEC,),
        certainty=_V,
        pattern=r"kexec: Not allowed on platform with tdx_pw_mce bug",
        sample="kexec: Not allowed on platform with tdx_pw_mce bug",
    ),
    Kind(
        id="sys-disable-failed",
        severity=Severity.ERROR,
        sentence="TDH.SYS.DISABLE failed on the way into a kexec: {status}",
        meaning="The TDX module kept its memory, and poison of partial writes may be left in it.",
        advice="Upgrade the TDX module; on an affected CPU reboot instead of kexec.",
        versions="7.2 and later",
        citations=(_DISABLE,),
        certainty=_I,
        pattern=rf"virt/tdx: TDH\.SYS\.DISABLE failed: (?P<status>{_HEX})",
        sample="virt/tdx: TDH.SYS.DISABLE failed: 0xc000010000000000",
    ),
    # Machine checks.
    Kind(
        id="private-memory-machine-check",
        severity=Severity.CRITICAL,
        sentence="a machine check on TDX private memory",
        meaning="The kernel found that the bad address was a TD's page: poison by a partial write "
        "is likely, and a kernel bug behind it possible.",
        advice="Report it with all lines of the machine check and the kernel version.",
        versions="6.8 and later, on a CPU with tdx_pw_mce",
        citations=(_MCE,),
        certainty=_V,
        pattern=r"(?:mce: )?\[Hardware Error\]: (?:Machine check: )?TDX private memory error\. "
        r"Possible kernel bug",
        sample="mce: [Hardware Error]: Machine check: TDX private memory error. Possible kernel bug.",
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
        citations=(_SEVERITY_C, _ADDRESS),
        certainty=_V,
        pattern=r"(?:mce: )?\[Hardware Error\]: (?:Machine check: )?"
        r"(?P<what>(?:Data load|Instruction fetch) error in SEAM non-root mode)",
        sample="mce: [Hardware Error]: Machine check: Data load error in SEAM non-root mode",
    ),
    Kind(
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
        citations=(_ADDRESS, _MCE),
        certainty=_I,
        pattern=r"(?:mce: )?\[Hardware Error\]: CPU \d+: Machine Check(?: Exception|: \d| Event)?",
        sample="mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 1: bd80000000100134",
    ),
    # Stuck processes.
    Kind(
        id="stuck-guest-pages",
        severity=Severity.WARNING,
        sentence="{task} ({pid}) was {why} while it gave a TD's pages back (phase A, guest pages: {function})",
        meaning="Most likely it is at work and not dead (no such stack of a real host was seen): "
        "page by page, one thread, 4 KiB each, which takes minutes for a large TD. It holds kvm->slots_lock and the lock of guest_memfd all the "
        "while, and mmu_lock for writing page by page; whoever wants these waits and may be "
        "reported as hung.",
        advice="Wait, and raise what gives up earlier (systemd's, libvirt's, containerd's and "
        "kubelet's timeouts). Do not expect SIGKILL to help: it is only seen at the end.",
        versions="6.16 and later",
        citations=(
            Citation("linux v6.16-v7.1", "virt/kvm/guest_memfd.c, kvm_gmem_release()"),
            _KVM,
        ),
        certainty=_I,
    ),
    Kind(
        id="stuck-hkid",
        severity=Severity.WARNING,
        sentence="{task} ({pid}) was {why} while it released a TD's HKID (phase B: {function})",
        meaning="Caches are flushed on every package under tdx_lock, which every TD that is "
        "destroyed on the host needs: they wait for each other. The emulator takes it for "
        "milliseconds (assumed), so a long stay here is not the usual slow shutdown.",
        advice="Look which other TDs were shut down at the same time, and for failed SEAMCALLs.",
        versions="6.16 and later",
        citations=(_KVM,),
        certainty=_I,
    ),
    Kind(
        id="stuck-control-pages",
        severity=Severity.WARNING,
        sentence="{task} ({pid}) was {why} while it gave a TD's control pages back (phase C: {function})",
        meaning="Most likely it is at work and not dead: vCPU, Secure-EPT and control pages, about 1/512 of the "
        "guest's. The TD's HKID is free already, and tdx_lock with it.",
        advice="Wait; a long stay here is not the usual slow shutdown.",
        versions="6.16 and later",
        citations=(_KVM,),
        certainty=_I,
    ),
    Kind(
        id="stuck-on-lock",
        severity=Severity.WARNING,
        sentence="{task} ({pid}) was {why} waiting for a lock of KVM in {function}",
        meaning="It waits and does nothing itself. While a TD's pages are given back, "
        "kvm->slots_lock and the lock of its guest_memfd are held throughout: this is what a "
        "thread of the same VM looks like then.",
        advice="Look for the process that holds the lock (a stack with kvm_gmem_release); it goes "
        "on when that one is through.",
        versions="6.16 and later",
        citations=(_KVM,),
        certainty=_I,
    ),
    Kind(
        id="stuck-elsewhere",
        severity=Severity.NOTICE,
        sentence="{task} ({pid}) was {why} in {function}, and nothing in its stack is TDX reclaim",
        meaning="Not a TD's shutdown as far as the stack tells.",
        advice="Look for the reason there.",
        versions="all",
        citations=(_KATA,),
        certainty=_V,
    ),
    Kind(
        id="not-killable",
        severity=Severity.WARNING,
        sentence="libvirt could not kill {process}: it did not end after SIGKILL",
        meaning="A process inside the kernel sees SIGKILL only when it comes out. That fits a TD "
        "whose pages are being given back, and anything else that keeps a process in the kernel.",
        advice="Look at the process's stack (/proc/PID/stack) for kvm_gmem_release: with it, wait.",
        versions="all",
        citations=(_KATA,),
        certainty=_I,
        pattern=r"Failed to terminate process (?P<process>\d{1,9}|\S{1,60}) with SIGKILL: Device or resource busy",
        sample="Failed to terminate process 4711 with SIGKILL: Device or resource busy",
    ),
    # Time.
    Kind(
        id="time-expected",
        severity=Severity.NOTICE,
        sentence="such a TD is expected to take {expected} to shut down here",
        meaning="By the emulator, for this host's CPU, kernel and order; all of the TD's memory "
        "counted as private.",
        advice="Compare it with what was observed (--observed).",
        versions="as the kernel that is named",
        citations=(_NUMBERS,),
        certainty=_I,
    ),
    Kind(
        id="time-fits",
        severity=Severity.WARNING,
        sentence="the observed {observed} fits the upstream order of giving pages back, for which "
        "{expected} is expected",
        meaning="The time goes into taking the pages back one by one; that is how every upstream "
        "release does it.",
        advice="Give the TD less memory or fewer vCPUs, or raise the timeouts. What would change it "
        "is an order that releases the HKID first, which no release has.",
        versions="6.16 and later",
        citations=(_NUMBERS,),
        certainty=_I,
    ),
    Kind(
        id="time-too-short",
        severity=Severity.NOTICE,
        sentence="the observed {observed} is less than the {expected} expected of giving all pages "
        "back",
        meaning="Not all of the TD's memory was private and mapped, or the hardware is faster "
        "than that of the published times.",
        advice="Nothing to do: it is faster than expected.",
        versions="6.16 and later",
        citations=(_NUMBERS,),
        certainty=_I,
    ),
    Kind(
        id="time-too-long",
        severity=Severity.WARNING,
        sentence="the observed {observed} is more than the {expected} that giving pages back "
        "explains: this is not reclaim alone",
        meaning="Something else takes the rest: waiting for another TD's teardown (tdx_lock), "
        "a stop that was never sent, a guest that takes its time to shut down.",
        advice="Find out when QEMU got its signal and when it was gone; look for other TDs that "
        "were shut down at the same time.",
        versions="6.16 and later",
        citations=(_NUMBERS, _KATA),
        certainty=_I,
    ),
    Kind(
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
        citations=(_KATA, _NUMBERS),
        certainty=_I,
    ),
    Kind(
        id="time-not-reclaim",
        severity=Severity.WARNING,
        sentence="the observed {observed} is not TDX reclaim: {because}",
        meaning="Where no TD can run, no TD can be slow to shut down.",
        advice="Look for another reason, or give the facts of the host that ran the TD.",
        versions="all",
        citations=(_CORE,),
        certainty=_V,
    ),
)


def find_kind(kind_id: str) -> Kind | None:
    """Return the row of that id."""
    return next((kind for kind in CATALOGUE if kind.id == kind_id), None)


def kind_of(kind_id: str) -> Kind:
    """Return the row of an id that the code names itself.

    Raises:
        KeyError: there is no such row.

    """
    return _BY_ID[kind_id]


_BY_ID = {kind.id: kind for kind in CATALOGUE}
