"""How answers look: tables for people, JSON for scripts, errors with their cure on stderr."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from bgdeploy.cli import tables
from bgdeploy.errors import BgdeployError, ExitCode, TargetError
from bgdeploy.plain import plain

if TYPE_CHECKING:
    from bgdeploy.service.results import Refusal

Result = TypeVar("Result")


@dataclass(frozen=True)
class Table:
    """Rows under column names; ``empty`` says what to do where there are none, ``foot`` what comes next.

    ``shape`` says what gives way on a narrow terminal; without it, whatever is widest.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    empty: str
    foot: str = ""
    shape: tables.Shape | None = None


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str, foot: str = "") -> None:
    """Print rows under column names; ``empty`` says what to do where there are none."""
    print_it(Table(columns, rows, empty, foot))


def print_it(table: Table) -> None:
    """Print a table."""
    for line in lines(table, sys.stdout.isatty()):
        print(line)


def lines(table: Table, on_terminal: bool) -> list[str]:
    """Return a table as it is printed, for the terminal there is or for a pipe."""
    if not table.rows:
        drawn = [table.empty]
    elif on_terminal:
        drawn = tables.fitted(table.columns, table.rows, shutil.get_terminal_size().columns, table.shape)
    else:
        drawn = tables.plain(table.columns, table.rows)
    return [*drawn, table.foot] if table.foot else drawn


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
    if isinstance(error, FileExistsError | NotADirectoryError):
        cure = "A folder is needed there: move the file away, or name another place; all there are: bgdeploy config"
    return TargetError(f"{place}{error.strerror or error}.", cure=cure)


def fail(error: BgdeployError) -> NoReturn:
    """Tell what failed, what was left as it is, and what helps; then end."""
    tell(error)
    raise SystemExit(int(error.exit_code))


def tell(error: BgdeployError | Refusal) -> None:
    """Say what failed, what was left as it is, and what helps."""
    print(f"bgdeploy: {error.what}", file=sys.stderr)
    for part in (error.kept, error.cure):
        if part:
            print(f"  {part}", file=sys.stderr)
