"""Wire: rows of Parquet files as the Arrow endpoint takes them; what it has no type for is refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.parquet import family, is_text_list
from bgdeploy.snapshots.schema import is_list, simple, split_labels
from bgdeploy.snapshots.source import Column, Kind, Role, Snapshot, Table
from bgdeploy.targets.base import Group
from bgdeploy.targets.groups import find_table
from bgdeploy.targets.neo4j.arrow.client import KEPT, OVER_BOLT

_LARGEST = 8 << 20  # bytes of one batch
_ENDS: dict[Kind, dict[Role, str]] = {
    "node": {"id": "nodeId"},
    "relationship": {"source": "sourceNodeId", "target": "targetNodeId"},
}
_MARK: dict[Kind, str] = {"node": "labels", "relationship": "relationshipType"}


@dataclass(frozen=True)
class Identity:
    """The one property and type of id that a database has over Arrow."""

    property: str
    type: str  # INTEGER or STRING


@dataclass(frozen=True)
class Shape:
    """What every batch of a group is made of; ``read`` are the columns that are needed of the files."""

    group: Group
    table: Table
    read: tuple[Column, ...]
    fields: tuple[tuple[Column, str, pa.DataType], ...]  # column, its name and type on the wire
    mark: pa.DataType

    @property
    def schema(self) -> pa.Schema:
        """The batches' schema."""
        kinds = [(name, kind) for _, name, kind in self.fields]
        return pa.schema([*kinds, (_MARK[self.group.kind], self.mark)])


def find_identity(snapshot: Snapshot) -> Identity:
    """Return how ids are kept; raises BadInput for tables that do not agree, and for columns that cannot be sent."""
    nodes = [table for table in snapshot.nodes if table.rows]
    names = {table.key("id").name: table.name for table in nodes}
    if len(names) > 1:
        shown = ", ".join(f"{name!r} ({label})" for name, label in sorted(names.items()))
        what = f"loader: arrow keeps all ids under one property, and the id columns are named {shown}."
        raise BadInput(what, kept=KEPT, cure=f"Give them one name, {OVER_BOLT}.")
    kinds = {family(table.key("id").kind): table.name for table in nodes}
    if len(kinds) > 1:
        shown = ", ".join(f"{kind}s ({label})" for kind, label in sorted(kinds.items()))
        what = f"loader: arrow takes ids of one type, and here are {shown}."
        raise BadInput(what, kept=KEPT, cure=f"Write them all as strings, {OVER_BOLT}.")
    for table in snapshot.tables:
        _check_columns(table)
    return Identity(next(iter(names), "id"), "STRING" if "string" in kinds else "INTEGER")


def _check_columns(table: Table) -> None:
    taken = {*_ENDS[table.kind].values(), _MARK[table.kind]}
    for column in table.properties:
        where = f"{table.files[0].path}: column {column.name!r}"
        if column.name in taken:
            what = f"{where} has a name that Arrow keeps for itself."
            raise BadInput(what, kept=KEPT, cure=f"Rename it, {OVER_BOLT}.")
        if to_wire(column.kind) is None:
            what = f"{where} holds {column.type}, which loader: arrow does not send."
            raise BadInput(what, kept=KEPT, cure=f"Write it as a string or a number, {OVER_BOLT}.")


def to_wire(kind: pa.DataType) -> pa.DataType | None:
    """The type a column is sent with, the widest of its kind; None for one that is not sent."""
    kind = simple(kind)
    if is_list(kind):
        inner = to_wire(kind.value_type)
        return None if inner is None or is_list(inner) or is_.is_null(inner) else pa.list_(inner)
    if is_.is_integer(kind):
        return pa.int64()
    if is_.is_floating(kind):
        return pa.float64()
    known = is_.is_string(kind) or is_.is_boolean(kind) or is_.is_date(kind) or is_.is_timestamp(kind)
    return kind if known or is_.is_null(kind) else None


