"""The Neo4j target behind the protocol that every target keeps."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgdeploy import log
from bgdeploy.actions import Hint, do
from bgdeploy.errors import (
    BadInput,
    BgdeployError,
    BuildLocked,
    NameTaken,
    NotFound,
    Refused,
    TargetAway,
    TargetError,
)
from bgdeploy.failpoints import reach
from bgdeploy.finding import Check
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import DatabaseInfo, Health, Inspector, Ledger, Need, Owned, Rows, Ticket
from bgdeploy.targets.neo4j import aliases, databases, health
from bgdeploy.targets.neo4j.access import COMMUNITY, RightMissing, Server, ServerRefused, open_server
from bgdeploy.targets.neo4j.aliases import find_down, forgive, heal, make_read_only, owe, protect, start_again
from bgdeploy.targets.neo4j.arrow.begun import forget
from bgdeploy.targets.neo4j.databases import Found, gather, list_databases, show
from bgdeploy.targets.neo4j.health import edition
from bgdeploy.targets.neo4j.offline.store import discard

if TYPE_CHECKING:
    import pyarrow as pa


# Community Edition: one database and no aliases. A snapshot can be loaded and verified there, never switched.

_EMPTY_IT = "Empty it yourself (MATCH (n) DETACH DELETE n), or use Neo4j Enterprise."


def is_community(server: Server) -> bool:
    """True for an edition that has one database only."""
    return edition(server) == "community"


def place_of(server: Server, database: str) -> str:
    """The database that a name stands for: itself, or on Community the only one there is."""
    if not is_community(server):
        return database
    return next(str(row["name"]) for row in show(server) if row["default"])


@contextmanager
def only_where_empty(database: str, place: str) -> Iterator[None]:
    """Where no other name can be taken, data that is not this load's is waited for until a person removes it."""
    try:
        yield
    except BuildLocked as error:
        if place == database:
            raise
        what = f"Neo4j Community Edition has one database, {place}, which is in use: {error.what}"
        raise TargetAway(what, kept="It was left as it is.", cure=_EMPTY_IT) from error


def refuse_to_switch(server: Server, alias: str) -> None:
    """Raise Refused on an edition without aliases."""
    if is_community(server):
        raise Refused(f"{COMMUNITY}.", kept=f"No alias {alias} was made; what was loaded stays.")


# Loaders: by which of three ways a snapshot gets into a database, and why.

FEW = 5_000_000  # rows that Bolt loads in a minute or two, and continues after any crash
MANY = 1_000_000_000  # rows from which the import tool's offline way is worth what it asks for
_PLACES = {"bolt": "bolt", "arrow": "arrow", "import": "offline"}


@dataclass(frozen=True)
class Facts:
    """What the choice rests on; ``no_arrow`` and ``no_import`` say why a way is closed, and are empty where it is open."""

    rows: int
    edition: str
    no_arrow: str
    no_import: str


@dataclass(frozen=True)
class Choice:
    """A loader and the sentence that explains it."""

    loader: str
    why: str


def load(server: Server, ticket: Ticket, snapshot: Snapshot, ledger: Ledger, folder: Path) -> None:
    """Load by the job's loader; where that is ``auto``, choose one and store it with the job first."""
    loader = ticket.settings.get("loader", "bolt")
    if loader == "auto":
        choice = choose(look(server, snapshot))
        ledger.chosen(choice.loader, choice.why)
        loader = choice.loader
    settings = {**ticket.settings, "loader": loader}
    package = import_module(f"bgdeploy.targets.neo4j.{_PLACES[loader]}.load")
    package.load(server, replace(ticket, settings=settings), snapshot, ledger, folder)


def look(server: Server, snapshot: Snapshot) -> Facts:
    """Ask the server and this host for what the choice rests on."""
    edition = health.edition(server)
    if edition == "community" or snapshot.rows < FEW:
        return Facts(snapshot.rows, edition, "not asked", "not asked")
    return Facts(snapshot.rows, edition, find_arrow(server), _find_import(server, snapshot))


def choose(facts: Facts) -> Choice:
    """The fastest way that is open for so many rows; the reason names what spoke against the others."""
    rows = f"{facts.rows:,} rows"
    if facts.edition == "community":
        return Choice("bolt", "Community Edition takes data over Bolt only")
    if facts.rows < FEW:
        return Choice("bolt", f"{rows} are few, and a load over Bolt resumes at its next batch")
    if not facts.no_import and (facts.no_arrow or facts.rows >= MANY):
        against = (
            f"Arrow is closed ({facts.no_arrow})" if facts.no_arrow else "the tool needs least of the server"
        )
        return Choice("import", f"{rows}, the server's import tool is here, and {against}")
    if not facts.no_arrow:
        return Choice(
            "arrow", f"{rows}, and the server takes Arrow; import: {facts.no_import or 'not needed'}"
        )
    return Choice("bolt", f"nothing faster is open (arrow: {facts.no_arrow}; import: {facts.no_import})")


