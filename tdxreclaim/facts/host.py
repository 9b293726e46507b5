"""Everything that is known of one host, read through one source."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tdxreclaim.errors import HostReadError, MalformedInputError, TdxReclaimError
from tdxreclaim.facts.cpu import NO_WORDS, CpuGroup, CpuReading, Words, parse_number
from tdxreclaim.facts.evidence import (
    ABSENT,
    NOT_NEEDED,
    Evidence,
    Fact,
    Origin,
    not_readable,
    printable,
)
from tdxreclaim.facts.formats.cpuinfo import parse_cpuinfo
from tdxreclaim.facts.kernel import (
    Symbol,
    parse_capacity,
    parse_config,
    parse_release,
    parse_switch,
    parse_symbols,
)
from tdxreclaim.facts.sources.base import KERNEL_LOG, Source
from tdxreclaim.facts.sources.live import Live, PyCpuinfo, kernel_release, read_py_cpuinfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.facts.logs.bringup import LogLine, LogReading

CPUINFO = "proc/cpuinfo"


LSCPU = "sos_commands/processor/lscpu"


LSCPU_JSON = "lscpu.json"


CPUID = "sos_commands/processor/cpuid_-r"


KERNEL_LOGS = ("sos_commands/kernel/dmesg", "sos_commands/kernel/dmesg_-T", "var/log/dmesg")


RELEASES = ("proc/sys/kernel/osrelease", "proc/version", "sos_commands/kernel/uname_-a")


KALLSYMS = "proc/kallsyms"


KVM_PARAMETER = "sys/module/kvm_intel/parameters/tdx"


MISC_CAPACITY = "sys/fs/cgroup/misc.capacity"


MODULE_VERSION = "sys/devices/faux/tdx_host/version"


CONFIG = "boot/config-{release}"


# Every file of a captured host that is ever looked at (and CONFIG).
WANTED = frozenset(
    (
        CPUINFO,
        LSCPU,
        LSCPU_JSON,
        CPUID,
        *KERNEL_LOGS,
        *RELEASES,
        KALLSYMS,
        KVM_PARAMETER,
        MISC_CAPACITY,
        MODULE_VERSION,
    )
)


T = TypeVar("T")


INTEL = "GenuineIntel"


class HostFacts(NamedTuple):
    """What is known of a host; a value of ``None`` is "it does not say".

    ``groups`` is the census; empty if no processor could be identified or the
    architecture is not x86.  ``architecture`` is ``x86``, another one's name,
    or ``None``.  ``witnesses`` are processors that other sources
    name: py-cpuinfo when asked, a capture's lscpu and kernel log.
    ``bugs`` are the words of that line.  ``notes`` is what else a reader of the answer should know was seen.
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
    release: Fact[str]
    symbols: Fact[tuple[Symbol, ...]]
    config: Fact[bool]
    witnesses: tuple[Fact[CpuGroup], ...] = ()
    notes: tuple[Evidence, ...] = ()
    bugs: Words = NO_WORDS


class _Identity(NamedTuple):
    reading: CpuReading
    evidence: Evidence
    path: str


