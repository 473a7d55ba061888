"""Rows of Parquet files from any place on, in pieces of any size, with little memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.parquet import Parquet
from bgdeploy.snapshots.rows import iterate
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
        first = start + (at - start) // WINDOW * WINDOW if sort_by else at  # a window is sorted whole
        pieces = _read(files, columns, first, stop)
        self._pieces = _sorted(pieces, sort_by, at - first) if sort_by else pieces
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


def _sorted(pieces: Iterable[pa.RecordBatch], sort_by: str, skip: int) -> Iterator[pa.RecordBatch]:
    """The same rows, each window of them in order, without the first ``skip`` of the first window."""
    for rows in _windows(pieces):
        ordered = rows.take(pc.sort_indices(rows.column(sort_by))).combine_chunks()
        yield from ordered.slice(skip).to_batches()
        skip = 0


def _windows(pieces: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for piece in pieces:
        held.append(piece)
        while sum(one.num_rows for one in held) >= WINDOW:
            rows = pa.Table.from_batches(held)
            yield rows.slice(0, WINDOW)
            held = rows.slice(WINDOW).to_batches()
    if held:
        yield pa.Table.from_batches(held)


def _read(files: Files, columns: Sequence[Column], start: int, stop: int) -> Iterator[pa.RecordBatch]:
    """Rows ``start`` to ``stop`` in one go; raises BadInput, with file and column, where a file is damaged."""
    place = 0  # row number at which what comes next begins
    for path, file in files:
        with _telling(path, file, columns), Parquet(path, file.path) as parquet:
            for group in range(parquet.metadata.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if place < stop and place + rows > start:
                    found = iterate(parquet, file, columns, _DECODED, [group])
                    yield from _cut(found, place, start, stop)
                place += rows
        if place >= stop:
            return


@contextmanager
def _telling(path: Path, file: DataFile, columns: Sequence[Column]) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if not _is_damage(error):
            raise
        found = (file.find(column) for column in columns)
        own = [one.name for one in found if one is not None and one.constant is None]
        bad = next((f"column {name!r}" for name in own if not _reads(path, name)), "the file")
        what = f"{file.path}: {bad} cannot be read, it is damaged: {str(error).splitlines()[0]}"
        raise BadInput(what, kept="What is live stays live.", cure="Write it again.") from error


def _is_damage(error: Exception) -> bool:
    """Not the system's own errors, which have a number: the file is gone, or the disk fails."""
    return not isinstance(error, MemoryError) and getattr(error, "errno", None) is None


def _reads(path: Path, name: str) -> bool:
    try:
        with Parquet(path) as parquet:
            for _ in parquet.iter_batches(_DECODED, columns=[name]):
                pass
    except (OSError, pa.ArrowException):
        return False
    return True


def _cut(batches: Iterator[pa.RecordBatch], place: int, start: int, stop: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if place >= stop:
            return  # the rest of a row group is not decoded for nothing
        first, last = max(0, start - place), min(batch.num_rows, stop - place)
        if first < last:
            yield batch.slice(first, last - first)
        place += batch.num_rows
