"""Databases that somebody, or a disk that is not mounted, took away behind bgdeploy's back."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from bgdeploy.errors import Refused
from bgdeploy.pipeline import clean, scan, switch
from bgdeploy.service import steer
from bgdeploy.service.customers import choices, list_customers
from bgdeploy.worker.housekeeper import House, keep_scanning
from bgdeploy.worker.shutdown import Stop
from tests.pipeline.place import OLD, Place, databases
from tests.pipeline.test_housekeeper import running

MakePlace = Callable[..., Place]
FIRST, SECOND, THIRD = (f"acme-{OLD + number}" for number in range(3))


@pytest.fixture
def place(make_place: MakePlace) -> Place:
    made = make_place()
    made.live_through("acme", OLD, OLD + 1)
    return made


def owned(place: Place) -> set[str]:
    return {row["name"] for row in place.rows(databases) if row["dropped_at"] is None}


def test_one_that_is_gone_costs_the_real_standby_nothing(place: Place) -> None:
    place.target.whole.discard(SECOND)  # it is live
    steer.reload(place.site, 2, by="a test")
    place.run()
    assert place.target.pointing == {"acme": f"{SECOND}-r2"}
    assert place.target.whole == {FIRST, f"{SECOND}-r2"}
    assert list_customers(place.site)[0].standby == FIRST
    switch.roll_back(place.site, "acme", to=None, why="wrong", by="a test", pause=False)
    assert place.target.pointing == {"acme": FIRST}


def test_a_gone_one_is_retired_in_its_time(place: Place) -> None:
    place.target.whole.discard(FIRST)
    place.live_through("acme", OLD + 2, OLD + 3)
    assert owned(place) == {THIRD, f"acme-{OLD + 3}"}


def test_a_gone_standby_is_shown_nowhere_and_no_way_back(place: Place) -> None:
    place.target.whole.discard(FIRST)
    assert list_customers(place.site)[0].standby is None
    assert choices(place.site, "acme") == []
    with pytest.raises(Refused, match="nothing to go back to"):
        switch.roll_back(place.site, "acme", to=None, why="wrong", by="a test", pause=False)
    assert place.target.pointing == {"acme": SECOND}


def test_a_lost_disk_costs_no_database_its_owner(place: Place) -> None:
    place.drop("acme", OLD + 2)
    scan.scan(place.site)
    assert place.load_next()
    assert switch.switch_ready(place.site) == 1  # three good ones now, and the first may go
    there, place.target.whole = place.target.whole, set()
    assert clean.clean(place.site) == 0
    assert owned(place) == there
    place.target.whole = there
    assert clean.clean(place.site) == 1
    assert owned(place) == {SECOND, THIRD}


def test_the_log_tells_once_of_a_live_one_that_is_gone(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.target.whole.discard(SECOND)
    house = House(place.site, Stop())
    with caplog.at_level(logging.INFO, logger="bgdeploy"), running(house, keep_scanning):
        for _ in range(3):
            house.wake.clear()
            house.poke_scan()
            assert house.wake.wait(10)
    told = [text for text in caplog.messages if f"{SECOND} is gone" in text]
    assert len(told) == 1
    assert "bgdeploy rollback acme" in told[0]
    assert "bgdeploy retry 2 --reload" in told[0]
    assert owned(place) == {FIRST, SECOND}
