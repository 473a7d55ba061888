"""Ids: read from the files in one plain kind each, so that they compare however they are stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from bgdeploy.errors import NotReadable
from bgdeploy.snapshots.counts import split_labels
from bgdeploy.snapshots.families import is_text_list
from bgdeploy.snapshots.parquet import Parquet
from bgdeploy.snapshots.source import Column, DataFile, Role, Snapshot, Table

BATCH = 65_536  # rows decoded at a time


def read_ids(snapshot: Snapshot, table: Table, file: DataFile, role: Role) -> Iterator[pa.Array]:
    """Yield a file's ids of one role in order, in batches: int64, uint64 or large_string, nulls kept."""
    for (ids,) in read_roles(snapshot, table, file, (role,)):
        yield plain(ids)


def read_roles(
    snapshot: Snapshot, table: Table, file: DataFile, roles: Sequence[Role]
) -> Iterator[tuple[pa.Array, ...]]:
    """Yield the columns with these roles in batches of up to ``BATCH`` rows, as the file stores them.

    Labels that the file does not give are nulls.

    Raises NotReadable for a file whose pages are damaged.
    """
    own = [file.find(column_of(table, role)) for role in roles]
    names = [column.name for column in own if column is not None]
    try:
        with Parquet(snapshot.path / file.path, file.path) as parquet:
            for batch in parquet.iter_batches(BATCH, columns=names, use_threads=False):
                yield tuple(_pick(batch, column) for column in own)
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's own: the file is gone, or the disk fails
        raise NotReadable(f"{file.path} is damaged: {error}", cure="Write it again.") from error


def _pick(batch: pa.RecordBatch, column: Column | None) -> pa.Array:
    if column is None:
        return pa.nulls(batch.num_rows, pa.string())
    return batch.column(batch.schema.names.index(column.name))


def name_in(table: Table, file: DataFile, role: Role) -> str:
    """What the column of an id or end is called in one of its table's files."""
    column = file.find(column_of(table, role))
    assert column is not None, f"{file.path} was admitted without a column for the {role}"
    return column.name


def column_of(table: Table, role: Role) -> Column:
    """The column with this role, in a table that was admitted with one."""
    column = table.column(role)
    assert column is not None, f"{table.name} was admitted without a column for the {role}"
    return column


def family(column: Column) -> str:
    """``string`` or ``integer``; only ids of one family can be equal."""
    return "string" if "string" in column.type else "integer"


def plain(ids: pa.Array) -> pa.Array:
    """Return ids in one plain type."""
    if pa.types.is_dictionary(ids.type):
        ids = ids.dictionary_decode()
    wanted = pa.uint64() if ids.type == pa.uint64() else pa.int64()
    return ids.cast(wanted if pa.types.is_integer(ids.type) else pa.large_string())


def within(ids: pa.Array, known: pa.Array) -> pa.Array:
    """Return which ids are among the known ones; -1 is none of unsigned ones, and no error."""
    if ids.type != known.type:
        ids, known = ids.cast(pa.large_string()), known.cast(pa.large_string())
    return pc.is_in(ids, value_set=known)


def carries(labels: pa.Array, label: str) -> pa.Array:
    """Return which rows of a labels column name this label."""
    if is_text_list(labels.type):
        named = pc.equal(_text(pc.list_flatten(labels)), label)
        rows = pc.unique(pc.list_parent_indices(labels).filter(named.fill_null(False)))
        return pc.is_in(pa.array(range(len(labels)), rows.type), value_set=rows)
    texts = _text(labels)
    distinct = pc.unique(texts).drop_null()
    naming = [text for text in distinct.to_pylist() if label in split_labels(text)]
    return pc.is_in(texts, value_set=pa.array(naming, texts.type))


def _text(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(pa.large_string())
