"""Proof: every value of every row, as a sum that does not depend on order, from the files and from a database.

A digest of a table is the number of its rows and the sum of a hash of each whole row. The files are read
by DuckDB and not by the engine that loaded them; the database's rows come as Arrow tables and are hashed
by the same DuckDB. Equal sums say that no value differs: in 1,999,000 swaps of two values none was missed.

A borrowed fact, measured on DuckDB 2.0.1: in a plain ``sum(hash(...))`` swaps cancel, since the last
argument is only XORed, so the hash is hashed once more. What ``hash`` does not see is in ``canonical``; the types of
columns themselves are compared before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types as is_

from bgdeploy.errors import BadInput, TargetError, TargetFull
from bgdeploy.snapshots.canonical import canonical, hashed, innermost, is_ordered, literal, plain_type
from bgdeploy.snapshots.keys import (
    candidates,
    is_whole,
    link,
    memory_to_compare,
    opened_duck,
    quote,
    text,
)
from bgdeploy.snapshots.parquet import find_bad_text, outside_of_calendar
from bgdeploy.snapshots.rows import read_rows
from bgdeploy.snapshots.schema import is_list, simple
from bgdeploy.snapshots.source import (
    BLANKS,
    ENDS,
    KEYS,
    LIVE,
    Column,
    DataFile,
    Kind,
    Role,
    Snapshot,
    Table,
)

if TYPE_CHECKING:
    import duckdb

ALGORITHM = "sum of hash(hash(row)), 128 bit"
_MIB = 1 << 20
_SHOWN = 60  # letters of a value that are shown
_MOST_TOLD = 10
_LOOKED_UP = 8  # ids of a table that are looked up by key, and ends that are counted from the other side
_MOST_HELD = 1000  # rows only the database has that are kept to be compared


# What is compared


@dataclass(frozen=True)
class Subject:
    """Rows that are compared as one: a label's nodes, or a type's relationships between two labels.

    Labels are those of the tables that hold the nodes; both are None where the folders leave open which a
    row joins. ``labels`` says that every node keeps all its labels.
    """

    kind: Kind
    name: str
    source: str | None
    target: str | None
    folders: tuple[Table, ...]
    properties: tuple[Column, ...]
    keys: tuple[pa.DataType, ...]  # of the id, or of both ends as their nodes have them
    labels: bool = False

    def __str__(self) -> str:
        if self.kind == "node":
            return self.name
        return self.name if self.source is None else f"({self.source})-[{self.name}]->({self.target})"

    @property
    def rows(self) -> int:
        """Rows by the footers."""
        return sum(folder.rows for folder in self.folders)

    @property
    def names(self) -> list[str]:
        """What is compared apart from the ids: properties, and ``labels`` where nodes keep them."""
        return [*(column.name for column in self.properties), *(["labels"] if self.labels else [])]


@dataclass(frozen=True)
class Digest:
    """Number of rows, sum over them, and a sum for each column that carries the ids with its values."""

    rows: int = 0
    total: int = 0
    columns: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Digest) -> Digest:
        names = {**self.columns, **other.columns}
        both = {name: self.columns.get(name, 0) + other.columns.get(name, 0) for name in names}
        return Digest(self.rows + other.rows, self.total + other.total, both)


def keeps_labels(tables: Iterable[Table]) -> bool:
    """Say whether nodes of these folders keep their labels in a property: where somebody wrote more than one."""
    return any(table.column("labels") is not None or len(table.labels) > 1 for table in tables)


def subjects(snapshot: Snapshot, *, across: bool = False) -> list[Subject]:
    """Return what a snapshot's proof is made of, nodes first.

    ``across``: the target asks for nodes by label alone, so that a label's are those of every folder that carry it and
    have their id under the same name; each is compared with all its labels.
    """
    found: list[Subject] = []
    kinds: dict[str, pa.DataType] = {}  # of the ids of each label
    for name in dict.fromkeys(table.name for table in snapshot.nodes):
        mine = tuple(table for table in snapshot.nodes if table.name == name)
        key = mine[0].key("id")
        kinds[name] = key.kind
        some = mine
        if across:
            ids = [(table, table.key("id")) for table in snapshot.nodes if may_carry(table, name)]
            some = tuple(one for one, own in ids if own.name == key.name and is_whole(own) == is_whole(key))
        labels = across or keeps_labels(mine)
        found.append(Subject("node", name, None, None, some, mine[0].properties, (key.kind,), labels))
    for name in dict.fromkeys(table.name for table in snapshot.relationships):
        mine = tuple(table for table in snapshot.relationships if table.name == name)
        ends = [tuple(tuple(end_labels(snapshot, table, role)) for role in ENDS) for table in mine]
        if all(len(source) == len(target) == 1 for source, target in ends):
            for pair in dict.fromkeys(ends):
                some = tuple(table for table, own in zip(mine, ends, strict=True) if own == pair)
                (source,), (target,) = pair
                keys = (kinds[source], kinds[target])
                found.append(Subject("relationship", name, source, target, some, some[0].properties, keys))
        else:
            # Ids of one kind can be compared, whichever label has them: equal numbers of any type have one hash.
            keys = (mine[0].key("source").kind, mine[0].key("target").kind)
            found.append(Subject("relationship", name, None, None, mine, mine[0].properties, keys))
    return [one for one in found if one.rows]


def may_carry(table: Table, label: str) -> bool:
    """True for a folder some of whose nodes may carry a label."""
    return label in table.labels or table.column("labels") is not None


def overlap(wanted: Iterable[Subject]) -> list[Subject]:
    """Return the labels whose nodes may lie in folders of other labels too."""
    return [one for one in wanted if any(folder.name != one.name for folder in one.folders)]


def end_labels(snapshot: Snapshot, table: Table, role: Role) -> list[str]:
    """Return the node tables an end may join: those with the declared label, or all whose ids are of its kind."""
    return candidates(snapshot, table, role, table.declared(role))


# The files' half


class Unfit(BadInput):
    """What DuckDB cannot read, or bring to the type in which it is compared; a load that refuses it says it better."""


class Files:
    """A snapshot's files in DuckDB's hands; they are read as they are, whatever the load makes of them."""

    def __init__(self, snapshot: Snapshot, duck: duckdb.DuckDBPyConnection) -> None:
        self.snapshot, self.duck = snapshot, duck
        self._links = {file.path: link(number) for number, file in enumerate(snapshot.files)}
        self._names: dict[str, dict[str, tuple[str, str]]] = {}

    def digest(self, subject: Subject) -> Digest:
        """Return the digest of a subject's rows; raises BadInput, with the file, for one that cannot be read."""
        total = Digest(columns=dict.fromkeys(subject.names, 0))
        beyond = _beyond_the_calendar(subject)
        for shape in self.shapes(subject):
            sums = ", ".join([_sums(subject, file_ids(subject)), *beyond.values()])
            row = self.rows(f"SELECT {sums} FROM ({shape.select})", shape.files)[0]
            if any(row[len(row) - len(beyond) :]):
                raise self._outside_of_calendar(subject, beyond)
            total += _digest(subject, row[: len(row) - len(beyond)])
        return total

    def _outside_of_calendar(self, subject: Subject, beyond: Mapping[str, str]) -> BadInput:
        """The error for the first file and column that holds such a day or moment, whatever their footers say."""
        for shape in self.shapes(subject, each=True):
            row = self.rows(f"SELECT {', '.join(beyond.values())} FROM ({shape.select})", shape.files)[0]
            for name, found in zip(beyond, row, strict=True):
                if found:
                    return outside_of_calendar(shape.files[0].path, name)
        raise AssertionError("no file holds what all of them together do")

    def ends(self, subject: Subject) -> dict[Any, int]:
        """Return some targets of a type's relationships, and how many rows end at each."""
        rows = list(self.shapes(subject))
        every = " UNION ALL ".join(f"SELECT k1 FROM ({shape.select})" for shape in rows)
        files = [file for shape in rows for file in shape.files]
        some = f"SELECT DISTINCT k1 FROM ({rows[0].select}) LIMIT {_LOOKED_UP}"
        query = f"SELECT k1, count(*) FROM ({every}) WHERE k1 IN ({some}) GROUP BY k1"
        return dict(self.rows(query, files))

    def aggregates(self, subject: Subject) -> list[tuple[int, Any, Any, int | None]]:
        """Return of each property how many values are not null, the least and the greatest, and the letters of all texts."""
        shapes = list(self.shapes(subject))
        every = " UNION ALL ".join(f"({shape.select})" for shape in shapes)
        wanted = []
        for place, column in enumerate(subject.properties):
            name, kind = f"c{place}", simple(column.kind)
            ends = f"min({name}), max({name})" if is_ordered(kind) else "NULL, NULL"
            wanted.append(
                f"count({name}), {ends}, {f'coalesce(sum(length({name})), 0)' if is_.is_string(kind) else 'NULL'}"
            )
        if not wanted:
            return []
        files = [file for shape in shapes for file in shape.files]
        (row,) = self.rows(f"SELECT {', '.join(wanted)} FROM ({every})", files)
        return [(row[at], row[at + 1], row[at + 2], row[at + 3]) for at in range(0, len(row), 4)]

    def shapes(self, subject: Subject, *, each: bool = False) -> Iterator[Shape]:
        """Yield one query over the files of each shape: the ids as k0, k1, the properties as c0, c1, ...

        With ``each`` one over each file, in order, and the rows' numbers from 0 as ``row_number``.
        """
        for folder in subject.folders:
            alike: dict[object, list[DataFile]] = {}
            for file in folder.files:
                if file.rows:
                    shape = file.path if each else (file.columns, file.written_by.partition(" version")[0])
                    alike.setdefault(shape, []).append(file)
            for files in alike.values():
                yield self._shape(subject, folder, files, numbered=each)

    def _shape(self, subject: Subject, folder: Table, files: list[DataFile], *, numbered: bool) -> Shape:
        keys = [
            f"{self._value(files[0], folder.key(role), kind)} AS k{place}"
            for place, (role, kind) in enumerate(zip(KEYS[subject.kind], subject.keys, strict=True))
        ]
        values = [
            f"{self._value(files[0], one, one.kind)} AS c{place}"
            for place, one in enumerate(subject.properties)
        ]
        if subject.labels:
            values.append(f"{self._labels(files[0], folder)} AS c{len(subject.properties)}")
        links = ", ".join(text(self._links[file.path]) for file in files)
        # A file may have a column of that name itself; its rows are then not numbered.
        numbered = numbered and not any(
            name == "file_row_number" for name, _ in self.names(files[0]).values()
        )
        number = ["file_row_number AS row_number"] if numbered else ["-1 AS row_number"]
        source = _parquet(links, ", file_row_number = true" if numbered else "")
        select = f"SELECT {', '.join([*number, *keys, *values])} FROM {source}"
        if subject.kind == "node" and subject.name not in folder.labels:
            select = f"SELECT * FROM ({select}) WHERE list_contains(c{len(subject.properties)}, {text(subject.name)})"
        return Shape(tuple(files), select)

    def _value(self, file: DataFile, column: Column, kind: pa.DataType) -> str:
        """A column of the table as a file has it, in the canonical type."""
        own = file.find(column)
        if own is None or is_.is_null(own.kind):
            return f"CAST(NULL AS {plain_type(kind)})"
        if own.constant is not None:
            return canonical(kind, literal(own.constant), "")
        name, duck = self.names(file)[own.name]
        return canonical(kind, quote(name), duck, getattr(innermost(own.kind), "unit", "us"))

    def _labels(self, file: DataFile, folder: Table) -> str:
        """All labels of a node in order: the folder's and those of its labels column."""
        own = f"[{', '.join(text(label) for label in folder.labels)}]"
        column = folder.column("labels")
        named = file.find(column) if column is not None else None
        if named is None:
            return f"list_sort({own})"
        found = quote(self.names(file)[named.name][0])
        if not is_list(simple(named.kind)):
            found = f"string_split(CAST({found} AS VARCHAR), ',')"
        found = f"list_transform({found}, lambda x: trim(x, {text(BLANKS)}))"
        found = f"list_filter({found}, lambda x: x <> '')"
        return f"list_sort(list_distinct(list_concat({own}, coalesce({found}, []))))"

    def names(self, file: DataFile) -> dict[str, tuple[str, str]]:
        """What DuckDB calls each Parquet column of a file, and its type: of names that differ in case only it renames one."""
        if file.path not in self._names:
            query = f"DESCRIBE SELECT * FROM {_parquet(text(self._links[file.path]))}"
            own = [column.name for column in file.columns if column.constant is None]
            found = [(row[0], row[1]) for row in self.rows(query, [file])]
            self._names[file.path] = dict(zip(own, found, strict=True))
        return self._names[file.path]

    def rows(self, query: str, files: Sequence[DataFile]) -> list[Any]:
        """Run a query over some files; raises BadInput, with the file, where one cannot be read."""
        import duckdb

        try:
            return self.duck.execute(query).fetchall()
        except duckdb.OutOfMemoryException as error:
            raise TargetError(
                f"Comparing {files[0].path} takes more memory than it may have: {_first_line(error)}",
                cure="Write it with smaller row groups, or give the service more memory.",
            ) from error
        except (duckdb.OutOfRangeException, duckdb.ConversionException) as error:
            what = f"{files[0].path} holds a value that cannot be compared: {_first_line(error)}"
            cure = "Days and moments must lie in the years 1 to 9999 (is the unit right?); write anything else as a string."
            raise Unfit(what, kept=LIVE, cure=cure) from error
        except duckdb.Error as error:
            said = self._explain(error, files)
            raise Unfit(said.what, kept=said.kept, cure=said.cure) from error

    def _explain(self, error: duckdb.Error, files: Sequence[DataFile]) -> BadInput:
        """What is wrong with files that DuckDB cannot read, in the words of whoever else reads them, where these see it."""
        try:
            for table in self.snapshot.tables:
                for file in table.files:
                    if file in files:
                        for _ in read_rows(self.snapshot.path / file.path, file, table.columns):
                            pass  # it raises for what is damaged
        except BadInput as damaged:
            return damaged
        return find_bad_text(self.snapshot) or BadInput(
            f"{files[0].path} cannot be read by DuckDB, the second reader that proves every value: {_first_line(error)}",
            kept=LIVE,
            cure="Write the file again.",
        )


