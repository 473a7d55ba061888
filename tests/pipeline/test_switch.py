"""Which of a customer's waiting databases goes live, and when."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from bgdeploy.errors import StaleGeneration
from bgdeploy.jobs.models import switches
from bgdeploy.pipeline import leave, repair, scan, switch
from bgdeploy.pipeline.alias import intend
from bgdeploy.pipeline.moves import Move
from bgdeploy.service import pins
from tests.pipeline.place import OLD, START, Place, customers, jobs


def test_while_the_newest_is_put_off_no_older_one_takes_its_place(make_place: Callable[..., Place]) -> None:
    place = make_place()
    place.drop("acme", OLD, OLD + 1)
    scan.scan(place.site)
    assert place.load_next()
    pins.pin(place.site, "acme", f"acme-{OLD}", by="a test")  # so the cleaner leaves it waiting
    assert place.load_next()
    assert place.states("acme") == {OLD: "loaded", OLD + 1: "loaded"}
    with place.site.store.write() as connection:
        later = jobs.update().where(jobs.c.timestamp == OLD + 1).values(not_before=place.now + 60)
        connection.execute(later)
    assert switch.switch_ready(place.site) == 0
    assert place.target.pointing == {}
    place.now += 61
    assert switch.switch_ready(place.site) == 1
    assert place.target.pointing == {"acme": f"acme-{OLD + 1}"}


def test_a_target_that_came_further_than_the_job_table_holds_up_nobody(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    ahead = int(START) + 10**9  # of a job table that is lost, made while the clock was years ahead
    place.target.generations["acme"] = ahead
    place.live_through("acme", OLD, OLD + 1)
    assert place.target.pointing == {"acme": f"acme-{OLD + 1}"}
    switch.roll_back(place.site, "acme", to=None, why="wrong", by="a test", pause=False)
    assert place.target.pointing == {"acme": f"acme-{OLD}"}
    assert [row["generation"] for row in place.rows(switches)] == [ahead + 1, ahead + 2, ahead + 3]
    place.target.generations["acme"] = 2 * ahead
    leave.remove(place.site, "acme", why="gone", by="a test")
    assert place.target.pointing == {}


def test_a_wish_that_the_target_calls_too_old_is_taken_back(
    make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place()
    place.live_through("acme", OLD, OLD + 1)

    def refuse(name: str, *_: object) -> None:
        raise StaleGeneration(f"{name} was moved with a newer generation already")

    monkeypatch.setattr(place.target, "switch", refuse)
    with pytest.raises(StaleGeneration) as caught:
        switch.roll_back(place.site, "acme", to=None, why="wrong", by="a test", pause=True)
    assert f"acme stays at acme-{OLD + 1}. acme is paused; to go on: bgdeploy resume acme." in str(
        caught.value
    )
    monkeypatch.undo()
    place.run()
    assert place.target.pointing == {"acme": f"acme-{OLD + 1}"}
    assert place.rows(customers)[0]["intent"] is None


def test_a_move_that_was_cut_off_to_what_is_damaged_by_now_is_told_once_and_made_void(
    make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = make_place()
    place.live_through("acme", OLD, OLD + 1)
    wish = Move("acme", f"acme-{OLD}", "rollback", "wrong", "a test")
    intend(place.site, wish)  # and there its mover died
    monkeypatch.setattr(
        place.target, "outdated", lambda name: "it is damaged" if name == wish.database else None
    )
    place.now += 60
    with caplog.at_level(logging.ERROR, logger="bgdeploy"):
        for _ in range(3):
            repair.repeat_cut_off_moves(place.site)
    assert [record.getMessage().count("it is damaged") for record in caplog.records] == [1]
    assert place.rows(customers)[0]["intent"] is None
    assert place.target.pointing == {"acme": f"acme-{OLD + 1}"}
    place.drop("acme", OLD + 2)
    place.run()
    assert place.target.pointing == {"acme": f"acme-{OLD + 2}"}
