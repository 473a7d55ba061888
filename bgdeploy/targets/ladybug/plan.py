"""Plan: the disk a load needs, and how much of it one COPY takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.groups import Most

MIB = 1 << 20
_BASE = 16 * MIB  # an empty database with its log
_ROW = 48  # bytes for a key's index entry, or a relationship's two adjacency entries
_SPILL = 64  # bytes of a relationship that the engine puts on disk while it sorts them, beyond its pool
_TABLE = 3 * MIB  # every table starts with pages and index slots of its own


# Nodes of one COPY that fit into a MiB of the pool: 5 M did not fit into 512 MiB, 2 M did, of 40 bytes each.
_NODES = 4_000


def rows_at_once(settings: Mapping[str, Any]) -> Most:
    """How many rows one COPY takes: nodes as the pool holds them, relationships as many as may be repeated.

    A COPY of relationships sorts on disk what its pool does not hold, but each further one to the same
    table takes memory for all nodes it joins, and twice the time.
    """
    rows = int(settings["group_rows"])
    return {"node": min(rows, _NODES * int(settings["buffer_pool_mb"])), "relationship": rows}


def disk_needed(snapshot: Snapshot) -> int:
    """A bound on the bytes a build takes at its peak, with split files; benchmarks/disk.py: 2.4 to 4.2 times it."""
    raw = sum(file.raw_size for table in snapshot.tables for file in table.files)
    spilled = _SPILL * sum(file.rows for table in snapshot.relationships for file in table.files)
    return _BASE + 2 * raw + _ROW * snapshot.rows + spilled + _TABLE * len(snapshot.tables) + snapshot.size


def disk_sum(snapshot: Snapshot, reserved: int, free: int) -> str:
    """The same in words, for people who must make room."""
    needed = disk_needed(snapshot)
    others = f" + {reserved / MIB:,.0f} MiB kept for running loads" if reserved else ""
    return (
        f"disk: {needed / MIB:,.0f} MiB for {snapshot.rows:,} rows in {len(snapshot.tables)} tables"
        f"{others} = {(needed + reserved) / MIB:,.0f} MiB, {free / MIB:,.0f} MiB free"
    )
