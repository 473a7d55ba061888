"""What a person may ask for beside switch and rollback: another try, or another build.

Once asked, the cancel wins: a worker that ends the load in any way, and a rescuer that finds the worker
gone, look for it in the transaction in which they write that end.
"""

from __future__ import annotations

import time
from typing import Any, NoReturn

import sqlalchemy as sa

from bgdeploy.errors import Refused
from bgdeploy.jobs.lease import is_free, this_host
from bgdeploy.jobs.reasons import Code, because
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.transitions import (
    Row,
    Tx,
    age,
    customers,
    databases,
    get_customer,
    get_database,
    get_job,
    insert_job,
    jobs,
    move,
    select_jobs,
    title,
    write,
)
from bgdeploy.pipeline import load
from bgdeploy.pipeline.admit import find_settled, folder_of, look_at
from bgdeploy.pipeline.alias import settle
from bgdeploy.pipeline.load import intend_drop
from bgdeploy.service.views import pause_of
from bgdeploy.site import Site
from bgdeploy.worker.child import end_recorded

FRESH: dict[str, Any] = {
    "attempt": 0,
    "interruptions": 0,
    "not_before": 0.0,
    "rows_confirmed": 0,
    "furthest": 0,
    "step": None,
    "settings": None,
    "error": None,
    "error_code": None,
    "cancel_at": None,
    "loading_at": None,
    "ended_at": None,
    "blocked": False,
}
_RELOADABLE = (State.LOADED, State.SWITCHED, State.CLEANED)


def retry(site: Site, job_id: int, *, by: str) -> str:
    """Queue a failed job again from zero; return its title. Its old build is dropped.

    Where its folder is not as it was when it was complete, it is judged anew before anything is loaded.
    """
    job = _read(site, job_id)
    if job["state"] != State.FAILED:
        _refuse_retry(site, job)
    settled = find_settled(site, job)
    with site.transaction(Actor.OPERATOR) as tx:
        intend_drop(tx, job, "its job starts from zero")
        # A reload that failed shares its timestamp with the floor: without its mark it would wait for ever.
        asked = {
            "requested": job["requested"] or _is_behind(tx, job),
            "reason": because(Code.ASKED_FOR, by=by),
        }
        changes = {**FRESH, **asked, "queued_at": tx.now, "fingerprint": settled}
        move(tx, job, State.QUEUED, "operator.retry", fields={"by": by}, **changes)
        return title(job)


def _read(site: Site, job_id: int) -> Row:
    with site.store.read() as connection:
        return get_job(connection, job_id)


def failed_jobs(site: Site) -> list[int]:
    """Return the failed jobs worth another try: not cancelled, and above what was ever live."""
    with site.store.read() as connection:
        failed = select_jobs(connection, jobs.c.state == State.FAILED, order=(jobs.c.id,))
        owners = connection.execute(sa.select(customers)).mappings().all()
    floors = {owner["name"]: (owner["floor_timestamp"], owner["floor_build"]) for owner in owners}
    return [
        row["id"] for row in failed if row["error_code"] != "cancelled" and age(row) > floors[row["customer"]]
    ]


def _refuse_retry(site: Site, job: Row) -> NoReturn:
    state = job["state"]
    again = f"To load it once more: bgdeploy retry {job['id']} --reload"
    cure = again if state in _RELOADABLE else _just_wait(site, job)
    raise Refused(
        f"Job {job['id']} ({title(job)}) is {state}, not failed.", kept="Nothing was changed.", cure=cure
    )


def _refuse_reload(site: Site, job: Row) -> NoReturn:
    again = f"To load it from zero: bgdeploy retry {job['id']}"
    raise Refused(
        f"Job {job['id']} ({title(job)}) is {job['state']}; only a loaded, switched or cleaned one is reloaded.",
        kept="Nothing was changed.",
        cure=again if job["state"] == State.FAILED else _just_wait(site, job),
    )


def _just_wait(site: Site, job: Row) -> str:
    with site.store.read() as connection:
        customer = get_customer(connection, job["customer"])
    if customer["paused_at"] is not None and job["state"] == State.QUEUED:
        return f"It waits, since {pause_of(customer)}"
    return f"It goes on by itself; see: bgdeploy jobs show {job['id']}, or stop it: bgdeploy jobs cancel {job['id']}"


def _is_behind(tx: Tx, job: Row) -> bool:
    """True where something newer was live: then it loads because a person asked, and waits."""
    customer = get_customer(tx.connection, job["customer"])
    return age(job) <= (customer["floor_timestamp"], customer["floor_build"])


