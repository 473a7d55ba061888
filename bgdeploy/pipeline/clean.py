"""Clean: drop what nobody needs any more, as claimed work: intent, grace, drop, see it gone, record."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa

from bgdeploy.errors import BgdeployError, NotOurs
from bgdeploy.failpoints import reach
from bgdeploy.jobs import lease, lineage
from bgdeploy.jobs.lease import FREED
from bgdeploy.jobs.lineage import Doomed
from bgdeploy.jobs.reasons import Code, because, read
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.store import update_where
from bgdeploy.jobs.transitions import Row, customers, databases, get_customer, get_job, jobs, move, write
from bgdeploy.site import Site

_RETIRABLE = (State.LOADED, State.SWITCHED)
# The customer's row is as it was when the decision fell, and neither alias nor intent is here.
_UNDISTURBED = sa.exists().where(
    customers.c.name == sa.bindparam("seen_customer"),
    customers.c.generation == sa.bindparam("seen_generation"),
    customers.c.live.is_distinct_from(sa.bindparam("of_name")),
    customers.c.intent.is_distinct_from(sa.bindparam("of_name")),
)
_GONE = update_where(databases, "name").where(databases.c.dropped_at.is_(None))
_INTEND = _GONE.where(databases.c.pinned_at.is_(None), databases.c.drop_at.is_(None), _UNDISTURBED)
_INTENDED_BEFORE = sa.select(databases.c.name).where(
    databases.c.name == sa.bindparam("of_name"),
    databases.c.drop_at.is_not(None),
    databases.c.dropped_at.is_(None),
    _UNDISTURBED,
)


def clean(site: Site) -> int:
    """Drop every database that may go now; return how many went."""
    return sum(_drop(site, customer, doomed) for customer, doomed in list(_doomed(site)))


def _doomed(site: Site) -> Iterable[tuple[Row, Doomed]]:
    keep = site.settings.orchestrator.keep_databases
    with site.store.read() as connection:
        crowded = lineage.crowded(connection, keep=keep)
        seen = [
            (get_customer(connection, name), lineage.kept_databases(connection, name)) for name in crowded
        ]
    there = cache(lambda: find_there(site))  # asked at most once, and only where anything may go
    for customer, kept in seen:
        for one in find_doomed(site, customer, kept, there):
            if one.database["not_before"] <= site.clock() or one.database["state"] == State.QUEUED:
                yield customer, one


def find_there(site: Site) -> frozenset[str]:
    """Every database that the target has, but not those on their way out."""
    return frozenset(found.name for found in site.target.databases() if found.status != "dropping")


def find_doomed(
    site: Site, customer: Row, kept: Sequence[Row], there: Callable[[], Collection[str]]
) -> list[Doomed]:
    """What of a customer may be dropped now; the target is asked only where the job table would drop anything."""
    keep, grace = site.settings.orchestrator.keep_databases, site.settings.orchestrator.drop_grace_seconds
    rules: dict[str, Any] = {"keep": keep, "grace": grace, "now": site.clock()}
    if not lineage.doomed(customer, kept, **rules):
        return []
    return lineage.doomed(customer, kept, there=there(), **rules)


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
        site.target.drop(name, fence, doomed.database["mark"])
        if any(found.name == name for found in site.target.databases()):
            return _wait(site, doomed, fence, "it is still there after the drop")
    except NotOurs as error:
        with site.transaction(Actor.CLEANER) as tx:
            job = get_job(tx.connection, doomed.database["job_id"])
            tx.say("clean.foreign", job, database=name, reason=error.what)
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
    seen = {
        "seen_customer": customer["name"],
        "seen_generation": customer["generation"],
        "of_name": row["name"],
    }
    with site.transaction(Actor.CLEANER) as tx:
        # one writer: _INTEND asks for pin and generation in the statement that writes; another store locks the customer
        # and the job as well (FOR UPDATE), since both are read beside it
        job = get_job(tx.connection, row["job_id"])
        if job["state"] == State.LOADING and row["drop_at"] is None:
            return None
        intended = tx.connection.execute(_INTEND, {**seen, "drop_at": tx.now, "drop_why": doomed.why})
        if intended.rowcount == 0 and tx.connection.execute(_INTENDED_BEFORE, seen).first() is None:
            return None
        if intended.rowcount:
            tx.say("clean.intended", job, database=row["name"], why=doomed.why)
        if job["state"] == State.LOADING:
            return int(job["fence"])  # an old build of a job that goes on under another name
        return lease.take(tx.connection, job, now=tx.now, **site.terms)


def _wait(site: Site, doomed: Doomed, fence: int, why: str) -> bool:
    """Put it off; said once, however often the same reason comes again."""
    name = doomed.database["name"]
    put_off = because(Code.DROP_WAITS, database=name, why=why)
    with site.transaction(Actor.CLEANER) as tx:
        job = get_job(tx.connection, doomed.database["job_id"])
        if job["state"] != State.LOADING and job["lease_owner"] == site.owner and job["fence"] == fence:
            later = tx.now + site.settings.orchestrator.health_check_retry_delay
            write(tx, job, not_before=later, reason=put_off, **FREED)
        if read(job) != put_off:
            tx.say_seldom("clean.waits", job, database=name, reason=why)
    return False


def _record(site: Site, doomed: Doomed, fence: int) -> None:
    """The database is seen to be gone: say so, and retire its job."""
    name = doomed.database["name"]
    with site.transaction(Actor.CLEANER) as tx:
        tx.connection.execute(_GONE, {"of_name": name, "dropped_at": tx.now})
        job = get_job(tx.connection, doomed.database["job_id"])
        tx.say("clean.dropped", job, database=name)
        mine = job["lease_owner"] == site.owner and job["fence"] == fence
        if not mine and job["lease_owner"] is not None:
            return  # somebody holds the job by now, and finds the database gone
        if job["state"] in _RETIRABLE and job["database"] == name:
            changes = {
                "ended_at": tx.now,
                "reason": because(Code.RETIRED, why=doomed.why),
                "blocked": False,
                **FREED,
            }
            move(tx, job, State.CLEANED, "clean.retired", fields={"why": doomed.why}, **changes)
        elif job["state"] != State.LOADING:
            write(tx, job, **FREED)


def orphans(site: Site) -> list[str]:
    """Databases and builds at the target that no row owns; they are reported, never touched."""
    found = {info.name for info in site.target.databases()}
    # What was dropped and is there again was made by somebody, or by a server that was late: nobody drops it.
    mine = sa.select(databases.c.name).where(databases.c.dropped_at.is_(None))
    with site.store.read() as connection:
        owned = set(connection.execute(mine).scalars().all())
        leased = connection.execute(sa.select(jobs.c.database).where(jobs.c.lease_owner.is_not(None)))
        return sorted(found - owned - set(leased.scalars().all()))