@dataclass(frozen=True)
class Shape:
    """Files that one query reads, and the query."""

    files: tuple[DataFile, ...]
    select: str


def opened_files(snapshot: Snapshot, folder: Path, *, available: int) -> Any:
    """Open DuckDB on a snapshot's files with as much memory as its largest row group takes; see ``opened_duck``.

    ``available`` is what the machine has to spare, in bytes. Raises TargetFull, naming the file, where that is too little.
    """
    memory, largest = memory_to_compare(snapshot)
    if largest is not None and memory > available // _MIB:
        raise TargetFull(
            f"Comparing {largest.path} takes {memory:,} MiB, a whole row group at once; {available // _MIB:,} MiB are free.",
            cure="Write it with smaller row groups, or make memory free.",
        )
    return opened_duck(folder, [snapshot.path / file.path for file in snapshot.files], memory_mb=memory)


def _parquet(links: str, more: str = "") -> str:
    # A folder's name must not become a column behind our back, and names must bind in each file alone.
    return f"read_parquet([{links}], hive_partitioning = false, union_by_name = false{more})"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def file_ids(subject: Subject) -> str:
    """What names a row's ids in the files: both ends as hashes, which is how a database's rows have them."""
    return "k0" if subject.kind == "node" else "hash(k0), hash(k1)"


