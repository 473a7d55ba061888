"""Values: Arrow columns as the driver takes them; what a property cannot hold is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.counts import split_labels
from bgdeploy.snapshots.source import Column, Snapshot

_LARGEST = 2**63 - 1
_KEPT = "What is live stays live."


def check_types(snapshot: Snapshot) -> None:
    """Raise BadInput for the first column of a kind that no Neo4j property can hold."""
    for table in snapshot.tables:
        for column in table.properties:
            if column.type.count("list<") > 1:
                what = f"{table.files[0].path}: column {column.name!r} holds {column.type}"
                cure = "A property holds a list of single values: write one list, or a string."
                raise BadInput(f"{what}, which Neo4j cannot hold.", kept=_KEPT, cure=cure)


def to_python(table: pa.Table, name: str, where: str) -> list[Any]:
    """Return a column as a list for the driver; raises BadInput naming ``where`` and the column."""
    column = table.column(name)
    _check(column, name, where)
    return list(column.to_pylist())


def _check(column: pa.ChunkedArray, name: str, where: str) -> None:
    kind = column.type
    if pa.types.is_uint64(kind) and (most := pc.max(column).as_py()) is not None and most > _LARGEST:
        raise _refuse(where, name, f"the number {most}, larger than Neo4j's integers", "a string")
    if _is_list(kind) and any(chunk.flatten().null_count for chunk in column.chunks):
        raise _refuse(where, name, "a list with a null in it", "lists without nulls")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _refuse(where: str, name: str, holds: str, instead: str) -> BadInput:
    what = f"{where}: column {name!r} holds {holds}, which Neo4j cannot store."
    return BadInput(what, kept=_KEPT, cure=f"Write {instead}.")


def check_keys(table: pa.Table, columns: Sequence[Column], where: str) -> None:
    """Raise BadInput when an id or an end is null."""
    for column in columns:
        if table.column(column.name).null_count:
            role = "id" if column.role == "id" else f"{column.role} id"
            what = f"{where} has a row whose {role} ({column.name!r}) is null."
            raise BadInput(what, kept=_KEPT, cure="Leave such rows out.")


def split_by_labels(
    table: pa.Table, column: str | None, folder: Sequence[str]
) -> list[tuple[tuple[str, ...], pa.Table]]:
    """Return the rows with the labels they carry: the folder's first, then those of the labels column."""
    if column is None:
        return [(tuple(folder), table)]
    places: dict[tuple[str, ...], list[int]] = {}
    for row, value in enumerate(table.column(column).to_pylist()):
        more = split_labels(value) if isinstance(value, str) else tuple(filter(None, value or ()))
        places.setdefault(tuple(dict.fromkeys((*folder, *more))), []).append(row)
    if len(places) == 1:
        return [(next(iter(places)), table)]
    return [(labels, table.take(rows)) for labels, rows in places.items()]
