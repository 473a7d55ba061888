"""What the Parquet files say a database must hold: non-null values per column, and sampled rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bgdeploy.snapshots.footers import read_nulls
from bgdeploy.snapshots.rows import read_rows
from bgdeploy.snapshots.source import Column, DataFile, Role, Snapshot, Table
from bgdeploy.snapshots.values import outside_of_calendar

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
        with pq.ParquetFile(snapshot.path / file.path) as parquet:
            for column in table.properties:
                if (own := file.find(column)) is not None:
                    nulls = read_nulls(parquet, own.name)
                    nulls = _nulls_by_reading(parquet, own.name) if nulls is None else nulls
                    total[column.name] += file.rows - nulls
    return total


def _nulls_by_reading(parquet: pq.ParquetFile, name: str) -> int:
    batches = parquet.iter_batches(batch_size=64 * _BATCH, columns=[name])
    return sum(batch.column(batch.schema.names.index(name)).null_count for batch in batches)


def sample(snapshot: Snapshot, table: Table, count: int) -> list[Sample]:
    """Return up to ``count`` rows spread over the files and row groups of a table."""
    spots = [(file, group) for file in table.files for group in range(_row_groups(snapshot, file.path))]
    chosen = spots[:: max(1, len(spots) // 5)][:8]
    found: list[Sample] = []
    for file, group in chosen:
        each = -(-count // len(chosen))
        found += _read_rows(snapshot.path / file.path, file, group, table, each)
    return found[:count]


def _row_groups(snapshot: Snapshot, path: str) -> int:
    with pq.ParquetFile(snapshot.path / path) as parquet:
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
    with pq.ParquetFile(path) as parquet:
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
    coarse = [_coarse(field.type) for field in rows.schema]
    columns = [_down(column, kind) for column, kind in zip(rows.columns, coarse, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


def _down(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cut nanoseconds down to microseconds; a cast cuts towards zero, which is up before 1970."""
    if kind == column.type:
        return column
    if pa.types.is_list(kind):
        flat = _down(column.values, kind.value_type)
        return pa.ListArray.from_arrays(column.offsets, flat, mask=column.is_null())
    if getattr(column.type, "unit", "") != "ns":
        return column.cast(kind, safe=False)
    fine = column.cast(pa.int64())
    whole = pc.divide(fine, 1000)
    late = pc.less(pc.subtract(fine, pc.multiply(whole, 1000)), 0)
    return pc.subtract(whole, late.cast(pa.int64())).cast(kind)


def _coarse(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_time64(kind):
        return pa.time64("us")
    if pa.types.is_duration(kind):
        return pa.duration("us")
    if pa.types.is_list(kind) and (inner := _coarse(kind.value_type)) != kind.value_type:
        return pa.list_(inner)
    return pa.float32() if pa.types.is_float16(kind) else kind


def _key_columns(table: Table) -> list[Column]:
    roles: tuple[Role, ...] = ("id",) if table.kind == "node" else ("source", "target")
    return [column for role in roles if (column := table.column(role)) is not None]
