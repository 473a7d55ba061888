"""Databases: create, look at, protect and drop one; every command is followed by a look at its effect."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bgdeploy.actions import Hint, do
from bgdeploy.clock import monotonic
from bgdeploy.errors import (
    BuildLocked,
    ConfigError,
    NameTaken,
    NeedsReload,
    NotOurs,
    Refused,
    TargetAway,
    TargetError,
)
from bgdeploy.failpoints import reach
from bgdeploy.targets.base import DatabaseInfo, Rows, Status
from bgdeploy.targets.neo4j.access import NoSuchName, Server
from bgdeploy.targets.neo4j.names import CYPHER

# Statuses: what the rows of SHOW DATABASES say about one database; pure functions.

Verdict = Literal["absent", "online", "coming", "stuck", "going"]

# What each status means for somebody who wants to use the database. One that is not listed, such as
# one of a newer server, means "coming": wait, and never drop.
_MEANING: dict[str, Verdict] = {
    "online": "online",
    "offline": "stuck",
    "dirty": "stuck",
    "quarantined": "stuck",
    "deallocating": "going",
}
_NOT_OURS = ("system", "composite")


@dataclass(frozen=True)
class Found:
    """One database with the row of every server that has it."""

    name: str
    rows: tuple[dict[str, Any], ...]

    @property
    def verdict(self) -> Verdict:
        """Whether it can be used: the worst that any server says of it."""
        if not self.rows:
            return "absent"
        said = {_read(row) for row in self.rows}
        if said == {"going"}:
            return "going"
        worst: tuple[Verdict, ...] = ("stuck", "coming")  # one that gives its copy up is in nobody's way
        return next((one for one in worst if one in said), "online")

    @property
    def serving(self) -> bool:
        """Whether any server has it online, and readers with it."""
        return any(_read(row) == "online" for row in self.rows)

    @property
    def leaving(self) -> bool:
        """Whether any server is about to give it up."""
        return any(_read(row) == "going" for row in self.rows)

    @property
    def text(self) -> str:
        """Status of each server with its message, for people."""
        said = []
        for row in self.rows:
            message = f" ({row['statusMessage']})" if row.get("statusMessage") else ""
            said.append(f"{row['currentStatus']} on {row.get('address') or 'the server'}{message}")
        return ", ".join(said) or "not there"

    @property
    def access(self) -> str:
        """``read-only`` or ``read-write``, as the first server tells it."""
        return str(self.rows[0]["access"]) if self.rows else ""

    @property
    def created(self) -> str:
        """When it was made, which tells it from another of its name; empty where it is not there."""
        return str(self.rows[0].get("creationTime") or "") if self.rows else ""


def _read(row: dict[str, Any]) -> Verdict:
    status = str(row["currentStatus"])
    if status == "offline" and row.get("requestedStatus") == "online" and not row.get("statusMessage"):
        return "coming"  # it was made and has not been started yet
    return _MEANING.get(status, "coming")


def gather(rows: Iterable[dict[str, Any]]) -> list[Found]:
    """Put the rows of one database together, whatever order the servers answered in; by name."""
    named: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        named.setdefault(str(row["name"]), []).append(row)
    return [Found(name, tuple(named[name])) for name in sorted(named)]


def find(rows: Rows, name: str) -> Found:
    """The database of this name, with no rows where there is none."""
    return next((one for one in gather(rows) if one.name == name), Found(name, ()))


def list_databases(rows: Rows) -> list[DatabaseInfo]:
    """Every database but the server's own: ``system``, the default one, and composites."""
    own = {str(row["name"]) for row in rows if row["type"] in _NOT_OURS or row["default"] or row["home"]}
    return [
        DatabaseInfo(one.name, _status(one), trouble="" if one.verdict == "online" else one.text)
        for one in gather(rows)
        if one.name not in own
    ]


def _status(one: Found) -> Status:
    known: dict[Verdict, Status] = {"online": "online", "going": "dropping"}
    return known.get(one.verdict, "unknown")


