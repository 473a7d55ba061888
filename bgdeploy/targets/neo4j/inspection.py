"""Inspect: what a database holds, asked of the database itself by its own name, never by an alias."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import time, timedelta
from typing import Any, ClassVar

import pyarrow as pa
from neo4j.time import Date, DateTime, Duration, Time

from bgdeploy.snapshots.source import Column, Kind, Snapshot
from bgdeploy.targets.base import KEY, Aggregate, Counts, End, Group, Rows, Side, TableCount, TableKey
from bgdeploy.targets.neo4j import schema
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.names import CYPHER, quote
from bgdeploy.targets.neo4j.pages import PAGE, aggregate, node_pages, relationship_pages
from bgdeploy.targets.neo4j.schema import key_name

_PROOF_ROWS = 10_000_000  # for a job whose settings are older than that key
_PAGE_BYTES = 8 << 20  # of a page's rows, as they are in the files
_DAYS = 999_999_998  # of a span that Python knows


@dataclass(frozen=True)
class Inspection:
    """A read-only look into one database."""

    server: Server
    database: str
    settings: Mapping[str, Any]
    sides: ClassVar[tuple[Side, ...]] = ("source",)

    def counts(self) -> Counts:
        """Rows per label and type, from the server's own count store."""
        labels = self._count("CALL db.labels() YIELD label RETURN label AS name", "(n:", ")")
        types = self._count(
            "CALL db.relationshipTypes() YIELD relationshipType AS name RETURN name", "()-[:", "]->()"
        )
        nodes = self._ask(f"{CYPHER}MATCH (n) RETURN count(*) AS rows")[0]["rows"]
        return Counts(labels, types, int(nodes), sum(types.values()))

    def _count(self, names: str, left: str, right: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for row in self._ask(names):
            match = f"{left}{quote(row['name'])}{right}"
            rows = self._ask(f"{CYPHER}MATCH {match} RETURN count(*) AS rows")[0]["rows"]
            if rows:  # names of what was deleted stay known to the server
                found[row["name"]] = int(rows)
        return found

    def tables(self, groups: Sequence[Group]) -> list[TableCount]:
        """Rows and non-null values; tables whose nodes carry each other's labels are counted as one."""
        nodes = [group for group in groups if group.kind == "node"]
        found = self._nodes([group.name for group in nodes]) if nodes else []
        for name in dict.fromkeys(group.name for group in groups if group.kind == "relationship"):
            found += self._relationships(name, [group for group in groups if group.name == name])
        return found

    def _nodes(self, names: list[str]) -> list[TableCount]:
        shown = "[l IN labels(x) WHERE l IN $names]"
        merged: list[tuple[set[str], Rows]] = []
        for row in self._scan("MATCH (x)", shown, "null", {"names": names}):
            mine, rows = set(row["a"]), [row]
            for other in [one for one in merged if one[0] & mine]:
                merged.remove(other)
                mine, rows = mine | other[0], rows + other[1]
            merged.append((mine, rows))
        return [
            _total(frozenset(TableKey("node", name, None, None) for name in one), rows)
            for one, rows in merged
        ]

    def _relationships(self, name: str, groups: Sequence[Group]) -> list[TableCount]:
        keys = frozenset(TableKey("relationship", name, g.source_label, g.target_label) for g in groups)
        ends = sorted({str(label) for key in keys for label in (key.source_label, key.target_label)})
        shown = "[l IN labels({}) WHERE l IN $names]"
        rows = self._scan(
            f"MATCH (a)-[x:{quote(name)}]->(b)", shown.format("a"), shown.format("b"), {"names": ends}
        )
        if any(len(row["a"]) != 1 or len(row["b"]) != 1 for row in rows):
            return [_total(keys, rows)]
        return [
            _total(frozenset({TableKey("relationship", name, row["a"][0], row["b"][0])}), [row])
            for row in rows
        ]

    def _scan(self, match: str, first: str, second: str, params: dict[str, Any]) -> Rows:
        """Rows per set of labels, and the non-null values of each property there is."""
        counted = f"{CYPHER}{match} RETURN {first} AS a, {second} AS b, count(*) AS rows"
        rows = self._ask(counted, **params)
        keyed = f"{CYPHER}{match} UNWIND keys(x) AS key RETURN {first} AS a, {second} AS b, key, count(*) AS present"
        present: dict[str, dict[str, int]] = {}
        for row in self._ask(keyed, **params):
            present.setdefault(str((row["a"], row["b"])), {})[row["key"]] = row["present"]
        return [{**row, "present": present.get(str((row["a"], row["b"])), {})} for row in rows]

    def samples(self, rows: int) -> Inspection | None:
        """Rows by their keys, beyond as many as are read back whole."""
        return self if rows > int(self.settings.get("proof_rows", _PROOF_ROWS)) else None

    def held(self, kind: Kind, name: str) -> dict[str, str]:
        """Nothing: a property has a type in each node, which is looked at as it is read."""
        return {}

    def nodes(self, end: End, columns: Sequence[Column], *, labels: bool, width: int) -> Iterator[pa.Table]:
        """Every node with this label and a key, by pages of keys; all labels are in ``l0``."""
        return node_pages(self._ask, end, columns, rows=_page_rows(width))

    def relationships(
        self, name: str, source: End, target: End, columns: Sequence[Column], *, width: int, side: Side
    ) -> Iterator[pa.Table]:
        """Every relationship of this type between these labels, by pages of source keys."""
        return relationship_pages(self._ask, name, source, target, columns, rows=_page_rows(width))

    def place_of(self, end: End, key: Any) -> int | None:
        """None: nodes have no places, and pages are read by key already."""
        return None

    def incoming(self, name: str, source: End, target: End, key: Any) -> int:
        """How many relationships end at the node with this id, found by its key and counted from its side."""
        match = f"MATCH (b:{quote(target.label)} {{{quote(target.key.name)}: $key}})<-[r:{quote(name)}]-(a:{quote(source.label)})"
        where = f"WHERE a.{quote(source.key.name)} IS NOT NULL"
        return int(self._ask(f"{CYPHER}{match} {where} RETURN count(r) AS rows", key=key)[0]["rows"])

    def rows_by_key(self, group: Group, keys: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> Rows:
        """The rows with these keys; a node's key is its id, a relationship's its two ends."""
        wanted = "".join(f", x.{quote(name)} AS c{number}" for number, name in enumerate(columns))
        if group.kind == "node":
            key = quote(self._key(group.name))
            match, shown = f"MATCH (x:{quote(group.name)} {{{key}: k[0]}})", f"[x.{key}]"
        else:
            source, target = (str(label) for label in (group.source_label, group.target_label))
            one, two = quote(self._key(source)), quote(self._key(target))
            match = (
                f"MATCH (a:{quote(source)} {{{one}: k[0]}}) MATCH (b:{quote(target)} {{{two}: k[1]}}) "
                f"MATCH (a)-[x:{quote(group.name)}]->(b)"
            )
            shown = f"[a.{one}, b.{two}]"
        query = f"{CYPHER}UNWIND $keys AS k {match} RETURN {shown} AS key{wanted}"
        rows = self._ask(query, keys=[list(key) for key in keys])
        named = {f"c{number}": name for number, name in enumerate(columns)}
        return [
            {**{name: _cut(row[alias]) for alias, name in named.items()}, KEY: tuple(row["key"])}
            for row in rows
        ]

    def aggregates(
        self, name: str, ends: tuple[End, End] | None, columns: Sequence[Column]
    ) -> tuple[int, list[Aggregate]]:
        """Reckoned by the server in one pass over a label's nodes, or a type's relationships between two labels."""
        match = f"MATCH (e:{quote(name)})"
        if ends is not None:
            one, two = (quote(end.label) for end in ends)
            match = f"MATCH (:{one})-[e:{quote(name)}]->(:{two})"
        return aggregate(self._ask, match, columns)

    def _key(self, label: str) -> str:
        rows = self._ask(schema.SHOW_KEYS)
        return next(str(row["properties"][0]) for row in rows if row["name"] == key_name(label))

    def troubles(self, snapshot: Snapshot) -> list[str]:
        """What is missing of the declared indexes and constraints."""
        declared = schema.declared(self.settings, snapshot.path)
        return schema.find_troubles(self.server, self.database, declared)

    def _ask(self, cypher: str, **params: Any) -> Rows:
        return self.server.read(self.database, cypher, f"Examining {self.database}", **params)


def _page_rows(width: int) -> int:
    return min(PAGE, max(100, _PAGE_BYTES // max(1, width)))


def _total(keys: frozenset[TableKey], rows: Iterable[dict[str, Any]]) -> TableCount:
    present: dict[str, int] = {}
    total = 0
    for row in rows:
        total += row["rows"]
        for name, count in row["present"].items():
            present[name] = present.get(name, 0) + count
    return TableCount(keys, total, present)


def to_native(value: Any) -> Any:
    """A value as plain Python has it; nodes and relationships become their properties.

    Times finer than Python's own, and durations that are no span, are text as Neo4j writes it.
    """
    if isinstance(value, DateTime | Time) and value.nanosecond % 1000:
        zone = getattr(value.tzinfo, "key", None) or getattr(value.tzinfo, "zone", None)
        return f"{value.iso_format()}[{zone}]" if zone else value.iso_format()
    if isinstance(value, Duration) and (value.months or value.nanoseconds % 1000 or abs(value.days) > _DAYS):
        return value.iso_format()
    if isinstance(value, list):
        return [to_native(one) for one in value]
    if isinstance(value, dict):
        return {name: to_native(one) for name, one in value.items()}
    return _cut(value)


def _cut(value: Any) -> Any:
    """The same with times cut down to the microseconds that Python knows; the driver rounds some of them up."""
    if isinstance(value, Date):
        return value.to_native()
    if isinstance(value, Time):
        fraction = value.nanosecond // 1000
        return time(value.hour, value.minute, value.second, fraction, value.tzinfo)
    if isinstance(value, DateTime):
        return value.replace(nanosecond=value.nanosecond // 1000 * 1000).to_native()
    if isinstance(value, Duration):
        fine = value.seconds * 10**9 + value.nanoseconds
        return timedelta(days=value.months * 30 + value.days, microseconds=fine // 1000)
    return [_cut(one) for one in value] if isinstance(value, list) else value
