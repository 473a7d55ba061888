"""Tables as lines of text: fitted to a terminal and coloured, or plain for a pipe.

Made here and not by rich, which takes a second for 1,000 lines and a fifth of one for none.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any
from unicodedata import combining, east_asian_width

Rows = Sequence[Sequence[Any]]
GAP = "  "
NARROWEST = 8  # characters; a terminal that cannot hold that much breaks the lines itself
_BOLD = "1"
_STYLES = {
    "switched": "32",
    "loaded": "36",
    "loading": "33",
    "failed": "31",
    "cleaned": "2",
    "discovered": "2",
}


def plain(columns: Sequence[str], rows: Rows) -> list[str]:
    """Return a line for each row, under the names of the columns."""
    table = [list(columns), *([cell.replace("\n", " ") for cell in row] for row in _texts(rows))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [_line(row, widths).rstrip() for row in table]


def fitted(columns: Sequence[str], rows: Rows, room: int) -> list[str]:
    """Return lines that fit into ``room`` characters: the widest columns are folded; states have colours."""
    cells = _texts(rows)
    widest = [max(map(_width, column)) for column in zip(columns, *cells, strict=True)]
    widths = _fit(widest, room - len(GAP) * (len(widest) - 1))
    head = _styled(_line(columns, widths).rstrip(), _BOLD)
    return [head, *(line for row in cells for line in _fold(row, widths))]


def _texts(rows: Rows) -> list[list[str]]:
    return [["" if cell is None else _printable(str(cell)) for cell in row] for row in rows]


def _printable(text: str) -> str:
    """Without what would steer a terminal: an error may quote anything."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def _width(text: str) -> int:
    """Columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def _fit(widths: list[int], room: int) -> list[int]:
    while sum(widths) > room and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return widths


def _fold(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    parts = [_wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
    styles = [_STYLES.get(cell, "") for cell in row]
    for pieces in zip_longest(*parts, fillvalue=""):
        yield _line(pieces, widths, styles).rstrip()


def _wrap(cell: str, width: int) -> list[str]:
    if _width(cell) <= width and "\n" not in cell:
        return [cell]
    lines = (textwrap.wrap(line, width, break_on_hyphens=False) or [""] for line in cell.split("\n"))
    return [piece for line in lines for piece in line]


def _line(pieces: Sequence[str], widths: Sequence[int], styles: Sequence[str] = ()) -> str:
    padded = (piece + " " * (width - _width(piece)) for piece, width in zip(pieces, widths, strict=True))
    return GAP.join(_styled(text, style) for text, style in zip_longest(padded, styles, fillvalue=""))


def _styled(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if style and not os.environ.get("NO_COLOR") else text