def find_arrow(server: Server) -> str:
    """Why the server takes no Arrow, in one clause; empty where it does."""
    address = import_module("bgdeploy.targets.neo4j.arrow.client")
    try:
        address.find_address(server)
    except BgdeployError as error:
        return _closed(error)
    return ""


def _closed(error: BgdeployError) -> str:
    """Why a way is closed; a server that is away for a moment closes none, and the job waits for it."""
    if isinstance(error, TargetAway) and not isinstance(error, RightMissing):
        raise error
    return error.what.rstrip(".")


def _find_import(server: Server, snapshot: Snapshot) -> str:
    from bgdeploy.targets.neo4j.offline.load import check, check_seed
    from bgdeploy.targets.neo4j.offline.sources import check_fit

    if server.access.import_tool is None:
        return "neo4j.import_tool is not set"
    try:
        check(server)
        check_seed(server)
        check_fit(snapshot)
    except BgdeployError as error:
        return _closed(error)
    return ""


def find_needs(
    server: Server, settings: Mapping[str, Any], snapshot: Snapshot, running: Sequence[str]
) -> Iterator[Need]:
    """What a load of this snapshot needs, whichever way it goes, and what the import tool needs beside."""
    yield from health.find_needs(server, snapshot, running)
    if settings.get("loader") == "import":
        from bgdeploy.targets.neo4j.offline.load import find_needs as find_more

        yield from find_more(server, snapshot)


# The Neo4j target behind the protocol that every target keeps.


