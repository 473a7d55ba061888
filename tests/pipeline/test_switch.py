"""Which of a customer's waiting databases goes live, and when."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from bgdeploy.errors import Refused, StaleGeneration
from bgdeploy.jobs.models import events, switches
from bgdeploy.jobs.reasons import Code, because, read
from bgdeploy.jobs.states import State
from bgdeploy.pipeline import alias, leave, scan, switch
from bgdeploy.pipeline.alias import Move, intend
from bgdeploy.service import run_once, steer
from tests.jobs.tables import add_customer, add_job
from tests.pipeline.place import OLD, START, Place, customers, jobs


def test_while_the_newest_is_put_off_no_older_one_takes_its_place(make_place: Callable[..., Place]) -> None:
    place = make_place()
    place.drop("acme", OLD, OLD + 1)
    scan.scan(place.site)
    assert place.load_next()
    steer.pin(place.site, "acme", f"acme-{OLD}", by="a test")  # so the cleaner leaves it waiting
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
    caplog.clear()  # of what it lived through
    with caplog.at_level(logging.ERROR, logger="bgdeploy"):
        for _ in range(3):
            alias.repeat_cut_off_moves(place.site)
    assert [record.getMessage().count("it is damaged") for record in caplog.records] == [1]
    assert place.rows(customers)[0]["intent"] is None
    assert place.target.pointing == {"acme": f"acme-{OLD + 1}"}
    place.drop("acme", OLD + 2)
    place.run()
    assert place.target.pointing == {"acme": f"acme-{OLD + 2}"}


def test_a_blocked_job_of_the_version_before_is_judged_again_and_stays_blocked(
    make_place: Callable[..., Place],
) -> None:
    place = make_place(orchestrator__auto_switch=False)
    place.drop("acme", OLD)
    place.run()
    with place.site.store.write() as connection:
        older = {"reason_code": None, "reason_fields": None, "reason": "waits for somebody", "blocked": True}
        connection.execute(jobs.update().values(**older))
    assert switch.switch_ready(place.site) == 0
    (row,) = place.rows()
    assert (row["state"], row["blocked"]) == ("loaded", True)
    assert read(row) == because(Code.HELD_FOR_SWITCH, customer="acme")
    assert row["reason"] == "waits for: bgdeploy switch acme"


def test_a_customer_whose_name_holds_an_option_is_switched_like_any_other(
    make_place: Callable[..., Place],
) -> None:
    place = make_place(orchestrator__auto_switch=False)
    place.drop("acme--to", OLD)
    place.run()
    wish = switch.switch_by_hand(place.site, "acme--to", to=None, why="a test", by="a test")
    assert place.states("acme--to") == {OLD: "switched"}
    assert wish.database == f"acme--to-{OLD}"


def test_whether_a_person_has_to_name_the_database_is_told_by_the_code(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    place.live_through("acme", OLD)
    place.counts = {"labels": {"Person": 0}, "types": {}}
    place.drop("acme", OLD + 1)
    place.run()
    (row,) = place.rows(jobs, jobs.c.timestamp == OLD + 1)
    lost = [{"name": "Person", "before": 2, "after": 0}]
    goal = {"customer": "acme", "database": f"acme-{OLD + 1}"}
    assert read(row) == because(Code.SHRUNK, **goal, job=row["id"], lost=lost, max_percent=50)
    with pytest.raises(Refused, match="fewer rows than live"):
        switch.switch_by_hand(place.site, "acme", to=None, why="a test", by="a test")
    seen = place.rows(events)
    for _ in range(3):
        place.now += 3600
        switch.switch_ready(place.site)
    assert place.rows(events) == seen, "what is the same is said once"


@pytest.mark.parametrize(("code", "waits"), [("folder-gone", False), ("no-files", True), (None, True)])
def test_a_folder_that_is_gone_is_not_waited_for_whatever_the_text_says(
    make_place: Callable[..., Place], code: str | None, waits: bool
) -> None:
    place = make_place()
    add_customer(place.site.store, "acme")
    why = {"reason_code": code, "reason_fields": None, "reason": "folder gone"}
    add_job(place.site.store, "acme", OLD, State.DISCOVERED, fingerprint_at=place.now, **why)
    assert run_once._is_finished(place.site) is not waits
