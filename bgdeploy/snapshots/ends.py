"""Ends: which labels each relationship file joins, declared, proven by footers, or found by its ids.

What the folders declare decides, then the least and the greatest ids in the footers; only ends that both leave open are
looked up, and only files whose rows join several pairs of labels are written anew, one file a pair.
"""

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
from bgdeploy.snapshots.parquet import id_range, taker
from bgdeploy.snapshots.rows import read_rows
from bgdeploy.snapshots.source import ENDS, DataFile, Kind, Role, Snapshot, Table

_FOLDER = "ends"  # below a build's folder
_ROWS = 65_536  # rows of labels at a time
Names = tuple[str, ...]
Joined = dict[tuple[str, Role], Names]  # the labels that an end of a file joins, by its ``place``


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
    def place(self) -> tuple[str, Role]:
        return self.file.path, self.role

    @property
    def as_source(self) -> Source:
        return Source(self.table, self.file, self.role, ENDS.index(self.role))

    def misfit(self, rows: int, why: str) -> Misfit:
        said = f"{self.file.path} has {rows:,} rows with a {self.role} id {why}."
        return Misfit("relationship", self.table.name, said)


def find_parts(snapshot: Snapshot, build: Path) -> list[list[Part]]:
    """Return for every relationship table its files with the labels they join.

    A file whose rows join several pairs is split into one Parquet file for each, below
    ``<build>/split``; doing it again gives the same files. Raises Misfit for ids that no node
    has and for ids that several labels share while nothing declares the ends; NoRoom.
    """
    build = build.absolute()
    ends = [end for table in snapshot.relationships for end in _ends_of(snapshot, table)]
    joined: Joined = {end.place: end.labels for end in ends}
    split: Mapping[str, list[Part]] = {}
    if unclear := [end for end in ends if len(end.labels) > 1]:
        with opened_keys(snapshot, build / _FOLDER) as keys:
            for among in dict.fromkeys(end.among for end in unclear):
                joined |= _look_up(keys, [end for end in unclear if end.among == among], among)
            if mixed := [end for end in unclear if len(joined[end.place]) > 1]:
                split = _split(keys, mixed, joined, build)
    parts: list[list[Part]] = []
    for table in snapshot.relationships:
        parts.append([])
        for file in table.files:
            if file.path in split:
                parts[-1] += split[file.path]
            elif file.rows:
                (source,), (target,) = joined[file.path, "source"], joined[file.path, "target"]
                parts[-1].append(Part(file.path, file.rows, source, target))
    return parts


def _ends_of(snapshot: Snapshot, table: Table) -> Iterator[_End]:
    """Yield both ends of every file with rows; labels whose ids the footers prove to lie elsewhere are left out."""
    files = [file for file in table.files if file.rows]
    for role in ENDS:
        names = tuple(candidates(snapshot, table, role, table.declared(role)))
        narrow = {file.path: names for file in files}
        if len(names) > 1:
            spans = {}
            for name in names:
                nodes = (node for node in snapshot.nodes if node.name == name)
                ids = [(file.path, own.name) for node in nodes for file, own in node.own("id") if file.rows]
                spans[name] = id_range(snapshot.path, ids)
            for file in files:
                mine = id_range(snapshot.path, [(file.path, own_column(table, file, role).name)])
                if mine is not None:
                    low, high = mine
                    fitting = (
                        name
                        for name, span in spans.items()
                        if span is None or (span[0] <= high and low <= span[1])
                    )
                    narrow[file.path] = tuple(fitting) or names
        among = tuple(sorted({name for some in narrow.values() if len(some) > 1 for name in some}))
        for file in files:
            yield _End(table, file, role, narrow[file.path], among)


def _look_up(keys: Keys, ends: Sequence[_End], among: Names) -> Joined:
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
    met = [(end, found[keys.number(end.file), ENDS.index(end.role)]) for end in ends]
    for end, labels in met:
        if None in labels:
            raise end.misfit(labels[None], "that no node has")
    # More hits than rows: an id is there twice, which the load itself will refuse, or several labels have it.
    if doubtful := [end for end, labels in met if sum(labels.values()) > end.file.rows]:
        _refuse_shared(keys, doubtful, ids)
    return {
        end.place: tuple(among[label] for label in sorted(one for one in labels if one is not None))
        for end, labels in met
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
        if count := counts.get((keys.number(end.file), ENDS.index(end.role))):
            raise end.misfit(count, "that several labels share")


def _split(keys: Keys, mixed: Sequence[_End], joined: Joined, build: Path) -> dict[str, list[Part]]:
    """Write the rows of each pair of labels to a file of their own; return the parts of every file split."""
    names = sorted({name for end in mixed for role in ENDS for name in joined[end.file.path, role]})
    _pair_rows(keys, mixed, names)
    counts: dict[int, list[tuple[int | None, int | None, int]]] = {}
    query = (
        f"SELECT {file_of('place')} AS file, source, target, count(*) FROM pairs GROUP BY ALL ORDER BY ALL"
    )
    for number, source, target, rows in keys.run(query):
        counts.setdefault(number, []).append((source, target, rows))
    take = taker(keys.batches("SELECT source, target FROM pairs ORDER BY place", _ROWS))
    parts: dict[str, list[Part]] = {}
    folder = build / "split"
    folder.mkdir(exist_ok=True)
    for end in sorted({end.file.path: end for end in mixed}.values(), key=lambda end: keys.number(end.file)):
        file, table = end.file, end.table
        # A role that joins one label was not looked up row by row.
        only = [names.index(joined[file.path, role][0]) for role in ENDS]
        found = [
            (only[0] if source is None else source, only[1] if target is None else target, rows)
            for source, target, rows in counts[keys.number(file)]
        ]
        first = len(os.listdir(folder))
        paths = [f"split/{first + number}.parquet" for number in range(len(found))]
        schema = pa.schema([(column.name, column.kind) for column in table.columns])
        writers = [pq.ParquetWriter(build / path, schema, compression="zstd") for path in paths]
        for batch in filter(len, read_rows(keys.snapshot.path / file.path, file, table.columns)):
            labels = take(batch.num_rows)
            sources, targets = (labels.column(at).fill_null(one) for at, one in enumerate(only))
            here = pc.add(pc.multiply(sources, len(names)), targets)
            for (source, target, _), writer in zip(found, writers, strict=True):
                writer.write_batch(batch.filter(pc.equal(here, source * len(names) + target)))
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
    sides = ", ".join(f"max(label) FILTER (role = {number}) AS {role}" for number, role in enumerate(ENDS))
    keys.run(f"CREATE TABLE pairs AS SELECT place, {sides} FROM looked GROUP BY place")
    keys.run("DROP TABLE looked")
