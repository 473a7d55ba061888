"""The words for what a snapshot folder holds, shared by every stage (frozen, cheap to pass on), and how they are packed.

``pack`` makes text of a snapshot's description, for the job table and the tickets of loading processes. It works on whatever
fields the classes here have: a field that is added travels along. What stands several times, as the columns of two thousand
like files, is written once and is one object again. The service imports this module, so it imports no Arrow until a type is packed.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bgdeploy.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

Role = Literal["id", "labels", "source", "target", "type", "property"]
Kind = Literal["node", "relationship"]
ENDS: tuple[Role, Role] = ("source", "target")
KEYS: Mapping[Kind, tuple[Role, ...]] = {
    "node": ("id",),
    "relationship": ENDS,
}  # roles whose columns hold ids
BLANKS = " \t\n\v\f\r"  # what stands around a label and is no part of it, to every reader and engine alike
NOT_LOADED = "Nothing of the snapshot was loaded."
LIVE = "What is live stays live."


def refused(what: str, cure: str = "") -> BadInput:
    """The error for a snapshot that is refused before anything of it is loaded."""
    return BadInput(what, kept=NOT_LOADED, cure=cure)


@dataclass(frozen=True)
class Stored:
    """How a column's values lie in its Parquet file, as the footer says; of a list, what is in it."""

    physical: str  # INT64, BYTE_ARRAY, ...
    logical: str  # STRING, TIMESTAMP, ..., or NONE
    encodings: str  # of all row groups, sorted, with commas between them; empty without rows
    codecs: str  # likewise


@dataclass(frozen=True)
class Column:
    """One column: its name, its Arrow type, and what it is for.

    ``stored`` is known of a file's own columns, and None where a column has several parts; a table's never has one.
    ``constant``: the value of every row, for a file's own column that no Parquet column holds but the
    name of a folder it lies in (``country=DE``). A table's column never has one. Where a folder's value is
    null, the file lacks the column.
    """

    name: str
    kind: pa.DataType
    role: Role
    constant: str | int | date | None = None
    stored: Stored | None = None

    @property
    def type(self) -> str:
        """The type as text."""
        return str(self.kind)

    @property
    def key(self) -> tuple[str, str]:
        """What it shares with the same column of another file: the role, and for properties the name."""
        return self.role, self.name if self.role == "property" else ""


@dataclass(frozen=True)
class DataFile:
    """One Parquet file: path relative to the snapshot, rows and bytes from its footer, its own columns."""

    path: str
    rows: int
    size: int  # bytes on disk
    raw_size: int  # uncompressed bytes of all its columns, from the footer
    columns: tuple[Column, ...] = ()  # in file order
    written_by: str = ""  # the program that the footer names
    largest_group: int = 0  # uncompressed bytes of its largest row group, which a reader holds at once
    by_position: tuple[Role, ...] = ()  # roles whose columns were found by their place and not by name

    def find(self, column: Column) -> Column | None:
        """Its own column for one of its table's, or None where it lacks it or it is null throughout."""
        return self._by_key.get(column.key)

    @cached_property
    def _by_key(self) -> Mapping[tuple[str, str], Column]:
        """Made once: asking for each of many columns in turn would take the square of their number."""
        return {column.key: column for column in reversed(self.columns)}


@dataclass(frozen=True)
class Table:
    """One label or type with the files that share its folder.

    ``labels`` are the folder's labels (``Person:Employee`` gives two; the first names the table);
    empty for relationships. ``source_label`` and ``target_label`` are what ``from=``/``to=``
    declare, or None. ``columns`` are those of all files together, each with a type that holds what
    every file has in it; a file may have them in another order, narrower, or not at all.
    """

    kind: Kind
    name: str
    labels: tuple[str, ...]
    source_label: str | None
    target_label: str | None
    files: tuple[DataFile, ...]
    columns: tuple[Column, ...]

    @property
    def rows(self) -> int:
        """Rows in all files, from the footers."""
        return sum(file.rows for file in self.files)

    def column(self, role: Role) -> Column | None:
        """The column with this role, or None where the folder's name stands for it."""
        return next((column for column in self.columns if column.role == role), None)

    @property
    def by_position(self) -> dict[Role, list[str]]:
        """The columns that were taken by their position in any file, by role."""
        found: dict[Role, list[str]] = {}
        for file in self.files:
            for role in file.by_position:
                names = found.setdefault(role, [])
                names += [one.name for one in file.columns if one.role == role and one.name not in names]
        return found

    @property
    def folder(self) -> str:
        """``nodes/<Label>`` or ``relationships/<TYPE>``, for people."""
        return f"nodes/{':'.join(self.labels)}" if self.kind == "node" else f"relationships/{self.name}"

    def key(self, role: Role) -> Column:
        """The column with this role, in a table that was admitted with one."""
        column = self.column(role)
        assert column is not None, f"{self.name} was admitted without a column for the {role}"
        return column

    def own(self, role: Role) -> Iterator[tuple[DataFile, Column]]:
        """The files that have a column of this role, each with its own."""
        if (column := self.column(role)) is not None:
            for file in self.files:
                if (own := file.find(column)) is not None:
                    yield file, own

    def declared(self, role: Role) -> str | None:
        """The label that the folders declare for an end, or None."""
        return self.source_label if role == "source" else self.target_label

    def file(self, path: str) -> DataFile | None:
        """The file with this path, or None for one that was made for the load."""
        return self._by_path.get(path)

    @cached_property
    def _by_path(self) -> Mapping[str, DataFile]:
        return {file.path: file for file in self.files}

    @property
    def properties(self) -> tuple[Column, ...]:
        """The columns that become properties, in the order they were found, the id not among them."""
        return tuple(column for column in self.columns if column.role == "property")


