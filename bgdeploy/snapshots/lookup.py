"""Lookup: which label's ids each end is among. Many ends at once, since every pass goes over all ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice

import pyarrow as pa
import pyarrow.compute as pc

from bgdeploy.snapshots.bundles import bundle
from bgdeploy.snapshots.ids import BATCH, read_ids, within
from bgdeploy.snapshots.source import DataFile, Role, Snapshot, Table

ENDS = 4_000_000  # held in memory at once
NO_LABEL, SEVERAL = -1, -2  # in place of a label's number
_WINDOW = 1_000_000  # ids of one pass
_TOGETHER = 2  # passes at once


@dataclass(frozen=True)
class End:
    """One end of all rows of a file, and the labels it may join."""

    file: DataFile
    role: Role
    labels: Sequence[str]


@dataclass(frozen=True)
class _Piece:
    number: int  # of its end
    labels: Sequence[str]
    ids: pa.Array

    @property
    def rows(self) -> int:
        return len(self.ids)


def look_up(
    snapshot: Snapshot, table: Table, ends: Sequence[End], numbers: Mapping[str, int]
) -> list[pa.ChunkedArray]:
    """Return for every end the number of each row's label, as int16; NO_LABEL and SEVERAL where it is unclear.

    Memory holds ``ENDS`` ids of ends, and those of two passes; beside the answer, two bytes for each row.
    """
    found: list[list[pa.Array]] = [[] for _ in ends]
    for run in _runs(_read_ends(snapshot, table, ends)):
        for piece, places in zip(run, _place(snapshot, run, numbers), strict=True):
            found[piece.number].append(places)
    return [pa.chunked_array(chunks, pa.int16()) for chunks in found]


def _read_ends(snapshot: Snapshot, table: Table, ends: Sequence[End]) -> Iterator[_Piece]:
    for number, end in enumerate(ends):
        for ids in read_ids(snapshot, table, end.file, end.role):
            yield _Piece(number, end.labels, ids)


def _runs(pieces: Iterator[_Piece]) -> Iterator[list[_Piece]]:
    """Pieces to look up at once: of one type, and as many as memory may hold."""
    for _, same in groupby(pieces, key=lambda piece: piece.ids.type):
        yield from bundle(same, ENDS)


def _place(snapshot: Snapshot, run: Sequence[_Piece], numbers: Mapping[str, int]) -> list[pa.Array]:
    places = [pa.nulls(piece.rows, pa.int16()).fill_null(NO_LABEL) for piece in run]
    windows = _windows(snapshot, sorted({label for piece in run for label in piece.labels}))
    with ThreadPoolExecutor(_TOGETHER) as pool:
        while some := list(islice(windows, _TOGETHER)):
            for (label, _), hits in zip(some, pool.map(partial(_hits, run), some), strict=True):
                for at, hit in hits:
                    places[at] = _mark(places[at], hit, numbers[label])
    return places


def _windows(snapshot: Snapshot, labels: Sequence[str]) -> Iterator[tuple[str, pa.Array]]:
    """Yield all ids of these labels, with their label."""
    for node in snapshot.nodes:
        if node.name in labels:
            for file in node.files:
                batches = read_ids(snapshot, node, file, "id")
                while some := list(islice(batches, _WINDOW // BATCH)):
                    yield node.name, pa.concat_arrays(some).drop_null()


def _hits(run: Sequence[_Piece], window: tuple[str, pa.Array]) -> list[tuple[int, pa.Array]]:
    """Which ids of the pieces that may join this label are in the window: the piece's place in the run, and its hits."""
    label, known = window
    asking = [at for at, piece in enumerate(run) if label in piece.labels]
    hits = within(pa.chunked_array([run[at].ids for at in asking]), known)
    found, start = [], 0
    for at in asking:
        length = run[at].rows
        found.append((at, hits.slice(start, length).combine_chunks()))
        start += length
    return found


def _mark(places: pa.Array, hit: pa.Array, number: int) -> pa.Array:
    """Give hit rows this label's number, or note that they have another already."""
    mine, several = pa.scalar(number, pa.int16()), pa.scalar(SEVERAL, pa.int16())
    free = pc.or_(pc.equal(places, NO_LABEL), pc.equal(places, mine))
    return pc.if_else(hit, pc.if_else(free, mine, several), places)
