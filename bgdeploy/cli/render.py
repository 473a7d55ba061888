"""How answers look: tables and values for people, JSON for scripts, errors with their cure on stderr.

Tables are fitted to a terminal and coloured, or plain for a pipe. They are made here and not by rich, which takes a
second for 1,000 lines and a fifth of one for none.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeVar
from unicodedata import combining, east_asian_width

import typer

from bgdeploy.actions import Hint, do
from bgdeploy.errors import BgdeployError, ExitCode, TargetError
from bgdeploy.plain import plain

if TYPE_CHECKING:
    from bgdeploy.service.results import Refusal

Rows = Sequence[Sequence[Any]]
Result = TypeVar("Result")

CLEAR = "\r\x1b[K"  # a terminal's line, to write it anew
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


def guarded(act: Callable[[], Result]) -> Result:
    """Return what it returns; a failure is told with its cure and ends with its exit code."""
    try:
        return act()
    except BgdeployError as error:
        failed = error
    except BrokenPipeError:
        sys.stderr.close()  # the reader (head, less) has seen enough
        raise SystemExit(ExitCode.OK) from None
    except KeyboardInterrupt:
        raise SystemExit(ExitCode.INTERRUPTED) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        cure: str | Hint = "Check that the disk is there, has room, and may be written to."
        if isinstance(error, FileExistsError | NotADirectoryError):
            other = "A folder is needed there: move the file away, or name another place; all there are: "
            cure = Hint(other, do("config"))
        failed = TargetError(f"{place}{error.strerror or error}.", cure=cure)
    tell(failed)
    raise SystemExit(int(failed.exit_code))


def tell(error: BgdeployError | Refusal) -> None:
    """Say what failed, what was left as it is, and what helps."""
    print(f"bgdeploy: {error.what}", file=sys.stderr)
    for part in (error.kept, error.cure):
        if part:
            print(f"  {part}", file=sys.stderr)


def warn(said: str | None) -> None:
    """Say on stderr what is wrong beside the answer, where something is."""
    if said:
        typer.echo(f"warning: {said}", err=True)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False))


@dataclass(frozen=True)
class Shape:
    """What gives way on a narrow terminal; every other column has what people copy, and is never folded.

    ``text`` columns are folded and cut, the last one stands below its row where nothing else helps;
    ``spare`` columns are left out, in this order.
    """

    text: Sequence[str] = ()
    spare: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """Rows under column names; ``empty`` says what to do where there are none, ``foot`` what comes next.

    Without a ``shape`` whatever is widest gives way on a narrow terminal.
    """

    columns: Sequence[str]
    rows: Rows
    empty: str = ""
    foot: str = ""
    shape: Shape | None = None


def print_table(table: Table) -> None:
    """Print a table as it fits where it goes."""
    for line in lines(table, on_terminal=sys.stdout.isatty()):
        print(line)


def lines(table: Table, *, on_terminal: bool) -> list[str]:
    """Return a table as it is printed, for the terminal there is or for a pipe."""
    if not table.rows:
        drawn = [table.empty]
    elif on_terminal:
        drawn = fitted(table.columns, table.rows, shutil.get_terminal_size().columns, table.shape)
    else:
        drawn = aligned(table.columns, table.rows)
    return [*drawn, table.foot] if table.foot else drawn


def aligned(columns: Sequence[str], rows: Rows) -> list[str]:
    """Return a line for each row, under the names of the columns."""
    table = [[cell.replace("\n", " ") for cell in row] for row in _texts([columns, *rows])]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [_line(row, widths) for row in table]


def fitted(columns: Sequence[str], rows: Rows, room: int, shape: Shape | None = None) -> list[str]:
    """Return lines that fit into ``room`` characters: without a shape the widest columns are folded.

    With one a row may still be too wide: a name that is broken is worse. States have colours.
    """
    by_name = dict(zip(columns, zip(*_texts([columns, *rows]), strict=True), strict=True))
    widest = {name: max(map(_width, column)) for name, column in by_name.items()}
    if shape is None:
        least = {name: min(width, NARROWEST) for name, width in widest.items()}
        kept, below, most = list(columns), "", None
    else:
        least = {name: _least(name, width, shape) for name, width in widest.items()}
        ways = list(_ways(columns, shape))
        kept, below = next((way for way in ways if _sum(least[name] for name in way[0]) <= room), ways[-1])
        most = MOST
    widths = {name: widest[name] for name in kept}
    while _sum(widths.values()) > room and (more := [name for name in kept if widths[name] > least[name]]):
        widths[max(more, key=lambda name: widths[name])] -= 1

    found: list[str] = []
    under = by_name[below] if below and any(by_name[below][1:]) else [""] * (len(rows) + 1)
    beside = zip(*(by_name[name] for name in kept), strict=True)
    for number, (row, text) in enumerate(zip(beside, under, strict=True)):
        parts = [
            _cut(_wrap(cell, width), width, most) for cell, width in zip(row, widths.values(), strict=True)
        ]
        styles = [_STYLES.get(cell, "") for cell in row] if number else []
        drawn = [_line(pieces, list(widths.values()), styles) for pieces in zip_longest(*parts, fillvalue="")]
        if text:
            left = room - len(INDENT)
            drawn += [INDENT + line for line in _cut(_wrap(text, max(NARROWEST, left)), left, MOST)]
        found += drawn if number else [_styled(line, _BOLD) for line in drawn]
    return found


def _least(name: str, width: int, shape: Shape) -> int:
    if name not in shape.text:
        return width
    half = max(LEAST, width // MOST + LEAST // 2)  # and a word more: so that hardly anything is cut
    return min(width, half if name == shape.text[-1] else LEAST)


def _ways(columns: Collection[str], shape: Shape) -> Iterator[tuple[list[str], str]]:
    """Which columns stand side by side, and which one below them or ``""``: the fullest way first.

    The first spare column is given up before a text moves below its row, the others after that.
    """
    last = shape.text[-1] if shape.text else ""
    for out in range(len(shape.spare[:1]) + 1):
        yield [name for name in columns if name not in shape.spare[:out]], ""
    for out in range(len(shape.spare) + 1):
        yield [name for name in columns if name not in (*shape.spare[:out], last)], last


def _sum(widths: Iterable[int]) -> int:
    found = list(widths)
    return sum(found) + len(GAP) * (len(found) - 1)


def _texts(rows: Rows) -> list[list[str]]:
    """Cells without what would steer a terminal: an error may quote anything."""

    def printable(text: str) -> str:
        if text.isprintable():
            return text
        return "".join(
            char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text
        )

    return [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]


def _width(text: str) -> int:
    """Columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def _wrap(cell: str, width: int) -> list[str]:
    if _width(cell) <= width and "\n" not in cell:
        return [cell]
    wrapped = (textwrap.wrap(line, width, break_on_hyphens=False) or [""] for line in cell.split("\n"))
    return [piece for pieces in wrapped for piece in pieces]


