"""Clean: drop what nobody needs any more, as claimed work: intent, grace, drop, see it gone, record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from bgdeploy.errors import BgdeployError
from bgdeploy.failpoints import reach
from bgdeploy.jobs import lease, lineage
from bgdeploy.jobs.lineage import Doomed
from bgdeploy.jobs.rescue import FREED
from bgdeploy.jobs.rows import Row, Tx, customers, databases, get_job, jobs, move, write
from bgdeploy.jobs.states import Actor, State
from bgdeploy.site import Site

_RETIRABLE = (State.LOADED, State.SWITCHED)


def clean(site: Site) -> int:
    """Drop every database that may go now; return how many went."""
    return sum(_drop(site, customer, doomed) for customer, doomed in list(_doomed(site)))


def _doomed(site: Site) -> Iterable[tuple[Row, Doomed]]:
    orchestrator = site.settings.orchestrator
    with site.store.read() as connection:
        kept = lineage.kept_databases(connection)
        owners = connection.execute(sa.select(customers)).mappings().all()
    by_customer: dict[str, list[Row]] = {}
    for row in kept:
        by_customer.setdefault(row["customer"], []).append(row)
    for customer in owners:
        mine = by_customer.get(customer["name"], [])
        rules: dict[str, Any] = {
            "keep": orchestrator.keep_databases,
            "grace": orchestrator.drop_grace_seconds,
        }
        for one in lineage.doomed(customer, mine, now=site.clock(), **rules):
            if one.database["not_before"] <= site.clock() or one.database["state"] == State.QUEUED:
                yield customer, one


def _drop(site: Site, customer: Row, doomed: Doomed) -> bool:
    reach("clean.decided")
    fence = _intend(site, customer, doomed)
    if fence is None:
        return False
    name = doomed.database["name"]
    reach("clean.intended")
    try:
        leaving = site.target.drain(name)
        if leaving.state != "ok":
            return _wait(site, doomed, fence, "; ".join(leaving.reasons))
        site.target.drop(name, fence)
        if any(found.name == name for found in site.target.databases()):
            return _wait(site, doomed, fence, "it is still there after the drop")
    except BgdeployError as error:
        return _wait(site, doomed, fence, str(error))
    reach("clean.dropped")
    _record(site, doomed, fence)
    return True


def _intend(site: Site, customer: Row, doomed: Doomed) -> int | None:
    """Claim the job's row and write the intent in one guarded step; None when somebody was faster.

    It looks at the customer's row as it was when the decision fell: a rollback that moved its
    generation on wins, and one that comes later finds the intent and is refused.
    """
    row = doomed.database
    undisturbed = sa.exists().where(
        customers.c.name == customer["name"],
        customers.c.generation == customer["generation"],
        customers.c.live.is_distinct_from(row["name"]),
        customers.c.intent.is_distinct_from(row["name"]),
    )
    guard = (
        databases.c.name == row["name"],
        databases.c.dropped_at.is_(None),
        databases.c.pinned_at.is_(None),
    )
    with site.transaction(Actor.CLEANER) as tx:
        job = get_job(tx.connection, row["job_id"])
        if job["state"] == State.LOADING and row["drop_at"] is None:
            return None
        first = databases.update().where(*guard, undisturbed, databases.c.drop_at.is_(None))
        intended = tx.connection.execute(first.values(drop_at=tx.now, drop_why=doomed.why))
        if intended.rowcount == 0 and not _intended_before(tx, row["name"], undisturbed):
            return None
        if intended.rowcount:
            tx.say("clean.intended", job, database=row["name"], why=doomed.why)
        if job["state"] == State.LOADING:
            return int(job["fence"])  # an old build of a job that goes on under another name
        return lease.take(
            tx.connection, job, owner=site.owner, now=tx.now, seconds=site.settings.orchestrator.lease_seconds
        )


def _intended_before(tx: Tx, name: str, undisturbed: sa.Exists) -> bool:
    query = sa.select(databases.c.name).where(
        databases.c.name == name,
        databases.c.drop_at.is_not(None),
        databases.c.dropped_at.is_(None),
        undisturbed,
    )
    return tx.connection.execute(query).first() is not None


def _wait(site: Site, doomed: Doomed, fence: int, reason: str) -> bool:
    """Put it off; said once, however often the same reason comes again."""
    name = doomed.database["name"]
    why = f"{name} is not dropped yet: {reason}"
    with site.transaction(Actor.CLEANER) as tx:
        job = get_job(tx.connection, doomed.database["job_id"])
        if job["state"] != State.LOADING and job["lease_owner"] == site.owner and job["fence"] == fence:
            later = tx.now + site.settings.orchestrator.health_check_retry_delay
            write(tx, job, not_before=later, reason=why, **FREED)
        if job["reason"] != why:
            tx.say("clean.waits", job, database=name, reason=reason)
    return False


def _record(site: Site, doomed: Doomed, fence: int) -> None:
    """The database is seen to be gone: say so, and retire its job."""
    name = doomed.database["name"]
    with site.transaction(Actor.CLEANER) as tx:
        gone = databases.update().where(databases.c.name == name, databases.c.dropped_at.is_(None))
        tx.connection.execute(gone.values(dropped_at=tx.now))
        job = get_job(tx.connection, doomed.database["job_id"])
        tx.say("clean.dropped", job, database=name)
        if job["lease_owner"] != site.owner or job["fence"] != fence:
            return  # somebody took the job further meanwhile; the database is gone all the same
        if job["state"] in _RETIRABLE and job["database"] == name:
            changes = {"ended_at": tx.now, "reason": doomed.why, "blocked": False, **FREED}
            move(tx, job, State.CLEANED, "clean.retired", fields={"why": doomed.why}, **changes)
        elif job["state"] != State.LOADING:
            write(tx, job, **FREED)


def orphans(site: Site) -> list[str]:
    """Databases and builds at the target that no row owns; they are reported, never touched."""
    found = {info.name for info in site.target.databases()}
    with site.store.read() as connection:
        owned = set(connection.execute(sa.select(databases.c.name)).scalars().all())
        leased = connection.execute(sa.select(jobs.c.database).where(jobs.c.lease_owner.is_not(None)))
        return sorted(found - owned - set(leased.scalars().all()))
