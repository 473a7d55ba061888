"""Rows: what the files of one table hold, in one shape, however each of them was written.

``read_rows`` gives them all; ``present`` and ``sample`` say what a database must hold of them where it is too large to be read
back; ``bundle`` takes files together that are loaded at once. For child processes: it parses what files say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.parquet import (
    Parquet,
    floor_to_microseconds,
    outside_of_calendar,
    read_nulls,
    rebuilt,
)
from bgdeploy.snapshots.source import KEYS, LIVE, Column, DataFile, Snapshot, Table

_BATCH = 65_536  # rows decoded at a time
_SAMPLED_BATCH = 1024  # the same, where a few are wanted


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
        cure = "Write it again."
        if "list offsets" in said:
            # DuckDB writes an array of a fixed length that is null with fewer values than pyarrow wants to see.
            cure = "Write arrays of a fixed length as lists (DuckDB: column::INT[])."
        raise BadInput(f"{file.path} is damaged: {said}", kept=LIVE, cure=cure) from error


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
    names = [column.name for column in columns]
    for batch in parquet.iter_batches(rows, row_groups=list(groups), columns=wanted):
        yield pa.RecordBatch.from_arrays([_column(batch, file, column) for column in columns], names=names)


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
            kept=LIVE,
            cure="Write the column with one type in all files of the table.",
        ) from error


# What a database must hold, where it is not read back whole


def present(snapshot: Snapshot, table: Table) -> Counter[str]:
    """Return how many values of each property column are not null, over all files of a table.

    From the footers where they say so; a column without that statistic is read. Null counts of
    list columns in a footer speak of their elements, so those columns are always read.
    """
    total: Counter[str] = Counter({column.name: 0 for column in table.properties})
    for file in table.files:
        with Parquet(snapshot.path / file.path) as parquet:
            for column in table.properties:
                own = file.find(column)
                if own is None:
                    continue
                nulls = 0 if own.constant is not None else read_nulls(parquet, own.name)
                if nulls is None:
                    batches = parquet.iter_batches(batch_size=_BATCH, columns=[own.name])
                    nulls = sum(one.column(one.schema.names.index(own.name)).null_count for one in batches)
                total[column.name] += file.rows - nulls
    return total


@dataclass(frozen=True)
class Sample:
    """One row as the file has it: its key, and the values of its properties by column name."""

    key: tuple[Any, ...]
    values: Mapping[str, Any]


def sample(snapshot: Snapshot, table: Table, count: int) -> list[Sample]:
    """Return about ``count`` rows of a table, and at least one of every row group of every file."""
    spots: list[tuple[DataFile, int, int]] = []
    for file in table.files:
        with Parquet(snapshot.path / file.path) as parquet:
            groups = range(parquet.metadata.num_row_groups)
            spots += [(file, group, parquet.metadata.row_group(group).num_rows) for group in groups]
    keys = [table.key(role) for role in KEYS[table.kind]]
    columns = [*keys, *table.properties]
    found: list[Sample] = []
    for file, group, rows in spots:
        # From a batch in the middle of a row group, so that order within it matters too.
        batches = read_rows(snapshot.path / file.path, file, columns, rows=_SAMPLED_BATCH, row_groups=[group])
        skip = min(rows // (2 * _SAMPLED_BATCH), 16)
        batch = next(islice(batches, skip, None), None)
        if batch is not None:
            wanted = -(-count // len(spots))
            step = max(1, batch.num_rows // wanted)
            for row in _in_python(file, batch.take(list(range(0, batch.num_rows, step))[:wanted])):
                values = {column.name: row[column.name] for column in table.properties}
                found.append(Sample(tuple(row[key.name] for key in keys), values))
    return found


def _in_python(file: DataFile, rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows as Python has them; raises BadInput for what it has not, where no footer told."""
    values: dict[str, list[Any]] = {}
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        try:
            values[name] = _coarse(column).to_pylist()
        except OverflowError as error:
            raise outside_of_calendar(file.path, name) from error
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _coarse(values: pa.Array) -> pa.Array:
    """Times cut to the microseconds that Python knows; what is compared with them is cut likewise."""
    kind = values.type
    if pa.types.is_list(kind):
        return rebuilt(values, _coarse(values.values))
    if pa.types.is_float16(kind):
        return values.cast(pa.float32())
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        # What is compared is the moment, which is known also where the zone is not.
        values = values.cast(pa.timestamp(kind.unit, "UTC"))
    fine = pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind)
    return floor_to_microseconds(values) if fine and kind.unit == "ns" else values


# Bundles


class HasRows(Protocol):
    """A file, or what stands for some rows of one."""

    @property
    def rows(self) -> int:
        """How many there are."""


Piece = TypeVar("Piece", bound=HasRows)


def bundle(pieces: Iterable[Piece], most: int) -> Iterator[list[Piece]]:
    """Yield neighbours together, up to ``most`` rows; a piece that has more stands alone."""
    some: list[Piece] = []
    held = 0
    for piece in pieces:
        if some and held + piece.rows > most:
            yield some
            some, held = [], 0
        some.append(piece)
        held += piece.rows
    if some:
        yield some