def _columns(subject: Subject) -> list[pa.DataType]:
    return [column.kind for column in subject.properties] + (
        [pa.list_(pa.string())] if subject.labels else []
    )


def row_hash(subject: Subject, ids: str) -> str:
    """The hash of a whole row whose ids are named by ``ids``."""
    values = [hashed(kind, f"c{place}") for place, kind in enumerate(_columns(subject))]
    return f"hash(hash({', '.join([ids, *values])}))"


def _sums(subject: Subject, ids: str, *, columns: bool = True) -> str:
    """What a query sums up: the rows, their hashes, and for each column the hash of the ids with its value."""
    sums = [row_hash(subject, ids)]
    for place, kind in enumerate(_columns(subject) if columns else ()):
        sums.append(f"hash(hash({ids}, {hashed(kind, f'c{place}')}))")
    return ", ".join(["count(*)", *(f"coalesce(sum(CAST({one} AS HUGEINT)), 0)" for one in sums)])


def _beyond_the_calendar(subject: Subject) -> dict[str, str]:
    """For each column of days or moments what tells that one lies outside of the years 1 to 9999, where readers fail."""
    found = {}
    for place, column in enumerate(subject.properties):
        inner, value = innermost(column.kind), f"c{place}"
        if not (is_.is_date(inner) or (is_.is_timestamp(inner) and inner.unit != "ns")):
            continue  # nanoseconds end in the year 2262
        outside = "{0} < DATE '0001-01-01' OR {0} >= DATE '10000-01-01'".format
        kind = simple(column.kind)
        while is_list(kind) and is_list(simple(kind.value_type)):
            value, kind = f"flatten({value})", simple(kind.value_type)
        one = f"len(list_filter({value}, lambda x: {outside('x')})) > 0" if is_list(kind) else outside(value)
        found[column.name] = f"coalesce(bool_or({one}), false)"
    return found


