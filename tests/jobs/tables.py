"""Rows for tests, made the way the stages make them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.store import Store
from bgdeploy.jobs.transitions import Row, Tx, customers, databases, insert_job, jobs, transaction

OWNER = "host~1/1/1.00/" + "0" * 32


def add_customer(store: Store, name: str, **values: Any) -> None:
    with store.write() as connection:
        connection.execute(customers.insert().values(name=name, alias=name, created_at=0.0, **values))


def add_job(store: Store, customer: str, timestamp: int, state: State = State.QUEUED, **values: Any) -> int:
    """Insert a job directly in a state: for tests of what may happen to it from there."""
    with store.write() as connection:
        row = jobs.insert().values(
            customer=customer, timestamp=timestamp, state=state, created_at=0.0, updated_at=0.0, **values
        )
        return int(connection.execute(row.returning(jobs.c.id)).scalar_one())


def add_database(store: Store, job_id: int, name: str, **values: Any) -> None:
    with store.write() as connection:
        job = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).mappings().one()
        owned = {key: job[key] for key in ("customer", "timestamp", "build")}
        connection.execute(
            databases.insert().values(name=name, job_id=job_id, created_at=0.0, **owned, **values)
        )
        connection.execute(jobs.update().where(jobs.c.id == job_id).values(database=name))


def read_job(store: Store, job_id: int) -> Row:
    with store.read() as connection:
        return connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).mappings().one()


def discover(store: Store, customer: str, timestamp: int) -> Row | None:
    with transaction(store, now=1.0, actor=Actor.SCAN, owner=OWNER) as tx:
        return insert_job(
            tx,
            State.DISCOVERED,
            "scan.discovered",
            fields={"reason": "new"},
            customer=customer,
            timestamp=timestamp,
        )


def opened(store: Store, actor: Actor, now: float = 1.0) -> Any:
    """A write transaction of some actor."""
    return transaction(store, now=now, actor=actor, owner=OWNER)


__all__ = ["OWNER", "Tx", "add_customer", "add_database", "add_job", "discover", "opened", "read_job"]
