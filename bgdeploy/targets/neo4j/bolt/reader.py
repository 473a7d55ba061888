"""Rows of Parquet files from any place on, in pieces of any size, with little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bgdeploy.snapshots.rows import iterate, open_file
from bgdeploy.snapshots.source import Column, DataFile

Files = Sequence[tuple[Path, DataFile]]
WINDOW = 32_768  # rows that are sorted together; never change it while a load is half done
_DECODED = 16_384  # rows decoded at a time


class RowReader:
    """The rows of a table's files from ``at`` on, with these of its columns, handed out in order.

    The files are read as one long table; row numbers count from the first row of the first file.
    With ``sort_by`` each window of ``WINDOW`` rows, counted from ``start``, is in the order of that
    column: always the same order, so that a row number means the same row at every try.
    """

    def __init__(
        self,
        files: Files,
        columns: Sequence[Column],
        span: tuple[int, int],
        at: int,
        sort_by: str | None = None,
    ) -> None:
        start, stop = span
        self._pieces = (
            _windows(files, columns, start, stop, at, sort_by) if sort_by else _read(files, columns, at, stop)
        )
        self._held: list[pa.RecordBatch] = []
        self._rows = 0

    def take(self, most: int) -> pa.Table | None:
        """Return the next ``most`` rows (fewer at the end), or None when there are no more."""
        while self._rows < most and (batch := next(self._pieces, None)) is not None:
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


def _windows(
    files: Files, columns: Sequence[Column], start: int, stop: int, at: int, sort_by: str
) -> Iterator[pa.RecordBatch]:
    first = start + (at - start) // WINDOW * WINDOW
    for begin in range(first, stop, WINDOW):
        rows = pa.Table.from_batches(list(_read(files, columns, begin, min(begin + WINDOW, stop))))
        ordered = rows.take(pc.sort_indices(rows.column(sort_by))).combine_chunks()
        yield from ordered.slice(max(0, at - begin)).to_batches()


def _read(files: Files, columns: Sequence[Column], start: int, stop: int) -> Iterator[pa.RecordBatch]:
    place = 0  # row number at which what comes next begins
    for path, file in files:
        with open_file(path) as parquet:
            for group in range(parquet.metadata.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if place < stop and place + rows > start:
                    found = iterate(parquet, file, columns, _DECODED, [group])
                    yield from _cut(found, place, start, stop)
                place += rows
        if place >= stop:
            return


def _cut(batches: Iterator[pa.RecordBatch], place: int, start: int, stop: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if place >= stop:
            return  # the rest of a row group is not decoded for nothing
        first, last = max(0, start - place), min(batch.num_rows, stop - place)
        if first < last:
            yield batch.slice(first, last - first)
        place += batch.num_rows
