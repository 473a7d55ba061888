"""Proof: every id is there once over all labels, and every end exists, before anything is sent.

The server takes ids as unique over all labels without looking: what it does with others is undefined.
Ids that stand in order are proven while they are read, the ends of dense ones by footers alone; for
all others the ids are put on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bgdeploy.errors import BadInput
from bgdeploy.failpoints import reach
from bgdeploy.snapshots.ends import candidates
from bgdeploy.snapshots.findings import refuse
from bgdeploy.snapshots.footers import id_range, read_nulls
from bgdeploy.snapshots.ids import name_in, read_ids
from bgdeploy.snapshots.index import Ids, Index, Source, opened_index
from bgdeploy.snapshots.offenders import find_in_ends, find_in_label, repeated
from bgdeploy.snapshots.source import DataFile, Role, Snapshot, Table
from bgdeploy.targets.base import Ledger
from bgdeploy.targets.neo4j.arrow.address import KEPT, OVER_BOLT

_FOLDER = "proof"  # below a build's folder
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
    with opened_index(snapshot, [*snapshot.nodes, *doubtful], folder / _FOLDER) as index:
        if spans is None:
            _check_nodes(index)
        for table in doubtful:
            if not all(_lead_somewhere(index, table, *end) for end in _ends(table)):
                raise refuse(list(find_in_ends(index, table)), KEPT)


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
    for ids in read_ids(snapshot, table, file, "id"):
        if ids.null_count or (last is not None and not last.as_py() < ids[0].as_py()):
            return None
        if not pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py():
            return None
        first, last = first or ids[0], ids[-1]
    return None if first is None or last is None else Span(table.name, first.as_py(), last.as_py(), file.rows)


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
    files = [(file.path, name_in(table, file, role)) for file in table.files if file.rows]
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


def _lead_somewhere(index: Index, table: Table, role: Role, declared: str | None) -> bool:
    """True where every end of a table is the id of a node it may join; quicker than to look for those that are not."""
    labels = [index.label(name) for name in candidates(index.snapshot, table, role, declared)]
    ends = index.read([Source(table, file, role) for file in table.files])
    try:
        return not ends.nulls.spill.rows and all(_known(ends, labels, part) for part in ends.rows.parts())
    finally:
        ends.rows.remove()


def _known(ends: Ids, labels: Sequence[Ids], part: int) -> bool:
    windows = [rows["id"] for label in labels for rows in label.rows.windows(part)]
    ids = pa.chunked_array([chunk for one in windows for chunk in one.chunks], pa.large_string())
    return all(pc.all(pc.is_in(rows["id"], value_set=ids)).as_py() for rows in ends.rows.windows(part))


def _check_nodes(index: Index) -> None:
    names = list(dict.fromkeys(table.name for table in index.snapshot.nodes if table.rows))
    held = [index.label(name) for name in names]
    nulls = any(ids.nulls.spill.rows for ids in held)
    shared: list[str] = []
    for part in sorted({part for ids in held for part in ids.rows.parts()}):
        shared += repeated(chain.from_iterable(ids.rows.windows(part) for ids in held))[:_SHOWN].to_pylist()
    if not shared and not nulls:
        return
    findings = [one for name in names for one in find_in_label(index, name, across=False)]
    if findings:
        raise refuse(findings, KEPT)
    shown = ", ".join(repr(id_) for id_ in shared[:_SHOWN])
    what = f"Ids repeat across labels, for instance {shown}; loader: arrow knows a node by its id alone, whatever its label."
    raise BadInput(
        what, kept=KEPT, cure=f"Make ids unique over all of nodes/ (by a prefix, for instance), {OVER_BOLT}."
    )
