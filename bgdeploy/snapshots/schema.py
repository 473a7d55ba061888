"""Schema: every footer of a snapshot read together, and whatever could only be loaded wrong refused before anything is.

``open_snapshot`` gives each table the columns that hold what any of its files has in them, and checks their names and the
ends of relationships. What only rows can tell, labels and types, is read by ``label_counts`` and ``check_types``: a footer's
statistics may be wrong. For child processes: it parses what files say.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from bgdeploy.actions import Hint
from bgdeploy.errors import BadInput, NotReadable
from bgdeploy.snapshots.layout import (
    Pair,
    TableFolder,
    check_keys,
    find_roles,
    has_control,
    names_of,
    read_layout,
    tell_ends,
    type_columns,
)
from bgdeploy.snapshots.parquet import Parquet, check_moments, is_text_list, read_statistics
from bgdeploy.snapshots.source import (
    BLANKS,
    ENDS,
    LIVE,
    NOT_LOADED,
    Column,
    DataFile,
    Kind,
    Role,
    Snapshot,
    Table,
    refused,
)

Refuses = Callable[[pa.DataType, str], str | None]
# Names the embedded engine keeps for itself, whatever their case.
RESERVED = frozenset({"_id", "_src", "_dst", "_label", "_offset", "_nodes", "_rels", "*"})


def open_snapshot(
    customer: str,
    timestamp: int,
    path: Path,
    columns: Mapping[str, Any],
    fingerprint: str,
    refuses: Refuses = lambda kind, written_by: None,
    looking: Callable[[str], None] = lambda file: None,
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
    files: dict[TableFolder, list[DataFile]] = {}
    joined: dict[tuple[Kind, str], tuple[Column, ...]] = {}
    shared: dict[tuple[Column, ...], tuple[Column, ...]] = {}  # like files have the very same columns
    for kind, name in dict.fromkeys((folder.kind, folder.name) for folder in folders):
        mine = [folder for folder in folders if (folder.kind, folder.name) == (kind, name)]
        pairs = {file: some for one in mine for file, some in zip(one.files, one.pairs, strict=True)}
        of_folders, constants = type_columns(pairs)
        for folder in mine:
            files[folder] = []
            for file in folder.files:
                looking(file)
                found = _read_footer(path, file, folder, columns, refuses, pairs[file], constants[file])
                files[folder].append(replace(found, columns=shared.setdefault(found.columns, found.columns)))
        every = [file for folder in mine for file in files[folder]]
        wide = join_columns(kind, name, every)
        taken = {column.name for column in wide}
        joined[kind, name] = wide + tuple(column for column in of_folders if column.name not in taken)
        _check_names(kind, every[0].path, joined[kind, name])
    tables = []
    for one in folders:
        ends = one.source_label, one.target_label
        tables.append(
            Table(one.kind, one.name, one.labels, *ends, tuple(files[one]), joined[one.kind, one.name])
        )
    snapshot = Snapshot(customer, timestamp, path, tuple(tables), fingerprint)
    _check_tables(snapshot)
    return snapshot


# Footers


def _read_footer(
    path: Path,
    file: str,
    folder: TableFolder,
    columns: Mapping[str, Any],
    refuses: Refuses,
    pairs: Sequence[Pair],
    constants: tuple[Column, ...],
) -> DataFile:
    """Find the roles of one file's columns; ``pairs`` and ``constants`` are the columns that the names of its folders hold."""
    with _opened(path / file, file) as parquet:
        metadata = parquet.metadata
        written_by = metadata.created_by or ""
        try:
            fields = parquet.fields
        except pa.ArrowException as error:
            raise refused(f"{file} has columns that cannot be read: {_first_line(error)}") from error
        for field in fields:
            held, instead = field.refusal or (str(field.kind), refuses(field.kind, written_by))
            if instead is not None:
                what = f"{file}: column {field.name!r} holds {held}, which would not arrive unharmed."
                raise refused(what, f"Use {instead}.")
        schema = parquet.schema_arrow
        check_moments(file, parquet)
        named = folder.labels or (folder.name,)
        roles, by_position = find_roles(
            folder.kind, file, schema, columns, lambda column: _names_its_folder(parquet, column, named)
        )
        taken: tuple[Role, ...] = ("id", "labels") if folder.kind == "node" else (*ENDS, "type")
        check_keys(file, pairs, schema.names, [name for role in taken for name in names_of(role, columns)])
        found = tuple(
            Column(field.name, field.kind, roles.get(number, "property"), stored=field.stored)
            for number, field in enumerate(fields)
        )
        _check_names(folder.kind, file, found + constants)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        sizes, rows = [one.total_byte_size for one in groups], sum(one.num_rows for one in groups)
        if rows != metadata.num_rows:  # readers go by either of the two, and rows would be left out
            what = f"{file}: its footer says {metadata.num_rows:,} rows, and its row groups hold {rows:,}."
            raise refused(what, "Write it again.")
        return DataFile(
            file,
            rows,
            (path / file).stat().st_size,
            raw_size=sum(sizes),
            columns=found + constants,
            written_by=written_by,
            largest_group=max(sizes, default=0),
            by_position=by_position,
        )


