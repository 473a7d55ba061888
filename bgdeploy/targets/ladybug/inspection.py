"""Inspect: what a closed database holds, asked of the database itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgdeploy.errors import TargetError
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import KEY, Counts, Group, Rows, TableCount, TableKey
from bgdeploy.targets.ladybug import statements
from bgdeploy.targets.ladybug.engine import Engine, QueryFailed, open_engine, quote, text


@dataclass(frozen=True)
class Inspection:
    """A read-only look into one database file."""

    engine: Engine

    def counts(self) -> Counts:
        """Rows per label, a node once for each it carries, and per type."""
        labels: dict[str, int] = {}
        types: dict[str, int] = {}
        nodes = 0
        for name, kind in self._tables():
            if kind == "REL":
                types[name] = self.engine.count(f"MATCH ()-[r:{quote(name)}]->() RETURN count(*)")
                continue
            nodes += self.engine.count(f"MATCH (n:{quote(name)}) RETURN count(*)")
            each = f"MATCH (n:{quote(name)}) UNWIND n.labels AS label RETURN label, count(*) AS rows"
            for row in self.engine.rows(each):
                labels[row["label"]] = labels.get(row["label"], 0) + row["rows"]
        return Counts(labels, types, nodes, sum(types.values()))

    def tables(self, groups: Sequence[Group]) -> list[TableCount]:
        """Rows and non-null values of every table and pair the plan names."""
        first = {(g.kind, g.name, g.source_label, g.target_label): g for g in reversed(groups)}
        return [self._count(group) for group in first.values()]

    def _count(self, group: Group) -> TableCount:
        rows = self.engine.count(statements.count(group))
        key = TableKey(group.kind, group.name, group.source_label, group.target_label)
        return TableCount(frozenset({key}), rows, self._present(group))

    def _present(self, group: Group) -> dict[str, int]:
        columns = self._columns(group)
        if not columns:
            return {}
        counts = (f"{_count_values(name, kind)} AS c{at}" for at, (name, kind) in enumerate(columns.items()))
        wanted = ", ".join(counts)
        row = self.engine.rows(f"{_match(group, 'x')} RETURN {wanted}")[0]
        return {name: int(row[f"c{number}"]) for number, name in enumerate(columns)}

    def _columns(self, group: Group) -> dict[str, str]:
        """The engine's type of each property, a node's key and labels not among them."""
        found = self.engine.rows(f"CALL table_info({text(group.name)}) RETURN *")
        return {
            row["name"]: row["type"]
            for row in found
            if group.kind == "relationship"
            or not (row.get("primary key") or row["name"] == statements.LABELS)
        }

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

    def rows_by_key(self, group: Group, keys: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> Rows:
        """The rows with these keys; a node's key is its id, a relationship's its two ends."""
        wanted = "".join(f", x.{quote(name)} AS c{number}" for number, name in enumerate(columns))
        found = self._nodes(group, keys, wanted) if group.kind == "node" else self._joins(group, keys, wanted)
        named = {name: f"c{number}" for number, name in enumerate(columns)}
        return [
            {
                **{name: row[alias] for name, alias in named.items()},
                KEY: (row["k0"], row["k1"])[: len(keys[0])],
            }
            for row in found
        ]

    def _nodes(self, group: Group, keys: Sequence[tuple[Any, ...]], wanted: str) -> Rows:
        key, kind = self._key(group.name)
        where = f"WHERE x.{key} = {_asked('k', kind)}"
        query = f"UNWIND $keys AS k {_match(group, 'x')} {where} RETURN x.{key} AS k0, NULL AS k1{wanted}"
        return self.engine.rows(query, {"keys": [_told(one[0], kind) for one in keys]})

    def _joins(self, group: Group, keys: Sequence[tuple[Any, ...]], wanted: str) -> Rows:
        """One question for each pair: asked for many at once the engine reads the whole table."""
        source, kind = self._key(group.source_label or "")
        target, other = self._key(group.target_label or "")
        where = f"WHERE a.{source} = {_asked('$k0', kind)} AND b.{target} = {_asked('$k1', other)}"
        query = f"{_match(group, 'x')} {where} RETURN a.{source} AS k0, b.{target} AS k1{wanted}"
        asked = ({"k0": _told(one[0], kind), "k1": _told(one[1], other)} for one in keys)
        return [row for one in asked for row in self.engine.rows(query, one)]


def _told(key: Any, kind: str) -> Any:
    """A key as a parameter: the engine's client takes no integer beyond 2^63 - 1."""
    return str(key) if kind == "UINT64" else key


def _asked(name: str, kind: str) -> str:
    return f"CAST({name} AS UINT64)" if kind == "UINT64" else name


def _count_values(name: str, kind: str) -> str:
    """Non-null values of a column; the engine has no count of decimals."""
    column = f"x.{quote(name)}"
    return f"count(CASE WHEN {column} IS NOT NULL THEN 1 END)" if "DECIMAL" in kind else f"count({column})"


def _match(group: Group, name: str) -> str:
    if group.kind == "node":
        return f"MATCH ({name}:{quote(group.name)})"
    source, target = quote(group.source_label or ""), quote(group.target_label or "")
    return f"MATCH (a:{source})-[{name}:{quote(group.name)}]->(b:{target})"


@contextmanager
def inspected(graph: Path, *, pool_mb: int, threads: int) -> Iterator[Inspection]:
    """Open a database file read-only; raises TargetError when it does not open or answer."""
    try:
        with open_engine(
            graph, pool_mb=pool_mb, threads=threads, read_only=True, room=_room(graph)
        ) as engine:
            yield Inspection(engine)
    except QueryFailed as error:
        raise TargetError(
            f"The database {graph.parent.name} could not be examined: {error.what}",
            kept="It is not published by this.",
        ) from error


def _room(graph: Path) -> int:
    return 2 * graph.stat().st_size if graph.exists() else 0