def _cut(pieces: list[str], width: int, most: int | None) -> list[str]:
    """At most so many lines; the last one ends with an ellipsis, behind a whole word where there is one."""
    if most is None or len(pieces) <= most:
        return pieces
    last = pieces[most - 1]
    short = last if _width(last) + 2 <= width else last.rpartition(" ")[0]
    return [*pieces[: most - 1], f"{short} …" if short else f"{last[: width - 1]}…"]


def _line(pieces: Sequence[str], widths: Sequence[int], styles: Sequence[str] = ()) -> str:
    padded = (piece + " " * (width - _width(piece)) for piece, width in zip(pieces, widths, strict=True))
    return GAP.join(
        _styled(text, style) for text, style in zip_longest(padded, styles, fillvalue="")
    ).rstrip()


def _styled(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if style and not os.environ.get("NO_COLOR") else text


def show_age(seconds: float | None) -> str:
    """Return an age as people say it: 40 s, 12 min, 5 h, 3 d."""
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def show_value(value: Any) -> str:
    """Return a value of a query's row as people read it, whatever is nested in it; text stands as it is."""
    return value if isinstance(value, str) else _show(value)


def _show(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return repr(value)
        case bytes():
            return f"0x{value.hex()}"
        case datetime():
            zone = "Z" if value.utcoffset() == timedelta() else ""
            return value.isoformat(sep=" ").removesuffix("+00:00") + zone
        case Mapping() if "_NODES" in value and "_RELS" in value:
            return _show_path(value["_NODES"], value["_RELS"])
        case Mapping() if "_LABEL" in value:
            # What the embedded engine tells of a node or relationship beside its properties.
            own = ("_ID", "_LABEL", "_SRC", "_DST")
            properties = {name: one for name, one in value.items() if name not in own and one is not None}
            inside = f":{value['_LABEL']}{' ' + _braces(properties) if properties else ''}"
            return f"[{inside}]" if "_SRC" in value else f"({inside})"
        case Mapping():
            return _braces(value)
        case list() | tuple() | set():
            return f"[{', '.join(map(_show, value))}]"
        case _:
            return str(value)


def _show_path(nodes: list[Any], relationships: list[Any]) -> str:
    """Node, relationship, node and so on, each relationship the way it leads."""
    shown = [_show(node) for node in nodes[:1]]
    for before, one, after in zip(nodes, relationships, nodes[1:], strict=False):
        forth = one.get("_SRC") == before.get("_ID")
        shown += ["-" if forth else "<-", _show(one), "->" if forth else "-", _show(after)]
    return "".join(shown)


def _braces(value: Mapping[Any, Any]) -> str:
    return "{" + ", ".join(f"{name}: {_show(one)}" for name, one in value.items()) + "}"