def read_host(
    source: Source,
    *,
    symbols: bool = True,
    cross_check: bool = False,
    ask_py_cpuinfo: Callable[[], PyCpuinfo] = read_py_cpuinfo,
    log: tuple[str, LogReading] | None = None,
) -> HostFacts:
    """Return what *source* says of its host.

    What the answer cannot depend on is not read: of a CPU that is not Intel's,
    or of a guest, nothing but the identity and the release.  With
    ``symbols=False`` the kernel's symbols and configuration are left out (they
    change the posture, never the verdict).  *cross_check* asks py-cpuinfo,
    which takes a second; *ask_py_cpuinfo* is how.  *log* is a kernel log of the
    host that was read already, and its name.

    Raises:
        HostReadError, MalformedInputError: there is something that should
            identify the processors, and none of it can be used.

    """
    host = _Reader(source, ask_py_cpuinfo, log)
    identity = host.identity()
    reading = identity.reading
    facts = HostFacts(
        identity=identity.evidence,
        architecture=reading.architecture,
        groups=reading.groups,
        hypervisor=_hypervisor(identity),
        tdx_guest=_word(identity, reading.flags, "flags", "tdx_guest"),
        tdx_host_platform=_word(identity, reading.flags, "flags", "tdx_host_platform"),
        movdir64b=_movdir64b(identity),
        pw_mce=_word(identity, reading.bugs, "bugs", "tdx_pw_mce"),
        kvm_parameter=host.unread(KVM_PARAMETER),
        key_ids=host.unread(MISC_CAPACITY),
        module_version=host.unread(MODULE_VERSION),
        log_enabled=host.unread(host.log_path),
        log_off=host.unread(host.log_path),
        log_ready=host.unread(host.log_path),
        log_kexec=host.unread(host.log_path),
        release=host.release(),
        symbols=host.unread(KALLSYMS),
        config=host.unread(CONFIG.format(release="*")),
        notes=tuple(
            Evidence(identity.evidence.path, printable(note), source.origin)
            for note in reading.notes
        )
        + tuple(host.notes),
        bugs=reading.bugs,
    )
    if cross_check:
        facts = facts._replace(witnesses=(_py_cpuinfo_group(ask_py_cpuinfo),))
    if not _may_be_tdx_host(facts):
        return facts
    said = host.log()
    facts = facts._replace(
        witnesses=facts.witnesses + host.witnesses(identity.path, said),
        kvm_parameter=host.fact(KVM_PARAMETER, parse_switch),
        key_ids=host.fact(MISC_CAPACITY, parse_capacity),
        module_version=host.fact(MODULE_VERSION, lambda text: printable(text) or None),
        log_enabled=host.log_fact(said, yes=said.enabled, no=said.refused),
        log_off=host.log_fact(said, yes=said.unsupported, no=said.enabled),
        log_ready=host.log_fact(said, yes=said.ready, no=said.failed or said.refused),
        log_kexec=host.log_fact(said, yes=said.kexec, no=None),
        release=host.release() if facts.release.value is None else facts.release,
        notes=facts.notes + host.log_notes(said),
    )
    if not facts.pw_mce.value and (said.kexec or said.check):
        # Nothing but a kernel that has set the flag prints these.
        facts = facts._replace(pw_mce=host.log_fact(said, yes=said.check or said.kexec, no=None))
    if facts.hypervisor.value is None and (said.hypervisor or said.guest):
        facts = facts._replace(hypervisor=host.log_fact(said, yes=said.hypervisor, no=None))
    if facts.tdx_guest.value is None and said.guest:
        facts = facts._replace(tdx_guest=host.log_fact(said, yes=said.guest, no=None))
    if symbols:
        facts = facts._replace(
            symbols=host.fact(KALLSYMS, parse_symbols),
            config=host.config(facts.release.value),
        )
    return facts


def _may_be_tdx_host(facts: HostFacts) -> bool:
    """Whether any processor may be Intel's and this is not plainly a guest."""
    if facts.pw_mce.value:
        return True
    if facts.hypervisor.value or facts.tdx_guest.value:
        return False
    if facts.architecture not in (None, "x86"):
        return False
    groups = facts.groups + tuple(fact.value for fact in facts.witnesses if fact.value)
    return not groups or any(_may_be_intel(group.vendor) for group in groups)


def _may_be_intel(vendor: str | None) -> bool:
    # The policy keeps the list of vendors; a plain other name is enough here.
    return vendor not in ("AuthenticAMD", "HygonGenuine", "CentaurHauls", "  Shanghai  ")


