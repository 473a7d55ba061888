"""Ends: which labels each relationship file joins, declared, proven by footers, or found by its ids."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bgdeploy.snapshots.bundles import bundle
from bgdeploy.snapshots.footers import id_range
from bgdeploy.snapshots.ids import column_of, family, name_in
from bgdeploy.snapshots.lookup import ENDS, NO_LABEL, SEVERAL, End, look_up
from bgdeploy.snapshots.rows import read_rows
from bgdeploy.snapshots.source import DataFile, Kind, Role, Snapshot, Table

Names = Sequence[str]  # of labels, in the order of their numbers
Span = tuple[object, object] | None  # the least and the greatest id; None where the footers do not tell


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
    parts: list[Part] = []
    roles = _roles(snapshot, table)
    spans = {name: _span(snapshot, name) for _, names in roles if len(names) > 1 for name in names}
    for some in bundle((file for file in table.files if file.rows), ENDS // 2):
        ends = [
            End(file, role, _narrow(snapshot, table, file, role, names, spans))
            for file in some
            for role, names in roles
        ]
        parts += _join(snapshot, table, ends, build)
    return parts


def _roles(snapshot: Snapshot, table: Table) -> list[tuple[Role, list[str]]]:
    return [
        ("source", candidates(snapshot, table, "source", table.source_label)),
        ("target", candidates(snapshot, table, "target", table.target_label)),
    ]


def _join(snapshot: Snapshot, table: Table, ends: Sequence[End], build: Path) -> Iterator[Part]:
    """Yield the parts of some files, whose ends stand in turn."""
    if all(len(end.labels) == 1 for end in ends):
        for left, right in zip(ends[::2], ends[1::2], strict=True):
            yield Part(left.file.path, left.file.rows, left.labels[0], right.labels[0])
        return
    places = list(_labels_of_rows(snapshot, table, ends))
    names = list(_number(ends))
    for end, left, right in zip(ends[::2], places[::2], places[1::2], strict=True):
        pairs = pc.add(pc.multiply(left.cast(pa.int32()), len(names)), right.cast(pa.int32()))
        yield from _parts_of(snapshot, table, end.file, pairs, names, build)


def candidates(snapshot: Snapshot, table: Table, role: Role, declared: str | None) -> list[str]:
    """Node tables this end may join: those with the declared label, or all whose ids are of one kind."""
    kind = family(column_of(table, role))
    fitting = [
        node
        for node in snapshot.nodes
        if (declared is None or declared in node.labels) and family(column_of(node, "id")) == kind
    ]
    return sorted({node.name for node in fitting})


def _narrow(
    snapshot: Snapshot, table: Table, file: DataFile, role: Role, names: list[str], spans: Mapping[str, Span]
) -> list[str]:
    """Leave out the labels whose ids the footers prove to lie elsewhere."""
    if len(names) == 1:
        return names
    mine = id_range(snapshot.path, [(file.path, name_in(table, file, role))])
    if mine is None:
        return names
    return [name for name in names if _may_meet(spans[name], mine)] or names


def _span(snapshot: Snapshot, label: str) -> Span:
    nodes = [node for node in snapshot.nodes if node.name == label]
    files = [(file.path, name_in(node, file, "id")) for node in nodes for file in node.files if file.rows]
    return id_range(snapshot.path, files)


def _may_meet(one: Span, other: tuple[object, object]) -> bool:
    if one is None:
        return True
    return bool(one[0] <= other[1] and other[0] <= one[1])  # type: ignore[operator]


def _labels_of_rows(snapshot: Snapshot, table: Table, ends: Sequence[End]) -> Iterator[pa.ChunkedArray]:
    """Yield for each end the number of every row's label; raises Misfit for none and for several."""
    labels = _number(ends)
    unclear = [end for end in ends if len(end.labels) > 1]
    looked_up = iter(look_up(snapshot, table, unclear, labels))
    for end in ends:
        if len(end.labels) == 1:
            same = pa.scalar(labels[end.labels[0]], pa.int16())
            yield pa.chunked_array([pa.nulls(end.file.rows, pa.int16()).fill_null(same)])
            continue
        places = next(looked_up)
        if pc.min(places).as_py() < 0:
            raise _unclear(table, end, places)
        yield places


def _number(ends: Sequence[End]) -> dict[str, int]:
    names = sorted({label for end in ends for label in end.labels})
    return {name: number for number, name in enumerate(names)}


def _parts_of(
    snapshot: Snapshot, table: Table, file: DataFile, pairs: pa.ChunkedArray, names: Names, build: Path
) -> list[Part]:
    found = sorted((one["values"].as_py(), one["counts"].as_py()) for one in pc.value_counts(pairs))
    joined = [(names[pair // len(names)], names[pair % len(names)]) for pair, _ in found]
    if len(found) == 1:
        return [Part(file.path, file.rows, *joined[0])]
    paths = _split(snapshot, table, file, pairs, [pair for pair, _ in found], build)
    return [Part(path, rows, *ends) for path, (_, rows), ends in zip(paths, found, joined, strict=True)]


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


def _unclear(table: Table, end: End, places: pa.ChunkedArray) -> Misfit:
    lost = pc.sum(pc.equal(places, NO_LABEL)).as_py()
    rows = lost or pc.sum(pc.equal(places, SEVERAL)).as_py()
    why = "that no node has" if lost else "that several labels share"
    said = f"{end.file.path} has {rows:,} rows with a {end.role} id {why}."
    return Misfit("relationship", table.name, said)
