"""A loading process that hangs is told: it keeps its lease, so nothing else would say a word."""

from __future__ import annotations

import signal
import sqlite3
import threading
from contextlib import closing
from typing import Any

import psutil
import pytest

from bgdeploy.config import load_settings
from bgdeploy.log import word
from bgdeploy.pipeline.scan import scan_once
from bgdeploy.service.run_once import run
from bgdeploy.site import open_site
from bgdeploy.worker import supervisor
from bgdeploy.worker.shutdown import Stop
from tests.house import House

FIRST = 1700000001


def frozen() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if one.status() == "stopped"]


def test_a_loading_process_that_hangs_is_told_once_and_goes_on_when_it_is_woken(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    emit = supervisor.log.emit
    monkeypatch.setattr(
        supervisor.log,
        "emit",
        lambda name, **fields: told.append(fields) if name == "load.silent" else emit(name, **fields),
    )
    monkeypatch.setattr(supervisor, "SILENT_AFTER", 1.5)
    house.drop("acme", FIRST)
    monkeypatch.setenv("BGDEPLOY_FAILPOINT", "load.group.before:1:stop")
    site = open_site(load_settings(house.folder / "config.yaml"))
    scan_once(site)
    ends = threading.Thread(target=lambda: run(site, Stop(timeout=5), workers=1, timeout=60))
    ends.start()
    house.await_("the child is frozen, and that is told", lambda: bool(frozen() and told))
    frozen()[0].send_signal(signal.SIGCONT)
    ends.join(60)
    assert house.live("acme") == f"acme-{FIRST}"
    assert told == [{"job": f"acme/{FIRST}", "id": 1, "minutes": 1.5 / 60}]
    assert word("load.silent", **told[0] | {"minutes": 10.0}) == (
        f"acme/{FIRST}: nothing was heard of its loading process for 10 min; if it hangs: bgdeploy jobs cancel 1"
    )


def any_stopped(parent: int) -> bool:
    children = psutil.Process(parent).children(recursive=True)
    return any(one.status() == psutil.STATUS_STOPPED for one in children)


def test_the_doctor_names_a_load_of_which_nothing_is_heard(house: House) -> None:
    house.drop("acme", FIRST)
    service = house.start("work", failpoint="load.group.before:1:stop")
    house.run("scan", "--once")
    house.await_("its loading process stands still", lambda: any_stopped(service.pid))
    with closing(sqlite3.connect(house.folder / "state/jobs.db")) as connection, connection:
        connection.execute("UPDATE jobs SET updated_at = updated_at - 1200")
    found = house.run("doctor", ok=False).stdout
    assert f"job 1 (acme/{FIRST}) is loading, and nothing was heard of it for 20 min" in found
    assert "bgdeploy jobs cancel 1" in found
    service.kill()