class Neo4j:
    """Databases at a server; ``settings`` are kept with each job, the server is today's."""

    kind = "neo4j"
    keys_cross_folders = True

    def __init__(self, settings: Mapping[str, Any], server: Server) -> None:
        self._settings = settings
        self._server = server
        self._told: set[str] = set()  # databases whose trouble on some members was logged

    def identity(self) -> str:
        """The id the server gave itself when it was set up."""
        return self._server.identity()

    def expect(self, place: str) -> None:
        """Have the server compared at the first connection."""
        self._server.expected = place

    def health(self) -> Health:
        """The server's edition, databases, heap, page cache and running transactions."""
        return health.examine(self._server, self._settings)

    def held(self, kind: pa.DataType) -> str | None:
        """None: a property has a type in each node."""
        return None

    def refuses(self, kind: pa.DataType, written_by: str) -> str | None:
        """What no property can hold."""
        from bgdeploy.targets.neo4j.bolt.values import find_fault

        return find_fault(kind)

    def plan(self, snapshot: Snapshot, running: Sequence[str]) -> tuple[Need, ...]:
        """Databases, file descriptors and disk, as far as the server tells."""

        return tuple(find_needs(self._server, self._settings, snapshot, running))

    def load(self, ticket: Ticket, snapshot: Snapshot, ledger: Ledger) -> None:
        """Fill the database by the loader that was chosen for it; an earlier run's work is continued where it can be."""

        folder, place = self._folder(ticket.database), place_of(self._server, ticket.database)
        start_again(self._server, self._builds, place)
        if ledger.done():  # the last run may have come as far as to protect it
            databases.make_writable(self._server, place)
        try:
            with only_where_empty(ticket.database, place):
                load(self._server, replace(ticket, database=place), snapshot, ledger, folder)
                ledger.owns(databases.look(self._server, place).created)
        except NameTaken:
            shutil.rmtree(folder, ignore_errors=True)  # nobody drops a name that is somebody else's
            raise
        shutil.rmtree(folder, ignore_errors=True)

    @property
    def _builds(self) -> Path:
        return Path(self._settings["state_dir"]) / "builds"

    def _folder(self, database: str) -> Path:
        return self._builds / database

    @contextmanager
    def inspect(self, database: str) -> Iterator[Inspector]:
        """Ask the database by its own name."""
        from bgdeploy.targets.neo4j.inspection import Inspection

        place = place_of(self._server, database)
        found = databases.look(self._server, place)
        if found.verdict != "online":
            kind = TargetAway if found.verdict == "coming" else TargetError
            raise kind(f"The database {database} cannot be read: {found.text}.", kept="Nothing was changed.")
        if len(found.rows) > 1:  # from here on no member answers that lacks what the leader has
            self._server.write(place, "RETURN 1 AS one", f"Examining {database}")
        yield Inspection(self._server, place, self._settings)

    def publish(self, ticket: Ticket, facts: Mapping[str, Any]) -> None:
        """Let the readers' roles in, warm it up, and protect it where the configuration says so."""
        whole = not is_community(self._server)  # the other edition has no rights and no access modes
        if whole:
            databases.grant(self._server, ticket.database, self._settings["reader_roles"])
        for query in self._settings["warm_up"]:
            self._warm_up(place_of(self._server, ticket.database), query)
        databases.await_copies(self._server, place_of(self._server, ticket.database))
        reach("publish.before")
        if whole and self._settings["read_only"] == "live":
            self._protect(ticket.database)
        reach("publish.renamed")

    def _protect(self, database: str) -> None:
        start_again(self._server, self._builds, database)
        found = databases.look(self._server, database)
        make_read_only(self._server, self._builds, found, live=lambda: database in self._live())

    def _warm_up(self, database: str, query: str) -> None:
        try:
            self._server.read(database, query, f"Warming up {database} with {query!r}")
        except ServerRefused as error:
            if not error.said_code.endswith(".SyntaxError"):
                raise
            raise BadInput(error.what, kept=error.kept, cure="Change neo4j.warm_up.") from error

    def alias(self, name: str) -> str | None:
        """The database this alias points at."""
        found = aliases.find_alias(self._server, name)
        return found.database if found is not None else None

    def aliases(self) -> dict[str, str]:
        """What the server lists, in one answer."""
        return {one.name: one.database for one in aliases.list_aliases(self._server)}

    def generation(self, name: str) -> int | None:
        """What the alias remembers in its own properties."""
        found = aliases.find_alias(self._server, name)
        return found.generation if found is not None else None

    def switch(self, name: str, database: str, generation: int) -> None:
        """Move the alias in one statement, then protect the database it left, now or when that works."""
        refuse_to_switch(self._server, name)
        protect, left = self._settings["read_only"], self.alias(name)
        forgive(self._builds, database)
        if protect == "standby":
            databases.set_access(self._server, database, read_only=False)
        if protect != "none" and left not in (None, database):
            owe(self._builds, str(left))
        aliases.move_alias(self._server, name, database, generation)
        with suppress(BgdeployError, OSError):  # it was moved and read back: whatever fails now is done later
            self._pay()

    def catch_up(self, owned: Owned) -> None:
        """Start what is down since it is read-only, and make read-only what aliases left, where that failed before."""
        down = find_down(self._builds, gather(databases.show(self._server)))
        mine = owned() if down else {}
        served = {one.name for one in down if one.name in mine and one.serving}
        for one in down:
            if one.name in served - self._told:
                log.emit("database.half_down", database=one.name, said=one.text)
            elif one.name in mine and not one.serving:
                self._heal(one)
        self._told = served
        self._pay()

    def _heal(self, down: Found) -> None:
        try:
            heal(self._server, self._builds, down, live=lambda: down.name in self._live())
        except BgdeployError as error:  # one that does not start must not hold up the others
            log.emit("service.trouble", what=f"starting {down.name}, which is {down.text},", error=error)
        else:
            log.emit("database.healed", database=down.name, said=down.text)

    def _pay(self) -> None:
        protect(self._server, self._builds, self._live)

    def _live(self) -> frozenset[str]:
        return frozenset(self.aliases().values())

    def outdated(self, database: str) -> str | None:
        """Never: a server upgrades its own."""
        return None

    def remove_alias(self, name: str, generation: int) -> None:
        """Drop the alias, if it is ours."""
        aliases.remove_alias(self._server, name, generation)

    def databases(self) -> list[DatabaseInfo]:
        """Every database but the server's own."""
        return list_databases(databases.show(self._server))

    def drain(self, database: str) -> Health:
        """Well when no transaction runs on the database any more."""
        running = databases.readers(self._server, database)
        if not running:
            return Health("ok")
        shown = ", ".join(running[:5])
        return Health("wait", (f"{len(running)} transactions still run on {database}: {shown}",))

    def drop(self, database: str, fence: int, mark: str | None = None) -> None:
        """Remove a database that no alias points at; the server refuses too while one does.

        On Community only the name is given up: what its one database holds is for a person to empty.
        """
        pointing = [one.name for one in aliases.list_aliases(self._server) if one.database == database]
        databases.check_ours(self._server, database, mark)
        forget(self._server, database, self._folder(database))
        databases.drop(self._server, database, pointing)
        reach("drop.moved")
        discard(self._folder(database))
        shutil.rmtree(self._folder(database), ignore_errors=True)

    def query(self, alias: str, cypher: str, params: Mapping[str, Any] | None = None) -> Rows:
        """Rows of a read-only query through the alias."""
        from bgdeploy.targets.neo4j.inspection import to_native

        if self.alias(alias) is None:
            raise NotFound(
                f"There is no alias {alias}: nothing is live yet.", cure=Hint("See: ", do("customers"))
            )
        try:
            rows = self._server.query(alias, cypher, f"Asking {alias}", params or {})
        except ServerRefused as error:
            if not error.said_code.startswith("Neo.ClientError.Statement."):
                raise
            cure = "Correct the query; it may only read."
            raise TargetError(error.what, kept=error.kept, cure=cure) from error
        return [{name: to_native(value) for name, value in row.items()} for row in rows]

    def checks(self, owned: Owned, *, try_rights: bool = False) -> Sequence[Check]:
        """The server, what it may hold, and the rights of bgdeploy's user, one by one."""
        from bgdeploy.targets.neo4j import checks

        return checks.checks(self._server, self._settings, owned, try_rights=try_rights)


def open_target(settings: Mapping[str, Any], access: Mapping[str, Any]) -> Neo4j:
    """Open the server; nothing is connected yet."""
    return Neo4j(settings, open_server(access))
