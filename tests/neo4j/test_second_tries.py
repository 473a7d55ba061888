"""What an earlier run left at the server, or another member says: a later one finds it and goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bgdeploy.errors import ConfigError, Refused, TargetAway, TargetError
from bgdeploy.targets.base import Ticket
from bgdeploy.targets.neo4j import databases, target
from bgdeploy.targets.neo4j import target as loaders
from bgdeploy.targets.neo4j.access import Access, RightMissing, Server
from bgdeploy.targets.neo4j.arrow import begun
from tests.neo4j.loading import Loading, loading
from tests.neo4j.servers import PASSWORD
from tests.neo4j.standin import StandIn

NAME = "acme-1"


@dataclass
class Build:
    """One snapshot on its way into a database of its own."""

    one: Loading
    fence: int = field(default=0)

    @property
    def target(self) -> target.Neo4j:
        found = self.one.target()
        assert isinstance(found, target.Neo4j)
        return found

    def load(self) -> Ticket:
        self.fence += 1
        ticket = Ticket(1, NAME, self.fence, self.one.settings())
        self.target.load(ticket, self.one.snapshot, self.one.ledger)
        return ticket

    def publish(self) -> None:
        self.target.publish(Ticket(1, NAME, self.fence, self.one.settings()), {})


def build(enterprise: StandIn, folder: Path, **options: Any) -> Build:
    return Build(loading(folder, enterprise.uri, rows=200, **options))


def test_a_run_that_was_cut_off_behind_the_protection_is_finished(
    enterprise: StandIn, tmp_path: Path
) -> None:
    one = build(enterprise, tmp_path, read_only="live", indexes=["CREATE INDEX FOR (n:Entity) ON (n.name)"])
    for _ in range(2):
        one.load()
        one.publish()
        rows = enterprise.system("SHOW DATABASES YIELD name, access")
        assert {row["name"]: row["access"] for row in rows}[NAME] == "read-only"


def test_a_member_that_lags_behind_is_waited_for(
    enterprise: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = build(enterprise, tmp_path)
    one.load()
    monkeypatch.setattr(databases, "_PATIENCE", 0.1)
    enterprise.control(told={"behind": 2})
    with pytest.raises(TargetAway, match="2 behind on"):
        one.publish()
    enterprise.control(told={"behind": 0})
    one.publish()


def test_another_database_that_lags_behind_is_nobodys_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "_PATIENCE", 0.0)
    there = [
        {"name": NAME, "address": "a:7687", "replicationLag": 0},
        {"name": "borealis-1", "address": "b:7687", "replicationLag": -9},
    ]
    server = Server(Access("bolt://127.0.0.1:1", "neo4j", PASSWORD))
    monkeypatch.setattr(server, "ask", lambda *_, **__: there)
    databases.await_copies(server, NAME)
    with pytest.raises(TargetAway, match="9 behind on b:7687"):
        databases.await_copies(server, "borealis-1")


def test_a_database_that_is_still_copied_uses_no_attempt(enterprise: StandIn, tmp_path: Path) -> None:
    one = build(enterprise, tmp_path)
    one.load()
    enterprise.control(status={"name": NAME, "status": "store copying"})
    with pytest.raises(TargetAway, match="store copying on"), one.target.inspect(NAME):
        pass


def test_a_role_that_is_not_there_is_the_configurations_fault(enterprise: StandIn, tmp_path: Path) -> None:
    one = build(enterprise, tmp_path, reader_roles=["nobody"])
    one.load()
    enterprise.control(told={"roles": ["analyst"]})
    with pytest.raises(ConfigError) as caught:
        one.publish()
    assert "neo4j.reader_roles" in caught.value.cure


def test_an_import_that_a_killed_process_began_is_aborted_by_the_drop(
    enterprise: StandIn, tmp_path: Path
) -> None:
    one = build(enterprise, tmp_path)
    folder = tmp_path / "state/builds" / NAME
    folder.mkdir(parents=True)
    begun.note(folder)
    one.target.drop(NAME, 1)
    assert enterprise.control()["imports"][0] == f"v1/ABORT {NAME}"
    assert not folder.exists()


def test_an_import_is_not_forgotten_while_the_server_cannot_be_asked(tmp_path: Path) -> None:
    begun.note(tmp_path)
    with pytest.raises(TargetAway):
        begun.forget(Server(Access("bolt://127.0.0.1:1", "neo4j", PASSWORD)), NAME, tmp_path)


def test_another_server_behind_the_same_name_is_found_after_any_trouble(enterprise: StandIn) -> None:
    server = Server(Access(enterprise.uri, "neo4j", PASSWORD))
    server.expected = server.identity()
    databases.show(server)
    server.expected = "the one before"
    databases.show(server)  # it was compared a moment ago
    with pytest.raises(TargetError):
        server.ask("NONSENSE", "Asking nonsense")
    with pytest.raises(Refused, match="belongs to another set-up"):
        databases.show(server)


@pytest.mark.parametrize(
    ("error", "closed"), [(TargetAway, False), (RightMissing, True), (ConfigError, True)]
)
def test_a_server_that_is_away_for_a_moment_closes_no_way(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], closed: bool
) -> None:
    def find_address(_: Server) -> None:
        raise error("It is so.")

    monkeypatch.setattr("bgdeploy.targets.neo4j.arrow.client.find_address", find_address)
    server = Server(Access("bolt://127.0.0.1:1", "neo4j", PASSWORD))
    if closed:
        assert loaders.find_arrow(server) == "It is so"
    else:
        with pytest.raises(TargetAway):
            loaders.find_arrow(server)
