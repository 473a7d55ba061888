"""Keys: one uniqueness constraint per node table, made once its nodes are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bgdeploy.errors import BgdeployError, TargetError
from bgdeploy.failpoints import reach
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Ledger
from bgdeploy.targets.diagnosis import Desk, diagnose
from bgdeploy.targets.neo4j import schema
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.names import CYPHER, quote

_KEPT = "What is live stays live."


def create_keys(server: Server, database: str, snapshot: Snapshot) -> None:
    """Make the constraints and wait until they can be used; raises Misfit for a table whose ids are not unique."""
    for label in dict.fromkeys(table.name for table in snapshot.nodes if table.rows):
        schema.clear_orphan(server, database, key_name(label))
        try:
            schema.create(server, database, create_key(label, key_of(snapshot, label)))
        except schema.NotUnique as error:
            raise Misfit("node", label, f"{str(error).rstrip('.')}.") from error
    schema.await_online(server, database)


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
        raise explain(database, snapshot, folder, ledger, misfit) from misfit
    schema.apply(server, database, declared)
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


def explain(database: str, snapshot: Snapshot, folder: Path, ledger: Ledger, misfit: Misfit) -> BgdeployError:
    """Let the files tell what does not fit; where they are right, the server holds something else."""
    # A key counts for all nodes that carry the label, whatever folder they come from.
    desk = Desk(snapshot, ledger, folder, across=True)
    if (bad := diagnose(desk, misfit, _KEPT)) is not None:
        return bad
    what = f"Loading {misfit.name} into {database}: {misfit.said} But in the files every id is right."
    return TargetError(what, kept=_KEPT, cure="Does somebody else write into this database?")
