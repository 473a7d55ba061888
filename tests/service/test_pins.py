"""A pinned database outlives every cleaner, and a cleaner that was faster is not overruled."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bgdeploy.config import load_settings
from bgdeploy.errors import BgdeployError
from bgdeploy.jobs.states import State
from bgdeploy.service.steer import pin, unpin
from bgdeploy.site import Site, open_site
from tests.house import House, make_house, make_removable, stop
from tests.jobs.tables import add_customer, add_database, add_job

FIRST, SECOND, THIRD = 1700000001, 1700000002, 1700000003


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """SECOND is live, and FIRST would be dropped at the next round of a service."""
    house = make_house(tmp_path_factory.mktemp("template"), keep_databases=1, auto_switch=False)
    for timestamp in (FIRST, SECOND):
        house.drop("acme", timestamp)
        house.run("run", "--timeout", "60", ok=False)
        if timestamp == FIRST:
            house.run("switch", "acme")
    house.run("switch", "acme")
    yield house.folder
    make_removable(house.folder)


@pytest.fixture
def keen(copied: House) -> House:
    return copied


def databases(house: House) -> list[str]:
    return sorted(path.name for path in (house.folder / "state/databases").iterdir())


def frozen(house: House, moment: str) -> subprocess.Popen[bytes]:
    service = house.start("serve", failpoint=f"{moment}:1:stop")
    house.await_(f"frozen at {moment}", lambda: psutil.Process(service.pid).status() == "stopped")
    return service


def test_a_pin_wins_against_a_cleaner_that_has_only_decided(keen: House) -> None:
    service = frozen(keen, "clean.decided")
    keen.run("pin", "acme", "--database", f"acme-{FIRST}")
    service.send_signal(signal.SIGCONT)
    keen.drop("acme", THIRD)
    keen.await_("the next round is over", lambda: keen.states().get(THIRD) == "loaded")
    assert stop(service) == 0
    keen.run("run", "--timeout", "60")
    assert databases(keen) == [f"acme-{number}" for number in (FIRST, SECOND, THIRD)]
    assert keen.json("customers")[0]["pinned"] == [f"acme-{FIRST}"]
    assert f"pinned: acme-{FIRST}" in keen.run("customers").stdout
    keen.run("unpin", "acme", "--database", f"acme-{FIRST}")
    keen.run("run", "--timeout", "60")
    assert databases(keen) == [f"acme-{SECOND}", f"acme-{THIRD}"]


def test_a_cleaner_that_has_its_intent_wins_against_a_pin(keen: House) -> None:
    service = frozen(keen, "clean.intended")
    refused = keen.run("pin", "acme", "--database", f"acme-{FIRST}", ok=False)
    assert refused.returncode == 5
    assert "is being dropped" in refused.stderr
    assert "bgdeploy retry 1 --reload" in refused.stderr
    service.send_signal(signal.SIGCONT)
    keen.await_("it is dropped", lambda: keen.states()[FIRST] == "cleaned")
    assert stop(service) == 0
    assert "was dropped" in keen.run("pin", "acme", "--database", f"acme-{FIRST}", ok=False).stderr


def test_what_is_live_is_pinned_where_none_is_named_and_twice_is_fine(keen: House) -> None:
    for _ in range(2):
        assert keen.run("pin", "acme").stdout.startswith(f"acme-{SECOND} is pinned")
    told = [event["kind"] for event in keen.json("jobs", "show", "2")["events"]]
    assert told.count("database.pinned") == 1
    keen.run("unpin", "acme")
    again = keen.run("unpin", "acme", ok=False)
    assert (again.returncode, "is not pinned" in again.stderr) == (5, True)
    assert "database.unpinned" in [event["kind"] for event in keen.json("jobs", "show", "2")["events"]]


def test_an_older_one_that_waits_and_is_pinned_keeps_no_run_from_ending(keen: House) -> None:
    keen.drop("acme", THIRD)
    keen.run("run", "--timeout", "60")
    keen.run("pin", "acme", "--database", f"acme-{THIRD}")
    keen.drop("acme", THIRD + 1)
    keen.run("run", "--timeout", "60")
    states = keen.states()
    assert (states[THIRD], states[THIRD + 1]) == ("loaded", "loaded")
    assert f"acme-{THIRD}" in databases(keen)


@pytest.fixture
def site(house: House) -> Site:
    """acme has nothing live; borealis has one database of each kind."""
    site = open_site(load_settings(house.folder / "config.yaml"))
    add_customer(site.store, "acme")
    add_customer(site.store, "borealis", live="borealis-1")
    add_customer(site.store, "cumulus", removed_at=1.0)
    marks = {
        "borealis-1": {"verified_at": 1.0},
        "unverified": {},
        "leaving": {"verified_at": 1.0, "drop_at": 2.0, "drop_why": "retired"},
        "gone": {"verified_at": 1.0, "drop_at": 2.0, "drop_why": "retired", "dropped_at": 3.0},
    }
    for number, (name, mark) in enumerate(marks.items()):
        add_database(site.store, add_job(site.store, "borealis", number, State.SWITCHED), name, **mark)
    return site


@pytest.mark.parametrize(
    ("customer", "database", "code", "said", "helps"),
    [
        ("nobody", None, 4, "There is no customer 'nobody'", "bgdeploy customers"),
        ("acme", None, 5, "acme has nothing live to", "--database <name>"),
        ("cumulus", "cumulus-1", 5, "cumulus was removed", "bgdeploy resume cumulus"),
        ("acme", "borealis-1", 5, "belongs to customer borealis", "borealis --database borealis-1"),
        ("borealis", "nonsense", 4, "There is no database 'nonsense'", "bgdeploy customers"),
        ("borealis", "unverified", 5, "is not verified yet", "bgdeploy jobs show 2"),
        ("borealis", "leaving", 5, "is being dropped (retired)", "bgdeploy retry 3 --reload"),
        ("borealis", "gone", 5, "was dropped (retired)", "bgdeploy retry 4 --reload"),
    ],
)
def test_what_cannot_be_kept_is_not_pinned(
    site: Site, customer: str, database: str | None, code: int, said: str, helps: str
) -> None:
    with pytest.raises(BgdeployError) as caught:
        pin(site, customer, database, by="a test")
    error = caught.value
    assert (error.exit_code, said in error.what, helps in error.cure) == (code, True, True), str(error)


def test_a_pin_that_is_not_there_names_those_that_are(site: Site) -> None:
    pin(site, "borealis", "borealis-1", by="a test")
    with pytest.raises(BgdeployError) as caught:
        unpin(site, "borealis", "unverified", by="a test")
    assert caught.value.cure == "Pinned: bgdeploy unpin borealis --database borealis-1"
