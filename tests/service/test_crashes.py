"""kill -9 at named moments, in the service and in its loading process: the end is as without it."""

from __future__ import annotations

import signal

import pytest

from tests.house import House, stop

FIRST, SECOND = 1700000001, 1700000002
CHILD = [
    "child.started:1",
    "load.group.before:1",
    "load.group.copied:1",
    "load.group.copied:2",
    "load.group.confirmed:2",
    "load.group.copied:3",
    "child.verified:1",
    "publish.before:1",
    "publish.renamed:1",
]
SERVICE = ["claim.done:1", "switch.intended:1", "switch.moved:1"]


@pytest.mark.parametrize("moment", [*CHILD, *SERVICE])
def test_a_kill_at_this_moment_changes_nothing_in_the_end(house: House, moment: str) -> None:
    house.drop("acme", FIRST)
    service = house.start("serve", failpoint=f"{moment}:kill")
    if moment in SERVICE:
        service.wait(60)
        assert service.returncode == -signal.SIGKILL
    else:
        house.await_("the child was killed once", lambda: _attempts(house) > 0)
        service.kill()
        service.wait()
    house.run("run", "--timeout", "60")
    assert house.states() == {FIRST: "switched"}
    assert house.live("acme") == f"acme-{FIRST}"
    job = house.json("jobs", "show", "1")
    assert [table["rows_confirmed"] for table in job["tables"]] == [100, 200, 200]
    assert "load.restarted" not in [event["kind"] for event in job["events"]]
    assert house.leftovers() == []


def _attempts(house: House) -> int:
    events = house.json("jobs", "show", "1")["events"] if house.json("jobs", "list") else []
    return sum(event["kind"] == "load.retry" for event in events)


@pytest.mark.parametrize("moment", ["clean.intended:1", "drop.moved:1", "clean.dropped:1"])
def test_a_kill_while_dropping_is_finished_later(house: House, moment: str) -> None:
    for number in range(3):
        house.drop("acme", FIRST + number)
        if number == 0:
            house.run("run", "--timeout", "60")
    service = house.start("serve", failpoint=f"{moment}:kill")
    service.wait(60)
    house.run("run", "--timeout", "60")
    assert house.states()[FIRST] == "cleaned"
    assert sorted(path.name for path in (house.folder / "state/databases").iterdir()) == [
        f"acme-{FIRST + 1}",
        f"acme-{FIRST + 2}",
    ]
    assert list((house.folder / "state/trash").iterdir()) == []


def test_a_stopped_service_loses_its_job_to_a_rival_and_writes_nothing_after(house: House) -> None:
    house.drop("acme", FIRST)
    frozen = house.start("serve", failpoint="claim.done:1:stop")
    house.await_("it is frozen in its claim", lambda: house.states().get(FIRST) == "loading")
    rival = house.start("serve")
    house.await_("the rival takes it over", lambda: house.states().get(FIRST) == "switched")
    frozen.send_signal(signal.SIGCONT)
    house.drop("acme", SECOND)
    house.await_("the next one", lambda: house.live("acme") == f"acme-{SECOND}")
    assert stop(frozen) == 0
    assert stop(rival) == 0
    assert house.states() == {FIRST: "switched", SECOND: "switched"}
    loaded = [e for e in house.json("jobs", "show", "1")["events"] if e["kind"] == "load.loaded"]
    assert len(loaded) == 1
    assert house.leftovers() == []


def test_a_killed_service_leaves_no_process_behind(house: House) -> None:
    import psutil

    house.drop("acme", FIRST)
    service = house.start("serve", failpoint="load.group.confirmed:1:stop")
    house.await_("a child is at work", lambda: bool(psutil.Process(service.pid).children()))
    children = psutil.Process(service.pid).children()
    service.kill()
    service.wait()
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_two_services_load_every_snapshot_once(house: House) -> None:
    services = [house.start("serve", "--workers", "2") for _ in range(2)]
    for customer in ("acme", "borealis", "cumulus"):
        for number in range(3):
            house.drop(customer, FIRST + number, rows=100)
    house.await_(
        "all are live",
        lambda: all(house.live(c) == f"{c}-{FIRST + 2}" for c in ("acme", "borealis", "cumulus")),
    )
    for service in services:
        assert stop(service) == 0
    for job in house.json("jobs", "list"):
        events = [e["kind"] for e in house.json("jobs", "show", str(job["id"]))["events"]]
        assert events.count("load.loaded") <= 1
        assert len(house.json("jobs", "list")) == 9
