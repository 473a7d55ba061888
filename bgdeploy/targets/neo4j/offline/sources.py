"""Sources: the snapshot's files as the tool takes them, under headers of our own, most of them where they lie.

Most columns are read where they lie. The rest is written anew, since the tool would lose it or make
something else of it without a word: see docs/neo4j-import.md, "What the import tool is given".

A file becomes one copy for each set of lists that are empty together, since empty lists need
another header than the others of their column.

The tool reads ``<header>.csv,<file>,<file>``: the header's first line says what its second line's
columns become, and columns it leaves out are not read. It takes paths for patterns and labels for
lists, so the files are reached through numbered links in a folder of our own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types as is_

from bgdeploy.durable import write_durably
from bgdeploy.errors import BadInput, TargetFull
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.parquet import (
    Parquet,
    family,
    is_converted,
    is_text_list,
    read_nulls,
    read_statistics,
)
from bgdeploy.snapshots.schema import is_list, simple
from bgdeploy.snapshots.source import Column, DataFile, Snapshot, Table
from bgdeploy.targets.base import Group
from bgdeploy.targets.groups import file_of, find_table, is_split
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.health import MIB
from bgdeploy.targets.neo4j.names import CYPHER, quote

# Forms: what the tool must be given so that a column becomes what it is, seen on 5.26.26 and 2026.03.1.

Change = Callable[[pa.Array], pa.Array]
EMPTY = "\x01bgdeploy: an empty text\x01"  # in place of empty texts, which the tool takes for none


@dataclass(frozen=True)
class Form:
    """What stands behind the name in the header, and what is made of the values; None: as they lie in the file.

    ``empty`` is what stands behind it for rows whose list is empty, where those need another one.
    """

    suffix: str = ""
    change: Change | None = None
    empty: str | None = None


PLAIN = Form()
MOMENT = Form(":localdatetime", lambda values: _as_text(values, ""))
ZONED = Form(":datetime", lambda values: _as_text(values, "Z"))


def form_of(kind: pa.DataType) -> Form | None:
    """The form of a type; None for one that the tool cannot be given at all."""
    kind = simple(kind)
    if is_list(kind):
        return _form_of_list(kind.value_type)
    if is_.is_uint32(kind) or is_.is_uint64(kind):
        return Form(change=lambda values: values.cast(pa.int64()))
    if is_.is_float16(kind):
        return Form(change=lambda values: values.cast(pa.float32()))
    if is_.is_duration(kind):
        return Form(":duration", _spans)
    if is_.is_timestamp(kind) and kind.tz not in (None, "UTC"):
        return Form(":datetime", _in_zone)
    return None if is_.is_binary(kind) else PLAIN


def _form_of_list(inner: pa.DataType) -> Form | None:
    if is_.is_integer(inner):
        return Form(change=_marked_integers)
    if is_.is_floating(inner):
        return Form(":double[]", _joined_numbers, ":double[]")
    return Form("", lambda values: values, ":string[]") if is_.is_string(inner) else None


def alike(own: pa.DataType, kind: pa.DataType) -> bool:
    """Whether a file's own type means the same to the tool as that of its whole table."""
    own, kind = simple(own), simple(kind)
    if is_.is_timestamp(own) and is_.is_timestamp(kind):
        return bool(own.tz == kind.tz)
    both = (is_.is_integer, is_.is_floating, is_.is_time)
    return own == kind or any(one(own) and one(kind) for one in both)


def early(kind: pa.DataType) -> Form:
    """The form of moments before 1970, whose fractions of a second the tool does not understand."""
    return MOMENT if kind.tz is None else ZONED


def _marked_integers(values: pa.Array) -> pa.Array:
    """Lists of integers are only kept where Parquet says of the element that it is an integer, as for unsigned ones."""
    return _rebuilt(values, values.flatten().cast(pa.int64()).view(pa.uint64()))


