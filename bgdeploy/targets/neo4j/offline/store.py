"""Store: the files of a database that no server knows yet, whose they are, and how they go again.

A note beside the build says that they are ours, durably, before the first of them exists. So a store
without one is somebody else's, and is never touched.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import psutil

from bgdeploy.durable import write_durably
from bgdeploy.errors import ConfigError, NameTaken, TargetError
from bgdeploy.targets.base import Rows
from bgdeploy.targets.neo4j.access import Server

# Place: where on this host the server keeps its databases, proven by the id that the server wrote there.

PLACES = (
    "SHOW SETTINGS YIELD name, value WHERE name IN ['server.directories.data', "
    "'server.directories.transaction.logs.root', 'db.format'] RETURN name, value"
)
MEMBERS = "SHOW DATABASES YIELD name, serverID, address WHERE name = 'system' RETURN serverID AS id, address"
_NOT_IMPORTED = "Nothing was imported."
_ELSEWHERE = "Run bgdeploy on the server's own host, or set neo4j.loader to bolt or arrow."


@dataclass(frozen=True)
class Place:
    """Folders of stores and of their logs, the store format, and who keeps them; ``members`` are all servers."""

    stores: Path
    logs: Path
    format: str
    server_id: str
    members: tuple[str, ...]

    def folders(self, database: str) -> tuple[Path, Path]:
        """Where one database's store and its transaction log lie."""
        return self.stores / database, self.logs / database


def find_place(server: Server) -> Place:
    """Return the server's folders on this host; raises ConfigError where they are another host's or user's."""
    told = {row["name"]: row["value"] for row in server.ask(PLACES, "Asking where the data lies")}
    return judge_place(told, list_members(server), uid=os.geteuid())


def list_members(server: Server) -> Rows:
    """Id and address of every server that has the ``system`` database."""
    return server.ask(MEMBERS, "Asking for the servers")


def judge_place(told: Mapping[str, Any], members: Rows, *, uid: int) -> Place:
    """Do the same from what the server told."""
    data = told.get("server.directories.data")
    if not data:
        raise ConfigError(
            "The server does not tell where its data lies, so nothing can be imported for it.",
            kept=_NOT_IMPORTED,
            cure="GRANT SHOW SETTING * ON DBMS TO <role>",
        )
    ids = tuple(str(row["id"]) for row in members)
    found = read_id(Path(data))
    if found not in ids:
        seen = f"holds server {found}" if found else "is no data folder of a server"
        servers = ", ".join(f"{row['address']} ({row['id']})" for row in members)
        what = f"The import tool only works on the server's own host: {data} {seen} here, and neo4j.uri leads to {servers}."
        raise ConfigError(what, kept=_NOT_IMPORTED, cure=_ELSEWHERE)
    stores = Path(data) / "databases"
    _check_owner(stores, uid)
    logs = Path(told.get("server.directories.transaction.logs.root") or Path(data) / "transactions")
    return Place(stores, logs, str(told.get("db.format") or ""), str(found), ids)


def read_id(data: Path) -> str | None:
    """The id that a server keeps in its data folder: one byte, then the 16 of the id."""
    try:
        return str(uuid.UUID(bytes=(data / "server_id").read_bytes()[1:17]))
    except (OSError, ValueError):
        return None


def _check_owner(stores: Path, uid: int) -> None:
    """What the tool writes belongs to who runs it, and the server must be able to write there too."""
    owner = stores.stat().st_uid
    if owner != uid or not os.access(stores, os.W_OK):
        what = f"{stores} belongs to user {owner} and bgdeploy runs as user {uid}: the server could not use what is imported."
        raise ConfigError(
            what, kept=_NOT_IMPORTED, cure="Run bgdeploy as the server's user, or set neo4j.loader to bolt."
        )


# Store: the files of a database that no server knows yet, whose they are, and how they go again.

FILE = "import.json"
MARK = "BGDEPLOY_IMPORT"  # in the environment of every process that writes the store
Phase = Literal["importing", "imported", "dumping", "dumped", "mounting"]
_KEPT = "What is live stays live."
_PATIENCE = 10.0  # seconds a killed process gets to disappear


@dataclass(frozen=True)
class Note:
    """What is being made, where, and by processes with which mark; ``dump`` is its copy for other members."""

    database: str
    store: str
    logs: str
    mark: str
    phase: Phase
    dump: str = ""

    @property
    def folders(self) -> tuple[Path, Path]:
        """Where the store and its log lie."""
        return Path(self.store), Path(self.logs)

    @property
    def is_whole(self) -> bool:
        """True while what a database is to be made of lies there, whole."""
        if self.dump and self.phase in ("dumped", "mounting"):
            return True  # where the dump lies is looked at before it is used: its folder may be away
        return self.phase != "importing" and all(one.is_dir() for one in self.folders)


def read_note(folder: Path) -> Note | None:
    """What an earlier run noted, or None."""
    try:
        told: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Note(**told)


def open_note(folder: Path, place: Place, database: str) -> Note:
    """Note that a store is made now; raises NameTaken where one lies there already that is not ours."""
    store, logs = place.folders(database)
    if there := next((one for one in (store, logs) if one.exists()), None):
        raise NameTaken(
            f"{there} lies there already, and bgdeploy did not make it.",
            kept="It was not touched; the load goes on under another name.",
        )
    note = Note(database, str(store), str(logs), uuid4().hex, "importing")
    return _write(folder, note)


def move_on(folder: Path, note: Note, phase: Phase, dump: str = "") -> Note:
    """Note that the store is whole, or is dumped to ``dump``, or that the server is told of it."""
    return _write(folder, replace(note, phase=phase, dump=dump or note.dump))


def _write(folder: Path, note: Note) -> Note:
    write_durably(folder / FILE, json.dumps(asdict(note)))
    return note


def discard(folder: Path) -> None:
    """Remove what a run that ended early left: its processes, then its files. Call it for databases no server knows."""
    note = read_note(folder)
    if note is None:
        return
    end_marked(note.mark)
    remove_folders(note)
    remove_dump(note)
    (folder / FILE).unlink()


def remove_folders(note: Note) -> None:
    """Remove the store and its log; raises TargetError for one that stays."""
    for one in note.folders:
        shutil.rmtree(one, ignore_errors=True)
        if one.exists():
            raise TargetError(f"{one} cannot be removed.", kept=_KEPT)


def remove_dump(note: Note) -> None:
    """Remove the dump, if there is one; raises TargetError where that cannot be told, or not be done."""
    if not note.dump:
        return
    dump = Path(note.dump)
    try:
        dump.parent.stat()
        dump.unlink(missing_ok=True)
    except OSError as error:
        what = f"The dump {dump} cannot be removed: {error.strerror or error}."
        raise TargetError(what, kept=_KEPT, cure=f"Bring the folder {dump.parent} back.") from error


def end_marked(mark: str) -> None:
    """Kill every process that carries this mark and see it gone; raises TargetError for one that stays."""
    found = [one for one in psutil.process_iter() if _carries(one, mark)]
    for one in found:
        one.kill()
    _, alive = psutil.wait_procs(found, _PATIENCE)
    if alive:
        what = f"The import tool of an earlier run (process {alive[0].pid}) does not end."
        raise TargetError(what, kept="What it writes was left as it is.")


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        return bool(process.environ().get(MARK) == mark)
    except (psutil.Error, OSError):
        return False  # gone by now, or another user's
