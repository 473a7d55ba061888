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
    known: dict[tuple[str, str], _Known] = {}
    names: dict[str, _Known] = {}  # by the name it had first
    joined: set[int] = set()  # many files have the very same columns: they are looked at once
    for file in [one for one in files if one.rows] or files[:1]:
        if id(file.columns) not in joined:
            for own in file.columns:
                _add(known, names, kind, name, file, own)
            joined.add(id(file.columns))
    return tuple(one.column for one in known.values())


def _add(
    known: dict[tuple[str, str], _Known],
    names: dict[str, _Known],
    kind: Kind,
    table: str,
    file: DataFile,
    own: Column,
) -> None:
    before = known.get(own.key)
    if before is None:
        other = names.get(own.name)
        if other is not None:
            first, second = (
                f"{'a' if role == 'property' else 'the'} {role}" for role in (other.column.role, own.role)
            )
            what = f"column {own.name!r} is {first} in the first and {second} in the second"
            raise _refuse(kind, table, other.file, file, what)
        known[own.key] = names[own.name] = _Known(Column(own.name, simple(own.kind), own.role), own, file)
        return
    if own.kind == before.own.kind:
        return  # what holds the first of them holds this one
    both = widen(before.column.kind, own.kind)
    if both is None:
        what = f"column {own.name!r} holds {before.column.type} in the first and {own.type} in the second"
        raise _refuse(kind, table, before.file, file, what)
    source = before.file if both == before.column.kind else file
    known[own.key] = _Known(Column(before.column.name, both, own.role), before.own, source)


def _refuse(kind: Kind, table: str, one: DataFile, two: DataFile, difference: str) -> BadInput:
    word = "label" if kind == "node" else "type"
    return BadInput(
        f"The files of {word} {table} differ: {one.path} and {two.path}: {difference}.",
        kept="Nothing of the snapshot was loaded.",
        cure="Write the column with one type in all files of the table, or rename it in one of them.",
    )
