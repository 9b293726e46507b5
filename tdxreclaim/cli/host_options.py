"""The options that say which host is meant, shared by every command that asks about one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tdxreclaim.cli import completion
from tdxreclaim.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.facts.fake import FakedCpu
    from tdxreclaim.facts.host import HostFacts
    from tdxreclaim.facts.images.parts import Images
    from tdxreclaim.facts.sources.base import Source

_CAPTURE_FORMATS = ("cpuinfo", "lscpu", "lscpu-json", "cpuid", "kernel-log", "tree", "tar")


class Host(NamedTuple):
    """The facts about the host that is meant, and how it is named."""

    facts: HostFacts
    source: str
    form: str


def _once(*names: str, **settings: Any) -> Callable[..., Any]:  # noqa: ANN401  (click's)
    """Return an option that may be given once: of two hosts the last must not win quietly."""

    def only(_: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> str | None:
        if len(given) > 1:
            raise UsageError(parameter.opts[0], f"given {len(given)} times")
        return given[0] if given else None

    return click.option(*names, multiple=True, callback=only, **settings)


image_option = click.option(
    "--image",
    metavar="PATH",
    multiple=True,
    shell_complete=completion.files,
    help="Read a kernel that need not run: kvm-intel.ko, vmlinuz, vmlinux, a configuration, "
    "System.map, Module.symvers, /boot, /usr/lib/modules/RELEASE, a root, a .deb. May be given "
    "several times, all of one kernel.",
)


def host_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `read_chosen_host` takes."""
    options = (
        _once(
            "--from",
            "from_",
            metavar="PATH",
            shell_complete=completion.files,
            help="Read a captured host: /proc/cpuinfo, lscpu (text, -J), cpuid -r, a kernel log, "
            "a directory or tar of /proc and /sys, a sosreport; - is standard input.",
        ),
        _once(
            "--from-format",
            type=click.Choice(_CAPTURE_FORMATS),
            help="Format of --from, if it is not recognised.",
        ),
        _once(
            "--cpu",
            metavar="CPU",
            shell_complete=completion.cpus,
            help="Fake the CPU: spr, emeraldrapids, INTEL_GRANITERAPIDS_X, 6/0x8f, 06-8f-08, or a "
            "CPUID signature such as 0x806F8.",
        ),
        _once("--vendor", metavar="ID", help="Fake the vendor (GenuineIntel)."),
        _once("--family", metavar="N", help="Fake the family (decimal, or hex with 0x)."),
        _once("--model", metavar="N", help="Fake the model."),
        _once("--stepping", metavar="N", help="Fake the stepping."),
        _once(
            "--kernel",
            metavar="RELEASE",
            shell_complete=completion.kernels,
            help="Fake the kernel release, such as 6.17.",
        ),
        image_option,
        click.option(
            "--live",
            is_flag=True,
            help="Apply the faked parts to this host; without it, faking a CPU ignores this host.",
        ),
        click.option(
            "--cross-check",
            is_flag=True,
            help="Ask py-cpuinfo too (takes over a second) and report where it disagrees.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def read_chosen_host(
    *,
    symbols: bool,
    from_: str | None,
    from_format: str | None,
    cpu: str | None,
    vendor: str | None,
    family: str | None,
    model: str | None,
    stepping: str | None,
    kernel: str | None,
    live: bool,
    cross_check: bool,
    image: tuple[str, ...] = (),
) -> Host:
    """Return the host that the options mean.

    ``symbols=False`` leaves out what only the posture depends on.

    Raises:
        UsageError: the options contradict each other, or a value is wrong.
        HostReadError, MalformedInputError: the host cannot be read.

    """
    from tdxreclaim.facts.host import read_host
    from tdxreclaim.facts.sources.live import installed_kernels

    faked = _faked_cpu(cpu, vendor, family, model, stepping)
    if kernel is not None:
        from tdxreclaim.cli.values import parse_kernel

        kernel = str(parse_kernel(kernel))
    if from_ == "":
        raise UsageError("--from", "the name is empty")
    if from_ is not None and live:
        raise UsageError("--live", "contradicts --from")
    if from_format is not None and from_ is None:
        raise UsageError("--from-format", "requires --from")
    if cross_check and (from_ is not None or faked is not None):
        raise UsageError("--cross-check", "compares this host's own CPU; not with --from or --cpu")

    images = _images(image, kernel)
    if from_ is None and faked is not None and not live:
        host, faked = _nothing_but(faked)
    elif from_ is None and images is not None and not live:
        from tdxreclaim.facts.fake import nothing_known

        host = Host(nothing_known(), "command line", "faked")
    else:
        source, name, form = _open(from_, from_format)
        with contextlib.closing(source):
            facts = read_host(
                source,
                symbols=symbols,
                cross_check=cross_check,
                installed=installed_kernels if from_ is None else None,
            )
        host = Host(facts, name, form)
    return _lay_over(host, faked, kernel, images)


def read_named_host(cpu: str | None, kernel: str | None) -> HostFacts:
    """Return a host of which CPU and kernel are known by name, and nothing else.

    Raises:
        UsageError: one of them is none.

    """
    from tdxreclaim.cli.values import parse_kernel
    from tdxreclaim.facts.fake import fake_kernel, nothing_known

    facts = nothing_known()
    faked = _faked_cpu(cpu, None, None, None, None)
    if faked is not None:
        facts = _lay_over(*_nothing_but(faked), None, None).facts
    return facts if kernel is None else fake_kernel(facts, str(parse_kernel(kernel)))


def _images(paths: tuple[str, ...], kernel: str | None) -> Images | None:
    """Return the kernel that the files at *paths* are of, that of release *kernel* if given."""
    if not paths:
        return None
    from tdxreclaim.facts.images.open import read_images

    if "" in paths:
        raise UsageError("--image", "the name is empty")
    return read_images(paths, kernel)


def with_images(facts: HostFacts, paths: tuple[str, ...], name: str) -> HostFacts:
    """Return the facts of the host *name* with what the files of its own kernel tell.

    Raises:
        HostReadError, MalformedInputError: one of *paths* cannot be read, or
            is of another kernel.

    """
    if not paths:
        return facts
    from tdxreclaim.facts.fake import lay_images
    from tdxreclaim.facts.images.open import read_images

    release = facts.release.value
    return lay_images(facts, read_images(paths, release, name), release)


def _open(from_: str | None, from_format: str | None) -> tuple[Source, str, str]:
    if from_ is None:
        from tdxreclaim.facts.sources.live import Live

        return Live(), "this host", "live"
    from tdxreclaim.facts.sources.recognise import CaptureFormat, open_capture

    capture = open_capture(from_, CaptureFormat(from_format) if from_format else None)
    return capture.source, "standard input" if from_ == "-" else from_, capture.format


def _nothing_but(faked: FakedCpu) -> tuple[Host, FakedCpu]:
    """Return a host of which nothing is known, for a CPU that is faked whole."""
    from tdxreclaim.facts.fake import nothing_known
    from tdxreclaim.tables.cpus import INTEL

    for option, value in (("--family", faked.family), ("--model", faked.model)):
        if value is None:
            raise UsageError(
                option, "needed with the other parts of a CPU (or apply them to this host: --live)"
            )
    return Host(nothing_known(), "command line", "faked"), faked._replace(
        vendor=faked.vendor or INTEL
    )


def _lay_over(
    host: Host, faked: FakedCpu | None, kernel: str | None, images: Images | None
) -> Host:
    if faked is None and kernel is None and images is None:
        return host
    from tdxreclaim.facts.fake import fake_cpu, fake_kernel, lay_images

    facts = host.facts
    if faked is not None:
        facts = fake_cpu(facts, faked)
    if images is not None:
        facts = lay_images(facts, images, kernel)
    elif kernel is not None:
        facts = fake_kernel(facts, kernel)
    return host._replace(facts=facts)


def _faked_cpu(
    cpu: str | None,
    vendor: str | None,
    family: str | None,
    model: str | None,
    stepping: str | None,
) -> FakedCpu | None:
    if all(value is None for value in (cpu, vendor, family, model, stepping)):
        return None
    from tdxreclaim.cli.values import checked, parse_cpu, parse_number, parse_vendor
    from tdxreclaim.facts.cpu import FAMILY_MAX, MODEL_MAX, STEPPING_MAX
    from tdxreclaim.facts.fake import FakedCpu

    def number(option: str, text: str | None, largest: int) -> int | None:
        return None if text is None else parse_number(option, text, largest)

    if cpu is not None:
        for option, value in (("--family", family), ("--model", model)):
            if value is not None:
                raise UsageError(option, "contradicts --cpu")
        whole = _with_vendor(parse_cpu(cpu), vendor)
        step = number("--stepping", stepping, STEPPING_MAX)
        if step is not None and whole.stepping is not None:
            raise UsageError("--stepping", "contradicts --cpu, which has one")
        return whole if step is None else checked(whole._replace(stepping=step))
    given = [
        name
        for name, value in (
            ("--vendor", vendor),
            ("--family", family),
            ("--model", model),
            ("--stepping", stepping),
        )
        if value is not None
    ]
    return checked(
        FakedCpu(
            " ".join(given),
            parse_vendor("--vendor", vendor) if vendor is not None else None,
            number("--family", family, FAMILY_MAX),
            number("--model", model, MODEL_MAX),
            number("--stepping", stepping, STEPPING_MAX),
        )
    )


def _with_vendor(cpu: FakedCpu, vendor: str | None) -> FakedCpu:
    """Return *cpu* with the vendor that a CPUID signature leaves open."""
    from tdxreclaim.cli.values import parse_vendor
    from tdxreclaim.tables.cpus import INTEL

    if cpu.vendor is not None:
        if vendor is not None:
            raise UsageError("--vendor", "contradicts --cpu, which has one")
        return cpu
    if vendor is not None:
        return cpu._replace(vendor=parse_vendor("--vendor", vendor), option="--cpu --vendor")
    click.echo(
        f"tdxreclaim: --cpu: a CPUID signature names no vendor: {INTEL} is assumed "
        "(--vendor names another)",
        err=True,
    )
    return cpu._replace(vendor=INTEL, option=f"--cpu ({INTEL} assumed)")
