"""The rules of Neo4j Enterprise's administration, as its manual tells them; real databases do the rest.

What is imitated: names, limits, rights, asynchronous commands with WAIT, every status, read-only
access, aliases with properties, the refusal to drop what an alias points at. What is not: see
docs/neo4j-servers.md, "What is proven where".
"""

from __future__ import annotations

import json
import random
import re
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.neo4j.servers import LTS, PASSWORD, Community

Rows = list[dict[str, Any]]
Params = dict[str, Any]
_NAME = re.compile(r"(?!system)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SPARES = 4  # idle processes that wait for the next CREATE DATABASE
_STARTING = 11.0  # seconds a DROP waits for open transactions


class Refusal(Exception):
    """What the server answers with: a code and a sentence."""

    def __init__(self, code: str, said: str) -> None:
        super().__init__(said)
        self.code, self.said = code, said


@dataclass
class Database:
    """One database and the process that holds it."""

    name: str
    server: Community | None = None
    status: str = "initial"
    requested: str = "online"
    message: str = ""
    access: str = "read-write"
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass
class Dbms:
    """Everything the stand-in knows; ``root`` holds the homes of its processes."""

    root: Path
    address: str
    version: str = LTS
    memory: str = "384m"
    limit: int = 100
    databases: dict[str, Database] = field(default_factory=dict)
    aliases: dict[str, dict[str, Any]] = field(default_factory=dict)
    users: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"neo4j": {"password": PASSWORD, "denied": []}}
    )
    granted: list[str] = field(default_factory=list)
    transactions: dict[int, tuple[str, str]] = field(default_factory=dict)  # connection -> database, user
    told: dict[str, Any] = field(default_factory=dict)  # figures a test wants to be seen
    spare: list[Community] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # administration statements, in order
    lock: threading.RLock = field(default_factory=threading.RLock)
    stuck: list[str] = field(default_factory=list)  # databases that come up offline, as after a crash
    homes: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(4))  # the same in each run
    arrow_address: str = ""
    imports: list[str] = field(default_factory=list)  # what the Arrow endpoint was asked, in order

    @property
    def data(self) -> Path:
        """The folder of the server that this stands for; a store that lies in it is mounted by CREATE DATABASE."""
        return self.root / "data"

    @property
    def id(self) -> str:
        """What ``SHOW DATABASES`` calls the server."""
        return str(uuid.UUID(bytes=(self.data / "server_id").read_bytes()[1:]))

    def open(self) -> None:
        """Start the process behind the default database."""
        (self.data / "databases").mkdir(parents=True)
        (self.data / "server_id").write_bytes(b"\1" + uuid.uuid4().bytes)
        self.databases["neo4j"] = Database("neo4j", self._new_server(), "online")
        self._server("neo4j").wait()
        self.spare = [self._new_server(), self._new_server()]

    def _new_server(self, mounted: str = "") -> Community:
        """A process of its own; ``mounted`` names a store on disk that it takes over, as its one database."""
        server = self.new_home()
        for folder in _folders(self.data, mounted) if mounted else ():
            inside = server.home / "data" / folder.parent.name / "neo4j"
            inside.parent.mkdir(exist_ok=True)
            folder.rename(inside)
            folder.symlink_to(inside)
        server.start()
        return server

    def new_home(self) -> Community:
        """A home with the tests' password, whose server does not run yet."""
        with self.lock:
            self.homes += 1
            server = Community(self.root / f"db-{self.homes}", self.version, heap=self.memory)
        server.prepare()
        return server

    def adopt(self, name: str, server: Community) -> None:
        """Mount a database that was built beside: its process is started and awaited."""
        database = Database(name, server, "starting")
        with self.lock:
            self.databases[name] = database
        server.start()
        self._come_online(database)

    def _server(self, name: str) -> Community:
        server = self.databases[name].server
        assert server is not None
        return server

    def close(self) -> None:
        for database in self.databases.values():
            if database.server is not None:
                database.server.kill()
        for server in self.spare:
            server.kill()

    # What a session asks for

    def resolve(self, name: str | None) -> Database:
        """The database a session means, by its name or an alias."""
        wanted = (name or "neo4j").lower()
        with self.lock:
            if wanted in self.aliases:
                wanted = self.aliases[wanted]["database"]
            found = self.databases.get(wanted)
        if found is None:
            raise Refusal("Neo.ClientError.Database.DatabaseNotFound", f"Graph not found: {name}")
        if found.status != "online":
            raise Refusal(
                "Neo.TransientError.General.DatabaseUnavailable", f"Database '{wanted}' is unavailable."
            )
        return found

    def administer(self, user: str, text: str, params: Params) -> tuple[list[str], Rows]:
        """Answer one statement on ``system``: its columns and rows."""
        text = " ".join(text.split()).removeprefix("CYPHER 5 ")
        if text.startswith("STANDIN"):
            return ["state"], self._control(params)
        for lacked in self.told.get("lacks", []):
            if text.removeprefix("EXPLAIN ").startswith(lacked):
                code = "Neo.ClientError.Statement.UnsupportedAdministrationCommand"
                raise Refusal(code, f"Unsupported administration command: {text.removeprefix('EXPLAIN ')}")
        if text.startswith("EXPLAIN "):
            return [], []
        self.lead()
        self.said.append(text)
        for denied in self.users[user]["denied"]:
            if text.startswith(denied):
                said = f"Permission has not been granted for user '{user}' to {denied}."
                raise Refusal("Neo.ClientError.Security.Forbidden", said)
        for pattern, act in _STATEMENTS:
            if match := pattern.fullmatch(text):
                rows = act(self, match.groupdict(), params)
                return _columns(text, rows), rows
        return self._relay(text, params)

    def lead(self) -> None:
        """Refuse one statement in so many as a test asks for, as a member does that leads no longer.

        By chance, not by turns: a client that repeats itself in step with the turns would be refused for ever.
        """
        with self.lock:
            refused = self.chance.random() < (self.told.get("another_leads") or 0)
        if refused:
            said = "No write operations are allowed directly on this database. Another member leads."
            raise Refusal("Neo.ClientError.Cluster.NotALeader", said)

    def _relay(self, text: str, params: Params) -> tuple[list[str], Rows]:
        with self._server("neo4j").driver() as driver, driver.session(database="system") as session:
            result = session.run(text, params)  # type: ignore[arg-type]
            return list(result.keys()), result.data()

    def _control(self, params: Params) -> Rows:
        """A test's hand: change a figure, a user, a status, or kill a database's process."""
        for name, value in params.items():
            match name:
                case "limit":
                    self.limit = value
                case "told":
                    self.told.update(value)
                case "users":
                    self.users.update(value)
                case "status":
                    database = self.databases[value["name"]]
                    database.status, database.message = value["status"], value.get("message", "")
                case "foreign":
                    self.databases[value] = Database(value, None, "online")
                case "aliases":
                    self.aliases.update(value)
                case "stuck":
                    self.stuck = value
                case "reset":
                    self._reset()
                case "kill":
                    self._crash(self.databases[value])
        return [
            {
                "state": json.dumps(
                    {"granted": self.granted, "said": self.said, "homes": self.homes, "imports": self.imports}
                )
            }
        ]

    def _reset(self) -> None:
        with self.lock:
            gone = [one for name, one in self.databases.items() if name != "neo4j"]
            self.databases = {"neo4j": self.databases["neo4j"]}
            self.aliases, self.granted, self.said, self.told, self.limit, self.stuck = {}, [], [], {}, 100, []
            self.imports.clear()
            self.users = {"neo4j": {"password": PASSWORD, "denied": []}}
        for name in ("databases", "transactions"):
            shutil.rmtree(self.data / name, ignore_errors=True)
        (self.data / "databases").mkdir()
        for one in gone:
            if one.server is not None:
                self._recycle(one.server)

    def _crash(self, database: Database) -> None:
        """The process dies and is started again on the same store, as a service manager would."""
        assert database.server is not None
        database.status = "starting"
        database.server.kill()
        self._protect(database)
        database.server.start()
        threading.Thread(target=self._come_online, args=(database,), daemon=True).start()

    # Databases

    def seeds(self, found: dict[str, str], params: Params) -> Rows:
        """Which seeds it takes: of files none, unless it was set to."""
        return [{"value": self.told.get("seeds", "CloudSeedProvider")}]

    def create(self, found: dict[str, str], params: Params) -> Rows:
        name = _value(found["name"], params).lower()
        if not _NAME.fullmatch(name):
            raise Refusal(
                "Neo.ClientError.Statement.ArgumentError",
                f"Database name '{name}' contains illegal characters.",
            )
        with self.lock:
            if name in self.databases or name in self.aliases:
                if not found["quiet"]:
                    raise Refusal(
                        "Neo.ClientError.Database.ExistingDatabaseFound", f"Database '{name}' already exists."
                    )
                return self._waited(name, found) if name in self.databases else []
            if len(self.databases) + 1 >= self.limit:  # system is one of them
                said = "Reached the limit of databases."
                raise Refusal("Neo.DatabaseError.Database.DatabaseLimitReached", said)
            database = self.databases[name] = Database(name)
        seed = params.get("options", {}).get("seedURI", "")
        threading.Thread(target=self._make, args=(database, seed), daemon=True).start()
        return self._waited(name, found)

    def _make(self, database: Database, seed: str) -> None:
        database.status = "starting"
        lies_there = (self.data / "databases" / database.name).exists()
        if seed:
            self._sow(database, seed, lies_there)
            return
        with self.lock:
            server = self.spare.pop() if self.spare and not lies_there else None
        database.server = server or self._new_server(database.name if lies_there else "")
        self._come_online(database)

    def _sow(self, database: Database, seed: str, lies_there: bool) -> None:
        """Make a database of a dump; one that cannot be read, or a store in the way, leaves it offline."""
        dump = Path(unquote(seed.removeprefix("file://")))
        taken = "FileSeedProvider" in self.told.get("seeds", "")
        if lies_there or not taken or not dump.is_file():
            database.status, database.message = "offline", f"Unable to seed from {seed}"
            return
        server = self.new_home()
        (server.home / "seed").mkdir()
        shutil.copy(dump, server.home / "seed/neo4j.dump")
        server.administer("database", "load", "neo4j", f"--from-path={server.home / 'seed'}")
        server.start()
        database.server = server
        self._come_online(database)

    def _protect(self, database: Database) -> None:
        """What is read-only is so for the kernel too, from its next start on."""
        assert database.server is not None
        only = {"server.databases.read_only": "neo4j"} if database.access == "read-only" else {}
        database.server.settings = only

    def _come_online(self, database: Database) -> None:
        assert database.server is not None
        status, said = database.server.settled()
        with self.lock:
            if self.databases.get(database.name) is not database:
                return
            lost = database.name in self.stuck
            database.status = "offline" if lost else status
            database.message = "Transaction logs are missing" if lost else said

    def _waited(self, name: str, found: dict[str, str]) -> Rows:
        if not found.get("wait"):
            return []
        _await(lambda: self.databases[name].status in ("online", "offline"), float(found["seconds"] or 300))
        done = self.databases[name].status == "online"
        row = {"address": self.address, "state": "CaughtUp" if done else "Incomplete"}
        return [{**row, "message": "caught up" if done else "still on its way", "success": done}]

    def drop(self, found: dict[str, str], params: Params) -> Rows:
        name = _value(found["name"], params).lower()
        with self.lock:
            if name not in self.databases:
                if found["quiet"]:
                    return []
                raise Refusal(
                    "Neo.ClientError.Database.DatabaseNotFound", f"Database '{name}' does not exist."
                )
            if pointing := [alias for alias, one in self.aliases.items() if one["database"] == name]:
                said = f"Database '{name}' has one or more aliases: {', '.join(pointing)}."
                raise Refusal("Neo.ClientError.Database.ExistingAliasFound", said)
            database = self.databases[name]
            if name in self.stuck:
                return []  # a database in that state did not go when it was told to
            database.requested, database.status = "offline", "deallocating"
        threading.Thread(target=self._remove, args=(database,), daemon=True).start()
        if not found["wait"]:
            return []
        gone = _await(lambda: name not in self.databases, float(found["seconds"] or 300))
        return [
            {
                "address": self.address,
                "state": "CaughtUp" if gone else "Incomplete",
                "message": "",
                "success": gone,
            }
        ]

    def _remove(self, database: Database) -> None:
        _await(lambda: not self.busy(database.name), _STARTING)
        with self.lock:
            self.databases.pop(database.name, None)
        for folder in _folders(self.data, database.name):
            folder.unlink(missing_ok=True)
        if database.server is not None:
            self._recycle(database.server)

    def _recycle(self, server: Community) -> None:
        """A small database's process is emptied and used again; starting one takes seconds."""
        rows = 0
        if not server.settings:
            with server.driver() as driver:
                count = "MATCH (n) RETURN count(*) AS rows"
                rows = driver.execute_query(count, database_="neo4j").records[0]["rows"]
        if rows > 20_000 or len(self.spare) >= _SPARES or server.settings:
            server.kill()
            shutil.rmtree(server.home, ignore_errors=True)
            return
        server.empty()
        with self.lock:
            self.spare.append(server)

    def busy(self, name: str) -> list[str]:
        """Users with an open transaction on a database."""
        return [user for database, user in list(self.transactions.values()) if database == name]

    def alter(self, found: dict[str, str], params: Params) -> Rows:
        database = self._existing(_value(found["name"], params))
        database.access = "read-only" if found["access"] == "READ ONLY" else "read-write"
        return self._waited(database.name, found)

    def stop(self, found: dict[str, str], params: Params) -> Rows:
        database = self._existing(_value(found["name"], params))
        database.requested = "online" if found["verb"] == "START" else "offline"
        assert database.server is not None
        if found["verb"] == "STOP":
            database.status, database.message = "offline", ""
            database.server.stop()
            return [{"address": self.address, "state": "CaughtUp", "message": "caught up", "success": True}]
        if database.status != "online":
            database.status = "starting"
            self._protect(database)
            database.server.start()
            self._come_online(database)
        return self._waited(database.name, found)

    def _existing(self, name: str) -> Database:
        if name.lower() not in self.databases:
            raise Refusal("Neo.ClientError.Database.DatabaseNotFound", f"Database '{name}' does not exist.")
        return self.databases[name.lower()]

    def places(self, found: dict[str, str], params: Params) -> Rows:
        """Where this stand-in says that its data lies; a test may say otherwise."""
        data = self.told.get("data", str(self.data))
        told = {"server.directories.data": data, "db.tx_log.preallocate": "false"}
        return [{"name": name, "value": value} for name, value in told.items()]

    def members(self, found: dict[str, str], params: Params) -> Rows:
        ids = self.told.get("members", [self.id])
        return [{"id": one, "address": self.address} for one in ids]

    def show(self, found: dict[str, str], params: Params) -> Rows:
        with self.lock:
            rows = [self._row(one) for one in self.databases.values()]
        system = Database("system", None, "online")
        return [*rows, {**self._row(system), "type": "system"}]

    def _row(self, one: Database) -> dict[str, Any]:
        first = one.name == "neo4j"
        pointing = [alias for alias, found in self.aliases.items() if found["database"] == one.name]
        return {
            "name": one.name, "serverID": self.id, "type": "standard", "aliases": pointing, "access": one.access,
            "address": self.address, "role": "primary", "writer": True, "requestedStatus": one.requested,
            "currentStatus": one.status, "statusMessage": one.message, "default": first, "home": first,
            "constituents": [], "creationTime": one.created.isoformat(), "replicationLag": -self.told.get("behind", 0),
        }  # fmt: skip

    # Aliases and rights

    def create_alias(self, found: dict[str, str], params: Params) -> Rows:
        name, target = _value(found["alias"], params).lower(), _value(found["name"], params).lower()
        with self.lock:
            if name in self.aliases or name in self.databases:
                if found["quiet"]:
                    return []
                raise Refusal("Neo.ClientError.Database.ExistingAliasFound", f"'{name}' already exists.")
            self._existing(target)
            self.aliases[name] = {"database": target, "properties": _properties(found["properties"], params)}
        return []

    def alter_alias(self, found: dict[str, str], params: Params) -> Rows:
        name, target = _value(found["alias"], params).lower(), _value(found["name"], params).lower()
        with self.lock:
            if name not in self.aliases:
                raise Refusal("Neo.ClientError.Database.DatabaseNotFound", f"Alias '{name}' does not exist.")
            self._existing(target)
            changed = _properties(found["properties"], params)
            before = self.aliases[name]
            self.aliases[name] = {"database": target, "properties": changed or before["properties"]}
        return []

    def drop_alias(self, found: dict[str, str], params: Params) -> Rows:
        self.aliases.pop(_value(found["alias"], params).lower(), None)
        return []

    def show_aliases(self, found: dict[str, str], params: Params) -> Rows:
        wanted = _value(found["alias"], params).lower() if found["alias"] else None
        with self.lock:
            shown = {name: one for name, one in self.aliases.items() if wanted in (None, name)}
        same = {"composite": None, "location": "local", "url": None, "user": None}
        return [{"name": name, **one, **same} for name, one in sorted(shown.items())]

    def grant(self, found: dict[str, str], params: Params) -> Rows:
        self._existing(_value(found["name"], params))
        role = _value(found["role"], params)
        if role not in self.told.get("roles", [role]):
            said = f"Failed to grant access privilege to role '{role}': Role does not exist."
            raise Refusal("Neo.ClientError.Statement.ArgumentError", said)
        self.granted.append(
            f"{found['what']} {_value(found['name'], params)} TO {_value(found['role'], params)}"
        )
        return []

    # Figures

    def arrow(self, found: dict[str, str], params: Params) -> Rows:
        if self.told.get("arrow", {}) is None:
            said = (
                "There is no procedure with the name `gds.debug.arrow` registered for this database instance."
            )
            raise Refusal("Neo.ClientError.Procedure.ProcedureNotFound", said)
        plain = {"listenAddress": self.arrow_address, "enabled": True, "running": True, "versions": ["v1"]}
        return [{**plain, **self.told.get("arrow", {})}]

    def procedures(self, found: dict[str, str], params: Params) -> Rows:
        """Enterprise has ``db.checkpoint``; the processes behind have none, so a test of crashes does without."""
        return [{"name": "db.checkpoint"}] if self.told.get("checkpoint", True) else []

    def checkpoint(self, found: dict[str, str], params: Params) -> Rows:
        return [{"success": True, "message": "Checkpoint completed."}]

    def components(self, found: dict[str, str], params: Params) -> Rows:
        return [
            {
                "name": "Neo4j Kernel",
                "versions": [self.version],
                "edition": self.told.get("edition", "enterprise"),
            }
        ]

    def show_transactions(self, found: dict[str, str], params: Params) -> Rows:
        wanted = params.get("name")
        rows = list(self.transactions.items())
        return [
            {"database": name, "transactionId": f"{name}-transaction-{number}", "username": user}
            for number, (name, user) in rows
            if wanted in (None, name)
        ]

    def clock(self, found: dict[str, str], params: Params) -> Rows:
        now = datetime.now(UTC) + timedelta(seconds=self.told.get("clock", 0))
        return [{"now": now.isoformat(timespec="milliseconds")}]

    def heap(self, found: dict[str, str], params: Params) -> Rows:
        if "heap" in self.told:
            return [{"heap": self.told["heap"]}]
        return self._relay(found["all"], params)[1]

    def page_cache(self, found: dict[str, str], params: Params) -> Rows:
        beans = {
            "bolt.connections_opened": 7,
            "page_cache.usage_ratio": self.told.get("page_cache"),
            "page_cache.hit_ratio": self.told.get("page_hits"),
        }
        return [{"name": f"neo4j.metrics:name=neo4j.{name}", "value": value} for name, value in beans.items()]

    def max_databases(self, found: dict[str, str], params: Params) -> Rows:
        return [{"most": self.limit}]


