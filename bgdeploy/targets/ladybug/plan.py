"""Plan: the disk a load needs, and how much of it one COPY takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bgdeploy.snapshots.source import Column, Snapshot, Table

if TYPE_CHECKING:
    from bgdeploy.targets.groups import Most

MIB = 1 << 20
_BASE = 16 * MIB  # an empty database with its log
_ROW = 48  # bytes for a key's index entry, or a relationship's two adjacency entries
_NODE_GROUP = 131_072  # nodes that the engine keeps together
_SPILL = 48  # bytes of a relationship that lie on disk while it is sorted
_SPILL_COLUMN = 18  # and of each of its properties
_TABLE = 3 * MIB  # every table starts with pages and index slots of its own


def rows_at_once(snapshot: Snapshot, settings: Mapping[str, Any], pool_mb: int, share: int) -> Most:
    """How many rows of a table one COPY takes: as many as half the pool holds, up to ``group_rows``.

    Each further COPY of relationships to the same table takes memory for all nodes it joins, and as
    long again. ``share`` divides, after one that did not fit.
    """
    nodes: Counter[str] = Counter()
    for table in snapshot.nodes:
        nodes[table.name] += table.rows
    threads = int(settings["threads"]) or os.cpu_count() or 1

    def most(table: Table, source: str, target: str) -> int:
        if table.kind == "node":
            held: float = _of_node(table)
        else:
            fewest = max(1, min(nodes[source], nodes[target]))
            held = _of_relationship(table, min(1.0, threads * _NODE_GROUP / fewest))
        return max(1, min(int(settings["group_rows"]), int((pool_mb << 19) / held)) // share)

    return most


def _of_node(table: Table) -> int:
    """Bytes of the pool for each: 1 M nodes of five texts did not fit into 256 MiB, 2 M of two did into 512."""
    texts = sum(not _is_fixed(column) for column in table.columns)
    return 32 + 48 * texts + 12 * (len(table.columns) - texts)


def _of_relationship(table: Table, at_work: float) -> float:
    """Bytes of the pool for each; ``at_work`` is the share of nodes whose relationships are written at once.

    The engine sorts relationships by groups of 131,072 nodes, puts what does not fit on disk, and then
    each thread takes all of one group into memory, twice. Seen with 200,000 nodes: 2 M relationships of
    four numbers went through 256 MiB, 4 M did not, with 1 M nodes 6 M of two did, and with 10 M nodes 40 M
    of two through 512. Texts stay in memory: 1 M of 36 letters did not go through 256.
    """
    texts = sum(not _is_fixed(column) for column in table.properties)
    raw = sum(file.raw_size for file in table.files) // max(1, table.rows)
    return 2 * (24 + 8 * (len(table.properties) - texts)) * at_work + 4 * texts * (32 + raw)


def _is_fixed(column: Column) -> bool:
    from bgdeploy.snapshots.unify import simple  # late: who only asks for room imports no Arrow

    try:
        return bool(simple(column.kind).bit_width)
    except ValueError:
        return False


def disk_needed(snapshot: Snapshot) -> int:
    """A bound on the bytes a build takes at its peak, with split files; benchmarks/disk.py: 2.0 to 6.1 times it."""
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
