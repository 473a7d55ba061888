"""What a server said when its disk filled, as recorded on 5.26.26, and what is made of it."""

from __future__ import annotations

from dataclasses import fields

import pytest
from neo4j.exceptions import IncompleteCommit, Neo4jError, ServiceUnavailable

from bgdeploy.cli.customers import _hints, _row
from bgdeploy.errors import BgdeployError, TargetAway, TargetFull
from bgdeploy.service.results import Customer
from bgdeploy.targets.neo4j.access import NoSuchName, ServerRefused, explain, open_server
from tests.neo4j.servers import free_port

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


def test_the_servers_own_code_goes_with_the_error_and_not_with_what_the_statement_quotes() -> None:
    quoted = "Invalid value 'Neo.ClientError.Statement.SyntaxError'"
    for code, kind in (
        ("Neo.ClientError.Statement.SyntaxError", ServerRefused),
        ("Neo.ClientError.General.ForbiddenReadOnlyDatabase", ServerRefused),
        ("Neo.ClientError.Statement.ArgumentError", NoSuchName),
    ):
        said = f"{quoted} does not exist." if kind is NoSuchName else quoted
        error = Neo4jError._hydrate_neo4j(code=code, message=said)  # type: ignore[attr-defined]
        found = explain(error, "Asking acme", "neo4j://localhost:7687")
        assert type(found) is kind
        assert (found.said_code, found.code) == (code, "target")


@pytest.mark.parametrize("scheme", ["bolt", "neo4j"])
def test_a_server_that_is_away_takes_one_short_sentence(scheme: str) -> None:
    port = free_port()
    with pytest.raises(TargetAway) as caught:
        open_server({"uri": f"{scheme}://127.0.0.1:{port}", "user": "neo4j", "password": "x"}).identity()
    assert caught.value.what == f"The Neo4j server 127.0.0.1:{port} cannot be reached: connection refused."


def test_it_is_said_once_for_all_customers() -> None:
    said = "whatever it is: The Neo4j server a:7687 cannot be reached: connection refused."
    blank = dict.fromkeys(one.name for one in fields(Customer))
    more = {"rolled_back": [], "pinned": [], "trouble": said, "trouble_code": "unknown"}
    found = [Customer(**{**blank, **more, "customer": name, "alias": name}) for name in ("acme", "globex")]
    assert [_row(one)[-1] for one in found] == ["TROUBLE: unknown"] * 2
    assert _hints(found)[0] == said
