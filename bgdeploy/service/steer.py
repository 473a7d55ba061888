"""What a person may ask for beside switch and rollback: another try, another build, an end, a pin.

Each verb is done in one transaction, or refused with nothing changed and the command that helps. Once asked,
a cancel wins: a worker that ends the load in any way, and a rescuer that finds the worker gone, look for it in
the transaction in which they write that end.
"""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa

from bgdeploy.actions import Hint, do
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
LOOK_EVERY = 0.2  # seconds between two looks at a load that was asked to end
_RELOADABLE = (State.LOADED, State.SWITCHED, State.CLEANED)
_UNCHANGED = "Nothing was changed."


def retry(site: Site, job_id: int, *, by: str) -> str:
    """Queue a failed job again from zero; return its title. Its old build is dropped.

    Where its folder is not as it was when it was complete, it is judged anew before anything is loaded.
    """
    job = _read(site, job_id)
    if job["state"] != State.FAILED:
        again = Hint("To load it once more: ", do("reload", job_id=job["id"]))
        raise Refused(
            f"Job {job['id']} ({title(job)}) is {job['state']}, not failed.",
            kept=_UNCHANGED,
            cure=again if job["state"] in _RELOADABLE else _just_wait(site, job),
        )
    settled = find_settled(site, job)
    with site.transaction(Actor.OPERATOR) as tx:
        load.intend_drop(tx, job, "its job starts from zero")
        # Behind what was live it loads because a person asked, and waits. So does a reload that failed: it
        # shares its timestamp with the floor, and without its mark it would wait for ever.
        customer = get_customer(tx.connection, job["customer"])
        is_behind = age(job) <= (customer["floor_timestamp"], customer["floor_build"])
        asked = {"requested": job["requested"] or is_behind, "reason": because(Code.ASKED_FOR, by=by)}
        changes = {**FRESH, **asked, "queued_at": tx.now, "fingerprint": settled}
        move(tx, job, State.QUEUED, "operator.retry", fields={"by": by}, **changes)
        return title(job)


def _read(site: Site, job_id: int) -> Row:
    with site.store.read() as connection:
        return get_job(connection, job_id)


def _just_wait(site: Site, job: Row) -> Hint:
    with site.store.read() as connection:
        customer = get_customer(connection, job["customer"])
    if customer["paused_at"] is not None and job["state"] == State.QUEUED:
        return Hint("It waits, since ", pause_of(customer))
    see, stop = do("job", job_id=job["id"]), do("cancel", job_id=job["id"])
    return Hint("It goes on by itself; see: ", see, ", or stop it: ", stop)


def failed_jobs(site: Site) -> list[int]:
    """Return the failed jobs worth another try: not cancelled, and above what was ever live."""
    with site.store.read() as connection:
        failed = select_jobs(connection, jobs.c.state == State.FAILED, order=(jobs.c.id,))
        owners = connection.execute(sa.select(customers)).mappings().all()
    floors = {owner["name"]: (owner["floor_timestamp"], owner["floor_build"]) for owner in owners}
    return [
        row["id"] for row in failed if row["error_code"] != "cancelled" and age(row) > floors[row["customer"]]
    ]