def _folders(data: Path, name: str) -> tuple[Path, Path]:
    return data / "databases" / name, data / "transactions" / name


def _value(text: str, params: Params) -> str:
    return str(params[text[1:]]) if text.startswith("$") else text.strip("`")


def _properties(text: str | None, params: Params) -> dict[str, Any]:
    if not text:
        return {}
    pairs = (pair.split(":") for pair in text.strip("{} ").split(","))
    written = ((key.strip(), value.strip()) for key, value in pairs)
    return {key: params[value[1:]] if value[0] == "$" else int(value) for key, value in written}


def _await(done: Callable[[], bool], seconds: float) -> bool:
    waited = 0.0
    while not done():
        if waited >= seconds:
            return False
        threading.Event().wait(0.02)
        waited += 0.02
    return True


def _columns(text: str, rows: Rows) -> list[str]:
    yielded = re.search(r"YIELD (.*?)(?: WHERE| RETURN|$)", text)
    if yielded and "RETURN" not in text:
        return [name.strip() for name in yielded[1].split(",")]
    return list(rows[0]) if rows else ["address", "state", "message", "success"]


_N, _A = r"(?P<name>\$\w+|`[^`]+`|[\w.-]+)", r"(?P<alias>\$\w+|`[^`]+`|[\w.-]+)"
_WAIT = r"(?P<wait> WAIT(?: (?P<seconds>\d+) SECONDS)?)?"
_LAYOUT = r"(?P<topology> TOPOLOGY \d+ PRIMARIES(?: \d+ SECONDARIES)?)?(?P<options> OPTIONS \$options)?"
_STATEMENTS: list[tuple[re.Pattern[str], Callable[[Dbms, dict[str, str], Params], Rows]]] = [
    (re.compile(text), act)
    for text, act in (
        (rf"CREATE DATABASE {_N}(?P<quiet> IF NOT EXISTS)?{_LAYOUT}{_WAIT}", Dbms.create),
        (rf"DROP DATABASE {_N}(?P<quiet> IF EXISTS)?(?: DESTROY DATA)?{_WAIT}", Dbms.drop),
        (rf"ALTER DATABASE {_N} SET ACCESS (?P<access>READ ONLY|READ WRITE){_WAIT}", Dbms.alter),
        (rf"(?P<verb>START|STOP) DATABASE {_N}{_WAIT}", Dbms.stop),
        (r"SHOW DATABASES YIELD .* RETURN serverID AS id, address", Dbms.members),
        (r"SHOW DATABASES(?: YIELD .*)?", Dbms.show),
        (
            rf"CREATE ALIAS {_A}(?P<quiet> IF NOT EXISTS)? FOR DATABASE {_N}(?: PROPERTIES (?P<properties>.*))?",
            Dbms.create_alias,
        ),
        (
            rf"ALTER ALIAS {_A} SET DATABASE TARGET {_N}(?: PROPERTIES (?P<properties>.*))?",
            Dbms.alter_alias,
        ),
        (rf"DROP ALIAS {_A}(?: IF EXISTS)? FOR DATABASE", Dbms.drop_alias),
        (rf"SHOW ALIASES FOR DATABASE YIELD .*?(?: WHERE name = {_A})?", Dbms.show_aliases),
        (
            r"GRANT (?P<what>.*?) (?:ON DATABASE|ON GRAPH) (?P<name>\$\w+)(?: ELEMENTS \*)? TO (?P<role>\$\w+)",
            Dbms.grant,
        ),
        (r"CALL dbms\.components\(\).*", Dbms.components),
        (r"SHOW PROCEDURES YIELD name WHERE name = 'db\.checkpoint' RETURN name", Dbms.procedures),
        (r"CALL db\.checkpoint\(\)", Dbms.checkpoint),
        (r"CALL gds\.debug\.arrow\(\).*", Dbms.arrow),
        (r"SHOW TRANSACTIONS YIELD startTime RETURN max\(startTime\) AS now", Dbms.clock),
        (r"SHOW TRANSACTIONS .*", Dbms.show_transactions),
        (r"(?P<all>CALL dbms\.queryJmx\('java\.lang:type=Memory'\).*)", Dbms.heap),
        (r"CALL dbms\.queryJmx\('neo4j\.metrics:\*'\).*", Dbms.page_cache),
        (r"SHOW SETTINGS .*max_databases.*", Dbms.max_databases),
        (r"SHOW SETTINGS .*server\.directories\.data.*", Dbms.places),
        (r"SHOW SETTINGS .*seed_from_uri_providers.*", Dbms.seeds),
    )
]
