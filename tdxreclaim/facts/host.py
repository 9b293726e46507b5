"""Everything that is known of one host, read through one source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts import places
from tdxreclaim.facts.cpu import NO_WORDS, Words
from tdxreclaim.facts.evidence import (
    ABSENT,
    WHOLE,
    Coverage,
    Evidence,
    Fact,
    Gap,
    Part,
    printable,
)
from tdxreclaim.facts.identity import Identity, completed, read_identity, read_witnesses, weigh
from tdxreclaim.facts.identity import cross_check as ask_witness
from tdxreclaim.facts.kernel import Symbols, parse_capacity, parse_switch, parse_symbols
from tdxreclaim.facts.machine import forced_flags, forcing_options, virtual_machine
from tdxreclaim.facts.reader import Reader
from tdxreclaim.facts.sources.live import PyCpuinfo, read_py_cpuinfo
from tdxreclaim.record import Record
from tdxreclaim.tables.cpus import INTEL, OTHER_VENDORS, Vfm
from tdxreclaim.tables.errata import FLAGS, PW_MCE, errata_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.facts.cpu import CpuGroup
    from tdxreclaim.facts.images.installed import InstalledKernels
    from tdxreclaim.facts.images.parts import Images, KernelFiles
    from tdxreclaim.facts.logs.reading import LogLine, LogReading
    from tdxreclaim.facts.sources.base import Source


class HostFacts(Record):
    """What is known of a host; a value of ``None`` is "it does not say".

    ``groups`` is the census; empty if no processor could be identified or the
    architecture is not x86.  ``architecture`` is ``x86``, another one's name,
    or ``None``.  ``witnesses`` are processors that other sources
    name: py-cpuinfo when asked, a capture's lscpu and kernel log.
    ``coverage`` is how much of the evidence was read and understood.
    ``bugs`` are the words of that line.  ``notes`` is what else a reader of the answer should know
    was seen.  ``images`` are parts of the kernel that were read as files, ``newest`` those of the
    newest kernel that is installed, if it does not run.  ``livepatches`` counts the loaded ones.
    ``forcing`` are the options ``setcpuid=`` and ``clearcpuid=`` of the kernel.
    """

    identity: Evidence
    architecture: str | None
    groups: tuple[CpuGroup, ...]
    hypervisor: Fact[bool]
    tdx_guest: Fact[bool]
    tdx_host_platform: Fact[bool]
    movdir64b: Fact[bool]
    pw_mce: Fact[bool]
    kvm_parameter: Fact[bool]
    key_ids: Fact[int]
    module_version: Fact[str]
    log_enabled: Fact[bool]
    log_off: Fact[bool]
    log_ready: Fact[bool]
    log_kexec: Fact[bool]
    log_module: Fact[str]
    release: Fact[str]
    symbols: Fact[Symbols]
    config: Fact[bool]
    witnesses: tuple[Fact[CpuGroup], ...] = ()
    notes: tuple[Evidence, ...] = ()
    bugs: Words = NO_WORDS
    images: Images | None = None
    newest: Images | None = None
    livepatches: int = 0
    forcing: str = ""
    coverage: Coverage = WHOLE


def read_host(
    source: Source,
    *,
    symbols: bool = True,
    cross_check: bool = False,
    ask_py_cpuinfo: Callable[[], PyCpuinfo] = read_py_cpuinfo,
    log: tuple[str, LogReading] | None = None,
    installed: Callable[[], InstalledKernels | None] | None = None,
) -> HostFacts:
    """Return what *source* says of its host.

    What the answer cannot depend on is not read: of a CPU that is not Intel's,
    or of a guest, nothing but the identity and the release.  With
    ``symbols=False`` the kernel's symbols and configuration are left out (they
    change the posture, never the verdict).  *cross_check* asks py-cpuinfo,
    which takes a second; *ask_py_cpuinfo* is how.  *log* is a kernel log of the
    host that was read already, and its name.  *installed* are the kernels of a
    live host; they are looked at where its symbols tell nothing.

    Raises:
        HostReadError, MalformedInputError: there is something that should
            identify the processors, and none of it can be used.

    """
    reader = Reader(source, log)
    identity = read_identity(reader, ask_py_cpuinfo)
    forcing = forcing_options(reader) if _may_be_intel(identity.reading.groups) else ""
    if forcing:
        identity = identity.doubting(forced_flags(forcing))
    asked = (ask_witness(ask_py_cpuinfo),) if cross_check else ()
    reader.wanted = _may_be_tdx_host(identity, asked)
    said = reader.log()
    witnesses = asked + read_witnesses(reader, identity)
    release = reader.release()
    facts = HostFacts(
        identity=identity.evidence,
        architecture=identity.reading.architecture,
        groups=completed(identity.reading.groups, witnesses),
        hypervisor=_hypervisor(reader, identity, said),
        tdx_guest=_or_log(reader, identity.word("flags", "tdx_guest"), said.guest),
        tdx_host_platform=identity.word("flags", "tdx_host_platform"),
        movdir64b=identity.movdir64b,
        pw_mce=_pw_mce(reader, identity),
        kvm_parameter=reader.fact(places.KVM_PARAMETER, parse_switch),
        key_ids=reader.fact(places.MISC_CAPACITY, parse_capacity),
        module_version=reader.fact(places.MODULE_VERSION, lambda text: printable(text) or None),
        log_enabled=reader.log_fact(yes=said.enabled or said.msr, no=said.refused),
        log_off=reader.log_fact(yes=said.unsupported, no=said.enabled),
        log_ready=reader.log_fact(yes=said.ready, no=said.failed or said.refused),
        log_kexec=reader.log_fact(yes=said.kexec),
        log_module=reader.log_text(said.module),
        release=release,
        symbols=reader.unread(places.KALLSYMS),
        config=reader.unread(places.CONFIGS[0].format(release="*")),
        witnesses=witnesses,
        notes=_notes(reader, identity, said),
        bugs=identity.reading.bugs,
        forcing=forcing,
    )
    kernel: dict[str, Any] = {}
    if symbols and not _off(facts):
        kernel = _kernel(reader, release.value, facts.notes, installed)
    if not _affected(facts):
        # Only "must clear" needs no more than was seen.
        _weigh_rest(reader, identity, facts)
        reader.gaps += _left_out(reader)
    return facts._replace(coverage=Coverage(tuple(dict.fromkeys(reader.gaps))), **kernel)


def _weigh_rest(reader: Reader, identity: Identity, facts: HostFacts) -> None:
    """Note what the rest of a capture says of the CPU that the identity does not."""
    survey = reader.source.survey()
    reader.gaps += survey.gaps
    guest = facts.hypervisor.value or facts.tdx_guest.value
    for named in survey.named:
        # A virtual machine may have had another CPU in each boot.
        if not (guest and named.virtual):
            weigh(reader, identity, named.group, reader.evidence(named.place, ""))


def _or_log(reader: Reader, fact: Fact[bool], line: LogLine | None) -> Fact[bool]:
    return reader.log_fact(yes=line) if fact.value is None and line else fact


def _hypervisor(reader: Reader, identity: Identity, said: LogReading) -> Fact[bool]:
    """Return whether a hypervisor runs below, by the flags, the log, or the firmware's names."""
    fact = _or_log(reader, identity.hypervisor, said.hypervisor or said.guest)
    if fact.value or not reader.wanted:
        return fact
    named = virtual_machine(reader)
    return fact if named is None else Fact(True, named)


