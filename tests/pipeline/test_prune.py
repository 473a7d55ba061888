"""What is over is forgotten when it is old enough, and nothing else is, whatever happens in between."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from bgdeploy.jobs.models import switches
from bgdeploy.jobs.states import Actor
from bgdeploy.jobs.transitions import events, load_tables
from bgdeploy.pipeline import forget as pruning
from bgdeploy.pipeline import scan, switch
from bgdeploy.pipeline.forget import AT_ONCE, prune
from bgdeploy.service import steer
from tests.pipeline.place import DAY, OLD, Place, databases, jobs

MakePlace = Callable[..., Place]


def lived(make_place: MakePlace, **options: Any) -> Place:
    """Five snapshots went live one after the other: three are cleaned, two are kept."""
    place = make_place(**options)
    place.live_through("acme", *range(OLD, OLD + 5))
    assert list(place.states("acme").values()) == ["cleaned"] * 3 + ["switched"] * 2
    return place


def remove(place: Place, *timestamps: int) -> None:
    for timestamp in timestamps:
        shutil.rmtree(place.path("acme", timestamp))


def test_a_job_goes_with_all_that_was_written_about_it_once_its_folder_is_gone(make_place: MakePlace) -> None:
    place = lived(make_place, history__events_days="null")
    moves = len(place.rows(switches))
    remove(place, OLD, OLD + 1)
    place.now += 181 * DAY
    assert prune(place.site).jobs == 2
    assert list(place.states("acme")) == [OLD + 2, OLD + 3, OLD + 4]
    left = {row["id"] for row in place.rows()}
    assert {row["job_id"] for row in place.rows(events)} - {None} == left
    assert {row["job_id"] for row in place.rows(databases)} == left
    assert len(place.rows(switches)) == moves == 5, "switches are kept for ever"
    told = place.rows(events, events.c.kind == "history.jobs")
    assert [row["message"].split(" that")[0] for row in told] == ["forgot 2 job(s) of acme"]
    scan.scan(place.site)
    assert len(place.rows()) == 3, "and nothing is found anew"


def test_a_job_whose_folder_is_there_stays_however_old(make_place: MakePlace) -> None:
    place = lived(make_place)
    place.now += 9_000 * DAY
    assert prune(place.site).jobs == 0
    assert len(place.rows()) == 5


def test_a_job_that_is_not_old_enough_stays(make_place: MakePlace) -> None:
    place = lived(make_place)
    remove(place, OLD)
    place.now += 179 * DAY
    assert prune(place.site).jobs == 0
    place.now += 2 * DAY
    assert prune(place.site).jobs == 1


def test_what_is_kept_stays_although_its_folder_is_gone(make_place: MakePlace) -> None:
    place = lived(make_place)
    with place.site.store.write() as connection:
        pinned = databases.update().where(databases.c.timestamp == OLD + 3)
        connection.execute(pinned.values(pinned_at=place.now))
    place.live_through("acme", OLD + 5, OLD + 6, OLD + 7)
    remove(place, *range(OLD, OLD + 7))
    place.now += 9_000 * DAY
    prune(place.site)
    kept = {row["timestamp"] for row in place.rows(databases, databases.c.dropped_at.is_(None))}
    assert kept == {OLD + 3, OLD + 6, OLD + 7}
    assert set(place.states("acme")) == kept


@pytest.mark.parametrize("lost", ["the base", "the customer", "what is in it"])
def test_a_lost_mount_forgets_nothing(make_place: MakePlace, lost: str) -> None:
    place = lived(make_place)
    place.now += 9_000 * DAY
    if lost == "the base":
        (place.folder / "data").rename(place.folder / "elsewhere")
    elif lost == "the customer":
        shutil.rmtree(place.folder / "data" / "acme")
    else:
        remove(place, *range(OLD, OLD + 5))
        (place.folder / "data/acme/lost+found").mkdir()
    assert prune(place.site).jobs == 0
    assert len(place.rows()) == 5


def test_builds_of_one_snapshot_go_together_or_not_at_all(make_place: MakePlace) -> None:
    place = lived(make_place)
    first = place.rows()[0]
    again = steer.reload(place.site, first["id"], by="a test")
    remove(place, OLD)
    place.now += 181 * DAY
    assert prune(place.site).jobs == 0, "the second build waits to be loaded"
    scan.scan(place.site)
    assert place.rows(jobs, jobs.c.id == again["id"])[0]["reason"] == "folder gone"
    assert prune(place.site).jobs == 0


def test_the_newest_job_stays_so_that_no_number_is_given_twice(make_place: MakePlace) -> None:
    place = make_place()
    place.drop("acme", OLD, OLD + 1)
    place.run(bad=[OLD, OLD + 1])
    assert set(place.states("acme").values()) == {"failed"}
    remove(place, OLD + 1)
    place.now += 181 * DAY
    assert prune(place.site).jobs == 0
    place.drop("acme", OLD + 2)
    scan.scan(place.site)
    assert prune(place.site).jobs == 1
    assert [row["id"] for row in place.rows()] == [1, 3]


def test_a_retry_that_comes_in_between_keeps_the_job(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place()
    place.drop("acme", OLD, OLD + 1, OLD + 2)
    place.run(bad=[OLD + 1])
    failed = next(row for row in place.rows() if row["state"] == "failed")
    remove(place, OLD + 1)
    place.drop("acme", OLD + 3)
    scan.scan(place.site)
    place.now += 181 * DAY
    monkeypatch.setattr(pruning, "reach", lambda name: steer.retry(place.site, failed["id"], by="a test"))
    assert prune(place.site).jobs == 0
    assert place.states("acme")[OLD + 1] == "queued"


def test_events_go_by_age_and_how_a_kept_database_came_about_stays(make_place: MakePlace) -> None:
    place = lived(make_place)
    before = place.rows(events)
    place.now += 29 * DAY
    assert prune(place.site).events == 0
    place.now += 2 * DAY
    pruned = prune(place.site).events
    left = place.rows(events, events.c.at < place.now)
    kept = {row["id"] for row in place.rows() if row["state"] == "switched"}
    assert pruned == len(before) - len(left) > 0
    assert {row["job_id"] for row in left} == kept
    assert [row["target"] for row in left if row["job_id"] == max(kept)] == [
        "discovered", "queued", "loading", "loaded", "switched",
    ]  # fmt: skip


def test_the_number_of_an_event_never_comes_again(make_place: MakePlace) -> None:
    place = make_place()
    place.drop("acme", OLD)
    scan.scan(place.site)
    highest = max(row["id"] for row in place.rows(events))
    with place.site.store.write() as connection:
        connection.execute(sa.delete(events))
    switch.pause(place.site, "acme", why="a test", by="me")
    assert min(row["id"] for row in place.rows(events)) > highest


def test_the_ledger_goes_with_the_age_of_events_once_its_database_is_dropped(make_place: MakePlace) -> None:
    place = lived(make_place)
    with place.site.store.write() as connection:
        for row in place.rows():
            group = {"job_id": row["id"], "database": row["database"], "number": 0, "kind": "node"}
            told = {"name": "Person", "files": ["a"], "rows_expected": 2}
            connection.execute(load_tables.insert(), {**group, **told})
    place.now += 31 * DAY
    assert prune(place.site).ledgers == 3
    assert len(place.rows(load_tables)) == 2


def test_no_transaction_takes_more_than_its_share_and_the_stop_is_heard(make_place: MakePlace) -> None:
    place = lived(make_place, history__events_days="null")
    with place.site.transaction(Actor.OPERATOR) as tx:
        for _ in range(3 * AT_ONCE):
            tx.say("load.step", place.rows()[0], step="x")
    remove(place, OLD)
    place.now += 181 * DAY
    sizes = _watch_deletes(place)
    asked = iter([True, True, False])
    assert prune(place.site, lambda: next(asked)).jobs == 0, "it stopped after two"
    assert len(place.rows()) == 5, "and the job is whole"
    assert prune(place.site).jobs == 1
    assert len(place.rows()) == 4
    assert max(sizes) <= AT_ONCE + 10


def _watch_deletes(place: Place) -> list[int]:
    """Rows deleted per transaction, from now on."""
    sizes = [0]

    def add(*args: Any) -> None:
        if args[2].startswith("DELETE"):
            sizes[-1] += args[1].rowcount

    sa.event.listen(place.site.store._writer, "after_cursor_execute", add)
    sa.event.listen(place.site.store._writer, "commit", lambda _: sizes.append(0))
    return sizes


def test_freed_pages_are_used_again(make_place: MakePlace) -> None:
    place = lived(make_place)

    def fill() -> None:
        for _ in range(20):
            with place.site.transaction(Actor.OPERATOR) as tx:
                for _ in range(100):
                    tx.say("load.step", place.rows()[0], step="x" * 100)

    def pages() -> tuple[int, int]:
        with sqlite3.connect(place.site.store.path) as connection:
            return tuple(
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count")
            )  # type: ignore[return-value]

    fill()
    full, _ = pages()
    place.now += 31 * DAY
    prune(place.site)
    assert pages()[0] == full, "the file keeps its size"
    assert pages()[1] > 50, "its pages are free"
    fill()
    assert pages()[0] <= full + 5, "and are used again"
