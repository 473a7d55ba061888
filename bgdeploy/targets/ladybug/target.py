"""The embedded target behind the protocol that every target keeps."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgdeploy.durable import sync, write_durably
from bgdeploy.errors import TargetError, other_place
from bgdeploy.failpoints import reach
from bgdeploy.finding import Check
from bgdeploy.snapshots.source import Column, Snapshot, Table
from bgdeploy.targets.base import DatabaseInfo, Health, Inspector, Ledger, Need, Owned, Rows, Status, Ticket
from bgdeploy.targets.ladybug import disk
from bgdeploy.targets.ladybug.disk import FACTS, GRAPH, NEED, Paths, allocated, tell_unfit
from bgdeploy.targets.ladybug.engine import version
from bgdeploy.targets.ladybug.reader import open_reader

if TYPE_CHECKING:
    import pyarrow as pa

    from bgdeploy.targets.groups import Most


# Plan: the disk a load needs, and how much of it one COPY takes.

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
    from bgdeploy.snapshots.schema import simple  # late: who only asks for room imports no Arrow

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


# The embedded target behind the protocol that every target keeps.


class Ladybug:
    """Databases as files below ``state_dir``; nothing but a folder is needed."""

    kind = "ladybug"
    keys_cross_folders = False

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._paths = Paths(Path(settings["state_dir"]))

    def identity(self) -> str:
        """The state folder."""
        return str(self._paths.root)

    def expect(self, place: str) -> None:
        """Compare it with the state folder."""
        if place != self.identity():
            raise other_place(place, self.identity())

    def health(self) -> Health:
        """Well when the state folder can be written to."""
        try:
            self._paths.create()
        except OSError as error:
            return Health("wait", (f"{self._paths.root} cannot be used: {error.strerror}",))
        if not os.access(self._paths.builds, os.W_OK | os.X_OK):
            return Health("wait", (f"{self._paths.builds} is not writable",))
        return Health("ok")

    def held(self, kind: pa.DataType) -> str | None:
        """The engine's type."""
        from bgdeploy.targets.ladybug import reading  # late, as below

        return reading.engine_type(kind)

    def refuses(self, kind: pa.DataType, written_by: str) -> str | None:
        """What the engine cannot hold."""
        from bgdeploy.targets.ladybug import reading  # late: moving an alias must not wait for Parquet

        return reading.refuses(kind, written_by)

    def plan(self, snapshot: Snapshot, running: Sequence[str]) -> tuple[Need, ...]:
        """Disk: a bound on what the build takes, beside what running loads have yet to write."""
        reserved = sum(self._yet_to_write(database) for database in running)

        builds = self._paths.builds
        room = os.statvfs(builds if builds.is_dir() else self._paths.root)
        free = room.f_bavail * room.f_frsize
        needed = disk_needed(snapshot) + reserved
        return (Need("disk", needed, free, disk_sum(snapshot, reserved, free)),)

    def _yet_to_write(self, database: str) -> int:
        folder = self._paths.builds / database
        try:
            needed = int(json.loads((folder / NEED).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            return 0
        return max(0, needed - (allocated(folder / GRAPH) or 0))

    def load(self, ticket: Ticket, snapshot: Snapshot, ledger: Ledger) -> None:
        """Build the database under its lock and close it; an earlier run's work is continued."""
        from bgdeploy.targets.ladybug import build

        if (self._paths.databases / ticket.database / GRAPH).exists():
            return
        with self._paths.hold(ticket.database):
            folder = self._paths.builds / ticket.database
            build.build(build.Build(folder, snapshot, ledger, ticket.settings))

    @contextmanager
    def inspect(self, database: str) -> Iterator[Inspector]:
        """Open it read-only; a build only under its lock."""
        folder = self._paths.find(database)
        if folder is None:
            raise TargetError(f"There is no database {database}.", kept="Nothing was changed.")
        with self._held_if_build(folder), self._inspected(folder) as inspection:
            yield inspection

    def _inspected(self, folder: Path) -> AbstractContextManager[Inspector]:
        from bgdeploy.targets.ladybug.inspection import inspected  # late, as above

        pool, threads = int(self._settings["buffer_pool_mb"]), int(self._settings["threads"])
        return inspected(folder / GRAPH, pool_mb=pool, threads=threads)

    @contextmanager
    def _held_if_build(self, folder: Path) -> Iterator[None]:
        if folder.parent == self._paths.builds:
            with self._paths.hold(folder.name):
                yield
        else:
            yield

    def publish(self, ticket: Ticket, facts: Mapping[str, Any]) -> None:
        """Give a verified build its public place, read-only from then on."""
        place, draft = self._paths.databases / ticket.database, self._paths.builds / ticket.database
        with self._paths.hold(ticket.database):
            if not place.exists():
                _strip(draft)
                size = {"bytes": (draft / GRAPH).stat().st_size}
                write_durably(
                    draft / FACTS, json.dumps({**version(), **facts, **size}, indent=1, default=str)
                )
                sync(draft / GRAPH)
                sync(draft)
                reach("publish.before")
                os.rename(draft, place)
            # Not before: a run that was cut off must be able to open its build for writing again.
            (place / GRAPH).chmod(0o444)
            sync(place / GRAPH)
            place.chmod(0o555)
            sync(self._paths.databases)
            sync(self._paths.builds)
            reach("publish.renamed")
            self._paths.forget_lock(ticket.database)

    def alias(self, name: str) -> str | None:
        """The database this alias points at."""
        return disk.read_link(self._paths, name)

    def aliases(self) -> dict[str, str]:
        """What every link leads to."""
        return disk.read_links(self._paths)

    def generation(self, name: str) -> int | None:
        """What the file beside the link remembers."""
        return disk.read_generation(self._paths, name) or None

    def switch(self, name: str, database: str, generation: int) -> None:
        """Move the link in one step."""
        disk.move_link(self._paths, name, database, generation)

    def catch_up(self, owned: Owned) -> None:
        """Nothing is ever left."""

    def outdated(self, database: str) -> str | None:
        """Damaged or written to since it was published, or in another engine's storage format."""
        return tell_unfit(self._paths.databases / database)

    def remove_alias(self, name: str, generation: int) -> None:
        """Remove the link."""
        disk.remove_link(self._paths, name, generation)

    def databases(self) -> list[DatabaseInfo]:
        """Everything below the state folder that is a database, a build, or on its way out."""
        homes: tuple[tuple[Path, Status], ...] = (
            (self._paths.databases, "online"),
            (self._paths.builds, "building"),
            (self._paths.trash, "dropping"),
        )
        return [info for home, status in homes for info in _list(home, status)]

    def drain(self, database: str) -> Health:
        """Readers keep an open file even after it is removed, so nobody is waited for."""
        return Health("ok")

    def drop(self, database: str, fence: int, mark: str | None = None) -> None:
        """Put it out of sight in one step, then remove it; leftovers of an earlier try go too. No folder has a mark."""
        with _dropping(database, self._paths), self._paths.hold(database):
            for home in (self._paths.databases, self._paths.builds):
                folder = home / database
                if folder.is_dir():
                    place = self._paths.trash / f"{database}.{fence}"
                    if place.exists():
                        _remove(place)
                    disk.put_away(self._paths, folder, place)
            reach("drop.moved")
            for left in self._paths.trash.iterdir():
                if left.name.rpartition(".")[0] == database:
                    _remove(left)
            self._paths.forget_lock(database)

    def query(self, alias: str, cypher: str, params: Mapping[str, Any] | None = None) -> Rows:
        """Rows of a read-only query."""
        with open_reader(self._settings, alias) as reader:
            return reader.query(cypher, params)

    def checks(self, owned: Owned, *, try_rights: bool = False) -> Sequence[Check]:
        """Engine, files and folders; there are no rights to try."""
        from bgdeploy.targets.ladybug import checks

        return checks.checks(self._paths, owned)


def open_target(settings: Mapping[str, Any]) -> Ladybug:
    """Open the embedded target; nothing is created yet."""
    return Ladybug(settings)


def _strip(draft: Path) -> None:
    """Leave only the database in a build's folder."""
    for path in draft.iterdir():
        if path.name not in (GRAPH, FACTS):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def _dropping(database: str, paths: Paths) -> Iterator[None]:
    """Whatever the system refuses is this database's trouble, and keeps no other from being dropped."""
    try:
        yield
    except OSError as error:
        raise TargetError(
            f"{database} cannot be removed: {error.filename or paths.trash}: {error.strerror or error}.",
            kept="It is tried again.",
            cure=f"Check owner and rights of {paths.databases}, {paths.builds} and {paths.trash}, and their disk.",
        ) from error


def _remove(folder: Path) -> None:
    folder.chmod(0o755)
    shutil.rmtree(folder)


def _list(home: Path, status: Status) -> Iterator[DatabaseInfo]:
    # Paths as text: a command that lists 1,000 customers must not make 10,000 path objects for it.
    if not home.is_dir():
        return
    with os.scandir(home) as items:
        folders = sorted((item.name, item.path) for item in items if item.is_dir())
    for name, folder in folders:
        shown = name.rpartition(".")[0] if status == "dropping" else name
        yield DatabaseInfo(shown, status, allocated(f"{folder}/{GRAPH}"))