class _Reader:
    """Reads facts from one source, turning what cannot be read into evidence."""

    def __init__(
        self,
        source: Source,
        ask_py_cpuinfo: Callable[[], PyCpuinfo],
        log: tuple[str, LogReading] | None,
    ) -> None:
        self._source = source
        self._ask_py_cpuinfo = ask_py_cpuinfo
        self._log: LogReading | None = None
        self._log_label: str | None = None
        self._log_evidence: Evidence | None = None
        if log is not None:
            self._log_label, self._log = log
            self._log_evidence = Evidence(self._log_label, "", source.origin)
        self.notes: list[Evidence] = []
        self.log_path = KERNEL_LOG if source.origin is Origin.LIVE else KERNEL_LOGS[0]

    def evidence(self, path: str, observed: str) -> Evidence:
        return Evidence(self._source.label(path), printable(observed), self._source.origin)

    def unread(self, path: str) -> Fact[T]:
        return Fact(None, self.evidence(path, NOT_NEEDED))

    def text(self, path: str) -> tuple[str | None, Evidence]:
        """Return the text of an optional file, ``None`` with the reason if there is none."""
        try:
            text = self._source.read(path)
        except HostReadError as error:
            return None, self.evidence(path, not_readable(error.why))
        return text, self.evidence(path, ABSENT if text is None else "")

    def fact(self, path: str, parse: Callable[[str], T | None]) -> Fact[T]:
        text, evidence = self.text(path)
        if text is None:
            return Fact(None, evidence)
        value = parse(text)
        if value is None:
            return Fact(None, self.evidence(path, f"not understood: {text[:60]!r}"))
        return Fact(value, self.evidence(path, _observed(value, text)))

    def identity(self) -> _Identity:
        """Return the census from the best file that has one."""
        failure: TdxReclaimError | None = None
        for path, parse in _identity_parsers():
            try:
                text = self._source.read(path)
                if text is None:
                    continue
                reading = parse(text)
            except (HostReadError, MalformedInputError) as error:
                failure = failure or type(error)(self._source.label(path), error.why)
                self.notes.append(self.evidence(path, not_readable(error.why)))
                continue
            return _Identity(reading, self.evidence(path, describe(reading)), path)
        if self._source.origin is Origin.LIVE:
            return self._identity_by_py_cpuinfo()
        log = self.log()
        if log.group is not None and log.cpu is not None:
            reading = CpuReading("x86", (log.group._replace(size=1),))
            return _Identity(reading, self._log_line(log.cpu), self.log_path)
        if failure is not None:
            raise failure
        nothing = CpuReading(None, ())
        return _Identity(nothing, self.evidence(CPUINFO, ABSENT), CPUINFO)

    def _identity_by_py_cpuinfo(self) -> _Identity:
        try:
            found = self._ask_py_cpuinfo()
        except HostReadError as error:
            evidence = Evidence(error.what, not_readable(error.why), Origin.LIVE)
            return _Identity(CpuReading(None, ()), evidence, CPUINFO)
        group = _group_of(found)
        architecture = found.text("arch")
        if architecture in ("X86_32", "X86_64"):
            flags = Words(found.words("flags"), complete=False)
            reading = CpuReading("x86", (group,), flags=flags)
        else:
            reading = CpuReading(architecture, ())
        return _Identity(reading, Evidence("py-cpuinfo", describe(reading), Origin.LIVE), CPUINFO)

    def witnesses(self, identity_path: str, log: LogReading) -> tuple[Fact[CpuGroup], ...]:
        """Return the processors that a capture names beside its identity."""
        found: list[Fact[CpuGroup]] = []
        if self._source.origin is Origin.CAPTURED and identity_path == CPUINFO:
            for path in (LSCPU, CPUID):
                text, _ = self.text(path)
                # Of a witness that cannot be understood nothing is taken.
                with contextlib.suppress(MalformedInputError):
                    groups = () if text is None else dict(_identity_parsers())[path](text).groups
                    found += [
                        Fact(group, self.evidence(path, group.describe())) for group in groups
                    ]
        if log.group is not None and log.cpu is not None and identity_path not in KERNEL_LOGS:
            found.append(Fact(log.group, self._log_line(log.cpu)))
        found += [Fact(group, self._log_line(line)) for line, group in log.earlier]
        return tuple(found)

    def release(self) -> Fact[str]:
        unreadable: Evidence | None = None
        for path in RELEASES:
            text, evidence = self.text(path)
            release = None if text is None else parse_release(path, text)
            if release is not None:
                return Fact(printable(release), self.evidence(path, release))
            if evidence.observed not in ("", ABSENT):
                unreadable = unreadable or evidence
        if self._source.origin is Origin.LIVE:
            release = kernel_release()
            return Fact(release, Evidence("uname", release or ABSENT, Origin.LIVE))
        if self._log is not None and self._log.release:
            line = self._log.release
            return Fact(printable(line.text), self._log_line(line))
        return Fact(None, unreadable or self.evidence(RELEASES[0], ABSENT))

    def config(self, release: str | None) -> Fact[bool]:
        if release is None or "/" in release:
            return self.unread(CONFIG.format(release="*"))
        return self.fact(CONFIG.format(release=release), parse_config)

    def log(self) -> LogReading:
        """Return the kernel log's reading, an empty one where there is no log."""
        if self._log is None:
            from tdxreclaim.facts.logs.bringup import LogReading
            from tdxreclaim.facts.logs.whole import parse_kernel_log

            live = self._source.origin is Origin.LIVE
            self._log = LogReading()
            for path in (KERNEL_LOG,) if live else KERNEL_LOGS:
                text, evidence = self.text(path)
                # One that cannot be read tells more than the next one's absence.
                last = self._log_evidence
                if text is not None or last is None or last.observed == ABSENT:
                    self.log_path, self._log_evidence = path, evidence
                if text is not None:
                    self._log = parse_kernel_log(text, name=evidence.path)
                    break
        return self._log

    def log_fact(self, log: LogReading, *, yes: LogLine | None, no: LogLine | None) -> Fact[bool]:
        # Of two lines that contradict each other the later one is the state.
        latest = max((line for line in (yes, no) if line), default=None)
        if latest is not None:
            return Fact(latest is yes, self._log_line(latest))
        evidence = self._log_evidence or self.evidence(self.log_path, ABSENT)
        if not evidence.observed:
            evidence = evidence._replace(observed=f"no such line (boots in it: {log.boots})")
        return Fact(None, evidence)

    def log_notes(self, log: LogReading) -> tuple[Evidence, ...]:
        lines = (log.refused, log.failed)
        return tuple(self._log_line(line) for line in lines if line)

    def _log_line(self, line: LogLine) -> Evidence:
        label = self._log_label or self._source.label(self.log_path)
        return Evidence(f"{label}:{line.number}", printable(line.text), self._source.origin)


