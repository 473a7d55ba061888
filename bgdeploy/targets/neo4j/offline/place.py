"""Place: where on this host the server keeps its databases, proven by the id that the server wrote there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgdeploy.errors import ConfigError
from bgdeploy.targets.base import Rows
from bgdeploy.targets.neo4j.access import Server

PLACES = (
    "SHOW SETTINGS YIELD name, value WHERE name IN ['server.directories.data', "
    "'server.directories.transaction.logs.root', 'db.format'] RETURN name, value"
)
MEMBERS = "SHOW DATABASES YIELD name, serverID, address WHERE name = 'system' RETURN serverID AS id, address"
_KEPT = "Nothing was imported."
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
            kept=_KEPT,
            cure="GRANT SHOW SETTING * ON DBMS TO <role>",
        )
    ids = tuple(str(row["id"]) for row in members)
    found = read_id(Path(data))
    if found not in ids:
        seen = f"holds server {found}" if found else "is no data folder of a server"
        servers = ", ".join(f"{row['address']} ({row['id']})" for row in members)
        what = f"The import tool only works on the server's own host: {data} {seen} here, and neo4j.uri leads to {servers}."
        raise ConfigError(what, kept=_KEPT, cure=_ELSEWHERE)
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
            what, kept=_KEPT, cure="Run bgdeploy as the server's user, or set neo4j.loader to bolt."
        )
