"""Who works: the table of processes, told by real ones that stop, die, freeze, or cannot be seen from here."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from bgdeploy.config import load_settings
from bgdeploy.errors import StoreFull
from bgdeploy.jobs.lease import rescue
from bgdeploy.jobs.models import processes
from bgdeploy.jobs.states import State
from bgdeploy.jobs.store import Store
from bgdeploy.service.processes import list_processes, say_nobody, say_silent, who_works
from bgdeploy.service.wait import look
from bgdeploy.site import Site, open_site
from bgdeploy.worker import presence
from bgdeploy.worker.presence import GONE, LONG, MOST, find_past, present
from tests.house import House, environ, make_house, make_removable, stop
from tests.jobs.tables import add_customer, add_job, read_job

FIRST = 1700000001
FAR = "otherhost~1/7/1-boot/" + "0" * 32
NOW = 10_000.0


@pytest.fixture
def site(house: House) -> Site:
    return open_site(load_settings(house.folder / "config.yaml"), clock=lambda: NOW)


def add_process(site: Site, owner: str = FAR, **values: Any) -> None:
    host, pid, born, _ = owner.split("/")
    told = {"host": host, "pid": int(pid), "born": born, "version": "1", "role": "serve", "workers": 1}
    times = {"started_at": 0.0, "seen_at": NOW, "beat_seconds": 10.0}
    with site.store.write() as connection:
        connection.execute(processes.insert().values(owner=owner, **{**told, **times, **values}))


def loading(house: House, **more: Any) -> subprocess.Popen[bytes]:
    """A service whose loading process stands still in the middle of a load."""
    house.drop("acme", FIRST)
    service = house.start("serve", failpoint="load.group.confirmed:1:stop", **more)
    house.await_("it is loading", lambda: any(j["rows_confirmed"] for j in house.json("jobs", "list")))
    return service


def freeze(house: House, service: subprocess.Popen[bytes]) -> None:
    """While nobody writes, as ``failpoints`` does it: a lock that is frozen would stop everybody else."""
    with house.connected() as connection:
        connection.execute("BEGIN IMMEDIATE")
        service.send_signal(signal.SIGSTOP)
        house.await_("it is frozen", lambda: psutil.Process(service.pid).status() == psutil.STATUS_STOPPED)


def test_a_service_is_idle_then_over_and_since_when_nobody_works_is_told(house: House) -> None:
    house.run("scan", "--once")
    assert house.json("processes") == [], "a scan is no worker"
    service = house.start("serve", "--workers", "3")
    house.await_("it is on record", lambda: len(house.json("processes")) == 1)
    (one,) = house.json("processes")
    assert (one["pid"], one["role"], one["workers"], one["state"]) == (service.pid, "serve", 3, "idle")
    assert (one["alive"], one["jobs"], one["last_words"]) == (True, [], None)
    assert stop(service) == 0
    (over,) = house.json("processes")
    assert (over["state"], over["last_words"], over["silent_seconds"]) == ("stopped", "stopped", None)
    said = house.run("customers").stderr
    assert f"is running here since {over['stopped_at']} (bgdeploy serve on " in said
    assert f"(pid {service.pid}): stopped), and nothing moves" in said
    shown = house.run("processes").stdout
    assert f"pid {service.pid}" in shown and "serve, 3 load(s) at a time" in shown


def test_one_that_works_is_named_with_its_job_and_after_a_kill_it_is_over_at_once(house: House) -> None:
    service = loading(house)
    (one,) = house.json("processes")
    assert one["state"] == "working"
    assert [(job["job"], job["customer"], job["state"]) for job in one["jobs"]] == [(1, "acme", "loading")]
    opened = open_site(load_settings(house.folder / "config.yaml"))
    assert f"(pid {service.pid}) loads it" in look(opened, "acme", FIRST).why
    service.kill()
    service.wait()
    (dead,) = house.json("processes")
    assert (dead["state"], dead["alive"], dead["last_words"]) == ("stopped", False, GONE)
    assert dead["stopped_at"] == dead["seen_at"]
    assert "is running here since" in house.run("jobs", "list").stderr
    again = house.start("work")
    house.await_("two are on record", lambda: len(house.json("processes")) == 2)
    with house.connected() as connection:
        words = connection.execute("SELECT last_words FROM processes ORDER BY id").fetchall()
    assert words == [(GONE,), (None,)], "whoever comes next writes it down"
    assert house.json("processes")[0]["role"] == "work"
    assert stop(again) == 0


def test_one_that_freezes_in_the_middle_of_a_load_is_named_and_keeps_its_job(tmp_path: Path) -> None:
    house = make_house(tmp_path, lease_seconds=600)
    service = loading(house)
    freeze(house, service)
    with house.connected() as connection:
        connection.execute("UPDATE processes SET seen_at = seen_at - 35")
    (one,) = house.json("processes")
    assert (one["state"], one["alive"], len(one["jobs"])) == ("silent", True, 1)
    said = house.run("jobs", "list").stderr
    assert re.search(
        rf"\(pid {service.pid}\) was last seen \d+ s ago, and holds job 1 \(acme/{FIRST}\) until ", said
    )
    assert "nothing moves" not in said, "its lease is in force: nobody else may go on"
    service.send_signal(signal.SIGCONT)
    house.await_("it gives a sign again", lambda: house.json("processes")[0]["state"] == "working")
    service.kill()
    service.wait()
    make_removable(house.folder)


APART = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def test_one_that_is_killed_in_a_container_is_named_before_its_lease_ends(tmp_path: Path) -> None:
    """Its process number means nothing here, so nobody can see that it is gone."""
    if shutil.which("unshare") is None or subprocess.run([*APART, "true"], check=False).returncode:
        pytest.skip("no process namespaces here")
    house = make_house(tmp_path, lease_seconds=30)
    house.drop("acme", FIRST)
    house.run("scan", "--once")
    with open(house.folder / "log", "ab") as log:
        service = subprocess.Popen(
            [*APART, *house.command("serve")],
            stderr=log,
            env=environ("load.group.confirmed:1:stop"),
        )
    house.await_("it is loading", lambda: any(j["rows_confirmed"] for j in house.json("jobs", "list")))
    (one,) = house.json("processes")
    assert (one["state"], one["alive"]) == ("working", None)
    service.kill()
    service.wait()
    house.await_("it is silent", lambda: house.json("processes")[0]["state"] == "silent")
    (one,) = house.json("processes")
    assert [job["job"] for job in one["jobs"]] == [1], "its lease is in force: unknown is alive"
    assert house.states() == {FIRST: "loading"}
    assert "was last seen" in house.run("customers").stderr
    assert "not to be seen from here" in house.run("processes").stdout
    make_removable(house.folder)


@pytest.mark.parametrize(("seen", "state"), [(29.0, "working"), (31.0, "silent")])
def test_what_cannot_be_seen_from_here_lives_until_its_lease_ends(
    site: Site, seen: float, state: str
) -> None:
    add_customer(site.store, "acme")
    held = {"lease_owner": FAR, "lease_expires": NOW + 20, "fence": 1}
    job = add_job(site.store, "acme", FIRST, State.LOADING, **held)
    add_process(site, seen_at=NOW - seen)
    works = who_works(site)
    assert ([one.state for one in works.here], works.nobody, works.here[0].alive) == ([state], False, None)
    assert bool(say_silent(works)) == (state == "silent")
    assert rescue(site.store, now=NOW, owner=site.owner, most=3, base=2) == 0
    assert rescue(site.store, now=NOW + 21, owner=site.owner, most=3, base=2) == 1
    assert read_job(site.store, job)["state"] == State.QUEUED
    silent = f", last seen {seen:.0f} s ago" in look(site, "acme", FIRST).why
    assert not silent, "it holds nothing any more"


def test_nobody_works_once_the_last_one_is_silent_for_as_long_as_a_lease_lasts(site: Site) -> None:
    lasts = site.settings.orchestrator.lease_seconds
    add_process(site, seen_at=NOW - lasts - 40)
    add_process(
        site, FAR.replace("otherhost", "third"), seen_at=NOW - lasts - 60, stopped_at=NOW - lasts - 60
    )
    works = who_works(site)
    assert (works.nobody, works.since, works.missed) == (True, NOW - lasts - 40, True)
    assert works.last is not None and works.last.host == "otherhost"
    assert f"last seen {lasts + 40:.0f} s ago" in say_nobody(works)
    add_process(site, FAR.replace("otherhost", "fourth"), seen_at=NOW - lasts + 1, beat_seconds=0.1)
    assert not who_works(site).nobody


def test_from_cron_alone_nobody_is_missed_until_something_waits(house: House) -> None:
    house.drop("acme", FIRST)
    assert "no bgdeploy" not in house.run("customers", ok=False).stderr
    house.run("scan", "--once")
    for words in (["customers"], ["jobs", "list"], ["processes"]):
        assert (
            "no bgdeploy that scans and loads is running here, and nothing moves" in house.run(*words).stderr
        )
    house.run("run", "--timeout", "60")
    assert [(one["role"], one["state"]) for one in house.json("processes")] == [("run", "stopped")]
    assert house.run("customers").stderr == house.run("jobs", "list").stderr == ""
    house.drop("acme", FIRST + 1)
    house.run("scan", "--once")
    house.run("scan", "--once")
    assert "is running here since" in house.run("jobs", "list").stderr
    house.run("pause", "acme", "--reason", "frozen")
    assert house.run("jobs", "list").stderr == "", "a person holds it"


def test_one_snapshot_that_is_run_by_hand_is_on_record_and_how_it_ended(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("run", "--customer", "acme", "--timeout", "60")
    (one,) = house.json("processes")
    assert (one["role"], one["pid"], one["state"]) == ("run", os.getpid(), "stopped")


def test_the_last_words_of_one_that_meets_an_error_are_kept(site: Site) -> None:
    with pytest.raises(ZeroDivisionError), present(site, "work", 1):
        raise ZeroDivisionError("by nought")
    (one,) = list_processes(site)
    assert (one.state, one.last_words) == ("stopped", "ended by ZeroDivisionError: by nought")


def test_a_sign_that_cannot_be_written_is_left_out_and_comes_later(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of it reaches the load beside it: not a full disk, not a lock, not a file that is no more."""

    def full(self: Store, **_: Any) -> Any:
        raise StoreFull("no room")

    monkeypatch.setattr(presence, "PATIENCE", 0.2)
    with present(site, "serve", 1) as mine:
        with monkeypatch.context() as broken, caplog.at_level(logging.WARNING, logger="bgdeploy"):
            broken.setattr(Store, "write", full)
            mine.beat()
            mine.beat()
        assert [text.count("saying who works") for text in caplog.messages] == [1], "it is said, once"
        with site.store.write() as connection:
            connection.execute(processes.update().values(seen_at=1.0))
            began = time.monotonic()
            mine.beat()
            assert time.monotonic() - began < 20, "it waits for a lock but a moment"
        assert list_processes(site)[0].state == "silent"
        mine.beat()
        assert list_processes(site)[0].state == "idle"
    mine.beat()
    assert list_processes(site)[0].state == "stopped", "no sign follows the goodbye"


