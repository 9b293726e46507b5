"""The JSON Schemas of our output, as files of the package.

Keys may be added under the same version, so the objects are open: a reader
ignores what it does not know.
"""

from __future__ import annotations


def read_schema(name: str) -> str:
    """Return the text of schema *name* (``check``, ``errata``, ``error``), first version."""
    from importlib.resources import files

    return files(__name__).joinpath(f"{name}-1.json").read_text(encoding="utf-8")