def _pw_mce(reader: Reader, identity: Identity) -> Fact[bool]:
    """Return whether the kernel has set tdx_pw_mce, by the flag or by what only it prints."""
    fact = identity.word("bugs", PW_MCE)
    if fact.value:
        return fact
    for label, log in ((reader.log_label, reader.log()), *reader.other_logs):
        line = log.check or log.kexec or log.flagged
        if line is not None:
            place = f"{label}:{line.number}"
            return Fact(True, Evidence(place, printable(line.text), reader.source.origin))
    return fact


def _off(facts: HostFacts) -> bool:
    """Whether TDX is off, so that nothing depends on what the kernel would do."""
    active = (
        *(facts.kvm_parameter, facts.key_ids, facts.module_version),
        *(facts.log_enabled, facts.log_ready, facts.pw_mce),
    )
    return facts.tdx_host_platform.value is False and not any(fact.value for fact in active)


def _affected(facts: HostFacts) -> bool:
    if facts.hypervisor.value or facts.tdx_guest.value:
        return False
    flagged = any(facts.bugs.has(flag) for flag in FLAGS)
    named = facts.groups + tuple(fact.value for fact in facts.witnesses if fact.value)
    return (
        bool(facts.pw_mce.value)
        or flagged
        or any(
            errata_of(Vfm(each.vendor or INTEL, each.family, each.model))
            for each in named
            if each.family is not None and each.model is not None
        )
    )


