"""A read-only database whose server is killed: it comes back, or is started again, and what is said meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from bgdeploy.targets.neo4j import aliases, databases
from bgdeploy.targets.neo4j.access import Server
from bgdeploy.targets.neo4j.target import Neo4j
from tests.house import House, make_house
from tests.neo4j.loading import loading
from tests.neo4j.servers import LTS, Community, NoServer, do_without, fetch
from tests.neo4j.standin import StandIn
from tests.neo4j.test_enterprise import access_of, alias, deploy, name, serving

# A small index is rebuilt by the recovery itself, read-only or not, which ends without waiting for a larger one.
LARGE = (
    "UNWIND range(1, 60000) AS i CREATE (:Large {id: i, text: 'a text of some length ' + toString(i)})",
    "CREATE INDEX large_text FOR (n:Large) ON (n.text)",
    "CREATE INDEX large_id FOR (n:Large) ON (n.id)",
)


def enlarge(server: StandIn, database: str) -> None:
    for text in (*LARGE, "CALL db.awaitIndexes(60)"):
        server.rows(database, text)


@pytest.mark.neo4j
def test_an_index_that_no_checkpoint_wrote_keeps_a_read_only_database_down(
    tmp_path: Path,
) -> None:
    """What the rest of this module rests on, seen on the real kernel: a load, kill -9, and what then starts."""
    try:
        fetch(LTS)
    except NoServer as error:
        do_without(error)
    server = Community(tmp_path / "home", LTS)
    server.prepare()
    server.start()
    try:
        server.wait()
        load = loading(tmp_path, server.uri, rows=60_000, batch_rows=10_000, indexes=list(LARGE[1:]))
        load.load()
        protect(server)
        status, said = server.settled()
        assert (status, said != "") == ("offline", True)
        protect(server, read_only=False)  # the way of healing: writable, stopped, started
        assert server.settled()[0] == "online"
        load.verify()
    finally:
        server.kill()


def protect(server: Community, *, read_only: bool = True) -> None:
    server.kill()
    server.settings = {"server.databases.read_only": "neo4j"} if read_only else {}
    server.start()


@pytest.fixture
def crashing(enterprise: StandIn) -> StandIn:
    """Without ``db.checkpoint``, which the processes behind do not have."""
    enterprise.control(told={"checkpoint": False})
    return enterprise


def status_of(server: StandIn, database: str) -> tuple[str, str]:
    rows = server.system("SHOW DATABASES YIELD name, currentStatus, statusMessage")
    return next((row["currentStatus"], row["statusMessage"]) for row in rows if row["name"] == database)


def crash(house: House, server: StandIn, database: str) -> None:
    server.control(kill=database)
    house.await_("it is up, or down", lambda: status_of(server, database)[0] in ("online", "offline"))


def test_a_standby_comes_back_after_a_crash(crashing: StandIn, tmp_path: Path) -> None:
    house = make_house(tmp_path, neo4j=crashing.settings)
    deploy(house, 0)
    enlarge(crashing, name(0))
    deploy(house, 1)
    assert access_of(crashing, name(0)) == "read-only"
    said = crashing.control()["said"]
    assert said.index(databases.STOP) < said.index(databases.READ_ONLY)
    crash(house, crashing, name(0))
    assert status_of(crashing, name(0)) == ("online", "")
    house.run("rollback", "acme", "--reason", "a test")
    assert alias(crashing) == name(0)


def test_what_is_down_since_it_is_read_only_is_started_and_protected_again(
    crashing: StandIn, tmp_path: Path
) -> None:
    house = make_house(tmp_path, neo4j=crashing.settings)
    deploy(house, 0)
    enlarge(crashing, name(0))
    crashing.system("ALTER DATABASE $name SET ACCESS READ ONLY WAIT 60 SECONDS", name=name(0))
    crash(house, crashing, name(0))  # as an older bgdeploy left it
    status, message = status_of(crashing, name(0))
    assert status == "offline"
    crashing.control(foreign="somebodys")
    crashing.system("ALTER DATABASE $name SET ACCESS READ ONLY WAIT 60 SECONDS", name="somebodys")
    crashing.control(status={"name": "somebodys", "status": "offline", "message": message})
    trouble = house.json("customers")[0]["trouble"]
    assert trouble.startswith(f"{name(0)} is offline on ")
    assert message in trouble
    told = house.run("doctor", "--json", ok=False).stdout
    assert f"{name(0)}, which the alias acme points at, is offline" in told
    assert message in told
    with serving(house):
        house.await_("it is started", lambda: status_of(crashing, name(0))[0] == "online")
        house.await_("it is said", lambda: f"{name(0)} runs again" in (house.folder / "log").read_text())
    assert (status_of(crashing, "somebodys")[0], access_of(crashing, "somebodys")) == ("offline", "read-only")
    # It is live and would have to be stopped for a checkpoint: it stays writable until an alias leaves it.
    assert access_of(crashing, name(0)) == "read-write"
    assert "stays writable while it is live" in aliases.owed(house.folder / "state/builds")[name(0)]
    aliases.protect(server_of(house), house.folder / "state/builds", lambda: ())
    assert access_of(crashing, name(0)) == "read-only"


def server_of(house: House) -> Server:
    target = house.target()
    assert isinstance(target, Neo4j)
    return target._server


def test_a_standby_that_was_stopped_for_its_checkpoint_is_started_again(
    crashing: StandIn, tmp_path: Path
) -> None:
    house = make_house(tmp_path, neo4j=crashing.settings, auto_switch=False)
    deploy(house, 0)
    house.run("switch", "acme")
    deploy(house, 1)
    done = house.run("switch", "acme", failpoint="database.stopped:1:kill", ok=False)
    assert done.returncode == -9
    assert (alias(crashing), status_of(crashing, name(0))[0]) == (name(1), "offline")
    with serving(house):
        house.await_("it is started", lambda: status_of(crashing, name(0))[0] == "online")
        house.await_("it is protected", lambda: access_of(crashing, name(0)) == "read-only")
    assert house.live("acme") == name(1)


def test_what_a_rollback_leads_to_meanwhile_is_not_stopped(
    crashing: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two standbys are owed; while the first is stopped, another process moves the alias to the second."""
    house = make_house(tmp_path, neo4j=crashing.settings, keep_databases=3)
    deploy(house, 0, 1, 2)
    builds = house.folder / "state/builds"
    for number in (0, 1):
        crashing.system(databases.READ_WRITE, name=name(number))
        aliases.owe(builds, name(number))
    stopped: list[str] = []

    def move(failpoint: str) -> None:
        stopped.extend(one for one in map(name, range(3)) if status_of(crashing, one)[0] == "offline")
        if alias(crashing) != name(1):
            house.run("rollback", "acme", "--to", name(1), "--reason", "a test")

    monkeypatch.setattr(databases, "reach", move)
    aliases.protect(server_of(house), builds, server_live(house))
    assert (alias(crashing), name(1) in stopped) == (name(1), False)
    assert (access_of(crashing, name(1)), status_of(crashing, name(1))[0]) == ("read-write", "online")
    assert name(1) not in aliases.owed(builds)
    assert access_of(crashing, name(0)) == "read-only"


def server_live(house: House) -> Callable[[], Collection[str]]:
    return lambda: house.target().aliases().values()
