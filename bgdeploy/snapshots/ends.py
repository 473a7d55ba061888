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

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.footers import id_range
from bgdeploy.snapshots.rows import read_rows
from bgdeploy.snapshots.source import Column, DataFile, Snapshot, Table

_WINDOW = 2_000_000  # ids held in memory at once
_KEPT = "What is live stays live."
_NONE, _MANY = -1, -2  # in place of a label's number: in no table, in several


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
    ``<build>/split``; doing it again gives the same files. Raises BadInput for ids that no node
    has and for ids that several labels share while nothing declares the ends.
    """
    sources = _candidates(snapshot, table, "source", table.source_label)
    targets = _candidates(snapshot, table, "target", table.target_label)
    parts: list[Part] = []
    for file in table.files:
        if file.rows:
            left = _narrow(snapshot, table, file, "source", sources)
            right = _narrow(snapshot, table, file, "target", targets)
            parts += _parts_of(snapshot, table, file, left, right, build)
    return parts


def _candidates(snapshot: Snapshot, table: Table, role: str, declared: str | None) -> list[str]:
    """Node tables this end may join: those with the declared label, or all whose ids are of one kind."""
    family = _family(_column(table, role))
    fitting = [
        node
        for node in snapshot.nodes
        if (declared is None or declared in node.labels) and _family(_column(node, "id")) == family
    ]
    return sorted({node.name for node in fitting})


def _narrow(snapshot: Snapshot, table: Table, file: DataFile, role: str, names: list[str]) -> list[str]:
    """Leave out the labels whose ids the footers prove to lie elsewhere."""
    if len(names) == 1:
        return names
    mine = id_range(snapshot.path, [(file.path, _own(table, file, role))])
    if mine is None:
        return names
    return [name for name in names if _may_meet(_range(snapshot, name), mine)] or names


def _range(snapshot: Snapshot, label: str) -> tuple[object, object] | None:
    nodes = [node for node in snapshot.nodes if node.name == label]
    files = [(file.path, _own(node, file, "id")) for node in nodes for file in node.files if file.rows]
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
    snapshot: Snapshot, table: Table, file: DataFile, role: str, names: list[str]
) -> pa.ChunkedArray:
    """The number of the label each row's id belongs to; raises BadInput for none and for several."""
    if len(names) == 1:
        return pa.chunked_array([pa.nulls(file.rows, pa.int32()).fill_null(0)])
    chunks = []
    for _, ids in _read(snapshot.path / file.path, _own(table, file, role)):
        place = pa.nulls(len(ids), pa.int32()).fill_null(_NONE)
        for number, name in enumerate(names):
            for window in _windows(snapshot, name):
                place = _mark(place, pc.is_in(ids, value_set=window), number)
        chunks.append(place)
    places = pa.chunked_array(chunks)
    if pc.min(places).as_py() < 0:
        raise _unclear(snapshot, table, file, role, places, names)
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
                for _, ids in _read(snapshot.path / file.path, _own(node, file, "id")):
                    yield ids.drop_null()


def _read(path: Path, name: str) -> Iterator[tuple[int, pa.Array]]:
    """Yield (first row, values) of a column in windows, in one plain type so that ids compare."""
    with pq.ParquetFile(path) as parquet:
        start = 0
        batches = parquet.iter_batches(65_536, columns=[name])
        while some := list(islice(batches, _WINDOW // 65_536)):
            ids = _plain(pa.chunked_array([batch.column(0) for batch in some]))
            yield start, ids
            start += len(ids)


def _plain(ids: pa.ChunkedArray) -> pa.Array:
    kind = ids.type.value_type if pa.types.is_dictionary(ids.type) else ids.type
    wanted = pa.uint64() if kind == pa.uint64() else pa.int64()
    return ids.cast(wanted if pa.types.is_integer(kind) else pa.large_string()).combine_chunks()


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


def _unclear(
    snapshot: Snapshot, table: Table, file: DataFile, role: str, places: pa.ChunkedArray, names: list[str]
) -> BadInput:
    lost = pc.sum(pc.equal(places, _NONE)).as_py()
    fault = _NONE if lost else _MANY
    rows = lost or pc.sum(pc.equal(places, _MANY)).as_py()
    shown = ", ".join(islice(_examples(snapshot, table, file, role, pc.equal(places, fault)), 10))
    if lost:
        what = f"{file.path}: {rows:,} rows have a {role} id that no node has: {shown}."
        cure = f"Write those nodes, or leave the rows out (looked in {', '.join(names)})."
    else:
        what = f"{file.path}: {rows:,} rows have a {role} id that several labels share: {shown}."
        cure = f"Declare the ends: relationships/{table.name}/from=<Label>/to=<Label>/*.parquet"
    return BadInput(what, kept=_KEPT, cure=cure)


def _examples(
    snapshot: Snapshot, table: Table, file: DataFile, role: str, faulty: pa.ChunkedArray
) -> Iterator[str]:
    for start, ids in _read(snapshot.path / file.path, _own(table, file, role)):
        here = faulty.slice(start, len(ids)).combine_chunks()
        for row in pc.indices_nonzero(here)[:10]:
            yield f"{ids[row.as_py()].as_py()!r} in row {start + row.as_py() + 1:,}"


def _own(table: Table, file: DataFile, role: str) -> str:
    """What the role's column is called in one of the table's files."""
    column = file.find(_column(table, role))
    assert column is not None, f"{file.path} was admitted without a column for the {role}"
    return column.name


def _column(table: Table, role: str) -> Column:
    column = table.column(role)  # type: ignore[arg-type]
    assert column is not None, f"{table.name} was admitted without a column for the {role}"
    return column


def _family(column: Column) -> str:
    return "string" if "string" in column.type else "integer"
