"""Statements: what is said to the engine. No user's text enters one unquoted, no user's path at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from bgdeploy.snapshots.counts import split_labels
from bgdeploy.snapshots.source import Column, Table
from bgdeploy.targets.base import Group
from bgdeploy.targets.ladybug.engine import quote, text
from bgdeploy.targets.ladybug.types import engine_type

LABELS = "labels"  # the property that keeps all labels of a node
_EPOCH = "timestamp('1970-01-01')"
_OURS = "\x02"  # begins each name of ours that stands beside users': none of theirs holds it
_ONE = f"`{_OURS}x`"  # an element of a list
# As properties of a relationship table these are written as its ends, so they get their names after the last COPY.
_TAKEN = ("from", "to")


@dataclass(frozen=True)
class Reading:
    """How the files of one COPY are read: numbered links, and each of the table's columns as an expression."""

    links: Sequence[str]
    values: Mapping[str, str]  # table column -> expression in the type it is held as
    labels: str = ""  # the expression for all labels of a node, empty where they are not kept


def held_types(table: Table) -> dict[str, str]:
    """The engine's type of each column of a table."""
    types = {column.name: engine_type(column.kind) for column in table.columns}
    return {name: held for name, held in types.items() if held is not None}


def value(own: Column, read: str, held: str) -> str:
    """The expression that brings a file's own column, which the engine reads as ``read``, to the type held."""
    name = quote(own.name)
    if read == held:
        return name
    if own.type.startswith("timestamp") and read == "INT64":
        # Some writers mark timestamps in Parquet's newer way only, and the engine sees bare numbers.
        unit = "to_microseconds" if own.type.startswith("timestamp[us") else "to_milliseconds"
        return f"CAST({_EPOCH} + {unit}({name}) AS {held})"
    return f"CAST({name} AS {held})"


def literal(constant: str | int | date, held: str) -> str:
    """The expression for the one value of all rows of a file, in the type held."""
    said = str(constant) if isinstance(constant, int) else text(str(constant))
    return f"CAST({said} AS {held})"


def create_node(table: Table, *, labels: bool) -> str:
    """A node table: its key, all its labels where they are kept, its properties."""
    key, types = _column(table, "id"), held_types(table)
    columns = [f"{quote(key.name)} {types[key.name]}"]
    columns += [f"{quote(LABELS)} STRING[]"] if labels else []
    columns += [f"{quote(one.name)} {types[one.name]}" for one in table.properties]
    return (
        f"CREATE NODE TABLE IF NOT EXISTS {quote(table.name)}({', '.join(columns)}, "
        f"PRIMARY KEY({quote(key.name)}))"
    )


def create_relationship(table: Table, pairs: Sequence[tuple[str, str]]) -> str:
    """A relationship table over all pairs of labels it joins."""
    types = held_types(table)
    parts = [f"FROM {quote(source)} TO {quote(target)}" for source, target in pairs]
    parts += [f"{quote(_given(one.name))} {types[one.name]}" for one in table.properties]
    return f"CREATE REL TABLE IF NOT EXISTS {quote(table.name)}({', '.join(parts)})"


def _given(name: str) -> str:
    """What a relationship's property is called while rows are copied."""
    return f"{_OURS}{name}" if name in _TAKEN else name


def names(table: Table, there: Collection[str]) -> list[str]:
    """What gives a table's properties their own names, where they are not there yet; when all rows are copied."""
    if table.kind == "node":
        return []
    late = [one.name for one in table.properties if _given(one.name) in there and one.name not in there]
    return [f"ALTER TABLE {quote(table.name)} RENAME {quote(_given(name))} TO {quote(name)}" for name in late]


def copy_nodes(table: Table, reading: Reading) -> str:
    """Copy files into a node table, every column by its name."""
    rest = (reading.values[one.name] for one in table.properties)
    labels = [reading.labels] if reading.labels else []
    columns = [reading.values[_column(table, "id").name], *labels, *rest]
    return f"COPY {quote(table.name)} FROM ({load(reading.links)} RETURN {', '.join(columns)})"


def copy_relationships(table: Table, group: Group, reading: Reading) -> str:
    """Copy files into a relationship table between one pair of labels."""
    ends = (_column(table, "source"), _column(table, "target"))
    columns = [reading.values[one.name] for one in (*ends, *table.properties)]
    pair = f"from={text(group.source_label or '')}, to={text(group.target_label or '')}"
    return f"COPY {quote(table.name)} FROM ({load(reading.links)} RETURN {', '.join(columns)}) ({pair})"


def load(links: Sequence[str]) -> str:
    """Read numbered links, never a user's path, which the engine would take for a pattern."""
    return f"LOAD FROM [{', '.join(text(link) for link in links)}]"


def count(group: Group) -> str:
    """Rows of a node table, or of one pair of a relationship table."""
    if group.kind == "node":
        return f"MATCH (n:{quote(group.name)}) RETURN count(*)"
    source, target = quote(group.source_label or ""), quote(group.target_label or "")
    return f"MATCH (:{source})-[r:{quote(group.name)}]->(:{target}) RETURN count(*)"


def labels_of(own: Sequence[str], column: str | None, read: str, constant: str | None) -> str:
    """The expression for all labels of a node: the folder's ``own``, then those its column adds.

    ``constant`` is the one text that every row of these files is known to hold.
    """
    if column is None:
        return _texts(own)
    if constant is not None:
        return _texts([*own, *(label for label in split_labels(constant) if label not in own)])
    name = quote(column)
    if read.endswith("[]"):
        found = f"list_transform(coalesce({name}, ['']), {_ONE} -> coalesce(trim({_ONE}), ''))"
    else:
        found = (
            f"list_transform(string_split(CAST(coalesce({name}, '') AS STRING), ','), {_ONE} -> trim({_ONE}))"
        )
    more = f"list_filter({found}, {_ONE} -> {_ONE} <> '' AND NOT list_contains({_texts(own)}, {_ONE}))"
    return f"list_concat({_texts(own)}, list_distinct({more}))"


def _texts(values: Sequence[str]) -> str:
    return f"[{', '.join(text(one) for one in values)}]"


def _column(table: Table, role: str) -> Column:
    column = table.column(role)  # type: ignore[arg-type]
    assert column is not None, f"{table.name} was admitted without a column for the {role}"
    return column
