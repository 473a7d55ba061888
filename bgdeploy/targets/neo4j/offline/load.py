"""Load: the import tool writes the store, ``CREATE DATABASE`` mounts it, and it ends as the Bolt loader's would.

The store itself goes once the dump is whole: a server makes a database of a seed only where none lies.

The tool cannot resume. What can is everything after it: a store that is whole is mounted, not made again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psutil

from bgdeploy.actions import Hint, do
from bgdeploy.durable import sync
from bgdeploy.errors import BuildLocked, ConfigError, NameTaken, TargetAway, TargetError, TargetFull
from bgdeploy.failpoints import reach
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.source import Kind, Snapshot
from bgdeploy.targets.base import Group, Ledger, Need, Ticket
from bgdeploy.targets.groups import Doubt, keep_plan
from bgdeploy.targets.neo4j import databases, health, schema
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.health import MIB
from bgdeploy.targets.neo4j.names import CYPHER
from bgdeploy.targets.neo4j.offline import sources, store
from bgdeploy.targets.neo4j.offline.sources import LABELS_APART, id_type, lay_out, spaces_of
from bgdeploy.targets.neo4j.offline.store import Place, find_place
from bgdeploy.targets.neo4j.offline.tool import (
    TOLERATED,
    Failed,
    Tool,
    as_misfit,
    check_version,
    parse,
    read_report,
    run,
)
from bgdeploy.targets.neo4j.schema import complete, explain_misfit

# Needs: memory and disk that the import tool takes on the server's host, each with its sum.

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


# Seed: a dump of the store in a folder that every member of a cluster reads, where the configuration names one.

_SETTING = "dbms.databases.seed_from_uri_providers"
PROVIDERS = f"SHOW SETTINGS YIELD name, value WHERE name = '{_SETTING}' RETURN value"
_KEPT = "What is live stays live."
STORE_KEPT = "The store that was imported is kept, and what is live stays live."


def folder_of(address: str | None, kept: str = "Nothing was imported.") -> Path | None:
    """Where dumps are written, or None where members copy the store from the one that has it.

    Raises ConfigError for a folder that is not here or cannot be written to.
    """
    if address is None:
        return None
    folder = Path(unquote(urlsplit(address).path))
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(
            f"neo4j.seed_uri leads to {folder}, which is no folder that bgdeploy may write to.",
            kept=kept,
            cure="Mount it here as on every member of the cluster, or leave neo4j.seed_uri out.",
        )
    return folder


def check_seed(server: Server) -> Path | None:
    """Return the folder of dumps; raises ConfigError too where the server would not make a database of one."""
    folder = folder_of(server.access.seed_uri)
    if folder is None:
        return None
    told = server.ask(PROVIDERS, "Asking which seeds the server takes")
    if not any("FileSeedProvider" in str(row["value"]) for row in told):
        raise ConfigError(
            f"The server makes no database of a file: {_SETTING} is {told[0]['value'] if told else 'unknown'}.",
            kept="Nothing was imported.",
            cure=f"Set {_SETTING}=FileSeedProvider,CloudSeedProvider on every member and restart it, or leave neo4j.seed_uri out.",
        )
    return folder


def prepare(server: Server, database: str, needed: int) -> None:
    """Look hours ahead whether a dump can be made: raises ConfigError, NameTaken for another's, TargetFull."""
    folder = check_seed(server)
    if folder is None:
        return
    if (place := _place(folder, database)).exists():
        raise NameTaken(
            f"{place} lies there already, and bgdeploy did not make it.",
            kept="It was not touched; the load goes on under another name.",
        )
    free = shutil.disk_usage(folder).free
    if free < needed:
        what = f"Too little room for a dump in {folder}: up to {needed >> 20:,} MiB, {free >> 20:,} MiB free."
        raise TargetFull(what, kept=_KEPT, cure="Make room there.")


def _place(folder: Path, database: str) -> Path:
    return folder / f"{database}.dump"


def address_of(note: store.Note) -> str:
    """What the members read; raises TargetAway where it is not there."""
    place = Path(note.dump)
    if not place.is_file():
        raise TargetAway(
            f"The dump {place} is not there; its folder may not be mounted.",
            kept=_KEPT,
            cure=Hint("Mount it. Where it is lost for good: ", do("cancel"), ", then ", do("reload"), "."),
        )
    return place.as_uri()


def dump(
    tool: Tool, note: store.Note, folder: Path, into: Path, config: Path, tell: Callable[[str], None]
) -> store.Note:
    """Dump the store that ``note`` speaks of and remove it; an earlier run may have got anywhere on this way.

    That no other lay there was looked at before the import. Returns the note as it is then; raises
    TargetFull or TargetError.
    """
    if note.phase in ("imported", "dumping"):
        place = _place(into, note.database)
        note = store.move_on(folder, note, "dumping", dump=str(place))
        reach("load.seed.before")
        tell("dumping the store for the other members")
        _run_seed(tool, note, folder, config)
        sync(place)
        sync(place.parent)
        note = store.move_on(folder, note, "dumped")
        reach("load.seed.after")
    if note.phase == "dumped":
        store.remove_folders(note)
    return note


