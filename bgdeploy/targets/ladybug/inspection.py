"""Inspect: what a closed database holds, asked of the database itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from bgdeploy.errors import TargetError
from bgdeploy.snapshots.source import Column, Kind, Snapshot
from bgdeploy.targets.base import Counts, End, Group, Side, TableCount, TableKey
from bgdeploy.targets.ladybug import reading
from bgdeploy.targets.ladybug.engine import Engine, QueryFailed, open_engine, quote, text

_POOL_MB = 256  # a scan needs no more
_FIRST_PAGE = 65_536  # nodes; the width of their rows tells how many the next page takes
_MOST_NODES = 1 << 20
_MOST_ROWS = 524_288  # relationships of one page
_PAGE_BYTES = 48 << 20
_AT_ONCE = 2048  # nodes that the engine reads at once, however few are asked for


class Inspection:
    """A read-only look into one database file.

    ``reopen`` closes the engine and opens it again with so many MiB. ``pool_mb``: how many it is opened with, and how
    many the configuration allows, for rows that do not fit else.
    """

    sides: tuple[Side, ...] = ("source", "target")  # each has the relationships with their properties

    def __init__(self, reopen: Callable[[int], Engine], pool_mb: tuple[int, int], threads: int = 1) -> None:
        self._reopen, self._pool_mb, self._threads = reopen, pool_mb, threads
        self.engine = reopen(pool_mb[0])

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
            if reading.LABELS not in self.held("node", name):
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
            TableCount(frozenset({TableKey(*key)}), self.engine.count(reading.count(group)))
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
        allows: few for what is narrow, many for what is wide. ``width`` is a guess for the first.
        """
        names = [*(column.name for column in columns), *([reading.LABELS] if labels else [])]
        label, values = quote(end.label), _numbered("n", names, self.held("node", end.label))
        last = self.engine.rows(f"MATCH (n:{label}) RETURN max(offset(id(n))) AS last")[0]["last"]
        stop = 0 if last is None else int(last) + 1
        wanted = f"offset(id(n)) AS place, n.{quote(end.key.name)} AS k0{values}"
        start, size = 0, min(_FIRST_PAGE, self._rows_of(width))
        until, most = (
            0,
            _MOST_NODES,
        )  # where a page failed none is as large; beyond that place rows are others
        while start < stop:
            size = min(size, most if start < until else _MOST_NODES, stop - start)
            where = f"WHERE offset(id(n)) >= {start} AND offset(id(n)) < {start + size}"
            page = self._read(f"MATCH (n:{label}) {where} RETURN {wanted}", end.label, size)
            if page is None:
                until, most, size = start + size, max(1, size // 2), max(1, size // 8)
                continue
            yield page
            start += size
            size = min(8 * size, self._rows_of(_width(page)))

    def relationships(
        self,
        name: str,
        source: End,
        target: End,
        columns: Sequence[Column],
        *,
        width: int = 0,
        side: Side = "source",
    ) -> Iterator[pa.Table]:
        """Yield all relationships between two tables in pages: ``p0`` and ``p1``, the places of both ends, and the columns.

        Places cost a third of what the ids would. A page holds the relationships of some nodes of one side, as many as
        have few enough together; those of one node that has too many come in pieces.
        """
        own, other = ("a", "b") if side == "source" else ("b", "a")
        match = f"MATCH (a:{quote(source.label)})-[r:{quote(name)}]->(b:{quote(target.label)})"
        values = _numbered("r", [column.name for column in columns], self.held("relationship", name))
        wanted = f"offset(id(a)) AS p0, offset(id(b)) AS p1{values}"
        total = self.engine.count(f"{match} RETURN count(*)")
        # Nodes from and to, rows that come before those wanted (None: all are wanted), rows, and the most of a page.
        stretches: list[tuple[int, int, int | None, int, int]] = [(0, 1 << 62, None, total, _MOST_ROWS)]
        while stretches:
            start, stop, skip, rows, limit = stretches.pop()
            most = min(limit, self._rows_of(width))
            where = f"WHERE offset(id({own})) >= {start} AND offset(id({own})) < {stop}"
            # The order of joins says which side's copy is read.
            where += f" HINT ({own} JOIN r) JOIN {other}"
            if rows > most and stop - start > 1:
                some = self._split(f"{match} {where}", own, start, stop, most)
                stretches += [(low, high, None, held, limit) for low, high, held in reversed(some)]
                continue
            if rows > most:
                skip = skip or 0
                stretches.append((start, stop, skip + most, rows - most, limit))
                rows = most
            query = f"{match} {where} RETURN {wanted}"
            if skip is not None:
                self.engine.run("CALL threads=1")  # rows then come in one order: none is skipped or doubled
                query += f" SKIP {skip} LIMIT {rows}"
            page = self._read(query, name, rows)
            if skip is not None:
                self.engine.run(f"CALL threads={self._threads}")
            if page is None:
                stretches.append((start, stop, skip, rows, max(1, rows // 8)))
                continue
            yield page
            width = max(width, _width(page))

    def _split(self, match: str, own: str, start: int, stop: int, most: int) -> list[tuple[int, int, int]]:
        """Ranges of places of one side with at most so many rows, but for those that are to be split again, or cannot be."""
        width = max(1, min(65_536, (stop - start) // 256))
        bucket = f"(offset(id({own})) - {start}) / {width}"
        found: list[tuple[int, int, int]] = []
        for row in self.engine.rows(f"{match} RETURN {bucket} AS bucket, count(*) AS rows ORDER BY bucket"):
            low, rows = start + int(row["bucket"]) * width, int(row["rows"])
            high = min(stop, low + width)
            if found and found[-1][2] + rows <= most:
                low, rows = found[-1][0], found.pop()[2] + rows
            found.append((low, high, rows))
        return found

    def _read(self, query: str, table: str, rows: int) -> pa.Table | None:
        """Read a page of so many rows; None where the pool does not hold it, which is then to be read smaller.

        The engine loses some of its pool at each such failure, and after about ten gives wrong values or dies: so it
        is closed and opened again, before anything more is asked of it.
        """
        try:
            return self.engine.arrow(query)
        except QueryFailed as error:
            if "buffer" not in error.what.casefold():
                raise
            small, whole = self._pool_mb
            if rows <= 1 and small == whole:
                raise TargetError(
                    f"One row of {table} does not fit into ladybug.buffer_pool_mb ({whole:,} MiB), so the database could"
                    f" not be compared with its files: {error.what}",
                    kept="It is not published by this.",
                    cure="Raise ladybug.buffer_pool_mb.",
                ) from error
            if rows <= _AT_ONCE:
                self._pool_mb = whole, whole
            self.engine = self._reopen(self._pool_mb[0])
            return None

    def _rows_of(self, width: int) -> int:
        """How many rows of so many bytes a page may have."""
        page = min(_PAGE_BYTES, (self._pool_mb[0] << 20) // 4)
        return max(1, page // max(1, width))

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


def _width(page: pa.Table) -> int:
    """About how many bytes a row has."""
    return int(page.nbytes // max(1, page.num_rows))


@contextmanager
def inspected(graph: Path, *, pool_mb: int, threads: int) -> Iterator[Inspection]:
    """Open a database file read-only; raises TargetError when it does not open or answer."""
    with ExitStack() as stack:

        def reopen(pool: int) -> Engine:
            stack.close()
            return stack.enter_context(
                open_engine(graph, pool_mb=pool, threads=threads, read_only=True, room=_room(graph))
            )

        try:
            yield Inspection(reopen, (min(_POOL_MB, pool_mb), pool_mb), threads or os.cpu_count() or 1)
        except QueryFailed as error:
            raise TargetError(
                f"The database {graph.parent.name} could not be examined: {error.what}",
                kept="It is not published by this.",
            ) from error


def _room(graph: Path) -> int:
    return 2 * graph.stat().st_size if graph.exists() else 0
