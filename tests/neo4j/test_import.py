"""The ``import`` loader: the real tool, stores that the Enterprise stand-in mounts in real Community processes."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from bgdeploy.targets.neo4j.offline.store import MARK
from tests.house import House, make_house, stop
from tests.neo4j.servers import LTS, Community
from tests.neo4j.standin import StandIn
from tests.snapshots.folders import write

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


WHOLE = {"nodes": 1200, "ids": 1200, "relationships": 800}


@pytest.mark.timeout(400)
def test_a_whole_life_by_import(enterprise: StandIn, house: House) -> None:
    """Live, standby, rollback, the next one, clean: each store is mounted, and goes with its database."""
    for number in range(2):
        house.drop("acme", FIRST + number, rows=ROWS)
        house.run("run", "--timeout", "80")
    assert house.states() == {FIRST: "switched", FIRST + 1: "switched"}
    assert enterprise.counts(f"acme-{FIRST + 1}") == WHOLE
    house.run("rollback", "acme", "--reason", "a trial")
    assert house.live("acme") == f"acme-{FIRST}"
    assert house.json("query", "acme", "MATCH (n:Entity) RETURN count(*) AS n") == [{"n": 800}]
    house.drop("acme", FIRST + 2, rows=ROWS)
    house.run("run", "--timeout", "80")
    assert house.live("acme") == f"acme-{FIRST + 2}"
    kept = {f"acme-{FIRST}", f"acme-{FIRST + 2}"}
    assert house.states() == {FIRST: "switched", FIRST + 1: "cleaned", FIRST + 2: "switched"}
    assert stores(enterprise) == kept
    assert house.leftovers() == []


def whole(enterprise: StandIn, house: House, database: str = f"acme-{FIRST}") -> None:
    """Live with exact counts, and nothing of an earlier run is left at the server or here."""
    house.run("run", "--timeout", "80")
    assert house.states() == {FIRST: "switched"}
    assert house.live("acme") == database
    assert enterprise.counts(database) == WHOLE
    assert stores(enterprise) == {database}
    assert house.leftovers() == []
    assert tools() == []


def tools() -> list[psutil.Process]:
    """Every process that writes a store now, but for those of tests that run beside these."""
    return [one for one in psutil.process_iter() if _is_tool(one)]


def _is_tool(process: psutil.Process) -> bool:
    beside = f"popen-{os.environ['PYTEST_XDIST_WORKER']}" if "PYTEST_XDIST_WORKER" in os.environ else ""
    try:
        return MARK in process.environ() and beside in " ".join(process.cmdline())
    except (psutil.Error, OSError):
        return False


def find(who: str) -> psutil.Process:
    """The keeper, or the tool that does the work."""
    word = {"keeper": "keeper.py", "tool": "AdminTool"}[who]
    return next(
        one
        for one in tools()
        if word in " ".join(one.cmdline()) and ("java" in one.name()) == (who == "tool")
    )


def kinds(house: House) -> list[str]:
    jobs = house.json("jobs", "list")
    return [event["kind"] for event in house.json("jobs", "show", "1")["events"]] if jobs else []


ALL = "BGDEPLOY_KILLS" in os.environ  # every moment and fault there is: an import takes many seconds
CHILD = ["load.import.after", "load.import.before", "load.created", "load.group.confirmed", "load.closing"]


@pytest.mark.parametrize("moment", CHILD if ALL else CHILD[:1])
def test_a_kill_of_the_loader_at_this_moment_changes_nothing_in_the_end(
    enterprise: StandIn, house: House, moment: str
) -> None:
    house.drop("acme", FIRST, rows=ROWS)
    service = house.start("serve", failpoint=f"{moment}:1:kill")
    house.await_("the child was killed once", lambda: "load.retry" in kinds(house))
    service.kill()
    service.wait()
    whole(enterprise, house)


VICTIMS = ["loader", "service", "keeper", "tool"]


@pytest.mark.parametrize("victim", VICTIMS if ALL else VICTIMS[:1])
def test_a_kill_while_the_tool_works_begins_the_import_again(
    enterprise: StandIn, house: House, victim: str
) -> None:
    house.drop("acme", FIRST, rows=ROWS)
    service = house.start("serve")
    await_(lambda: any("java" in one.name() for one in tools()))
    if victim in ("keeper", "tool"):
        find(victim).kill()
    elif victim == "loader":
        find("keeper").parent().kill()  # type: ignore[union-attr]
    else:
        service.kill()
        service.wait()
        await_(lambda: not tools())
        service = house.start("serve")
    house.await_("it is live", lambda: house.live("acme") == f"acme-{FIRST}")
    assert stop(service) == 0
    whole(enterprise, house)


def await_(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def await_reason(house: House, said: str) -> None:
    """Wait until a job that waits says why."""
    service = house.start("serve")
    house.await_(said, lambda: said in str([job["reason"] for job in house.json("jobs", "list")]))
    assert stop(service) == 0


def change(house: House, **neo4j: Any) -> None:
    """Set other keys of the section."""
    path = house.folder / "config.yaml"
    config = json.loads(path.read_text())
    config["neo4j"] |= neo4j
    path.write_text(json.dumps(config))


OTHER = '#!/bin/sh\necho "neo4j 4.4.1"\n'


def test_what_keeps_the_tool_from_working_is_said_and_waited_for(
    enterprise: StandIn, house: House, tool: Path
) -> None:
    house.drop("acme", FIRST, rows=ROWS)
    other = house.folder / "other"
    other.write_text(OTHER)
    other.chmod(0o755)
    change(house, import_tool=str(other))
    await_reason(house, f"The import tool {other} is of version 4.4.1, and the server of {LTS}")
    change(house, import_memory_mb=64)
    await_reason(house, "memory of the import tool: 1,024 MiB for 1,200 string ids, 64 MiB allowed")
    change(house, import_memory_mb=None, import_tool=str(house.folder / "none"))
    await_reason(house, f"The import tool {house.folder / 'none'} cannot be run: No such file or directory")
    be_one_of_two(enterprise)
    change(house, import_tool=str(tool), seed_uri=f"file://{house.folder}/none")
    await_reason(house, f"leads to {house.folder}/none, which is no folder that bgdeploy may write to")
    change(house, seed_uri=f"file://{house.folder}")
    await_reason(
        house, "The server makes no database of a file: dbms.databases.seed_from_uri_providers is Cloud"
    )
    assert stores(enterprise) == set()
    change(house, seed_uri=None)
    whole(enterprise, house)


def test_a_server_on_another_host_is_told_from_this_one(enterprise: StandIn, house: House) -> None:
    house.drop("acme", FIRST, rows=ROWS)
    enterprise.control(told={"data": str(house.folder)})
    await_reason(house, f"{house.folder} is no data folder of a server here")
    enterprise.control(
        told={"data": str(data(enterprise)), "members": ["11111111-1111-1111-1111-111111111111"]}
    )
    await_reason(house, "holds server")


def test_a_store_and_a_database_of_that_name_are_left_as_they_are(enterprise: StandIn, house: House) -> None:
    house.drop("acme", FIRST, rows=ROWS)
    theirs = data(enterprise) / f"databases/acme-{FIRST}"
    theirs.mkdir()
    (theirs / "neostore").write_text("theirs")
    house.run("run", "--timeout", "80")
    assert house.live("acme") == f"acme-{FIRST}-f1"
    assert enterprise.counts(f"acme-{FIRST}-f1") == WHOLE
    assert (theirs / "neostore").read_text() == "theirs"
    assert house.leftovers() == []


BAD = {
    "double": ({"nodes/A/a.parquet": {"id": [1, 2, 2]}}, "repeats an id"),
    "dangling": (
        {"nodes/A/a.parquet": {"id": [1, 2]}, "relationships/R/a.parquet": {"src": [1, 1], "dst": [2, 9]}},
        "that no node has",
    ),
    "null": ({"nodes/A/a.parquet": {"id": [1, None, 2]}}, "has no id"),
}


@pytest.mark.parametrize("kind", BAD if ALL else ["dangling"])
def test_bad_rows_end_the_job_with_their_list_and_nothing_is_left(
    enterprise: StandIn, house: House, kind: str
) -> None:
    files, said = BAD[kind]
    write(house.folder / "data/acme" / str(FIRST), {name: pa.table(rows) for name, rows in files.items()})
    house.run("run", "--timeout", "60", ok=False)
    job = house.json("jobs", "show", "1")
    assert job["state"] == "failed", job["reason"]
    assert said in job["error"]
    assert stores(enterprise) == set()
    assert tools() == []


def be_one_of_two(enterprise: StandIn) -> None:
    """From now on the server says that it has a companion."""
    mine = enterprise.system(
        "SHOW DATABASES YIELD name, serverID, address WHERE name = 'system' RETURN serverID AS id, address"
    )
    enterprise.control(told={"members": [mine[0]["id"], "11111111-1111-1111-1111-111111111111"]})


def test_in_a_cluster_the_other_members_copy_from_the_one_with_the_store(
    enterprise: StandIn, house: House
) -> None:
    change(house, primaries=3, secondaries=2)
    be_one_of_two(enterprise)
    house.drop("acme", FIRST, rows=ROWS)
    whole(enterprise, house)
    said = enterprise.control()["said"]
    clauses = "TOPOLOGY 3 PRIMARIES 2 SECONDARIES OPTIONS $options WAIT 60 SECONDS"
    assert f"CREATE DATABASE $name IF NOT EXISTS {clauses}" in said


SOWING = ["load.seed.after", "load.seed.before", "load.created"]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("moment", SOWING if ALL else SOWING[:1])
def test_with_a_folder_of_seeds_every_member_makes_it_of_a_dump_there(
    enterprise: StandIn, house: House, moment: str
) -> None:
    """Live with exact counts however often it is begun; of stores and dumps only somebody else's is left."""
    seeds, database = house.folder / "seeds of all", f"acme-{FIRST}-f1"
    seeds.mkdir()
    theirs = seeds / f"acme-{FIRST}.dump"
    theirs.write_text("theirs")
    change(house, seed_uri=f"file://{house.folder}/seeds%20of%20all/")
    enterprise.control(told={"seeds": "FileSeedProvider,CloudSeedProvider"})
    be_one_of_two(enterprise)
    house.drop("acme", FIRST, rows=ROWS)
    service = house.start("serve", failpoint=f"{moment}:1:kill")
    house.await_("the child was killed once", lambda: "load.retry" in kinds(house))
    service.kill()
    service.wait()
    house.run("run", "--timeout", "80")
    assert house.live("acme") == database
    assert enterprise.counts(database) == WHOLE
    assert stores(enterprise) == set()
    assert [path.read_text() for path in seeds.iterdir()] == ["theirs"]
    assert house.leftovers() == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize("loader", ["bolt", "import"] if ALL else ["bolt"])
def test_a_leader_that_changes_all_the_time_costs_nothing_but_time(
    enterprise: StandIn, house: House, loader: str
) -> None:
    """One in seven statements, and one in seven transactions, meets a member that leads no longer."""
    change(house, loader=loader, batch_rows=600)
    enterprise.control(told={"another_leads": 0.15})
    for number in range(2):
        house.drop("acme", FIRST + number, rows=ROWS)
        house.run("run", "--timeout", "300")
    house.run("rollback", "acme", "--reason", "a trial")
    enterprise.control(told={"another_leads": None})
    assert house.live("acme") == f"acme-{FIRST}"
    assert enterprise.counts(f"acme-{FIRST}") == WHOLE
    for number in range(2):
        events = [event["kind"] for event in house.json("jobs", "show", str(number + 1))["events"]]
        assert "load.retry" not in events
        assert "load.waits" not in events