def reload(site: Site, job_id: int, *, by: str) -> Row:
    """Make a new job (build + 1) of a loaded, switched or cleaned one; the old one keeps its state.

    Where the folder is not as it was when it was complete, it is judged anew before anything is loaded.
    """
    job = _read(site, job_id)
    if job["state"] not in _RELOADABLE:
        again = Hint("To load it from zero: ", do("retry", job_id=job["id"]))
        raise Refused(
            f"Job {job['id']} ({title(job)}) is {job['state']}; only a loaded, switched or cleaned one is reloaded.",
            kept=_UNCHANGED,
            cure=again if job["state"] == State.FAILED else _just_wait(site, job),
        )
    if look_at(site, job) is None:
        raise Refused(
            f"The folder of {title(job)} is gone.",
            kept=_UNCHANGED,
            cure=f"Put {folder_of(site, job)} back, or drop the snapshot anew under a newer timestamp.",
        )
    settled = find_settled(site, job)
    with site.transaction(Actor.OPERATOR) as tx:
        same = (jobs.c.customer == job["customer"], jobs.c.timestamp == job["timestamp"])
        newest = tx.connection.execute(sa.select(sa.func.max(jobs.c.build)).where(*same)).scalar_one()
        kept = ("customer", "timestamp", "rows_expected", "bytes_expected", "fingerprint_at")
        row = insert_job(
            tx,
            State.QUEUED,
            "operator.reload",
            fields={"build": newest + 1, "by": by},
            **{key: job[key] for key in kept},
            build=newest + 1,
            requested=True,
            fingerprint=settled,
            queued_at=tx.now,
        )
        assert row is not None  # the build number was free inside this transaction
        return row


def cancel(site: Site, job_id: int, *, by: str) -> Row:
    """Cancel a job, or ask the worker that loads it to end; return the row: ``failed``, or still ``loading``.

    Raises Refused once its switch or its drop has begun, and for a job that is over.
    """
    job = _read(site, job_id)
    if job["state"] == State.LOADED:
        settle(site, job["customer"])  # somebody else may have made it live
    with site.transaction(Actor.OPERATOR) as tx:
        job = get_job(tx.connection, job_id)
        _check_cancellable(tx, job)
        tx.say("operator.cancel", job, by=by)
        if job["state"] == State.LOADING:
            write(tx, job, cancel_at=tx.now, reason=because(Code.CANCEL_ASKED, by=by))
        else:
            load.cancel(tx, job)
        job = get_job(tx.connection, job_id)
    return _end_abandoned(site, job)


def _check_cancellable(tx: Tx, job: Row) -> None:
    back = do("rollback", customer=job["customer"], why=None)
    over = {
        State.SWITCHED: Hint("To leave it: ", back),
        State.FAILED: Hint("To load it after all: ", do("retry", job_id=job["id"])),
        State.CLEANED: Hint("Its history: ", do("events", job_id=job["id"])),
    }
    if (cure := over.get(State(job["state"]))) is not None:
        what = f"Job {job['id']} ({title(job)}) is {job['state']}: there is nothing left to cancel."
        raise Refused(what, kept=_UNCHANGED, cure=cure)
    if job["state"] != State.LOADED:
        return
    intent = get_customer(tx.connection, job["customer"])["intent"]
    if intent == job["database"] or not is_free(job, tx.now):
        raise Refused(
            f"Job {job['id']} ({title(job)}) is being switched or dropped at this moment.",
            kept="It goes on.",
            cure=Hint("If it went live: ", back),
        )
    pinned = sa.select(databases.c.name).where(
        databases.c.name == job["database"], databases.c.pinned_at.is_not(None)
    )
    if tx.connection.execute(pinned).first():
        raise Refused(
            f"{job['database']} is pinned, and job {job['id']} ({title(job)}) stands for it.",
            kept=_UNCHANGED,
            cure=Hint("First: ", do("unpin", customer=job["customer"], database=job["database"])),
        )


def await_end(site: Site, job: Row) -> Row:
    """Wait until the load that was asked to end is seen to have ended; return the row as it is then.

    Where its worker is gone, or goes meanwhile, the job is ended here and now.
    """
    while job["state"] == State.LOADING:
        time.sleep(LOOK_EVERY)
        job = _end_abandoned(site, _read(site, job["id"]))
    return job


def _end_abandoned(site: Site, job: Row) -> Row:
    """Write the end for a worker that is gone; what it left running on this host is ended too."""
    if job["state"] != State.LOADING or not is_free(job, site.clock()):
        return job
    if str(job["lease_owner"]).startswith(f"{this_host()}/"):
        end_recorded(job["child_pid"], job["child_born"])
    with site.transaction(Actor.OPERATOR) as tx:
        now = get_job(tx.connection, job["id"])
        if now["state"] == State.LOADING and is_free(now, tx.now):
            load.cancel(tx, now)
        return get_job(tx.connection, job["id"])


