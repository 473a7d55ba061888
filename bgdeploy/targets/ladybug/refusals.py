"""Refusals: what the engine says when it will not copy, checked against the files, with a cure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bgdeploy.errors import BadInput, BgdeployError, TargetError, TargetFull
from bgdeploy.snapshots.source import Snapshot, Table
from bgdeploy.targets.base import Group
from bgdeploy.targets.ladybug.engine import QueryFailed

_KEPT = "What is live stays live; the build was deleted."
_LOST = re.compile(r"Unable to find primary key value (.*)\.$", re.DOTALL)
_DOUBLE = re.compile(r"duplicated primary key value (.*), which violates", re.DOTALL)


class PoolTooSmall(TargetError):
    """The buffer pool is full; the next try gets twice as much, once."""

    code = "pool"


class Contradicted(TargetError):
    """The engine refused a key that the files prove right; the next try runs on one thread."""

    code = "contradicted"


def explain(error: QueryFailed, group: Group | None, snapshot: Snapshot) -> BgdeployError:
    """Return what a failed COPY means: bad input, no room, too little memory, or the engine's own fault."""
    said = error.what
    low = said.lower()
    where = _where(group)
    if "no space left" in low or "disk quota" in low or "errno 28" in low:
        return TargetFull(f"The disk is full while loading {where}: {said}", kept=_KEPT, cure="Make room.")
    if "buffer pool is full" in low or "buffer manager" in low:
        cure = "The next try gets twice the memory; if that fails too, raise ladybug.buffer_pool_mb."
        return PoolTooSmall(f"The buffer pool is too small to load {where}: {said}", kept=_KEPT, cure=cure)
    if group is not None and "primary key" in low:
        return _explain_key(said, group, snapshot)
    if group is not None and any(
        word in low for word in ("conversion exception", "overflow exception", "cast")
    ):
        return BadInput(f"{where} holds a value that does not fit its column: {said}", kept=_KEPT)
    if (damaged := _find_damaged(group, snapshot)) is not None:
        return BadInput(f"{damaged} is damaged: {said}", kept=_KEPT, cure="Write it again.")
    return TargetError(f"The engine could not load {where}: {said}", kept=_KEPT)


def _find_damaged(group: Group | None, snapshot: Snapshot) -> str | None:
    """The first file that another reader cannot read either; split files were written by ourselves."""
    every = [file.path for table in snapshot.tables for file in table.files]
    files = every if group is None else [file for file in group.files if file in every]
    return next((file for file in files if not _reads(snapshot.path / file)), None)


def _reads(path: Path) -> bool:
    try:
        with pq.ParquetFile(path) as parquet:
            rows = sum(batch.num_rows for batch in parquet.iter_batches(65_536))
            return bool(rows == parquet.metadata.num_rows)
    except (OSError, pa.ArrowException):
        return False


def _where(group: Group | None) -> str:
    if group is None:
        return "the build"
    files = group.files[0] + (f" and {len(group.files) - 1} more" if len(group.files) > 1 else "")
    if group.kind == "node":
        return f"{group.name} ({files})"
    return f"({group.source_label})-[{group.name}]->({group.target_label}) ({files})"


def _explain_key(said: str, group: Group, snapshot: Snapshot) -> BgdeployError:
    where = _where(group)
    if "NULL" in said:
        role = "id" if group.kind == "node" else "end"
        return BadInput(f"{where} has a row whose {role} is null.", kept=_KEPT, cure="Leave such rows out.")
    if double := _DOUBLE.search(said):
        value = double[1]
        times = _count_ids(snapshot, group.name, value)
        if times == 1:
            return _contradicted(where, f"the id {value!r} occurs once in the files", said)
        counted = f"{times:,} times" if times else "more than once"
        what = f"{where}: the id {value!r} occurs {counted} in nodes/{group.name}."
        return BadInput(what, kept=_KEPT, cure="Write every node once.")
    if lost := _LOST.search(said):
        value = lost[1]
        ends = {group.source_label, group.target_label}
        if all(_count_ids(snapshot, str(label), value) for label in ends):
            return _contradicted(where, f"the id {value!r} is in the files", said)
        what = (
            f"{where} points at the id {value!r}, which no node of {' or '.join(sorted(map(str, ends)))} has."
        )
        return BadInput(what, kept=_KEPT, cure="Write that node, or leave the relationship out.")
    return BadInput(f"{where} was refused: {said}", kept=_KEPT)


def _contradicted(where: str, files_say: str, said: str) -> Contradicted:
    what = f"Loading {where}, the engine said: {said} But {files_say}."
    return Contradicted(what, kept=_KEPT, cure="The next try runs on one thread.")


def _count_ids(snapshot: Snapshot, label: str, value: str) -> int:
    """How often an id occurs in the files of a label; streamed."""
    return sum(_count(ids, value) for table in _tables(snapshot, label) for ids in _ids(snapshot, table))


def _count(ids: pa.Array, value: str) -> int:
    text = ids.cast(pa.large_string())
    return int(pc.sum(pc.equal(text, value)).as_py() or 0)


def _tables(snapshot: Snapshot, label: str) -> list[Table]:
    return [table for table in snapshot.nodes if table.name == label]


def _ids(snapshot: Snapshot, table: Table) -> Iterator[pa.Array]:
    column = table.column("id")
    assert column is not None
    for file in table.files:
        with pq.ParquetFile(snapshot.path / file.path) as parquet:
            for batch in parquet.iter_batches(65_536, columns=[column.name]):
                yield batch.column(0)
