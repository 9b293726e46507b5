"""Who the processors are: the best file that says so, and what else names some."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.errors import HostReadError, MalformedInputError, TdxReclaimError
from tdxreclaim.facts import places
from tdxreclaim.facts.cpu import (
    FAMILY_MAX,
    MODEL_MAX,
    STEPPING_MAX,
    CpuGroup,
    CpuReading,
    Words,
    parse_number,
)
from tdxreclaim.facts.evidence import ABSENT, Evidence, Fact, Origin, not_readable
from tdxreclaim.facts.formats.cpuinfo import parse_cpuinfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.facts.reader import Reader
    from tdxreclaim.facts.sources.live import PyCpuinfo


class Identity(NamedTuple):
    """The census, where it is from, and what on the way to it could not be used."""

    reading: CpuReading
    evidence: Evidence
    path: str
    notes: tuple[Evidence, ...] = ()

    def word(self, line: str, word: str) -> Fact[bool]:
        """Return whether *word* is said of the host in its ``flags`` or ``bugs``."""
        words: Words = getattr(self.reading, line)
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
        return Fact(value, self.evidence._replace(observed=observed))

    @property
    def hypervisor(self) -> Fact[bool]:
        """Whether a hypervisor runs below."""
        said = self.reading.hypervisor
        if said is None:
            return self.word("flags", "hypervisor")
        observed = "hypervisor present" if said else "no hypervisor"
        return Fact(said, self.evidence._replace(observed=observed))

    @property
    def movdir64b(self) -> Fact[bool]:
        """Whether a processor has MOVDIR64B."""
        said = self.reading.movdir64b
        if said is None:
            return self.word("flags", "movdir64b")
        observed = f"CPUID.(7,0):ECX[28] = {int(said)} (movdir64b)"
        return Fact(said, self.evidence._replace(observed=observed))


def read_identity(reader: Reader, ask_py_cpuinfo: Callable[[], PyCpuinfo]) -> Identity:
    """Return the census from the best file that has one.

    Raises:
        HostReadError, MalformedInputError: there is something that should
            identify the processors, and none of it can be used.

    """
    failure: TdxReclaimError | None = None
    notes: list[Evidence] = []
    for path, parse in _parsers():
        try:
            text = reader.source.read(path)
            if text is None:
                continue
            reading = parse(text)
        except (HostReadError, MalformedInputError) as error:
            failure = failure or type(error)(reader.source.label(path), error.why)
            notes.append(reader.evidence(path, not_readable(error.why)))
            continue
        return Identity(reading, reader.evidence(path, describe(reading)), path, tuple(notes))
    if reader.is_live:
        return _by_py_cpuinfo(ask_py_cpuinfo)._replace(notes=tuple(notes))
    log = reader.log()
    if log.group is not None and log.cpu is not None:
        reading = CpuReading(architecture="x86", groups=(log.group.sized(1),))
        return Identity(reading, reader.log_line(log.cpu), reader.log_path, tuple(notes))
    if failure is not None:
        raise failure
    if log.architecture is not None and not log.has_x86:
        reading = CpuReading(architecture=log.architecture_name)
        return Identity(reading, reader.log_line(log.architecture), reader.log_path)
    if log.told is not None and _has_erratum(log.told[1]):
        # It may make a host one that must clear, and never one that need not.
        line, group = log.told
        reading = CpuReading(architecture="x86", groups=(group,))
        return Identity(reading, reader.log_line(line), reader.log_path)
    nothing = CpuReading(architecture=None)
    return Identity(nothing, reader.evidence(places.CPUINFO, ABSENT), places.CPUINFO)


def _has_erratum(group: CpuGroup) -> bool:
    from tdxreclaim.tables.cpus import Vfm
    from tdxreclaim.tables.errata import errata_of

    if group.vendor is None or group.family is None or group.model is None:
        return False
    return bool(errata_of(Vfm(group.vendor, group.family, group.model)))


def _by_py_cpuinfo(ask: Callable[[], PyCpuinfo]) -> Identity:
    try:
        found = ask()
    except HostReadError as error:
        evidence = Evidence(error.what, not_readable(error.why), Origin.LIVE)
        return Identity(CpuReading(architecture=None), evidence, places.CPUINFO)
    architecture = found.text("arch")
    if architecture in ("X86_32", "X86_64"):
        flags = Words(found.words("flags"), complete=False)
        reading = CpuReading(architecture="x86", groups=(_group_of(found),), flags=flags)
    else:
        reading = CpuReading(architecture=architecture)
    evidence = Evidence("py-cpuinfo", describe(reading), Origin.LIVE)
    return Identity(reading, evidence, places.CPUINFO)


def read_witnesses(reader: Reader, identity: Identity) -> tuple[Fact[CpuGroup], ...]:
    """Return the processors that a capture, or any kernel log, names beside its identity."""
    found: list[Fact[CpuGroup]] = []
    if not reader.is_live and identity.path == places.CPUINFO:
        for path in (places.LSCPU, places.CPUID):
            text, _ = reader.text(path)
            # Of a witness that cannot be understood nothing is taken.
            with contextlib.suppress(MalformedInputError):
                groups = () if text is None else dict(_parsers())[path](text).groups
                found += [Fact(group, reader.evidence(path, group.describe())) for group in groups]
    log = reader.log()
    if log.group is not None and log.cpu is not None and identity.path not in places.KERNEL_LOGS:
        found.append(Fact(log.group, reader.log_line(log.cpu)))
    found += [Fact(group, reader.log_line(line)) for line, group in log.earlier]
    return tuple(found)


def cross_check(ask: Callable[[], PyCpuinfo]) -> Fact[CpuGroup]:
    """Return the processor that py-cpuinfo sees."""
    try:
        group = _group_of(ask())
    except HostReadError as error:
        return Fact(None, Evidence(error.what, not_readable(error.why), Origin.LIVE))
    return Fact(group, Evidence("py-cpuinfo", group.describe(), Origin.LIVE))


def _parsers() -> tuple[tuple[str, Callable[[str], CpuReading]], ...]:
    def lscpu(text: str) -> CpuReading:
        from tdxreclaim.facts.formats.lscpu import parse_lscpu

        return parse_lscpu(text)

    def lscpu_json(text: str) -> CpuReading:
        from tdxreclaim.facts.formats.lscpu import parse_lscpu_json

        return parse_lscpu_json(text)

    def cpuid(text: str) -> CpuReading:
        from tdxreclaim.facts.formats.cpuid import parse_cpuid

        return parse_cpuid(text)

    return (
        (places.CPUINFO, parse_cpuinfo),
        (places.LSCPU, lscpu),
        (places.LSCPU_JSON, lscpu_json),
        (places.CPUID, cpuid),
    )


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


def _group_of(found: PyCpuinfo) -> CpuGroup:
    def number(key: str, largest: int) -> int | None:
        value = found.number(key)
        return None if value is None else parse_number(str(value), largest)

    # It drops zeros: a missing model may be 0, so it stays unknown.
    return CpuGroup(
        vendor=found.text("vendor_id_raw"),
        family=number("family", FAMILY_MAX),
        model=number("model", MODEL_MAX),
        stepping=number("stepping", STEPPING_MAX),
        size=found.number("count"),
    )
