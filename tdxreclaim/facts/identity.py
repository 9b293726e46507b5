"""Who the processors are: the best file that says so, and what else names some."""

from __future__ import annotations

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
    same_cpu,
)
from tdxreclaim.facts.evidence import ABSENT, Evidence, Fact, Gap, Origin, not_readable
from tdxreclaim.facts.formats.cpuinfo import parse_cpuinfo
from tdxreclaim.tables.cpus import OTHER_VENDORS
from tdxreclaim.tables.errata import FLAGS

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
    witnesses: tuple[Fact[CpuGroup], ...] = ()

    def word(self, line: str, word: str) -> Fact[bool]:
        """Return whether *word* is said of the host in its ``flags`` or ``bugs``."""
        words: Words = getattr(self.reading, line)
        # Strictest first: what one processor has counts against skipping, what
        # would make it a guest or settle it must hold for all.
        strict = word in (*FLAGS, "movdir64b")
        value = words.has(word) if strict else words.all_have(word)
        match value:
            case True:
                observed = f"{line}: {word}"
            case False:
                observed = f"{line}: no {word}"
            case _ if word in words.forced:
                observed = f"{line}: {word} may be set or hidden by setcpuid= or clearcpuid="
            case _:
                disagree = word in words.disputed
                observed = (
                    f"{line}: {'processors disagree on ' + word if disagree else 'not known whole'}"
                )
        return Fact(value, self.evidence._replace(observed=observed))

    def doubting(self, forced: frozenset[str]) -> Identity:
        """Return the identity with *forced*, of the flags and bugs, no longer believed."""
        reading = self.reading._replace(
            flags=self.reading.flags._replace(forced=forced),
            bugs=self.reading.bugs._replace(forced=forced),
        )
        return self._replace(reading=reading)

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
    """Return the census from the best file that has one; the other files are witnesses.

    What stands in any of them and was not understood is a gap.

    Raises:
        HostReadError, MalformedInputError: there is something that should
            identify the processors, and none of it can be used.

    """
    failure: TdxReclaimError | None = None
    notes: list[Evidence] = []
    readings: list[tuple[str, CpuReading]] = []
    for path, parse in _parsers()[: 1 if reader.is_live else None]:
        label = reader.source.label(path)
        try:
            text = reader.source.read(path)
            if text is None:
                continue
            reading = parse(text)
        except (HostReadError, MalformedInputError) as error:
            failure = failure or type(error)(label, error.why)
            notes.append(reader.evidence(path, not_readable(error.why)))
            reader.note(path, error.why)
            continue
        readings.append((path, reading))
        _note_gaps(reader, path, text, reading)
    if readings:
        path, reading = readings[0]
        evidence = reader.evidence(path, describe(reading))
        witnesses = _named(reader, readings[1:])
        return Identity(reading, evidence, path, tuple(notes), witnesses)
    ask = ask_py_cpuinfo if reader.is_live else _kept_py_cpuinfo(reader)
    if ask is not None:
        return _by_py_cpuinfo(reader, ask)._replace(notes=tuple(notes))
    by_log = _by_log(reader)
    if by_log is not None:
        return by_log._replace(notes=tuple(notes))
    if failure is not None:
        raise failure
    log = reader.log()
    if log.architecture is not None and not log.has_x86:
        reading = CpuReading(architecture=log.architecture_name)
        return Identity(reading, reader.log_line(log.architecture), reader.log_path)
    if log.told is not None and _has_erratum(log.told[1]):
        # It may make a host one that must clear, and never one that need not.
        line, group = log.told
        reading = CpuReading(architecture="x86", groups=(group,))
        return Identity(reading, reader.log_line(line), reader.log_path)
    if not log.hypervisor and not log.guest:
        # Of a guest the CPU does not matter.
        why = "nothing names the processors"
        reader.gaps.append(Gap(reader.source.label(places.CPUINFO), why, absent=True))
    nothing = CpuReading(architecture=None)
    return Identity(nothing, reader.evidence(places.CPUINFO, ABSENT), places.CPUINFO)


def _note_gaps(reader: Reader, path: str, text: str, reading: CpuReading) -> None:
    """Note what of *text* was not understood, and what in it tells of another CPU."""
    label = reader.source.label(path)
    kinds = {(each.vendor, each.family, each.model) for each in reading.groups}
    if len(kinds) > 1:
        why = f"names {len(kinds)} kinds of CPU: several captures in one text?"
        reader.gaps.append(Gap(label, why))
    reader.gaps += [
        gap._replace(place=f"{label}, {gap.place}" if gap.place else label) for gap in reading.gaps
    ]
    if not reader.is_live:
        _weigh_signs(reader, path, text, reading)


def _weigh_signs(reader: Reader, path: str, text: str, reading: CpuReading) -> None:
    """Note what tells of another, affected CPU in words that nothing was read from."""
    from tdxreclaim.facts.formats.signs import find_signs, foreign

    strict = path == places.CPUINFO
    flagged = any(reading.bugs.has(flag) for flag in FLAGS)
    signs = find_signs(reading.odd if strict else text, names=_is_no_model_name)
    sign = foreign(signs, reading.groups, flagged=flagged)
    if sign is not None:
        label = reader.source.label(path)
        place = label if strict else f"{label}, line {sign.line}"
        reader.gaps.append(Gap(place, sign.describe()))


