"""The words of an answer: what each means and what it asks of the reader.

`explain` prints these rows; a test holds them to the enums and rules that
`check` prints.  Errata, findings, kernels, CPUs and statuses have tables of
their own.
"""

from __future__ import annotations

from typing import NamedTuple


class Word(NamedTuple):
    """A word: ``kind`` is the question that it answers, ``action`` may be empty."""

    id: str
    kind: str
    meaning: str
    action: str = ""


_VERDICT, _POSTURE, _RULE, _TERM = "verdict", "posture", "rule", "term"
_WATCHED = "watch state"
_SILICON, _STATE, _KERNEL, _KEXEC = "silicon", "TDX state", "kernel clearing", "kexec"

WORDS = (
    Word(
        "clear-required",
        _VERDICT,
        "A reclaimed TDX page must be overwritten with MOVDIR64B before it is reused. A page "
        "that is not can raise a machine check long after the TD is gone.",
        "Let the kernel clear; run no kernel that does not.",
    ),
    Word(
        "clear-not-required",
        _VERDICT,
        "A reclaimed page can be reused as it is: the evidence of the CPU's identity is whole, "
        "and no erratum affects it.",
        "If the kernel clears all the same, a kernel that skips it shortens a TD's shutdown.",
    ),
    Word(
        "undetermined",
        _VERDICT,
        "The evidence does not settle it. A careful host clears, so treat it as required.",
        "Supply what the output names as missing, then ask again.",
    ),
    Word(
        "not-applicable",
        _VERDICT,
        "This is not a TDX host, so it has no TDX page to clear. As a posture: nothing follows.",
    ),
    Word(
        "clears-as-required",
        _POSTURE,
        "Clearing is required, and the running kernel does it.",
        "Leave it alone. A newer kernel does not shorten the shutdown by skipping it.",
    ),
    Word(
        "clears-needlessly",
        _POSTURE,
        "Clearing is not required, and the running kernel does it all the same.",
        "A kernel that clears on affected CPUs alone (upstream 6.18 and later) saves that time.",
    ),
    Word(
        "skips-safely",
        _POSTURE,
        "Clearing is not required, and the running kernel does not do it.",
        "Nothing. If a TD is slow to shut down here, clearing is not the reason.",
    ),
    Word(
        "at-risk",
        _POSTURE,
        "Clearing is required, and the running kernel does not do it.",
        "Start no TD here, and reuse no page that one had, until a kernel runs that clears.",
    ),
    Word(
        "idle",
        _POSTURE,
        "TDX is not active under this kernel, so no private page can exist.",
        "Nothing, until TDX is turned on.",
    ),
    Word(
        "unknown",
        "any of them",
        "What was read does not tell. It is never a way to say no.",
        "The output names what would settle it.",
    ),
    Word("affected", _SILICON, "A processor is in the list of an erratum."),
    Word("not-affected", _SILICON, "Every processor is a TDX CPU that no erratum lists."),
    Word("no-tdx", _SILICON, "No processor can host TDs."),
    Word("guest", _STATE, "This is a virtual machine or a TD, not a host."),
    Word("off", _STATE, "The kernel has not activated TDX: no private page can exist under it."),
    Word(
        "bios-enabled",
        _STATE,
        "The BIOS has TDX on and the kernel accepted it. Nothing shows that the TDX module is up.",
    ),
    Word("initialized", _STATE, "The TDX module is up: this host can run TDs."),
    Word("clears-always", _KERNEL, "The kernel clears every reclaimed page, on every CPU."),
    Word(
        "clears-on-erratum",
        _KERNEL,
        "The kernel clears reclaimed pages only on a CPU on which it set tdx_pw_mce.",
    ),
    Word("no-tdx-host", _KERNEL, "The kernel cannot run TDs: too old, or built without."),
    Word("allowed", _KEXEC, "kexec and kdump work as on any host."),
    Word(
        "refused",
        _KEXEC,
        "The kernel refuses to load a kexec or kdump image on an affected CPU while the BIOS has "
        "TDX on, even if no TD ever ran.",
        "Take crash dumps another way, or turn TDX off in the BIOS where a dump matters more.",
    ),
    Word("not-built", _KEXEC, "The kernel is built with TDX host support or with kexec, not both."),
    Word(
        "allowed-after-disable",
        _KEXEC,
        "The kernel calls TDH.SYS.DISABLE before a kexec; a TDX module that lacks it leaves "
        "poison behind.",
    ),
    Word("TD", _TERM, "A TDX guest: a virtual machine whose private memory the host cannot read."),
    Word(
        "HKID",
        _TERM,
        "The private KeyID that is assigned to a TD; a leaked one is gone until reboot.",
    ),
    Word("KeyID", _TERM, "The number of a memory-encryption key; Linux itself uses KeyID 0."),
    Word(
        "PAMT", _TERM, "The TDX module's record of whose each page is; about 1/256 of the memory."
    ),
    Word("kdump", _TERM, "A crash dump by kexec into a second kernel; see refused and not-built."),
    Word(
        "MOVDIR64B",
        _TERM,
        "The instruction that writes a whole 64-byte line at once: what clearing is done with.",
    ),
    Word(
        "what-if",
        _TERM,
        "Parts of the facts were given on the command line, so the answer is about no real machine.",
    ),
    Word(
        "HKID first",
        _TERM,
        "The order that releases the HKID before the pages; faster, and in no release up to 7.3.4.",
    ),
    Word("identity-not-read", _TERM, "Evidence of the CPU was incomplete: no 0 and no 12."),
    Word("kernel-not-read", _TERM, "Evidence of the kernel could not be read."),
    Word("tdx-not-read", _TERM, "Evidence of the state of TDX could not be read."),
    Word("log-not-read", _TERM, "A kernel log could not be read, or not whole."),
    Word("verified", _TERM, "Read in a primary source, which is cited."),
    Word("inferred", _TERM, "Follows from what was read, and was not seen itself."),
    Word("unverified", _TERM, "Said by somebody, or assumed; no source was read."),
    Word(
        "contested", _TERM, "Sources that were read disagree; the worse is taken where it matters."
    ),
    Word(
        "critical", _TERM, "A finding that loses memory, keys or data, or crashes hosts: act now."
    ),
    Word("error", _TERM, "A finding that breaks something: act."),
    Word("warning", _TERM, "A finding to act on when there is time."),
    Word("notice", _TERM, "A finding that is good to know; nothing to do."),
    Word("benign", _TERM, "A line that looks bad and is not."),
    Word("live", _TERM, "Facts of this host, read now."),
    Word("captured", _TERM, "Facts of a host that were read there earlier."),
    Word("faked", _TERM, "Facts that were given on the command line."),
    Word(
        "together",
        _TERM,
        "All TDs of a drain are stopped at once; the one that takes longest counts.",
    ),
    Word(
        "one-by-one", _TERM, "The TDs of a drain are stopped one after another; their times add up."
    ),
    Word(
        "quantile",
        _TERM,
        "The time that so many percent of a sweep's trials are not above: of the plan's trials, "
        "which is no probability of a host.",
    ),
    Word(
        "drawn-together",
        _TERM,
        "Each trial of a sweep draws one place in the calibration's ranges, for all steps alike.",
    ),
    Word(
        "drawn-apart",
        _TERM,
        "Each trial of a sweep draws a place in each step's range; high and low steps make up for "
        "each other, so that the spread is narrower.",
    ),
    Word(
        "outside_timed",
        _TERM,
        "A TD of a sweep is larger or smaller than what its calibration timed.",
    ),
    Word("phase A", _TERM, "Guest pages: block, track, remove, write back and clear, one by one."),
    Word("phase B", _TERM, "Release of the HKID, under a lock of the whole host; milliseconds."),
    Word("phase C", _TERM, "Control and Secure-EPT pages, reclaimed one by one."),
    Word("not-x86", _RULE, "Another architecture. Not applicable."),
    Word(
        "kernel-flag",
        _RULE,
        "The kernel set tdx_pw_mce on a CPU that no table here lists. Required: the kernel's "
        "word counts.",
    ),
    Word(
        "guest-td",
        _RULE,
        "This is a TD. Not applicable; the CPU that it sees may be faked by the hypervisor.",
    ),
    Word(
        "guest-vm",
        _RULE,
        "This is a virtual machine. Not applicable; the CPU that it sees may be faked.",
    ),
    Word("cpu-unknown", _RULE, "A processor does not say what it is. Undetermined."),
    Word("cpu-unread", _RULE, "No processor was read at all. Undetermined."),
    Word("cpu-incomplete", _RULE, "A processor's vendor, family or model is missing."),
    Word(
        "module-contradicts",
        _RULE,
        "The TDX module is not made for the CPU: facts of two hosts. Undetermined.",
    ),
    Word(
        "vendor-unknown",
        _RULE,
        "The vendor is none that is known, and may be Intel's, garbled. Undetermined.",
    ),
    Word("vendors-differ", _RULE, "Two vendors in one machine: mixed facts. Undetermined."),
    Word("not-intel", _RULE, "Another vendor's CPU cannot host Intel TDs. Not applicable."),
    Word(
        "no-movdir64b",
        _RULE,
        "An Intel CPU in no table, without the instruction that TDX needs. Not applicable.",
    ),
    Word(
        "no-tdx-sign",
        _RULE,
        "An Intel CPU in no table, and no sign of TDX on the host. Not applicable.",
    ),
    Word("cpu-unlisted", _RULE, "An Intel CPU in no table, and nothing settles it. Undetermined."),
    Word(
        "kernel-closed-list",
        _RULE,
        "An Intel CPU in no table, on which the kernel activated TDX without setting tdx_pw_mce. "
        "Not required: the kernel's list of affected CPUs is closed. A kernel older than the CPU "
        "cannot list it, so a warning is given.",
    ),
    Word(
        "evidence-incomplete",
        _RULE,
        "Something that tells of the CPU was not read or not understood. Undetermined.",
    ),
    Word("no-erratum", _RULE, "A TDX CPU that no erratum lists. Not required."),
    Word("tdx-impossible", _RULE, "The CPU or the kernel cannot host TDs: TDX is off."),
    Word("tdx-initialized", _RULE, "A sign that only an initialized TDX module leaves was read."),
    Word("tdx-bios-enabled", _RULE, "The kernel accepted TDX from the BIOS."),
    Word("tdx-off", _RULE, "A sign that the kernel has not activated TDX was read."),
    Word("tdx-unknown", _RULE, "Nothing that was read tells whether TDX is active."),
    Word(
        "image-contradicts",
        _RULE,
        "The files of the kernel cannot be of one kernel, so they decide nothing.",
    ),
    Word(
        "image-no-tdx-host",
        _RULE,
        "The kernel's files show that it cannot run TDs: its configuration has no TDX host "
        "support, or kvm_intel makes no SEAMCALL.",
    ),
    Word(
        "image-clears-always",
        _RULE,
        "The kernel's files show code that clears on every CPU: kvm_intel has MOVDIR64B in its "
        "own code, or its core has no function that clears on the erratum.",
    ),
    Word(
        "image-clears-on-erratum",
        _RULE,
        "The kernel's files show code that clears only where tdx_pw_mce is set. Inferred from "
        "the names of functions: a backport of the names alone looks the same.",
    ),
    Word(
        "image-not-understood",
        _RULE,
        "The kernel's files have code for TDs of no tree that is known.",
    ),
    Word("symbols-contradict", _RULE, "The kernel's symbols contradict each other."),
    Word(
        "symbols-clear-always",
        _RULE,
        "The kernel's symbols show code that clears without asking for the erratum.",
    ),
    Word(
        "symbols-clear-on-erratum",
        _RULE,
        "The kernel's symbols show code that clears only where tdx_pw_mce is set.",
    ),
    Word(
        "symbols-no-tdx-host",
        _RULE,
        "The kernel's whole list of symbols has no SEAMCALL: it has no TDX host support.",
    ),
    Word("config-no-tdx-host", _RULE, "The kernel's configuration has no TDX host support."),
    Word("release-listed", _RULE, "The release is an upstream one, and a row of the table has it."),
    Word(
        "release-belied",
        _RULE,
        "The host shows TDX in use, which the upstream kernel of that release cannot do.",
    ),
    Word("release-newer-than-table", _RULE, "The release is newer than any that was read."),
    Word(
        "distribution-listed",
        _RULE,
        "The release has the form of a distribution's whose kernels are known (inferred).",
    ),
    Word(
        "release-not-upstream",
        _RULE,
        "A distribution's release: its number does not tell what was backported.",
    ),
    Word("kernel-unknown", _RULE, "Neither symbols nor a release were read."),
    Word(
        "running",
        _WATCHED,
        "The VM's mapped pages go up and down, or stand while its process lives: no shutdown.",
    ),
    Word(
        "counting-down",
        _WATCHED,
        "KVM takes the VM's pages back. Rate and time left are made of falling stretches alone.",
    ),
    Word(
        "standing",
        _WATCHED,
        "The counter should fall and does not. A zombie or a missing process is not done.",
        "Find who still holds a VM, vCPU or guest_memfd descriptor; look at the stacks of its "
        "process's tasks and at the kernel log.",
    ),
    Word(
        "zero",
        _WATCHED,
        "No page is mapped, and the VM is still there: a descriptor of it is open, or its end is "
        "under way. Its memory may still be allocated.",
        "If it lasts, find who still holds a descriptor.",
    ),
    Word(
        "gone-after-zero",
        _WATCHED,
        "All pages were taken back before the VM's folder went. HKID and control pages come "
        "after that and are not visible there.",
    ),
    Word(
        "gone-with-value",
        _WATCHED,
        "The VM's folder went while pages were in the counter: the rest was torn down out of "
        "sight, so that no rate follows.",
        "On 7.2 and later the pages may be ones whose removal failed: look at the kernel log.",
    ),
)
