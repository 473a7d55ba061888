"""Schema: read every footer of a snapshot, and refuse what could only be loaded wrong."""

from __future__ import annotations

import glob
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from bgdeploy.errors import BadInput, NotReadable
from bgdeploy.snapshots.layout import (
    Pair,
    TableFolder,
    check_keys,
    find_roles,
    names_of,
    read_layout,
    tell_ends,
    type_columns,
)
from bgdeploy.snapshots.parquet import Field, Parquet, check_moments, is_text_list, read_statistics
from bgdeploy.snapshots.source import BLANKS, Column, DataFile, Kind, Role, Snapshot, Table

# Unify: one type that holds what two files have in a column, without losing anything.

_SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_EXACT_IN_DOUBLE = 32  # bits of an integer that every float64 still tells apart
_DIGITS = 38  # of a decimal in 128 bits
_UNITS = ("s", "ms", "us", "ns")


def widen(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    """Return the smallest type that holds every value of both, or None where there is none."""
    one, two = simple(one), simple(two)
    if one == two or is_.is_null(two):
        return one
    if is_.is_null(one):
        return two
    if is_list(one) and is_list(two):
        inner = widen(one.value_type, two.value_type)
        return None if inner is None else pa.list_(inner)
    return _numbers(one, two) or _moments(one, two)


def simple(kind: pa.DataType) -> pa.DataType:
    """The same values in the one way of storing them that all others can be read as."""
    if is_.is_dictionary(kind):
        return simple(kind.value_type)
    if is_.is_large_string(kind) or is_.is_string_view(kind):
        return pa.string()
    if is_.is_large_binary(kind) or is_.is_fixed_size_binary(kind) or is_.is_binary_view(kind):
        return pa.binary()
    if is_.is_decimal(kind) and kind.precision <= _DIGITS:
        return pa.decimal128(kind.precision, kind.scale)
    if is_.is_date64(kind):
        return pa.date32()
    return pa.list_(simple(kind.value_type)) if is_list(kind) else kind


def is_list(kind: pa.DataType) -> bool:
    """True for lists in each of the ways they can be stored but views."""
    return bool(is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind))


