"""The ``import`` loader: the real tool, stores that the Enterprise stand-in mounts in real Community processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.house import House, make_house
from tests.neo4j.servers import LTS, Community
from tests.neo4j.standin import StandIn

FIRST = 1700000001
ROWS = 2000  # 400 addresses, 800 entities, 800 relationships


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The import tool of the servers behind the stand-in."""
    return Community(Path(), LTS).write_tool(tmp_path_factory.mktemp("tool") / "neo4j-admin")


@pytest.fixture
def house(enterprise: StandIn, tool: Path, tmp_path: Path) -> House:
    neo4j = {**enterprise.settings, "loader": "import", "import_tool": str(tool), "import_memory_mb": 2048}
    return make_house(tmp_path, neo4j=neo4j)


def data(server: StandIn) -> Path:
    """The data folder of the server that the stand-in stands for."""
    return server.folder / "data"


def stores(server: StandIn) -> set[str]:
    """Every store and log that lies at the server."""
    return {path.name for name in ("databases", "transactions") for path in (data(server) / name).glob("*")}


def counts(server: StandIn, database: str) -> dict[str, Any]:
    """What is in a database, counted without bgdeploy."""
    rows = server.rows(
        database,
        "MATCH (n) WITH count(n) AS nodes, count(DISTINCT n.nodeId) AS ids "
        "MATCH ()-[r]->() RETURN nodes, ids, count(r) AS relationships",
    )
    return dict(rows[0])


WHOLE = {"nodes": 1200, "ids": 1200, "relationships": 800}


def test_a_whole_life_by_import(enterprise: StandIn, house: House) -> None:
    """Live, standby, rollback, the next one, clean: each store is mounted, and goes with its database."""
    for number in range(2):
        house.drop("acme", FIRST + number, rows=ROWS)
        house.run("run", "--timeout", "80")
    assert house.states() == {FIRST: "switched", FIRST + 1: "switched"}
    assert counts(enterprise, f"acme-{FIRST + 1}") == WHOLE
    house.run("rollback", "acme", "--reason", "a trial")
    assert house.live("acme") == f"acme-{FIRST}"
    assert house.json("query", "acme", "MATCH (n:Entity) RETURN count(*) AS n") == [{"n": 800}]
    house.drop("acme", FIRST + 2, rows=ROWS)
    house.run("run", "--timeout", "80")
    house.drop("acme", FIRST + 3, rows=ROWS)
    house.run("run", "--timeout", "80")
    assert house.states()[FIRST] == "cleaned"
    assert house.live("acme") == f"acme-{FIRST + 3}"
    assert stores(enterprise) == {f"acme-{FIRST + number}" for number in (2, 3)}
    assert house.leftovers() == []
