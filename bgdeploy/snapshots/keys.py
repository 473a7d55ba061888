"""Keys: the ids and ends of a snapshot as DuckDB, the second reader, has them: each in one plain type and with its place.

Equal keys are equal here however their files store them. Text and whole numbers are never read together: 1 and '1'
are two ids. Opened in child processes only; DuckDB is imported when it is (0.3 s), since the service knows the words here too.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bgdeploy.errors import BadInput, BgdeployError, NotReadable, TargetFull
from bgdeploy.snapshots.source import BLANKS, KEYS, Column, DataFile, Role, Snapshot, Table

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEMORY_MB = 300
# Keys looked up in one pass; DuckDB's joins need memory that grows with them, though slowly.
ROWS = 20_000_000
_FILE = 1 << 40  # a place is the file's number times this, and the row from 0
_LARGE = 64 << 20  # bytes of a file from which on its row groups may need memory of their own
_OWN_NAMES = ("file_index", "file_row_number")  # DuckDB's own columns, which a file's own would hide


class NoRoom(TargetFull):
    """The disk has no room for looking ids up; waiting may help."""


class TooLarge(BadInput):
    """Looking ids up needs more memory than it may take, whatever goes to disk; waiting does not help."""


class TooLong(Exception):
    """A search took longer than it may."""


class Place(NamedTuple):
    """Where a row stands: its file relative to the snapshot, and its number, from 1."""

    file: str
    row: int


class Source(NamedTuple):
    """A file whose keys of one role count; ``mark`` comes back with each of them.

    With ``label``, only those of rows whose labels column names it.
    """

    table: Table
    file: DataFile
    role: Role
    mark: int = 0
    label: str | None = None


@contextmanager
def opened_keys(snapshot: Snapshot, folder: Path) -> Iterator[Keys]:
    """Open the files of a snapshot; what does not fit into memory goes to ``folder``, which is gone at the end.

    Memory: DuckDB's usual limit, and as much as the largest columns of keys of one row group take.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # DuckDB has its folder as the current one meanwhile.
    snapshot = replace(snapshot, path=snapshot.path.absolute())
    files = [snapshot.path / file.path for file in snapshot.files]
    try:
        with opened_duck(folder, files, memory_mb=MEMORY_MB + (_largest(snapshot) >> 20)) as connection:
            yield Keys(snapshot, connection)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Keys:
    """All files of one snapshot, open to be asked in SQL."""

    def __init__(self, snapshot: Snapshot, connection: duckdb.DuckDBPyConnection) -> None:
        self.snapshot, self._connection = snapshot, connection
        self._files = snapshot.files
        self._numbers = {file.path: number for number, file in enumerate(self._files)}
        keys = (own for table in snapshot.tables for role in KEYS[table.kind] for _, own in table.own(role))
        self._whole = "HUGEINT" if any("uint64" in own.type for own in keys) else "BIGINT"
        self._late = False
        largest = max(sum(table.rows for table in some) for some in (snapshot.nodes, snapshot.relationships))
        self.parts = range(max(1, -(-largest // ROWS)))  # passes; equal keys are in the same one

    def read(self, sources: Iterable[Source], part: int | None = None) -> str:
        """Return a query for the keys of these files, of one family: ``mark``, ``id``, ``place``; nulls are kept.

        ``place`` is in the order of the snapshot's files and of their rows. ``part`` is one of ``parts``.
        """
        alike: dict[object, list[Source]] = {}
        for source in sources:
            alike.setdefault(self._shape(source), []).append(source)
        found = [self._read(some, part) for some in alike.values()]
        if not found:
            return f"SELECT 0 AS mark, NULL::{self._whole} AS id, 0::BIGINT AS place WHERE false"
        return " UNION ALL ".join(found)

    def collect(self, table: str, query: Callable[[int], str]) -> None:
        """Put what a query finds in each part into a new table."""
        for part in self.parts:
            begin = f"INSERT INTO {table}" if part else f"CREATE OR REPLACE TABLE {table} AS"
            self.run(f"{begin} {query(part)}")

    def number(self, file: DataFile) -> int:
        """The number of a file: what ``file_of`` makes of the places of its rows."""
        return self._numbers[file.path]

    def at(self, place: int) -> Place:
        """The file and row of a place."""
        number, row = divmod(place, _FILE)
        return Place(self._files[number].path, row + 1)

    def run(self, query: str) -> list[Any]:
        """Return all rows of a query that gives few.

        Raises NoRoom, TooLarge, NotReadable for a file whose pages are damaged, BadInput for text that is none, and TooLong.
        """
        rows: list[Any] = self._guarded(lambda: self._connection.execute(query).fetchall())
        return rows

    def stream(self, query: str, rows: int) -> Iterator[Any]:
        """Yield all rows of a query, so many in memory at once. Nothing else may be asked meanwhile."""
        result = self._guarded(lambda: self._connection.execute(query))
        while some := self._guarded(lambda: result.fetchmany(rows)):
            yield from some

    def batches(self, query: str, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield all rows of a query as batches. Nothing else may be asked meanwhile."""
        return iter(self._guarded(lambda: self._connection.sql(query).to_arrow_reader(rows)))

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """End with TooLong whatever is asked when so many seconds are over."""

        def end() -> None:
            self._late = True  # what is asked next would not be interrupted
            self._connection.interrupt()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            self._late = False

    def _shape(self, source: Source) -> object:
        """What files must share to be read by one call, which binds names and types by its first file."""
        own = own_column(source.table, source.file, source.role)
        labels = own_column(source.table, source.file, "labels") if source.label is not None else None
        odd = source.file.path if _is_odd(source.file) else ""
        return source.mark, odd, own.name, own.type, source.label, labels and (labels.name, labels.type)

    def _read(self, alike: Sequence[Source], part: int | None) -> str:
        table, file, role, mark, label = alike[0]
        numbers = [self._numbers[source.file.path] for source in alike]
        here = f"{numbers[0]} + file_index::BIGINT"
        if numbers != [*range(numbers[0], numbers[0] + len(numbers))]:
            here = f"({numbers}::BIGINT[])[file_index::BIGINT + 1]"
        links = ", ".join(text(link(number)) for number in numbers)
        held = [column for column in file.columns if column.constant is None]
        names = {column: quote(column.name) for column in held}
        rows = f"read_parquet([{links}], hive_partitioning = false)"
        if _is_odd(file):
            names = {column: f"c{number}" for number, column in enumerate(held)}
            rows += f" AS one({', '.join(names.values())})"
        own = own_column(table, file, role)
        key = f"CAST({names[own]} AS {self._whole if is_whole(own) else 'VARCHAR'})"
        which = []
        if part is not None and len(self.parts) > 1:
            which.append(f"hash({key}) % {len(self.parts)} = {part}")
        if label is not None:
            labels = own_column(table, file, "labels")
            listed = (
                names[labels] if "list" in labels.type else f"string_split({names[labels]}::VARCHAR, ',')"
            )
            stripped = f"list_transform({listed}, lambda one: trim(one, {text(BLANKS)}))"
            which.append(f"list_contains({stripped}, {text(label)})")
        place = f"({here}) * {_FILE} + file_row_number"
        found = f"SELECT {mark} AS mark, {key} AS id, {place} AS place FROM {rows}"
        return f"{found} WHERE {' AND '.join(which)}" if which else found

    def _guarded(self, ask: Callable[[], Any]) -> Any:
        import duckdb

        if self._late:
            raise TooLong
        try:
            return ask()
        except duckdb.InterruptException as error:
            raise TooLong from error
        except duckdb.Error as error:
            raise self._explain(error) or error from error

    def _explain(self, error: duckdb.Error) -> BgdeployError | OSError | None:
        import duckdb

        said = str(error).partition("\n")[0]
        memory = isinstance(error, duckdb.OutOfMemoryException)
        if "no space left" in said.lower() or (memory and ("offload" in said or "max_temp" in said)):
            what = f"There is no room to look all ids up: {said}"
            return NoRoom(what, cure="Make room on the disk of state_dir.")
        if memory:
            what = f"Looking all ids up needs more memory than it may take: {said}"
            return TooLarge(what, cure="Write smaller row groups or shorter ids, or declare all ends.")
        for table in self.snapshot.tables:
            for file in table.files:
                path = self.snapshot.path / file.path
                if not path.exists():
                    return FileNotFoundError(2, "No such file or directory", str(path))
                if file.rows and (said := self._why_unread(table, file)):
                    if "encoding" in said.lower() or "utf" in said.lower():
                        from bgdeploy.snapshots.parquet import find_bad_text

                        if (bad := find_bad_text(self.snapshot)) is not None:
                            return bad
                    return NotReadable(f"{file.path} is damaged: {said}", cure="Write it again.")
        return None

    def _why_unread(self, table: Table, file: DataFile) -> str:
        """What DuckDB says when it reads the keys of one file alone; nothing where it can."""
        import duckdb

        for role in KEYS[table.kind]:
            query = self.read([Source(table, file, role)])
            try:
                self._connection.execute(f"SELECT sum(hash(id)) FROM ({query})").fetchall()
            except duckdb.InterruptException as error:
                raise TooLong from error
            except duckdb.Error as error:
                return str(error).partition("\n")[0].replace(link(self.number(file)), file.path)
        return ""


def file_of(place: str) -> str:
    """The number of the file of a place, in SQL."""
    return f"({place} // {_FILE})"


def candidates(snapshot: Snapshot, table: Table, role: Role, declared: str | None) -> list[str]:
    """Node tables this end may join: those with the declared label, or all whose ids are of one kind."""
    whole = is_whole(table.key(role))
    nodes = [node for node in snapshot.nodes if declared is None or declared in node.labels]
    return sorted({node.name for node in nodes if is_whole(node.key("id")) == whole})


def ids_of(snapshot: Snapshot, names: Sequence[str]) -> list[Source]:
    """The ids of labels' own folders, marked by the label's number among ``names``."""
    return [
        Source(table, file, "id", names.index(table.name))
        for table in snapshot.nodes
        if table.name in names
        for file in table.files
    ]


def own_column(table: Table, file: DataFile, role: Role) -> Column:
    """What a table's column of this role is in one of its files."""
    column = file.find(table.key(role))
    assert column is not None, f"{file.path} was admitted without a column for the {role}"
    return column


def is_whole(column: Column) -> bool:
    """True for a key of whole numbers, False for one of text; only keys of one family can be equal."""
    return "string" not in column.type


def _is_odd(file: DataFile) -> bool:
    """True where DuckDB would call a column of the file otherwise, or hide one of its own behind it."""
    names = [column.name.casefold() for column in file.columns if column.constant is None]
    return len({*names}) < len(names) or any(name in names for name in _OWN_NAMES)


def _largest(snapshot: Snapshot) -> int:
    """Bytes that the keys of one row group take in memory at most: an uncompressed column is there whole."""
    import pyarrow.parquet as pq

    most = 0
    for table in snapshot.tables:
        for file in table.files:
            if file.size < _LARGE:
                continue
            names = {own_column(table, file, role).name for role in KEYS[table.kind]}
            footer = pq.read_metadata(snapshot.path / file.path)
            for number in range(footer.num_row_groups):
                group = footer.row_group(number)
                chunks = (group.column(at) for at in range(group.num_columns))
                taken = sum(one.total_compressed_size for one in chunks if one.path_in_schema in names)
                most = max(most, taken)
    return most


# DuckDB, opened with bounds on memory, threads and disk, without network and without trust in statistics

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
    largest = max(snapshot.files, key=lambda file: file.largest_group, default=None)
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
