"""A shell function for provisioning scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.integration.statuses import careful, failures, meaning, safe

if TYPE_CHECKING:
    from collections.abc import Iterator


def render() -> str:
    """Return the function, for POSIX sh."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Is there no need to clear reclaimed TDX pages?  True only where that is certain, or where"
    yield "# this is no TDX host and so has none."
    yield "tdx_may_skip_clearing() {"
    yield '    tdxreclaim check --quiet "$@"'
    yield "    case $? in"
    for status in safe():
        yield f"    {status.value}) return 0 ;; # {meaning(status)}"
    for status in careful():
        yield f"    {status.value}) return 1 ;; # {meaning(status)}"
    for status in failures():
        yield f"    {status.value}) return 2 ;; # {meaning(status)}"
    yield "    *) return 2 ;; # reserved, not found, killed: no answer, so clear"
    yield "    esac"
    yield "}"
    yield ""
    yield "if tdx_may_skip_clearing; then echo skip; else echo clear; fi"
