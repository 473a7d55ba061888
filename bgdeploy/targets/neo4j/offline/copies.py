"""Copies: the files the tool would read wrongly, written anew in forms that it reads right.

A file becomes one copy for each set of lists that are empty together, since empty lists need
another header than the others of their column.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.families import is_text_list
from bgdeploy.snapshots.rows import open_file
from bgdeploy.snapshots.unify import is_list, simple
from bgdeploy.targets.neo4j.offline.forms import EMPTY
from bgdeploy.targets.neo4j.offline.looks import Look

_BATCH = 65_536  # rows decoded at a time
_KEPT = "What is live stays live."


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
    with open_file(path) as parquet:
        for batch in parquet.iter_batches(_BATCH, columns=[look.own.name for look in looks]):
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
        raise _refuse(look, f"a value that does not fit: {error}") from error
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


def _refuse(look: Look, what: str) -> BadInput:
    said = f"Column {look.own.name!r} holds {what}, which Neo4j cannot store."
    return BadInput(said, kept=_KEPT, cure="Write lists without nulls, and numbers up to 2^63-1.")
