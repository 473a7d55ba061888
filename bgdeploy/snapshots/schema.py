"""Schema: read every footer of a snapshot, and refuse what could only be loaded wrong."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from bgdeploy.errors import BadInput, NotReadable
from bgdeploy.snapshots.checks import check_names, check_snapshot
from bgdeploy.snapshots.columns import find_roles, names_of
from bgdeploy.snapshots.counts import check_types as check_types
from bgdeploy.snapshots.counts import label_counts as label_counts
from bgdeploy.snapshots.counts import names_its_folder
from bgdeploy.snapshots.layout import TableFolder, read_layout
from bgdeploy.snapshots.parquet import Field, Parquet
from bgdeploy.snapshots.partitions import Pair, check_keys, type_columns
from bgdeploy.snapshots.source import Column, DataFile, Kind, Role, Snapshot, Table
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
    columns: Mapping[str, Any],
    fingerprint: str,
    refuses: Refuses = _takes_all,
    looking: Callable[[str], None] = _tells_nobody,
) -> Snapshot:
    """Return the snapshot in ``path`` with every table, file, row count and column known.

    ``columns`` gives for each role (id, labels, source, target, type) the names its column may
    have; a role that is missing has its usual names. Its ``by_position`` lets the first column of nodes be the id
    whatever the names are. ``refuses`` tells for a type and the program that
    wrote it what to use instead, or None where the target keeps it unharmed. Only footers are read, and a row where a
    column's place alone must tell what it is. ``looking`` hears of each file before it is opened. Raises NotReadable, naming the file, for one that
    does not open; BadInput for what cannot become right by waiting.
    """
    folders = read_layout(path)
    joined: dict[tuple[Kind, str], tuple[Column, ...]] = {}
    files: dict[TableFolder, list[DataFile]] = {}
    shared: dict[tuple[Column, ...], tuple[Column, ...]] = {}  # like files have the very same columns
    for key in dict.fromkeys((folder.kind, folder.name) for folder in folders):
        same = [folder for folder in folders if (folder.kind, folder.name) == key]
        pairs = {file: some for one in same for file, some in zip(one.files, one.pairs, strict=True)}
        of_folders, constants = type_columns(pairs)
        for folder in same:
            files[folder] = []
            for name in folder.files:
                looking(name)
                file = read_footer(path, name, folder, columns, refuses, pairs[name], constants[name])
                files[folder].append(replace(file, columns=shared.setdefault(file.columns, file.columns)))
        joined[key] = _join(key, files, of_folders)
    tables = tuple(_table(folder, files[folder], joined[folder.kind, folder.name]) for folder in folders)
    snapshot = Snapshot(customer, timestamp, path, tables, fingerprint)
    check_snapshot(snapshot)
    return snapshot


def _join(
    key: tuple[Kind, str], files: Mapping[TableFolder, Sequence[DataFile]], of_folders: Sequence[Column]
) -> tuple[Column, ...]:
    """The columns of every file that fills one table, and those its folders name; several folders may fill it."""
    kind, name = key
    mine = [file for folder, some in files.items() if (folder.kind, folder.name) == key for file in some]
    columns = join_columns(kind, name, mine)
    columns += tuple(one for one in of_folders if one.name not in {column.name for column in columns})
    check_names(kind, mine[0].path, columns)
    return columns


def _table(folder: TableFolder, files: Sequence[DataFile], columns: tuple[Column, ...]) -> Table:
    ends = folder.source_label, folder.target_label
    return Table(folder.kind, folder.name, folder.labels, *ends, tuple(files), columns)


def read_footer(
    path: Path,
    file: str,
    folder: TableFolder,
    columns: Mapping[str, Any],
    refuses: Refuses,
    pairs: Sequence[Pair] = (),
    constants: tuple[Column, ...] = (),
) -> DataFile:
    """Read one file's footer and find the roles of its columns, with those that its folders' names (``pairs``) hold.

    Raises NotReadable when the file does not open, BadInput for its columns.
    """
    with _open(path / file, file) as parquet:
        fields, metadata = _fields(parquet, file), parquet.metadata
        written_by = metadata.created_by or ""
        _check_types(file, fields, written_by, refuses)
        schema = parquet.schema_arrow
        check_moments(file, parquet)
        roles, by_position = find_roles(folder.kind, file, schema, columns, _speaker(parquet, folder))
        taken: tuple[Role, ...] = ("id", "labels") if folder.kind == "node" else ("source", "target", "type")
        check_keys(file, pairs, schema.names, [name for role in taken for name in names_of(role, columns)])
        found = tuple(
            Column(field.name, field.kind, roles.get(number, "property"), stored=field.stored)
            for number, field in enumerate(fields)
        )
        found += constants
        check_names(folder.kind, file, found)
        every = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        groups, rows = [one.total_byte_size for one in every], sum(one.num_rows for one in every)
        if rows != metadata.num_rows:  # readers go by either of the two, and rows would be left out
            what = f"{file}: its footer says {metadata.num_rows:,} rows, and its row groups hold {rows:,}."
            raise BadInput(what, kept=_KEPT, cure="Write it again.")
        size = (path / file).stat().st_size
        return DataFile(
            file, metadata.num_rows, size, sum(groups), found, written_by, max(groups, default=0), by_position
        )


@contextmanager
def _open(path: Path, file: str) -> Iterator[Parquet]:
    try:
        with Parquet(path, file) as parquet:
            yield parquet
    except pa.ArrowNotImplementedError as error:
        cure = "Write integers of 128 bits as decimals of at most 38 digits, any other type as a string."
        what = f"{file}: {_unread(path)} what bgdeploy cannot read: {_first_line(error)}"
        raise BadInput(what, kept=_KEPT, cure=cure) from error
    except (OSError, pa.ArrowException) as error:
        raise NotReadable(
            f"{file} does not open as a Parquet file: {_first_line(error)}",
            kept=_KEPT,
            cure="Write it anew, or wait until it is copied whole.",
        ) from error


def _unread(path: Path) -> str:
    """The columns that have a width and no type, of a file that pyarrow does not open: another reader names them."""
    import duckdb

    ask = """SELECT name FROM parquet_schema(?)
        WHERE type = 'FIXED_LEN_BYTE_ARRAY' AND logical_type IS NULL AND converted_type IS NULL"""
    try:
        names = duckdb.execute(ask, [glob.escape(str(path))]).fetchall()
    except duckdb.Error:
        names = []
    if not names:
        return "a column holds"
    shown = ", ".join(repr(name) for (name,) in names[:5])
    return f"column {shown} holds" if len(names) == 1 else f"one of the columns {shown} holds"


def _fields(parquet: Parquet, file: str) -> Sequence[Field]:
    try:
        return parquet.fields
    except pa.ArrowException as error:
        raise BadInput(f"{file} has columns that cannot be read: {_first_line(error)}", kept=_KEPT) from error


def _first_line(error: BaseException) -> str:
    return f"{str(error).splitlines()[0].rstrip('.')}." if str(error) else "no reason given."


def _speaker(parquet: Parquet, folder: TableFolder) -> Callable[[str], bool]:
    return lambda column: names_its_folder(parquet, column, folder.labels or (folder.name,))


def _check_types(file: str, fields: Sequence[Field], written_by: str, refuses: Refuses) -> None:
    for field in fields:
        held, instead = field.refusal or (str(field.kind), refuses(field.kind, written_by))
        if instead is not None:
            what = f"{file}: column {field.name!r} holds {held}, which would not arrive unharmed."
            raise BadInput(what, kept=_KEPT, cure=f"Use {instead}.")
