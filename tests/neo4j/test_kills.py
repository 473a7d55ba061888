"""kill -9 of bgdeploy, of its loading process and of the server during a load: the end is as without it."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.house import House, make_house, stop
from tests.neo4j.standin import StandIn

FIRST = 1700000001
ROWS = 2000  # 400 addresses, 800 entities, 800 relationships
KILLS = int(os.environ.get("BGDEPLOY_KILLS", "3"))
SEED = 20261124


@pytest.fixture
def house(enterprise: StandIn, tmp_path: Path) -> House:
    return make_house(tmp_path, neo4j={**enterprise.settings, "batch_rows": 100})


CHILD = ["load.batch.written:8", "load.closing:1", "publish.before:1"]
SERVICE = ["switch.moved:1"]
if "BGDEPLOY_KILLS" in os.environ:  # every moment there is; the loader's own are tried in test_loader.py too
    CHILD = [
        "child.started:1", "load.created:1", "load.streams.before:1", "load.group.before:1", "load.batch.written:1",
        "load.batch.written:8", "load.batch.committed:5", "load.group.confirmed:1", "load.batch.committed:15",
        "load.group.confirmed:3", "load.closing:1", "child.verified:1", "publish.before:1", "publish.renamed:1",
    ]  # fmt: skip
    SERVICE = ["claim.done:1", "switch.intended:1", "switch.moved:1"]


@pytest.mark.parametrize("moment", [*CHILD, *SERVICE])
def test_a_kill_at_this_moment_changes_nothing_in_the_end(
    enterprise: StandIn, house: House, moment: str
) -> None:
    house.drop("acme", FIRST, rows=ROWS)
    service = house.start("serve", failpoint=f"{moment}:kill")
    if moment in CHILD:
        house.await_("the child was killed once", lambda: "load.retry" in kinds(house))
        service.kill()
    service.wait(60)
    house.run("run", "--timeout", "80")
    assert house.states() == {FIRST: "switched"}
    assert house.live("acme") == f"acme-{FIRST}"  # the same database: nothing was begun again
    assert enterprise.counts(f"acme-{FIRST}") == {"nodes": 1200, "ids": 1200, "relationships": 800}
    job = house.json("jobs", "show", "1")
    assert [table["rows_confirmed"] for table in job["tables"]] == [400, 800, 800]


def kinds(house: House) -> list[str]:
    jobs = house.json("jobs", "list")
    return [event["kind"] for event in house.json("jobs", "show", "1")["events"]] if jobs else []


@pytest.mark.parametrize("moment", ["drop.moved:1"])
def test_a_kill_while_dropping_is_finished_later(enterprise: StandIn, house: House, moment: str) -> None:
    for number in range(2):
        house.drop("acme", FIRST + number, rows=100)
        house.run("run", "--timeout", "80")
    house.drop("acme", FIRST + 2, rows=100)
    service = house.start("serve", failpoint=f"{moment}:kill")
    service.wait(80)
    house.run("run", "--timeout", "80")
    assert house.states()[FIRST] == "cleaned"
    found = {row["name"] for row in enterprise.system("SHOW DATABASES YIELD name")}
    assert found == {f"acme-{FIRST + 1}", f"acme-{FIRST + 2}", "neo4j", "system"}


def look(house: House) -> dict[str, Any]:
    """The newest job's row, read without starting a process."""
    with sqlite3.connect(house.folder / "state/jobs.db", timeout=10) as table:
        table.row_factory = sqlite3.Row
        try:
            row = table.execute("SELECT * FROM jobs ORDER BY id DESC LIMIT 1").fetchone()
        except sqlite3.OperationalError:  # the file is there and its tables are still being made
            row = None
    return dict(row) if row else {}


class Rounds:
    """Snapshots one after the other, each loaded while somebody is killed again and again."""

    def __init__(self, house: House, server: StandIn) -> None:
        self.house, self.server = house, server
        self.chance = random.Random(SEED)
        self.killed: Counter[str] = Counter()
        self.steps: list[str] = []

    def run(self, number: int, most: int) -> None:
        self.house.drop("acme", FIRST + number, rows=40_000)
        service = self.house.start("serve")
        deadline = time.monotonic() + 180
        try:
            for _ in range(most):
                victim = ("service", "child", "server")[sum(self.killed.values()) % 3]
                if not self._await_loading(FIRST + number, victim, deadline):
                    break
                threading.Event().wait(self.chance.uniform(0.0, 4.0))  # where in the load it falls is chance
                service = self._kill(victim, service)
            while look(self.house)["state"] != "switched":
                assert time.monotonic() < deadline, (self.house.folder / "log").read_text()[-3000:]
                threading.Event().wait(0.1)
        finally:
            assert stop(service) == 0
        database = f"acme-{FIRST + number}"
        assert self.house.live("acme") == database
        assert self.server.counts(database) == {"nodes": 24_000, "ids": 24_000, "relationships": 16_000}
        assert self.server.rows(database, "MATCH (s:__bgdeploy_stream) RETURN count(*) AS n") == [{"n": 0}]

    def _await_loading(self, timestamp: int, victim: str, deadline: float) -> bool:
        """True once the victim is at work on this load, False when the load is over already."""
        while time.monotonic() < deadline:
            job = look(self.house) if (self.house.folder / "state/jobs.db").exists() else {}
            if job.get("timestamp") == timestamp and job["state"] in ("loaded", "switched"):
                return False
            loads = job.get("timestamp") == timestamp and job["state"] == "loading" and job["child_pid"]
            if loads and (victim != "server" or self._is_online(job["database"])):
                return True
            threading.Event().wait(0.05)
        return False

    def _is_online(self, database: str) -> bool:
        rows = self.server.system("SHOW DATABASES YIELD name, currentStatus")
        return {"name": database, "currentStatus": "online"} in rows

    def _kill(self, victim: str, service: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        job = look(self.house)
        if victim == "server":
            self.server.control(kill=job["database"])
        elif victim == "child":
            for child in psutil.Process(service.pid).children():
                child.kill()
        else:
            service.kill()
            service.wait()
            service = self.house.start("serve")
        self.killed[victim] += 1
        self.steps.append(f"{victim} at {job['rows_confirmed']:,} rows ({job['step']})")
        return service


@pytest.mark.timeout(1200)
def test_kills_of_everybody_in_turn_end_with_exact_counts(enterprise: StandIn, tmp_path: Path) -> None:
    house = make_house(tmp_path, neo4j={**enterprise.settings, "batch_rows": 500}, shutdown_timeout=5)
    rounds, number = Rounds(house, enterprise), 0
    while sum(rounds.killed.values()) < KILLS:
        rounds.run(number, most=min(6, KILLS - sum(rounds.killed.values())))
        number += 1
    print(f"\n{number} loads, kills: {dict(rounds.killed)}; {'; '.join(rounds.steps)}")
