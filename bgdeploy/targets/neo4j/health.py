"""Health: what the server says of itself, each figure with its threshold; unknown is never fine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from bgdeploy.errors import ConfigError, TargetAway, TargetError
from bgdeploy.finding import TRIAL
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Health, Need
from bgdeploy.targets.neo4j import aliases, databases
from bgdeploy.targets.neo4j.access import COMMUNITY, EditionLacks, RightMissing, Server
from bgdeploy.targets.neo4j.databases import gather

COMPONENTS = "CALL dbms.components() YIELD name, versions, edition"
HEAP = (
    "CALL dbms.queryJmx('java.lang:type=Memory') YIELD attributes "
    "RETURN attributes.HeapMemoryUsage.value.properties AS heap"
)
# The bean's full name differs by version and configuration, so all are asked for; ``system`` allows no WHERE here.
PAGE_CACHE = (
    "CALL dbms.queryJmx('neo4j.metrics:*') YIELD name, attributes "
    "RETURN name, attributes.Value.value AS value"
)
RUNNING = "SHOW TRANSACTIONS YIELD database WHERE database <> 'system'"
LIMIT = (
    "SHOW SETTINGS YIELD name, value WHERE name IN ['server.max_databases', 'dbms.max_databases'] "
    "RETURN toInteger(value) AS most"
)
CLOCK = "SHOW TRANSACTIONS YIELD startTime RETURN max(startTime) AS now"  # its own began last
# EXPLAIN is refused where there is no such command, and carries nothing out where there is.
NEEDED = (
    databases.CREATE,
    databases.DROP,
    databases.READ_ONLY,
    databases.READ_WRITE,
    aliases.CREATE,
    aliases.ALTER,
    aliases.DROP,
)
_PROBE = {
    "name": f"{TRIAL}probe",
    "database": f"{TRIAL}probe",
    "alias": f"{TRIAL}probe-alias",
    "generation": 0,
}
DEFAULT_LIMIT = 100  # databases a server holds unless it is told otherwise


@dataclass(frozen=True)
class Figure:
    """One number with its threshold; ``value`` None when the server does not tell."""

    what: str
    value: float | None
    most: float | None  # None: it is shown, and nothing waits for it
    unit: str = " %"
    unknown: Literal["wait", "proceed"] = "wait"

    @property
    def text(self) -> str:
        """For people: the number and its threshold."""
        shown = "unknown" if self.value is None else f"{self.value:.1f}".removesuffix(".0") + self.unit
        limit = "" if self.most is None else f" (at most {self.most:g}{self.unit})"
        return f"{self.what} {shown}{limit}"

    @property
    def verdict(self) -> Literal["ok", "wait", "unknown"]:
        """Unknown where the server does not tell and somebody wants to wait for it."""
        if self.most is None:
            return "ok"
        if self.value is None:
            return "unknown" if self.unknown == "wait" else "ok"
        return "ok" if self.value <= self.most else "wait"


def examine(server: Server, settings: Mapping[str, Any]) -> Health:
    """Ask the server how it is; an answer that does not come is a reason to wait."""
    try:
        kind = edition(server)
        if kind != "community" and (lacks := find_lacks(server)):
            return Health("wait", (tell_lacks(kind, lacks),))
        found = list(figures(server, settings))
        running = len(server.ask(RUNNING, "Counting the running transactions"))
    except (TargetError, ConfigError) as error:
        return Health("wait", (str(error),))
    few = (COMMUNITY,) if kind == "community" else ()
    shown = (*few, *(one.text for one in found), f"running transactions {running}")
    verdicts = {one.verdict for one in found}
    bad = tuple(one.text for one in found if one.verdict != "ok")
    state: Literal["ok", "wait", "unknown"] = (
        "wait" if "wait" in verdicts else "unknown" if "unknown" in verdicts else "ok"
    )
    untold = tuple(one.text for one in found if one.value is None)
    return Health(state, bad, shown, untold)


def find_lacks(server: Server) -> list[str]:
    """What the server says to commands without which nothing goes live there; it is asked, and told to do nothing.

    Some call themselves Enterprise and have only some of its commands. An answer that says something else, such as
    a right that is missing, is no proof that there is no such command.
    """
    if server.lacks is None:
        found = []
        for statement in NEEDED:
            try:
                server.ask(f"EXPLAIN {statement}", "Asking what the server can do", **_PROBE)
            except EditionLacks as refused:
                found.append(refused.said)
            except RightMissing:
                pass
            except TargetAway:
                raise
            except TargetError:
                pass
        server.lacks = found
    return server.lacks


def tell_lacks(kind: str, lacks: Sequence[str]) -> str:
    """One sentence with the server's own words."""
    more = f" (and {len(lacks) - 1} more)" if len(lacks) > 1 else ""
    return (
        f"The server says that it is {kind}, but lacks commands that a switch needs, so nothing is loaded there: "
        f"{lacks[0].rstrip('.')}{more}"
    )


def edition(server: Server) -> str:
    """``enterprise`` or ``community``, in the kernel's own words."""
    return str(_kernel(server).get("edition", "unknown"))


def version(server: Server) -> str:
    """The kernel's version, such as 5.26.26."""
    return ", ".join(_kernel(server).get("versions") or ["unknown"])


def _kernel(server: Server) -> dict[str, Any]:
    rows = server.ask(COMPONENTS, "Asking for the server's edition")
    return next((row for row in rows if "Kernel" in str(row["name"])), {})


def figures(server: Server, settings: Mapping[str, Any]) -> Iterator[Figure]:
    """Databases, heap and page cache, each with its threshold."""
    otherwise = settings.get("health_unknown")
    count = len(gather(databases.show(server)))  # the limit counts ``system`` too
    yield Figure("databases", count, limit(server), "", otherwise or "wait")
    yield Figure("heap", _heap(server), settings["heap_percent"], " %", otherwise or "wait")
    # A full page cache is a healthy one: it keeps what it has room for. So neither figure makes anything wait.
    for what, ratio in _page_cache(server):
        yield Figure(what, ratio, None)


def limit(server: Server) -> int:
    """How many databases the server may hold."""
    rows = server.ask(LIMIT, "Asking for the limit of databases")
    return min((int(row["most"]) for row in rows if row["most"]), default=DEFAULT_LIMIT)


def now(server: Server) -> float | None:
    """The server's time in seconds since 1970, or None when it does not tell."""
    rows = server.ask(CLOCK, "Asking for the time")
    told = rows[0]["now"] if rows else None
    return None if told is None else datetime.fromisoformat(str(told).partition("[")[0]).timestamp()


def _heap(server: Server) -> float | None:
    rows = server.ask(HEAP, "Asking for the heap")
    heap = rows[0]["heap"] if rows else None
    return 100 * heap["used"] / heap["max"] if heap and heap.get("max") else None


def _page_cache(server: Server) -> Iterator[tuple[str, float]]:
    """Used pages, and reads that found theirs in it, in percent, as far as the server tells."""
    rows = server.ask(PAGE_CACHE, "Asking for the page cache")
    for what, name in (("page cache used", "usage_ratio"), ("page cache hits", "hit_ratio")):
        found = (row["value"] for row in rows if f"page_cache.{name}" in row["name"])
        ratio = next((value for value in found if value is not None), None)
        if ratio is not None:
            yield what, 100 * float(ratio)


# Room: what one more database needs of a server, each need with its sum.

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
