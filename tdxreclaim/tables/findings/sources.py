"""Where the findings come from, as far as several share it."""

from __future__ import annotations

from tdxreclaim.tables.sources import Citation

CORE = Citation("linux v6.16-v7.1", "arch/x86/virt/vmx/tdx/tdx.c")


KVM = Citation("linux v6.16-v7.1", "arch/x86/kvm/vmx/tdx.c")


KVM_OLD = Citation("linux v6.16-v7.0", "arch/x86/kvm/vmx/tdx.c")


CORE_71 = Citation("linux v7.1", "arch/x86/virt/vmx/tdx/tdx.c")


KEXEC = Citation(
    "linux v6.18",
    'commit b18651f70ce0 ("Disable kexec/kdump on platforms with TDX partial write erratum")',
)


DISABLE = Citation(
    "linux", 'commit 5b25f249be32 ("x86/tdx: Disable the TDX module during kexec and kdump")'
)


MCE = Citation("linux v6.16-v7.1", "arch/x86/kernel/cpu/mce/core.c, mce_panic()")


SEVERITY_C = Citation("linux v6.16-v7.1", "arch/x86/kernel/cpu/mce/severity.c")


CANONICAL_149 = Citation("github.com/canonical/tdx", "issue 149")


KATA = Citation("github.com/kata-containers/kata-containers", "issues 13564, 13641, 13665, 13666")


SKIP = Citation(
    "linux v6.18",
    'commit 01fb93a363e0 ("x86/tdx: Skip clearing reclaimed pages unless X86_BUG_TDX_PW_MCE is '
    'present")',
)


NUMBERS = Citation(
    "lore.kernel.org", "20250611095158.19398-1-adrian.hunter@intel.com and earlier versions"
)


ADDRESS = Citation(
    "lore.kernel.org",
    "20250819162436.137625-2-adrian.hunter@intel.com (x86/mce: Fix missing address mask...)",
)


CANONICAL_33 = Citation("github.com/canonical/tdx", "issues 33, 102")


CANONICAL_161 = Citation("github.com/canonical/tdx", "issues 161, 331, 348")


TDX_TOOLS_234 = Citation("github.com/intel/tdx-tools", "issue 234")


NO_PIN = Citation(
    "linux v6.19",
    'commit ce7b5695397b: "a page being released from guest_memfd while still mapped in the S-EPT"',
)


PINNED = Citation("lore.kernel.org", "20250618120806.113884-1-adrian.hunter@intel.com")


SHUTDOWN = Citation("linux v7.2, v7.3.4", "arch/x86/virt/vmx/tdx/tdx.c, tdx_sys_disable()")


FLAG = Citation(
    "linux", 'commit 1e536e106897 ("x86/cpu: Detect TDX partial write machine check erratum")'
)
