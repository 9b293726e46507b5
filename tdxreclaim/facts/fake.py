"""Facts that a user gave on the command line, alone or laid over a real host's."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.cpu import NO_WORDS, CpuGroup
from tdxreclaim.facts.evidence import (
    NOT_GIVEN,
    NOT_KNOWN_OF_FAKED,
    Coverage,
    Evidence,
    Fact,
    Origin,
    Part,
)
from tdxreclaim.facts.host import HostFacts
from tdxreclaim.facts.kernel import Symbol, Symbols

if TYPE_CHECKING:
    from tdxreclaim.facts.images.parts import Images


class FakedCpu(NamedTuple):
    """The parts of an identity that were given; ``None`` keeps what is underneath.

    ``option`` is what they were given with, for the evidence.
    """

    option: str
    vendor: str | None = None
    family: int | None = None
    model: int | None = None
    stepping: int | None = None

    def over(self, group: CpuGroup) -> CpuGroup:
        """Return *group* with the given parts; the microcode is another CPU's, and goes."""
        return group._replace(
            vendor=group.vendor if self.vendor is None else self.vendor,
            family=group.family if self.family is None else self.family,
            model=group.model if self.model is None else self.model,
            stepping=group.stepping if self.stepping is None else self.stepping,
            microcode=None,
        )


def nothing_known() -> HostFacts:
    """Return a host of which nothing is known: what faked parts stand on by default."""

    def blank(what: str) -> Evidence:
        return Evidence(what, NOT_GIVEN, Origin.FAKED)

    return HostFacts(
        identity=blank("--cpu"),
        architecture=None,
        groups=(),
        hypervisor=Fact(None, blank("host")),
        tdx_guest=Fact(None, blank("host")),
        tdx_host_platform=Fact(None, blank("host")),
        movdir64b=Fact(None, blank("host")),
        pw_mce=Fact(None, blank("host")),
        kvm_parameter=Fact(None, blank("host")),
        key_ids=Fact(None, blank("host")),
        module_version=Fact(None, blank("host")),
        log_enabled=Fact(None, blank("host")),
        log_off=Fact(None, blank("host")),
        log_ready=Fact(None, blank("host")),
        log_kexec=Fact(None, blank("host")),
        log_module=Fact(None, blank("host")),
        release=Fact(None, blank("--kernel")),
        symbols=Fact(None, blank("host")),
        config=Fact(None, blank("host")),
    )


def fake_cpu(facts: HostFacts, cpu: FakedCpu) -> HostFacts:
    """Return *facts* with another CPU.

    What the real kernel said of the real CPU does not hold for another one and
    becomes unknown; that TDX is active, or that this is a guest, stays.
    """
    counts: dict[CpuGroup, int | None] = {}
    for group in facts.groups or (CpuGroup(),):
        faked = cpu.over(group).sized(None)
        # Groups that differed in what was replaced are one now.
        counts[faked] = (counts.get(faked) or 0) + (group.size or 0) or None
    groups = tuple(group.sized(count) for group, count in counts.items())
    shown = "; ".join(group.describe() for group in groups)
    identity = Evidence(cpu.option, shown, Origin.FAKED)
    gone = Evidence(cpu.option, NOT_KNOWN_OF_FAKED, Origin.FAKED)
    return facts._replace(
        identity=identity,
        architecture="x86",
        groups=groups,
        tdx_host_platform=_if_true(facts.tdx_host_platform, gone),
        log_enabled=_if_true(facts.log_enabled, gone),
        movdir64b=Fact(None, gone),
        pw_mce=Fact(None, gone),
        log_kexec=Fact(None, gone),
        log_module=Fact(None, gone),
        witnesses=(),
        coverage=Coverage(
            tuple(gap for gap in facts.coverage.gaps if gap.part is not Part.IDENTITY)
        ),
        bugs=NO_WORDS,
        forcing="",
    )


def fake_kernel(facts: HostFacts, release: str) -> HostFacts:
    """Return *facts* with another kernel release.

    The real kernel's symbols, and what it has brought up, do not hold for it.
    """
    gone = Evidence("--kernel", NOT_KNOWN_OF_FAKED, Origin.FAKED)
    return facts._replace(
        release=Fact(release, Evidence("--kernel", release, Origin.FAKED)),
        symbols=Fact(None, gone),
        config=Fact(None, gone),
        kvm_parameter=Fact(None, gone),
        key_ids=Fact(None, gone),
        module_version=Fact(None, gone),
        log_off=Fact(None, gone),
        log_ready=Fact(None, gone),
        log_kexec=Fact(None, gone),
        images=None,
        newest=None,
        livepatches=0,
    )


def lay_images(facts: HostFacts, images: Images, release: str | None = None) -> HostFacts:
    """Return *facts* with the kernel whose parts are in *images*, of *release* if they name none.

    Where that is the host's own kernel, by its whole release, what is known
    of it stays; another one takes its place as in `fake_kernel`.
    """
    release = images.release or release
    if not _is_own(facts.release.value, images):
        named = Evidence(images.parts[0].path, release or NOT_GIVEN, images.origin)
        facts = fake_kernel(facts, "")._replace(release=Fact(release, named))
    symbols = facts.symbols
    for part in images.parts:
        names = part.content.names
        if names and not (symbols.value and symbols.value.found):
            found = tuple(Symbol("T", name, None) for name in names)
            seen = Evidence(part.path, ", ".join(map(str, found)), images.origin)
            symbols = Fact(Symbols(found), seen)
    return facts._replace(images=images, symbols=symbols)


def _is_own(release: str | None, images: Images) -> bool:
    """Whether *images* are of the kernel that calls itself *release*."""
    if release is None or images.release is None:
        return False
    if any(part.release for part in images.parts):
        return images.release == release
    from tdxreclaim.facts.images.parts import fits

    return fits(images.release, release)


def _if_true(fact: Fact[bool], gone: Evidence) -> Fact[bool]:
    return fact if fact.value else Fact(None, gone)