def shape_of(snapshot: Snapshot, group: Group, identity: Identity) -> Shape:
    """Return what the batches of a group are made of."""
    table = find_table(snapshot, group)
    key = pa.string() if identity.type == "STRING" else pa.int64()
    ends = [(table.key(role), name, key) for role, name in _ENDS[group.kind].items()]
    kinds = ((column, to_wire(column.kind)) for column in table.properties)
    # A column that is null throughout has no type on the wire, and nothing to say.
    kept = [
        (column, column.name, kind) for column, kind in kinds if kind is not None and not is_.is_null(kind)
    ]
    labels = table.column("labels") if group.kind == "node" else None
    many = labels is not None or len(table.labels) > 1
    fields = (*ends, *kept)
    read = tuple(column for column, _, _ in fields) + (() if labels is None else (labels,))
    return Shape(group, table, read, fields, pa.list_(pa.string()) if many else pa.string())


def to_batches(shape: Shape, rows: pa.Table) -> Iterator[pa.RecordBatch]:
    """Yield rows as they are sent; raises BadInput naming file and column, Misfit for an id that is null."""
    columns = [_sent(shape, rows, column, kind) for column, _, kind in shape.fields]
    batch = pa.RecordBatch.from_arrays([*columns, _marks(shape, rows)], schema=shape.schema)
    most = max(1, batch.num_rows * _LARGEST // max(1, batch.nbytes))
    for start in range(0, batch.num_rows, most):
        yield batch.slice(start, most)


def _sent(shape: Shape, rows: pa.Table, column: Column, kind: pa.DataType) -> pa.Array:
    found = rows.column(column.name)
    values = found.chunk(0) if found.num_chunks == 1 else found.combine_chunks()
    if column.role != "property" and values.null_count:
        role = "id" if column.role == "id" else f"{column.role} id"
        said = f"{shape.group.files[0]} has a row whose {role} ({column.name!r}) is null."
        raise Misfit(shape.group.kind, shape.group.name, said)
    if is_list(kind) and values.flatten().null_count:
        raise _refuse(
            shape, column, "a list with a null in it, which Neo4j cannot store", "lists without nulls"
        )
    if values.type == kind:
        return values
    try:
        return values.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        said = str(error).splitlines()[0]
        raise _refuse(shape, column, f"a value that does not fit {kind} ({said})", "a string") from error


def _refuse(shape: Shape, column: Column, holds: str, instead: str) -> BadInput:
    what = f"{shape.group.files[0]}: column {column.name!r} holds {holds}."
    return BadInput(what, kept="What is live stays live.", cure=f"Write {instead}.")


def _marks(shape: Shape, rows: pa.Table) -> pa.Array:
    """Labels or type of each row."""
    if shape.group.kind == "relationship":
        return pa.repeat(shape.group.name, rows.num_rows)
    column = shape.table.column("labels")
    if column is None:
        if shape.mark == pa.string():
            return pa.repeat(shape.table.labels[0], rows.num_rows)
        return pa.repeat(pa.scalar(list(shape.table.labels), shape.mark), rows.num_rows)
    return _labels(rows.column(column.name), shape.table.labels)


def _labels(column: pa.ChunkedArray, folder: Sequence[str]) -> pa.Array:
    """The folder's labels first, then those that the column adds."""
    kind = pa.list_(pa.string())
    if is_text_list(column.type):
        return pa.array([_joined(folder, value) for value in column.to_pylist()], kind)
    codes = column.combine_chunks()
    codes = codes if is_.is_dictionary(codes.type) else codes.dictionary_encode()
    known = [_joined(folder, value) for value in codes.dictionary.to_pylist()]
    places = pc.fill_null(codes.indices.cast(pa.int32()), len(known))
    return pa.array([*known, list(folder)], kind).take(places)


def _joined(folder: Sequence[str], more: str | Sequence[str | None] | None) -> list[str]:
    return list(dict.fromkeys([*folder, *split_labels(more)]))
