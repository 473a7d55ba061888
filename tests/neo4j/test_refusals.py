"""What a server said when its disk filled, as recorded on 5.26.26, and what is made of it."""

from __future__ import annotations

import pytest
from neo4j.exceptions import Neo4jError

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
