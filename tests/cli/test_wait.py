"""``bgdeploy wait`` as an ETL script sees it: exit codes, what is said, and when it ends."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_commands import on_a_terminal
from tests.house import PATIENCE, House, make_house, make_removable, stop

FIRST, SECOND = 1700000001, 1700000002


def waiting(house: House, customer: str, timestamp: int) -> subprocess.Popen[str]:
    command = house.command("wait", customer, str(timestamp), "--timeout", str(PATIENCE), "--json")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_ends_well_when_the_snapshot_or_a_newer_one_is_live(house: House) -> None:
    first = waiting(house, "acme", FIRST)
    service = house.start("serve")
    house.drop("acme", FIRST)
    told, noise = first.communicate(timeout=PATIENCE)
    assert (first.returncode, noise) == (0, "")
    verdict = json.loads(told)
    assert (verdict["verdict"], verdict["live"]) == ("live", f"acme-{FIRST}")
    assert (verdict["customer"], verdict["timestamp"], verdict["job"]["state"]) == ("acme", FIRST, "switched")
    older = house.run("wait", "acme", str(FIRST - 5), "--timeout", "0")
    assert older.stdout == f"acme-{FIRST} is live.\n"
    assert stop(service) == 0


def test_it_ends_at_once_when_the_job_fails_is_cancelled_or_waits_for_a_person(tmp_path: Path) -> None:
    house = make_house(tmp_path, auto_switch=False)
    house.drop("bad", FIRST, broken="duplicate-id")
    house.drop("good", FIRST)
    house.run("run", "--timeout", "60", ok=False)
    failed = house.run("wait", "bad", str(FIRST), ok=False)
    assert failed.returncode == 1
    assert f"bad/{FIRST} failed: " in failed.stderr and "bgdeploy retry" in failed.stderr
    blocked = house.run("wait", "good", str(FIRST), ok=False)
    assert blocked.returncode == 1
    assert "bgdeploy switch good" in blocked.stderr
    assert blocked.stdout == ""
    house.run("jobs", "cancel", str(house.json("jobs", "list", "--customer", "good")[0]["id"]))
    cancelled = house.run("wait", "good", str(FIRST), "--json", ok=False)
    assert (cancelled.returncode, json.loads(cancelled.stdout)["verdict"]) == (1, "cancelled")
    make_removable(house.folder)


def test_a_pause_is_said_at_once_with_the_command_that_ends_it(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    house.run("pause", "acme", "--reason", "freeze until Monday")
    done = house.run("wait", "acme", str(SECOND), ok=False)
    assert done.returncode == 1
    assert "paused (freeze until Monday)" in done.stderr
    assert "bgdeploy resume acme" in done.stderr


def test_when_the_time_is_over_it_says_where_things_stand(house: House) -> None:
    unmade = house.run("wait", "acme", str(FIRST), "--timeout", "0", ok=False)
    assert (unmade.returncode, "There is no job table" in unmade.stderr) == (6, True)
    assert not (house.folder / "state").exists()
    house.run("scan", "--once")
    nothing = house.run("wait", "acme", str(FIRST), "--timeout", "0", ok=False)
    assert nothing.returncode == 1
    assert f"Not live after 0 s: There is no snapshot {house.folder}/data/acme/{FIRST} yet" in nothing.stderr
    assert "Nothing is live yet." in nothing.stderr
    house.drop("acme", FIRST)
    unseen = house.run("wait", "acme", str(FIRST), "--timeout", "0", ok=False)
    assert "nobody has scanned since" in unseen.stderr and "with: bgdeploy run" in unseen.stderr
    house.run("scan", "--once")
    queued = house.run("wait", "acme", str(FIRST), "--timeout", "6.5", ok=False)
    assert queued.returncode == 1
    assert f"acme/{FIRST} is queued; no worker has touched it for " in queued.stderr
    assert "bgdeploy serve" in queued.stderr


def test_what_nobody_has_found_leaves_live_what_is_live_and_names_its_place(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    done = house.run("wait", "acme", str(SECOND), "--timeout", "0", ok=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"There is no snapshot {house.folder}/data/acme/{SECOND} yet." in done.stderr
    assert f"acme-{FIRST} stays live." in done.stderr
    told = json.loads(house.run("wait", "acme", str(SECOND), "--timeout", "0", "--json", ok=False).stdout)
    assert (told["verdict"], told["live"]) == ("timeout", f"acme-{FIRST}")


def test_it_says_once_that_nobody_works_and_nothing_where_somebody_does(house: House) -> None:
    said = "no bgdeploy that scans and loads is running here"
    house.run("scan", "--once")
    alone = house.run("wait", "acme", str(FIRST), "--timeout", "11", ok=False).stderr
    assert alone.count(said) == 1 and "bgdeploy serve" in alone
    service = house.start("serve")
    house.await_("it is on record", lambda: bool(house.json("processes")))
    assert said not in house.run("wait", "acme", str(FIRST), "--timeout", "6", ok=False).stderr
    assert stop(service) == 0


def test_a_terminal_shows_how_far_it_is_and_a_pipe_nothing(house: House) -> None:
    house.drop("acme", FIRST)
    service = house.start("serve", failpoint="load.group.confirmed:1:stop")
    house.await_("it is loading", lambda: any(j["rows_confirmed"] for j in house.json("jobs", "list")))
    words = ("wait", "acme", str(FIRST), "--timeout", "1.2")
    shown = on_a_terminal(house.command(*words), code=1)
    assert re.search(rf"\d s +20%  acme/{FIRST} is loading, 100 of 500 rows", shown)
    quiet = house.run(*words, ok=False)
    assert quiet.stdout == ""
    assert len(quiet.stderr.splitlines()) == 3, "what, what stays, what helps"
    service.kill()
    service.wait()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["acme", "1767741427000"], "later than tomorrow"),
        (["acme", "latest"], "timestamp"),
        (["acme", "0"], "timestamp"),
        (["acme", "1700000001", "--timeout", "-1"], "--timeout"),
        (["acme"], "timestamp"),
    ],
)
def test_nonsense_is_no_wait(house: House, words: list[str], said: str) -> None:
    done = house.run("wait", *words, ok=False)
    assert (done.returncode, said in done.stderr.lower()) == (2, True), done.stderr
