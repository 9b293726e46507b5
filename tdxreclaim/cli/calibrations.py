"""Calibrations by name or file, for every command that takes one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdxreclaim.engine.calibration import Calibration


def read_calibration(name: str) -> Calibration:
    """Return the shipped calibration of that name, or the one in that file.

    Raises:
        HostReadError, MalformedInputError: the file; with the field, of a bad one.

    """
    from tdxreclaim.engine.calibration import SHIPPED, load
    from tdxreclaim.errors import HostReadError
    from tdxreclaim.facts.source import read_file, read_shipped_calibration

    if name in SHIPPED:
        return load(read_shipped_calibration(name), name)
    try:
        text = read_file(name)
    except HostReadError as error:
        if "/" in name or name.endswith(".toml"):
            raise
        known = ", ".join(SHIPPED)
        raise HostReadError(
            name, f"{error.why}; shipped calibrations: {known}", error.errno
        ) from error
    return load(text, name)
