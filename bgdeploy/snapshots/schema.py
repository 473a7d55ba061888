"""Schema: read every footer of a snapshot, and refuse what could only be loaded wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bgdeploy.errors import BadInput, NotReadable
from bgdeploy.snapshots.allowed import find_fault, stored
from bgdeploy.snapshots.checks import check_names, check_snapshot
from bgdeploy.snapshots.columns import find_roles
from bgdeploy.snapshots.counts import check_types as check_types
from bgdeploy.snapshots.counts import label_counts as label_counts
from bgdeploy.snapshots.counts import names_its_folder
from bgdeploy.snapshots.layout import TableFolder, read_layout
from bgdeploy.snapshots.source import Column, DataFile, Snapshot, Table

_KEPT = "Nothing of the snapshot was loaded."
Refuses = Callable[[pa.DataType, str], str | None]
_Shape = tuple[tuple[str, str], ...]  # names and stored types, in file order


@dataclass(frozen=True)
class Footer:
    """What is kept of one file: its numbers, its columns, and their types as they lie in the file."""

    file: DataFile
    columns: tuple[Column, ...]
    shape: _Shape


def open_snapshot(
    customer: str,
    timestamp: int,
    path: Path,
    columns: Mapping[str, Sequence[str]],
    fingerprint: str,
    refuses: Refuses = find_fault,
) -> Snapshot:
    """Return the snapshot in ``path`` with every table, file, row count and column known.

    ``columns`` gives for each role (id, labels, source, target, type) the names its column may
    have; a role that is missing has its usual names. ``refuses`` tells for a type and the program that
    wrote it what to use instead, or None where the target keeps it unharmed. Only footers are read, and a row where a
    column's place alone must tell what it is. Raises NotReadable, naming the file, for one that
    does not open; BadInput for what cannot become right by waiting.
    """
    tables: list[Table] = []
    first: dict[tuple[str, str], Footer] = {}
    for folder in read_layout(path):
        footers = [read_footer(path, file, folder, columns, refuses) for file in folder.files]
        model = first.setdefault((folder.kind, folder.name), _choose_model(footers))
        for footer in footers:
            _compare(folder, model, footer)
        tables.append(_table(folder, model, footers))
    snapshot = Snapshot(customer, timestamp, path, tuple(tables), fingerprint)
    check_snapshot(snapshot)
    return snapshot


def read_footer(
    path: Path, file: str, folder: TableFolder, columns: Mapping[str, Sequence[str]], refuses: Refuses
) -> Footer:
    """Read one file's footer and find the roles of its columns.

    Raises NotReadable when the file does not open, BadInput for its columns.
    """
    with _open(path / file, file) as parquet:
        schema, metadata = _schema(parquet, file), parquet.metadata
        written_by = metadata.created_by or ""
        _check_types(file, schema, written_by, refuses)
        roles = find_roles(folder.kind, file, schema, columns, _speaker(parquet, folder))
        found = tuple(
            Column(field.name, str(field.type), roles.get(number, "property"))
            for number, field in enumerate(schema)
        )
        check_names(folder.kind, file, found)
        groups = (metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
        size = (path / file).stat().st_size
        data = DataFile(file, metadata.num_rows, size, sum(groups))
        return Footer(data, found, tuple((field.name, stored(field.type, written_by)) for field in schema))


@contextmanager
def _open(path: Path, file: str) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as parquet:
            yield parquet
    except pa.ArrowNotImplementedError as error:
        raise BadInput(f"{file} uses what bgdeploy cannot read: {error}.", kept=_KEPT) from error
    except (OSError, pa.ArrowException) as error:
        raise NotReadable(
            f"{file} does not open as a Parquet file: {_first_line(error)}",
            kept=_KEPT,
            cure="Write it anew, or wait until it is copied whole.",
        ) from error


def _schema(parquet: pq.ParquetFile, file: str) -> pa.Schema:
    try:
        return parquet.schema_arrow
    except pa.ArrowException as error:
        raise BadInput(f"{file} has columns that cannot be read: {_first_line(error)}", kept=_KEPT) from error


def _first_line(error: BaseException) -> str:
    return f"{str(error).splitlines()[0].rstrip('.')}." if str(error) else "no reason given."


def _speaker(parquet: pq.ParquetFile, folder: TableFolder) -> Callable[[str], bool]:
    return lambda column: names_its_folder(parquet, column, folder.labels or (folder.name,))


def _check_types(file: str, schema: pa.Schema, written_by: str, refuses: Refuses) -> None:
    for field in schema:
        instead = refuses(field.type, written_by)
        if instead is not None:
            what = f"{file}: column {field.name!r} holds {field.type}, which would not arrive unharmed."
            raise BadInput(what, kept=_KEPT, cure=f"Use {instead}.")


def _choose_model(footers: Sequence[Footer]) -> Footer:
    # A column's place tells its role only where there are rows to look at.
    return next((footer for footer in footers if footer.file.rows), footers[0])


def _table(folder: TableFolder, model: Footer, footers: Iterable[Footer]) -> Table:
    files = tuple(footer.file for footer in footers)
    ends = folder.source_label, folder.target_label
    return Table(folder.kind, folder.name, folder.labels, *ends, files, model.columns)


def _compare(folder: TableFolder, model: Footer, other: Footer) -> None:
    roles = [column.role for column in model.columns]
    same_roles = not other.file.rows or roles == [column.role for column in other.columns]
    if model.shape == other.shape and same_roles:
        return
    table = f"{'label' if folder.kind == 'node' else 'type'} {folder.name}"
    difference = _first_difference(model.shape, other.shape)
    difference = difference or "one column holds labels or types in one of them only"
    raise BadInput(
        f"The files of {table} differ: {model.file.path} and {other.file.path}: {difference}.",
        kept=_KEPT,
        cure="Write all files of one table with the same columns in the same order.",
    )


def _first_difference(one: _Shape, two: _Shape) -> str | None:
    for number, ((name, kind), (other_name, other_kind)) in enumerate(zip(one, two, strict=False), 1):
        if name != other_name:
            return f"column {number} is {name!r} in the first and {other_name!r} in the second"
        if kind != other_kind:
            return f"column {name!r} holds {kind} in the first and {other_kind} in the second"
    if len(one) == len(two):
        return None
    longer, which = (one, "first") if len(one) > len(two) else (two, "second")
    return f"column {longer[min(len(one), len(two))][0]!r} is in the {which} only"
