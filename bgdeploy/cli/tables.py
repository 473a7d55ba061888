"""Tables as lines of text: fitted to a terminal and coloured, or plain for a pipe.

Made here and not by rich, which takes a second for 1,000 lines and a fifth of one for none.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any
from unicodedata import combining, east_asian_width

Rows = Sequence[Sequence[Any]]
GAP = "  "
NARROWEST = 8  # characters; a terminal that cannot hold that much breaks the lines itself
LEAST = 20  # characters that a text gets where it has a column of its own
MOST = 2  # lines of a text; where it is looked at alone, it stands there whole
INDENT = "    "
_BOLD = "1"
_STYLES = {
    "switched": "32",
    "loaded": "36",
    "loading": "33",
    "failed": "31",
    "cleaned": "2",
    "discovered": "2",
}


@dataclass(frozen=True)
class Shape:
    """What gives way on a narrow terminal; every other column has what people copy, and is never folded.

    ``text`` columns are folded and cut, the last one stands below its row where nothing else helps;
    ``spare`` columns are left out, in this order.
    """

    text: Sequence[str] = ()
    spare: Sequence[str] = ()


def plain(columns: Sequence[str], rows: Rows) -> list[str]:
    """Return a line for each row, under the names of the columns."""
    table = [list(columns), *([cell.replace("\n", " ") for cell in row] for row in _texts(rows))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [_line(row, widths).rstrip() for row in table]


def fitted(columns: Sequence[str], rows: Rows, room: int, shape: Shape | None = None) -> list[str]:
    """Return lines that fit into ``room`` characters: without a shape the widest columns are folded.

    With one a row may still be too wide: a name that is broken is worse. States have colours.
    """
    cells = _texts(rows)
    if shape is not None:
        return list(_shaped(columns, cells, room, shape))
    widest = [max(map(_width, column)) for column in zip(columns, *cells, strict=True)]
    widths = _fit(widest, room - len(GAP) * (len(widest) - 1))
    head = _styled(_line(columns, widths).rstrip(), _BOLD)
    return [head, *(line for row in cells for line in _fold(row, widths))]


def _shaped(columns: Sequence[str], cells: Sequence[Sequence[str]], room: int, shape: Shape) -> Iterator[str]:
    by_name = dict(zip(columns, zip(columns, *cells, strict=True), strict=True))
    widest = {name: max(map(_width, column)) for name, column in by_name.items()}
    kept, below = _place(widest, room, shape)
    widths = list(_shrink({name: widest[name] for name in kept}, room, shape).values())
    beside = zip(*(by_name[name] for name in kept), strict=True)
    under = by_name[below] if below and any(by_name[below][1:]) else [""] * (len(cells) + 1)
    for number, (row, text) in enumerate(zip(beside, under, strict=True)):
        lines = [*_fold(row, widths, MOST), *_under(text, room)]
        yield from lines if number else [_styled(line, _BOLD) for line in lines]


def _place(widest: Mapping[str, int], room: int, shape: Shape) -> tuple[list[str], str]:
    """Return the columns that stand side by side, and the one below them or ``""``: the fullest way that fits."""
    ways = list(_ways(widest, shape))
    least = {name: _least(name, width, shape) for name, width in widest.items()}
    return next((way for way in ways if _sum(least[name] for name in way[0]) <= room), ways[-1])


def _ways(columns: Collection[str], shape: Shape) -> Iterator[tuple[list[str], str]]:
    """The first spare column is given up before a text moves below its row, the others after that."""
    last = shape.text[-1] if shape.text else ""
    for out in range(len(shape.spare[:1]) + 1):
        yield [name for name in columns if name not in shape.spare[:out]], ""
    for out in range(len(shape.spare) + 1):
        yield [name for name in columns if name not in (*shape.spare[:out], last)], last


def _least(name: str, width: int, shape: Shape) -> int:
    if name not in shape.text:
        return width
    half = max(LEAST, width // MOST + LEAST // 2)  # and a word more: so that hardly anything is cut
    return min(width, half if name == shape.text[-1] else LEAST)


def _shrink(widths: dict[str, int], room: int, shape: Shape) -> dict[str, int]:
    """Take from the widest text, as long as one has more than its least."""
    least = {name: _least(name, width, shape) for name, width in widths.items()}
    while _sum(widths.values()) > room and (more := [name for name in widths if widths[name] > least[name]]):
        widths[max(more, key=lambda name: widths[name])] -= 1
    return widths


def _sum(widths: Iterable[int]) -> int:
    found = list(widths)
    return sum(found) + len(GAP) * (len(found) - 1)


def _under(cell: str, room: int) -> list[str]:
    lines = _cut(_wrap(cell, max(NARROWEST, room - len(INDENT))), room - len(INDENT), MOST) if cell else []
    return [INDENT + line for line in lines]


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


def _fold(row: Sequence[str], widths: Sequence[int], most: int | None = None) -> Iterator[str]:
    parts = [_cut(_wrap(cell, width), width, most) for cell, width in zip(row, widths, strict=True)]
    styles = [_STYLES.get(cell, "") for cell in row]
    for pieces in zip_longest(*parts, fillvalue=""):
        yield _line(pieces, widths, styles).rstrip()


def _wrap(cell: str, width: int) -> list[str]:
    if _width(cell) <= width and "\n" not in cell:
        return [cell]
    lines = (textwrap.wrap(line, width, break_on_hyphens=False) or [""] for line in cell.split("\n"))
    return [piece for line in lines for piece in line]


def _cut(lines: list[str], width: int, most: int | None) -> list[str]:
    """At most so many lines; the last one ends with an ellipsis, behind a whole word where there is one."""
    if most is None or len(lines) <= most:
        return lines
    last = lines[most - 1]
    short = last if _width(last) + 2 <= width else last.rpartition(" ")[0]
    return [*lines[: most - 1], f"{short} …" if short else f"{last[: width - 1]}…"]


def _line(pieces: Sequence[str], widths: Sequence[int], styles: Sequence[str] = ()) -> str:
    padded = (piece + " " * (width - _width(piece)) for piece, width in zip(pieces, widths, strict=True))
    return GAP.join(_styled(text, style) for text, style in zip_longest(padded, styles, fillvalue=""))


def _styled(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if style and not os.environ.get("NO_COLOR") else text
