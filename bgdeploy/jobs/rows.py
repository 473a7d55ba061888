"""Rows of the job table: the one function that moves a job, and the reads every stage shares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from bgdeploy import log
from bgdeploy.errors import LeaseLost, NotFound
from bgdeploy.jobs.models import Customer, Database, Job, JobEvent, LoadTable
from bgdeploy.jobs.states import Actor, State, find
from bgdeploy.jobs.store import Store

jobs: sa.Table = Job.__table__  # type: ignore[assignment]
events: sa.Table = JobEvent.__table__  # type: ignore[assignment]
customers: sa.Table = Customer.__table__  # type: ignore[assignment]
databases: sa.Table = Database.__table__  # type: ignore[assignment]
load_tables: sa.Table = LoadTable.__table__  # type: ignore[assignment]

Row = sa.RowMapping


@dataclass(frozen=True)
class Tx:
    """One write transaction with its time and its author; what it says is logged once it is durable."""

    connection: sa.Connection
    now: float
    actor: Actor
    owner: str
    said: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def say(
        self, name: str, job: Row | None = None, *, edge: tuple[Any, Any] = (None, None), **fields: Any
    ) -> None:
        """Append an event row and remember to log it after the commit."""
        if job is not None:
            fields = {"job": title(job), **fields}
        self.connection.execute(
            events.insert().values(
                job_id=job["id"] if job is not None else None,
                customer=job["customer"] if job is not None else fields.get("customer"),
                at=self.now,
                kind=name,
                source=edge[0],
                target=edge[1],
                actor=self.actor,
                owner=self.owner,
                fence=job["fence"] if job is not None else None,
                message=log.word(name, **fields),
            )
        )
        self.said.append((name, fields))


@contextmanager
def transaction(store: Store, *, now: float, actor: Actor, owner: str) -> Iterator[Tx]:
    """A write transaction whose events reach the log only when it has committed."""
    with store.write() as connection:
        tx = Tx(connection, now, actor, owner)
        yield tx
    for name, fields in tx.said:
        log.emit(name, **fields)


def title(job: Mapping[Any, Any]) -> str:
    """Return how people call a job: customer/timestamp, with the build where it is not the first."""
    build = f" build {job['build']}" if job["build"] > 1 else ""
    return f"{job['customer']}/{job['timestamp']}{build}"


def move(tx: Tx, job: Row, target: State, event: str, *, fields: Mapping[str, Any], **changes: Any) -> None:
    """Move a job along one edge of the law, with its event, in this transaction.

    Guarded by id, state and fence as they were read; raises LeaseLost when the row is another one
    by now, and ValueError for a move the law does not know.
    """
    find(State(job["state"]), target, tx.actor)
    write(tx, job, state=target, **changes)
    tx.say(event, job, edge=(job["state"], target), **fields)


def write(tx: Tx, job: Row, **changes: Any) -> None:
    """Change a job that still has the state and fence it was read with, or raise LeaseLost."""
    guard = sa.and_(jobs.c.id == job["id"], jobs.c.state == job["state"], jobs.c.fence == job["fence"])
    done = tx.connection.execute(jobs.update().where(guard).values(updated_at=tx.now, **changes))
    if done.rowcount != 1:
        raise LeaseLost(
            f"Job {job['id']} ({title(job)}) has another owner by now.",
            kept="Nothing was written.",
            cure=f"See where it is: bgdeploy jobs show {job['id']}",
        )


def insert_job(tx: Tx, state: State, event: str, *, fields: Mapping[str, Any], **values: Any) -> Row | None:
    """Insert a job, or return None where this customer, timestamp and build has one already."""
    find(None, state, tx.actor)
    known = sa.select(jobs.c.id).where(
        jobs.c.customer == values["customer"],
        jobs.c.timestamp == values["timestamp"],
        jobs.c.build == values.get("build", 1),
    )
    if tx.connection.execute(known).first():
        return None
    created = jobs.insert().values(state=state, created_at=tx.now, updated_at=tx.now, **values)
    row = tx.connection.execute(created.returning(*jobs.c)).mappings().one()
    tx.say(event, row, edge=(None, state), **fields)
    return row


def get_job(connection: sa.Connection, job_id: int) -> Row:
    """Return a job, or raise NotFound."""
    found = sa.select(jobs).where(jobs.c.id == job_id)
    # What does not fit into the column is no job's id, and SQLite would stumble over it.
    row = connection.execute(found).mappings().one_or_none() if abs(job_id) < 2**63 else None
    if row is None:
        raise NotFound(f"There is no job {job_id}.", cure="See: bgdeploy jobs list")
    return row


def get_customer(connection: sa.Connection, name: str) -> Row:
    """Return a customer, or raise NotFound."""
    row = connection.execute(sa.select(customers).where(customers.c.name == name)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no customer {name!r}.", cure="See: bgdeploy customers")
    return row


def get_database(connection: sa.Connection, name: str) -> Row:
    """Return a database that bgdeploy owns or owned, or raise NotFound."""
    row = connection.execute(sa.select(databases).where(databases.c.name == name)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no database {name!r} of bgdeploy's.", cure="See: bgdeploy customers")
    return row


def select_jobs(connection: sa.Connection, *where: Any, order: Sequence[Any] = ()) -> Sequence[Row]:
    """Return the jobs that meet all conditions."""
    return connection.execute(sa.select(jobs).where(*where).order_by(*order)).mappings().all()


def age(row: Mapping[Any, Any]) -> tuple[int, int]:
    """Return what "newer" compares: (timestamp, build)."""
    return row["timestamp"], row["build"]
