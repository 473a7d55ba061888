"""Rows of Parquet files from any place on, in pieces of any size, with little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_DECODED = 16_384  # rows decoded at a time


class RowReader:
    """The rows ``start`` to ``stop`` of some files in a row, handed out in order.

    The files are read as one long table; row numbers count from the first row of the first file.
    """

    def __init__(self, paths: Sequence[Path], start: int, stop: int) -> None:
        self._batches = _read(paths, start, stop)
        self._held: list[pa.RecordBatch] = []
        self._rows = 0

    def take(self, most: int) -> pa.Table | None:
        """Return the next ``most`` rows (fewer at the end), or None when there are no more."""
        while self._rows < most and (batch := next(self._batches, None)) is not None:
            self._held.append(batch)
            self._rows += batch.num_rows
        if not self._rows:
            return None
        table = pa.Table.from_batches(self._held)
        taken, rest = table.slice(0, most), table.slice(most)
        self._held, self._rows = rest.to_batches(), rest.num_rows
        return taken

    def put_back(self, table: pa.Table) -> None:
        """Take rows back that could not be used in one piece; they are the next ones again."""
        self._held = [*table.to_batches(), *self._held]
        self._rows += table.num_rows


def _read(paths: Sequence[Path], start: int, stop: int) -> Iterator[pa.RecordBatch]:
    place = 0  # row number at which what comes next begins
    for path in paths:
        with pq.ParquetFile(path) as parquet:
            for group in range(parquet.metadata.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if place < stop and place + rows > start:
                    yield from _cut(parquet, group, place, start, stop)
                place += rows
        if place >= stop:
            return


def _cut(parquet: pq.ParquetFile, group: int, place: int, start: int, stop: int) -> Iterator[pa.RecordBatch]:
    for batch in parquet.iter_batches(_DECODED, row_groups=[group]):
        first, last = max(0, start - place), min(batch.num_rows, stop - place)
        if first < last:
            yield batch.slice(first, last - first)
        place += batch.num_rows
