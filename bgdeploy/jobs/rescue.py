"""Rescue: rows whose holder is gone go back to where anybody may claim them."""

from __future__ import annotations

import sqlalchemy as sa

from bgdeploy.jobs.cancel import end_cancelled, is_asked
from bgdeploy.jobs.lease import known_dead, short
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
    holder = short(row["lease_owner"])
    if row["state"] != State.LOADING:
        write(tx, row, **FREED)
        tx.say("rescue.released", row, holder=holder)
        return True
    if is_asked(tx, row):
        end_cancelled(tx, row)  # else it would be loaded again, against what a person said
        return True
    count = row["interruptions"] + 1
    if count < max_interruptions:
        fields = {"holder": holder, "interruptions": count, "limit": max_interruptions}
        reason = f"resumes after {holder} was lost"
        move(
            tx,
            row,
            State.QUEUED,
            "rescue.returned",
            fields=fields,
            interruptions=count,
            reason=reason,
            **FREED,
        )
        return True
    _give_up(tx, row, count)
    return True


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
