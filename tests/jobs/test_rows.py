"""Many rows in one statement keep every promise that one row has, and what repeats is said ever more seldom."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from bgdeploy import log
from bgdeploy.errors import LeaseLost
from bgdeploy.jobs.reasons import Code, because
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.store import Store
from bgdeploy.jobs.transitions import Row, events, insert_jobs, jobs, move_all, rewrite, sentence, write_all
from tests.jobs.tables import add_customer, add_job, opened, read_job

FIELDS = {"tables": 1, "rows": 2, "_size": "3"}


def said(store: Store, kind: str) -> list[Row]:
    with store.read() as connection:
        return list(connection.execute(sa.select(events).where(events.c.kind == kind)).mappings().all())


def new(*timestamps: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [({"customer": "acme", "timestamp": one}, {"reason": f"number {one}"}) for one in timestamps]


def test_many_jobs_are_inserted_each_with_its_event_and_none_twice(store: Store) -> None:
    add_customer(store, "acme")
    with opened(store, Actor.SCAN) as tx:
        first = insert_jobs(tx, State.DISCOVERED, "scan.discovered", new(1, 2))
    with opened(store, Actor.SCAN) as tx:
        second = insert_jobs(tx, State.DISCOVERED, "scan.discovered", new(2, 3))
    assert [row["timestamp"] for row in first] == [1, 2]
    assert [row["timestamp"] for row in second] == [3], "the second was there already"
    found = said(store, "scan.discovered")
    assert [row["job_id"] for row in found] == [row["id"] for row in [*first, *second]]
    assert [row["message"] for row in found] == [f"discovered acme/{one}: number {one}" for one in (1, 2, 3)]
    assert {(row["source"], row["target"]) for row in found} == {(None, "discovered")}


def test_many_jobs_move_each_with_its_event_and_those_of_others_stay(store: Store) -> None:
    add_customer(store, "acme")
    numbers = [add_job(store, "acme", one, State.DISCOVERED) for one in range(1, 6)]
    read = [read_job(store, number) for number in numbers]
    with store.write() as connection:
        connection.execute(jobs.update().where(jobs.c.id == numbers[1]).values(fence=7))
        connection.execute(jobs.update().where(jobs.c.id == numbers[2]).values(state="failed"))
        connection.execute(jobs.delete().where(jobs.c.id == numbers[3]))
    with opened(store, Actor.SCAN) as tx:
        moves = [(job, FIELDS, {"rows_expected": job["timestamp"] * 10}) for job in read]
        moved = move_all(tx, State.QUEUED, "scan.queued", moves)
    assert [job["id"] for job in moved] == [numbers[0], numbers[4]]
    assert [read_job(store, number)["state"] for number in numbers[:3]] == ["queued", "discovered", "failed"]
    assert read_job(store, numbers[4])["rows_expected"] == 50
    assert [row["job_id"] for row in said(store, "scan.queued")] == [numbers[0], numbers[4]]


def test_a_move_that_the_law_does_not_know_moves_none_of_many(store: Store) -> None:
    add_customer(store, "acme")
    read = [read_job(store, add_job(store, "acme", 1, state)) for state in [State.DISCOVERED]]
    read.append(read_job(store, add_job(store, "acme", 2, State.SWITCHED)))
    with pytest.raises(ValueError, match="no transition"), opened(store, Actor.SCAN) as tx:
        move_all(tx, State.QUEUED, "scan.queued", [(job, FIELDS, {}) for job in read])
    assert [read_job(store, job["id"])["state"] for job in read] == ["discovered", "switched"]
    assert said(store, "scan.queued") == []


def test_a_job_that_is_anothers_is_not_written_among_many_and_not_rewritten(store: Store) -> None:
    add_customer(store, "acme")
    mine, other = (read_job(store, add_job(store, "acme", one)) for one in (1, 2))
    with store.write() as connection:
        connection.execute(jobs.update().where(jobs.c.id == other["id"]).values(fence=7))
    with opened(store, Actor.SCAN) as tx:
        why = because(Code.ASKED_FOR, by="me")
        write_all(tx, [(mine, {"reason": why}), (other, {"reason": why})])
        write_all(tx, [])
        assert rewrite(tx, mine, step="x")["step"] == "x"
    assert [read_job(store, job["id"])["reason"] for job in (mine, other)] == ["asked for by me", None]
    with pytest.raises(LeaseLost), opened(store, Actor.SCAN) as tx:
        rewrite(tx, other, step="x")


def test_what_is_said_again_and_again_is_said_ever_more_seldom(store: Store) -> None:
    add_customer(store, "acme")
    job = read_job(store, add_job(store, "acme", 1, State.DISCOVERED))
    for second in [*range(20), *range(20, 3 * 86_400, 30)]:
        with opened(store, Actor.SCAN, now=float(second)) as tx:
            tx.say_seldom("scan.waits", job, reason=f"look {second}")
    times = [row["at"] for row in said(store, "scan.waits")]
    assert times[:5] == [0, 1, 3, 7, 15]
    assert len(times) <= 12 + 3 * 24, "and at most once an hour"
    assert max(later - earlier for earlier, later in pairwise(times)) <= 3600


def test_the_sentence_of_an_event_is_made_of_its_fields(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_customer(store, "acme")
    job = read_job(store, add_job(store, "acme", 1))
    why = because(Code.SETTLING, marker=None, newest=None, since=None, settle_seconds=30.0)
    with opened(store, Actor.SCAN) as tx:
        tx.say("scan.waits", job, reason=why)
        tx.say("load.loaded", job, compared="every value", rows=1_000, database="acme-1", took=1.25)
        tx.say("scan.queued", job, tables=2, rows=3, bytes=4, _size="5 MB")
        tx.say("service.trouble", what="x\x1b[2K", error=LeaseLost("gone", kept="All else stays."))
    with store.read() as connection:
        rows = connection.execute(sa.select(events).order_by(events.c.id)).mappings().all()
    assert [sentence(row) for row in rows] == [row["message"] for row in rows]
    assert rows[0]["fields"]["reason"] == {"code": "settling", "fields": dict(why.fields)}
    assert rows[1]["fields"]["rows"] == 1_000
    monkeypatch.setitem(log.EVENTS, "load.loaded", (logging.INFO, "{job}: {rows:,} Zeilen"))
    assert sentence(rows[1]) == "acme/1: 1,000 Zeilen"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("load.step", None),
        ("of.a.later.version", {"a": 1}),
        ("load.step", {}),
        ("load.loaded", {"job": "x", "compared": "", "rows": "many", "database": "x", "took": 1}),
        ("scan.waits", {"job": "x", "reason": {"code": "of-a-later-version", "fields": {}}}),
        ("scan.waits", {"job": "x", "reason": {"code": "no-room", "fields": {}}}),
        ("scan.waits", {"job": "x", "reason": {}}),
    ],
)
def test_an_event_of_another_version_says_what_was_written(kind: str, fields: dict[str, Any] | None) -> None:
    assert sentence({"kind": kind, "fields": fields, "message": "as it was"}) == "as it was"
