"""Schema: keys, and the indexes and constraints a user declares; created, awaited, and checked."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neo4j.exceptions import ClientError, Neo4jError

from bgdeploy.clock import monotonic
from bgdeploy.errors import BadInput, BgdeployError, TargetError
from bgdeploy.failpoints import reach
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Ledger, Rows
from bgdeploy.targets.groups import Desk, diagnose
from bgdeploy.targets.neo4j.access import Server, explain, repeat
from bgdeploy.targets.neo4j.names import CYPHER, quote

# Keys: one uniqueness constraint per node table, made once its nodes are there.

_KEPT = "What is live stays live."


def create_keys(server: Server, database: str, snapshot: Snapshot) -> None:
    """Make the constraints and wait until they can be used; raises Misfit for a table whose ids are not unique."""
    for label in dict.fromkeys(table.name for table in snapshot.nodes if table.rows):
        clear_orphan(server, database, key_name(label))
        try:
            create(server, database, create_key(label, key_of(snapshot, label)))
        except NotUnique as error:
            raise Misfit("node", label, f"{str(error).rstrip('.')}.") from error
    await_online(server, database)


def complete(
    server: Server,
    database: str,
    snapshot: Snapshot,
    ledger: Ledger,
    folder: Path,
    declared: Sequence[str],
) -> None:
    """Make keys and declared indexes in a database whose rows are all there, and close it; raises what ``explain`` tells."""
    try:
        create_keys(server, database, snapshot)
    except Misfit as misfit:
        raise explain_misfit(database, snapshot, folder, ledger, misfit) from misfit
    apply(server, database, declared)
    reach("load.closing")
    ledger.step("closed")


def key_of(snapshot: Snapshot, label: str) -> str:
    """The property that holds the id of a table's nodes."""
    column = next(node.column("id") for node in snapshot.nodes if node.name == label)
    assert column is not None
    return column.name


def key_name(label: str) -> str:
    """What the key of a node table is called at the server."""
    return f"bgdeploy_key_{label}"


def create_key(label: str, key: str) -> str:
    """A uniqueness constraint, made after the nodes: much faster than before them."""
    name = quote(key_name(label))
    return (
        f"{CYPHER}CREATE CONSTRAINT {name} IF NOT EXISTS FOR (n:{quote(label)}) "
        f"REQUIRE n.{quote(key)} IS UNIQUE"
    )


def explain_misfit(
    database: str, snapshot: Snapshot, folder: Path, ledger: Ledger, misfit: Misfit
) -> BgdeployError:
    """Let the files tell what does not fit; where they are right, the server holds something else."""
    # A key counts for all nodes that carry the label, whatever folder they come from.
    desk = Desk(snapshot, ledger, folder, across=True)
    if (bad := diagnose(desk, misfit, _KEPT)) is not None:
        return bad
    what = f"Loading {misfit.name} into {database}: {misfit.said} But in the files every id is right."
    return TargetError(what, kept=_KEPT, cure="Does somebody else write into this database?")


# Schema: keys, and the indexes and constraints a user declares; created, awaited, and checked.

FILE = "schema.cypher"  # beside nodes/ and relationships/ of a snapshot
SHOW = "SHOW INDEXES YIELD name, state, populationPercent, labelsOrTypes, properties"
ORPHANS = "SHOW INDEXES YIELD name, owningConstraint WHERE name = $name AND owningConstraint IS NULL"
ALL_ORPHANS = "SHOW INDEXES YIELD name, owningConstraint, type WHERE owningConstraint IS NULL AND type = 'RANGE' RETURN name"
SHOW_KEYS = "SHOW CONSTRAINTS YIELD name, type, labelsOrTypes, properties"
# The file comes with the data: it may describe a schema and do nothing else.
# Not so any word before INDEX: CREATE USER index ... would make a login.
_KINDS = "RANGE|TEXT|POINT|LOOKUP|FULLTEXT|VECTOR"
_ALLOWED = re.compile(rf"CREATE\s+(?:(?:(?:{_KINDS})\s+)?INDEX|CONSTRAINT)\b", re.IGNORECASE)
_COMMENT = re.compile(r"^\s*//.*$", re.MULTILINE)
_PATIENCE = 6 * 3600.0  # seconds an index may take to be built; the load's heartbeat goes on meanwhile


class NotUnique(Exception):
    """A constraint cannot hold: some nodes share a key."""


class _InTheWay(Exception):
    """An index stands where a constraint is to be."""

    def __init__(self, error: ClientError, statement: str) -> None:
        super().__init__(str(error.message))
        self.error, self.statement = error, statement


def declared(settings: Mapping[str, Any], snapshot: Path) -> list[str]:
    """The statements of the configuration and of the snapshot's own file; raises BadInput for any other kind."""
    statements = [*settings["indexes"], *_read(snapshot / FILE)]
    for statement in statements:
        if not _ALLOWED.match(statement):
            what = f"The schema may only hold CREATE INDEX and CREATE CONSTRAINT, not: {statement[:80]}"
            raise BadInput(what, kept=_KEPT, cure=f"Change neo4j.indexes or {FILE}.")
    return statements