def reload(site: Site, job_id: int, *, by: str) -> Row:
    """Make a new job (build + 1) of a loaded, switched or cleaned one; the old one keeps its state.

    Where the folder is not as it was when it was complete, it is judged anew before anything is loaded.
    """
    job = _read(site, job_id)
    if job["state"] not in _RELOADABLE:
        _refuse_reload(site, job)
    if look_at(site, job) is None:
        raise Refused(
            f"The folder of {title(job)} is gone.",
            kept="Nothing was changed.",
            cure=f"Put {folder_of(site, job)} back, or drop the snapshot anew under a newer timestamp.",
        )
    settled = find_settled(site, job)
    with site.transaction(Actor.OPERATOR) as tx:
        same = (jobs.c.customer == job["customer"], jobs.c.timestamp == job["timestamp"])
        newest = tx.connection.execute(sa.select(sa.func.max(jobs.c.build)).where(*same)).scalar_one()
        build = {
            "customer": job["customer"],
            "timestamp": job["timestamp"],
            "build": newest + 1,
            "requested": True,
        }
        known = {"rows_expected": job["rows_expected"], "bytes_expected": job["bytes_expected"]}
        seen = {"fingerprint": settled, "fingerprint_at": job["fingerprint_at"], "queued_at": tx.now}
        fields = {"build": newest + 1, "by": by}
        row = insert_job(tx, State.QUEUED, "operator.reload", fields=fields, **build, **known, **seen)
        assert row is not None  # the build number was free inside this transaction
        return row


# Cancel a job because a person says so: at once where nobody works on it, else by asking its worker.

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


# Pins: a pinned database is never dropped, however old it gets.


def pin(site: Site, customer: str, database: str | None, *, by: str) -> str:
    """Pin a verified database, the live one where none is named, and return its name; twice is fine.

    The update itself asks that nobody means to drop it, as the cleaner's asks for the pin: one of the
    two wins. Raises NotFound, or Refused for another customer's, one not verified, one being dropped.
    """

    def act(tx: Tx) -> str:
        found = _find(tx, customer, database, "pin")
        whole = databases.c.verified_at.is_not(None), databases.c.drop_at.is_(None)
        pinned = databases.update().where(databases.c.name == found["name"], *whole)
        first = sa.func.coalesce(databases.c.pinned_at, tx.now)
        if tx.connection.execute(pinned.values(pinned_at=first)).rowcount != 1:
            raise _not_to_be_kept(found)
        if found["pinned_at"] is None:
            job = get_job(tx.connection, found["job_id"])
            tx.say("database.pinned", job, database=found["name"], by=by)
        return str(found["name"])

    with site.transaction(Actor.OPERATOR) as tx:
        return act(tx)


def unpin(site: Site, customer: str, database: str | None, *, by: str) -> str:
    """Take a pin back and return the database's name; Refused where there is none, naming those there are."""

    def act(tx: Tx) -> str:
        found = _find(tx, customer, database, "unpin")
        if found["pinned_at"] is None:
            raise _not_pinned(tx, found)
        freed = databases.update().where(databases.c.name == found["name"])
        tx.connection.execute(freed.values(pinned_at=None))
        tx.say("database.unpinned", get_job(tx.connection, found["job_id"]), database=found["name"], by=by)
        return str(found["name"])

    with site.transaction(Actor.OPERATOR) as tx:
        return act(tx)


def _find(tx: Tx, customer: str, database: str | None, verb: str) -> Row:
    owner = get_customer(tx.connection, customer)
    if owner["removed_at"] is not None:
        raise Refused(
            f"Customer {customer} was removed, and its databases go.",
            kept="Nothing was changed.",
            cure=f"To take it back: bgdeploy resume {customer}",
        )
    name = database or owner["live"]
    if name is None:
        raise Refused(
            f"{customer} has nothing live to {verb}.",
            kept="Nothing was changed.",
            cure=f"Name one: bgdeploy {verb} {customer} --database <name>, as bgdeploy customers shows it",
        )
    found = get_database(tx.connection, name)
    if found["customer"] != customer:
        raise Refused(
            f"{name} belongs to customer {found['customer']}.",
            kept="Nothing was changed.",
            cure=f"bgdeploy {verb} {found['customer']} --database {name}",
        )
    return found


def _not_to_be_kept(found: Row) -> Refused:
    name, job = found["name"], found["job_id"]
    if found["drop_at"] is None:
        what, cure = "is not verified yet", f"When it is loaded, pin it then: bgdeploy jobs show {job}"
    elif found["dropped_at"] is None:
        what, cure = (
            f"is being dropped ({found['drop_why']})",
            f"To have it again: bgdeploy retry {job} --reload",
        )
    else:
        what, cure = f"was dropped ({found['drop_why']})", f"To have it again: bgdeploy retry {job} --reload"
    return Refused(f"{name} {what}.", kept="It was not pinned.", cure=cure)


def _not_pinned(tx: Tx, found: Row) -> Refused:
    mine = sa.select(databases.c.name).where(
        databases.c.customer == found["customer"],
        databases.c.pinned_at.is_not(None),
        databases.c.dropped_at.is_(None),
    )
    pinned = tx.connection.execute(mine.order_by(databases.c.name)).scalars().all()
    none = f"No database of {found['customer']} is pinned. See: bgdeploy customers"
    cure = "".join(f" bgdeploy unpin {found['customer']} --database {name}" for name in pinned)
    return Refused(
        f"{found['name']} is not pinned.",
        kept="Nothing was changed.",
        cure=f"Pinned:{cure}" if pinned else none,
    )
