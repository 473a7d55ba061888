"""Schema: read every footer of a snapshot, and refuse what could only be loaded wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bgdeploy.errors import BadInput, NotReadable
from bgdeploy.snapshots.checks import check_names, check_snapshot
from bgdeploy.snapshots.columns import find_roles
from bgdeploy.snapshots.counts import check_types as check_types
from bgdeploy.snapshots.counts import label_counts as label_counts
from bgdeploy.snapshots.counts import names_its_folder
from bgdeploy.snapshots.layout import TableFolder, read_layout
from bgdeploy.snapshots.source import Column, DataFile, Kind, Snapshot, Table
from bgdeploy.snapshots.tables import join_columns
from bgdeploy.snapshots.values import check_moments

_KEPT = "Nothing of the snapshot was loaded."
Refuses = Callable[[pa.DataType, str], str | None]


def _takes_all(kind: pa.DataType, written_by: str) -> str | None:
    return None


def _tells_nobody(file: str) -> None:
    return None


def open_snapshot(
    customer: str,
    timestamp: int,
    path: Path,
    columns: Mapping[str, Sequence[str]],
    fingerprint: str,
    refuses: Refuses = _takes_all,
    looking: Callable[[str], None] = _tells_nobody,
) -> Snapshot:
    """Return the snapshot in ``path`` with every table, file, row count and column known.

    ``columns`` gives for each role (id, labels, source, target, type) the names its column may
    have; a role that is missing has its usual names. ``refuses`` tells for a type and the program that
    wrote it what to use instead, or None where the target keeps it unharmed. Only footers are read, and a row where a
    column's place alone must tell what it is. ``looking`` hears of each file before it is opened. Raises NotReadable, naming the file, for one that
    does not open; BadInput for what cannot become right by waiting.
    """
    folders = read_layout(path)
    shared: dict[tuple[Column, ...], tuple[Column, ...]] = {}  # like files have the very same columns
    files: dict[TableFolder, list[DataFile]] = {}
    for folder in folders:
        files[folder] = []
        for name in folder.files:
            looking(name)
            file = read_footer(path, name, folder, columns, refuses)
            files[folder].append(replace(file, columns=shared.setdefault(file.columns, file.columns)))
    joined = {
        key: _join(key, files) for key in dict.fromkeys((folder.kind, folder.name) for folder in folders)
    }
    tables = tuple(_table(folder, files[folder], joined[folder.kind, folder.name]) for folder in folders)
    snapshot = Snapshot(customer, timestamp, path, tables, fingerprint)
    check_snapshot(snapshot)
    return snapshot


def _join(key: tuple[Kind, str], files: Mapping[TableFolder, Sequence[DataFile]]) -> tuple[Column, ...]:
    """The columns of every file that fills one table; several folders may."""
    kind, name = key
    mine = [file for folder, some in files.items() if (folder.kind, folder.name) == key for file in some]
    columns = join_columns(kind, name, mine)
    check_names(kind, mine[0].path, columns)
    return columns


def _table(folder: TableFolder, files: Sequence[DataFile], columns: tuple[Column, ...]) -> Table:
    ends = folder.source_label, folder.target_label
    return Table(folder.kind, folder.name, folder.labels, *ends, tuple(files), columns)


def read_footer(
    path: Path, file: str, folder: TableFolder, columns: Mapping[str, Sequence[str]], refuses: Refuses
) -> DataFile:
    """Read one file's footer and find the roles of its columns.

    Raises NotReadable when the file does not open, BadInput for its columns.
    """
    with _open(path / file, file) as parquet:
        schema, metadata = _schema(parquet, file), parquet.metadata
        written_by = metadata.created_by or ""
        _check_types(file, schema, written_by, refuses)
        check_moments(file, parquet)
        roles = find_roles(folder.kind, file, schema, columns, _speaker(parquet, folder))
        found = tuple(
            Column(field.name, field.type, roles.get(number, "property"))
            for number, field in enumerate(schema)
        )
        check_names(folder.kind, file, found)
        groups = (metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
        size = (path / file).stat().st_size
        return DataFile(file, metadata.num_rows, size, sum(groups), found, written_by)


@contextmanager
def _open(path: Path, file: str) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as parquet:
            yield parquet
    except pa.ArrowNotImplementedError as error:
        raise BadInput(f"{file} uses what bgdeploy cannot read: {error}.", kept=_KEPT) from error
    except (OSError, pa.ArrowException) as error:
        raise NotReadable(
            f"{file} does not open as a Parquet file: {_first_line(error)}",
            kept=_KEPT,
            cure="Write it anew, or wait until it is copied whole.",
        ) from error


def _schema(parquet: pq.ParquetFile, file: str) -> pa.Schema:
    try:
        return parquet.schema_arrow
    except pa.ArrowException as error:
        raise BadInput(f"{file} has columns that cannot be read: {_first_line(error)}", kept=_KEPT) from error


def _first_line(error: BaseException) -> str:
    return f"{str(error).splitlines()[0].rstrip('.')}." if str(error) else "no reason given."


def _speaker(parquet: pq.ParquetFile, folder: TableFolder) -> Callable[[str], bool]:
    return lambda column: names_its_folder(parquet, column, folder.labels or (folder.name,))


def _check_types(file: str, schema: pa.Schema, written_by: str, refuses: Refuses) -> None:
    for field in schema:
        instead = refuses(field.type, written_by)
        if instead is not None:
            what = f"{file}: column {field.name!r} holds {field.type}, which would not arrive unharmed."
            raise BadInput(what, kept=_KEPT, cure=f"Use {instead}.")