def _identity_parsers() -> tuple[tuple[str, Callable[[str], CpuReading]], ...]:
    def lscpu(text: str) -> CpuReading:
        from tdxreclaim.facts.formats.lscpu import parse_lscpu

        return parse_lscpu(text)

    def lscpu_json(text: str) -> CpuReading:
        from tdxreclaim.facts.formats.lscpu import parse_lscpu_json

        return parse_lscpu_json(text)

    def cpuid(text: str) -> CpuReading:
        from tdxreclaim.facts.formats.cpuid import parse_cpuid

        return parse_cpuid(text)

    return ((CPUINFO, parse_cpuinfo), (LSCPU, lscpu), (LSCPU_JSON, lscpu_json), (CPUID, cpuid))


def _observed(value: object, text: str) -> str:
    """Return what evidence shows of an optional file that was understood."""
    match value:
        case bool() if "CONFIG_" in text:
            return "CONFIG_INTEL_TDX_HOST=y" if value else "CONFIG_INTEL_TDX_HOST is not set"
        case tuple():
            return ", ".join(map(str, value)) or "no TDX reclaim function"
        case 0:
            return "no tdx line"
        case int() if not isinstance(value, bool):
            return f"tdx {value}"
        case _:
            return text.strip()


def describe(reading: CpuReading) -> str:
    """Return the census in one line."""
    if reading.architecture not in (None, "x86"):
        return f"architecture {reading.architecture}"
    if not reading.groups:
        return "no processor"
    counted = [
        f"{group.size} x {group.describe()}" if group.size else group.describe()
        for group in reading.groups
    ]
    return "; ".join(counted)


def _word(identity: _Identity, words: Words, line: str, word: str) -> Fact[bool]:
    # Strictest first: what one processor has counts against skipping, what
    # would make it a guest or settle it must hold for all.
    strict = word in ("tdx_pw_mce", "movdir64b")
    value = words.has(word) if strict else words.all_have(word)
    match value:
        case True:
            observed = f"{line}: {word}"
        case False:
            observed = f"{line}: no {word}"
        case _:
            disagree = word in words.disputed
            observed = (
                f"{line}: {'processors disagree on ' + word if disagree else 'not known whole'}"
            )
    return Fact(value, identity.evidence._replace(observed=observed))


def _hypervisor(identity: _Identity) -> Fact[bool]:
    said = identity.reading.hypervisor
    if said is None:
        return _word(identity, identity.reading.flags, "flags", "hypervisor")
    observed = "hypervisor present" if said else "no hypervisor"
    return Fact(said, identity.evidence._replace(observed=observed))


def _movdir64b(identity: _Identity) -> Fact[bool]:
    said = identity.reading.movdir64b
    if said is None:
        return _word(identity, identity.reading.flags, "flags", "movdir64b")
    observed = f"CPUID.(7,0):ECX[28] = {int(said)} (movdir64b)"
    return Fact(said, identity.evidence._replace(observed=observed))


def _group_of(found: PyCpuinfo) -> CpuGroup:
    from tdxreclaim.facts.cpu import FAMILY_MAX, MODEL_MAX, STEPPING_MAX

    def number(key: str, largest: int) -> int | None:
        value = found.number(key)
        return None if value is None else parse_number(str(value), largest)

    # It drops zeros: a missing model may be 0, so it stays unknown.
    return CpuGroup(
        found.text("vendor_id_raw"),
        number("family", FAMILY_MAX),
        number("model", MODEL_MAX),
        number("stepping", STEPPING_MAX),
        size=found.number("count"),
    )


def _py_cpuinfo_group(ask: Callable[[], PyCpuinfo]) -> Fact[CpuGroup]:
    try:
        group = _group_of(ask())
    except HostReadError as error:
        return Fact(None, Evidence(error.what, not_readable(error.why), Origin.LIVE))
    return Fact(group, Evidence("py-cpuinfo", group.describe(), Origin.LIVE))


__all__ = ["HostFacts", "Live", "read_host"]
