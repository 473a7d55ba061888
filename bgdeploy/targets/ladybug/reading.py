"""Reading: the files of one COPY as the engine is given them.

Through numbered links, since it takes paths for patterns; anew, in a plainer type and with columns by
number, where its own reader would not keep what they hold or takes two names for one; each column by its
name, and null where the files lack it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.families import is_text
from bgdeploy.snapshots.parquet import Parquet
from bgdeploy.snapshots.proof import keeps_labels
from bgdeploy.snapshots.rows import read_rows
from bgdeploy.snapshots.source import Column, DataFile, Snapshot, Table
from bgdeploy.targets.base import Group
from bgdeploy.targets.groups import constants_of, file_of, is_split
from bgdeploy.targets.ladybug import statements
from bgdeploy.targets.ladybug.engine import Engine
from bgdeploy.targets.ladybug.statements import Reading
from bgdeploy.targets.ladybug.types import from_plain, is_native, plain, to_plain


def read_group(
    snapshot: Snapshot, table: Table, group: Group, build: Path, engine: Engine, *, anew: bool = False
) -> Reading:
    """Put a group's files in place below the current folder, which is the build's, and say how to read them.

    ``anew``: the engine reads none of them itself.
    Raises BadInput, with file and column, for a value that the engine's type does not hold.
    """
    shutil.rmtree("in", ignore_errors=True)
    os.mkdir("in")
    homes = [build if is_split(path) else snapshot.path for path in group.files]
    files = [
        _look(home / path, file_of(table, path)) if is_split(path) else file_of(table, path)
        for home, path in zip(homes, group.files, strict=True)
    ]
    held = {**statements.held_types(table), **_end_types(snapshot, table, group)}
    native = all(is_native(own, file.written_by) for file in files for own in _used(table, file))
    alike = len({constants_of(file) for file in files}) == 1
    if native and alike and not anew and all(map(_tells_names_apart, files)):
        links = [
            _link(number, home / file.path)
            for number, (home, file) in enumerate(zip(homes, files, strict=True))
        ]
        return _kept(
            snapshot,
            table,
            _read_as_is(table, files[0], links, held, engine, _constant(links, files[0], table)),
        )
    links = [
        _write_anew(number, home / file.path, file, table)
        for number, (home, file) in enumerate(zip(homes, files, strict=True))
    ]
    return _kept(snapshot, table, _read_anew(table, links, held))


def _kept(snapshot: Snapshot, table: Table, reading: Reading) -> Reading:
    same = [one for one in snapshot.nodes if table.kind == "node" and one.name == table.name]
    return reading if keeps_labels(same) else replace(reading, labels="")


def _look(path: Path, file: DataFile) -> DataFile:
    """A file that was split off, with what its own footer says."""
    with Parquet(path) as parquet:
        stored = [field.stored for field in parquet.fields]
    pairs = zip(file.columns, stored, strict=True)
    return replace(file, columns=tuple(replace(column, stored=one) for column, one in pairs))


def _used(table: Table, file: DataFile) -> Iterator[Column]:
    found = (own for column in table.columns if (own := file.find(column)) is not None)
    return (own for own in found if own.constant is None)


def _tells_names_apart(file: DataFile) -> bool:
    """False where the engine takes two columns for one, since they differ in case only."""
    return len({column.name.casefold() for column in file.columns}) == len(file.columns)


def _end_types(snapshot: Snapshot, table: Table, group: Group) -> dict[str, str]:
    """A relationship's ends in the types of the keys they point at."""
    if group.kind == "node":
        return {}
    ends = ((table.column("source"), group.source_label), (table.column("target"), group.target_label))
    return {end.name: _key_type(snapshot, str(label)) for end, label in ends if end is not None}


def _key_type(snapshot: Snapshot, label: str) -> str:
    node = next(node for node in snapshot.nodes if node.name == label)
    key = node.column("id")
    assert key is not None
    return statements.held_types(node)[key.name]


def _link(number: int, path: Path) -> str:
    link = f"in/{number}.parquet"
    os.symlink(path.absolute(), link)
    return link


def _read_as_is(
    table: Table,
    file: DataFile,
    links: Sequence[str],
    held: Mapping[str, str],
    engine: Engine,
    constant: str | None,
) -> Reading:
    """The files of a group have one shape, so the first one speaks for all."""
    read = engine.columns(f"{statements.load(links[:1])} RETURN * LIMIT 0")
    values = {}
    for column in table.columns:
        own, wanted = file.find(column), held[column.name]
        if own is None:
            values[column.name] = f"CAST(NULL AS {wanted})"
        elif own.constant is not None:
            values[column.name] = statements.literal(own.constant, wanted)
        else:
            values[column.name] = statements.value(own, read[own.name], wanted)
    labels = table.column("labels")
    own = file.find(labels) if labels is not None else None
    name = own.name if own is not None else None
    kind = read[own.name] if own is not None else ""
    return Reading(links, values, statements.labels_of(table.labels, name, kind, constant))


def _constant(links: Sequence[str], file: DataFile, table: Table) -> str | None:
    """The one text that every row of these files holds as its labels; by the rows, since a footer may be wrong."""
    labels = table.column("labels")
    own = file.find(labels) if labels is not None else None
    if own is None or not is_text(own.kind):
        return None
    first: str | None = None
    for link in links:
        with Parquet(link) as parquet:
            for batch in parquet.iter_batches(columns=[own.name]):
                values = batch.column(batch.schema.names.index(own.name))
                distinct = values.unique()[:2].to_pylist()
                if first is None and distinct:
                    first = distinct[0]
                if distinct not in ([first], []) or first is None:
                    return None
    return first


def _read_anew(table: Table, links: Sequence[str], held: Mapping[str, str]) -> Reading:
    values = {}
    for column in table.columns:
        wanted = held[column.name]
        made = from_plain(_name(table, column), column.kind)
        own = statements.held_types(table)[column.name]
        values[column.name] = made if own == wanted else f"CAST({made} AS {wanted})"
    labels = table.column("labels")
    own_name = _name(table, labels) if labels is not None else None
    kind = "[]" if labels is not None and pa.types.is_list(plain(labels.kind)) else ""
    return Reading(links, values, statements.labels_of(table.labels, own_name, kind, None))


def _name(table: Table, column: Column) -> str:
    """What a column is called in a file of ours, so that no name of a user's meets another there."""
    return f"c{table.columns.index(column)}"


def _write_anew(number: int, path: Path, file: DataFile, table: Table) -> str:
    """Write a file's rows in the table's shape and in plain types; memory holds one batch."""
    place = f"in/{number}.parquet"
    schema = pa.schema([(_name(table, column), plain(column.kind)) for column in table.columns])
    with pq.ParquetWriter(place, schema, compression="zstd") as writer:
        for batch in read_rows(path, file, table.columns):
            arrays = [_plain(batch.column(at), column, file) for at, column in enumerate(table.columns)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return place


def _plain(values: pa.Array, column: Column, file: DataFile) -> pa.Array:
    try:
        return to_plain(values, column.kind)
    except pa.ArrowInvalid as error:
        raise BadInput(
            f"{file.path}: column {column.name!r} holds a value that the database cannot hold whole: {error}",
            kept="What is live stays live; the build was deleted.",
            cure="Write times in microseconds, or as a string.",
        ) from error