def _run_seed(tool: Tool, note: store.Note, folder: Path, config: Path) -> None:
    place = Path(note.dump)
    words = ["database", "dump", note.database, "--verbose", f"--additional-config={config}"]
    words += [f"--to-path={place.parent}", "--overwrite-destination=true"]
    try:
        run(tool, words, folder, note.mark, lambda phase: None)
    except (Failed, TargetError) as failed:
        with suppress(OSError):  # what stays is written over by the next try
            place.unlink(missing_ok=True)
        kind = TargetFull if isinstance(failed, TargetFull) else TargetError
        cure = failed.cure if isinstance(failed, TargetError) else ""
        raise kind(
            f"The store could not be dumped to {place}: {failed}", kept=STORE_KEPT, cure=cure
        ) from failed
    if not place.is_file():
        what = f"The tool ended well, but {place} is not there: it wrote somewhere else."
        raise TargetError(what, kept=STORE_KEPT)


# Load: the import tool writes the store, ``CREATE DATABASE`` mounts it, and it ends as the Bolt loader's would.

GROUP_ROWS = 100_000_000  # a line of the ledger stands for so many; all of them are committed at once
REPORT = "report"
SETTINGS = "tool.conf"
# Each alone, so that the server answers from its count store and reads nothing.
_COUNTS: dict[Kind, str] = {
    "node": f"{CYPHER}MATCH (n) RETURN count(*) AS rows",
    "relationship": f"{CYPHER}MATCH ()-[r]->() RETURN count(*) AS rows",
}


def load(server: Server, ticket: Ticket, snapshot: Snapshot, ledger: Ledger, folder: Path) -> None:
    """Import the snapshot and mount it; ``folder`` holds headers, the report and the note of whose the store is.

    Raises BadInput, ConfigError (no tool, another version, another host), TargetFull, TargetAway,
    BuildLocked, NameTaken or TargetError.
    """
    declared = schema.declared(ticket.settings, snapshot.path)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        groups = keep_plan(snapshot, ledger, lambda *_: GROUP_ROWS, folder)
    except Doubt as doubt:
        raise BuildLocked(f"{ticket.database} cannot be continued: {doubt}.") from doubt
    try:
        if not _is_mounted(server, ticket.database, groups, ledger, folder):
            place = find_place(server)
            _make_store(server, place, ticket, snapshot, groups, ledger, folder)
            layout = _share(server, place, ticket, ledger, folder)
            _mount(server, ticket.database, layout, ledger, folder)
        # An earlier run may have left while it was on its way.
        databases.await_online(server, ticket.database)
        _confirm(server, ticket.database, groups, ledger)
        if (note := store.read_note(folder)) is not None:
            store.remove_dump(note)
        sources.restore(server, ticket.database, folder)
    except Misfit as misfit:
        raise explain_misfit(ticket.database, snapshot, folder, ledger, misfit) from misfit
    complete(server, ticket.database, snapshot, ledger, folder, declared)


def check(server: Server) -> None:
    """Raise ConfigError where nothing can be imported from here."""
    find_place(server)
    check_version(_tool(server), health.version(server))


def _tool(server: Server) -> Tool:
    return Tool(server.access.import_tool or "neo4j-admin", server.access.import_memory_mb)


def _is_mounted(server: Server, database: str, groups: Sequence[Group], ledger: Ledger, folder: Path) -> bool:
    """Whether the server has the database, by us; raises NameTaken or BuildLocked where that is not so."""
    note, there = store.read_note(folder), databases.look(server, database).verdict != "absent"
    complete = ledger.done() == {group.number for group in groups}
    if there and not complete and (note is None or note.phase != "mounting"):
        raise _foreign(database, note)
    if not there and ledger.done():
        raise BuildLocked(f"{database} was imported and is gone: somebody dropped it.")
    return there


def _make_store(
    server: Server,
    place: Place,
    ticket: Ticket,
    snapshot: Snapshot,
    groups: Sequence[Group],
    ledger: Ledger,
    folder: Path,
) -> None:
    """Let the tool write the store, unless an earlier run got so far."""
    note = store.read_note(folder)
    if note is not None and note.is_whole:
        return
    tool = _tool(server)
    check_version(tool, health.version(server))
    store.discard(folder)
    _check_needs(server, snapshot)
    if len(place.members) > 1:
        prepare(server, ticket.database, store_bytes(snapshot))
    ledger.note("looking through the files")
    given = lay_out(snapshot, groups, folder)
    sources.keep(folder, given.empties)
    words = [*_options(tool, place, ticket.database, snapshot, folder), *given.words]
    note = store.open_note(folder, place, ticket.database)
    reach("load.import.before")
    _run(tool, words, snapshot, ledger, folder, note)
    if not all(one.is_dir() for one in note.folders):
        what = f"The import tool ended well, but {note.store} is not there: it wrote somewhere else."
        raise TargetError(what, kept=_KEPT, cure="Which NEO4J_CONF does neo4j.import_tool set?")
    store.move_on(folder, note, "imported")
    reach("load.import.after")


