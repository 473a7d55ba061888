"""The words for what a snapshot folder holds, shared by every stage (frozen, cheap to pass on)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow as pa

Role = Literal["id", "labels", "source", "target", "type", "property"]
Kind = Literal["node", "relationship"]
BLANKS = " \t\n\v\f\r"  # what stands around a label and is no part of it, to every reader and engine alike


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
        return sum(file.size for table in self.tables for file in table.files)

    @property
    def by_position(self) -> list[dict[str, Any]]:
        """The tables with columns that were taken by their position, as JSON: ``{"table": ..., "columns": {role: [name, ...]}}``."""
        return [{"table": one.folder, "columns": one.by_position} for one in self.tables if one.by_position]

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
