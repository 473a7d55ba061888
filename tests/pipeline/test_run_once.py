"""``run`` on a job table of its own: whatever it meets, it ends with all that it started."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from bgdeploy.errors import ConfigError, StoreFull
from bgdeploy.service import run_once
from bgdeploy.worker.shutdown import Stop
from tests.pipeline.place import OLD, Place

MakePlace = Callable[..., Place]


@pytest.fixture
def stop() -> Iterator[Stop]:
    made = Stop()
    yield made
    made.ask()  # a service that a failed test left behind would keep the tests from ending


def serving() -> bool:
    return any(thread.name == "serve" for thread in threading.enumerate())


def test_an_error_while_it_waits_for_the_end_ends_the_service_too(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch, stop: Stop
) -> None:
    def fail(_: object) -> bool:
        assert serving()
        raise StoreFull("the disk is full")

    monkeypatch.setattr(run_once, "_is_finished", fail)
    with pytest.raises(StoreFull):
        run_once.run(make_place().site, stop, workers=1, timeout=60)
    assert not serving()


@pytest.mark.parametrize("error", [ConfigError("no password file"), OSError("the disk fails")])
def test_what_cannot_be_dropped_yet_is_not_finished(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> object:
        raise error

    place = make_place()
    place.live_through("acme", OLD, OLD + 1)
    place.drop("acme", OLD + 2)
    place.run()
    assert run_once._is_finished(place.site)
    with place.site.store.write() as connection:
        connection.exec_driver_sql("UPDATE databases SET dropped_at = NULL")
    monkeypatch.setattr(place.target, "databases", fail)
    assert not run_once._is_finished(place.site)
