"""Ends: which labels each relationship file joins, declared, proven by footers, or found by its ids."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bgdeploy.snapshots.keys import Keys, Source, candidates, file_of, ids_of, opened_keys, own_column
from bgdeploy.snapshots.parquet import id_range
from bgdeploy.snapshots.rows import read_rows
from bgdeploy.snapshots.source import DataFile, Kind, Role, Snapshot, Table

_FOLDER = "ends"  # below a build's folder
_ROWS = 65_536  # rows of labels at a time
_ROLES: tuple[Role, Role] = ("source", "target")
Names = tuple[str, ...]
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


@dataclass(frozen=True)
class _End:
    """One end of all rows of a file: the labels it may join, and those that it is looked up among."""

    table: Table
    file: DataFile
    role: Role
    labels: Names
    among: Names

    @property
    def as_source(self) -> Source:
        return Source(self.table, self.file, self.role, _ROLES.index(self.role))


def find_parts(snapshot: Snapshot, build: Path) -> list[list[Part]]:
    """Return for every relationship table its files with the labels they join.

    A file whose rows join several pairs is split into one Parquet file for each, below
    ``<build>/split``; doing it again gives the same files. Raises Misfit for ids that no node
    has and for ids that several labels share while nothing declares the ends; NoRoom.
    """
    build = build.absolute()
    ends = [end for table in snapshot.relationships for end in _ends_of(snapshot, table)]
    unclear = [end for end in ends if len(end.labels) > 1]
    if not unclear:
        return _all_parts(snapshot, {_place_of(end): end.labels for end in ends}, {})
    with opened_keys(snapshot, build / _FOLDER) as keys:
        joined = {_place_of(end): end.labels for end in ends}
        for among in dict.fromkeys(end.among for end in unclear):
            joined |= _look_up(keys, [end for end in unclear if end.among == among], among)
        mixed = [end for end in unclear if len(joined[_place_of(end)]) > 1]
        return _all_parts(snapshot, joined, _split(keys, mixed, joined, build))


def _place_of(end: _End) -> tuple[str, Role]:
    return end.file.path, end.role


def _all_parts(
    snapshot: Snapshot, joined: Mapping[tuple[str, Role], Names], split: Mapping[str, list[Part]]
) -> list[list[Part]]:
    def parts_of(file: DataFile) -> list[Part]:
        if file.path in split:
            return split[file.path]
        (source,), (target,) = joined[file.path, "source"], joined[file.path, "target"]
        return [Part(file.path, file.rows, source, target)]

    return [
        [part for file in table.files if file.rows for part in parts_of(file)]
        for table in snapshot.relationships
    ]


def _ends_of(snapshot: Snapshot, table: Table) -> Iterator[_End]:
    """Yield both ends of every file; labels whose ids the footers prove to lie elsewhere are left out."""
    for role, declared in (("source", table.source_label), ("target", table.target_label)):
        names = candidates(snapshot, table, role, declared)  # type: ignore[arg-type]
        spans = {name: _span(snapshot, name) for name in names} if len(names) > 1 else {}
        narrow = {
            file.path: _narrow(snapshot, table, file, role, names, spans)  # type: ignore[arg-type]
            for file in table.files
            if file.rows
        }
        among = tuple(sorted({name for some in narrow.values() if len(some) > 1 for name in some}))
        for file in table.files:
            if file.rows:
                yield _End(table, file, role, narrow[file.path], among)  # type: ignore[arg-type]


def _narrow(
    snapshot: Snapshot,
    table: Table,
    file: DataFile,
    role: Role,
    names: Sequence[str],
    spans: Mapping[str, Span],
) -> Names:
    if len(names) == 1:
        return tuple(names)
    mine = id_range(snapshot.path, [(file.path, own_column(table, file, role).name)])
    if mine is None:
        return tuple(names)
    return tuple(name for name in names if _may_meet(spans[name], mine)) or tuple(names)


def _span(snapshot: Snapshot, label: str) -> Span:
    nodes = [node for node in snapshot.nodes if node.name == label]
    files = [
        (file.path, own_column(node, file, "id").name) for node in nodes for file in node.files if file.rows
    ]
    return id_range(snapshot.path, files)


def _may_meet(one: Span, other: tuple[object, object]) -> bool:
    if one is None:
        return True
    return bool(one[0] <= other[1] and other[0] <= one[1])  # type: ignore[operator]


def _look_up(keys: Keys, ends: Sequence[_End], among: Names) -> dict[tuple[str, Role], Names]:
    """Return the labels that each of these ends joins; raises Misfit for ids of none and of several."""
    asked, ids = [end.as_source for end in ends], ids_of(keys.snapshot, among)
    found: dict[tuple[int, int], Counter[int | None]] = {}
    for part in keys.parts:
        rows = keys.run(
            f"SELECT {file_of('place')}, one.mark, known.mark, count(*) FROM ({keys.read(asked, part)}) AS one "
            f"LEFT JOIN (SELECT mark, id FROM ({keys.read(ids, part)})) AS known USING (id) GROUP BY ALL"
        )
        for number, role, label, count in rows:
            found.setdefault((number, role), Counter())[label] += count
    met = [found[keys.number(end.file), _ROLES.index(end.role)] for end in ends]
    for end, labels in zip(ends, met, strict=True):
        if None in labels:
            raise _misfit(end, labels[None], "that no node has")
    # More hits than rows: an id is there twice, which the load itself will refuse, or several labels have it.
    doubtful = [end for end, labels in zip(ends, met, strict=True) if sum(labels.values()) > end.file.rows]
    if doubtful:
        _refuse_shared(keys, doubtful, ids)
    return {
        _place_of(end): tuple(
            among[label] for label in sorted(label for label in labels if label is not None)
        )
        for end, labels in zip(ends, met, strict=True)
    }


def _refuse_shared(keys: Keys, ends: Sequence[_End], ids: Sequence[Source]) -> None:
    asked = [end.as_source for end in ends]
    counts: Counter[tuple[int, int]] = Counter()
    for part in keys.parts:
        shared = f"SELECT id FROM ({keys.read(ids, part)}) GROUP BY id HAVING min(mark) < max(mark)"
        rows = keys.run(
            f"SELECT {file_of('place')}, mark, count(*) FROM ({keys.read(asked, part)}) "
            f"SEMI JOIN ({shared}) USING (id) GROUP BY ALL"
        )
        for number, role, count in rows:
            counts[number, role] += count
    for end in ends:
        if count := counts.get((keys.number(end.file), _ROLES.index(end.role))):
            raise _misfit(end, count, "that several labels share")


def _misfit(end: _End, rows: int, why: str) -> Misfit:
    said = f"{end.file.path} has {rows:,} rows with a {end.role} id {why}."
    return Misfit("relationship", end.table.name, said)


def _split(
    keys: Keys, mixed: Sequence[_End], joined: Mapping[tuple[str, Role], Names], build: Path
) -> dict[str, list[Part]]:
    """Write the rows of each pair of labels to a file of their own; return the parts of every file split."""
    if not mixed:
        return {}
    names = sorted({name for end in mixed for role in _ROLES for name in joined[end.file.path, role]})
    _pair_rows(keys, mixed, names)
    counts: dict[int, list[tuple[int | None, int | None, int]]] = {}
    query = (
        f"SELECT {file_of('place')} AS file, source, target, count(*) FROM pairs GROUP BY ALL ORDER BY ALL"
    )
    for number, *pair in keys.run(query):
        counts.setdefault(number, []).append((pair[0], pair[1], pair[2]))
    labels = _Labels(keys.batches("SELECT source, target FROM pairs ORDER BY place", _ROWS))
    parts: dict[str, list[Part]] = {}
    folder = build / "split"
    folder.mkdir(exist_ok=True)
    for end in sorted({end.file.path: end for end in mixed}.values(), key=lambda end: keys.number(end.file)):
        file = end.file
        # A role that joins one label was not looked up row by row.
        only = [names.index(joined[file.path, role][0]) for role in _ROLES]
        found = [
            (only[0] if source is None else source, only[1] if target is None else target, rows)
            for source, target, rows in counts[keys.number(file)]
        ]
        first = len(os.listdir(folder))
        paths = [f"split/{first + number}.parquet" for number in range(len(found))]
        pairs = [source * len(names) + target for source, target, _ in found]
        schema = pa.schema([(column.name, column.kind) for column in end.table.columns])
        writers = [pq.ParquetWriter(build / path, schema, compression="zstd") for path in paths]
        for batch in read_rows(keys.snapshot.path / file.path, file, end.table.columns):
            source, target = labels.take(batch.num_rows)
            source, target = source.fill_null(only[0]), target.fill_null(only[1])
            here = pc.add(pc.multiply(source, len(names)), target)
            for pair, writer in zip(pairs, writers, strict=True):
                writer.write_batch(batch.filter(pc.equal(here, pair)))
        for writer in writers:
            writer.close()
        parts[file.path] = [
            Part(path, rows, names[source], names[target])
            for path, (source, target, rows) in zip(paths, found, strict=True)
        ]
    return parts


def _pair_rows(keys: Keys, mixed: Sequence[_End], names: Sequence[str]) -> None:
    """Make the table ``pairs``: for each row of these files the numbers of its labels; null where only one is possible."""
    keys.run("CREATE TABLE looked (place BIGINT, role INTEGER, label INTEGER)")
    for among in dict.fromkeys(end.among for end in mixed):
        asked = [end.as_source for end in mixed if end.among == among]
        ids = [
            source._replace(mark=names.index(source.table.name))
            for source in ids_of(keys.snapshot, among)
            if source.table.name in names
        ]
        for part in keys.parts:
            keys.run(
                f"INSERT INTO looked SELECT one.place, one.mark, known.mark FROM ({keys.read(asked, part)}) AS one "
                f"JOIN (SELECT mark, id FROM ({keys.read(ids, part)})) AS known USING (id)"
            )
    # An id that is there twice gives its row twice; the load will refuse it.
    sides = ", ".join(f"max(label) FILTER (role = {number}) AS {role}" for number, role in enumerate(_ROLES))
    keys.run(f"CREATE TABLE pairs AS SELECT place, {sides} FROM looked GROUP BY place")
    keys.run("DROP TABLE looked")


class _Labels:
    """The labels of rows in order, taken in pieces of any length."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches, self._held = (
            batches,
            pa.table({"source": pa.array([], pa.int32()), "target": pa.array([], pa.int32())}),
        )

    def take(self, rows: int) -> tuple[pa.Array, pa.Array]:
        """The next rows' labels of source and target."""
        held = [self._held]
        count = self._held.num_rows
        while count < rows:
            held.append(pa.Table.from_batches([next(self._batches)]))
            count += held[-1].num_rows
        every = pa.concat_tables(held)
        self._held = every.slice(rows)
        some = every.slice(0, rows).combine_chunks()
        return some["source"].combine_chunks(), some["target"].combine_chunks()
