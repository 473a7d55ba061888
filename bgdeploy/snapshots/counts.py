"""Counts: the rows a snapshot promises per label, and proof that its types say what its folders say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.families import is_text_list
from bgdeploy.snapshots.footers import read_statistics
from bgdeploy.snapshots.parquet import Parquet
from bgdeploy.snapshots.source import BLANKS, Column, Snapshot, Table

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
