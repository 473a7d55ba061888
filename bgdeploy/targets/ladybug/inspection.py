"""Inspect: what a closed database holds, asked of the database itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bgdeploy.errors import TargetError
from bgdeploy.snapshots.source import Column, Kind, Snapshot
from bgdeploy.targets.base import Counts, End, Group, TableCount, TableKey
from bgdeploy.targets.ladybug import statements
from bgdeploy.targets.ladybug.engine import Engine, QueryFailed, open_engine, quote, text

_FIRST_PAGE = 65_536  # nodes; the width of their rows tells how many the next page takes
_MOST_NODES = 1 << 20
_MOST_ROWS = 524_288  # relationships of one page
_PAGE_BYTES = 48 << 20


@dataclass(frozen=True)
class Inspection:
    """A read-only look into one database file."""

    engine: Engine
    threads: int = 1

    def counts(self) -> Counts:
        """Rows per label, a node once for each it carries, and per type."""
        labels: dict[str, int] = {}
        types: dict[str, int] = {}
        nodes = 0
        for name, kind in self._tables():
            if kind == "REL":
                types[name] = self.engine.count(f"MATCH ()-[r:{quote(name)}]->() RETURN count(*)")
                continue
            rows = self.engine.count(f"MATCH (n:{quote(name)}) RETURN count(*)")
            nodes += rows
            if statements.LABELS not in self.held("node", name):
                labels[name] = rows
                continue
            each = f"MATCH (n:{quote(name)}) UNWIND n.labels AS label RETURN label, count(*) AS rows"
            for row in self.engine.rows(each):
                labels[row["label"]] = labels.get(row["label"], 0) + row["rows"]
        return Counts(labels, types, nodes, sum(types.values()))

    def tables(self, groups: Sequence[Group]) -> list[TableCount]:
        """Rows of every table and pair the plan names."""
        first = {(g.kind, g.name, g.source_label, g.target_label): g for g in reversed(groups)}
        return [
            TableCount(frozenset({TableKey(*key)}), self.engine.count(statements.count(group)))
            for key, group in first.items()
        ]

    def samples(self, rows: int) -> None:
        """Never: to read everything takes a third of what the load took."""

    def held(self, kind: Kind, name: str) -> dict[str, str]:
        """The engine's type of each column of a table, the key and the labels among them."""
        found = self.engine.rows(f"CALL table_info({text(name)}) RETURN *")
        return {row["name"]: row["type"] for row in found}

    def nodes(
        self, end: End, columns: Sequence[Column], *, labels: bool, width: int = 0
    ) -> Iterator[pa.Table]:
        """Yield all nodes of a table in pages: ``place``, ``k0`` (the id), and the columns as ``c0``, ``c1``, ...

        A range of places reads whole columns of text (there is no push-down), so pages are as large as memory
        allows: few for what is narrow, many for what is wide.
        """
        names = [*(column.name for column in columns), *([statements.LABELS] if labels else [])]
        label, values = quote(end.label), _numbered("n", names, self.held("node", end.label))
        last = self.engine.rows(f"MATCH (n:{label}) RETURN max(offset(id(n))) AS last")[0]["last"]
        stop = 0 if last is None else int(last) + 1
        wanted = f"offset(id(n)) AS place, n.{quote(end.key.name)} AS k0{values}"

        def read(start: int, stop: int) -> pa.Table:
            where = f"WHERE offset(id(n)) >= {start} AND offset(id(n)) < {stop}"
            return self.engine.arrow(f"MATCH (n:{label}) {where} RETURN {wanted}")

        start, size = 0, _FIRST_PAGE
        while start < stop:
            page, size = _read_smaller(read, start, min(size, stop - start))
            yield page
            start += size
            size = _next_size(page, size)

    def relationships(
        self, name: str, source: End, target: End, columns: Sequence[Column], *, width: int = 0
    ) -> Iterator[pa.Table]:
        """Yield all relationships between two tables in pages: ``p0`` and ``p1``, the places of both ends, and the columns.

        Places cost a third of what the ids would. A page holds the relationships of some sources, as many as have
        few enough together; those of one source that has too many come in pieces.
        """
        match = f"MATCH (a:{quote(source.label)})-[r:{quote(name)}]->(b:{quote(target.label)})"
        values = _numbered("r", [column.name for column in columns], self.held("relationship", name))
        wanted = f"offset(id(a)) AS p0, offset(id(b)) AS p1{values}"
        most = max(1, min(_MOST_ROWS, _PAGE_BYTES // max(1, width)))
        for start, stop, rows in self._ranges(match, most):
            where = f"WHERE offset(id(a)) >= {start} AND offset(id(a)) < {stop}"
            if rows <= most:
                yield self.engine.arrow(f"{match} {where} RETURN {wanted}")
                continue
            self.engine.run("CALL threads=1")  # rows then come in one order: none is skipped or doubled
            for skip in range(0, rows, most):
                yield self.engine.arrow(f"{match} {where} RETURN {wanted} SKIP {skip} LIMIT {most}")
            self.engine.run(f"CALL threads={self.threads}")

    def _ranges(self, match: str, most: int) -> Iterator[tuple[int, int, int]]:
        """Yield ranges of source places with at most so many rows, but for single sources with more."""
        total = self.engine.count(f"{match} RETURN count(*)")
        if total <= most:
            yield 0, 1 << 62, total
            return
        yield from self._split(match, 0, 1 << 62, 65_536, most)

    def _split(
        self, match: str, start: int, stop: int, width: int, most: int
    ) -> Iterator[tuple[int, int, int]]:
        where = f"WHERE offset(id(a)) >= {start} AND offset(id(a)) < {stop}"
        each = f"{match} {where} RETURN offset(id(a)) / {width} AS bucket, count(*) AS rows ORDER BY bucket"
        held: tuple[int, int, int] | None = None
        for row in self.engine.rows(each):
            low, rows = int(row["bucket"]) * width, int(row["rows"])
            if held is not None and held[2] + rows > most:
                yield held
                held = None
            if rows > most and width > 1:
                yield from self._split(match, low, low + width, max(1, width // 256), most)
            else:
                held = (
                    low if held is None else held[0],
                    low + width,
                    rows + (0 if held is None else held[2]),
                )
        if held is not None:
            yield held

    def place_of(self, end: End, key: Any) -> int | None:
        """The place of the node with this id, found by the key's index; None where there is none."""
        name = end.label
        own, kind = self._key(name)
        if not _fits(key, kind):
            return None
        where = f"WHERE n.{own} = {_asked(kind)}"
        found = self.engine.rows(
            f"MATCH (n:{quote(name)}) {where} RETURN offset(id(n)) AS place", {"k": _told(key, kind)}
        )
        return int(found[0]["place"]) if len(found) == 1 else None

    def incoming(self, name: str, source: End, target: End, key: Any) -> int:
        """How many relationships end at the node with this id, counted from its side."""
        match = f"MATCH (b:{quote(target.label)})<-[r:{quote(name)}]-(a:{quote(source.label)})"
        own, kind = self._key(target.label)
        if not _fits(key, kind):
            return 0
        where = f"WHERE b.{own} = {_asked(kind)}"
        found = self.engine.rows(f"{match} {where} RETURN count(*) AS rows", {"k": _told(key, kind)})
        return int(found[0]["rows"])

    def _tables(self) -> list[tuple[str, str]]:
        found = self.engine.rows("CALL show_tables() RETURN *")
        return [(row["name"], row["type"]) for row in found if row["type"] in ("NODE", "REL")]

    def _key(self, label: str) -> tuple[str, str]:
        """A label's key as it stands in a statement, and its type."""
        found = self.engine.rows(f"CALL table_info({text(label)}) RETURN *")
        return next((quote(row["name"]), row["type"]) for row in found if row.get("primary key"))

    def troubles(self, snapshot: Snapshot) -> list[str]:
        """Nothing: a snapshot promises tables alone here."""
        return []


def _fits(key: Any, kind: str) -> bool:
    """False for a number that a key of this type cannot hold: where nothing declares ends, each label is asked."""
    if not isinstance(key, int):
        return True
    return key >= 0 if kind == "UINT64" else key < 1 << 63


def _told(key: Any, kind: str) -> Any:
    """A key as a parameter: the engine's client takes no integer beyond 2^63 - 1."""
    return str(key) if kind == "UINT64" else key


def _asked(kind: str) -> str:
    return "CAST($k AS UINT64)" if kind == "UINT64" else "$k"


def _numbered(variable: str, columns: Sequence[str], held: Mapping[str, str]) -> str:
    """Columns under names of our own, since a user's could be ours.

    Decimals as text: the engine keeps negative ones right, but its Arrow tables give -1 as 4,294,967,295.
    """
    found = (f"{variable}.{quote(name)}" for name in columns)
    shown = (
        f"CAST({one} AS STRING)" if held[name].startswith("DECIMAL") else one
        for one, name in zip(found, columns, strict=True)
    )
    return "".join(f", {one} AS c{place}" for place, one in enumerate(shown))


def _read_smaller(read: Callable[[int, int], pa.Table], start: int, size: int) -> tuple[pa.Table, int]:
    """Read a page from ``start``, smaller where the engine's pool does not hold it; return its rows and size."""
    while True:
        try:
            return read(start, start + size), size
        except QueryFailed as error:
            if size == 1 or "buffer" not in error.what.casefold():
                raise
            size = max(1, size // 8)


def _next_size(page: pa.Table, size: int) -> int:
    """The size of the next page, judged by the width of this one's rows; it grows by steps."""
    width = max(1, int(page.nbytes) // max(1, page.num_rows))
    return int(max(1, min(8 * size, _PAGE_BYTES // width, _MOST_NODES)))


@contextmanager
def inspected(graph: Path, *, pool_mb: int, threads: int) -> Iterator[Inspection]:
    """Open a database file read-only; raises TargetError when it does not open or answer."""
    try:
        with open_engine(
            graph, pool_mb=pool_mb, threads=threads, read_only=True, room=_room(graph)
        ) as engine:
            yield Inspection(engine, threads or os.cpu_count() or 1)
    except QueryFailed as error:
        raise TargetError(
            f"The database {graph.parent.name} could not be examined: {error.what}",
            kept="It is not published by this.",
        ) from error


def _room(graph: Path) -> int:
    return 2 * graph.stat().st_size if graph.exists() else 0