def test_one_whose_row_is_gone_is_on_record_again_and_waits_no_longer_for_that(site: Site) -> None:
    with present(site, "serve", 1) as mine:
        with site.store.write() as connection:
            connection.execute(processes.delete())
        mine.beat()
        assert list_processes(site)[0].state == "idle"


def test_signs_come_as_often_as_leases_need_however_seldom_folders_are_looked_at(house: House) -> None:
    settings = load_settings(house.folder / "config.yaml", {"orchestrator.watch_interval": "3600"})
    site = open_site(settings)
    with present(site, "serve", 1) as mine:
        assert mine.about["beat_seconds"] <= max(1.0, settings.orchestrator.lease_seconds / 6)
        assert mine.thread.is_alive()
    mine.thread.join(10)
    assert not mine.thread.is_alive()
    site.store.close()


def test_last_words_that_come_while_somebody_looks_are_not_written_over(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f"{site.owner.split('/')[0]}/999999/1-boot/1"
    add_process(site, other, seen_at=NOW)

    def says_goodbye_meanwhile(owner: str) -> bool:
        with site.store.write() as connection:
            goodbye = processes.update().where(processes.c.owner == other)
            connection.execute(goodbye.values(stopped_at=NOW, last_words="stopped"))
        return owner == other

    monkeypatch.setattr(presence, "known_dead", says_goodbye_meanwhile)
    with present(site, "serve", 1):
        assert {one.last_words for one in list_processes(site)} == {"stopped", None}


def test_rows_of_what_is_over_are_bounded_and_the_last_one_stays(site: Site) -> None:
    for number in range(MOST + 5):
        add_process(
            site, f"otherhost~1/{number}/1-boot/{number}", seen_at=NOW - number, stopped_at=NOW - number
        )
    with present(site, "serve", 1):
        pids = [one.pid for one in list_processes(site)]
    assert sorted(pids) == sorted([*range(MOST), os.getpid()])


def test_what_is_long_over_goes_but_for_the_last_and_for_whoever_holds_a_job() -> None:
    def row(owner: str, seen: float, stopped: float | None) -> Any:
        return {"owner": owner, "seen_at": seen, "stopped_at": stopped}

    now = 10 * LONG
    known = [
        row("stopped-long-ago", 1.0, 1.0),
        row("last", 2.0, 2.0),
        row("silent-for-long", 1.5, None),
        row("holds", 0.5, None),
    ]
    assert find_past(known, {"holds"}, now=now) == ["silent-for-long", "stopped-long-ago"]
    assert find_past([*known, row("young", now - 5, now - 5)], {"holds"}, now=now) == [
        "last", "silent-for-long", "stopped-long-ago"
    ]  # fmt: skip