def _rebuilt(values: pa.Array, flat: pa.Array) -> pa.Array:
    sizes = pc.fill_null(pc.list_value_length(values), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(sizes).cast(pa.int32())])
    return pa.ListArray.from_arrays(offsets, flat, mask=values.is_null())


def _joined_numbers(values: pa.Array) -> pa.Array:
    """As Java reads them, in the width that they have when they come over Bolt."""
    texts = values.flatten().cast(pa.float64()).cast(pa.string())
    for arrow, java in (("inf", "Infinity"), ("-inf", "-Infinity"), ("nan", "NaN")):
        texts = pc.if_else(pc.equal(texts, arrow), java, texts)
    return pc.binary_join(_rebuilt(values, texts), ",")


def _as_text(values: pa.Array, zone: str) -> pa.Array:
    plain = values.cast(pa.timestamp(values.type.unit))
    return pc.binary_join_element_wise(pc.strftime(plain, "%Y-%m-%dT%H:%M:%S"), zone, "")


def _in_zone(values: pa.Array) -> pa.Array:
    """The local time with the offset it has then, and the zone's name where it has one."""
    zone = values.type.tz
    local = pc.strftime(values, "%Y-%m-%dT%H:%M:%S%z")
    return local if zone[0] in "+-" else pc.binary_join_element_wise(local, f"[{zone}]", "")


def _spans(values: pa.Array) -> pa.Array:
    """Seconds with their fraction; whole days and months are kept apart by Neo4j and are none of a duration's here."""
    factor = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[values.type.unit]
    numbers = values.cast(pa.int64()).to_pylist()
    return pa.array([None if one is None else _span(one * factor) for one in numbers], pa.string())


def _span(nanoseconds: int) -> str:
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    return f"PT{'-' if nanoseconds < 0 else ''}{seconds}.{rest:09}S"


# Looks: what of a file the tool may read where it lies, decided by types and footers, and by reading where those are silent.

_BATCH = 65_536  # rows decoded at a time
_BLANK = r"[\s\p{Z}]"
LOOSE = rf"^{_BLANK}|{_BLANK}$|{_BLANK},|,{_BLANK}|,,|^,|,$"  # labels in one text that are not plainly "A,B"
_KEYS = ("id", "source", "target")
_KEPT = "What is live stays live."


@dataclass(frozen=True)
class Look:
    """One column of one file: what it is called there, and its form; ``empties``: some texts are empty."""

    column: Column
    own: Column
    form: Form
    copied: bool = False
    empties: bool = False


def look_at(path: Path, table: Table, file: DataFile) -> list[Look]:
    """Every column that the tool shall read; raises Misfit for a key that is null, BadInput for what cannot go this way."""
    with Parquet(path, file.path) as parquet:
        return [
            _look(parquet, file, column, own)
            for column in table.columns
            if (own := file.find(column)) is not None and column.role != "type" and not is_.is_null(own.kind)
        ]


def _look(parquet: pq.ParquetFile, file: DataFile, column: Column, own: Column) -> Look:
    if column.role in _KEYS:
        _check_key(parquet, file, column, own)
    odd = own.stored is None or is_converted(own.stored)
    if column.role == "labels":
        copied = odd or is_text_list(own.kind) or _has_loose_labels(parquet, own)
        return Look(column, own, PLAIN, copied=copied)
    kind = simple(column.kind)
    form = form_of(kind)
    if form is None:
        raise unfit(file.path, own, f"holds {own.kind}")
    if own.constant is not None:
        return Look(column, own, form, copied=True)
    if is_.is_timestamp(kind) and form is PLAIN and _is_early(parquet, own):
        form = early(kind)
    empties = is_.is_string(kind) and column.role == "property" and _has_empties(parquet, own)
    mine = form_of(own.kind)
    moved = (
        odd or form.change is not None or mine is None or mine.change is not None or not alike(own.kind, kind)
    )
    return Look(column, own, form, moved or empties or _is_utc_time(parquet, own), empties)


