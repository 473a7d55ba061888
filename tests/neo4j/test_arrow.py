"""Arrow from snapshot to alias: the strict endpoint imports what it was sent into real Community processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.house import House, make_house, stop
from tests.neo4j.standin import StandIn

FIRST = 1700000001
ROWS = 2000  # 400 addresses, 800 entities, 800 relationships
RUN = ("run", "--timeout", "85")
WHOLE = {"nodes": 1200, "ids": 1200, "relationships": 800}


@pytest.fixture
def house(enterprise: StandIn, tmp_path: Path) -> House:
    return make_house(tmp_path, neo4j={**enterprise.settings, "loader": "arrow"})


def name(number: int = 0, mark: str = "") -> str:
    return f"acme-{FIRST + number}{mark}"


def databases(server: StandIn) -> set[str]:
    return {row["name"] for row in server.system("SHOW DATABASES YIELD name")} - {"system", "neo4j"}


def asked(server: StandIn) -> list[str]:
    return [str(one).removeprefix("v1/") for one in server.control()["imports"]]


def imports_left(server: StandIn) -> list[str]:
    return [path.name for path in server.folder.glob("import-*")]


def test_a_whole_life_over_arrow(enterprise: StandIn, house: House) -> None:
    for number in range(3):
        house.drop("acme", FIRST + number, rows=ROWS)
        house.run(*RUN)
        assert house.live("acme") == name(number)
        assert enterprise.counts(name(number)) == WHOLE
    actions = ("ABORT", "CREATE_DATABASE", "NODE_LOAD_DONE", "RELATIONSHIP_LOAD_DONE")
    assert asked(enterprise)[:4] == [f"{action} {name()}" for action in actions]
    house.run("rollback", "acme", "--reason", "a test")
    assert house.live("acme") == name(1)
    assert house.states() == {FIRST: "cleaned", FIRST + 1: "switched", FIRST + 2: "switched"}
    assert databases(enterprise) == {name(1), name(2)}
    assert imports_left(enterprise) == []
    job = house.json("jobs", "show", "1")
    assert [table["rows_confirmed"] for table in job["tables"]] == [400, 800, 800]


def test_it_leaves_what_the_bolt_loader_leaves(enterprise: StandIn, tmp_path: Path) -> None:
    looks = (
        "MATCH (n) RETURN labels(n) AS labels, properties(n) AS all ORDER BY n.nodeId",
        "MATCH (a)-[r]->(b) RETURN a.nodeId AS a, b.nodeId AS b, type(r) AS type, properties(r) AS all "
        "ORDER BY a, b, toString(r.since), r.confidence",
        "SHOW CONSTRAINTS YIELD name, type, labelsOrTypes, properties RETURN * ORDER BY name",
        "SHOW INDEXES YIELD name, state, type, labelsOrTypes, properties, owningConstraint RETURN * ORDER BY name",
    )
    found: list[Any] = []
    for number, loader in enumerate(("bolt", "arrow")):
        (tmp_path / loader).mkdir()
        index = "CREATE INDEX named FOR (n:Entity) ON (n.name)"
        settings = {**enterprise.settings, "loader": loader, "indexes": [index]}
        house = make_house(tmp_path / loader, neo4j=settings)
        house.drop(f"acme{number}", FIRST, rows=300)
        house.run(*RUN)
        found.append([enterprise.rows(f"acme{number}-{FIRST}", look) for look in looks])
    assert found[0] == found[1]


ALL = "BGDEPLOY_KILLS" in os.environ  # every moment and fault there is: an import takes many seconds
KILLS = [("load.batch.sent:2", "-f2")]
if ALL:
    KILLS = [
        ("load.proof:1", ""), ("load.creating:1", "-f2"), ("load.created:1", "-f2"), ("load.batch.sent:2", "-f2"),
        ("load.nodes.done:1", "-f2"), ("load.batch.sent:3", "-f2"), ("load.relationships.sent:1", "-f2"),
        ("load.relationships.done:1", "-f2"), ("load.group.confirmed:1", ""), ("load.closing:1", ""),
        ("publish.before:1", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(("moment", "mark"), KILLS, ids=[one[0] for one in KILLS])
def test_a_kill_at_this_moment_ends_with_exact_counts_and_leaves_nothing(
    enterprise: StandIn, house: House, moment: str, mark: str
) -> None:
    house.drop("acme", FIRST, rows=ROWS)
    service = house.start("serve", failpoint=f"{moment}:kill")
    house.await_("the child was killed once", lambda: "load.retry" in kinds(house))
    service.kill()
    service.wait(60)
    house.run(*RUN)
    assert house.states() == {FIRST: "switched"}
    live = house.live("acme")
    assert live == name(0, mark) or (mark and str(live).startswith(name(0, "-f")))
    assert enterprise.counts(str(live)) == WHOLE
    assert databases(enterprise) == {live}
    assert imports_left(enterprise) == []


def kinds(house: House) -> list[str]:
    jobs = house.json("jobs", "list")
    return [event["kind"] for event in house.json("jobs", "show", "1")["events"]] if jobs else []


WAITS: list[tuple[dict[str, Any] | None, str]] = [
    (None, "needs Neo4j Graph Data Science (Enterprise), which this server does not have"),
    ({"enabled": False, "running": False}, "Arrow endpoint is switched off"),
    ({"running": False}, "is switched on and does not run"),
    ({"versions": ["v9"]}, "speaks v9, and bgdeploy v1"),
]


@pytest.mark.parametrize(("told", "said"), WAITS if ALL else WAITS[:1])
def test_without_an_endpoint_the_job_waits_and_uses_no_attempt(
    enterprise: StandIn, house: House, told: dict[str, Any] | None, said: str
) -> None:
    enterprise.control(told={"arrow": told})
    house.drop("acme", FIRST, rows=100)
    service = house.start("serve")
    house.await_("it says why it waits", lambda: said in str(house.json("jobs", "list")))
    assert stop(service) == 0
    job = house.json("jobs", "list")[0]
    assert (job["state"], job["attempt"]) == ("queued", 0)
    assert databases(enterprise) == set()


FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("dies", {"die_after": 0}, "the server refused. The import failed: java.lang.OutOfMemoryError"),
    ("nodes", {"node_count": -1}, "1,200 nodes were sent, and the server counts 1,199"),
    ("relationships", {"relationship_count": 1}, "800 relationships were sent, and the server counts 801"),
]


@pytest.mark.parametrize(("faults", "said"), [one[1:] for one in (FAULTS if ALL else FAULTS[:1])])
def test_what_went_wrong_is_said_and_nothing_of_it_is_left(
    enterprise: StandIn, tmp_path: Path, faults: dict[str, Any], said: str
) -> None:
    enterprise.control(told={"arrow_faults": faults})
    house = make_house(tmp_path, neo4j={**enterprise.settings, "loader": "arrow"}, max_retries=1)
    house.drop("acme", FIRST, rows=ROWS)
    house.run(*RUN, ok=False)
    job = house.json("jobs", "list")[0]
    assert job["state"] == "failed"
    assert said in job["error"]
    assert databases(enterprise) == set()
    assert imports_left(enterprise) == []
    if "relationship_count" not in faults:
        assert asked(enterprise)[-2:] == [f"ABORT {name()}", f"gone {name()}"]


def test_an_import_that_a_dead_client_left_is_aborted_first(enterprise: StandIn, house: House) -> None:
    from bgdeploy.targets.neo4j.access import Access
    from bgdeploy.targets.neo4j.arrow.client import Address, Client

    access = Access(enterprise.uri, "neo4j", enterprise.settings["password"])
    dead = Client(access, Address("127.0.0.1", enterprise.arrow_port, False, True, None, ""))
    dead.create(name(), {"id_type": "STRING", "id_property": "id", "concurrency": 1})
    house.drop("acme", FIRST, rows=100)
    house.run(*RUN)
    assert house.live("acme") == name()
    assert asked(enterprise)[1:3] == [f"ABORT {name()}", f"gone {name()}"]


def test_a_database_of_that_name_is_stepped_around(enterprise: StandIn, house: House) -> None:
    enterprise.control(foreign=name())
    house.drop("acme", FIRST, rows=100)
    house.run(*RUN)
    assert house.live("acme") == name(0, "-f1")
    assert databases(enterprise) == {name(), name(0, "-f1")}


def test_over_tls_with_an_authority_of_ones_own(enterprise: StandIn, tmp_path: Path) -> None:
    if not enterprise.certificate.exists():
        pytest.skip("no openssl to make a certificate with")
    where = {"uri": f"neo4j://127.0.0.1:{enterprise.tls_port}", "ca_file": str(enterprise.certificate)}
    settings = {**enterprise.settings, **where, "loader": "arrow", "arrow_port": enterprise.arrow_tls_port}
    house = make_house(tmp_path, neo4j=settings)
    house.drop("acme", FIRST, rows=100)
    house.run(*RUN)
    assert house.live("acme") == name()
