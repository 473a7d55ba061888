"""Plan: which files are committed together, in which order, and what a load needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Group
from bgdeploy.targets.ladybug.ends import Part, find_parts

MIB = 1 << 20
_BASE = 16 * MIB  # an empty database with its log
_ROW = 48  # bytes for a key's index entry, or a relationship's two adjacency entries
_TABLE = 3 * MIB  # every table starts with pages and index slots of its own


def plan_groups(snapshot: Snapshot, group_rows: int, build: Path) -> list[Group]:
    """Return the groups of a load: nodes first, then relationships by the labels they join.

    One group holds whole files of one folder, up to ``group_rows`` rows, but at least one file.
    """
    groups: list[Group] = []
    for table in snapshot.nodes:
        files = [Part(file.path, file.rows, "", "") for file in table.files if file.rows]
        for some in _bundle(files, group_rows):
            groups.append(_group(len(groups), "node", table.name, some))
    for table in snapshot.relationships:
        parts = sorted(find_parts(snapshot, table, build), key=_pair)
        for _, same in groupby(parts, key=_pair):
            for some in _bundle(same, group_rows):
                groups.append(_group(len(groups), "relationship", table.name, some))
    return groups


def _pair(part: Part) -> tuple[str, str, bool]:
    # Split files lie elsewhere and are grouped apart.
    return part.source, part.target, part.path.startswith("split/")


def _bundle(parts: Iterable[Part], most: int) -> Iterator[list[Part]]:
    some: list[Part] = []
    for part in parts:
        if some and sum(one.rows for one in some) + part.rows > most:
            yield some
            some = []
        some.append(part)
    if some:
        yield some


def _group(number: int, kind: str, name: str, parts: list[Part]) -> Group:
    source, target = (parts[0].source or None), (parts[0].target or None)
    files = tuple(part.path for part in parts)
    return Group(number, kind, name, source, target, files, sum(part.rows for part in parts))  # type: ignore[arg-type]


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