def _numbers(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    if is_.is_integer(one) and is_.is_integer(two):
        return _integers(one, two)
    if is_.is_floating(one) and is_.is_floating(two):
        return max(one, two, key=lambda kind: int(kind.bit_width))
    if is_.is_decimal(one) and is_.is_decimal(two):
        return _decimals(one, two)
    if is_.is_integer(one) and is_.is_floating(two):
        one, two = two, one
    exact = is_.is_floating(one) and is_.is_integer(two) and two.bit_width <= _EXACT_IN_DOUBLE
    return pa.float64() if exact else None


def _integers(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    if is_.is_signed_integer(one) == is_.is_signed_integer(two):
        return max(one, two, key=lambda kind: int(kind.bit_width))
    signed, other = (one, two) if is_.is_signed_integer(one) else (two, one)
    fitting = (kind for kind in _SIGNED if kind.bit_width >= signed.bit_width)
    return next((kind for kind in fitting if kind.bit_width > other.bit_width), None)


def _decimals(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    scale = max(one.scale, two.scale)
    precision = max(one.precision - one.scale, two.precision - two.scale) + scale
    return pa.decimal128(precision, scale) if precision <= _DIGITS else None


def _moments(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    if is_.is_timestamp(one) and is_.is_timestamp(two) and (one.tz is None) == (two.tz is None):
        return pa.timestamp(_finer(one, two), one.tz if one.tz == two.tz else "UTC")
    if is_.is_duration(one) and is_.is_duration(two):
        return pa.duration(_finer(one, two))
    if is_.is_time(one) and is_.is_time(two):
        unit = _finer(one, two)
        return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    return None


def _finer(one: pa.DataType, two: pa.DataType) -> str:
    return max(str(one.unit), str(two.unit), key=_UNITS.index)


# Tables: the columns of all files of one table together, or the two files that do not fit.


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
            raise _differ(kind, table, other.file, file, what)
        known[own.key] = names[own.name] = _Known(Column(own.name, simple(own.kind), own.role), own, file)
        return
    if own.kind == before.own.kind:
        return  # what holds the first of them holds this one
    both = widen(before.column.kind, own.kind)
    if both is None:
        what = f"column {own.name!r} holds {before.column.type} in the first and {own.type} in the second"
        raise _differ(kind, table, before.file, file, what)
    source = before.file if both == before.column.kind else file
    known[own.key] = _Known(Column(before.column.name, both, own.role), before.own, source)


def _differ(kind: Kind, table: str, one: DataFile, two: DataFile, difference: str) -> BadInput:
    word = "label" if kind == "node" else "type"
    return BadInput(
        f"The files of {word} {table} differ: {one.path} and {two.path}: {difference}.",
        kept="Nothing of the snapshot was loaded.",
        cure="Write the column with one type in all files of the table, or rename it in one of them.",
    )


# Checks: names and ids that no database could take, found before anything is loaded.

# Names the embedded engine keeps for itself, whatever their case.
RESERVED = frozenset({"_id", "_src", "_dst", "_label", "_offset", "_nodes", "_rels", "*"})
_KEPT = "Nothing of the snapshot was loaded."


def check_names(kind: Kind, file: str, columns: Sequence[Column]) -> None:
    """Raise BadInput for the first column whose name cannot become a property's name."""
    seen: dict[str, str] = {}
    for column in columns:
        _check_name(file, column.name)
        if column.role not in ("property", "id"):
            continue
        folded = column.name.casefold()
        if kind == "node" and folded == "labels":
            what = f"{file}: column {column.name!r} meets the property 'labels' that every node is given."
            raise _refuse(what, "Rename the column, or name it in dataset.columns.labels.")
        if folded in seen:
            what = f"{file}: columns {seen[folded]!r} and {column.name!r} differ only in case."
            same = f"{file} has two columns {column.name!r}."
            raise _refuse(same if seen[folded] == column.name else what, "Rename one of them.")
        seen[folded] = column.name


def _check_name(file: str, name: str) -> None:
    if not name.strip() or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        what = f"{file}: the column name {name!a} is empty or holds characters that are no text."
        raise _refuse(what, "Rename the column.")
    if name.casefold() in RESERVED:
        what = f"{file}: the column name {name!r} is reserved by the database."
        raise _refuse(what, f"Rename the column, for instance to {name.lstrip('_*') or 'all'!r}.")


def check_snapshot(snapshot: Snapshot) -> None:
    """Raise BadInput for what is wrong between the tables of a snapshot."""
    if snapshot.rows == 0:
        raise _refuse(f"Empty snapshot: no file of {snapshot.path} has a row.", "Write it again.")
    _check_labels_and_types(snapshot)
    for table in snapshot.relationships:
        _check_ends(snapshot, table)


def _check_labels_and_types(snapshot: Snapshot) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for table in snapshot.tables:
        word = "label" if table.kind == "node" else "type"
        other_word, other = seen.setdefault(table.name.casefold(), (word, table.name))
        if other == table.name and word != other_word:
            what = f"A label and a type are both named {table.name!r}, which the database cannot tell apart."
            raise _refuse(what, f"Rename one of the folders, for instance to relationships/{table.name}_REL.")
        if other != table.name:
            what = f"The {other_word} {other!r} and the {word} {table.name!r} differ only in case."
            raise _refuse(what, "Rename one of the folders.")


def _check_ends(snapshot: Snapshot, table: Table) -> None:
    known = {label for node in snapshot.nodes for label in node.labels}
    for role, label in (("source", table.source_label), ("target", table.target_label)):
        if label is not None and label not in known:
            what = (
                f"relationships/{table.name} declares the {role} label {label!r}; nodes/ has no such folder."
            )
            raise _refuse(what, f"Use one of {', '.join(sorted(known))}.")
        nodes = [node for node in snapshot.nodes if label is None or label in node.labels]
        _check_family(table, "source" if role == "source" else "target", nodes)


def _check_family(table: Table, role: str, nodes: Iterable[Table]) -> None:
    column = next(column for column in table.columns if column.role == role)
    families = {_family(node.column("id")): node for node in nodes}
    if _family(column) in families:
        return
    have = " or ".join(sorted(families))
    what = (
        f"{table.files[0].path}: column {column.name!r} ({role} id) holds {column.type}, "
        f"but the nodes it could join have {have} ids ({next(iter(families.values())).files[0].path})."
    )
    said, cure = tell_ends(table) or ("", "")
    raise _refuse(
        f"{what} {said}".rstrip(), f"Write ids with one type in nodes and relationships. {cure}".rstrip()
    )


def _family(column: Column | None) -> str:
    # Both have passed as ids, so the text of the type can only speak of strings or integers.
    return "string" if column is None or "string" in column.type else "integer"


def _refuse(what: str, cure: str) -> BadInput:
    return BadInput(what, kept=_KEPT, cure=cure)


# Counts: the rows a snapshot promises per label, and proof that its types say what its folders say.

_BATCH = 65_536  # rows decoded at a time
_MOST_LABELS = 10_000  # a column with more distinct values holds something else


def split_labels(value: str | Sequence[str | None] | None) -> tuple[str, ...]:
    """Return the labels in a text, one or several joined by commas, or in a list, without blanks around them."""
    parts = value.split(",") if isinstance(value, str) else value or ()
    return tuple(part for one in parts if one and (part := one.strip(BLANKS)))


def label_counts(snapshot: Snapshot) -> dict[str, int]:
    """Return how many nodes carry each label.

    A node has the labels of its folder and those of its labels column, each counted once, by what
    the rows say and not by the statistics of a footer. Raises BadInput when the column holds more distinct values than labels could.
    """
    total: Counter[str] = Counter()
    for table in snapshot.nodes:
        total.update(dict.fromkeys(table.labels, table.rows))
        column = table.column("labels")
        if column is not None:
            for file in table.files:
                if (own := file.find(column)) is not None:
                    total.update(_count_more(snapshot.path, file.path, own, table.labels))
    return {label: rows for label, rows in total.items() if rows}


def _count_more(snapshot: Path, file: str, column: Column, known: Collection[str]) -> Counter[str]:
    """Nodes per label that only the column gives them."""
    counts: Counter[str] = Counter()
    with Parquet(snapshot / file, file) as parquet:
        for value, rows in _count_values(parquet, column):
            for label in {*value} - {*known}:
                counts[label] += rows
            if len(counts) > _MOST_LABELS:
                what = f"{file}: column {column.name!r} holds over {_MOST_LABELS:,} different labels."
                cure = "If it is a property, rename it or set dataset.columns.labels."
                raise BadInput(what, kept="What is live stays live.", cure=cure)
    return counts


def _count_values(parquet: Parquet, column: Column) -> Iterator[tuple[tuple[str, ...], int]]:
    """Distinct sets of labels with their rows; the same one may come again."""
    if column.constant is not None:
        yield split_labels(str(column.constant)), parquet.metadata.num_rows
        return
    for values in _stream(parquet, column.name):
        yield from _count_lists(values) if is_text_list(values.type) else _count_texts(values)


def _count_texts(column: pa.Array) -> Iterator[tuple[tuple[str, ...], int]]:
    for found in pc.value_counts(_as_text(column).drop_null()):
        yield split_labels(found["values"].as_py()), found["counts"].as_py()


def _count_lists(column: pa.Array) -> Iterator[tuple[tuple[str, ...], int]]:
    # A list may name a label twice, also with blanks around it, and a node counts once for it.
    named = _as_text(pc.list_flatten(column)).dictionary_encode()
    plain = pa.array(
        [(one or "").strip(BLANKS) or None for one in named.dictionary.to_pylist()], pa.large_string()
    )
    pairs = pa.table({"node": pc.list_parent_indices(column), "label": plain.take(named.indices)}).drop_null()
    labels = pairs.group_by(["node", "label"]).aggregate([]).column("label")
    for found in pc.value_counts(labels.combine_chunks()):
        yield (found["values"].as_py(),), found["counts"].as_py()


def check_types(snapshot: Snapshot) -> None:
    """Raise BadInput where a type column says something else than its folder.

    Nulls are fine: the folder's type stands for them. The rows are read; a footer's statistics may be wrong.
    """
    for table in snapshot.relationships:
        column = table.column("type")
        if column is not None:
            for file in table.files:
                if (own := file.find(column)) is not None:
                    _check_type(snapshot.path, file.path, table, own)


def _check_type(snapshot: Path, file: str, table: Table, column: Column) -> None:
    with Parquet(snapshot / file, file) as parquet:
        if column.constant is not None:
            if parquet.metadata.num_rows and str(column.constant) != table.name:
                raise _other_type(file, 1, column.constant, table, column)
            return
        row = 0
        for values in _stream(parquet, column.name):
            place = pc.index(pc.not_equal(_as_text(values), table.name), True).as_py()
            if place >= 0:
                raise _other_type(file, row + place + 1, values[place].as_py(), table, column)
            row += len(values)


def _other_type(file: str, row: int, value: Any, table: Table, column: Column) -> BadInput:
    return BadInput(
        f"{file}, row {row:,}: {column.name!r} is {value!r}, but the folder says {table.name!r}.",
        kept="What is live stays live.",
        cure="Move such rows to a folder of their own, or rename the column if it is a property.",
    )


def names_its_folder(parquet: Parquet, column: str, names: Collection[str]) -> bool:
    """True when a column's values name the folder, by its footer's bounds and its first value."""
    if parquet.metadata.num_rows == 0:
        return True
    statistics = read_statistics(parquet, column)
    bounds = [] if statistics is None or statistics.min is None else [statistics.min, statistics.max]
    try:
        first = next(_stream(parquet, column, 1))[0].as_py()
    except UnicodeDecodeError:
        return False  # what is no text names nothing
    return first is not None and all({*_labels_of(value)} & {*names} for value in [first, *bounds])


def _labels_of(value: str | Iterable[str | None]) -> tuple[str, ...]:
    return split_labels(value) if isinstance(value, str) else tuple(filter(None, value))


def _stream(parquet: Parquet, name: str, rows: int = _BATCH) -> Iterator[pa.Array]:
    for batch in parquet.iter_batches(rows, columns=[name]):
        yield batch.column(batch.schema.names.index(name))


def _as_text(values: pa.Array) -> pa.Array:
    # One plain kind of text: comparing and counting do not know every way of storing it.
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(pa.large_string())


# Schema: read every footer of a snapshot, and refuse what could only be loaded wrong.

Refuses = Callable[[pa.DataType, str], str | None]


def _takes_all(kind: pa.DataType, written_by: str) -> str | None:
    return None


def _tells_nobody(file: str) -> None:
    return None


def open_snapshot(
    customer: str,
    timestamp: int,
    path: Path,
    columns: Mapping[str, Any],
    fingerprint: str,
    refuses: Refuses = _takes_all,
    looking: Callable[[str], None] = _tells_nobody,
) -> Snapshot:
    """Return the snapshot in ``path`` with every table, file, row count and column known.

    ``columns`` gives for each role (id, labels, source, target, type) the names its column may
    have; a role that is missing has its usual names. Its ``by_position`` lets the first column of nodes be the id
    whatever the names are. ``refuses`` tells for a type and the program that
    wrote it what to use instead, or None where the target keeps it unharmed. Only footers are read, and a row where a
    column's place alone must tell what it is. ``looking`` hears of each file before it is opened. Raises NotReadable, naming the file, for one that
    does not open; BadInput for what cannot become right by waiting.
    """
    folders = read_layout(path)
    joined: dict[tuple[Kind, str], tuple[Column, ...]] = {}
    files: dict[TableFolder, list[DataFile]] = {}
    shared: dict[tuple[Column, ...], tuple[Column, ...]] = {}  # like files have the very same columns
    for key in dict.fromkeys((folder.kind, folder.name) for folder in folders):
        same = [folder for folder in folders if (folder.kind, folder.name) == key]
        pairs = {file: some for one in same for file, some in zip(one.files, one.pairs, strict=True)}
        of_folders, constants = type_columns(pairs)
        for folder in same:
            files[folder] = []
            for name in folder.files:
                looking(name)
                file = read_footer(path, name, folder, columns, refuses, pairs[name], constants[name])
                files[folder].append(replace(file, columns=shared.setdefault(file.columns, file.columns)))
        joined[key] = _join(key, files, of_folders)
    tables = tuple(_table(folder, files[folder], joined[folder.kind, folder.name]) for folder in folders)
    snapshot = Snapshot(customer, timestamp, path, tables, fingerprint)
    check_snapshot(snapshot)
    return snapshot


def _join(
    key: tuple[Kind, str], files: Mapping[TableFolder, Sequence[DataFile]], of_folders: Sequence[Column]
) -> tuple[Column, ...]:
    """The columns of every file that fills one table, and those its folders name; several folders may fill it."""
    kind, name = key
    mine = [file for folder, some in files.items() if (folder.kind, folder.name) == key for file in some]
    columns = join_columns(kind, name, mine)
    columns += tuple(one for one in of_folders if one.name not in {column.name for column in columns})
    check_names(kind, mine[0].path, columns)
    return columns


def _table(folder: TableFolder, files: Sequence[DataFile], columns: tuple[Column, ...]) -> Table:
    ends = folder.source_label, folder.target_label
    return Table(folder.kind, folder.name, folder.labels, *ends, tuple(files), columns)


def read_footer(
    path: Path,
    file: str,
    folder: TableFolder,
    columns: Mapping[str, Any],
    refuses: Refuses,
    pairs: Sequence[Pair] = (),
    constants: tuple[Column, ...] = (),
) -> DataFile:
    """Read one file's footer and find the roles of its columns, with those that its folders' names (``pairs``) hold.

    Raises NotReadable when the file does not open, BadInput for its columns.
    """
    with _open(path / file, file) as parquet:
        fields, metadata = _fields(parquet, file), parquet.metadata
        written_by = metadata.created_by or ""
        _check_types(file, fields, written_by, refuses)
        schema = parquet.schema_arrow
        check_moments(file, parquet)
        roles, by_position = find_roles(folder.kind, file, schema, columns, _speaker(parquet, folder))
        taken: tuple[Role, ...] = ("id", "labels") if folder.kind == "node" else ("source", "target", "type")
        check_keys(file, pairs, schema.names, [name for role in taken for name in names_of(role, columns)])
        found = tuple(
            Column(field.name, field.kind, roles.get(number, "property"), stored=field.stored)
            for number, field in enumerate(fields)
        )
        found += constants
        check_names(folder.kind, file, found)
        every = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        groups, rows = [one.total_byte_size for one in every], sum(one.num_rows for one in every)
        if rows != metadata.num_rows:  # readers go by either of the two, and rows would be left out
            what = f"{file}: its footer says {metadata.num_rows:,} rows, and its row groups hold {rows:,}."
            raise BadInput(what, kept=_KEPT, cure="Write it again.")
        size = (path / file).stat().st_size
        return DataFile(
            file, metadata.num_rows, size, sum(groups), found, written_by, max(groups, default=0), by_position
        )


@contextmanager
def _open(path: Path, file: str) -> Iterator[Parquet]:
    try:
        with Parquet(path, file) as parquet:
            yield parquet
    except pa.ArrowNotImplementedError as error:
        cure = "Write integers of 128 bits as decimals of at most 38 digits, any other type as a string."
        what = f"{file}: {_unread(path)} what bgdeploy cannot read: {_first_line(error)}"
        raise BadInput(what, kept=_KEPT, cure=cure) from error
    except (OSError, pa.ArrowException) as error:
        raise NotReadable(
            f"{file} does not open as a Parquet file: {_first_line(error)}",
            kept=_KEPT,
            cure="Write it anew, or wait until it is copied whole.",
        ) from error


def _unread(path: Path) -> str:
    """The columns that have a width and no type, of a file that pyarrow does not open: another reader names them."""
    import duckdb

    ask = """SELECT name FROM parquet_schema(?)
        WHERE type = 'FIXED_LEN_BYTE_ARRAY' AND logical_type IS NULL AND converted_type IS NULL"""
    try:
        names = duckdb.execute(ask, [glob.escape(str(path))]).fetchall()
    except duckdb.Error:
        names = []
    if not names:
        return "a column holds"
    shown = ", ".join(repr(name) for (name,) in names[:5])
    return f"column {shown} holds" if len(names) == 1 else f"one of the columns {shown} holds"


def _fields(parquet: Parquet, file: str) -> Sequence[Field]:
    try:
        return parquet.fields
    except pa.ArrowException as error:
        raise BadInput(f"{file} has columns that cannot be read: {_first_line(error)}", kept=_KEPT) from error


def _first_line(error: BaseException) -> str:
    return f"{str(error).splitlines()[0].rstrip('.')}." if str(error) else "no reason given."


def _speaker(parquet: Parquet, folder: TableFolder) -> Callable[[str], bool]:
    return lambda column: names_its_folder(parquet, column, folder.labels or (folder.name,))


def _check_types(file: str, fields: Sequence[Field], written_by: str, refuses: Refuses) -> None:
    for field in fields:
        held, instead = field.refusal or (str(field.kind), refuses(field.kind, written_by))
        if instead is not None:
            what = f"{file}: column {field.name!r} holds {held}, which would not arrive unharmed."
            raise BadInput(what, kept=_KEPT, cure=f"Use {instead}.")
