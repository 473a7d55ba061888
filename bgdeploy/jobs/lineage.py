"""Live, standby, candidate: what each database is to its customer, which ones may go, and which snapshots are over."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from bgdeploy.jobs.states import State
from bgdeploy.jobs.transitions import Row, Tx, age, customers, databases, events, jobs, load_tables

_BUILT = jobs.c.database.label("built")
_STATE = (jobs.c.state, jobs.c.requested, jobs.c.loaded_at, jobs.c.not_before, jobs.c.blocked, _BUILT)
_NEWEST_FIRST = (databases.c.timestamp.desc(), databases.c.build.desc(), databases.c.created_at.desc())
_KEPT = (
    sa.select(databases, *_STATE)
    .join(jobs, jobs.c.id == databases.c.job_id)
    .where(databases.c.dropped_at.is_(None))
    .order_by(*_NEWEST_FIRST)
)
_KEPT_OF = _KEPT.where(databases.c.customer == sa.bindparam("customer"))
# Where no more good ones are kept than may be, nothing else is owned, and nobody leaves, nothing is doomed.
_CROWDED = (
    sa.select(databases.c.customer)
    .join(jobs, jobs.c.id == databases.c.job_id)
    .where(databases.c.dropped_at.is_(None))
    .group_by(databases.c.customer)
    .having(
        sa.or_(
            sa.func.count() > sa.bindparam("keep"),
            sa.func.count(databases.c.drop_at) + sa.func.count(databases.c.bad_at) > 0,
            sa.func.max(jobs.c.state.not_in((State.SWITCHED, State.LOADING))) == 1,
            databases.c.customer.in_(sa.select(customers.c.name).where(customers.c.removed_at.is_not(None))),
        )
    )
)


@dataclass(frozen=True)
class Doomed:
    """A database that may be dropped, and why."""

    database: Row
    why: str


def kept_databases(connection: sa.Connection, customer: str | None = None) -> Sequence[Row]:
    """Return every database not dropped yet, with its job's state, newest first."""
    statement, of = (_KEPT, {}) if customer is None else (_KEPT_OF, {"customer": customer})
    return connection.execute(statement, of).mappings().all()


def crowded(connection: sa.Connection, *, keep: int) -> Sequence[str]:
    """Return the customers of whose databases any could be doomed: few, where there are a thousand."""
    return connection.execute(_CROWDED, {"keep": keep}).scalars().all()


def live_age(customer: Row) -> tuple[int, int]:
    """Return (timestamp, build) of what is live; (0, 0) where nothing is."""
    return customer["live_timestamp"] or 0, customer["live_build"] or 0


def good(customer: Row, kept: Sequence[Row]) -> list[Row]:
    """Databases that readers may be given: switched, not bad, not newer than live; newest first."""
    return [
        row
        for row in kept
        if row["state"] == State.SWITCHED
        and row["bad_at"] is None
        and row["drop_at"] is None
        and age(row) <= live_age(customer)
    ]


def standby(customer: Row, kept: Sequence[Row], there: Collection[str] | None = None) -> Row | None:
    """The newest good database older than live: the way back; of those that are ``there``, where that is known."""
    others = (row for row in good(customer, kept) if row["name"] != customer["live"])
    return next((row for row in others if there is None or row["name"] in there), None)


def candidate(kept: Sequence[Row]) -> Row | None:
    """The database being made, else the newest one that waits."""
    waiting = [
        row for row in kept if row["drop_at"] is None and row["state"] in (State.LOADING, State.LOADED)
    ]
    return max(waiting, key=lambda row: (row["state"] == State.LOADING, age(row)), default=None)


def doomed(
    customer: Row,
    kept: Sequence[Row],
    *,
    keep: int,
    grace: float,
    now: float,
    there: Collection[str] | None = None,
) -> list[Doomed]:
    """Decide what may be dropped; pure, so that every rule has a test.

    Never the live database, the newest ``keep`` good ones, a pinned one, one an intent names, one
    that is being built, the newest that waits, or anything newer than live. With ``there``, what the
    target has, the newest ``keep`` of those stay too: one that is gone takes nobody's place.
    """
    names = [row["name"] for row in good(customer, kept)]
    stays = {customer["live"], customer["intent"], *names[:keep]}
    if there is not None:
        present = [name for name in names if name in there]
        # Where what is live is gone, a whole disk may be: nothing good is given up until it is back.
        stays |= set(present[:keep] if customer["live"] in there else names)
    free = [row for row in kept if row["name"] not in stays and row["pinned_at"] is None]
    return [Doomed(row, why) for row in free if (why := _reason(customer, kept, row, grace=grace, now=now))]


def _reason(customer: Row, kept: Sequence[Row], row: Row, *, grace: float, now: float) -> str | None:
    if row["drop_at"] is not None:
        return str(row["drop_why"])
    if customer["removed_at"] is not None and row["state"] == State.SWITCHED:
        left = row["left_at"] or customer["removed_at"]
        return "its customer was removed" if customer["live"] is None and left + grace <= now else None
    match State(row["state"]):
        case State.FAILED:
            return "its job failed"
        case State.CLEANED:
            return "its job is over"
        case State.LOADED:
            return _overtaken(customer, kept, row)
        case State.SWITCHED if age(row) < live_age(customer):
            left = row["left_at"] or customer["live_since"] or now
            return "retired: newer ones are kept" if left + grace <= now else None
    return None


def _overtaken(customer: Row, kept: Sequence[Row], row: Row) -> str | None:
    """A loaded one goes when a newer one was verified, or went live after it was loaded.

    One that a person asked for stays beside a newer one that waits: that may wait for a decision too.
    """
    waiting = [other for other in kept if other["state"] == State.LOADED and age(other) > age(row)]
    if waiting and not row["requested"]:
        return f"{waiting[0]['name']} is newer and waits"
    since = customer["live_since"] or 0
    if live_age(customer) > age(row) and since >= (row["loaded_at"] or 0):
        return f"{customer['live']} is newer and live"
    return None


FINISHED = (State.CLEANED, State.FAILED)
_ENDED = sa.func.coalesce(jobs.c.ended_at, jobs.c.updated_at)
_IN_PLAY = sa.or_(jobs.c.state.not_in(FINISHED), jobs.c.lease_owner.is_not(None))
_HAS_DATABASE = sa.exists().where(
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
    .having(sa.func.max(_IN_PLAY) == 0, ~_HAS_DATABASE, ~_SPOKEN_OF)
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