def failures(rows: Sequence[dict[str, Any]]) -> str:
    """What the rows of a command with WAIT say went wrong; empty when every server succeeded."""
    return "; ".join(
        f"{row.get('address')}: {row.get('message') or row.get('state')}"
        for row in rows
        if row.get("success") is False
    )


# Databases: create, look at, protect and drop one; every command is followed by a look at its effect.

SHOW = (
    "SHOW DATABASES YIELD name, type, access, address, role, requestedStatus, currentStatus, "
    "statusMessage, default, home, creationTime"
)
DROP = "DROP DATABASE $name IF EXISTS DESTROY DATA WAIT 60 SECONDS"
READ_ONLY = "ALTER DATABASE $name SET ACCESS READ ONLY WAIT 60 SECONDS"
READ_WRITE = "ALTER DATABASE $name SET ACCESS READ WRITE WAIT 60 SECONDS"
STOP = "STOP DATABASE $name WAIT 60 SECONDS"
START = "START DATABASE $name WAIT 60 SECONDS"
LANGUAGES = "CALL dbms.components() YIELD name, versions"
CHECKPOINT = "CALL db.checkpoint()"
PROCEDURES = "SHOW PROCEDURES YIELD name WHERE name = 'db.checkpoint' RETURN name"
GRANTS = ("GRANT ACCESS ON DATABASE $name TO $role", "GRANT MATCH {*} ON GRAPH $name ELEMENTS * TO $role")
BEHIND = "SHOW DATABASES YIELD name, address, replicationLag"
TRANSACTIONS = "SHOW TRANSACTIONS YIELD database, transactionId, username WHERE database = $name"

_PATIENCE = 300.0  # seconds a database may take to come online or to be gone, on all servers
_PAUSE = 0.2


def show(server: Server) -> Rows:
    """One row per database and server."""
    return server.ask(SHOW, "Listing the databases")


def look(server: Server, name: str) -> Found:
    """What there is of this name."""
    return find(show(server), name)


@dataclass(frozen=True)
class Layout:
    """On how many servers a database lies, None for the server's default, and where its store comes from.

    ``seeder`` is the server that has it already, ``seed`` the address of a dump; without both it begins empty.
    """

    primaries: int | None = None
    secondaries: int | None = None
    seeder: str | None = None
    seed: str | None = None

    @property
    def text(self) -> str:
        """The clauses of the statement; what ``given`` holds is named in them."""
        copies = ""
        if self.primaries is not None:
            copies = f" TOPOLOGY {self.primaries} PRIMARIES"
            copies += f" {self.secondaries} SECONDARIES" if self.secondaries else ""
        return copies + (" OPTIONS $options" if self.given else "")

    @property
    def given(self) -> dict[str, Any]:
        """The parameters of those clauses."""
        found = {"existingDataSeedServer": self.seeder, "seedURI": self.seed}
        given = {name: value for name, value in found.items() if value is not None}
        return {"options": given} if given else {}


def creating(layout: Layout, *, cypher25: bool = False) -> str:
    """The statement that makes a database, and mounts what lies on disk under its name."""
    language = ("CYPHER 25 " if cypher25 else CYPHER) if layout.given else ""
    return f"{language}CREATE DATABASE $name IF NOT EXISTS{layout.text} WAIT 60 SECONDS"


CREATE = creating(Layout())


def layout_of(settings: Mapping[str, Any], seeder: str | None = None, seed: str | None = None) -> Layout:
    """What the configuration asks for."""
    return Layout(settings.get("primaries"), settings.get("secondaries"), seeder, seed)


