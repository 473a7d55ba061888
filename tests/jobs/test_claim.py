"""Who is next: oldest first within a customer, fair over customers, one winner, one load per customer."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bgdeploy.jobs.lease import new_owner
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.store import Store, open_store
from bgdeploy.jobs.transitions import events, jobs, move
from bgdeploy.pipeline import load
from bgdeploy.pipeline.claim import _CLAIM, _NEXT_OF, Rules, _binds, claim, peek
from tests.jobs.tables import OWNER, add_customer, add_job, opened, read_job

NOW = 1000.0
RULES = Rules(keep_databases=2, latest_only=False, settle_seconds=30, max_concurrent_loads=None)


def take(store: Store, rules: Rules = RULES, now: float = NOW) -> int | None:
    """Claim what is next, as a worker does; return its timestamp."""
    found = peek(store, rules, now=now)
    if found is None:
        return None
    job = claim(store, rules, job_id=found["id"], owner=OWNER, now=now, lease_seconds=60, settings={})
    assert job is not None
    return int(job["timestamp"])


def test_a_first_start_takes_only_the_newest_that_will_be_kept(store: Store) -> None:
    add_customer(store, "acme")
    for timestamp in range(1, 51):
        add_job(store, "acme", timestamp)
    assert take(store) == 49  # the older one of the two that keep_databases leaves


@pytest.mark.parametrize("live", [None, "acme-0"])
def test_none_older_than_a_database_that_waits_is_loaded(store: Store, live: str | None) -> None:
    add_customer(store, "acme", live=live)
    add_job(store, "acme", 1)
    add_job(store, "acme", 2, State.LOADED)
    assert take(store) is None
    add_job(store, "acme", 3)
    assert take(store) == 3, "and it does not hold newer ones back"


def test_with_an_alias_the_whole_backlog_goes_oldest_first(store: Store) -> None:
    add_customer(store, "acme", live="acme-0", floor_timestamp=0)
    for timestamp in (3, 1, 2):
        add_job(store, "acme", timestamp)
    assert take(store) == 1
    assert take(store) is None  # one load per customer


def test_latest_only_takes_the_newest(store: Store) -> None:
    add_customer(store, "acme", live="acme-0")
    for timestamp in (1, 2, 3):
        add_job(store, "acme", timestamp)
    assert take(store, Rules(2, True, 30, None)) == 3


def test_nothing_at_or_below_the_floor_and_nothing_of_a_paused_customer(store: Store) -> None:
    add_customer(store, "acme", live="acme-5", floor_timestamp=5, floor_build=1)
    add_customer(store, "idle", paused_at=1.0)
    add_job(store, "acme", 4)
    add_job(store, "acme", 5)
    add_job(store, "idle", 1)
    assert take(store) is None


def test_what_a_person_asked_for_is_held_back_by_neither_floor_nor_window(store: Store) -> None:
    add_customer(store, "acme", live="acme-5", floor_timestamp=5, floor_build=1)
    add_job(store, "acme", 4, build=2, requested=True)
    assert take(store, Rules(2, True, 30, None)) == 4


def test_an_older_one_that_still_settles_holds_newer_ones_back(store: Store) -> None:
    add_customer(store, "acme", live="acme-0")
    add_job(store, "acme", 1, State.DISCOVERED, fingerprint_at=NOW - 5)
    add_job(store, "acme", 2)
    assert take(store) is None
    assert take(store, now=NOW + 26) == 2


def test_the_customer_served_longest_ago_goes_first(store: Store) -> None:
    for name, served in (("busy", 900.0), ("patient", 100.0)):
        add_customer(store, name, served_at=served, live="x")
    add_job(store, "busy", 1)
    add_job(store, "patient", 7)
    assert take(store) == 7


def test_a_backlog_of_one_customer_starves_nobody(store: Store) -> None:
    for name in ("big", "small"):
        add_customer(store, name, live="x")
    for timestamp in range(1, 20):
        add_job(store, "big", timestamp)
    add_job(store, "small", 100)
    assert [take(store, now=NOW + step) for step in range(2)] == [1, 100]


def test_backoff_is_respected_and_keeps_the_order(store: Store) -> None:
    add_customer(store, "acme", live="acme-0")
    add_job(store, "acme", 1, not_before=NOW + 10)
    add_job(store, "acme", 2)
    assert take(store) is None
    assert take(store, now=NOW + 11) == 1


def test_the_limit_on_loads_counts_all_customers(store: Store) -> None:
    for name in ("a", "b", "c"):
        add_customer(store, name)
        add_job(store, name, 1)
    rules = Rules(2, False, 30, 2)
    assert [take(store, rules) for _ in range(3)] == [1, 1, None]


def test_the_database_is_on_record_before_it_exists_and_no_name_is_used_twice(store: Store) -> None:
    add_customer(store, "acme")
    job_id = add_job(store, "acme", 1)
    take(store)
    first = read_job(store, job_id)
    assert first["database"] == "acme-1" and first["fence"] == 1
    with opened(store, Actor.WORKER, now=NOW) as tx:
        load.intend_drop(tx, first, "test")
        move(tx, first, State.QUEUED, "scan.waits", fields={"reason": ""}, **load.IDLE)
    take(store)
    assert read_job(store, job_id)["database"] == "acme-1-f2"


def test_an_unfinished_build_is_continued_under_its_name(store: Store) -> None:
    add_customer(store, "acme")
    job_id = add_job(store, "acme", 1)
    take(store)
    with opened(store, Actor.WORKER, now=NOW) as tx:
        load.give_back(tx, read_job(store, job_id), "test")
    take(store)
    assert (read_job(store, job_id)["database"], read_job(store, job_id)["fence"]) == ("acme-1", 2)


def test_the_claim_walks_indexes_and_never_the_whole_table(store: Store) -> None:
    with store.read() as connection:
        binds = {**_binds(RULES, NOW), "only": 1, "customer": "acme", "owner": OWNER, "until": 1.0}
        plans = [
            connection.execute(sa.text(f"EXPLAIN QUERY PLAN {statement}"), binds).all()
            for statement in (_CLAIM, _NEXT_OF)
        ]
    steps = [str(row[-1]) for plan in plans for row in plan]
    assert not [
        step for step in steps if step.startswith("SCAN") and "USING" not in step and "(subquery" not in step
    ]


def _claim_all(path: str, won: Any) -> None:
    store, owner = open_store(Path(path)), new_owner()
    while (found := peek(store, RULES, now=NOW)) is not None:
        job = claim(store, RULES, job_id=found["id"], owner=owner, now=NOW, lease_seconds=60, settings={})
        if job is not None:
            won.put((job["id"], job["fence"]))
    won.put(None)


@pytest.mark.timeout(60)
def test_eight_processes_claim_from_one_file_and_each_job_has_one_winner(store: Store, path: Path) -> None:
    for number in range(60):
        add_customer(store, f"customer-{number:02}")
        add_job(store, f"customer-{number:02}", 1)
    spawn = multiprocessing.get_context("spawn")
    won = spawn.Queue()
    workers = [spawn.Process(target=_claim_all, args=(str(path), won)) for _ in range(8)]
    for worker in workers:
        worker.start()
    wins = []
    for _ in range(8):
        while (one := won.get(timeout=50)) is not None:
            wins.append(one)
    for worker in workers:
        worker.join()
    assert Counter(job_id for job_id, _ in wins) == Counter(range(1, 61))
    with store.read() as connection:
        claimed = (
            connection.execute(sa.select(events.c.job_id).where(events.c.kind == "load.claimed"))
            .scalars()
            .all()
        )
        loading = connection.execute(sa.select(jobs.c.fence).where(jobs.c.state == "loading")).scalars().all()
    assert sorted(claimed) == list(range(1, 61)) and set(loading) == {1}


@pytest.mark.parametrize("code", ["target-full", "folder-away", "not-readable"])
def test_one_that_waits_for_what_it_alone_lacks_holds_up_no_newer_one(store: Store, code: str) -> None:
    add_customer(store, "acme", live="acme-0")
    add_job(store, "acme", 1, not_before=NOW + 10, error_code=code)
    add_job(store, "acme", 2)
    assert take(store) == 2


@pytest.mark.parametrize("code", ["target-away", "target", "interrupted", "config"])
def test_one_that_waits_for_what_all_need_keeps_its_place(store: Store, code: str) -> None:
    add_customer(store, "acme", live="acme-0")
    add_job(store, "acme", 1, not_before=NOW + 10, error_code=code)
    add_job(store, "acme", 2)
    assert take(store) is None
    assert take(store, now=NOW + 11) == 1


def test_what_was_put_off_by_a_clock_that_was_set_back_is_due(store: Store) -> None:
    add_customer(store, "acme", live="acme-0")
    first = add_job(store, "acme", 1, not_before=NOW + 3610)
    assert take(store) is None
    with store.write() as connection:
        connection.execute(jobs.update().where(jobs.c.id == first).values(updated_at=NOW + 3600))
    assert take(store) == 1
