"""`tdxreclaim simulate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tdxreclaim.cli import completion
from tdxreclaim.cli.host_options import host_options, read_chosen_host
from tdxreclaim.cli.output import (
    FORMATS,
    calibration_option,
    color_option,
    emit,
    format_option,
    help_option,
    output_option,
    shows_blocks,
    terminal_width,
    wants_color,
    write_whole,
)
from tdxreclaim.cli.progress import Progress
from tdxreclaim.costs.shipped import read_calibration
from tdxreclaim.errors import MalformedInputError, UsageError

if TYPE_CHECKING:
    from tdxreclaim.costs.calibration import Calibration
    from tdxreclaim.engine.faults import Injections
    from tdxreclaim.report.simulate.simulation import Simulation

_FAULTS = ("partial-writes", "poison-hardware", "poison-integrity", "busy", "reclaim-fails")


@click.command(
    add_help_option=False, short_help="Emulate the shutdown of a TD: its time, its leftovers."
)
@click.option("--memory", metavar="SIZE", help="The TD's memory: 18G, 107GB, 400GiB, 1.2TiB.")
@click.option(
    "--mapped",
    metavar="SIZE|PERCENT",
    help="How much of it is private and mapped: 64GiB, 25 % (all of it, unless given).",
)
@click.option("--vcpus", metavar="N", help="The TD's vCPUs.")
@click.option(
    "--packages", metavar="N", default="1", show_default=True, help="The host's packages."
)
@host_options
@click.option(
    "--order",
    type=click.Choice(("upstream", "hkid-first")),
    help="What comes first: the pages (every release) or the HKID (no release; emulation only).",
)
@click.option(
    "--clear",
    type=click.Choice(("always", "erratum", "never")),
    help="Override when the kernel clears.",
)
@click.option(
    "--inject",
    metavar="FAULT=N[,…]",
    multiple=True,
    help=f"Put faults in: {', '.join(_FAULTS)}, each with a number; fatal.",
)
@click.option("--seed", metavar="N", default="0", show_default=True, help="Where the faults go.")
@calibration_option
@click.option(
    "--compare",
    metavar="KERNEL[,…]",
    default="all",
    show_default=True,
    help="The what-ifs: upstream releases (6.17), hkid-first; all, none.",
)
@click.option("--trace", metavar="N", default="0", help="Show the first N steps.")
@click.option("--at-page", metavar="PFN", multiple=True, help="Show the life of one page.")
@click.option("--validate", is_flag=True, help="Show published times beside emulated ones.")
@click.option("--explain", is_flag=True, help="Show steps, leftovers, assumptions and sources too.")
@format_option(*FORMATS)
@output_option
@click.option(
    "--svg", metavar="FILE", shell_complete=completion.files, help="Draw it into FILE too."
)
@click.option(
    "--html",
    metavar="FILE",
    shell_complete=completion.files,
    help="Draw it on a page that unfolds into FILE too.",
)
@color_option
@click.option(
    "--exit-zero", is_flag=True, help="Exit 0 whatever the answer is; errors still exit non-zero."
)
@help_option
@click.pass_context
def simulate(
    ctx: click.Context,
    /,
    *,
    memory: str | None,
    mapped: str | None,
    vcpus: str | None,
    packages: str,
    order: str | None,
    clear: str | None,
    inject: tuple[str, ...],
    seed: str,
    calibration: str,
    compare: str,
    trace: str,
    at_page: tuple[str, ...],
    validate: bool,
    explain: bool,
    format_: str,
    output: str | None,
    svg: str | None,
    html: str | None,
    color: str,
    exit_zero: bool,
    **host: Any,  # noqa: ANN401  (the options of read_chosen_host, as click gives them)
) -> None:
    """Emulate the shutdown of a TD: how long it takes, and what it leaves behind.

    CPU and kernel are this host's, a captured one's or faked, as in check.
    Emulates the shutdown page by page and estimates its time from a
    calibration, as a range.  Exit status 20: it ends in machine
    checks, or pages do not come back as they should.
    """
    record = read_calibration(calibration)
    colored, width = wants_color(color, output), terminal_width()
    if validate:
        for option, value in (
            ("--svg", svg),
            ("--html", html),
            ("--memory", memory),
            ("--mapped", mapped),
        ):
            if value is not None:
                raise UsageError(option, "has no effect with --validate")
        emit(_validation(record, format_, width=width, color=colored), output, color=colored)
        ctx.exit(0)
    simulation = _simulate(
        record,
        memory=_needed("--memory", "the TD's memory", memory),
        mapped=mapped,
        vcpus=_needed("--vcpus", "how many vCPUs the TD has", vcpus),
        packages=packages,
        order=order,
        clear=clear,
        inject=inject,
        seed=seed,
        compare=compare,
        trace=trace,
        at_page=at_page,
        host=host,
    )
    text = _render(simulation, format_, width=width, color=colored, explain=explain)
    emit(text, output, color=colored)
    _draw(simulation, svg, html)
    ctx.exit(0 if exit_zero else simulation.exit_status)


def _needed(option: str, what: str, value: str | None) -> str:
    if value is None:
        raise UsageError(option, f"needed: {what} (see tdxreclaim simulate --help)")
    return value


def _simulate(
    calibration: Calibration,
    *,
    memory: str,
    mapped: str | None,
    vcpus: str,
    packages: str,
    order: str | None,
    clear: str | None,
    inject: tuple[str, ...],
    seed: str,
    compare: str,
    trace: str,
    at_page: tuple[str, ...],
    host: dict[str, Any],
) -> Simulation:
    from tdxreclaim.cli.values import naming_options, parse_number
    from tdxreclaim.costs.scene import compare as what_ifs
    from tdxreclaim.costs.scene import set_scene
    from tdxreclaim.costs.simulate import simulate as run
    from tdxreclaim.engine.plan import ClearWhen, Order
    from tdxreclaim.engine.shape import MAX_VCPUS, Shape
    from tdxreclaim.policy.decide import decide
    from tdxreclaim.report.simulate.simulation import Simulation
    from tdxreclaim.units import parse_share, parse_size

    memory_bytes = parse_size("--memory", memory)
    with naming_options():
        shape = Shape(
            memory_bytes=memory_bytes,
            vcpus=_parse_count("--vcpus", vcpus, MAX_VCPUS),
            mapped=None if mapped is None else parse_share("--mapped", mapped).of(memory_bytes),
        )
    faults = _parse_faults(inject)
    steps = parse_number("--trace", trace, 100_000)
    watched = [parse_number("--at-page", pfn, 1 << 52) for pfn in at_page]
    names = _parse_comparison(compare)
    seed_number = parse_number("--seed", seed, 1 << 63)
    package_count = _parse_count("--packages", packages, 64)
    chosen = read_chosen_host(symbols=True, **host)
    decision = decide(chosen.facts)
    with naming_options():
        scene = set_scene(
            decision,
            packages=package_count,
            order=Order(order) if order else None,
            clearing=ClearWhen(clear) if clear else None,
        )
    with naming_options(), Progress("simulate", "pages") as progress:
        result = run(
            shape,
            scene.plan,
            scene.platform,
            calibration,
            faults,
            seed=seed_number,
            trace=steps,
            watch=watched,
            progress=progress.show,
        )
    compared = what_ifs(shape, scene, calibration, names)
    return Simulation(
        decision=decision,
        source=chosen.source,
        scene=scene,
        shape=shape,
        result=result,
        what_ifs=compared,
        calibration=calibration,
        trace=steps,
    )


def _parse_count(option: str, text: str, most: int) -> int:
    from tdxreclaim.cli.values import parse_number

    count = parse_number(option, text, most)
    if count == 0:
        raise UsageError(option, f"0 is out of range: 1 to {most}")
    return count


def _parse_faults(given: tuple[str, ...]) -> Injections:
    from tdxreclaim.cli.values import parse_number
    from tdxreclaim.engine.faults import MAX_INJECTED, Injections

    numbers: dict[str, int] = {}
    fatal = False
    for fault in ",".join(given).split(",") if given else ():
        name, equals, number = fault.strip().partition("=")
        if name == "fatal" and not equals:
            fatal = True
        elif name in _FAULTS and equals:
            key = name.replace("-", "_")
            if key in numbers:
                raise UsageError("--inject", f"{name} is given twice")
            numbers[key] = parse_number(f"--inject {name}", number, MAX_INJECTED)
        else:
            known = ", ".join(f"{each}=N" for each in _FAULTS)
            raise UsageError("--inject", f"{fault!r} is no fault ({known}, fatal)")
    return Injections(fatal=fatal, **numbers)


def _parse_comparison(text: str) -> tuple[str, ...]:
    from tdxreclaim.costs.scene import COMPARABLE, find_comparable

    if text in ("all", "none"):
        return tuple(COMPARABLE) if text == "all" else ()
    names: dict[str, None] = {}
    for name in map(str.strip, text.split(",")):
        found = find_comparable(name)
        if found is None:
            known = "a release that runs TDs (6.17), hkid-first, all, none"
            raise UsageError("--compare", f"{name!r} is none of {known}")
        names[found] = None
    return tuple(names)


def _validation(record: Calibration, format_: str, *, width: int, color: bool) -> str:
    from tdxreclaim.costs.estimate import validate

    rows = validate(record)
    if not rows:
        raise MalformedInputError(record.name, "it has no published teardowns to compare with")
    if format_ == "json":
        from tdxreclaim.report.simulate import json as simulation_json

        return simulation_json.render_validation(record, rows)
    if format_ == "shell":
        raise UsageError("--validate", "comes as text or json, not as shell")
    from tdxreclaim.report.simulate import text as simulation_text

    return simulation_text.render_validation(record, rows, width=width, color=color)


def _render(simulation: Simulation, format_: str, *, width: int, color: bool, explain: bool) -> str:
    match format_:
        case "json":
            from tdxreclaim.report.simulate import json as simulation_json

            return simulation_json.render(simulation)
        case "shell":
            from tdxreclaim.report.simulate import shell as simulation_shell

            return simulation_shell.render(simulation)
        case _:
            from tdxreclaim.report.simulate import text as simulation_text

            return simulation_text.render(
                simulation, width=width, color=color, blocks=shows_blocks(), explain=explain
            )


def _draw(simulation: Simulation, svg: str | None, html: str | None) -> None:
    if svg is None and html is None:
        return
    from tdxreclaim.report.simulate import picture

    for option, path in (("--svg", svg), ("--html", html)):
        if path == "-":
            raise UsageError(option, "needs the name of a file")
    if svg is not None:
        write_whole(svg, picture.render_svg(simulation))
    if html is not None:
        write_whole(html, picture.render_html(simulation))
