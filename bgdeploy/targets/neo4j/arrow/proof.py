"""Proof: every id is there once over all labels, and every end exists, before anything is sent.

The server takes ids as unique over all labels without looking: what it does with others is undefined.
Ids that stand in order are proven while they are read, the ends of dense ones by footers alone; for
all others the ids are looked up by DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bgdeploy.errors import BadInput, NotReadable
from bgdeploy.failpoints import reach
from bgdeploy.snapshots.keys import Keys, Source, candidates, opened_keys, own_column
from bgdeploy.snapshots.offenders import find_in_ends, find_in_labels, refuse
from bgdeploy.snapshots.parquet import Parquet, id_range, read_nulls
from bgdeploy.snapshots.source import DataFile, Role, Snapshot, Table
from bgdeploy.targets.base import Ledger
from bgdeploy.targets.neo4j.arrow.client import KEPT, OVER_BOLT

_FOLDER = "proof"  # below a build's folder
_BATCH = 65_536  # rows decoded at a time
_SHOWN = 5  # ids named of those that several labels share


class Span(NamedTuple):
    """The ids of one file, in order: the first, the last, and how many."""

    label: str
    first: int | str
    last: int | str
    rows: int


def prove(snapshot: Snapshot, ledger: Ledger, folder: Path) -> None:
    """Raise BadInput where an id is null or not unique, or an end null or not there; NoRoom without disk for it."""
    ledger.note("proving that ids are unique over all labels, and that every end exists")
    spans = find_spans(snapshot)
    doubtful = [
        table for table in snapshot.relationships if spans is None or not _all_there(snapshot, table, spans)
    ]
    reach("load.proof")
    if spans is not None and not any(table.rows for table in doubtful):
        return
    with opened_keys(snapshot, folder / _FOLDER) as keys:
        if spans is None:
            _check_nodes(keys)
        if findings := list(find_in_ends(keys, doubtful)):
            raise refuse(findings, KEPT)


def find_spans(snapshot: Snapshot) -> list[Span] | None:
    """Return the span of every node file where they prove that no id is there twice; None where they do not."""
    spans: list[Span] = []
    for table in snapshot.nodes:
        for file in table.files:
            if file.rows:
                span = _span_of(snapshot, table, file)
                if span is None:
                    return None
                spans.append(span)
    spans.sort(key=lambda span: span.first)
    apart = all(one.last < other.first for one, other in pairwise(spans))  # type: ignore[operator]
    return spans if apart else None


def _span_of(snapshot: Snapshot, table: Table, file: DataFile) -> Span | None:
    """None where an id is null, or not larger than the one before."""
    first: pa.Scalar | None = None
    last: pa.Scalar | None = None
    for ids in _read_ids(snapshot, table, file):
        if ids.null_count or (last is not None and not last.as_py() < ids[0].as_py()):
            return None
        if not pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py():
            return None
        first, last = first or ids[0], ids[-1]
    return None if first is None or last is None else Span(table.name, first.as_py(), last.as_py(), file.rows)


def _read_ids(snapshot: Snapshot, table: Table, file: DataFile) -> Iterator[pa.Array]:
    """Yield a file's ids in order, in one plain type of their kind."""
    name = own_column(table, file, "id").name
    try:
        with Parquet(snapshot.path / file.path, file.path) as parquet:
            for batch in parquet.iter_batches(_BATCH, columns=[name], use_threads=False):
                ids = batch.column(batch.schema.names.index(name))
                ids = ids.dictionary_decode() if pa.types.is_dictionary(ids.type) else ids
                whole = pa.uint64() if ids.type == pa.uint64() else pa.int64()
                yield ids.cast(whole if pa.types.is_integer(ids.type) else pa.large_string())
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's own: the file is gone, or the disk fails
        raise NotReadable(f"{file.path} is damaged: {error}", cure="Write it again.") from error


def _all_there(snapshot: Snapshot, table: Table, spans: Sequence[Span]) -> bool:
    """True where footers prove that every end of a table lies among ids without a gap."""
    return all(_within(snapshot, table, role, declared, spans) for role, declared in _ends(table))


def _ends(table: Table) -> tuple[tuple[Role, str | None], ...]:
    return ("source", table.source_label), ("target", table.target_label)


def _within(
    snapshot: Snapshot, table: Table, role: Role, declared: str | None, spans: Sequence[Span]
) -> bool:
    names = candidates(snapshot, table, role, declared)
    dense = list(_join(span for span in spans if span.label in names))
    files = [(file.path, own_column(table, file, role).name) for file in table.files if file.rows]
    for path, name in files:
        bounds = id_range(snapshot.path, [(path, name)])
        with pq.ParquetFile(snapshot.path / path) as parquet:
            if bounds is None or not isinstance(bounds[0], int) or read_nulls(parquet, name) != 0:
                return False
        if not any(first <= bounds[0] and bounds[1] <= last for first, last in dense):
            return False
    return True


def _join(spans: Iterator[Span]) -> Iterator[tuple[int, int]]:
    """The ranges of whole numbers in which every number is an id."""
    held: tuple[int, int] | None = None
    for span in spans:
        if not isinstance(span.first, int) or not isinstance(span.last, int):
            continue
        if span.last - span.first + 1 != span.rows:
            continue
        if held is not None and span.first == held[1] + 1:
            held = held[0], span.last
            continue
        if held is not None:
            yield held
        held = span.first, span.last
    if held is not None:
        yield held


def _check_nodes(keys: Keys) -> None:
    every = [Source(table, file, "id") for table in keys.snapshot.nodes for file in table.files]
    shared: list[tuple[str | None]] = []
    for part in keys.parts:
        ids = keys.read(every, part)
        doubled = f"SELECT id FROM ({ids}) GROUP BY id HAVING count(*) > 1 OR id IS NULL"
        shared += keys.run(f"SELECT id::VARCHAR FROM ({doubled}) ORDER BY id LIMIT {_SHOWN}")
    if not shared:
        return
    if findings := list(find_in_labels(keys, across=False)):
        raise refuse(findings, KEPT)
    shown = ", ".join(repr(id_) for (id_,) in shared[:_SHOWN])
    what = f"Ids repeat across labels, for instance {shown}; loader: arrow knows a node by its id alone, whatever its label."
    raise BadInput(
        what, kept=KEPT, cure=f"Make ids unique over all of nodes/ (by a prefix, for instance), {OVER_BOLT}."
    )
