"""Reading: the files of one COPY as the engine is given them.

Allow-lists, since what the engine's own reader does not know degrades silently, by what the file's footer
says of each column: its physical and logical type, its encodings and its codec. What the engine can
hold but not read goes through a file of our own with a plainer type, and an expression that makes
the right value of it again. Tried on ladybug 0.22.0.

Through numbered links, since it takes paths for patterns; anew, in a plainer type and with columns by
number, where its own reader would not keep what they hold or takes two names for one; each column by its
name, and null where the files lack it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types as is_

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.parquet import Parquet, is_text, rebuilt
from bgdeploy.snapshots.proof import keeps_labels
from bgdeploy.snapshots.rows import read_rows
from bgdeploy.snapshots.schema import is_list, simple, split_labels
from bgdeploy.snapshots.source import Column, DataFile, Snapshot, Stored, Table
from bgdeploy.targets.base import Group
from bgdeploy.targets.groups import constants_of, file_of, is_split
from bgdeploy.targets.ladybug.engine import Engine, quote, text

# Types: what the engine can hold, what it reads from Parquet by itself, and what is written anew for it.

_UTC = (None, "UTC", "+00:00", "Etc/UTC")
# Only these writers are known to mark timestamps in both of Parquet's ways; with one of them
# missing, timestamps inside lists arrive as bare numbers.
MARKS_TIMESTAMPS = "parquet-cpp-arrow"
# DELTA_BINARY_PACKED is none of these: where a page begins beyond 2^62 all its integers came 2^63 off.
_ENCODINGS = frozenset({"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"})
_CODECS = frozenset({"UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4_RAW"})
_LOGICAL = {
    "BOOLEAN": frozenset({"NONE"}),
    "INT32": frozenset({"NONE", "INT", "DATE", "NULL", "UNKNOWN"}),
    "INT64": frozenset({"NONE", "INT", "TIMESTAMP"}),
    "FLOAT": frozenset({"NONE"}),
    "DOUBLE": frozenset({"NONE"}),
    "BYTE_ARRAY": frozenset({"NONE", "STRING"}),
}
_NAMES = {
    pa.bool_(): "BOOL",
    pa.float16(): "FLOAT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "STRING",
    pa.binary(): "BLOB",
    pa.date32(): "DATE",
    pa.null(): "STRING",
}


def engine_type(kind: pa.DataType) -> str | None:
    """Return the engine's type that holds every value of an Arrow type, or None where it has none.

    A time is held as the span since midnight, a zoned timestamp as its moment in UTC, and a time in
    nanoseconds as one in microseconds, which a value with more digits does not fit.
    """
    kind = simple(kind)
    if is_.is_list(kind):
        inner = engine_type(kind.value_type)
        # Casting a list to decimals was seen to take the process down; where one list of lists is null or
        # empty, spans in those behind it were seen to become null.
        lost = is_.is_decimal(kind.value_type) or inner == "INTERVAL[]"
        return None if inner is None or lost else f"{inner}[]"
    if is_.is_integer(kind):
        return str(kind).upper()
    if is_.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz is None else "TIMESTAMP_TZ"
    if is_.is_decimal(kind):
        fits = kind.precision <= 38 and 0 <= kind.scale <= kind.precision
        return f"DECIMAL({kind.precision}, {kind.scale})" if fits else None
    return "INTERVAL" if is_.is_time(kind) or is_.is_duration(kind) else _NAMES.get(kind)


def refuses(kind: pa.DataType, written_by: str) -> str | None:
    """Return what to write instead of a type that the engine cannot hold, or None."""
    if engine_type(kind) is not None:
        return None
    kind = simple(kind)
    if is_.is_list(kind):
        return f"a list of: {_cure(kind.value_type)}"
    return _cure(kind)


def _cure(kind: pa.DataType) -> str:
    if is_.is_decimal(kind):
        return "decimals of at most 38 digits outside of lists, float64, or a string"
    if is_.is_list(kind):
        return f"lists of: {_cure(kind.value_type)}"
    if is_.is_time(kind) or is_.is_duration(kind):
        return "integers, such as microseconds"
    if is_.is_struct(kind) or is_.is_map(kind):
        return "one column for each field"
    return "a string"


def is_native(own: Column, written_by: str) -> bool:
    """True when the engine's own reader of Parquet gives every value of a file's column as it is."""
    return own.stored is not None and _is_plain(own.stored) and _is_kept(own.kind, own.stored, written_by)


def _is_plain(stored: Stored) -> bool:
    return (
        {*stored.encodings.split(",")} <= _ENCODINGS
        and {*stored.codecs.split(",")} <= _CODECS
        and stored.logical in _LOGICAL.get(stored.physical, ())
    )


def _is_kept(kind: pa.DataType, stored: Stored, written_by: str) -> bool:
    if is_.is_dictionary(kind):
        return not is_list(kind.value_type) and _is_kept(kind.value_type, stored, written_by)
    if is_list(kind):
        return _is_native_inside(kind.value_type, written_by)
    if is_.is_binary(kind) or is_.is_large_binary(kind):
        return stored.logical == "NONE"
    return _is_single(kind) or bool(is_.is_null(kind))


def _is_native_inside(kind: pa.DataType, written_by: str) -> bool:
    if is_list(kind):
        return _is_native_inside(kind.value_type, written_by)
    if is_.is_timestamp(kind):
        return kind.tz is None and kind.unit in ("us", "ms") and written_by.startswith(MARKS_TIMESTAMPS)
    return _is_single(kind) and not is_.is_unsigned_integer(kind)


def _is_single(kind: pa.DataType) -> bool:
    if is_.is_timestamp(kind):
        return kind.unit != "ns" and kind.tz in _UTC
    text = is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind)
    numbers = is_.is_integer(kind) or is_.is_float32(kind) or is_.is_float64(kind)
    return bool(text or numbers or is_.is_boolean(kind) or is_.is_date(kind))


def plain(kind: pa.DataType) -> pa.DataType:
    """Return the type with which a column is written anew, one that ``is_native``."""
    kind = simple(kind)
    if is_.is_list(kind):
        inner = kind.value_type
        if is_.is_unsigned_integer(inner):
            return pa.list_(pa.string() if is_.is_uint64(inner) else pa.int64())
        return pa.list_(pa.timestamp("us") if is_.is_timestamp(inner) else plain(inner))
    if is_.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if is_.is_time(kind) or is_.is_duration(kind):
        return pa.int64()
    if is_.is_decimal(kind) or is_.is_null(kind):
        return pa.string()
    return pa.float32() if is_.is_float16(kind) else kind


def to_plain(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return values of an Arrow type as ``plain`` wants them; raises ArrowInvalid where digits would be lost."""
    kind, wanted = simple(kind), plain(kind)
    if is_.is_list(kind):
        values = values.cast(kind)
        # Offsets and nulls stay; only what the lists hold is made plain.
        return rebuilt(values, to_plain(values.values, kind.value_type).cast(wanted.value_type))
    if is_.is_decimal(kind):
        return _fixed_point(values.cast(kind), kind)
    if is_.is_time(kind):
        return values.cast(pa.time64("us")).cast(pa.int64())
    if is_.is_duration(kind):
        return values.cast(pa.duration("us")).cast(pa.int64())
    return values.cast(wanted)


