"""Housekeeping on a job table of its own: what each thread does, says once, and leaves to the others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bgdeploy.pipeline import clean
from bgdeploy.worker import housekeeper
from bgdeploy.worker.housekeeper import House, keep_clean, keep_house, keep_scanning
from bgdeploy.worker.shutdown import Stop
from tests.pipeline.place import OLD, Place
from tests.snapshots.folders import PEOPLE, write


@contextmanager
def running(house: House, *duties: Callable[[House], None]) -> Iterator[None]:
    threads = [threading.Thread(target=duty, args=(house,)) for duty in duties]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        house.stop.ask()
        house.poke()
        for thread in threads:
            thread.join()


def await_(what: str, done: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + 60, threading.Event()
    while not done():
        assert time.monotonic() < deadline, f"{what} never came true"
        pause.wait(0.05)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(housekeeper.log, "emit", lambda event, **fields: told.append((event, fields)))
    return told


def test_a_process_that_scans_nothing_folds_the_write_ahead_log_in(make_place: Callable[..., Place]) -> None:
    place = make_place()
    place.drop("acme", OLD)
    place.run()
    log = f"{place.site.store.path}-wal"
    assert os.path.getsize(log) > 0
    with running(House(place.site, Stop(), scans=False), keep_house, keep_clean):
        await_("it is folded in", lambda: os.path.getsize(log) == 0)


def test_a_drop_that_takes_long_delays_no_move(
    make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place()
    dropping, over = threading.Event(), threading.Event()

    def clean_slowly(site: object) -> None:
        dropping.set()
        over.wait(60)

    monkeypatch.setattr(clean, "clean", clean_slowly)
    place.drop("acme", OLD)
    with running(House(place.site, Stop()), keep_scanning, keep_house, keep_clean):
        assert dropping.wait(60)
        await_("it is queued", lambda: place.states("acme").get(OLD) == "queued")
        assert place.load_next()
        await_("it is live while the drop goes on", lambda: place.states("acme")[OLD] == "switched")
        over.set()


def test_a_removed_folder_of_one_customer_is_no_silence_of_the_scans(
    make_place: Callable[..., Place], said: list[tuple[str, dict[str, Any]]]
) -> None:
    place = make_place()
    place.drop("acme", OLD)
    place.run()
    os.rename(place.folder / "data" / "acme", place.folder / "acme")
    house = House(place.site, Stop(), last_scan=-1e9)
    house.poke_scan()
    with running(house, keep_scanning):
        await_("it was scanned", lambda: house.last_scan > 0)
    assert [fields["folder"] for event, fields in said if event == "scan.unreadable"] == ["acme"]


def test_what_comes_again_is_said_again(
    make_place: Callable[..., Place], said: list[tuple[str, dict[str, Any]]]
) -> None:
    place = make_place()
    place.drop("acme", OLD)
    place.run()
    home, away = place.folder / "data" / "acme", place.folder / "acme"
    house = House(place.site, Stop())
    with running(house, keep_scanning):
        for source, target in ((home, away), (away, home), (home, away)):
            os.rename(source, target)
            house.last_scan = -1e9
            house.poke_scan()
            await_("it was scanned", lambda: house.last_scan > 0)
    assert [event for event, _ in said if event == "scan.unreadable"] == ["scan.unreadable"] * 2


def test_a_marker_that_was_seen_once_is_looked_at_again_before_the_next_round(
    make_place: Callable[..., Place],
) -> None:
    place = make_place(orchestrator__watch_interval=3600.0)
    folder = write(place.path("acme", OLD), PEOPLE, marker=True)
    os.utime(folder / "_SUCCESS", (place.now, place.now))
    with running(House(place.site, Stop()), keep_scanning):
        await_("it was seen", lambda: place.states("acme").get(OLD) == "discovered")
        place.now += 1
        await_("it counts", lambda: place.states("acme").get(OLD) == "queued")
