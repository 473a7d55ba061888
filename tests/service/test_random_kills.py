"""kill -9 of the service, or of its loading process, at moments nobody chose: the end is as without."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from typing import Any

import psutil
import pytest

from tests.house import House, make_house

CUSTOMERS = ("acme", "borealis")
FIRST = 1700000001
KILLS = 14
SEED = 20261124


def drop_all(house: House) -> None:
    for customer in CUSTOMERS:
        for number in range(2):
            house.drop(customer, FIRST + number, rows=9_000)


def outcome(house: House) -> dict[str, Any]:
    """All that must be the same with and without kills."""
    jobs = {}
    for job in house.json("jobs", "list"):
        whole = house.json("jobs", "show", str(job["id"]))
        groups = [(one["name"], one["rows_confirmed"]) for one in whole["tables"]]
        jobs[job["customer"], job["timestamp"]] = (job["state"], job["database"], groups)
    live = {one["customer"]: (one["live"], one["standby"], one["counts"]) for one in house.json("customers")}
    moves = [(row["customer"], row["source"], row["target"]) for row in house.json("switches")]
    databases = sorted(path.name for path in (house.folder / "state/databases").iterdir())
    return {"jobs": jobs, "live": live, "moves": sorted(moves, key=str), "databases": databases}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    house = make_house(tmp_path_factory.mktemp("undisturbed"))
    drop_all(house)
    house.run("run", "--timeout", "80")
    return outcome(house)


@pytest.mark.parametrize("victim", ["service", "child"])
def test_kills_at_random_moments_change_nothing(
    house: House, undisturbed: dict[str, Any], victim: str
) -> None:
    drop_all(house)
    chance = random.Random(f"{SEED}:{victim}")
    for _ in range(KILLS):
        service = house.start("serve", "--workers", "2")
        kill_later(service, chance.uniform(0.3, 1.6), victim)
    house.run("run", "--timeout", "80")
    assert outcome(house) == undisturbed
    assert house.leftovers() == []
    assert started_after_confirmed(house) == Counter()


def kill_later(service: subprocess.Popen[bytes], seconds: float, victim: str) -> None:
    """Let it work for so long, then kill; with its child as the victim the service follows it."""
    try:
        service.wait(seconds)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(service.pid).children() if victim == "child" else []:
            child.kill()
        service.kill()
    service.wait()


def started_after_confirmed(house: House) -> Counter[str]:
    """Groups that were copied again although a run had found or confirmed them before."""
    again: Counter[str] = Counter()
    for job in house.json("jobs", "list"):
        for event in house.json("jobs", "show", str(job["id"]))["events"]:
            if event["kind"] == "load.restarted":
                again[job["database"]] += 1
    return again
