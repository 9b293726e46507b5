"""The JSON Schemas of our output, as files of the package.

Keys may be added under the same version, so the objects are open: a reader
ignores what it does not know.
"""

from __future__ import annotations

# The one version of each that is written; a changed meaning is a new one.
VERSIONS = {
    "calibrate": 2,
    "calibration": 1,
    "check": 2,
    "drain": 1,
    "errata": 2,
    "error": 1,
    "explain": 1,
    "findings": 2,
    "fleet": 1,
    "scenario": 2,
    "simulate": 2,
    "sweep": 1,
    "sweep-row": 1,
    "triage": 2,
    "validate": 2,
    "watch": 1,
}


def read_schema(name: str) -> str:
    """Return the text of schema *name* (``check``, ``errata``, ``error``).

    Raises:
        KeyError: there is none of that name.

    """
    from importlib.resources import files

    path = files(__name__).joinpath(f"{name}-{VERSIONS[name]}.json")
    return path.read_text(encoding="utf-8")
