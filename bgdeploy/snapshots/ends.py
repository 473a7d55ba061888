"""Ends: which labels each relationship file joins, declared, proven by footers, or found by its ids."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bgdeploy.snapshots.footers import id_range
from bgdeploy.snapshots.ids import BATCH, column_of, family, name_in, read_ids, within
from bgdeploy.snapshots.rows import read_rows
from bgdeploy.snapshots.source import DataFile, Kind, Role, Snapshot, Table

_WINDOW = 2_000_000  # ids held in memory at once
_NONE, _MANY = -1, -2  # in place of a label's number: in no table, in several


class Misfit(Exception):
    """Ids or ends of one label or type do not fit; ``said`` is what was seen of it, the files tell the rest."""

    def __init__(self, kind: Kind, name: str, said: str) -> None:
        super().__init__(said)
        self.kind, self.name, self.said = kind, name, said


@dataclass(frozen=True)
class Part:
    """Rows of one file that join one pair of labels; ``path`` is relative to the snapshot or the build."""

    path: str
    rows: int
    source: str
    target: str


def find_parts(snapshot: Snapshot, table: Table, build: Path) -> list[Part]:
    """Return every file of a relationship table with the labels it joins.

    A file whose rows join several pairs is split into one Parquet file for each, below
    ``<build>/split``; doing it again gives the same files. Raises Misfit for ids that no node
    has and for ids that several labels share while nothing declares the ends.
    """
    sources = candidates(snapshot, table, "source", table.source_label)
    targets = candidates(snapshot, table, "target", table.target_label)
    parts: list[Part] = []
    for file in table.files:
        if file.rows:
            left = _narrow(snapshot, table, file, "source", sources)
            right = _narrow(snapshot, table, file, "target", targets)
            parts += _parts_of(snapshot, table, file, left, right, build)
    return parts


def candidates(snapshot: Snapshot, table: Table, role: Role, declared: str | None) -> list[str]:
    """Node tables this end may join: those with the declared label, or all whose ids are of one kind."""
    kind = family(column_of(table, role))
    fitting = [
        node
        for node in snapshot.nodes
        if (declared is None or declared in node.labels) and family(column_of(node, "id")) == kind
    ]
    return sorted({node.name for node in fitting})


def _narrow(snapshot: Snapshot, table: Table, file: DataFile, role: Role, names: list[str]) -> list[str]:
    """Leave out the labels whose ids the footers prove to lie elsewhere."""
    if len(names) == 1:
        return names
    mine = id_range(snapshot.path, [(file.path, name_in(table, file, role))])
    if mine is None:
        return names
    return [name for name in names if _may_meet(_range(snapshot, name), mine)] or names


def _range(snapshot: Snapshot, label: str) -> tuple[object, object] | None:
    nodes = [node for node in snapshot.nodes if node.name == label]
    files = [(file.path, name_in(node, file, "id")) for node in nodes for file in node.files if file.rows]
    return id_range(snapshot.path, files)


def _may_meet(one: tuple[object, object] | None, other: tuple[object, object]) -> bool:
    if one is None:
        return True
    return bool(one[0] <= other[1] and other[0] <= one[1])  # type: ignore[operator]


def _parts_of(
    snapshot: Snapshot, table: Table, file: DataFile, left: list[str], right: list[str], build: Path
) -> list[Part]:
    if len(left) == len(right) == 1:
        return [Part(file.path, file.rows, left[0], right[0])]
    sources = _classify(snapshot, table, file, "source", left)
    targets = _classify(snapshot, table, file, "target", right)
    pairs = pc.add(pc.multiply(sources, len(right)), targets)
    found = sorted((one["values"].as_py(), one["counts"].as_py()) for one in pc.value_counts(pairs))
    names = {pair: (left[pair // len(right)], right[pair % len(right)]) for pair, _ in found}
    if len(found) == 1:
        return [Part(file.path, file.rows, *names[found[0][0]])]
    paths = _split(snapshot, table, file, pairs, [pair for pair, _ in found], build)
    return [Part(path, rows, *names[pair]) for path, (pair, rows) in zip(paths, found, strict=True)]


def _classify(
    snapshot: Snapshot, table: Table, file: DataFile, role: Role, names: list[str]
) -> pa.ChunkedArray:
    """The number of the label each row's id belongs to; raises Misfit for none and for several."""
    if len(names) == 1:
        return pa.chunked_array([pa.nulls(file.rows, pa.int32()).fill_null(0)])
    chunks = []
    for ids in _read(snapshot, table, file, role):
        place = pa.nulls(len(ids), pa.int32()).fill_null(_NONE)
        for number, name in enumerate(names):
            for window in _windows(snapshot, name):
                place = _mark(place, within(ids, window), number)
        chunks.append(place)
    places = pa.chunked_array(chunks)
    if pc.min(places).as_py() < 0:
        raise _unclear(table, file, role, places)
    return places


def _mark(place: pa.Array, hit: pa.Array, number: int) -> pa.Array:
    """Give hit rows this label's number, or note that they have one already."""
    free = pc.or_(pc.equal(place, _NONE), pc.equal(place, number))
    return pc.if_else(
        hit, pc.if_else(free, pa.scalar(number, pa.int32()), pa.scalar(_MANY, pa.int32())), place
    )


def _windows(snapshot: Snapshot, label: str) -> Iterator[pa.Array]:
    for node in snapshot.nodes:
        if node.name == label:
            for file in node.files:
                for ids in _read(snapshot, node, file, "id"):
                    yield ids.drop_null()


def _read(snapshot: Snapshot, table: Table, file: DataFile, role: Role) -> Iterator[pa.Array]:
    """Yield a file's ids of one role in windows."""
    batches = read_ids(snapshot, table, file, role)
    while some := list(islice(batches, _WINDOW // BATCH)):
        yield pa.concat_arrays(some)


def _split(
    snapshot: Snapshot,
    table: Table,
    file: DataFile,
    pairs: pa.ChunkedArray,
    found: Sequence[int],
    build: Path,
) -> list[str]:
    """Write the rows of each pair to a file of their own, in the table's shape; return paths relative to the build."""
    folder = build / "split"
    folder.mkdir(exist_ok=True)
    first = len(os.listdir(folder))
    paths = [f"split/{first + number}.parquet" for number in range(len(found))]
    schema = pa.schema([(column.name, column.kind) for column in table.columns])
    writers = [pq.ParquetWriter(build / path, schema, compression="zstd") for path in paths]
    start = 0
    for batch in read_rows(snapshot.path / file.path, file, table.columns):
        here = pairs.slice(start, batch.num_rows).combine_chunks()
        for pair, writer in zip(found, writers, strict=True):
            writer.write_batch(batch.filter(pc.equal(here, pair)))
        start += batch.num_rows
    for writer in writers:
        writer.close()
    return paths


def _unclear(table: Table, file: DataFile, role: Role, places: pa.ChunkedArray) -> Misfit:
    lost = pc.sum(pc.equal(places, _NONE)).as_py()
    rows = lost or pc.sum(pc.equal(places, _MANY)).as_py()
    why = "that no node has" if lost else "that several labels share"
    return Misfit("relationship", table.name, f"{file.path} has {rows:,} rows with a {role} id {why}.")