def _is_no_model_name(line: str) -> bool:
    # The numbers beside it count.
    return "model name" not in line.lower()


def _has_erratum(group: CpuGroup) -> bool:
    from tdxreclaim.tables.cpus import Vfm
    from tdxreclaim.tables.errata import errata_of

    if group.vendor is None or group.family is None or group.model is None:
        return False
    return bool(errata_of(Vfm(group.vendor, group.family, group.model)))


def _named(reader: Reader, readings: list[tuple[str, CpuReading]]) -> tuple[Fact[CpuGroup], ...]:
    return tuple(
        Fact(group, reader.evidence(path, group.describe()))
        for path, reading in readings
        for group in reading.groups
    )


def _by_log(reader: Reader) -> Identity | None:
    log = reader.log()
    if log.group is None or log.cpu is None:
        return None
    if not log.whole and log.group.vendor not in OTHER_VENDORS:
        why = "not one whole boot, from its Linux version line to its one CPU0 line, uncut"
        # That a log begins late, or tells of two boots, is what logs do.
        reader.gaps.append(Gap(reader.source.label(reader.log_path), why, absent=True))
    reading = CpuReading(architecture="x86", groups=(log.group.sized(1),))
    return Identity(reading, reader.log_line(log.cpu), reader.log_path)


def _kept_py_cpuinfo(reader: Reader) -> Callable[[], PyCpuinfo] | None:
    """Return what gives the answer that a capture kept, ``None`` if it has none."""
    text, _ = reader.text(places.PY_CPUINFO)
    if text is None:
        return None
    from tdxreclaim.facts.sources.live import PyCpuinfo

    return lambda: PyCpuinfo.kept(text, "py-cpuinfo")


def _by_py_cpuinfo(reader: Reader, ask: Callable[[], PyCpuinfo]) -> Identity:
    gap = Gap(
        reader.source.label(places.CPUINFO), "cannot be used, so not every processor was seen"
    )
    try:
        found = ask()
    except HostReadError as error:
        reader.gaps.append(gap)
        evidence = Evidence(error.what, not_readable(error.why), reader.source.origin)
        return Identity(CpuReading(architecture=None), evidence, places.CPUINFO)
    architecture = found.text("arch")
    if architecture is None:
        reader.gaps.append(gap)
    if architecture in ("X86_32", "X86_64"):
        reader.gaps.append(gap)
        flags = Words(found.words("flags"), complete=False)
        reading = CpuReading(architecture="x86", groups=(_group_of(found),), flags=flags)
    else:
        reading = CpuReading(architecture=architecture)
    evidence = Evidence("py-cpuinfo", describe(reading), reader.source.origin)
    return Identity(reading, evidence, places.CPUINFO)


def read_witnesses(reader: Reader, identity: Identity) -> tuple[Fact[CpuGroup], ...]:
    """Return the processors that are named beside the identity, by files and kernel logs.

    One that is another than the identity's is a gap: it is not about one host.
    """
    found = list(identity.witnesses)
    for label, log in ((reader.log_label, reader.log()), *reader.other_logs):
        named = {
            group: line
            for line, group in (*log.earlier, *log.cpus, *((log.told,) if log.told else ()))
        }
        if log.cpu is not None and log.group is not None:
            named[log.group] = log.cpu
        found += [
            Fact(group, Evidence(f"{label}:{line.number}", line.text, reader.source.origin))
            for group, line in named.items()
            if identity.evidence.path != f"{label}:{line.number}"
        ]
    for group, evidence in found:
        weigh(reader, identity, group, evidence)
    return tuple(found)


def weigh(reader: Reader, identity: Identity, group: CpuGroup | None, evidence: Evidence) -> None:
    """Note a gap where *evidence* names another CPU than the identity, or no whole one."""
    if group is None:
        return
    groups = identity.reading.groups
    architecture = identity.reading.architecture
    if architecture is None and not groups and reader.gaps:
        return  # nothing is named that it could contradict
    if architecture not in (None, "x86") or not any(same_cpu(group, each) for each in groups):
        why = f"names {group.describe()}, and {identity.evidence.path} does not"
        reader.gaps.append(Gap(evidence.path, why))
    elif group.family is None or group.model is None:
        reader.gaps.append(Gap(evidence.path, f"names no whole CPU ({group.describe()})"))


def completed(
    groups: tuple[CpuGroup, ...], witnesses: tuple[Fact[CpuGroup], ...]
) -> tuple[CpuGroup, ...]:
    """Return the groups, what one of them does not say taken from a witness of that CPU."""
    whole = [fact.value for fact in witnesses if fact.value and fact.value.identified]

    def complete(group: CpuGroup) -> CpuGroup:
        matching = [each for each in whole if not group.identified and same_cpu(group, each)]
        if not matching:
            return group
        named = matching[0]
        return group._replace(vendor=named.vendor, family=named.family, model=named.model)

    return tuple(map(complete, groups))


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
