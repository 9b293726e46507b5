"""A local fact: Ansible runs it and takes the JSON that it prints."""

from __future__ import annotations

_FACT = """\
#!/bin/sh
# Executable (mode 0755).  After an error the JSON has "error", never an answer.
exec tdxreclaim check --format json --exit-zero
"""


def render() -> str:
    """Return the script."""
    return _FACT