def _check_key(parquet: pq.ParquetFile, file: DataFile, column: Column, own: Column) -> None:
    nulls = read_nulls(parquet, own.name)
    if nulls is None:
        nulls = sum(values.null_count for values in _read(parquet, own.name))
    role = "id" if column.role == "id" else f"{column.role} id"
    if nulls:
        said = f"{file.path} has a row whose {role} ({own.name!r}) is null."
        raise Misfit("node" if column.role == "id" else "relationship", "", said)
    if is_.is_string(simple(own.kind)) and _has_empties(parquet, own):
        raise unfit(file.path, own, f"is the {role} and holds an empty text")


def _is_early(parquet: pq.ParquetFile, own: Column) -> bool:
    found = read_statistics(parquet, own.name)
    if found is not None:
        return bool(found.min is not None and _number(found.min, own) < 0)
    return any(
        (least := pc.min(values.cast(pa.int64())).as_py()) is not None and least < 0
        for values in _read(parquet, own.name)
    )


def _number(moment: Any, own: Column) -> int:
    return (
        int(pa.scalar(moment, own.kind).cast(pa.int64()).as_py()) if not isinstance(moment, int) else moment
    )


def _has_empties(parquet: pq.ParquetFile, own: Column) -> bool:
    found = read_statistics(parquet, own.name)
    if found is not None:
        return bool(found.min == "")
    texts = (values.cast(pa.large_string()) for values in _read(parquet, own.name))
    return any(pc.any(pc.equal(one, "")).as_py() for one in texts)


def _has_loose_labels(parquet: pq.ParquetFile, own: Column) -> bool:
    """Blanks around labels, or none between two commas, which the tool takes for a part of a name or for a name."""
    found = read_statistics(parquet, own.name)
    if found is not None and isinstance(found.constant, str):
        return bool(pc.match_substring_regex(pa.scalar(found.constant), LOOSE).as_py())
    texts = (values.cast(pa.large_string()) for values in _read(parquet, own.name))
    return any(pc.any(pc.match_substring_regex(one, LOOSE)).as_py() for one in texts)


def _is_utc_time(parquet: pq.ParquetFile, own: Column) -> bool:
    """Some writers mark times of day as if they were adjusted to UTC; the tool then gives them a zone."""
    if not is_.is_time(own.kind):
        return False
    names = parquet.schema.names
    return '"isAdjustedToUTC": true' in parquet.schema.column(names.index(own.name)).logical_type.to_json()


def _read(parquet: pq.ParquetFile, name: str) -> Any:
    for batch in parquet.iter_batches(_BATCH, columns=[name]):
        yield batch.column(batch.schema.names.index(name))


def unfit(where: str, own: Column, why: str) -> BadInput:
    """The error for a column that has to go another way."""
    return BadInput(
        f"{where}: column {own.name!r} {why}, which the import tool cannot take.",
        kept=_KEPT,
        cure="Set neo4j.loader to bolt or auto, or leave the column out.",
    )


# Empty texts: the tool takes them for none, so they are imported as a mark and made empty again afterwards.

FILE = "empties.json"
_AT_ONCE = 10_000  # rows of one transaction


def keep(folder: Path, found: Iterable[tuple[str, str, str]]) -> None:
    """Remember where there are some: (node or relationship, label or type, property)."""
    write_durably(folder / FILE, json.dumps(list(found)))


