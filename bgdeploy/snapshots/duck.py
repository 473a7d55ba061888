"""DuckDB, the second reader: opened with bounds on memory, threads and disk, without network and without trust in statistics.

Imported in child processes only: it takes 0.3 s to import, and nothing of a snapshot is parsed in the service.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bgdeploy.snapshots.source import DataFile, Snapshot

if TYPE_CHECKING:
    import duckdb

MEMORY_MB = 300
# With these it believes the min and max of a footer: an id that is there was counted 0 times, and an ANTI JOIN called it dangling.
_BELIEVING = "statistics_propagation,filter_pushdown,join_filter_pushdown"


@contextmanager
def opened_duck(
    folder: Path, files: Sequence[Path], *, memory_mb: int = MEMORY_MB, threads: int = 1
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database in memory that may read ``files``; what does not fit into ``memory_mb`` is spilled.

    ``folder`` is private to this process and becomes its current folder meanwhile: the files are linked in it as
    ``in/0.parquet``, ``in/1.parquet``, ... (see ``link``), since DuckDB takes a user's path for a pattern. It may
    write below the folder, and nowhere else. No extension is ever fetched.
    """
    import duckdb

    home = folder.absolute()
    shutil.rmtree(home / "in", ignore_errors=True)
    (home / "in").mkdir(parents=True)
    for number, file in enumerate(files):
        os.symlink(file.resolve(), home / link(number))  # it follows no link behind the first
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_mb}MiB",
        "threads": threads,
        "temp_directory": str(home / "spill"),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "allow_persistent_secrets": False,
        "python_enable_replacements": False,
    }
    before = Path.cwd()
    os.chdir(home)
    connection = duckdb.connect(":memory:", config=settings)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")  # it is drawn on standard output
        connection.execute(f"SET disabled_optimizers = '{_BELIEVING}'")
        connection.execute("SET allowed_directories = ['.']")
        # A link that leads out of an allowed folder must be named.
        links = ", ".join(text(link(number)) for number in range(len(files)))
        connection.execute(f"SET allowed_paths = [{links}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
    finally:
        connection.close()
        os.chdir(before)
        shutil.rmtree(home / "in", ignore_errors=True)
        shutil.rmtree(home / "spill", ignore_errors=True)


def memory_to_compare(snapshot: Snapshot) -> tuple[int, DataFile | None]:
    """Return the MiB that comparing a snapshot takes, and the file whose row group needs more than is usual."""
    files = [file for table in snapshot.tables for file in table.files]
    largest = max(files, key=lambda file: file.largest_group, default=None)
    if largest is None or largest.largest_group * 5 // 4 <= MEMORY_MB << 20:
        return MEMORY_MB, None
    return largest.largest_group * 5 // 4 >> 20, largest


def link(number: int) -> str:
    """The path of a file's link, from the folder that ``opened_duck`` works in."""
    return f"in/{number}.parquet"


def text(value: str) -> str:
    """A text as a literal."""
    return "'" + value.replace("'", "''") + "'"


def quote(name: str) -> str:
    """A name as an identifier."""
    return '"' + name.replace('"', '""') + '"'
