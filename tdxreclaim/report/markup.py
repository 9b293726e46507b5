"""Text that is not ours inside Markdown and CSV, where it must not act."""

from __future__ import annotations

from tdxreclaim.facts.evidence import flat

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_[]<>#|~"} | {"@": "&#64;"})


def plain(text: str) -> str:
    """Return *text* with nothing in it that Markdown would act on."""
    return flat(text).translate(_SPECIAL)


def code(text: str) -> str:
    """Return *text* as a code span, however many backticks are in it."""
    text, fence = flat(text), "`"
    while fence in text:
        fence += "`"
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def cell(text: str) -> str:
    """Return *text* as a cell that no spreadsheet takes for a formula.

    >>> cell("=1+1"), cell("6.17")
    ("'=1+1", '6.17')
    """
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
