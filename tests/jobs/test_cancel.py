"""A cancel that was asked wins against every end a load may come to, whoever writes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from bgdeploy.errors import BadInput, TargetAway, TargetError
from bgdeploy.jobs.lease import rescue
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.store import Store
from bgdeploy.jobs.transitions import Row, Tx, databases, events, jobs
from bgdeploy.pipeline import load
from tests.jobs.tables import OWNER, add_customer, add_database, add_job, opened, read_job

ELSEWHERE = "elsewhere~1/7/1.00/" + "a" * 32
RULES: dict[str, Any] = {"max_retries": 3, "base": 1.0, "wait": 1.0}
ENDS: dict[str, Callable[[Tx, Row], None]] = {
    "finished": lambda tx, job: load.finish(tx, job, counts={}, proof={"compared": "nothing"}),
    "given back": lambda tx, job: load.give_back(tx, job, "the service was stopped"),
    "error": lambda tx, job: load.end_badly(tx, job, TargetError("x"), **RULES),
    "away": lambda tx, job: load.end_badly(tx, job, TargetAway("x"), **RULES),
    "bad input": lambda tx, job: load.end_badly(tx, job, BadInput("x"), **RULES),
}


@pytest.fixture
def loading(store: Store) -> int:
    add_customer(store, "acme")
    held = {"lease_owner": ELSEWHERE, "lease_expires": 100.0, "fence": 3, "not_before": 1e9}
    job_id = add_job(store, "acme", 1, State.LOADING, **held)
    add_database(store, job_id, "acme-1")
    return job_id


def ask(store: Store) -> None:
    """A person asks, after the worker has read its row."""
    with store.write() as connection:
        connection.execute(jobs.update().values(cancel_at=5.0))


def check_cancelled(store: Store, job_id: int, actor: Actor) -> None:
    job = read_job(store, job_id)
    assert (job["state"], job["error_code"], job["lease_owner"]) == (State.FAILED, "cancelled", None)
    assert f"bgdeploy retry {job_id}" in job["error"]
    assert job["not_before"] == 0, "what it built may go at once"
    with store.read() as connection:
        last = connection.execute(sa.select(events).order_by(events.c.id.desc())).mappings().first()
    assert last is not None
    assert (last["kind"], last["source"], last["target"], last["actor"]) == (
        "load.cancelled", "loading", "failed", actor,
    )  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_a_worker_that_ends_its_load_in_any_way_finds_the_cancel(
    store: Store, loading: int, end: str
) -> None:
    job = read_job(store, loading)
    ask(store)
    with opened(store, Actor.WORKER, now=6.0) as tx:
        ENDS[end](tx, job)
    check_cancelled(store, loading, Actor.WORKER)
    with store.read() as connection:
        built = connection.execute(sa.select(databases)).mappings().one()
    assert (built["drop_at"], built["drop_why"]) == (6.0, "its job was cancelled")


@pytest.mark.parametrize("end", ENDS)
def test_without_a_cancel_each_end_is_what_it_was(store: Store, loading: int, end: str) -> None:
    with opened(store, Actor.WORKER, now=6.0) as tx:
        ENDS[end](tx, read_job(store, loading))
    assert read_job(store, loading)["error_code"] != "cancelled"


def test_a_rescuer_cancels_instead_of_queueing_again(store: Store, loading: int) -> None:
    ask(store)
    assert rescue(store, now=99.0, owner=OWNER, most=3, base=2.0) == 0, "its lease has not expired"
    assert rescue(store, now=101.0, owner=OWNER, most=3, base=2.0) == 1
    check_cancelled(store, loading, Actor.RESCUE)


def test_a_cancel_between_a_rescuers_look_and_its_write_is_seen(
    store: Store, loading: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bgdeploy.jobs import lease as module

    seen = module._lost

    def look_then_ask(store: Store, now: float) -> list[Row]:
        found = seen(store, now)
        ask(store)
        return found

    monkeypatch.setattr(module, "_lost", look_then_ask)
    rescue(store, now=101.0, owner=OWNER, most=3, base=2.0)
    check_cancelled(store, loading, Actor.RESCUE)