def _digest(subject: Subject, row: Sequence[int]) -> Digest:
    return Digest(int(row[0]), int(row[1]), dict(zip(subject.names, map(int, row[2:]), strict=len(row) > 2)))


# The database's half


class Found:
    """A database's rows in DuckDB's hands, page by page; see ``Inspector.nodes`` and ``Inspector.relationships``.

    Ids are kept as their hashes in one file for each table whose nodes are ends, eight bytes a node, and are
    looked up there by place: so memory does not grow with the database.
    """

    def __init__(self, duck: duckdb.DuckDBPyConnection, folder: Path) -> None:
        self.duck, self._folder = duck, folder
        self._hashes: dict[str, pa.Array] = {}
        self.keys: dict[str, list[tuple[int, Any]]] = {}  # some places with their ids, to be looked up by key

    def digest(
        self,
        subject: Subject,
        pages: Iterable[tuple[Subject, pa.Table]],
        *,
        columns: bool = False,
        ends: bool = False,
    ) -> Digest:
        """Return the digest of a subject's rows; each page comes with the part of the subject that it holds.

        ``ends`` keeps the ids of nodes for the relationships that follow.
        """
        total = Digest()
        some = self.keys.setdefault(subject.name, [])
        with open(self._path(subject.name), "wb") if ends else nullcontext() as file:
            for part, page in pages:
                with self.registered(part, page) as (rows, ids):
                    query = f"SELECT {_sums(subject, ids, columns=columns)} FROM ({rows})"
                    total += _digest(subject, self.duck.execute(query).fetchall()[0])
                    if file is not None:
                        placed = "place" in page.schema.names
                        file.write(self._hashes_of(rows, file.tell() // 8, placed=placed))
                if "place" in page.schema.names and page.num_rows and len(some) < _LOOKED_UP:
                    some.append((page["place"][0].as_py(), page["k0"][0].as_py()))
        if ends:
            self._hashes[subject.name] = _mapped(self._path(subject.name))
        return total

    @contextmanager
    def registered(self, subject: Subject, page: pa.Table) -> Iterator[tuple[str, str]]:
        """Give DuckDB a page; yield the query for its rows in canonical types, and what names their ids."""
        ids = "k0"
        if "p0" in page.schema.names:
            ends = [
                self._hashes[str(label)].take(page[place])
                for label, place in ((subject.source, "p0"), (subject.target, "p1"))
            ]
            page = page.append_column("k0", ends[0]).append_column("k1", ends[1])
            ids = "k0, k1"
        elif subject.kind == "relationship":
            ids = "hash(k0), hash(k1)"
        spans = {field.name: innermost(field.type) for field in page.schema}
        spans = {name: kind for name, kind in spans.items() if is_.is_duration(kind)}
        for name in spans:  # DuckDB's own spans know no nanoseconds
            number = page.schema.get_field_index(name)
            page = page.set_column(number, name, page[name].cast(_as_numbers(page[name].type)))
        self.duck.register("page", page)
        try:
            types = {row[0]: row[1] for row in self.duck.execute("DESCRIBE page").fetchall()}
            values = [name for name in types if name == "place"]
            for place, kind in enumerate(subject.keys):
                name = f"k{place}"
                values.append(name if "p0" in types else f"{canonical(kind, name, types[name])} AS {name}")
            kinds = _columns(subject)
            for at, kind in enumerate(kinds):
                name = f"c{at}" if f"c{at}" in types else "l0"  # labels that no property holds
                unit = spans[name].unit if name in spans else "us"
                value = canonical(kind, name, types[name], unit)
                labels = subject.labels and at == len(kinds) - 1
                values.append(f"{f'list_sort({value})' if labels else value} AS c{at}")
            yield f"SELECT {', '.join(values)} FROM page", ids
        finally:
            self.duck.unregister("page")

    def _hashes_of(self, rows: str, start: int, *, placed: bool) -> bytes:
        """The ids' hashes in the order of their places from ``start``; a place that no node has gets a zero.

        Where nodes have no places they are in any order, which tells whether labels share ids.
        """
        if not placed:
            hashes = self.duck.sql(f"SELECT hash(k0) AS h FROM ({rows})").to_arrow_table().column("h")
            return _bytes(hashes.combine_chunks())
        last, count = self.duck.execute(f"SELECT max(place), count(*) FROM ({rows})").fetchall()[0]
        if not count:
            return b""
        query = f"SELECT hash(k0) AS h FROM ({rows}) ORDER BY place"
        if last - start + 1 != count:
            query = (
                f"SELECT coalesce(h, 0) AS h FROM range({start}, {last + 1}) AS r(p)"
                f" LEFT JOIN (SELECT place, hash(k0) AS h FROM ({rows})) ON place = p ORDER BY p"
            )
        return _bytes(self.duck.sql(query).to_arrow_table().column("h").combine_chunks())

    def plain(self, kind: pa.DataType, values: Sequence[pa.Scalar]) -> list[Any]:
        """Return single values of a target as DuckDB has those of the files, to be compared with them."""
        subject = Subject("node", "", None, None, (), (Column("c0", kind, "property"),), (pa.int64(),))
        page = pa.table({"k0": [0] * len(values), "c0": pa.array(values, values[0].type)})
        with self.registered(subject, page) as (rows, _):
            return [row[0] for row in self.duck.execute(f"SELECT c0 FROM ({rows})").fetchall()]

    def shared(self, labels: Sequence[str]) -> int:
        """How many ids several of these tables have; the hashes of all of them must have been kept."""
        hashes = [self._hashes[label] for label in labels]
        if len(hashes) < 2:
            return 0
        for place, some in enumerate(hashes):
            self.duck.register(f"ids{place}", pa.table({"h": some}))
        every = " UNION ALL ".join(f"SELECT h FROM ids{place} WHERE h <> 0" for place in range(len(hashes)))
        several = f"SELECT h FROM ({every}) GROUP BY h HAVING count(*) > 1"
        found = self.duck.execute(f"SELECT count(*) FROM ({several})").fetchall()[0][0]
        for place in range(len(hashes)):
            self.duck.unregister(f"ids{place}")
        return int(found)

    def _path(self, label: str) -> Path:
        return self._folder / f"{hashlib.sha256(label.encode()).hexdigest()[:16]}.hashes"


def _as_numbers(kind: pa.DataType) -> pa.DataType:
    return pa.list_(_as_numbers(kind.value_type)) if is_list(kind) else pa.int64()


def _bytes(hashes: pa.Array) -> bytes:
    return bytes(memoryview(hashes.buffers()[1])[8 * hashes.offset : 8 * (hashes.offset + len(hashes))])


def _mapped(path: Path) -> pa.Array:
    size = path.stat().st_size
    if not size:
        return pa.array([], pa.uint64())
    return pa.Array.from_buffers(pa.uint64(), size // 8, [None, pa.memory_map(str(path)).read_buffer()])


# What differs


@dataclass(frozen=True)
class OddRow:
    """A row that only one side has, or has otherwise: where it stands, and what each side says of a column."""

    where: str
    column: str
    in_file: str
    in_database: str


@dataclass(frozen=True)
class Explanation:
    """``columns`` differ; so many rows are only in the files, and so many only in the database."""

    columns: tuple[str, ...]
    only_in_files: int
    only_in_database: int
    rows: tuple[OddRow, ...]


def explain(
    files: Files, found: Found, subject: Subject, pages: Callable[[], Iterable[tuple[Subject, pa.Table]]]
) -> Explanation:
    """Return which columns of a subject differ, and the first ten rows with both values; reads the pages three times."""
    expected = files.digest(subject)
    there = found.digest(subject, pages(), columns=True)
    columns = [name for name in subject.names if there.columns.get(name) != expected.columns[name]]
    duck = found.duck
    duck.execute("CREATE OR REPLACE TEMP TABLE in_files(h UBIGINT)")
    duck.execute("CREATE OR REPLACE TEMP TABLE in_database(h UBIGINT)")
    for shape in files.shapes(subject):
        files.rows(
            f"INSERT INTO in_files SELECT {row_hash(subject, file_ids(subject))} FROM ({shape.select})",
            shape.files,
        )
    for part, page in pages():
        with found.registered(part, page) as (select, names):
            duck.execute(f"INSERT INTO in_database SELECT {row_hash(subject, names)} FROM ({select})")
    duck.execute(
        "CREATE OR REPLACE TEMP TABLE odd AS SELECT h, sum(n) AS n FROM"
        " (SELECT h, 1 AS n FROM in_files UNION ALL SELECT h, -1 FROM in_database) GROUP BY h HAVING sum(n) <> 0"
    )
    lost, more = duck.execute(
        "SELECT coalesce(sum(n) FILTER (n > 0), 0), coalesce(-sum(n) FILTER (n < 0), 0) FROM odd"
    ).fetchall()[0]
    theirs = _odd_in_database(found, subject, pages)
    mine = _odd_in_files(files, subject)
    told: list[OddRow] = []
    for where, ids, values in mine:
        other = next((one for one in theirs if one[0] == ids), None)
        if other is None:
            told.append(OddRow(where, "the row", "there", "not there"))
            continue
        theirs.remove(other)
        pairs = zip(subject.names, values, other[1], strict=True)
        told += [OddRow(where, name, a, b) for name, a, b in pairs if a != b]
    told += [
        OddRow("no file", "the row", "not there", ", ".join(one[2]))
        for one in theirs[: _MOST_TOLD - len(told)]
    ]
    return Explanation(tuple(columns), int(lost), int(more), tuple(told[:_MOST_TOLD]))


def _odd_in_files(files: Files, subject: Subject) -> list[tuple[str, tuple[int, ...], list[str]]]:
    """The first rows that only the files have: where, the hashes of their ids, and their values as text."""
    rows: list[tuple[str, tuple[int, ...], list[str]]] = []
    hashes = [f"hash(k{place})" for place in range(len(subject.keys))]
    for shape in files.shapes(subject, each=True):
        query = (
            f"SELECT row_number, {', '.join([*hashes, *_shown(subject)])} FROM ({shape.select})"
            f" WHERE {row_hash(subject, file_ids(subject))} IN (SELECT h FROM odd WHERE n > 0)"
            f" ORDER BY row_number LIMIT {_MOST_TOLD - len(rows)}"
        )
        for number, *rest in files.rows(query, shape.files):
            where = f"{shape.files[0].path} row {number + 1:,}"
            rows.append((where, tuple(rest[: len(hashes)]), rest[len(hashes) :]))
        if len(rows) >= _MOST_TOLD:
            break
    return rows


def _odd_in_database(
    found: Found, subject: Subject, pages: Callable[[], Iterable[tuple[Subject, pa.Table]]]
) -> list[tuple[tuple[int, ...], list[str], list[str]]]:
    """Rows that only the database has: the hashes of their ids, their values, and ids and values as text."""
    rows: list[tuple[tuple[int, ...], list[str], list[str]]] = []
    width = len(subject.keys)
    for part, page in pages():
        with found.registered(part, page) as (select, ids):
            hashes = ids if ids != "k0" else "hash(k0)"
            keys = [f"CAST(k{place} AS VARCHAR)" for place in range(width)]
            query = (
                f"SELECT {', '.join([hashes, *keys, *_shown(subject)])} FROM ({select})"
                f" WHERE {row_hash(subject, ids)} IN (SELECT h FROM odd WHERE n < 0) LIMIT {_MOST_HELD - len(rows)}"
            )
            rows += [
                (tuple(row[:width]), list(row[2 * width :]), list(row[width:]))
                for row in found.duck.execute(query).fetchall()
            ]
        if len(rows) >= _MOST_HELD:
            break
    return rows


def _shown(subject: Subject) -> list[str]:
    """Every column as a text that is not too long; what text alone would not tell apart is told."""
    return [
        f"CASE WHEN c{place} IS NULL THEN 'null' ELSE left(CAST(c{place} AS VARCHAR), {_SHOWN}) END"
        for place in range(len(_columns(subject)))
    ]
