"""A page of text: the one place that draws with rich."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from tdxreclaim.facts.evidence import flat

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LEAST_WIDTH = 40
_LEAST_ROOM = 28


_INDENT = 2


_LABEL = 10


class Page:
    """Lines of a page, wrapped at words; nothing is cut off, long words are folded."""

    def __init__(self, width: int, *, color: bool) -> None:
        self.width = max(width, LEAST_WIDTH)
        self._out = io.StringIO()
        # Nothing of the environment: width and colour are arguments.
        self._console = Console(
            file=self._out,
            width=self.width,
            color_system="standard" if color else None,
            force_terminal=color,
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
            _environ={},
        )

    def blank(self) -> None:
        """Add an empty line."""
        self._print(Text())

    def heading(self, text: str) -> None:
        """Add an empty line and a heading."""
        self.blank()
        self._print(Text(text, style="bold"))

    def paragraph(
        self,
        text: str,
        style: str = "",
        *,
        first: str = "",
        indent: int = 0,
        most: int | None = None,
    ) -> None:
        """Add *text*; *first* stands before its first line, *indent* before the others.

        What is beyond *most* lines is cut, which "..." says.
        """
        room = self.width - max(len(first), indent)
        lines = self._lines(text, style, room, most)
        for number, line in enumerate(lines):
            head = first if number == 0 else " " * indent
            self._print(Text(head).append_text(line))

    def labelled(self, label: str, text: str, style: str = "", *, most: int | None = None) -> None:
        """Add *label* and, beside it, *text*, cut after *most* lines."""
        first = f"{'':{_INDENT}}{label:<{_LABEL}}"
        self.paragraph(text, style, first=first, indent=len(first), most=most)

    @property
    def lines(self) -> int:
        """How many lines there are so far."""
        return self._out.getvalue().count("\n")

    def row(self, head: str, text: str, tail: str, style: str = "", *, most: int = 1) -> None:
        """Add *head*, *text* in up to *most* lines beside it, and *tail* at the first one's end.

        Where there is no room beside *head*, the text stands below it.
        """
        room = self.width - len(head) - len(tail) - 1
        if room < _LEAST_ROOM:
            self.paragraph(f"{head}{flat(tail)}", style)
            self.paragraph(text, style, first="      ", indent=6)
            return
        lines = self._lines(text, style, room, most)
        for number, line in enumerate(lines):
            line.pad_right(room - line.cell_len)
            before, after = (head, tail) if number == 0 else (" " * len(head), "")
            whole = Text(before, style=style).append_text(line).append(f" {flat(after)}")
            whole.rstrip()
            self._print(whole)

    def _lines(self, text: str, style: str, room: int, most: int | None) -> list[Text]:
        # Whatever it is and wherever it is from: one line, and safe for a terminal.
        lines = list(Text(flat(text), style=style).wrap(self._console, room, overflow="fold"))
        if most is not None and len(lines) > most:
            last = lines[most - 1]
            last.rstrip()
            last.truncate(room - 4)
            last.append(" ...")
            lines = lines[:most]
        for line in lines:
            line.rstrip()
        return lines

    def ends(self, left: str, right: str) -> None:
        """Add *left* and, at the other end of the line if there is room, *right*."""
        room = self.width - len(left) - len(right)
        if room > 1:
            self._print(Text(left).append(" " * room + right, style="dim"))
        else:
            self.paragraph(left)
            self.paragraph(right, "dim")

    def item(self, text: str) -> None:
        """Add *text* as one of a list."""
        self.paragraph(text, first="  - ", indent=4)

    def table(self, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Add a table without lines; a title that begins with ``>`` is over numbers."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("")
        for title in titles:
            right = title.startswith(">")
            table.add_column(
                title.removeprefix(">"), justify="right" if right else "left", overflow="fold"
            )
        for row in rows:
            table.add_row("", *row)
        self._console.print(table)

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def text(self) -> str:
        """Return the page, without the blanks that a table ends its lines with."""
        return re.sub(r" +$", "", self._out.getvalue(), flags=re.MULTILINE)
