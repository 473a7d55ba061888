"""Needs: memory and disk that the import tool takes on the server's host, each with its sum."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil

from bgdeploy.errors import ConfigError
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Need
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.offline.place import find_place
from bgdeploy.targets.neo4j.room import MIB

BASE = 1024 * MIB  # of the tool itself, as it tells of an import of five rows
_ID = {"integer": 12, "string": 24}  # bytes a node's id takes while relationships look for it


def find_needs(server: Server, snapshot: Snapshot) -> Iterator[Need]:
    """Memory outside of Java's heap, against what the configuration allows or the host has free, and disk."""
    nodes = sum(table.rows for table in snapshot.nodes)
    # By the text of the type: the service, which asks this, imports no Arrow.
    ids = [column.type for table in snapshot.nodes if (column := table.column("id")) is not None]
    kind = "string" if any("string" in one for one in ids) else "integer"
    needed = BASE + _ID[kind] * nodes
    limit = server.access.import_memory_mb
    free = psutil.virtual_memory().available if limit is None else limit * MIB
    whose = "free" if limit is None else "allowed by neo4j.import_memory_mb"
    words = f"memory of the import tool: {needed / MIB:,.0f} MiB for {nodes:,} {kind} ids, {free / MIB:,.0f} MiB {whose}"
    yield Need("memory of the import tool", needed, free, words)
    yield from _store(server, snapshot)


def _store(server: Server, snapshot: Snapshot) -> Iterator[Need]:
    """The store, and what the tool keeps beside it while it works."""
    try:
        place = find_place(server)
    except ConfigError:
        return  # the load itself says so, with what helps
    room = os.statvfs(place.stores)
    needed, free = store_bytes(snapshot), room.f_bavail * room.f_frsize
    words = f"disk for the import: {needed / MIB:,.0f} MiB for the store of {snapshot.rows:,} rows, {free / MIB:,.0f} MiB free"
    yield Need("disk for the import", needed, free, words)


def store_bytes(snapshot: Snapshot) -> int:
    """About how many bytes the store takes with its indexes and the tool's temporary files."""
    raw = sum(file.raw_size for table in snapshot.tables for file in table.files)
    return 2 * raw + 130 * snapshot.rows + 257 * MIB
