"""Plan: the disk a load needs."""

from __future__ import annotations

from bgdeploy.snapshots.source import Snapshot

MIB = 1 << 20
_BASE = 16 * MIB  # an empty database with its log
_ROW = 48  # bytes for a key's index entry, or a relationship's two adjacency entries
_TABLE = 3 * MIB  # every table starts with pages and index slots of its own


def disk_needed(snapshot: Snapshot) -> int:
    """A bound on the bytes a build takes at its peak, with split files; benchmarks/disk.py: 2.4 to 4.2 times it."""
    raw = sum(file.raw_size for table in snapshot.tables for file in table.files)
    return _BASE + 2 * raw + _ROW * snapshot.rows + _TABLE * len(snapshot.tables) + snapshot.size


def disk_sum(snapshot: Snapshot, reserved: int, free: int) -> str:
    """The same in words, for people who must make room."""
    needed = disk_needed(snapshot)
    others = f" + {reserved / MIB:,.0f} MiB kept for running loads" if reserved else ""
    return (
        f"disk: {needed / MIB:,.0f} MiB for {snapshot.rows:,} rows in {len(snapshot.tables)} tables"
        f"{others} = {(needed + reserved) / MIB:,.0f} MiB, {free / MIB:,.0f} MiB free"
    )
