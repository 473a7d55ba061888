"""Rows: what the files of one table hold, in one shape, however each of them was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.parquet import Parquet
from bgdeploy.snapshots.source import Column, DataFile

_BATCH = 65_536  # rows decoded at a time


def read_rows(
    path: Path,
    file: DataFile,
    columns: Sequence[Column],
    *,
    rows: int = _BATCH,
    row_groups: Sequence[int] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield a file's rows with these columns of its table, by name, type and order; null where it lacks one.

    Raises BadInput, with file and column, for a value that does not fit, and for a file that is damaged.
    """
    try:
        with Parquet(path, file.path) as parquet:
            yield from iterate(parquet, file, columns, rows, row_groups)
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise  # the system's own: the file is gone, or the disk fails
        said = str(error).partition("\n")[0]
        # DuckDB writes an array of a fixed length that is null with fewer values than pyarrow wants to see.
        arrays = "list offsets" in said
        cure = (
            "Write arrays of a fixed length as lists (DuckDB: column::INT[])."
            if arrays
            else "Write it again."
        )
        what = f"{file.path} is damaged: {said}"
        raise BadInput(what, kept="What is live stays live.", cure=cure) from error


def iterate(
    parquet: Parquet,
    file: DataFile,
    columns: Sequence[Column],
    rows: int,
    row_groups: Sequence[int] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Do what ``read_rows`` does, of a file that is open."""
    groups = range(parquet.metadata.num_row_groups) if row_groups is None else row_groups
    found = (own for column in columns if (own := file.find(column)) is not None)
    wanted = [own.name for own in found if own.constant is None]
    for batch in parquet.iter_batches(rows, row_groups=list(groups), columns=wanted):
        yield conform(batch, file, columns)


def conform(batch: pa.RecordBatch, file: DataFile, columns: Sequence[Column]) -> pa.RecordBatch:
    """Return the rows with these columns of the table, as ``read_rows`` does."""
    arrays = [_column(batch, file, column) for column in columns]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _column(batch: pa.RecordBatch, file: DataFile, column: Column) -> pa.Array:
    own = file.find(column)
    if own is None:
        return pa.nulls(batch.num_rows, column.kind)
    if own.constant is not None:
        return pa.repeat(pa.scalar(own.constant, own.kind), batch.num_rows).cast(column.kind)
    # A list's leaf is asked for by its column's name, and others may come along: by name, not by place.
    values = batch.column(batch.schema.names.index(own.name))
    if values.type == column.kind:
        return values
    try:
        return values.cast(column.kind)
    except pa.ArrowInvalid as error:
        raise BadInput(
            f"{file.path}: column {own.name!r} holds a value that does not fit {column.kind}: {error}",
            kept="What is live stays live.",
            cure="Write the column with one type in all files of the table.",
        ) from error