def _read(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read: {type(error).__name__}.", kept=_KEPT) from error
    return [part.strip() for part in _COMMENT.sub("", text).split(";") if part.strip()]


def apply(server: Server, database: str, statements: Sequence[str]) -> None:
    """Create everything declared and wait until it can be used.

    What a crash of the server left of a constraint, its index, is in the way of the constraint: it is dropped, once.
    """
    try:
        _create_all(server, database, statements)
    except _InTheWay:
        for row in server.read(database, ALL_ORPHANS, f"Listing the indexes of {database}"):
            server.change(database, f"DROP INDEX {quote(row['name'])} IF EXISTS", "Dropping an index")
        try:
            _create_all(server, database, statements)
        except _InTheWay as again:
            raise _refuse(again.error, again.statement) from again.error
    await_online(server, database)


def _create_all(server: Server, database: str, statements: Sequence[str]) -> None:
    for statement in statements:
        try:
            create(server, database, statement)
        except NotUnique as error:
            raise BadInput(f"The declared constraint does not hold: {error}", kept=_KEPT) from error


def create(server: Server, database: str, statement: str) -> None:
    """Run one statement; what is there already is as good as made. Raises NotUnique or BadInput."""
    with (
        server.asking(f"Creating the schema of {database}") as driver,
        server.session(driver, database) as session,
    ):
        try:
            repeat(lambda: session.run(statement).consume())
        except ClientError as error:
            _judge(error, statement)
        except Neo4jError as error:
            if "ConstraintCreationFailed" not in (error.code or ""):
                raise
            if "Enterprise" in str(error.message):
                raise _refuse(error, statement) from error
            raise NotUnique(str(error.message)) from error


def _judge(error: ClientError, statement: str) -> None:
    code = error.code or ""
    if _is_as_good(code, statement):
        return
    if "IndexAlreadyExists" in code or "IndexWithNameAlreadyExists" in code:
        raise _InTheWay(error, statement) from error
    if "Constraint" in code and "AlreadyExists" not in code:
        raise NotUnique(str(error.message)) from error
    if ".Statement." in code or ".Schema." in code:
        raise _refuse(error, statement) from error
    raise error


def _refuse(error: Neo4jError, statement: str) -> BadInput:
    said = " ".join(str(error.message).split())
    return BadInput(f"The server refused the schema {statement!r}: {said}", kept=_KEPT)


def clear_orphan(server: Server, database: str, name: str) -> None:
    """Drop the index of a constraint that a crash of the server kept from being made; it would be in the way."""
    for row in server.read(database, ORPHANS, f"Listing the indexes of {database}", name=name):
        server.change(database, f"DROP INDEX {quote(row['name'])} IF EXISTS", f"Dropping the index {name}")


def _is_as_good(code: str, statement: str) -> bool:
    """What is there already does what the statement asks for: the same, or a key where an index will do."""
    if "EquivalentSchemaRuleAlreadyExists" in code:
        return True
    if "IndexAlreadyExists" in code and re.search(r"\bCONSTRAINT\b", statement, re.IGNORECASE):
        return False
    modest = not re.search(r"IS\s+NODE\s+KEY|IS\s+RELATIONSHIP\s+KEY|NOT\s+NULL|::", statement, re.IGNORECASE)
    return modest and ("ConstraintAlreadyExists" in code or "IndexAlreadyExists" in code)


def await_online(server: Server, database: str) -> None:
    """Return when every index is online; raises TargetError for one that failed or takes too long."""
    deadline = monotonic() + _PATIENCE
    while waiting := [row for row in show(server, database) if row["state"] != "ONLINE"]:
        failed = [row["name"] for row in waiting if row["state"] == "FAILED"]
        if failed or monotonic() > deadline:
            raise TargetError(
                f"{database}: the index {(failed or [waiting[0]['name']])[0]} was not built.", kept=_KEPT
            )
        threading.Event().wait(0.05)


def show(server: Server, database: str) -> Rows:
    """One row per index."""
    return server.read(database, SHOW, f"Listing the indexes of {database}")


def find_troubles(server: Server, database: str, statements: Sequence[str]) -> list[str]:
    """What is missing of the declared schema: an index not online, a statement that still changes something."""
    troubles = [
        f"index {row['name']} is {row['state']} ({row['populationPercent']:.0f} %)"
        for row in show(server, database)
        if row["state"] != "ONLINE"
    ]
    for statement in statements:
        with (
            server.asking(f"Checking the schema of {database}") as driver,
            server.session(driver, database) as session,
        ):
            try:
                done = repeat(lambda statement=statement: session.run(statement).consume())  # type: ignore[misc]
                if done.counters.contains_updates:
                    troubles.append(f"was missing: {statement}")
            except ClientError as error:
                if not _is_as_good(error.code or "", statement):
                    raise explain(error, f"Checking the schema of {database}", server.access.uri) from error
    return troubles
