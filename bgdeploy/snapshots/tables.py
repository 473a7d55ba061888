"""Tables: the columns of all files of one table together, or the two files that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.source import Column, DataFile, Kind
from bgdeploy.snapshots.unify import simple, widen


@dataclass(frozen=True)
class _Known:
    """A column as far as the files were looked at, and the file that gave it its type."""

    column: Column
    own: Column
    file: DataFile


def join_columns(kind: Kind, name: str, files: Sequence[DataFile]) -> tuple[Column, ...]:
    """Return the columns of a table: every one that any file has, wide enough for all of them.

    Files without rows say nothing, unless there are no others. Raises BadInput, naming both files,
    for a column that no one type can hold and for one that is an id in one file and not in another.
    """
    known: list[_Known] = []
    for file in [one for one in files if one.rows] or files[:1]:
        for own in file.columns:
            _add(known, kind, name, file, own)
    return tuple(one.column for one in known)


def _add(known: list[_Known], kind: Kind, table: str, file: DataFile, own: Column) -> None:
    place = next((number for number, one in enumerate(known) if _same(one.column, own)), None)
    if place is None:
        other = next((one for one in known if own.name in (one.own.name, one.column.name)), None)
        if other is not None:
            what = f"column {own.name!r} is the {other.column.role} in the first and the {own.role} in the second"
            raise _refuse(kind, table, other.file, file, what.replace("the property", "a property"))
        known.append(_Known(Column(own.name, simple(own.kind), own.role), own, file))
        return
    before = known[place]
    both = widen(before.column.kind, own.kind)
    if both is None:
        what = f"column {own.name!r} holds {before.column.type} in the first and {own.type} in the second"
        raise _refuse(kind, table, before.file, file, what)
    source = before.file if both == before.column.kind else file
    known[place] = _Known(Column(before.column.name, both, own.role), before.own, source)


def _same(one: Column, other: Column) -> bool:
    if one.role != "property" or other.role != "property":
        return one.role == other.role
    return one.name == other.name


def _refuse(kind: Kind, table: str, one: DataFile, two: DataFile, difference: str) -> BadInput:
    word = "label" if kind == "node" else "type"
    return BadInput(
        f"The files of {word} {table} differ: {one.path} and {two.path}: {difference}.",
        kept="Nothing of the snapshot was loaded.",
        cure="Write the column with one type in all files of the table, or rename it in one of them.",
    )
