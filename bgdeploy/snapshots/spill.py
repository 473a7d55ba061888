"""Spill: ids with their places on disk, divided over files of which each fits into memory."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bgdeploy.errors import TargetFull

ROWS = 250_000  # rows meant for one part
MOST_PARTS = 256  # files open at once; more rows than these hold make the parts larger

_HASHED = 8192
IDS = pa.schema({"id": pa.large_string(), "place": pa.int64()})
_PACKED = pa.ipc.IpcWriteOptions(compression="lz4")
Choose = Callable[[pa.Table], pa.Array]  # rows -> the number of each one's part


class NoRoom(TargetFull):
    """The disk has no room to look for offenders."""


class Spill:
    """Rows of ``IDS`` in ``folder``; those of one part are read back in the order they were added.

    Everything is added first, then ``close`` is called, then the parts are read. Raises NoRoom.
    """

    def __init__(self, folder: Path, choose: Choose, rows: int) -> None:
        folder.mkdir()
        self._folder, self._choose, self._most = folder, choose, max(1, rows // 2)
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}
        self._held: list[pa.Table] = []
        self._waiting = 0
        self.rows = 0

    def add(self, rows: pa.Table) -> None:
        """Add rows; they reach the disk in larger pieces."""
        self._held.append(rows)
        self._waiting += rows.num_rows
        self.rows += rows.num_rows
        if self._waiting >= self._most:
            self._flush()

    def close(self) -> None:
        """Write what is left; from now on it is read."""
        self._flush()
        with _minding_room(self._folder):
            for writer in self._writers.values():
                writer.close()

    def parts(self) -> list[int]:
        """The parts that have rows, in order."""
        return sorted(self._writers)

    def windows(self, part: int) -> Iterator[pa.Table]:
        """Yield the rows of a part; in several tables where it is much larger than was meant."""
        if part not in self._writers:
            return
        held: list[pa.RecordBatch] = []
        rows = 0
        with pa.OSFile(str(self._path(part))) as file, pa.ipc.open_stream(file) as batches:
            for batch in batches:
                held.append(batch)
                rows += batch.num_rows
                if rows >= 4 * self._most:
                    yield pa.Table.from_batches(held)
                    held, rows = [], 0
        if held:
            yield pa.Table.from_batches(held)

    def remove(self) -> None:
        """Give its room back."""
        shutil.rmtree(self._folder)

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows = pa.concat_tables(self._held).combine_chunks()
        self._held, self._waiting = [], 0
        numbers = self._choose(rows)
        order = pc.sort_indices(numbers)
        rows, start = rows.take(order), 0
        with _minding_room(self._folder):
            for found in pc.value_counts(numbers.take(order)):
                count = found["counts"].as_py()
                self._writer(found["values"].as_py()).write_table(rows.slice(start, count))
                start += count

    def _writer(self, part: int) -> pa.RecordBatchStreamWriter:
        if part not in self._writers:
            self._writers[part] = pa.ipc.new_stream(str(self._path(part)), IDS, options=_PACKED)
        return self._writers[part]

    def _path(self, part: int) -> Path:
        return self._folder / f"{part}.arrow"


def by_hash(parts: int) -> Choose:
    """Equal ids go to one part; ``parts`` is a power of two."""

    def choose(rows: pa.Table) -> pa.ChunkedArray:
        # A few at a time: as Python's own objects ids take many times the memory.
        some = (rows["id"].slice(start, _HASHED) for start in range(0, rows.num_rows, _HASHED))
        hashes = [pa.array(map(hash, ids.to_pylist()), pa.int64(), size=len(ids)) for ids in some]
        return pc.bit_wise_and(pa.chunked_array(hashes), parts - 1)

    return choose


def by_place(size: int) -> Choose:
    """A part is a range of ``size`` places, so it never holds more rows than these."""
    return lambda rows: pc.divide(rows["place"], size)


@contextmanager
def _minding_room(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoRoom(f"The disk under {folder} became full.", cure="Make room.") from error
