"""``jobs cancel`` in every state, while workers live, are frozen, are dead, and while an alias is moved."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from bgdeploy.config import load_settings
from bgdeploy.errors import Refused
from bgdeploy.jobs.lease import new_owner
from bgdeploy.jobs.states import State
from bgdeploy.service.steer import cancel
from bgdeploy.site import open_site
from tests.house import House, make_house, make_removable, stop
from tests.jobs.tables import add_customer, add_database, add_job, read_job

FIRST, SECOND = 1700000001, 1700000002
HELD = "load.group.confirmed:1:stop"  # the loading process stops itself after its first group


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Whole scans are seldom: each folds the log in under the job table's lock, and who is frozen then keeps it."""
    yield make_house(tmp_path, scan_interval=60)
    make_removable(tmp_path)


def held_in_a_load(house: House) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """A service in the middle of a load that stands still, and the loading process that stopped itself."""
    house.drop("acme", FIRST)
    service = house.start("serve", failpoint=HELD)
    house.await_("it is half loaded", lambda: bool(_stopped(service)))
    return service, _stopped(service)[0]


def freeze(house: House, service: subprocess.Popen[bytes]) -> None:
    """Stop a service at a moment at which it does not hold the job table's lock."""
    for _ in range(100):
        service.send_signal(signal.SIGSTOP)
        house.await_("it stands still", lambda: psutil.Process(service.pid).status() == "stopped")
        if _is_free(house.folder / "state/jobs.db"):
            return
        service.send_signal(signal.SIGCONT)
    raise AssertionError("it always holds the lock")


