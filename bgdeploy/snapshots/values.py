"""Values that no reader could be given: moments outside of the calendar, and text that is no text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.parquet import Parquet, outside_of_calendar
from bgdeploy.snapshots.source import DataFile, Snapshot

_BATCH = 65_536  # rows decoded at a time
_KEPT = "What is live stays live."


def check_moments(file: str, parquet: Parquet) -> None:
    """Raise BadInput for a column of days or moments whose bounds in the footer lie outside of the years 1 to 9999."""
    for number in range(len(parquet.schema)):
        leaf = parquet.schema.column(number)
        if leaf.logical_type.type in ("DATE", "TIMESTAMP") and not _all_in_calendar(parquet, number):
            raise outside_of_calendar(file, leaf.path.partition(".")[0])


def _all_in_calendar(parquet: Parquet, number: int) -> bool:
    for index in range(parquet.metadata.num_row_groups):
        statistics = parquet.metadata.row_group(index).column(number).statistics
        if statistics is not None and statistics.has_min_max:
            try:
                _ = statistics.min, statistics.max
            except OverflowError:
                return False
            except ValueError:
                continue  # nanoseconds, which Python does not know; they end in the year 2262
    return True


def find_bad_text(snapshot: Snapshot) -> BadInput | None:
    """Return the error for the first text that is not UTF-8, by file, column and row; None where all is.

    Reads the columns of text of every file until one is found.
    """
    for table in snapshot.tables:
        for file in table.files:
            for column, row in _bad_texts(snapshot.path / file.path, file):
                return BadInput(
                    f"{file.path}, row {row:,}: column {column!r} holds bytes that are no text (UTF-8).",
                    kept=_KEPT,
                    cure="Write it as UTF-8, or the column as binary.",
                )
    return None


def _bad_texts(path: Path, file: DataFile) -> Iterator[tuple[str, int]]:
    names = [one.name for one in file.columns if "string" in one.type and one.constant is None]
    start = 0
    with Parquet(path, file.path) as parquet:
        for batch in parquet.iter_batches(_BATCH, columns=names):
            for name, values in zip(batch.schema.names, batch.columns, strict=True):
                if name in names and not _is_text(values):
                    yield name, start + _first_bad(values) + 1
            start += batch.num_rows


def _is_text(values: pa.Array) -> bool:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _first_bad(values: pa.Array) -> int:
    """The place of the first value that is no text, by halves."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if not _is_text(values.slice(low, middle - low)) else (middle, high)
    return low
