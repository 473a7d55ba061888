"""Over: snapshots of which every job has ended and no database is kept, and forgetting them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from bgdeploy.jobs.rows import Row, Tx, customers, databases, events, jobs, load_tables
from bgdeploy.jobs.states import State

FINISHED = (State.CLEANED, State.FAILED)
_ENDED = sa.func.coalesce(jobs.c.ended_at, jobs.c.updated_at)
_IN_PLAY = sa.or_(jobs.c.state.not_in(FINISHED), jobs.c.lease_owner.is_not(None))
_KEPT = sa.exists().where(
    databases.c.customer == jobs.c.customer,
    databases.c.timestamp == jobs.c.timestamp,
    databases.c.dropped_at.is_(None),
)
# What is live, and what was the newest that ever was, is spoken of by its customer.
_SPOKEN_OF = sa.exists().where(
    customers.c.name == jobs.c.customer,
    sa.or_(customers.c.live_timestamp == jobs.c.timestamp, customers.c.floor_timestamp == jobs.c.timestamp),
)
_OVER = (
    sa.select(
        jobs.c.customer,
        jobs.c.timestamp,
        sa.func.max(jobs.c.id).label("newest"),  # the number of its newest job
        sa.func.max(_ENDED).label("ended_at"),
        sa.func.max(jobs.c.changed).label("changed"),
    )
    .group_by(jobs.c.customer, jobs.c.timestamp)
    .having(sa.func.max(_IN_PLAY) == 0, ~_KEPT, ~_SPOKEN_OF)
)
# A number that was given once must never name another job, and SQLite counts on from the highest one.
_OLD = _OVER.having(
    sa.func.max(_ENDED) < sa.bindparam("before"),
    sa.func.max(jobs.c.id) < sa.select(sa.func.max(jobs.c.id)).scalar_subquery(),
)


def find_over(connection: sa.Connection, customer: str, timestamps: Collection[int]) -> Sequence[Row]:
    """Return those of a customer's snapshots that are over."""
    return connection.execute(_OVER.where(_is_of(customer, timestamps))).mappings().all()


def find_old(connection: sa.Connection, before: float) -> Sequence[Row]:
    """Return all snapshots that were over before that time; that of the newest job never is."""
    return connection.execute(_OLD, {"before": before}).mappings().all()


def find_old_jobs(
    connection: sa.Connection, before: float, customer: str, timestamps: Collection[int]
) -> Sequence[int]:
    """Return the numbers of the jobs of those of a customer's snapshots that were over before that time."""
    old = connection.execute(_OLD.where(_is_of(customer, timestamps)), {"before": before}).mappings().all()
    mine = _is_of(customer, [row["timestamp"] for row in old])
    return connection.execute(sa.select(jobs.c.id).where(mine)).scalars().all()


def _is_of(customer: str, timestamps: Collection[int]) -> sa.ColumnElement[bool]:
    return sa.and_(jobs.c.customer == customer, jobs.c.timestamp.in_(timestamps))


def forget(tx: Tx, ids: Sequence[int], *, most: int) -> bool:
    """Delete jobs with all that is written about them; False when only ``most`` rows could go, and more are left.

    Switches stay: they name the databases themselves.
    """
    left = most
    for table, of in ((events, events.c.job_id), (load_tables, load_tables.c.job_id)):
        some = sa.select(table.c.id).where(of.in_(ids)).limit(left)
        left -= tx.connection.execute(sa.delete(table).where(table.c.id.in_(some))).rowcount
        if not left:
            return False
    tx.connection.execute(sa.delete(databases).where(databases.c.job_id.in_(ids)))
    tx.connection.execute(sa.delete(jobs).where(jobs.c.id.in_(ids)))
    return True