def _is_free(job_table: Path) -> bool:
    with closing(sqlite3.connect(job_table, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
    return True


def _stopped(service: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [one for one in psutil.Process(service.pid).children() if one.status() == "stopped"]


def check_cancelled(house: House) -> None:
    job = house.json("jobs", "show", "1")
    assert (job["state"], job["error_code"], job["lease_owner"]) == ("failed", "cancelled", None)
    assert "operator.cancel" in [event["kind"] for event in job["events"]]


@pytest.mark.parametrize("state", ["discovered", "queued"])
def test_what_nobody_works_on_is_cancelled_at_once_and_never_loaded(house: House, state: str) -> None:
    house.drop("acme", FIRST, marker=state == "queued")
    house.run("scan", "--once")
    assert house.states() == {FIRST: state}
    assert "cancelled: job 1, acme/1700000001" in house.run("jobs", "cancel", "1").stdout
    house.run("run", "--timeout", "60")
    assert house.states() == {FIRST: "failed"}
    check_cancelled(house)
    assert house.live("acme") is None


def test_a_running_load_is_ended_and_its_build_dropped(house: House) -> None:
    service, child = held_in_a_load(house)
    done = house.run("jobs", "cancel", "1")
    assert done.stdout.splitlines()[0].startswith("asked: job 1")
    assert done.stdout.splitlines()[1].startswith("cancelled: job 1")
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    check_cancelled(house)
    house.await_("its build is dropped", lambda: house.leftovers() == [])
    assert stop(service) == 0


def test_without_waiting_it_says_that_it_has_asked(house: House) -> None:
    service, _ = held_in_a_load(house)
    done = house.run("jobs", "cancel", "1", "--no-wait")
    assert done.stdout.startswith("asked: job 1")
    assert "bgdeploy jobs show 1" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    house.await_("the worker has ended it", lambda: house.states() == {FIRST: "failed"})
    check_cancelled(house)
    assert stop(service) == 0


def test_a_dead_workers_load_is_cancelled_without_any_service(house: House) -> None:
    service, _ = held_in_a_load(house)
    service.kill()
    service.wait()
    assert house.states() == {FIRST: "loading"}
    assert "cancelled: job 1" in house.run("jobs", "cancel", "1", "--no-wait").stdout
    check_cancelled(house)
    house.run("run", "--timeout", "60")
    assert house.states() == {FIRST: "failed"}, "nobody loads it again"
    assert house.leftovers() == []


def test_a_frozen_workers_load_is_cancelled_when_its_lease_is_over(house: House) -> None:
    service, child = held_in_a_load(house)
    freeze(house, service)
    assert "cancelled: job 1" in house.run("jobs", "cancel", "1").stdout
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    service.send_signal(signal.SIGCONT)
    house.await_("it lives on, and drops what was built", lambda: house.leftovers() == [])
    check_cancelled(house)
    assert stop(service) == 0
    kinds = [event["kind"] for event in house.json("jobs", "show", "1")["events"]]
    assert kinds.count("load.cancelled") == 1
    assert "load.loaded" not in kinds


def test_a_worker_that_was_killed_after_it_was_asked_is_not_resumed(house: House) -> None:
    service, _ = held_in_a_load(house)
    freeze(house, service)
    asking = subprocess.Popen(
        house.command("jobs", "cancel", "1"), stdout=subprocess.PIPE, text=True, stderr=subprocess.STDOUT
    )
    house.await_("it is asked", lambda: "asked to cancel" in str(house.json("jobs", "show", "1")["reason"]))
    service.kill()
    service.wait()
    told, _ = asking.communicate(timeout=60)
    assert "cancelled: job 1" in told
    house.run("run", "--timeout", "60")
    assert house.states() == {FIRST: "failed"}


def test_a_loaded_one_is_given_up_and_its_database_dropped(tmp_path: Path) -> None:
    house = make_house(tmp_path, auto_switch=False)
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    house.run("jobs", "cancel", "1")
    refused = house.run("switch", "acme", "--to", f"acme-{FIRST}", ok=False)
    assert (refused.returncode, "is being dropped" in refused.stderr) == (5, True)
    house.run("run", "--timeout", "60")
    assert list((house.folder / "state/databases").iterdir()) == []
    assert house.json("customers")[0]["candidate"] is None
    house.run("retry", "1")
    house.run("run", "--timeout", "60")
    assert house.states() == {FIRST: "loaded"}, "a person may change his mind"
    make_removable(house.folder)


def test_all_failed_leaves_cancelled_ones_out(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("scan", "--once")
    house.run("jobs", "cancel", "1")
    assert "No failed job" in house.run("retry", "--all-failed").stdout
    assert house.states() == {FIRST: "failed"}


@pytest.mark.parametrize("moment", ["switch.intended", "switch.moved"])
def test_it_is_refused_once_the_switch_has_begun(house: House, moment: str) -> None:
    house.drop("acme", FIRST)
    service = house.start("serve", failpoint=f"{moment}:1:stop")
    house.await_("frozen in its move", lambda: psutil.Process(service.pid).status() == "stopped")
    refused = house.run("jobs", "cancel", "1", ok=False)
    assert refused.returncode == 5, refused.stdout
    assert "bgdeploy rollback acme" in refused.stderr
    service.send_signal(signal.SIGCONT)
    house.await_("it is live", lambda: house.live("acme") == f"acme-{FIRST}")
    assert stop(service) == 0
    assert house.states() == {FIRST: "switched"}


def test_one_refusal_holds_up_no_other_and_gives_the_exit_code(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    house.drop("acme", SECOND)
    house.run("scan", "--once")
    done = house.run("jobs", "cancel", "1", "99", "2", ok=False)
    assert done.returncode == 5
    assert "is switched: there is nothing left to cancel" in done.stderr
    assert "There is no job 99" in done.stderr
    assert "cancelled: job 2" in done.stdout
    again = house.run("jobs", "cancel", "2", ok=False)
    assert (again.returncode, "bgdeploy retry 2" in again.stderr) == (5, True)


def test_a_loaded_row_that_somebody_holds_is_refused_and_an_abandoned_one_is_not(house: House) -> None:
    site = open_site(load_settings(house.folder / "config.yaml"))
    add_customer(site.store, "acme")
    for number, owner in ((1, new_owner()), (2, "elsewhere~1/7/1.00/" + "a" * 32)):
        held = {"lease_owner": owner, "lease_expires": site.clock() + (60 if number == 1 else -1)}
        job = add_job(site.store, "acme", number, State.LOADED, **held)
        add_database(site.store, job, f"acme-{number}", verified_at=1.0)
    with pytest.raises(Refused, match="being switched or dropped"):
        cancel(site, 1, by="a test")
    assert read_job(site.store, 1)["state"] == State.LOADED
    assert cancel(site, 2, by="a test")["state"] == State.FAILED


def test_a_pinned_database_is_never_given_up(tmp_path: Path) -> None:
    house = make_house(tmp_path, auto_switch=False)
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    house.run("pin", "acme", "--database", f"acme-{FIRST}")
    refused = house.run("jobs", "cancel", "1", ok=False)
    assert (refused.returncode, f"bgdeploy unpin acme --database acme-{FIRST}" in refused.stderr) == (5, True)
    house.run("unpin", "acme", "--database", f"acme-{FIRST}")
    house.run("jobs", "cancel", "1")
    assert house.states() == {FIRST: "failed"}
    make_removable(house.folder)
