"""A Python function for provisioning programs; needs only the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.integration.statuses import careful, meaning, safe

if TYPE_CHECKING:
    from collections.abc import Iterator


def render() -> str:
    """Return the function, for Python 3.8 and later."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "import subprocess"
    yield ""
    yield "MUST_CLEAR = {"
    for status in (*safe(), *careful()):
        yield f"    {status.value}: {status in careful()},  # {meaning(status)}"
    yield "}"
    yield ""
    yield ""
    yield "def must_clear(*options):"
    yield '    """Must reclaimed TDX pages be cleared?  RuntimeError where there is no answer."""'
    yield '    command = ["tdxreclaim", "check", "--quiet", *options]'
    yield "    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=60)"
    yield "    try:"
    yield "        return MUST_CLEAR[done.returncode]"
    yield "    except KeyError:"
    yield '        problem = done.stderr.decode("utf-8", "replace").strip()'
    yield '        raise RuntimeError(problem or f"exit status {done.returncode}") from None'
    yield ""
    yield ""
    yield 'if __name__ == "__main__":'
    yield '    print("clear" if must_clear() else "skip")'
