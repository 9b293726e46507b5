"""Calibrations: the ones that come with the package, and those in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdxreclaim.costs.calibration import Calibration


def read_calibration(name: str) -> Calibration:
    """Return the shipped calibration of that name, or the one in that file.

    Raises:
        HostReadError, MalformedInputError: the file; with the field, of a bad one.

    """
    from tdxreclaim.costs.calibration import SHIPPED
    from tdxreclaim.costs.toml import load
    from tdxreclaim.errors import HostReadError
    from tdxreclaim.facts.sources.base import read_file

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


_CALIBRATIONS = "tdxreclaim.costs.calibrations"


def read_shipped_calibration(name: str) -> str:
    """Return the TOML text of a calibration that comes with the package.

    Raises:
        FileNotFoundError: there is none of that name.

    """
    from importlib.resources import files

    return files(_CALIBRATIONS).joinpath(f"{name}.toml").read_text(encoding="utf-8")