def _fixed_point(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Decimals as text without an exponent, which the engine would refuse."""
    whole = pa.Array.from_buffers(
        pa.decimal128(kind.precision, 0), len(values), values.buffers(), offset=values.offset
    )
    digits = whole.cast(pa.string())
    if kind.scale == 0:
        return digits
    sign = pc.if_else(pc.starts_with(digits, "-"), "-", "")
    padded = pc.utf8_lpad(pc.utf8_ltrim(digits, "-"), kind.scale + 1, "0")
    front = pc.utf8_slice_codeunits(padded, 0, -kind.scale)
    rest = pc.utf8_slice_codeunits(padded, -kind.scale)
    return pc.binary_join_element_wise(sign, front, ".", rest, "").slice(0)


def from_plain(name: str, kind: pa.DataType, depth: int = 0) -> str:
    """Return the expression that makes of a column in its ``plain`` type what ``engine_type`` holds."""
    kind = simple(kind)
    if is_.is_list(kind) and engine_type(kind) != engine_type(plain(kind)):
        if engine_type(kind).rstrip("[]") == "INTERVAL":  # type: ignore[union-attr]
            inner = from_plain(f"x{depth}", kind.value_type, depth + 1)
            return f"list_transform({name}, x{depth} -> {inner})"
        return f"CAST({name} AS {engine_type(kind)})"
    if is_.is_time(kind) or is_.is_duration(kind):
        return f"to_microseconds({name})"
    return f"CAST({name} AS {engine_type(kind)})"


# Statements: what is said to the engine. No user's text enters one unquoted, no user's path at all.

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


# Reading: the files of one COPY as the engine is given them.


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
    held = {**held_types(table), **_end_types(snapshot, table, group)}
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
    return held_types(node)[key.name]


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
    read = engine.columns(f"{load(links[:1])} RETURN * LIMIT 0")
    values = {}
    for column in table.columns:
        own, wanted = file.find(column), held[column.name]
        if own is None:
            values[column.name] = f"CAST(NULL AS {wanted})"
        elif own.constant is not None:
            values[column.name] = literal(own.constant, wanted)
        else:
            values[column.name] = value(own, read[own.name], wanted)
    labels = table.column("labels")
    own = file.find(labels) if labels is not None else None
    name = own.name if own is not None else None
    kind = read[own.name] if own is not None else ""
    return Reading(links, values, labels_of(table.labels, name, kind, constant))


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
        own = held_types(table)[column.name]
        values[column.name] = made if own == wanted else f"CAST({made} AS {wanted})"
    labels = table.column("labels")
    own_name = _name(table, labels) if labels is not None else None
    kind = "[]" if labels is not None and pa.types.is_list(plain(labels.kind)) else ""
    return Reading(links, values, labels_of(table.labels, own_name, kind, None))


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
