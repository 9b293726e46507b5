"""Processes that are stuck, or look so."""

from __future__ import annotations

from tdxreclaim.tables.findings.kind import Cause, Kind, Severity
from tdxreclaim.tables.findings.sources import KATA, KVM, SHUTDOWN
from tdxreclaim.tables.sources import Certainty, Citation

STUCK_GUEST_PAGES = Kind(
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
        KVM,
    ),
    certainty=Certainty.INFERRED,
    cause=Cause.STUCK,
)


STUCK_HKID = Kind(
    id="stuck-hkid",
    severity=Severity.WARNING,
    sentence="{task} ({pid}) was {why} while it released a TD's HKID (phase B: {function})",
    meaning="Caches are flushed on every package under tdx_lock, which every TD that is "
    "destroyed on the host needs: they wait for each other. The emulator takes it for "
    "milliseconds (assumed), so a long stay here is not the usual slow shutdown.",
    advice="Look which other TDs were shut down at the same time, and for failed SEAMCALLs.",
    versions="6.16 and later",
    citations=(KVM,),
    certainty=Certainty.INFERRED,
)


STUCK_CONTROL_PAGES = Kind(
    id="stuck-control-pages",
    severity=Severity.WARNING,
    sentence="{task} ({pid}) was {why} while it gave a TD's control pages back (phase C: {function})",
    meaning="Most likely it is at work and not dead: vCPU, Secure-EPT and control pages, about 1/512 of the "
    "guest's. The TD's HKID is free already, and tdx_lock with it.",
    advice="Wait; a long stay here is not the usual slow shutdown.",
    versions="6.16 and later",
    citations=(KVM,),
    certainty=Certainty.INFERRED,
)


STUCK_ON_LOCK = Kind(
    id="stuck-on-lock",
    severity=Severity.WARNING,
    sentence="{task} ({pid}) was {why} waiting for a lock of KVM in {function}",
    meaning="It waits and does nothing itself. While a TD's pages are given back, "
    "kvm->slots_lock and the lock of its guest_memfd are held throughout: this is what a "
    "thread of the same VM looks like then.",
    advice="Look for the process that holds the lock (a stack with kvm_gmem_release); it goes "
    "on when that one is through.",
    versions="6.16 and later",
    citations=(KVM,),
    certainty=Certainty.INFERRED,
    cause=Cause.STUCK,
    rank=1,
)


STUCK_SYS_DISABLE = Kind(
    id="stuck-sys-disable",
    severity=Severity.WARNING,
    sentence="{task} ({pid}) was {why} while the kernel disabled the TDX module (tdx_sys_disable)",
    meaning="A reboot, power-off or kexec calls TDH.SYS.DISABLE until the module says that it is "
    "done. It is long where TDs are still alive.",
    advice="Wait. Stop the TDs before the next reboot.",
    versions="7.2 and later",
    citations=(SHUTDOWN,),
    certainty=Certainty.INFERRED,
)


STUCK_ELSEWHERE = Kind(
    id="stuck-elsewhere",
    severity=Severity.NOTICE,
    sentence="{task} ({pid}) was {why} in {function}, and nothing in its stack is TDX reclaim",
    meaning="Not a TD's shutdown as far as the stack tells.",
    advice="Look for the reason there.",
    versions="all",
    citations=(KATA,),
    certainty=Certainty.VERIFIED,
)


ROWS = (
    STUCK_GUEST_PAGES,
    STUCK_HKID,
    STUCK_CONTROL_PAGES,
    STUCK_ON_LOCK,
    STUCK_SYS_DISABLE,
    STUCK_ELSEWHERE,
    Kind(
        id="not-killable",
        severity=Severity.WARNING,
        sentence="libvirt could not kill {process}: it did not end after SIGKILL",
        meaning="A process inside the kernel sees SIGKILL only when it comes out. That fits a TD "
        "whose pages are being given back, and anything else that keeps a process in the kernel.",
        advice="Look at the process's stack (/proc/PID/stack) for kvm_gmem_release: with it, wait.",
        versions="all",
        citations=(KATA,),
        certainty=Certainty.INFERRED,
        pattern=r"Failed to terminate process (?P<process>\S{1,60}) with SIGKILL",
        samples=(
            "Failed to terminate process 4711 with SIGKILL: Device or resource busy",
            "Failed to terminate process qemu-td with SIGKILL: Device or resource busy",
        ),
        cause=Cause.STUCK,
        rank=2,
    ),
)
