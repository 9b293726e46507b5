"""Calibrations as TOML: what `calibration.load` reads, the same bytes every time.

The standard library reads TOML and does not write it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tdxreclaim.engine.calibration import SCHEMA, Beyond, Calibration
from tdxreclaim.policy.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.engine.calibration import Origin, Row, Span, StepCost
    from tdxreclaim.engine.plan import Action


def dump(calibration: Calibration) -> str:
    """Return the calibration as the text of a TOML file; reading it gives it back."""
    return "\n".join(_lines(calibration)) + "\n"


def _lines(calibration: Calibration) -> Iterator[str]:
    yield "# Written by tdxreclaim calibrate; see tdxreclaim-calibrate(1) for what is in it."
    yield ""
    yield f"schema = {text(SCHEMA)}"
    yield ""
    yield "[record]"
    yield from _origin(calibration.itself)
    yield from _list("assumptions", calibration.assumptions)
    yield from _list("leaves_out", calibration.leaves_out)
    for source in calibration.sources:
        yield from ("", "[[sources]]", *_origin(source))
    for action, cost in calibration.steps.items():
        yield from _step(action, cost)
    for row in calibration.rows:
        yield from _row(row)


def text(value: str) -> str:
    r"""Return a TOML basic string; JSON's escapes are TOML's, but for DEL.

    >>> print(text('a "b"'), text(chr(127)))
    "a \"b\"" "\u007f"
    """
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(name: str, values: tuple[str, ...]) -> Iterator[str]:
    if not values:
        yield f"{name} = []"
        return
    yield f"{name} = ["
    for value in values:
        yield f"  {text(value)},"
    yield "]"


def _origin(origin: Origin) -> Iterator[str]:
    for name, value in origin._asdict().items():
        if value is not None:
            yield f"{name} = {text(value)}"


def _step(action: Action, cost: StepCost) -> Iterator[str]:
    yield from ("", f"[steps.{action}]")
    yield f"provenance = {text(cost.provenance)}"
    yield f"source = {text(cost.source)}"
    if cost.stand_in is not None:
        yield f"stand_in = {text(cost.stand_in)}"
    if cost.taken_from is not None:
        yield f"taken_from = {text(cost.taken_from)}"
    if len(cost.points) == 1 and cost.points[0].vcpus == 1 and cost.beyond is Beyond.HOLD:
        yield from _span(cost.points[0].cost)
        return
    yield f"beyond = {text(cost.beyond)}"
    for point in cost.points:
        yield from ("", f"[[steps.{action}.points]]", f"vcpus = {point.vcpus}")
        yield from _span(point.cost)


def _span(span: Span) -> Iterator[str]:
    for name, value in span._asdict().items():
        yield f"{name} = {value:_}"


def _row(row: Row) -> Iterator[str]:
    yield from ("", "[[rows]]")
    yield f"order = {text(row.order)}"
    yield f"clearing = {text(row.clearing)}"
    yield f"vcpus = {row.vcpus}"
    yield f"memory_bytes = {row.memory_bytes:_} # {format_size(row.memory_bytes)}"
    yield f"seconds = {row.seconds}"
    yield f"source = {text(row.source)}"
