"""A disk that is too small, or fills up in the middle of a load: the job waits, and nothing is lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.house import House, make_house, stop
from tests.tmpfs import small_disk

FIRST = 1700000001


def house_on(disk: Path, folder: Path) -> House:
    """Databases on the small disk, the job table and the data beside it."""
    return make_house(folder, state=f"{disk}/state", health_check_retry_delay=0.3)


def test_too_little_room_is_said_with_the_sum_before_anything_is_written(tmp_path: Path) -> None:
    with small_disk(10) as disk:
        house = house_on(disk, tmp_path)
        house.drop("acme", FIRST)
        house.run("run", "--timeout", "4", ok=False)
        job = house.json("jobs", "list")[0]
        assert job["state"] == "queued"
        assert "waits for room: disk:" in job["reason"]
        assert "MiB free" in job["reason"]
        assert (job["attempt"], job["interruptions"]) == (0, 0)
        assert os.listdir(disk / "state/builds") == []


def test_a_disk_that_fills_during_the_load_uses_no_attempt_and_the_load_goes_on(tmp_path: Path) -> None:
    with small_disk(120) as disk:
        house = house_on(disk, tmp_path)
        service = house.start("serve", failpoint="load.group.before:2:stop")
        house.drop("acme", FIRST, rows=30_000)
        house.await_("the child holds still", lambda: bool(_stopped_child(service.pid)))
        filler = _fill(disk)
        _stopped_child(service.pid)[0].send_signal(signal.SIGCONT)
        house.await_("it noticed", lambda: "The disk is full" in str(house.json("jobs", "log", "1")))
        assert house.json("jobs", "list")[0]["attempt"] == 0
        filler.unlink()
        house.await_("the next try holds still too", lambda: bool(_stopped_child(service.pid)))
        _stopped_child(service.pid)[0].send_signal(signal.SIGCONT)
        house.await_("the load went on", lambda: house.live("acme") == f"acme-{FIRST}")
        assert stop(service) == 0
        job = house.json("jobs", "show", "1")
        assert job["rows_confirmed"] == job["rows_expected"] == 30_000
        assert job["attempt"] == 0


def test_a_rollback_works_on_a_full_disk_by_giving_up_the_reserve(tmp_path: Path) -> None:
    with small_disk(160) as disk:
        house = make_house(tmp_path, state=f"{disk}/state", database_url=f"sqlite:///{disk}/state/jobs.db")
        for number in range(2):
            house.drop("acme", FIRST + number)
            house.run("run", "--timeout", "60")
        assert (disk / "state/ballast").stat().st_size == 16 << 20
        _fill(disk)
        done = house.run("rollback", "acme", "--reason", "wrong", apart=True)
        assert "please make room" in done.stderr
        assert house.live("acme") == f"acme-{FIRST}"
        assert not (disk / "state/ballast").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("customers",),
        ("jobs", "list"),
        ("pause", "acme", "--reason", "x"),
        ("pin", "acme"),
        ("jobs", "cancel", "3"),
    ],
)
def test_nobody_but_a_move_spends_the_reserve(tmp_path: Path, words: tuple[str, ...]) -> None:
    with small_disk(160) as disk:
        house = make_house(tmp_path, state=f"{disk}/state", database_url=f"sqlite:///{disk}/state/jobs.db")
        for number in range(2):
            house.drop("acme", FIRST + number)
            house.run("run", "--timeout", "60")  # one by one: of two that wait the older is dropped
        house.drop("acme", FIRST + 2)
        house.run("scan", "--once")
        _fill(disk)
        assert house.run(*words, ok=False).returncode in (0, 6)
        assert (disk / "state/ballast").stat().st_size == 16 << 20
        house.run("rollback", "acme", "--reason", "wrong")
        assert house.live("acme") == f"acme-{FIRST}"


def _stopped_child(parent: int) -> list[psutil.Process]:
    return [one for one in psutil.Process(parent).children() if one.status() == "stopped"]


def _fill(disk: Path) -> Path:
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            return filler
