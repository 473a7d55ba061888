"""Cancel a job because a person says so: at once where nobody works on it, else by asking its worker.

Once asked, the cancel wins: a worker that ends the load in any way, and a rescuer that finds the worker
gone, look for it in the transaction in which they write that end.
"""

from __future__ import annotations

import time

import sqlalchemy as sa

from bgdeploy.errors import Refused
from bgdeploy.jobs.lease import this_host
from bgdeploy.jobs.reasons import Code, because
from bgdeploy.jobs.rescue import is_free
from bgdeploy.jobs.rows import Row, Tx, databases, get_customer, get_job, title, write
from bgdeploy.jobs.states import Actor, State
from bgdeploy.pipeline import load
from bgdeploy.pipeline.alias import settle
from bgdeploy.service.child import end_recorded
from bgdeploy.site import Site

LOOK_EVERY = 0.2  # seconds
_OVER = (State.SWITCHED, State.CLEANED, State.FAILED)


def cancel(site: Site, job_id: int, *, by: str) -> Row:
    """Cancel a job, or ask the worker that loads it to end; return the row: ``failed``, or still ``loading``.

    Raises Refused once its switch or its drop has begun, and for a job that is over.
    """
    with site.store.read() as connection:
        job = get_job(connection, job_id)
    if job["state"] == State.LOADED:
        settle(site, job["customer"])  # somebody else may have made it live
    with site.transaction(Actor.OPERATOR) as tx:
        job = _cancel(tx, job_id, by)
    return _end_for(site, job) if _is_abandoned(job, site.clock()) else job


def _cancel(tx: Tx, job_id: int, by: str) -> Row:
    job = get_job(tx.connection, job_id)
    _check(tx, job)
    tx.say("operator.cancel", job, by=by)
    if job["state"] == State.LOADING:
        write(tx, job, cancel_at=tx.now, reason=because(Code.CANCEL_ASKED, by=by))
    else:
        load.cancel(tx, job)
    return get_job(tx.connection, job_id)


def _check(tx: Tx, job: Row) -> None:
    if job["state"] in _OVER:
        raise _over(job)
    if job["state"] != State.LOADED:
        return
    intent = get_customer(tx.connection, job["customer"])["intent"]
    if intent == job["database"] or not is_free(job, tx.now):
        raise Refused(
            f"Job {job['id']} ({title(job)}) is being switched or dropped at this moment.",
            kept="It goes on.",
            cure=f'If it went live: bgdeploy rollback {job["customer"]} --reason "..."',
        )
    pinned = sa.select(databases.c.name).where(
        databases.c.name == job["database"], databases.c.pinned_at.is_not(None)
    )
    if tx.connection.execute(pinned).first():
        raise Refused(
            f"{job['database']} is pinned, and job {job['id']} ({title(job)}) stands for it.",
            kept="Nothing was changed.",
            cure=f"First: bgdeploy unpin {job['customer']} --database {job['database']}",
        )


def _over(job: Row) -> Refused:
    cures = {
        State.SWITCHED: f'To leave it: bgdeploy rollback {job["customer"]} --reason "..."',
        State.FAILED: f"To load it after all: bgdeploy retry {job['id']}",
        State.CLEANED: f"Its history: bgdeploy jobs log {job['id']}",
    }
    what = f"Job {job['id']} ({title(job)}) is {job['state']}: there is nothing left to cancel."
    return Refused(what, kept="Nothing was changed.", cure=cures[State(job["state"])])


def await_end(site: Site, job: Row) -> Row:
    """Wait until the load that was asked to end is seen to have ended; return the row as it is then.

    Where its worker is gone, or goes meanwhile, the job is ended here and now.
    """
    while job["state"] == State.LOADING:
        time.sleep(LOOK_EVERY)
        with site.store.read() as connection:
            job = get_job(connection, job["id"])
        if _is_abandoned(job, site.clock()):
            job = _end_for(site, job)
    return job


def _is_abandoned(job: Row, now: float) -> bool:
    return bool(job["state"] == State.LOADING and is_free(job, now))


def _end_for(site: Site, job: Row) -> Row:
    """Write the end for a worker that is gone; what it left running on this host is ended too."""
    if str(job["lease_owner"]).startswith(f"{this_host()}/"):
        end_recorded(job["child_pid"], job["child_born"])
    with site.transaction(Actor.OPERATOR) as tx:
        now = get_job(tx.connection, job["id"])
        if _is_abandoned(now, tx.now):
            load.cancel(tx, now)
        return get_job(tx.connection, job["id"])
