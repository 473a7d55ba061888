"""What the Parquet files say a database must hold: non-null values per column, and sampled rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bgdeploy.snapshots.footers import read_nulls
from bgdeploy.snapshots.source import Snapshot, Table

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
    names = [column.name for column in table.properties]
    total: Counter[str] = Counter(dict.fromkeys(names, 0))
    for file in table.files:
        with pq.ParquetFile(snapshot.path / file.path) as parquet:
            for name in names:
                nulls = read_nulls(parquet, name)
                total[name] += file.rows - (_nulls_by_reading(parquet, name) if nulls is None else nulls)
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
        found += _read_rows(snapshot.path / file.path, group, table, each)
    return found[:count]


def _row_groups(snapshot: Snapshot, path: str) -> int:
    with pq.ParquetFile(snapshot.path / path) as parquet:
        return int(parquet.metadata.num_row_groups)


def _read_rows(path: Path, group: int, table: Table, count: int) -> Iterator[Sample]:
    """Rows from a batch in the middle of a row group, so that order within it matters too."""
    keys = _key_columns(table)
    wanted = [*keys, *(column.name for column in table.properties)]
    with pq.ParquetFile(path) as parquet:
        rows = parquet.metadata.row_group(group).num_rows
        skip = min(rows // (2 * _BATCH), 16)
        for number, batch in enumerate(parquet.iter_batches(_BATCH, row_groups=[group], columns=wanted)):
            if number < skip:
                continue
            step = max(1, batch.num_rows // count)
            picked = _in_python(batch.take(list(range(0, batch.num_rows, step))[:count])).to_pylist()
            for row in picked:
                values = {column.name: row[column.name] for column in table.properties}
                yield Sample(tuple(row[key] for key in keys), values)
            return


def _in_python(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Cut times to the microseconds that Python knows; what is compared with them is cut likewise."""
    coarse = [_coarse(field.type) for field in rows.schema]
    columns = [column.cast(kind, safe=False) for column, kind in zip(rows.columns, coarse, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


def _coarse(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_time64(kind):
        return pa.time64("us")
    if pa.types.is_duration(kind):
        return pa.duration("us")
    return pa.float32() if pa.types.is_float16(kind) else kind


def _key_columns(table: Table) -> list[str]:
    roles = ("id",) if table.kind == "node" else ("source", "target")
    return [column.name for role in roles if (column := table.column(role)) is not None]  # type: ignore[arg-type]
