"""What a person may ask for beside switch and rollback: another try, or another build."""

from __future__ import annotations

from typing import Any, NoReturn

import sqlalchemy as sa

from bgdeploy.errors import Refused
from bgdeploy.jobs.reasons import Code, because
from bgdeploy.jobs.rows import (
    Row,
    Tx,
    age,
    customers,
    get_customer,
    get_job,
    insert_job,
    jobs,
    move,
    select_jobs,
    title,
)
from bgdeploy.jobs.states import Actor, State
from bgdeploy.pipeline.admit import find_settled, folder_of, look_at
from bgdeploy.pipeline.load import intend_drop
from bgdeploy.service.hints import pause_of
from bgdeploy.site import Site

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
