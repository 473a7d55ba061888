"""Errors, deaths and changes in the middle of a load: what is tried again, what fails, what goes on."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import psutil

from tests.house import House, make_house, stop

FIRST, SECOND = 1700000001, 1700000002


def kinds(house: House, job: int = 1) -> list[str]:
    return [event["kind"] for event in house.json("jobs", "show", str(job))["events"]]


def test_a_loading_process_that_always_dies_uses_up_its_tries_and_can_be_retried(tmp_path: Path) -> None:
    house = make_house(tmp_path, max_retries=3)
    house.drop("acme", FIRST)
    died = house.run("run", "--timeout", "80", failpoint="child.started:1:kill", ok=False)
    assert died.returncode == 1
    job = house.json("jobs", "list")[0]
    assert (job["state"], job["attempt"], job["interruptions"]) == ("failed", 3, 0)
    assert "was killed by signal 9" in job["error"]
    assert "lower ladybug.buffer_pool_mb" in job["error"]
    assert kinds(house).count("load.retry") == 2
    house.run("retry", "1")
    house.run("run", "--timeout", "60")
    assert house.states() == {FIRST: "switched"}
    assert str(house.live("acme")).startswith(f"acme-{FIRST}-f"), "a fresh start takes a fresh name"


def test_a_loading_process_that_dies_after_progress_never_uses_up_its_tries(house: House) -> None:
    """Each child dies after one more group, so no two runs in a row are without progress."""
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "80", failpoint="load.group.confirmed:1:kill")
    job = house.json("jobs", "show", "1")
    assert job["state"] == "switched"
    assert [table["starts"] for table in job["tables"]] == [1, 1, 1]
    assert kinds(house).count("load.retry") == 3
    assert "load.resumed" in kinds(house)


def test_a_job_that_always_kills_its_worker_fails_with_its_last_step(tmp_path: Path) -> None:
    house = make_house(tmp_path, max_service_deaths=2)
    house.drop("acme", FIRST)
    for _ in range(2):
        service = house.start("serve", failpoint="claim.done:1:kill")
        assert service.wait(60) == -signal.SIGKILL
    assert house.run("run", "--timeout", "60", ok=False).returncode == 1
    job = house.json("jobs", "list")[0]
    assert (job["state"], job["error_code"]) == ("failed", "interrupted")
    assert "died 2 times in a row" in job["error"]
    assert "bgdeploy retry 1" in job["error"]
    house.run("retry", "1")
    house.run("run", "--timeout", "60")
    assert house.states() == {FIRST: "switched"}
    assert str(house.live("acme")).startswith(f"acme-{FIRST}-f"), "a fresh start takes a fresh name"


def test_a_snapshot_that_changes_under_its_load_fails_and_is_taken_up_again(house: House) -> None:
    folder = house.drop("acme", FIRST)
    service = house.start("serve", failpoint="load.group.confirmed:3:stop")
    house.await_("the child holds still", lambda: bool(stopped(service.pid)))
    shutil.copy(folder / "nodes/Entity/part-0.parquet", folder / "again")
    (folder / "again").rename(folder / "nodes/Entity/part-0.parquet")
    stopped(service.pid)[0].send_signal(signal.SIGCONT)
    house.await_("it failed", lambda: "load.failed" in kinds(house))
    house.await_("a later try holds still", lambda: bool(stopped(service.pid)))
    stopped(service.pid)[0].send_signal(signal.SIGCONT)
    house.await_("it is live", lambda: house.live("acme") is not None)
    assert stop(service) == 0
    told = house.json("jobs", "show", "1")["events"]
    assert any("changed" in event["message"] and event["kind"] == "load.failed" for event in told)
    assert "scan.again" in kinds(house)
    assert house.json("jobs", "show", "1")["rows_confirmed"] == 500


def stopped(parent: int) -> list[psutil.Process]:
    return [one for one in psutil.Process(parent).children() if one.status() == "stopped"]


def test_a_snapshot_that_changes_after_it_was_loaded_is_an_event_and_no_reload(house: House) -> None:
    folder = house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    (folder / "nodes/Entity/part-0.parquet").unlink()
    house.run("scan", "--once")
    house.run("scan", "--once")
    assert kinds(house).count("scan.changed") == 1
    assert house.states() == {FIRST: "switched"}
    assert house.json("query", "acme", "MATCH (n) RETURN count(*) AS n") == [{"n": 300}]


def test_a_failed_snapshot_that_is_mended_is_taken_up_by_itself(house: House) -> None:
    folder = house.drop("acme", FIRST, broken="truncated-file")
    assert house.run("run", "--timeout", "60", ok=False).returncode == 1
    shutil.rmtree(folder)
    house.drop("acme", FIRST)
    assert f"changed     acme/{FIRST}: it failed, and is looked at anew" in house.run("scan", "--once").stdout
    house.run("run", "--timeout", "60")
    assert house.live("acme") == f"acme-{FIRST}"


def test_a_file_whose_pages_are_damaged_fails_as_bad_input(house: House) -> None:
    folder = house.drop("acme", FIRST, rows=30_000)
    file = folder / "nodes/Address/part-0.parquet"
    content = bytearray(file.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    file.write_bytes(content)
    (folder / "_SUCCESS").touch()
    assert house.run("run", "--timeout", "60", ok=False).returncode == 1
    job = house.json("jobs", "list")[0]
    assert job["state"] == "failed"
    assert job["error"].startswith("nodes/Address/part-0.parquet is damaged")
    assert job["error_code"] == "bad-input"
    assert house.live("acme") is None


def test_retry_of_all_that_failed_leaves_out_what_is_older_than_live(house: House) -> None:
    for timestamp, broken in ((FIRST, "dangling"), (SECOND, None), (SECOND + 1, "dangling")):
        house.drop("acme", timestamp, broken=broken)
        house.run("run", "--timeout", "60", ok=False)
    assert house.states() == {FIRST: "failed", SECOND: "switched", SECOND + 1: "failed"}
    house.run("retry", "--all-failed")
    assert house.states() == {FIRST: "failed", SECOND: "switched", SECOND + 1: "queued"}


def test_a_folder_that_vanishes_before_it_is_loaded_waits_as_discovered(house: House) -> None:
    folder = house.drop("acme", FIRST)
    house.run("scan", "--once")
    folder.rename(house.folder / "elsewhere")
    house.run("scan", "--once")
    assert house.json("jobs", "list")[0]["reason"] == "folder gone"
    assert house.states() == {FIRST: "discovered"}
    (house.folder / "elsewhere").rename(folder)
    house.run("run", "--timeout", "60")
    assert house.live("acme") == f"acme-{FIRST}"


def test_max_databases_makes_a_load_wait_with_the_sum(tmp_path: Path) -> None:
    house = make_house(tmp_path, max_databases=2, health_check_retry_delay=0.3)
    for number in range(2):
        house.drop("acme", FIRST + number)
        house.run("run", "--timeout", "60")
    house.drop("borealis", FIRST)
    waits = house.run("run", "--timeout", "4", ok=False)
    assert waits.returncode == 1
    job = house.json("jobs", "list")[0]
    assert job["reason"] == "waits for room: databases: 2 exist + 1 to load = 3, max_databases is 2"
    assert "customers x 2 kept" in house.run("customers").stderr
    assert len(list((house.folder / "state/databases").iterdir())) == 2


def test_two_schedulers_over_one_folder_make_one_job_per_snapshot(house: House) -> None:
    services = [house.start("serve") for _ in range(3)]
    for number in range(6):
        house.drop("acme", FIRST + number, rows=20)
    house.await_("the last is live", lambda: house.live("acme") == f"acme-{FIRST + 5}")
    assert [stop(service) for service in services] == [0, 0, 0]
    jobs = house.json("jobs", "list")
    assert sorted(job["timestamp"] for job in jobs) == [FIRST + number for number in range(6)]
    for job in jobs:
        assert kinds(house, job["id"]).count("scan.discovered") == 1
