"""Room: what one more database needs of a server, each need with its sum."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Need
from bgdeploy.targets.neo4j import databases
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.health import limit
from bgdeploy.targets.neo4j.statuses import gather

FILES = (
    "CALL dbms.queryJmx('java.lang:type=OperatingSystem') YIELD attributes "
    "RETURN attributes.OpenFileDescriptorCount.value AS open, attributes.MaxFileDescriptorCount.value AS most"
)
PLACES = (
    "SHOW SETTINGS YIELD name, value WHERE name IN "
    "['server.directories.data', 'db.tx_log.preallocate'] RETURN name, value"
)
MIB = 1 << 20
FILES_EACH = 39  # file descriptors of an empty database, as measured
LOG = 257 * MIB  # transaction log of an empty database where it is preallocated, as measured
_ROW = 120  # bytes of a node or relationship with its key and its part of the log
HERE = ("localhost", "127.0.0.1", "::1")


def find_needs(server: Server, snapshot: Snapshot, running: Sequence[str]) -> Iterator[Need]:
    """Databases, file descriptors, and the disk where the server's own is ours to look at."""
    there = {one.name for one in gather(databases.show(server))}
    coming = sum(name not in there for name in running)
    count, most = len(there), limit(server)  # ``system`` is one of them
    also = f" + {coming} being made" if coming else ""
    words = f"databases at the server: {count} exist (with system){also} + 1 to load, its limit is {most}"
    yield Need("databases at the server", count + coming + 1, most, words)
    yield from _files(server, coming)
    yield from _disk(server, snapshot)


def _files(server: Server, coming: int) -> Iterator[Need]:
    rows = server.ask(FILES, "Asking for the open files")
    if rows and rows[0]["open"] is not None and rows[0]["most"]:
        opened, most = int(rows[0]["open"]), int(rows[0]["most"])
        needed = opened + FILES_EACH * (coming + 1)
        words = f"open files at the server: {opened:,} + {FILES_EACH * (coming + 1)} = {needed:,} of {most:,}"
        yield Need("open files at the server", needed, most, words)


def _disk(server: Server, snapshot: Snapshot) -> Iterator[Need]:
    """Only where the server runs on this machine; elsewhere nothing over Bolt tells of its disk."""
    if urlsplit(server.access.uri).hostname not in HERE:
        return
    told = {row["name"]: row["value"] for row in server.ask(PLACES, "Asking where the data lies")}
    try:
        room = os.statvfs(told.get("server.directories.data") or "")
    except OSError:
        return
    log = LOG if told.get("db.tx_log.preallocate") != "false" else 0
    raw = sum(file.raw_size for table in snapshot.tables for file in table.files)
    needed, free = log + 2 * raw + _ROW * snapshot.rows, room.f_bavail * room.f_frsize
    words = (
        f"disk at the server: {needed / MIB:,.0f} MiB for {snapshot.rows:,} rows"
        f"{' with a preallocated log' if log else ''}, {free / MIB:,.0f} MiB free"
    )
    yield Need("disk at the server", needed, free, words)
