"""How answers look: tables for people, JSON for scripts, errors with their cure on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from bgdeploy.errors import BgdeployError, ExitCode, TargetError

if TYPE_CHECKING:
    import rich.table

Result = TypeVar("Result")


@dataclass(frozen=True)
class Table:
    """Rows under column names; ``empty`` says what to do where there are none, ``foot`` what comes next."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    empty: str
    foot: str = ""


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str, foot: str = "") -> None:
    """Print rows under column names; ``empty`` says what to do where there are none."""
    if not rows:
        print(empty)
    elif sys.stdout.isatty():
        _print_rich(columns, rows)
    else:
        _print_plain(columns, _cells(rows))
    if foot:
        print(foot)


def print_it(table: Table) -> None:
    """Print a table."""
    print_table(table.columns, table.rows, empty=table.empty, foot=table.foot)


def _cells(rows: Sequence[Sequence[Any]]) -> list[list[str]]:
    return [["" if cell is None else str(cell) for cell in row] for row in rows]


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console

    Console().print(rich_table(columns, rows))


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> rich.table.Table:
    """Return a table for a terminal, with the states in colours."""
    from rich.table import Table as Drawn
    from rich.text import Text

    table = Drawn(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in _cells(rows):
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    return table


_STYLES = {
    "switched": "green",
    "loaded": "cyan",
    "loading": "yellow",
    "failed": "red",
    "cleaned": "dim",
    "discovered": "dim",
}


def _style(cell: str) -> str:
    return _STYLES.get(cell, "")


def _print_plain(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[index]) for row in [columns, *cells]) for index in range(len(columns))]
    for row in [columns, *cells]:
        line = "  ".join(
            cell.replace("\n", " ").ljust(width) for cell, width in zip(row, widths, strict=True)
        )
        print(line.rstrip())


def ago(seconds: float | None) -> str:
    """Return an age as people say it: 40 s, 12 min, 5 h, 3 d."""
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def guarded(act: Callable[[], Result]) -> Result:
    """Run a command's work; a failure is told with its cure and ends with its exit code."""
    try:
        return act()
    except BgdeployError as error:
        fail(error)
    except BrokenPipeError:
        sys.stderr.close()  # the reader (head, less) has seen enough
        raise SystemExit(ExitCode.OK) from None
    except KeyboardInterrupt:
        raise SystemExit(ExitCode.INTERRUPTED) from None
    except OSError as error:
        fail(_of_the_system(error))


def _of_the_system(error: OSError) -> BgdeployError:
    place = f"{error.filename}: " if error.filename else ""
    cure = "Check that the disk is there, has room, and may be written to."
    return TargetError(f"{place}{error.strerror or error}.", cure=cure)


def fail(error: BgdeployError) -> NoReturn:
    """Tell what failed, what was left as it is, and what helps; then end."""
    tell(error)
    raise SystemExit(int(error.exit_code))


def tell(error: BgdeployError) -> None:
    """Say what failed, what was left as it is, and what helps."""
    print(f"bgdeploy: {error.what}", file=sys.stderr)
    for part in (error.kept, error.cure):
        if part:
            print(f"  {part}", file=sys.stderr)
