"""Plan: the disk a load needs, and how much of it one COPY takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bgdeploy.snapshots.source import Column, Snapshot, Table
from bgdeploy.snapshots.unify import simple
from bgdeploy.targets.groups import Most

MIB = 1 << 20
_BASE = 16 * MIB  # an empty database with its log
_ROW = 48  # bytes for a key's index entry, or a relationship's two adjacency entries
_TABLE = 3 * MIB  # every table starts with pages and index slots of its own


_SPILL, _SPILL_COLUMN = (
    48,
    18,
)  # bytes of a relationship that lie on disk while it is sorted, and of each property


def rows_at_once(settings: Mapping[str, Any], pool_mb: int, share: int) -> Most:
    """How many rows of a table one COPY takes: what the pool holds, as far as was tried.

    As many as it can: each further COPY of relationships to the same table takes memory for all nodes
    it joins, and as long again. ``share`` divides, after one that did not fit.
    """

    def most(table: Table) -> int:
        return max(1, min(int(settings["group_rows"]), (pool_mb << 20) // _held(table)) // share)

    return most


def _held(table: Table) -> int:
    """Bytes of the pool that a row was seen to need; of relationships with fixed widths part lies on disk.

    1 M nodes of five texts did not fit into 256 MiB, 2 M of two did into 512. 10 M relationships of two
    numbers went through 512 MiB, 4 M of four through 512 and not through 256, 1 M of a text not through 256.
    """
    if table.kind == "node":
        texts = sum(not _is_fixed(column) for column in table.columns)
        return 64 + 96 * texts + 24 * (len(table.columns) - texts)
    texts = sum(not _is_fixed(column) for column in table.properties)
    raw = sum(file.raw_size for file in table.files) // max(1, table.rows)
    return 20 + 16 * (len(table.properties) - texts) + 5 * texts * (32 + raw)


def _is_fixed(column: Column) -> bool:
    try:
        return bool(simple(column.kind).bit_width)
    except ValueError:
        return False


def disk_needed(snapshot: Snapshot) -> int:
    """A bound on the bytes a build takes at its peak, with split files; benchmarks/disk.py: 2.4 to 4.2 times it."""
    raw = sum(file.raw_size for table in snapshot.tables for file in table.files)
    spilled = sum(
        table.rows * (_SPILL + _SPILL_COLUMN * len(table.properties)) for table in snapshot.relationships
    )
    return _BASE + 2 * raw + _ROW * snapshot.rows + spilled + _TABLE * len(snapshot.tables) + snapshot.size


def disk_sum(snapshot: Snapshot, reserved: int, free: int) -> str:
    """The same in words, for people who must make room."""
    needed = disk_needed(snapshot)
    others = f" + {reserved / MIB:,.0f} MiB kept for running loads" if reserved else ""
    return (
        f"disk: {needed / MIB:,.0f} MiB for {snapshot.rows:,} rows in {len(snapshot.tables)} tables"
        f"{others} = {(needed + reserved) / MIB:,.0f} MiB, {free / MIB:,.0f} MiB free"
    )
