"""What the Parquet files say a database must hold: non-null values per column, and sampled rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from bgdeploy.snapshots.footers import read_nulls
from bgdeploy.snapshots.parquet import Parquet, floor_to_microseconds, outside_of_calendar, rebuilt
from bgdeploy.snapshots.rows import read_rows
from bgdeploy.snapshots.source import Column, DataFile, Role, Snapshot, Table

_BATCH = 1024  # rows decoded at a time


@dataclass(frozen=True)
class Sample:
    """One row as the file has it: its key, and the values of its properties by column name."""

    key: tuple[Any, ...]
    values: Mapping[str, Any]


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
                if own is not None and own.constant is not None:
                    total[column.name] += file.rows
                elif own is not None:
                    nulls = read_nulls(parquet, own.name)
                    nulls = _nulls_by_reading(parquet, own.name) if nulls is None else nulls
                    total[column.name] += file.rows - nulls
    return total


def _nulls_by_reading(parquet: Parquet, name: str) -> int:
    batches = parquet.iter_batches(batch_size=64 * _BATCH, columns=[name])
    return sum(batch.column(batch.schema.names.index(name)).null_count for batch in batches)


def sample(snapshot: Snapshot, table: Table, count: int) -> list[Sample]:
    """Return about ``count`` rows of a table, and at least one of every row group of every file."""
    spots = [(file, group) for file in table.files for group in range(_row_groups(snapshot, file.path))]
    found: list[Sample] = []
    for file, group in spots:
        found += _read_rows(snapshot.path / file.path, file, group, table, -(-count // len(spots)))
    return found


def _row_groups(snapshot: Snapshot, path: str) -> int:
    with Parquet(snapshot.path / path) as parquet:
        return int(parquet.metadata.num_row_groups)


def _read_rows(path: Path, file: DataFile, group: int, table: Table, count: int) -> Iterator[Sample]:
    """Rows from a batch in the middle of a row group, so that order within it matters too."""
    keys = _key_columns(table)
    for batch in _read_middle(path, file, group, [*keys, *table.properties]):
        step = max(1, batch.num_rows // count)
        for row in _in_python(file, batch.take(list(range(0, batch.num_rows, step))[:count])):
            values = {column.name: row[column.name] for column in table.properties}
            yield Sample(tuple(row[key.name] for key in keys), values)
        return


def _read_middle(path: Path, file: DataFile, group: int, columns: list[Column]) -> Iterator[pa.RecordBatch]:
    with Parquet(path) as parquet:
        rows = parquet.metadata.row_group(group).num_rows
    skip = min(rows // (2 * _BATCH), 16)
    return islice(read_rows(path, file, columns, rows=_BATCH, row_groups=[group]), skip, None)


def _in_python(file: DataFile, rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return rows as Python has them; raises BadInput for what it has not, where no footer told."""
    rows = _cut(rows)
    for name, values in zip(rows.schema.names, rows.columns, strict=True):
        try:
            values.to_pylist()
        except OverflowError as error:
            raise outside_of_calendar(file.path, name) from error
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


def _cut(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Cut times to the microseconds that Python knows; what is compared with them is cut likewise."""
    return pa.RecordBatch.from_arrays([_coarse(column) for column in rows.columns], names=rows.schema.names)


def _coarse(values: pa.Array) -> pa.Array:
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


def _key_columns(table: Table) -> list[Column]:
    roles: tuple[Role, ...] = ("id",) if table.kind == "node" else ("source", "target")
    return [column for role in roles if (column := table.column(role)) is not None]