def restore(server: Server, database: str, folder: Path) -> None:
    """Put the empty texts back, each where its mark stands; doing it again changes nothing."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return  # an earlier run came to its end
    for kind, name, column in found:
        server.change(database, _restore(kind, name, column), f"Restoring empty texts in {name}", mark=EMPTY)


def _restore(kind: str, name: str, column: str) -> str:
    match = f"(x:{quote(name)})" if kind == "node" else f"()-[x:{quote(name)}]->()"
    property_ = f"x.{quote(column)}"
    return (
        f"{CYPHER}MATCH {match} WHERE {property_} = $mark "
        f"CALL (x) {{ SET {property_} = '' }} IN TRANSACTIONS OF {_AT_ONCE} ROWS"
    )


# Copies: the files the tool would read wrongly, written anew in forms that it reads right.


@dataclass(frozen=True)
class Source:
    """One file as the tool gets it: where it lies, and per column its name there and what follows in the header."""

    path: Path
    columns: tuple[tuple[Look, str, str], ...]  # (column, its name in this file, suffix)


def in_place(path: Path, looks: Sequence[Look]) -> Source:
    """The file as it is."""
    return Source(path, tuple((look, look.own.name, look.form.suffix) for look in looks))


@dataclass
class _Writers:
    """The copies of one file, by the set of lists that are empty in their rows."""

    folder: Path
    stem: str
    looks: Sequence[Look]
    open: dict[int, pq.ParquetWriter] = field(default_factory=dict)

    def path(self, pattern: int) -> Path:
        return self.folder / f"{self.stem}-{pattern}.parquet"

    def write(self, pattern: int, columns: list[pa.Array]) -> None:
        table = pa.Table.from_arrays(columns, names=[f"c{number}" for number in range(len(columns))])
        if pattern not in self.open:
            self.open[pattern] = pq.ParquetWriter(self.path(pattern), table.schema, compression="zstd")
        self.open[pattern].write_table(table)

    def close(self) -> list[Source]:
        for writer in self.open.values():
            writer.close()
        return [Source(self.path(pattern), tuple(self._columns(pattern))) for pattern in sorted(self.open)]

    def _columns(self, pattern: int) -> Iterator[tuple[Look, str, str]]:
        for number, look in enumerate(self.looks):
            suffix = look.form.empty if pattern >> number & 1 else look.form.suffix
            yield look, f"c{number}", suffix or ""


def copy(path: Path, looks: Sequence[Look], folder: Path, stem: str) -> list[Source]:
    """Write a file anew below ``folder``; raises BadInput for a value that no property can hold."""
    writers = _Writers(folder, stem, looks)
    names = [look.own.name for look in looks if look.own.constant is None]
    with Parquet(path) as parquet:
        for batch in parquet.iter_batches(_BATCH, columns=names):
            for pattern, rows in _by_empty_lists(batch, looks):
                columns = [_change(rows, look, empty=bool(pattern >> n & 1)) for n, look in enumerate(looks)]
                writers.write(pattern, columns)
    return writers.close()


def _by_empty_lists(batch: pa.RecordBatch, looks: Sequence[Look]) -> Iterator[tuple[int, pa.RecordBatch]]:
    patterns = pa.nulls(batch.num_rows, pa.int64()).fill_null(0)
    for number, look in enumerate(looks):
        if look.form.empty is not None:
            sizes = pc.list_value_length(_own(batch, look))
            empty = pc.fill_null(pc.equal(sizes, 0), False)
            patterns = pc.add(patterns, pc.multiply(empty.cast(pa.int64()), 1 << number))
    for pattern in sorted(pc.unique(patterns).to_pylist()):
        yield pattern, batch.filter(pc.equal(patterns, pattern))


def _own(batch: pa.RecordBatch, look: Look) -> pa.Array:
    if look.own.constant is not None:
        return pa.repeat(pa.scalar(look.own.constant, look.own.kind), batch.num_rows)
    return batch.column(batch.schema.names.index(look.own.name))


def _change(batch: pa.RecordBatch, look: Look, *, empty: bool) -> pa.Array:
    values = _own(batch, look)
    if look.column.role == "labels":
        return _tighten(_join(values) if is_text_list(values.type) else values)
    kind = simple(look.column.kind)
    try:
        values = values.cast(kind)
        if is_list(kind):
            _check_list(values)
        if look.form.change is not None and not empty:
            values = look.form.change(values)
    except pa.ArrowInvalid as error:
        raise _refuse_value(look, f"a value that does not fit: {error}") from error
    return pc.if_else(pc.equal(values, ""), EMPTY, values) if look.empties else values


def _join(labels: pa.Array) -> pa.Array:
    return pc.binary_join(labels.cast(pa.list_(pa.string())), ",")


def _tighten(labels: pa.Array) -> pa.Array:
    """Leave nothing but the labels and one comma between two of them."""
    plain = pc.replace_substring_regex(labels.cast(pa.large_string()), r"[\s\p{Z},]*,[\s\p{Z},]*", ",")
    return pc.utf8_trim(pc.utf8_trim_whitespace(plain), ",")


def _check_list(values: pa.Array) -> None:
    if values.flatten().null_count:
        raise pa.ArrowInvalid("a list with a null in it")


def _refuse_value(look: Look, what: str) -> BadInput:
    said = f"Column {look.own.name!r} holds {what}, which Neo4j cannot store."
    return BadInput(said, kept=_KEPT, cure="Write lists without nulls, and numbers up to 2^63-1.")


# Sources: the snapshot's files as the tool takes them, under headers of our own, most of them where they lie.

FOLDER = "input"
COPIES = "copies"  # below it
LABELS_APART = ","  # between labels in one text, as snapshots have it
_MARKS = set(':(){}[]"\r\n')  # what has a meaning of its own in a header, or none at all
_LABEL_MARKS = set(":=,\r\n")
_GROWN = 2  # a copy may be larger than its file, at the most so many times as far as was seen


@dataclass(frozen=True)
class Spaces:
    """The tool's name for the ids of each label, since ids may repeat across labels."""

    names: tuple[str, ...]

    def of(self, label: str) -> str:
        """``g0``, ``g1`` ...; a label itself may hold what the tool reads as marks."""
        return f"g{self.names.index(label)}"

    def label(self, space: str) -> str:
        """The way back, for what the tool says."""
        return self.names[int(space[1:])]