def pin(site: Site, customer: str, database: str | None, *, by: str) -> str:
    """Pin a verified database, the live one where none is named, and return its name; twice is fine.

    A pinned database is never dropped, however old it gets. The update itself asks that nobody means to drop
    it, as the cleaner's asks for the pin: one of the two wins. Raises NotFound, or Refused for another
    customer's, one not verified, one being dropped.
    """
    with site.transaction(Actor.OPERATOR) as tx:
        found = _find_database(tx, customer, database, "pin")
        whole = databases.c.verified_at.is_not(None), databases.c.drop_at.is_(None)
        pinned = databases.update().where(databases.c.name == found["name"], *whole)
        first = sa.func.coalesce(databases.c.pinned_at, tx.now)
        if tx.connection.execute(pinned.values(pinned_at=first)).rowcount != 1:
            again = Hint("To have it again: ", do("reload", job_id=found["job_id"]))
            if found["drop_at"] is None:
                what = "is not verified yet"
                again = Hint("When it is loaded, pin it then: ", do("job", job_id=found["job_id"]))
            elif found["dropped_at"] is None:
                what = f"is being dropped ({found['drop_why']})"
            else:
                what = f"was dropped ({found['drop_why']})"
            raise Refused(f"{found['name']} {what}.", kept="It was not pinned.", cure=again)
        if found["pinned_at"] is None:
            job = get_job(tx.connection, found["job_id"])
            tx.say("database.pinned", job, database=found["name"], by=by)
        return str(found["name"])


def unpin(site: Site, customer: str, database: str | None, *, by: str) -> str:
    """Take a pin back and return the database's name; Refused where there is none, naming those there are."""
    with site.transaction(Actor.OPERATOR) as tx:
        found = _find_database(tx, customer, database, "unpin")
        if found["pinned_at"] is None:
            mine = sa.select(databases.c.name).where(
                databases.c.customer == customer,
                databases.c.pinned_at.is_not(None),
                databases.c.dropped_at.is_(None),
            )
            pinned = tx.connection.execute(mine.order_by(databases.c.name)).scalars().all()
            each = [Hint(" ", do("unpin", customer=customer, database=name)) for name in pinned]
            raise Refused(
                f"{found['name']} is not pinned.",
                kept=_UNCHANGED,
                cure=Hint("Pinned:", *each)
                if pinned
                else Hint(f"No database of {customer} is pinned. See: ", do("customers")),
            )
        freed = databases.update().where(databases.c.name == found["name"])
        tx.connection.execute(freed.values(pinned_at=None))
        tx.say("database.unpinned", get_job(tx.connection, found["job_id"]), database=found["name"], by=by)
        return str(found["name"])


def _find_database(tx: Tx, customer: str, database: str | None, verb: str) -> Row:
    owner = get_customer(tx.connection, customer)
    if owner["removed_at"] is not None:
        raise Refused(
            f"Customer {customer} was removed, and its databases go.",
            kept=_UNCHANGED,
            cure=Hint("To take it back: ", do("resume", customer=customer)),
        )
    name = database or owner["live"]
    if name is None:
        raise Refused(
            f"{customer} has nothing live to {verb}.",
            kept=_UNCHANGED,
            cure=Hint(
                "Name one: ",
                do(verb, customer=customer),
                " --database <name>, as ",
                do("customers"),
                " shows it",
            ),
        )
    found = get_database(tx.connection, name)
    if found["customer"] != customer:
        raise Refused(
            f"{name} belongs to customer {found['customer']}.",
            kept=_UNCHANGED,
            cure=Hint(do(verb, customer=found["customer"], database=name)),
        )
    return found
