"""Claim: which queued job is next, taking it in one statement, and the room that its load needs.

Each need is known with its sum before a load starts, so that it never fails half-way.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import sqlalchemy as sa

from bgdeploy.jobs import lineage
from bgdeploy.jobs.states import Actor, State, find
from bgdeploy.jobs.store import Store, update_where
from bgdeploy.jobs.transitions import Row, Tx, customers, databases, jobs, rewrite, select_jobs, transaction
from bgdeploy.memory import find_free
from bgdeploy.naming import database_name
from bgdeploy.site import Site
from bgdeploy.snapshots.keys import memory_to_compare
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Need

NO_LIMIT = 2**31
SKEW = 60.0  # seconds by which clocks of hosts may differ; what was written later than that was written before the clock was set back


@dataclass(frozen=True)
class Rules:
    """What the configuration says about taking work."""

    keep_databases: int
    latest_only: bool
    settle_seconds: float
    max_concurrent_loads: int | None


# The customer that was served longest ago goes first; of those never served, the one with the oldest.
_TURNS = sa.text("""
SELECT c.name FROM customers AS c
WHERE c.paused_at IS NULL AND (SELECT count(*) FROM jobs AS l WHERE l.state = 'loading') < :slots
  AND EXISTS (SELECT 1 FROM jobs AS q WHERE q.state = 'queued' AND q.customer = c.name)
  AND NOT EXISTS (SELECT 1 FROM jobs AS l WHERE l.state = 'loading' AND l.customer = c.name)
ORDER BY c.served_at,
  (SELECT min(q.timestamp) FROM jobs AS q WHERE q.state = 'queued' AND q.customer = c.name)
""")
# A customer's queued jobs go oldest first, one at a time. Only the newest ones count where a backlog is not wanted ("window"), and none that
# is older than a database which waits to go live: it would be dropped as soon as it was verified.
# What a person asked for (retry, reload) is held back by none of these. An older one that is put off holds newer ones up only where it
# waits for what they need too; one that finds no room, or whose own folder is out of reach, may wait for ever. What was put off
# by a clock that was set back since is due.
_NEXT = """
SELECT j.id FROM jobs AS j JOIN customers AS c ON c.name = j.customer
WHERE {of} AND j.state = 'queued' AND (j.not_before <= :now OR j.updated_at > :later) AND c.paused_at IS NULL
  AND (SELECT count(*) FROM jobs AS l WHERE l.state = 'loading') < :slots
  AND NOT EXISTS (SELECT 1 FROM jobs AS l WHERE l.state = 'loading' AND l.customer = j.customer)
  AND (j.requested = 1 OR (
    (j.timestamp, j.build) > (c.floor_timestamp, c.floor_build)
    AND NOT EXISTS (
      SELECT 1 FROM jobs AS d WHERE d.state = 'discovered' AND d.customer = j.customer
        AND d.timestamp < j.timestamp AND d.fingerprint_at > :settling_since)
    AND NOT EXISTS (
      SELECT 1 FROM jobs AS w WHERE w.state = 'loaded' AND w.customer = j.customer
        AND w.timestamp > j.timestamp)
    AND (SELECT count(*) FROM (
      SELECT 1 FROM jobs AS n WHERE n.state = 'queued' AND n.customer = j.customer
        AND n.timestamp > j.timestamp AND n.requested = 0 LIMIT :keep)
    ) < CASE WHEN c.live IS NULL THEN :keep WHEN :latest THEN 1 ELSE :no_limit END
    AND NOT EXISTS (
      SELECT 1 FROM jobs AS o WHERE o.state = 'queued' AND o.customer = j.customer
        AND o.timestamp < j.timestamp AND o.requested = 0 AND (o.timestamp, o.build) > (c.floor_timestamp, c.floor_build)
        AND NOT (o.not_before > :now AND coalesce(o.error_code, '') IN ('target-full', 'folder-away', 'not-readable'))
        AND NOT EXISTS (
          SELECT 1 FROM jobs AS w WHERE w.state = 'loaded' AND w.customer = j.customer
            AND w.timestamp > o.timestamp)
        AND (SELECT count(*) FROM (
          SELECT 1 FROM jobs AS n WHERE n.state = 'queued' AND n.customer = j.customer
            AND n.timestamp > o.timestamp AND n.requested = 0 LIMIT :keep)
        ) < CASE WHEN c.live IS NULL THEN :keep WHEN :latest THEN 1 ELSE :no_limit END)
  ))
ORDER BY j.timestamp, j.build LIMIT 1
"""
_ALL = ", ".join(f'"{column.name}"' for column in jobs.c)
_NEXT_OF = sa.text(
    f"SELECT {_ALL} FROM jobs WHERE id = ({_NEXT.format(of='j.customer = :customer')})"
).columns(*jobs.c)
_NEXT_ONE = sa.text(f"SELECT {_ALL} FROM jobs WHERE id = ({_NEXT.format(of='j.id = :only')})").columns(
    *jobs.c
)
_CLAIM = sa.text(f"""
UPDATE jobs SET state = 'loading', fence = fence + 1, lease_owner = :owner, lease_expires = :until,
  loading_at = coalesce(loading_at, :now), updated_at = :now, reason = NULL, reason_code = NULL, reason_fields = NULL, blocked = 0, error = NULL,
  error_code = NULL, cancel_at = NULL
