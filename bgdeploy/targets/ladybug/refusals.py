"""Refusals: what the engine says when it will not copy, checked against the files, with a cure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from bgdeploy.errors import BadInput, BgdeployError, TargetError, TargetFull
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.parquet import Parquet
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.snapshots.values import find_bad_text
from bgdeploy.targets.base import Group
from bgdeploy.targets.diagnosis import Desk, diagnose
from bgdeploy.targets.ladybug.engine import QueryFailed

if TYPE_CHECKING:
    from bgdeploy.targets.ladybug.build import Build

_KEPT = "What is live stays live; the build was deleted."


class PoolTooSmall(TargetError):
    """The buffer pool is full; the next try gets twice as much, once."""

    code = "pool"


class Contradicted(TargetError):
    """The engine refused a key that the files prove right; the next try runs on one thread."""

    code = "contradicted"


def explain(error: QueryFailed, group: Group | None, work: Build) -> BgdeployError:
    """Return what a failed COPY means: bad input, no room, too little memory, or the engine's own fault.

    For an id or an end that the engine refused, all files of the table are searched.
    """
    said = error.what
    low = said.lower()
    where = _where(group)
    if "no space left" in low or "disk quota" in low or "errno 28" in low:
        return TargetFull(f"The disk is full while loading {where}: {said}", kept=_KEPT, cure="Make room.")
    if "buffer pool is full" in low or "buffer manager" in low:
        cure = "The next try copies less at once, with twice the memory; if that fails too, raise ladybug.buffer_pool_mb."
        return PoolTooSmall(f"The buffer pool is too small to load {where}: {said}", kept=_KEPT, cure=cure)
    if group is not None and "primary key" in low:
        return _explain_key(said, group, work)
    if group is not None and any(
        word in low for word in ("conversion exception", "overflow exception", "cast")
    ):
        return BadInput(f"{where} holds a value that does not fit its column: {said}", kept=_KEPT)
    if "invalid string encoding" in low and (bad := find_bad_text(work.snapshot)) is not None:
        return bad
    if (damaged := _find_damaged(group, work.snapshot)) is not None:
        return BadInput(f"{damaged} is damaged: {said}", kept=_KEPT, cure="Write it again.")
    return TargetError(f"The engine could not load {where}: {said}", kept=_KEPT)


def _find_damaged(group: Group | None, snapshot: Snapshot) -> str | None:
    """The first file that another reader cannot read either; split files were written by ourselves."""
    every = [file.path for table in snapshot.tables for file in table.files]
    files = every if group is None else [file for file in group.files if file in every]
    return next((file for file in files if not _reads(snapshot.path / file)), None)


def _reads(path: Path) -> bool:
    try:
        with Parquet(path) as parquet:
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


def _explain_key(said: str, group: Group, work: Build) -> BgdeployError:
    """Let the files tell what is wrong with the ids; where they are right, the engine is not."""
    where = _where(group)
    found = Misfit(group.kind, group.name, f"{where} was refused: {said}")
    desk = Desk(work.snapshot, work.ledger, work.folder, across=False)
    if (bad := diagnose(desk, found, _KEPT)) is not None:
        return bad
    what = f"Loading {where}, the engine said: {said} But in the files every id is right."
    return Contradicted(what, kept=_KEPT, cure="The next try runs on one thread.")