@dataclass(frozen=True)
class Snapshot:
    """A folder whose layout is valid and whose footers were all read."""

    customer: str
    timestamp: int
    path: Path
    tables: tuple[Table, ...]
    fingerprint: str

    @property
    def rows(self) -> int:
        """Rows expected in all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def size(self) -> int:
        """Bytes on disk of all data files."""
        return sum(file.size for file in self.files)

    @property
    def by_position(self) -> list[dict[str, Any]]:
        """The tables with columns that were taken by their position, as JSON: ``{"table": ..., "columns": {role: [name, ...]}}``."""
        return [{"table": one.folder, "columns": one.by_position} for one in self.tables if one.by_position]

    @property
    def files(self) -> list[DataFile]:
        """All data files, table by table."""
        return [file for table in self.tables for file in table.files]

    @property
    def nodes(self) -> tuple[Table, ...]:
        """Node tables."""
        return tuple(table for table in self.tables if table.kind == "node")

    @property
    def relationships(self) -> tuple[Table, ...]:
        """Relationship tables."""
        return tuple(table for table in self.tables if table.kind == "relationship")


def tell_positions(found: Sequence[Mapping[str, Any]]) -> str:
    """The columns that were taken by their position, as ``Snapshot.by_position`` has them, in words."""
    tables = []
    for one in found:
        said = (f"{role} is {' or '.join(map(repr, names))}" for role, names in one["columns"].items())
        tables.append(f"{one['table']}: {', '.join(said)}")
    return "; ".join(tables)


# Packing

_PLAIN = (str, int, float, bool, type(None))


def pack(snapshot: Snapshot) -> str:
    """Return a snapshot as text of letters and digits only."""
    packer = _Packer()
    root = packer.put(snapshot)
    packed = json.dumps([packer.entries, root], separators=(",", ":"))
    return base64.b64encode(zlib.compress(packed.encode("utf-8"), 1)).decode("ascii")


def unpack(packed: str, *, types: bool) -> Snapshot:
    """Return the snapshot of a text that this very version has packed.

    With ``types`` each column's ``kind`` is the Arrow type it was; without, for a process that imports no
    Arrow, it is the type's text.
    """
    entries, root = json.loads(zlib.decompress(base64.b64decode(packed)))
    made: list[Any] = []
    for tag, *parts in entries:
        found = (made[part[0]] if isinstance(part, list) else part for part in parts)
        match tag:
            case "tuple":
                made.append(tuple(found))
            case "path":
                made.append(Path(parts[0]))
            case "date":
                made.append(date.fromisoformat(parts[0]))
            case "type" if types:
                import pyarrow as pa

                made.append(pa.ipc.read_schema(pa.py_buffer(base64.b64decode(parts[1]))).field(0).type)
            case "type":
                made.append(parts[0])
            case _:
                made.append(_classes()[tag](*found))
    snapshot = made[root[0]]
    assert isinstance(snapshot, Snapshot)
    return snapshot


def mark(fingerprint: str, columns: Mapping[str, Any], target: str) -> str:
    """Tells for which files, as they looked once, and by which rules a description was made, and in which form."""
    return sha256(json.dumps([_form(), fingerprint, columns, target], sort_keys=True).encode()).hexdigest()


def recall(inspection: Mapping[str, Any] | None, wanted: str, *, types: bool) -> Snapshot | None:
    """Return the snapshot that a job's ``inspection`` describes; None where it was made for another ``mark``."""
    if inspection is None or inspection.get("mark") != wanted:
        return None
    return unpack(inspection["packed"], types=types)


@cache
def _form() -> str:
    """What the classes hold, and which Arrow wrote their types."""
    from importlib.metadata import version

    held = [_names(), version("pyarrow"), version("bgdeploy")]
    return sha256(json.dumps(held).encode()).hexdigest()[:16]


@cache
def _names() -> dict[str, list[str]]:
    return {name: [field.name for field in fields(kind)] for name, kind in _classes().items()}


@cache
def _classes() -> dict[str, Any]:
    return {name: kind for name, kind in globals().items() if isinstance(kind, type) and is_dataclass(kind)}


class _Packer:
    """Every composite value is an entry, written once, whose parts stand before it: [its number] refers to it."""

    def __init__(self) -> None:
        self.entries: list[list[Any]] = []
        self._known: dict[Any, list[int]] = {}
        self._seen: dict[int, list[int]] = {}
        self._types: dict[Any, list[int]] = {}

    def put(self, value: Any) -> Any:
        if isinstance(value, _PLAIN):
            return value
        number = self._seen.get(id(value))
        if number is None:
            number = self._add(value)
            if isinstance(value, tuple):  # those that are shared are many; all others are cheap to look up
                self._seen[id(value)] = number
        return number

    def _add(self, value: Any) -> list[int]:
        if is_dataclass(value):
            kind = type(value).__name__
            return self._enter(kind, *(self.put(getattr(value, name)) for name in _names()[kind]))
        if isinstance(value, tuple):
            return self._enter("tuple", *map(self.put, value))
        if isinstance(value, Path):
            return self._enter("path", str(value))
        if isinstance(value, date):
            return self._enter("date", value.isoformat())
        if value not in self._types:
            import pyarrow as pa

            # An Arrow type, as Arrow itself writes it: its text does not tell everything.
            schema = base64.b64encode(pa.schema([pa.field("", value)]).serialize().to_pybytes())
            self._types[value] = self._enter("type", str(value), schema.decode("ascii"))
        return self._types[value]

    def _enter(self, tag: str, *parts: Any) -> list[int]:
        key = (tag, *(part[0] if isinstance(part, list) else (type(part), part) for part in parts))
        number = self._known.get(key)
        if number is None:
            number = self._known[key] = [len(self.entries)]
            self.entries.append([tag, *parts])
        return number
