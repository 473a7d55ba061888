"""Statements: what is said to the engine. No user's text enters one unquoted, no user's path at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bgdeploy.snapshots.counts import split_labels
from bgdeploy.snapshots.footers import column_statistics
from bgdeploy.snapshots.source import Column, Table
from bgdeploy.targets.base import Group
from bgdeploy.targets.ladybug.engine import quote, text

LABELS = "labels"  # the property that keeps all labels of a node
_EPOCH = "timestamp('1970-01-01')"


def stored_type(column: Column, read: str) -> str:
    """The engine's type for a column that it reads as ``read``."""
    kind = column.type
    if kind.startswith("timestamp"):
        return "TIMESTAMP_TZ" if "tz=" in kind else "TIMESTAMP"
    return "STRING" if kind == "null" else read


def value(column: Column, read: str, wanted: str) -> str:
    """The expression that brings a column as read to the type wanted."""
    name = quote(column.name)
    if read == wanted:
        return name
    if column.type.startswith("timestamp") and read == "INT64":
        # Some writers mark timestamps in Parquet's newer way only, and the engine sees bare numbers.
        unit = "to_microseconds" if column.type.startswith("timestamp[us") else "to_milliseconds"
        return f"CAST({_EPOCH} + {unit}({name}) AS {wanted})"
    return f"CAST({name} AS {wanted})"


def create_node(table: Table, types: Mapping[str, str]) -> str:
    """A node table: its key, all its labels, its properties."""
    key = _column(table, "id")
    columns = [f"{quote(key.name)} {types[key.name]}", f"{quote(LABELS)} STRING[]"]
    columns += [f"{quote(one.name)} {types[one.name]}" for one in table.properties]
    return (
        f"CREATE NODE TABLE IF NOT EXISTS {quote(table.name)}({', '.join(columns)}, "
        f"PRIMARY KEY({quote(key.name)}))"
    )


def create_relationship(table: Table, pairs: Sequence[tuple[str, str]], types: Mapping[str, str]) -> str:
    """A relationship table over all pairs of labels it joins."""
    parts = [f"FROM {quote(source)} TO {quote(target)}" for source, target in pairs]
    parts += [f"{quote(one.name)} {types[one.name]}" for one in table.properties]
    return f"CREATE REL TABLE IF NOT EXISTS {quote(table.name)}({', '.join(parts)})"


def copy_nodes(
    table: Table, links: Sequence[str], labels: str, read: Mapping[str, str], types: Mapping[str, str]
) -> str:
    """Copy files into a node table, every column by its name."""
    key = _column(table, "id")
    columns = [_as(key, read, types), labels, *(_as(one, read, types) for one in table.properties)]
    return f"COPY {quote(table.name)} FROM ({load(links)} RETURN {', '.join(columns)})"


def copy_relationships(
    table: Table, group: Group, links: Sequence[str], read: Mapping[str, str], types: Mapping[str, str]
) -> str:
    """Copy files into a relationship table between one pair of labels."""
    ends = (_column(table, "source"), _column(table, "target"))
    columns = [_as(one, read, types) for one in (*ends, *table.properties)]
    pair = f"from={text(group.source_label or '')}, to={text(group.target_label or '')}"
    return f"COPY {quote(table.name)} FROM ({load(links)} RETURN {', '.join(columns)}) ({pair})"


def load(links: Sequence[str]) -> str:
    """Read numbered links, never a user's path, which the engine would take for a pattern."""
    return f"LOAD FROM [{', '.join(text(link) for link in links)}]"


def count(group: Group) -> str:
    """Rows of a node table, or of one pair of a relationship table."""
    if group.kind == "node":
        return f"MATCH (n:{quote(group.name)}) RETURN count(*)"
    source, target = quote(group.source_label or ""), quote(group.target_label or "")
    return f"MATCH (:{source})-[r:{quote(group.name)}]->(:{target}) RETURN count(*)"


def labels_of(table: Table, snapshot: Path, files: Sequence[str], read: Mapping[str, str]) -> str:
    """The expression for all labels of a node: the folder's, then those its column adds."""
    own = list(table.labels)
    column = table.column("labels")
    if column is None:
        return _texts(own)
    constant = _constant(snapshot, files, column.name)
    if constant is not None:
        return _texts([*own, *(label for label in split_labels(constant) if label not in own)])
    name = quote(column.name)
    if read[column.name].endswith("[]"):
        found = f"list_transform(coalesce({name}, ['']), x -> coalesce(trim(x), ''))"
    else:
        found = f"list_transform(string_split(CAST(coalesce({name}, '') AS STRING), ','), x -> trim(x))"
    more = f"list_filter({found}, x -> x <> '' AND NOT list_contains({_texts(own)}, x))"
    return f"list_concat({_texts(own)}, list_distinct({more}))"


def _constant(snapshot: Path, files: Sequence[str], name: str) -> str | None:
    """The one text that every row of these files holds, where their footers prove it."""
    found = {_proven(snapshot / file, name) for file in files}
    return found.pop() if len(found) == 1 else None


def _proven(path: Path, name: str) -> str | None:
    statistics = column_statistics(path, name)
    proven = statistics is not None and statistics.nulls == 0 and isinstance(statistics.constant, str)
    return statistics.constant if statistics is not None and proven else None


def _as(column: Column, read: Mapping[str, str], types: Mapping[str, str]) -> str:
    return value(column, read[column.name], types[column.name])


def _texts(values: Sequence[str]) -> str:
    return f"[{', '.join(text(one) for one in values)}]"


def _column(table: Table, role: str) -> Column:
    column = table.column(role)  # type: ignore[arg-type]
    assert column is not None, f"{table.name} was admitted without a column for the {role}"
    return column