@dataclass(frozen=True)
class Input:
    """What the tool is told of the data; ``empties`` are (kind, label or type, property) with empty texts among them."""

    words: tuple[str, ...]
    empties: tuple[tuple[str, str, str], ...]


def spaces_of(snapshot: Snapshot) -> Spaces:
    """One space for each node table's name."""
    return Spaces(tuple(dict.fromkeys(table.name for table in snapshot.nodes)))


def id_type(snapshot: Snapshot) -> str:
    """``integer`` where every id is one, which needs far less memory, else ``string``."""
    found = {family(table.key("id").kind) for table in snapshot.nodes}
    return "integer" if found == {"integer"} else "string"


def lay_out(snapshot: Snapshot, groups: Sequence[Group], folder: Path) -> Input:
    """Write headers, links and copies below ``folder`` and return what leads the tool to them.

    Raises BadInput for what the tool cannot take and Misfit for keys that are null.
    """
    home = folder / FOLDER
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    files = [_look_at(snapshot, group, path, folder) for group in groups for path in group.files]
    _check_room([file for file in files if file.copied], home)
    spaces, alike = spaces_of(snapshot), dict[tuple[str, str], list[Path]]()
    for number, file in enumerate(files):
        for source in _sources(file, home / COPIES, str(number)):
            alike.setdefault((_option(file.table), _header(source, file.group, spaces)), []).append(
                source.path
            )
    words = [_word(home, number, *key, paths) for number, (key, paths) in enumerate(alike.items())]
    return Input(tuple(words), tuple(dict.fromkeys(empty for file in files for empty in file.empties)))


def _sources(file: _File, folder: Path, stem: str) -> list[Source]:
    if not file.copied:
        return [in_place(file.path, file.looks)]
    folder.mkdir(exist_ok=True)
    return copy(file.path, file.looks, folder, stem)


