"""A person's rollback against a cleaner, a worker and a crash, each caught at its worst moment."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.house import House, make_house, stop

FIRST, SECOND, THIRD = 1700000001, 1700000002, 1700000003


@pytest.fixture
def keen(tmp_path: Path) -> House:
    """A house that keeps one database only, so that the cleaner wants every older one."""
    return make_house(tmp_path, keep_databases=1, auto_switch=False)


def two_databases(house: House) -> None:
    """SECOND is live, and FIRST would be dropped at the next round of a service."""
    for timestamp in (FIRST, SECOND):
        house.drop("acme", timestamp)
        house.run("run", "--timeout", "60", "--workers", "1", ok=False)
        if timestamp == FIRST:
            house.run("switch", "acme")
    house.run("switch", "acme")


def frozen(house: House, moment: str) -> subprocess.Popen[bytes]:
    service = house.start("serve", failpoint=f"{moment}:1:stop")
    house.await_(f"frozen at {moment}", lambda: psutil.Process(service.pid).status() == "stopped")
    return service


def thaw(service: subprocess.Popen[bytes]) -> None:
    service.send_signal(signal.SIGCONT)


def test_a_rollback_wins_against_a_cleaner_that_has_only_decided(keen: House) -> None:
    two_databases(keen)
    service = frozen(keen, "clean.decided")
    keen.run("rollback", "acme", "--to", f"acme-{FIRST}", "--reason", "wrong prices")
    thaw(service)
    keen.await_("the cleaner lived on", lambda: _rounds(keen, service) > 0)
    assert stop(service) == 0
    assert keen.live("acme") == f"acme-{FIRST}"
    assert keen.json("query", "acme", "MATCH (n) RETURN count(*) AS n") == [{"n": 300}]


def test_a_cleaner_that_has_its_intent_wins_against_a_rollback(keen: House) -> None:
    two_databases(keen)
    service = frozen(keen, "clean.intended")
    refused = keen.run("rollback", "acme", "--to", f"acme-{FIRST}", "--reason", "wrong prices", ok=False)
    assert refused.returncode == 5
    assert "is being dropped" in refused.stderr
    assert "--reload" in refused.stderr
    thaw(service)
    keen.await_("it is dropped", lambda: keen.states()[FIRST] == "cleaned")
    assert stop(service) == 0
    assert keen.live("acme") == f"acme-{SECOND}"
    assert keen.json("query", "acme", "MATCH (n) RETURN count(*) AS n") == [{"n": 300}]


@pytest.mark.parametrize("moment", ["switch.intended", "switch.moved"])
def test_a_rollback_with_pause_wins_against_a_worker_in_the_middle_of_its_move(
    house: House, moment: str
) -> None:
    house.drop("acme", FIRST)
    house.drop("acme", SECOND)
    house.run("run", "--timeout", "60")
    service = house.start("serve", failpoint=f"{moment}:1:stop")
    house.drop("acme", THIRD)
    house.await_("frozen in its move", lambda: psutil.Process(service.pid).status() == "stopped")
    house.run("rollback", "acme", "--to", f"acme-{FIRST}", "--pause", "--reason", "all wrong")
    thaw(service)
    house.await_("it went on", lambda: _rounds(house, service) > 0)
    assert stop(service) == 0
    assert house.live("acme") == f"acme-{FIRST}"
    assert house.json("query", "acme", "MATCH (n) RETURN count(*) AS n") == [{"n": 300}]
    assert house.json("switches", "acme")[0]["kind"] == "rollback"
    house.run("run", "--timeout", "60", ok=False)
    assert house.live("acme") == f"acme-{FIRST}", "nothing moves while the customer is paused"


def test_a_rollback_right_after_a_crash_between_move_and_record(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    house.drop("acme", SECOND)
    service = house.start("serve", failpoint="switch.moved:1:kill")
    assert service.wait(60) == -signal.SIGKILL
    house.run("rollback", "acme", "--reason", "wrong prices")
    assert house.live("acme") == f"acme-{FIRST}"
    assert house.json("customers")[0]["rolled_back"] == [f"acme-{SECOND}"]
    moves = [(row["kind"], row["source"], row["target"]) for row in house.json("switches", "acme")]
    assert moves == [
        ("rollback", f"acme-{SECOND}", f"acme-{FIRST}"),
        ("deploy", f"acme-{FIRST}", f"acme-{SECOND}"),
        ("deploy", None, f"acme-{FIRST}"),
    ]


@pytest.mark.parametrize("moment", ["switch.intended", "switch.moved"])
def test_a_rollback_that_is_killed_itself_is_finished_by_whoever_comes_next(
    house: House, moment: str
) -> None:
    house.drop("acme", FIRST)
    house.drop("acme", SECOND)
    house.run("run", "--timeout", "60")
    killed = house.run("rollback", "acme", "--reason", "wrong", failpoint=f"{moment}:1:kill", ok=False)
    assert killed.returncode == -signal.SIGKILL
    house.run("run", "--timeout", "60")
    one = house.json("customers")[0]
    assert one["live"] == f"acme-{FIRST}"
    assert one["rolled_back"] == [f"acme-{SECOND}"]
    assert house.states() == {FIRST: "switched", SECOND: "switched"}


def test_a_rollback_takes_no_worker_and_no_second_try(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    refused = house.run("rollback", "acme", "--reason", "wrong", ok=False)
    assert refused.returncode == 5
    assert "nothing to go back to" in refused.stderr
    assert house.live("acme") == f"acme-{FIRST}"


def _rounds(house: House, service: subprocess.Popen[bytes]) -> int:
    """How many snapshots of a bystander went live: proof that a round has come to its end."""
    if not (house.folder / "data/bystander").exists():
        house.drop("bystander", FIRST, rows=20)
    assert service.poll() is None
    return sum(
        j["customer"] == "bystander" and j["state"] in ("loaded", "switched")
        for j in house.json("jobs", "list")
    )
