"""How answers look: tables for people, JSON for scripts, errors with their cure on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from bgdeploy.errors import BgdeployError, ExitCode, TargetError

Result = TypeVar("Result")


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str) -> None:
    """Print rows under column names; ``empty`` says what to do where there are none."""
    if not rows:
        print(empty)
        return
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(columns, cells)
    else:
        _print_plain(columns, cells)


def _print_rich(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    Console().print(table)


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
    print(f"bgdeploy: {error.what}", file=sys.stderr)
    for part in (error.kept, error.cure):
        if part:
            print(f"  {part}", file=sys.stderr)
    raise SystemExit(int(error.exit_code))