def _word(home: Path, number: int, option: str, header: str, paths: Sequence[Path]) -> str:
    """One option for all files with one header; paths count from the folder the tool runs in, so that many fit."""
    first = home / f"{number}.csv"
    first.write_text(header, encoding="utf-8")
    links = [home / f"{number}-{place}.parquet" for place in range(len(paths))]
    for link, path in zip(links, paths, strict=True):
        link.symlink_to(path)
    return f"{option}={','.join(f'{FOLDER}/{one.name}' for one in (first, *links))}"


@dataclass(frozen=True)
class _File:
    """One file of the plan with what was seen of its columns."""

    path: Path
    table: Table
    group: Group
    looks: Sequence[Look]

    @property
    def copied(self) -> bool:
        return any(look.copied for look in self.looks)

    @property
    def empties(self) -> list[tuple[str, str, str]]:
        names = [look.column.name for look in self.looks if look.empties]
        return [(self.table.kind, self.table.name, name) for name in names]


def _look_at(snapshot: Snapshot, group: Group, path: str, folder: Path) -> _File:
    table = find_table(snapshot, group)
    real = ((folder if is_split(path) else snapshot.path) / path).absolute()
    try:
        return _File(real, table, group, look_at(real, table, file_of(table, path)))
    except Misfit as misfit:
        raise Misfit(table.kind, table.name, misfit.said) from misfit


def _check_room(copied: Sequence[_File], home: Path) -> None:
    """Raise TargetFull where the copies would not fit; they take about what their files take."""
    needed = _GROWN * sum(file.path.stat().st_size for file in copied)
    room = os.statvfs(home)
    if needed > (free := room.f_bavail * room.f_frsize):
        what = f"{len(copied)} files are written anew for the import tool, which takes about {needed / MIB:,.0f} MiB, and {home} has {free / MIB:,.0f} MiB."
        raise TargetFull(what, kept=_KEPT, cure="Make room there.")


def _header(source: Source, group: Group, spaces: Spaces) -> str:
    """Two lines: what the columns become, and what they are called in the file."""
    pairs = [(_target(look.column, group, spaces) + suffix, name) for look, name, suffix in source.columns]
    lines = [",".join(f'"{word}"' for word in line) for line in zip(*pairs, strict=True)]
    return "\n".join(lines) + "\n"


def check_fit(snapshot: Snapshot) -> None:
    """Raise BadInput for a name that the tool would read as something else, and for a type it cannot be given."""
    for table in snapshot.tables:
        _option(table)
        for column in table.columns:
            if column.role in ("id", "property"):
                _safe(column)
            if column.role == "property" and form_of(column.kind) is None:
                raise unfit(table.name, column, f"holds {column.kind}")


def _option(table: Table) -> str:
    names = table.labels if table.kind == "node" else (table.name,)
    for name in names:
        if _LABEL_MARKS & set(name) or name != name.strip():
            raise _refuse(f"the {'label' if table.kind == 'node' else 'type'} {name!r}", "Rename the folder")
    return f"--{'nodes' if table.kind == 'node' else 'relationships'}={':'.join(names)}"


def _target(column: Column, group: Group, spaces: Spaces) -> str:
    """What the tool makes of a column, in its own words."""
    match column.role:
        case "id":
            return f"{_safe(column)}:ID({spaces.of(group.name)})"
        case "labels":
            return ":LABEL"
        case "source":
            return f":START_ID({spaces.of(str(group.source_label))})"
        case "target":
            return f":END_ID({spaces.of(str(group.target_label))})"
        case _:
            return _safe(column)


def _safe(column: Column) -> str:
    if _MARKS & set(column.name) or column.name != column.name.strip():
        raise _refuse(f"the column {column.name!r}", "Rename the column")
    return column.name


def _refuse(what: str, cure: str) -> BadInput:
    said = f"The import tool cannot take {what}: it reads some of its characters as its own marks."
    return BadInput(said, kept=_KEPT, cure=f"{cure}, or set neo4j.loader to bolt.")
