"""A running service forgets what is over and removes what has expired, also when it is killed in the middle."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.house import House, stop

FIRST, SECOND, THIRD, FOURTH = 1700000001, 1700000002, 1700000003, 1700000004


@pytest.fixture
def lived(house: House) -> House:
    """Four snapshots went live one after the other; the first two are cleaned. Expiry is on."""
    for timestamp in (FIRST, SECOND, THIRD, FOURTH):
        house.drop("acme", timestamp)
        house.run("run")
    assert house.states()[FIRST] == house.states()[SECOND] == "cleaned"
    path = house.folder / "config.yaml"
    config = json.loads(path.read_text())
    config["dataset"]["expire_days"] = 30
    path.write_text(json.dumps(config))
    return house


def names(house: House) -> set[str]:
    return {path.name for path in (house.folder / "data/acme").iterdir()}


def make_old(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE jobs SET ended_at = 1.0 WHERE state = 'cleaned'")


def serve_until_removed(house: House) -> None:
    service = house.start("serve")
    house.await_("they are removed", lambda: names(house) == {str(THIRD), str(FOURTH)})
    assert stop(service) == 0


def serve_until_forgotten(house: House) -> None:
    service = house.start("serve")
    house.await_("they are forgotten", lambda: set(house.states()) == {THIRD, FOURTH})
    assert stop(service) == 0


def test_expired_folders_go_then_their_jobs_and_what_is_kept_stays(lived: House) -> None:
    serve_until_removed(lived)
    make_old(lived.folder / "state/jobs.db")
    serve_until_forgotten(lived)
    assert lived.live("acme") == f"acme-{FOURTH}"
    assert len(lived.json("switches")) == 4
    lived.run("rollback", "acme", "--reason", "a test")
    assert lived.live("acme") == f"acme-{THIRD}"


@pytest.mark.parametrize("moment", ["expire.hidden", "expire.recorded"])
def test_a_kill_while_a_folder_is_removed_is_finished_by_the_next_service(lived: House, moment: str) -> None:
    assert lived.start("serve", failpoint=f"{moment}:1:kill").wait(60) == -signal.SIGKILL
    serve_until_removed(lived)


def test_a_kill_while_jobs_are_forgotten_is_finished_by_the_next_service(lived: House) -> None:
    serve_until_removed(lived)
    make_old(lived.folder / "state/jobs.db")
    assert lived.start("serve", failpoint="prune.decided:1:kill").wait(60) == -signal.SIGKILL
    serve_until_forgotten(lived)