@contextmanager
def _opened(path: Path, file: str) -> Iterator[Parquet]:
    try:
        with Parquet(path, file) as parquet:
            yield parquet
    except pa.ArrowNotImplementedError as error:
        cure = "Write integers of 128 bits as decimals of at most 38 digits, any other type as a string."
        what = f"{file}: {_unread(path)} what bgdeploy cannot read: {_first_line(error)}"
        raise refused(what, cure) from error
    except (OSError, pa.ArrowException) as error:
        raise NotReadable(
            f"{file} does not open as a Parquet file: {_first_line(error)}",
            kept=NOT_LOADED,
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


def _first_line(error: BaseException) -> str:
    return f"{str(error).splitlines()[0].rstrip('.')}." if str(error) else "no reason given."


def _names_its_folder(parquet: Parquet, column: str, names: Collection[str]) -> bool:
    """True when a column's values name the folder, by its footer's bounds and its first value."""
    if parquet.metadata.num_rows == 0:
        return True
    statistics = read_statistics(parquet, column)
    bounds = [] if statistics is None or statistics.min is None else [statistics.min, statistics.max]
    try:
        first = next(_values(parquet, column, 1))[0].as_py()
    except UnicodeDecodeError:
        return False  # what is no text names nothing
    return first is not None and all({*_labels_of(value)} & {*names} for value in [first, *bounds])


def _labels_of(value: str | Iterable[str | None]) -> tuple[str, ...]:
    return split_labels(value) if isinstance(value, str) else tuple(filter(None, value))


# One table


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

    def differ(one: _Known, difference: str) -> BadInput:
        word = "label" if kind == "node" else "type"
        return refused(
            f"The files of {word} {name} differ: {one.file.path} and {file.path}: column {own.name!r} {difference} in the second.",
            "Write the column with one type in all files of the table, or rename it in one of them.",
        )

    def spoken(role: Role) -> str:
        return f"a {role}" if role == "property" else f"the {role}"

    known: dict[tuple[str, str], _Known] = {}
    names: dict[str, _Known] = {}  # by the name it had first
    joined: set[int] = set()  # many files have the very same columns: they are looked at once
    for file in [one for one in files if one.rows] or files[:1]:
        if id(file.columns) in joined:
            continue
        joined.add(id(file.columns))
        for own in file.columns:
            before = known.get(own.key)
            if before is None:
                if (other := names.get(own.name)) is not None:
                    raise differ(other, f"is {spoken(other.column.role)} in the first and {spoken(own.role)}")
                known[own.key] = names[own.name] = _Known(
                    Column(own.name, simple(own.kind), own.role), own, file
                )
            elif own.kind != before.own.kind:  # what holds the first of them holds this one
                both = widen(before.column.kind, own.kind)
                if both is None:
                    raise differ(before, f"holds {before.column.type} in the first and {own.type}")
                source = before.file if both == before.column.kind else file
                known[own.key] = _Known(Column(before.column.name, both, own.role), before.own, source)
    return tuple(one.column for one in known.values())


def _check_names(kind: Kind, file: str, columns: Sequence[Column]) -> None:
    """Raise BadInput for the first column whose name cannot become a property's name."""
    seen: dict[str, str] = {}
    for name, role in ((column.name, column.role) for column in columns):
        folded = name.casefold()
        if not name.strip() or has_control(name):
            what = f"{file}: the column name {name!a} is empty or holds characters that are no text."
            raise refused(what, "Rename the column.")
        if folded in RESERVED:
            what = f"{file}: the column name {name!r} is reserved by the database."
            raise refused(what, f"Rename the column, for instance to {name.lstrip('_*') or 'all'!r}.")
        if role not in ("property", "id"):
            continue
        if kind == "node" and folded == "labels":
            what = f"{file}: column {name!r} meets the property 'labels' that every node is given."
            raise refused(what, "Rename the column, or name it in dataset.columns.labels.")
        if folded in seen:
            what = f"{file}: columns {seen[folded]!r} and {name!r} differ only in case."
            same = f"{file} has two columns {name!r}."
            raise refused(same if seen[folded] == name else what, "Rename one of them.")
        seen[folded] = name


# All tables


def _check_tables(snapshot: Snapshot) -> None:
    """Raise BadInput for what is wrong between the tables of a snapshot."""
    if snapshot.rows == 0:
        raise refused(f"Empty snapshot: no file of {snapshot.path} has a row.", "Write it again.")
    seen: dict[str, tuple[str, str]] = {}
    for table in snapshot.tables:
        word = "label" if table.kind == "node" else "type"
        other_word, other = seen.setdefault(table.name.casefold(), (word, table.name))
        if other == table.name and word != other_word:
            what = f"A label and a type are both named {table.name!r}, which the database cannot tell apart."
            raise refused(what, f"Rename one of the folders, for instance to relationships/{table.name}_REL.")
        if other != table.name:
            what = f"The {other_word} {other!r} and the {word} {table.name!r} differ only in case."
            raise refused(what, "Rename one of the folders.")
    known = {label for node in snapshot.nodes for label in node.labels}
    for table in snapshot.relationships:
        for role in ENDS:
            label = table.declared(role)
            if label is not None and label not in known:
                what = f"relationships/{table.name} declares the {role} label {label!r}; nodes/ has no such folder."
                raise refused(what, f"Use one of {', '.join(sorted(known))}.")
            nodes = [node for node in snapshot.nodes if label is None or label in node.labels]
            _check_family(table, role, nodes)


def _check_family(table: Table, role: Role, nodes: Sequence[Table]) -> None:
    """The ids of an end must be of one kind with those of some nodes it could join."""
    column = table.key(role)
    families = {_family(node.key("id")): node for node in nodes}
    if _family(column) in families:
        return
    have = " or ".join(sorted(families))
    what = (
        f"{table.files[0].path}: column {column.name!r} ({role} id) holds {column.type}, "
        f"but the nodes it could join have {have} ids ({next(iter(families.values())).files[0].path})."
    )
    said, cure = tell_ends(table) or ("", "")
    write = "Write ids with one type in nodes and relationships."
    raise refused(f"{what} {said}".rstrip(), Hint(write, " ", cure) if cure else write)


def _family(column: Column) -> str:
    # It has passed as a column of ids, so the text of its type can only speak of strings or integers.
    return "string" if "string" in column.type else "integer"


# Labels and types, as the rows say them

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
        for file, own in table.own("labels"):
            counts: Counter[str] = Counter()  # of labels that only the column gives
            with Parquet(snapshot.path / file.path, file.path) as parquet:
                for labels, rows in _count_labels(parquet, own.name):
                    for label in {*labels} - {*table.labels}:
                        counts[label] += rows
                    if len(counts) > _MOST_LABELS:
                        what = (
                            f"{file.path}: column {own.name!r} holds over {_MOST_LABELS:,} different labels."
                        )
                        cure = "If it is a property, rename it or set dataset.columns.labels."
                        raise BadInput(what, kept=LIVE, cure=cure)
            total.update(counts)
    return {label: rows for label, rows in total.items() if rows}


def _count_labels(parquet: Parquet, name: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Distinct sets of labels with their rows; the same one may come again."""
    for values in _values(parquet, name):
        if not is_text_list(values.type):
            for found in pc.value_counts(_as_text(values).drop_null()):
                yield split_labels(found["values"].as_py()), found["counts"].as_py()
            continue
        # A list may name a label twice, also with blanks around it, and a node counts once for it.
        named = _as_text(pc.list_flatten(values)).dictionary_encode()
        plain = pa.array(
            [(one or "").strip(BLANKS) or None for one in named.dictionary.to_pylist()], pa.large_string()
        )
        pairs = {"node": pc.list_parent_indices(values), "label": plain.take(named.indices)}
        labels = pa.table(pairs).drop_null().group_by(["node", "label"]).aggregate([]).column("label")
        for found in pc.value_counts(labels.combine_chunks()):
            yield (found["values"].as_py(),), found["counts"].as_py()


def check_types(snapshot: Snapshot) -> None:
    """Raise BadInput where a type column says something else than its folder.

    Nulls are fine: the folder's type stands for them. The rows are read; a footer's statistics may be wrong.
    """
    for table in snapshot.relationships:
        for file, own in table.own("type"):
            with Parquet(snapshot.path / file.path, file.path) as parquet:
                row = 0
                for values in _values(parquet, own.name):
                    place = pc.index(pc.not_equal(_as_text(values), table.name), True).as_py()
                    if place >= 0:
                        raise BadInput(
                            f"{file.path}, row {row + place + 1:,}: {own.name!r} is {values[place].as_py()!r}, but the folder says {table.name!r}.",
                            kept=LIVE,
                            cure="Move such rows to a folder of their own, or rename the column if it is a property.",
                        )
                    row += len(values)


def _values(parquet: Parquet, name: str, rows: int = _BATCH) -> Iterator[pa.Array]:
    for batch in parquet.iter_batches(rows, columns=[name]):
        yield batch.column(batch.schema.names.index(name))


def _as_text(values: pa.Array) -> pa.Array:
    # One plain kind of text: comparing and counting do not know every way of storing it.
    if is_.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(pa.large_string())


# Types: one that holds what two files have in a column, without losing anything.

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
        if is_.is_signed_integer(one) == is_.is_signed_integer(two):
            return max(one, two, key=lambda kind: int(kind.bit_width))
        signed, other = (one, two) if is_.is_signed_integer(one) else (two, one)
        fitting = (kind for kind in _SIGNED if kind.bit_width >= signed.bit_width)
        return next((kind for kind in fitting if kind.bit_width > other.bit_width), None)
    if is_.is_floating(one) and is_.is_floating(two):
        return max(one, two, key=lambda kind: int(kind.bit_width))
    if is_.is_decimal(one) and is_.is_decimal(two):
        scale = max(one.scale, two.scale)
        precision = max(one.precision - one.scale, two.precision - two.scale) + scale
        return pa.decimal128(precision, scale) if precision <= _DIGITS else None
    if is_.is_integer(one) and is_.is_floating(two):
        one, two = two, one
    exact = is_.is_floating(one) and is_.is_integer(two) and two.bit_width <= _EXACT_IN_DOUBLE
    return pa.float64() if exact else None


def _moments(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    def finer() -> str:
        return max(str(one.unit), str(two.unit), key=_UNITS.index)

    if is_.is_timestamp(one) and is_.is_timestamp(two) and (one.tz is None) == (two.tz is None):
        return pa.timestamp(finer(), one.tz if one.tz == two.tz else "UTC")
    if is_.is_duration(one) and is_.is_duration(two):
        return pa.duration(finer())
    if is_.is_time(one) and is_.is_time(two):
        return pa.time32(finer()) if finer() in ("s", "ms") else pa.time64(finer())
    return None
