"""What a server said when its disk filled, as recorded on 5.26.26, and what is made of it."""

from __future__ import annotations

import pytest
from neo4j.exceptions import IncompleteCommit, Neo4jError, ServiceUnavailable

from bgdeploy.errors import BgdeployError, TargetAway, TargetFull
from bgdeploy.targets.neo4j.refusals import explain

LOG = "Could not append transaction: Transaction #68 {started ..., with 26060 commands in this transaction} to log."
PANIC = "The database has encountered a critical error, and needs to be restarted. Please see database logs."


@pytest.mark.parametrize(
    ("code", "message", "kind", "said"),
    [
        ("Neo.DatabaseError.Transaction.TransactionLogError", LOG, TargetFull, "disk is full, or fails"),
        (
            "Neo.DatabaseError.Transaction.TransactionStartFailed",
            PANIC,
            TargetAway,
            "has stopped this database",
        ),
    ],
)
def test_a_full_disk_at_the_server_uses_no_attempt_and_is_said(
    code: str, message: str, kind: type[BgdeployError], said: str
) -> None:
    error = Neo4jError._hydrate_neo4j(code=code, message=message)  # type: ignore[attr-defined]
    found = explain(error, "Loading Entity into acme-1", "neo4j://localhost:7687")
    assert type(found) is kind
    assert said in found.what
    assert found.cure


@pytest.mark.parametrize(
    "error",
    [
        ("Neo.ClientError.Statement.SyntaxError", "Invalid input 'MTCH'"),
        ("Neo.ClientError.Statement.AccessMode", "Writing in read access mode not allowed."),
        ("Neo.TransientError.Database.DatabaseUnavailable", "Database 'acme' is unavailable."),
        ("Neo.ClientError.Database.DatabaseNotFound", "Graph not found: acme"),
        ("Neo.ClientError.Transaction.TransactionTimedOut", "The transaction has been terminated."),
        ("Neo.DatabaseError.General.UnknownError", ""),
        ("Neo.ClientError.Statement.UnsupportedAdministrationCommand", "Unsupported"),
        ServiceUnavailable("gone"),
        IncompleteCommit("gone"),
        OSError("gone"),
        RuntimeError("odd"),
    ],
    ids=str,
)
def test_whatever_a_server_says_there_is_a_cure(error: tuple[str, str] | Exception) -> None:
    if isinstance(error, tuple):
        error = Neo4jError._hydrate_neo4j(code=error[0], message=error[1])  # type: ignore[attr-defined]
    found = explain(error, "Asking acme", "neo4j://localhost:7687")
    assert found.cure
    assert found.kept
