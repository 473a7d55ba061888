"""Rescue: rows whose holder is gone go back to where anybody may claim them."""

from __future__ import annotations

import sqlalchemy as sa

from bgdeploy.jobs.cancel import end_cancelled, is_asked
from bgdeploy.jobs.lease import known_alive, known_dead, short
from bgdeploy.jobs.rows import Row, Tx, jobs, move, transaction, write
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.store import Store

FREED = {"lease_owner": None, "lease_expires": None}


def rescue(store: Store, *, now: float, owner: str, max_interruptions: int) -> int:
    """Take back every expired lease, and those of dead processes of this host; return how many."""
    rescued = 0
    for row in _lost(store, now):
        with transaction(store, now=now, actor=Actor.RESCUE, owner=owner) as tx:
            rescued += _take_back(tx, row, max_interruptions)
    return rescued


def _lost(store: Store, now: float) -> list[Row]:
    with store.read() as connection:
        held = connection.execute(sa.select(jobs).where(jobs.c.lease_owner.is_not(None))).mappings().all()
    return [row for row in held if is_free(row, now)]


def is_free(row: Row, now: float) -> bool:
    """True when nobody holds this row any more: never leased, expired, or a dead process of this host."""
    owner = row["lease_owner"]
    return owner is None or row["lease_expires"] < now or known_dead(owner)


def _take_back(tx: Tx, row: Row, max_interruptions: int) -> bool:
    if not _still_lost(tx, row):
        return False
    if row["state"] != State.LOADING:
        _release(tx, row)
    elif is_asked(tx, row):
        end_cancelled(tx, row)  # else it would be loaded again, against what a person said
    elif known_alive(row["lease_owner"]):
        _return_late(tx, row)
    elif (count := row["interruptions"] + 1) < max_interruptions:
        _return(tx, row, count, max_interruptions)
    else:
        _give_up(tx, row, count)
    return True


def _release(tx: Tx, row: Row) -> None:
    write(tx, row, **FREED)
    holder = short(row["lease_owner"])
    if known_alive(row["lease_owner"]):
        tx.say("rescue.late", row, holder=holder)
    else:
        tx.say("rescue.released", row, holder=holder)


def _return_late(tx: Tx, row: Row) -> None:
    """Its worker lives and could not prolong the lease: no fault of the job, so nothing is counted."""
    holder = short(row["lease_owner"])
    reason = f"resumes after {holder} could not prolong its lease"
    move(tx, row, State.QUEUED, "rescue.late", fields={"holder": holder}, reason=reason, **FREED)


def _return(tx: Tx, row: Row, count: int, limit: int) -> None:
    holder = short(row["lease_owner"])
    fields = {"holder": holder, "interruptions": count, "limit": limit}
    changes = {"interruptions": count, "reason": f"resumes after {holder} was lost"}
    move(tx, row, State.QUEUED, "rescue.returned", fields=fields, **changes, **FREED)


def _still_lost(tx: Tx, row: Row) -> bool:
    """Look again inside the transaction: the holder may have renewed in between."""
    held = (jobs.c.id == row["id"], jobs.c.fence == row["fence"], jobs.c.lease_owner == row["lease_owner"])
    now_held = tx.connection.execute(sa.select(jobs).where(*held)).mappings().one_or_none()
    return now_held is not None and is_free(now_held, tx.now)


def _give_up(tx: Tx, row: Row, count: int) -> None:
    step = row["step"] or "none"
    error = (
        f"Its worker died {count} times in a row without progress (last step: {step}). "
        f"Probably memory or the machine: see bgdeploy jobs log {row['id']}, then bgdeploy retry {row['id']}."
    )
    fields = {"limit": count, "step": step}
    changes = {
        "interruptions": count,
        "error": error,
        "error_code": "interrupted",
        "reason": None,
        "ended_at": tx.now,
    }
    move(tx, row, State.FAILED, "rescue.failed", fields=fields, **changes, **FREED)