def _left_out(reader: Reader) -> list[Gap]:
    """Return what a capture says itself that it could not take."""
    if reader.is_live:
        return []
    import json

    text, _ = reader.text(places.MANIFEST)
    try:
        left_out = json.loads(text[:_LONGEST_MANIFEST])["left_out"] if text else []
        return [
            Gap(printable(each["path"]), printable(each["why"]), places.part_of(each["path"]))
            for each in left_out[:_MOST_LEFT_OUT]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [Gap(reader.source.label(places.MANIFEST), "not understood", Part.KERNEL)]


_LONGEST_MANIFEST = 1 << 20


_MOST_LEFT_OUT = 64


def _kernel(
    reader: Reader,
    release: str | None,
    notes: tuple[Evidence, ...],
    installed: Callable[[], InstalledKernels | None] | None,
) -> dict[str, Any]:
    """Return what tells which code the kernel has: symbols, configuration, its files."""
    listed = reader.fact(places.KALLSYMS, parse_symbols)
    files, about_files = _kernel_files(reader, release, listed, installed)
    return {
        "symbols": listed,
        "config": reader.config(release),
        "notes": notes + about_files,
        "images": files.running if files else None,
        "newest": files.newest if files else None,
        "livepatches": files.livepatches if files else 0,
    }


def _kernel_files(
    reader: Reader,
    release: str | None,
    listed: Fact[Symbols],
    installed: Callable[[], InstalledKernels | None] | None,
) -> tuple[KernelFiles | None, tuple[Evidence, ...]]:
    """Return what the kernel's own files tell, live or from a capture's record of them."""
    if not reader.wanted or release is None:
        return None, ()
    kernels = installed() if installed is not None else None
    if kernels is not None:
        told = listed.value is not None and listed.value.tells
        return kernels.read(release, module=not told), ()
    if reader.is_live:
        return None, ()
    text, evidence = reader.text(places.KERNEL_FILES)
    if text is None:
        return None, () if evidence.observed == ABSENT else (evidence,)
    from tdxreclaim.facts.images.record import read_record

    try:
        return read_record(text, places.KERNEL_FILES), ()
    except MalformedInputError as error:
        return None, (reader.evidence(places.KERNEL_FILES, f"not understood: {error.why}"),)


def _notes(reader: Reader, identity: Identity, log: LogReading) -> tuple[Evidence, ...]:
    read = tuple(
        identity.evidence._replace(observed=printable(note), origin=reader.source.origin)
        for note in identity.reading.notes
    )
    said = tuple(reader.log_line(line) for line in (log.refused, log.failed) if line)
    return read + identity.notes + said


def _may_be_tdx_host(identity: Identity, asked: tuple[Fact[CpuGroup], ...]) -> bool:
    """Whether any processor may be Intel's and this is not plainly a guest."""
    if any(identity.word("bugs", flag).value for flag in FLAGS):
        return True
    if identity.hypervisor.value or identity.word("flags", "tdx_guest").value:
        return False
    if identity.reading.architecture not in (None, "x86"):
        return False
    groups = identity.reading.groups + tuple(fact.value for fact in asked if fact.value)
    return not groups or _may_be_intel(groups)


def _may_be_intel(groups: tuple[CpuGroup, ...]) -> bool:
    return any(group.vendor not in OTHER_VENDORS for group in groups)