def _check_needs(server: Server, snapshot: Snapshot) -> None:
    """The same look as before the claim, which did not know yet which loader it would be."""
    for need in find_needs(server, snapshot):
        if not need.met:
            raise TargetFull(f"Too little for the import: {need.sum}.", kept=_KEPT)


def _options(tool: Tool, place: Place, database: str, snapshot: Snapshot, folder: Path) -> list[str]:
    """Everything but the files, which must come last: where to write, what to call an id, when to give up."""
    lines = {
        "server.directories.data": place.stores.parent,
        "server.directories.transaction.logs.root": place.logs,
        **({"db.format": place.format} if place.format else {}),
    }
    (folder / SETTINGS).write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    memory = [] if tool.memory_mb is None else [f"--max-off-heap-memory={tool.memory_mb}m"]
    return [
        "database", "import", "full", database, "--verbose", "--input-type=parquet", f"--id-type={id_type(snapshot)}",
        f"--array-delimiter={LABELS_APART}", f"--additional-config={folder / SETTINGS}",
        f"--report-file={folder / REPORT}", f"--bad-tolerance={TOLERATED}", "--skip-duplicate-nodes=true",
        "--skip-bad-relationships=true", *memory,
    ]  # fmt: skip


def _run(
    tool: Tool, words: Sequence[str], snapshot: Snapshot, ledger: Ledger, folder: Path, note: store.Note
) -> None:
    report, spaces = folder / REPORT, spaces_of(snapshot)
    report.unlink(missing_ok=True)
    try:
        run(tool, words, folder, note.mark, lambda phase: ledger.note(f"importing: {phase}"))
    except Failed as failed:
        bad = read_report(report, spaces) or [one for one in [parse(str(failed), spaces)] if one]
        store.discard(folder)
        if bad:
            raise as_misfit(bad) from failed
        what = f"The import tool gave up: {failed}"
        raise TargetError(what, kept=f"What it wrote was removed. {_KEPT}") from failed
    except TargetError:
        store.discard(folder)
        raise
    if bad := read_report(report, spaces):
        store.discard(folder)
        raise as_misfit(bad)


def _share(server: Server, place: Place, ticket: Ticket, ledger: Ledger, folder: Path) -> databases.Layout:
    """How the other members of a cluster come by the store: from this one, or from a dump that all of them read."""
    note = store.read_note(folder)
    assert note is not None
    if not note.dump and len(place.members) == 1:
        return databases.layout_of(ticket.settings)
    into = Path(note.dump).parent if note.dump else folder_of(server.access.seed_uri, STORE_KEPT)
    if into is None:
        return databases.layout_of(ticket.settings, seeder=place.server_id)
    note = dump(_tool(server), note, folder, into, folder / SETTINGS, ledger.note)
    return databases.layout_of(ticket.settings, seed=address_of(note))


def _mount(server: Server, database: str, layout: databases.Layout, ledger: Ledger, folder: Path) -> None:
    """Have the server make a database of the store; one that came up meanwhile is somebody else's."""
    note = store.read_note(folder)
    assert note is not None
    if databases.look(server, database).verdict != "absent":
        raise _foreign(database, note)
    ledger.note("mounting the store")
    store.move_on(folder, note, "mounting")
    try:
        databases.create(server, database, layout)
    except NameTaken:
        store.discard(folder)  # the name is an alias's: no server knows our files
        raise
    reach("load.created")


def _foreign(database: str, note: store.Note | None) -> NameTaken:
    """The error for a name that is another's; a dump that was to become it goes, for nobody looks for it again."""
    if note is not None:
        store.remove_dump(note)
    return NameTaken(
        f"{database} is a database that bgdeploy did not import.",
        kept="It was left as it is; the load goes on under another name.",
    )


def _confirm(server: Server, database: str, groups: Sequence[Group], ledger: Ledger) -> None:
    """Count what is there before saying that it is; all groups are committed at once."""
    for kind, counted in _COUNTS.items():
        found = server.read(database, counted, f"Counting what is in {database}")[0]["rows"]
        expected = sum(group.rows for group in groups if group.kind == kind)
        if found != expected:
            what = f"{database} holds {found:,} {kind}s after the import, and the files {expected:,}."
            raise BuildLocked(what, kept=_KEPT)
    known = ledger.done()
    for group in groups:
        if group.number not in known:
            ledger.confirmed(group.number, group.rows)
    reach("load.group.confirmed")