def create(server: Server, name: str, layout: Layout = Layout()) -> Found:
    """Make the database, or find that it is there, and return it once it is online on every server.

    A store of that name on the server's disk becomes the database, on one server by itself, in a
    cluster as the store of ``layout.seeder``, from which the other members copy it.
    With ``layout.seed`` every member makes it of that dump instead.

    Raises NameTaken when the name belongs to an alias, BuildLocked when the database is stuck (both
    are stepped around by another name), TargetFull at the server's limit, TargetAway when it stays
    on its way for too long.
    """
    if look(server, name).verdict == "absent":
        newer, given = bool(layout.given) and _speaks_25(server), layout.given
        if given and not newer:  # Cypher 5 wants to be told so; in 25 it is deprecated and does nothing
            given["options"]["existingData"] = "use"
        text = creating(layout, cypher25=newer)
        said = server.ask(text, f"Creating the database {name}", name=name, **given)
        if look(server, name).verdict == "absent":
            _raise_absent(name, said)
    return await_online(server, name)


def _speaks_25(server: Server) -> bool:
    rows = server.ask(LANGUAGES, "Asking which Cypher the server speaks")
    return any(row["name"] == "Cypher" and "25" in row["versions"] for row in rows)


def _raise_absent(name: str, said: Rows) -> None:
    trouble = failures(said)
    if trouble:
        raise TargetError(f"The database {name} was not created: {trouble}.", kept="What is live stays live.")
    raise NameTaken(
        f"{name} is an alias that somebody else made, so no database of that name can be.",
        kept="It was not touched; the load goes on under another name.",
    )


def await_online(server: Server, name: str) -> Found:
    """Return it when the database can be used on every server; raises BuildLocked or TargetAway as ``create`` does."""
    deadline = monotonic() + _PATIENCE
    while (found := look(server, name)).verdict != "online":
        if found.verdict in ("stuck", "going", "absent"):
            raise BuildLocked(
                f"The database {name} cannot be used: {found.text}.",
                kept="It was not loaded into; the load goes on under another name.",
                cure="If it stays, an administrator of the server has to remove it.",
            )
        if monotonic() > deadline:
            raise TargetAway(f"The database {name} is not online after {_PATIENCE:.0f} s: {found.text}.")
        _pause()
    return found


def await_copies(server: Server, name: str) -> None:
    """Return when every member of the cluster has all that was committed; raises TargetAway for one that has not."""
    deadline = monotonic() + _PATIENCE
    while late := _late(server, name):
        if monotonic() > deadline:
            said = ", ".join(f"{-row['replicationLag']} behind on {row['address']}" for row in late)
            raise TargetAway(
                f"{name} is not on every member yet: {said} transactions.", kept="No alias was moved."
            )
        _pause()


def _late(server: Server, name: str) -> Rows:
    # Of every database: others may lag as they like.
    rows = server.ask(BEHIND, f"Comparing the copies of {name}")
    return [row for row in rows if row["name"] == name and row["replicationLag"]]


def _pause() -> None:
    threading.Event().wait(_PAUSE)


def set_access(server: Server, name: str, *, read_only: bool) -> None:
    """Make a database read-only or writable, and see that it is."""
    wanted = "read-only" if read_only else "read-write"
    found = look(server, name)
    if found.verdict == "absent":
        raise no_such(name)
    if found.access == wanted:
        return
    said = server.ask(READ_ONLY if read_only else READ_WRITE, f"Making {name} {wanted}", name=name)
    found = look(server, name)
    if found.access != wanted:
        trouble = failures(said) or f"it is {found.access or 'gone'}"
        raise TargetError(f"{name} could not be made {wanted}: {trouble}.", kept="What is live stays live.")


