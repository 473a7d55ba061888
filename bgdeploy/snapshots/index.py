"""Index: the ids of labels and ends on disk, found again by id or by place, in memory that does not grow."""

from __future__ import annotations

import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from bgdeploy.snapshots.ids import BATCH, carries, column_of, plain, read_ids, read_roles
from bgdeploy.snapshots.source import DataFile, Role, Snapshot, Table
from bgdeploy.snapshots.spill import IDS, MOST_PARTS, ROWS, NoRoom, Spill, by_hash, by_place

_BESIDE = 24  # bytes a row takes beside its id: the id's offset, its place, what a batch costs
_COPIES = 2  # the ids, and the offenders among them, which may be all
_LOOKED_AT = 1024  # rows by which the length of ids is reckoned


class Place(NamedTuple):
    """Where a row stands: its file relative to the snapshot, and its number, from 1."""

    file: str
    row: int


class Source(NamedTuple):
    """A file whose ids count; with ``label``, only those of rows whose labels column names it."""

    table: Table
    file: DataFile
    role: Role
    label: str | None = None


class Places:
    """Rows of several files numbered through: one whole number stands for file and row."""

    def __init__(self, sources: Sequence[Source]) -> None:
        rows = [source.file.rows for source in sources]
        self._files = [source.file.path for source in sources]
        self.starts = list(accumulate(rows, initial=0))

    def at(self, place: int) -> Place:
        """The file and row of a number."""
        number = bisect_right(self.starts, place) - 1
        return Place(self._files[number], place - self.starts[number] + 1)


@dataclass(frozen=True)
class Listing:
    """Rows to be told of, in the order of their files; the id is null where the file has none."""

    spill: Spill
    places: Places

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows as ``IDS``, in order."""
        for part in self.spill.parts():
            yield pa.concat_tables(self.spill.windows(part)).sort_by("place")


@dataclass(frozen=True)
class Ids:
    """The ids of some files: ``rows`` by hash, ``nulls`` where there is none."""

    rows: Spill
    nulls: Listing
    places: Places


class Index:
    """Ids of one snapshot in a folder of its own; a label's are read once. Integers are held as text.

    ``part_rows`` is what memory is reckoned by: parts have some so many rows, whatever the snapshot has.
    """

    def __init__(self, snapshot: Snapshot, folder: Path, part_rows: int) -> None:
        self.snapshot, self._folder, self._rows = snapshot, folder, part_rows
        # All labels' ids of one part may be in memory together.
        nodes = sum(table.rows for table in snapshot.nodes)
        largest = max([nodes, *(table.rows for table in snapshot.relationships)])
        self.parts = min(MOST_PARTS, 1 << (largest // part_rows).bit_length())
        self._labels: dict[str, Ids] = {}
        self._made = 0

    def label(self, name: str) -> Ids:
        """The ids of a label's own folders."""
        if name not in self._labels:
            tables = [table for table in self.snapshot.nodes if table.name == name]
            self._labels[name] = self.read([Source(t, file, "id") for t in tables for file in t.files])
        return self._labels[name]

    def read(self, sources: Sequence[Source]) -> Ids:
        """Put the ids of these files on disk."""
        places = Places(sources)
        nulls = self.listing(places)
        ids = Ids(Spill(self._new(), by_hash(self.parts), self._rows), nulls, places)
        for source, start in zip(sources, places.starts, strict=False):
            for rows in _rows(self.snapshot, source, start):
                without = pc.is_null(rows["id"])
                ids.rows.add(rows.filter(pc.invert(without)))
                nulls.spill.add(rows.filter(without))
        ids.rows.close()
        nulls.spill.close()
        return ids

    def listing(self, places: Places) -> Listing:
        """A new listing, to be filled in any order."""
        size = max(self._rows, -(-places.starts[-1] // MOST_PARTS))
        return Listing(Spill(self._new(), by_place(size), self._rows), places)

    def _new(self) -> Path:
        self._made += 1
        return self._folder / str(self._made)


@contextmanager
def opened_index(
    snapshot: Snapshot, tables: Sequence[Table], folder: Path, part_rows: int = ROWS
) -> Iterator[Index]:
    """Make an index for these tables in ``folder``, which is emptied first and gone at the end.

    Raises NoRoom, also later on, where the disk has too little room.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _check_room(snapshot, tables, folder)
        yield Index(snapshot, folder, part_rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_room(snapshot: Snapshot, tables: Sequence[Table], folder: Path) -> None:
    needed = _COPIES * sum(_bytes(snapshot, table) for table in tables)
    free = shutil.disk_usage(folder).free
    if needed > free:
        what = f"Looking for all offenders takes up to {needed >> 20:,} MiB in {folder}, which has {free >> 20:,} MiB free."
        raise NoRoom(what, cure="Make room.")


def _bytes(snapshot: Snapshot, table: Table) -> int:
    """About what the ids of a table take on disk, judged by some rows of its largest file."""
    file = max(table.files, key=lambda file: file.rows)
    roles: tuple[Role, ...] = ("id",) if table.kind == "node" else ("source", "target")
    total = 0
    for role in roles:
        first = next(read_ids(snapshot, table, file, role), pa.array([], pa.large_string()))[:_LOOKED_AT]
        letters = pc.sum(pc.binary_length(first.cast(pa.large_string()))).as_py() or 0
        total += table.rows * (letters // max(1, len(first)) + _BESIDE)
    return total


def _rows(snapshot: Snapshot, source: Source, start: int) -> Iterator[pa.Table]:
    """The ids of one file with their places, as ``IDS``."""
    for ids, counted in _batches(snapshot, source):
        places = pc.add(_NUMBERS[: len(ids)], start)
        rows = pa.table([plain(ids).cast(pa.large_string()), places], schema=IDS)
        yield rows if counted is None else rows.filter(counted)
        start += len(ids)


_NUMBERS = pa.array(range(BATCH), pa.int64())


def _batches(snapshot: Snapshot, source: Source) -> Iterator[tuple[pa.Array, pa.Array | None]]:
    if source.label is None:
        for ids in read_ids(snapshot, source.table, source.file, source.role):
            yield ids, None
        return
    for ids, labels in read_roles(snapshot, source.table, source.file, (source.role, "labels")):
        yield ids, carries(labels, source.label)


def carriers(snapshot: Snapshot, label: str) -> list[Source]:
    """All files with nodes that carry a label, and keep their id under the name that its own folders use."""
    key = next(column_of(table, "id").name for table in snapshot.nodes if table.name == label)
    found = []
    for table in snapshot.nodes:
        if column_of(table, "id").name != key:
            continue
        if label in table.labels:
            found += [Source(table, file, "id") for file in table.files]
        elif table.column("labels") is not None:
            found += [Source(table, file, "id", label) for file in table.files]
    return found