WHERE state = 'queued' AND id = ({_NEXT.format(of="j.id = :only")})
RETURNING {_ALL}
""").columns(*jobs.c)
_USABLE = sa.select(databases.c.name).where(
    databases.c.job_id == sa.bindparam("job_id"),
    databases.c.drop_at.is_(None),
    databases.c.dropped_at.is_(None),
)
_TAKEN = sa.union_all(
    sa.select(databases.c.name).where(databases.c.name == sa.bindparam("name")),
    sa.select(customers.c.alias).where(customers.c.alias == sa.bindparam("name")),
)


def peek(store: Store, rules: Rules, *, now: float, only: int | None = None) -> Row | None:
    """Return the job that would be claimed next, or None; with ``only`` that job, where it may be claimed now."""
    with store.read() as connection:
        binds = _binds(rules, now)
        if only is not None:
            return connection.execute(_NEXT_ONE, {**binds, "only": only}).mappings().one_or_none()
        for name in connection.execute(_TURNS, {"slots": binds["slots"]}).scalars().all():
            found = connection.execute(_NEXT_OF, {**binds, "customer": name}).mappings().one_or_none()
            if found is not None:
                return found
    return None


def claim(
    store: Store,
    rules: Rules,
    *,
    job_id: int,
    owner: str,
    now: float,
    lease_seconds: float,
    settings: dict[str, Any],
    existing: Collection[str] = (),
) -> Row | None:
    """Take one queued job, if it is still the next one: one winner, a new fence, its event.

    The same transaction names the database it will be loaded into, so that ownership is on record
    before anything exists. ``settings`` are kept with the job unless an earlier run left its own;
    ``existing`` are the names of all databases at the target, none of which a new one may take.
    """
    find(State.QUEUED, State.LOADING, Actor.WORKER)
    binds = {**_binds(rules, now), "only": job_id, "owner": owner, "until": now + lease_seconds}
    with transaction(store, now=now, actor=Actor.WORKER, owner=owner) as tx:
        # one writer: the statement counts loads of all and of the customer; another store needs one lock for all claims
        # (an advisory one, or SERIALIZABLE with a retry), for two claims at once would both count too few
        job = tx.connection.execute(_CLAIM, binds).mappings().one_or_none()
        if job is None:
            return None
        served = {"of_name": job["customer"], "served_at": now}
        tx.connection.execute(update_where(customers, "name"), served)
        database = _database_of(tx, job) or own_database(tx, job, existing)
        job = rewrite(tx, job, database=database, settings=job["settings"] or settings)
        fields = {key: job[key] for key in ("fence", "attempt", "interruptions")}
        tx.say("load.claimed", job, edge=(State.QUEUED, State.LOADING), database=database, **fields)
        return job


def _database_of(tx: Tx, job: Row) -> str | None:
    """The build an earlier run left, where it may be continued."""
    if job["database"] is None:
        return None
    return tx.connection.execute(_USABLE, {"job_id": job["id"]}).scalars().first()


def own_database(tx: Tx, job: Row, existing: Collection[str]) -> str:
    """Record ownership of a new name for this job's database and return it; no name is used twice."""
    marks = chain([None], count(job["fence"]))
    names = (database_name(job["customer"], job["timestamp"], job["build"], mark) for mark in marks)
    # one writer: databases' names are a primary key, aliases are another table's: another store needs a lock on the name
    name = next(name for name in names if name not in existing and not _is_taken(tx, name))
    owned = {key: job[key] for key in ("customer", "timestamp", "build")}
    tx.connection.execute(
        databases.insert(), {"name": name, "job_id": job["id"], "created_at": tx.now, **owned}
    )
    return name


def _is_taken(tx: Tx, name: str) -> bool:
    return tx.connection.execute(_TAKEN, {"name": name}).first() is not None


def _binds(rules: Rules, now: float) -> dict[str, object]:
    return {
        "now": now,
        "later": now + SKEW,
        "slots": NO_LIMIT if rules.max_concurrent_loads is None else rules.max_concurrent_loads,
        "settling_since": now - rules.settle_seconds,
        "keep": rules.keep_databases,
        "latest": rules.latest_only,
        "no_limit": NO_LIMIT,
    }


def find_needs(site: Site, job: Row, snapshot: Snapshot) -> list[Need]:
    """Return what loading this job's snapshot takes beside all that exists and all that runs."""
    with site.store.read() as connection:
        running = [row["database"] for row in select_jobs(connection, jobs.c.state == State.LOADING)]
        others = [row for row in lineage.kept_databases(connection) if row["job_id"] != job["id"]]
    return [*site.target.plan(snapshot, running), *_slots(site, len(others)), *_proof(snapshot)]


def _slots(site: Site, others: int) -> list[Need]:
    limit = site.settings.max_databases
    if limit is None:
        return []
    words = f"databases: {others} exist + 1 to load = {others + 1}, max_databases is {limit}"
    return [Need("databases", others + 1, limit, words)]


def _proof(snapshot: Snapshot) -> list[Need]:
    """Memory to compare every value, where a row group is so large that it takes more than is usual."""
    needed, largest = memory_to_compare(snapshot)
    if largest is None:
        return []
    free = find_free()
    words = f"memory to compare {largest.path}, a whole row group at once: {needed:,} MiB, {free >> 20:,} MiB are free"
    return [Need("memory", needed << 20, free, words)]