def make_durable(server: Server, name: str, note: Path, *, live: Callable[[], bool]) -> None:
    """Have the server write all of a database's indexes to its disk.

    A database that is read-only when its server crashes cannot rebuild an index, and stays offline. Where there is
    no ``db.checkpoint``, stopping and starting the database does it: never of a live one, and not under readers.
    ``live`` is asked last, right before it is stopped, since a move in another process may have led there meanwhile.
    ``note`` says on disk that it is stopped by us, so that ``start_again`` starts it after a crash.

    Raises TargetAway where it has to wait.
    """
    alone = len(look(server, name).rows) == 1  # the procedure reaches no other member of a cluster
    if alone and server.ask(PROCEDURES, "Asking whether there is db.checkpoint"):
        server.change(name, CHECKPOINT, f"Making a checkpoint of {name}")
        return
    running = readers(server, name)
    if live():
        raise TargetAway(
            f"{name} stays writable while it is live: without db.checkpoint it would have to be stopped first."
        )
    if running:
        raise TargetAway(f"{len(running)} transactions still run on {name}: {', '.join(running[:5])}.")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.touch()
    restart(server, name)
    note.unlink(missing_ok=True)


def restart(server: Server, name: str) -> None:
    """Stop a database, start it, and see it online; raises TargetError with the server's words where it is not."""
    server.ask(STOP, f"Stopping {name}", name=name)
    reach("database.stopped")
    _start(server, name)


def start_again(server: Server, name: str, note: Path) -> None:
    """Start a database that an earlier run stopped, where its note says so."""
    if note.exists():
        if look(server, name).verdict != "absent":
            _start(server, name)
        note.unlink(missing_ok=True)


def _start(server: Server, name: str) -> None:
    server.ask(START, f"Starting {name}", name=name)
    try:
        await_online(server, name)
    except BuildLocked as error:
        said = f"{name} was started and is {look(server, name).text}."
        raise TargetError(
            said, kept="Its data was not touched.", cure="See the server's debug.log."
        ) from error


def make_writable(server: Server, name: str) -> None:
    """Take back the protection that an earlier run of a load gave, where there is any."""
    if look(server, name).access == "read-only":
        set_access(server, name, read_only=False)


def no_such(name: str) -> TargetError:
    """Somebody dropped it, or it never was."""
    return NeedsReload(f"There is no database {name}.", kept="No alias was moved.")


def grant(server: Server, name: str, roles: Sequence[str]) -> None:
    """Let these roles read a database; rights belong to it and not to the alias, so each one is given them."""
    for role in roles:
        for statement in GRANTS:
            try:
                server.ask(statement, f"Granting the role {role} to read {name}", name=name, role=role)
            except NoSuchName as error:
                cure = f"Create the role {role} there, or change neo4j.reader_roles."
                raise ConfigError(error.what, kept=error.kept, cure=cure) from error


def readers(server: Server, name: str) -> list[str]:
    """Transactions that run on a database, with their users."""
    found = server.ask(TRANSACTIONS, f"Looking for readers of {name}", name=name)
    return [f"{row['transactionId']} of {row['username'] or 'nobody'}" for row in found]


def check_ours(server: Server, name: str, mark: str | None) -> None:
    """Raise NotOurs where somebody dropped our database and made another of its name; one without a mark is not judged."""
    found = look(server, name)
    if mark and found.created and found.created != mark:
        raise NotOurs(
            f"{name} was made at {found.created}, and bgdeploy's own at {mark}: somebody has put another in its place.",
            kept="It was not dropped.",
        )


def drop(server: Server, name: str, pointing: Sequence[str]) -> None:
    """Remove a database and see it gone from every server; ``pointing`` are the aliases that use it.

    The name must be a database's: dropping by an alias's name would hit what it points at. The
    server refuses too while an alias points at it, since CASCADE is never asked for.
    """
    if pointing:
        raise Refused(
            f"{name} is what the alias {', '.join(pointing)} points at.",
            kept="It was not dropped.",
            cure=Hint("See: ", do("customers")),
        )
    if look(server, name).verdict == "absent":
        return
    said = server.ask(DROP, f"Dropping the database {name}", name=name)
    deadline = monotonic() + 60
    while (found := look(server, name)).leaving and monotonic() < deadline:
        _pause()
    if found.verdict != "absent":
        reason = failures(said) or found.text
        raise TargetError(f"{name} is still there after it was dropped: {reason}.", kept="Nothing else was.")
