"""Rescue: rows whose holder is gone go back to where anybody may claim them.

Who kills services (a deployment, a spot node, a reboot) does not mean the job, so the deaths of a whole
service count apart from what a load does by itself: many of them in a row without progress, each after a
longer rest, end a job at last, since it may be its memory that takes the whole container along.
"""

from __future__ import annotations

import sqlalchemy as sa

from bgdeploy.jobs.backoff import delay
from bgdeploy.jobs.cancel import end_cancelled, is_asked
from bgdeploy.jobs.lease import known_alive, known_dead, short
from bgdeploy.jobs.reasons import Code, because
from bgdeploy.jobs.rows import Row, Tx, jobs, move, transaction, write
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.store import Store

FREED = {"lease_owner": None, "lease_expires": None}
LONGEST_REST = 60.0  # seconds; twenty deaths are over in less than half an hour


def rescue(store: Store, *, now: float, owner: str, most: int, base: float) -> int:
    """Take back every expired lease, and those of dead processes of this host; return how many.

    A job under which the whole service died ``most`` times in a row without progress fails; from the second
    time on it rests before it is claimed again, by powers of ``base``.
    """
    rescued = 0
    for row in _lost(store, now):
        with transaction(store, now=now, actor=Actor.RESCUE, owner=owner) as tx:
            rescued += _take_back(tx, row, most, base)
    return rescued


def _lost(store: Store, now: float) -> list[Row]:
    with store.read() as connection:
        held = connection.execute(sa.select(jobs).where(jobs.c.lease_owner.is_not(None))).mappings().all()
    return [row for row in held if is_free(row, now)]


def is_free(row: Row, now: float) -> bool:
    """True when nobody holds this row any more: never leased, expired, or a dead process of this host."""
    owner = row["lease_owner"]
    return owner is None or row["lease_expires"] < now or known_dead(owner)


def _take_back(tx: Tx, row: Row, most: int, base: float) -> bool:
    if not _still_lost(tx, row):
        return False
    if row["state"] != State.LOADING:
        _release(tx, row)
    elif is_asked(tx, row):
        end_cancelled(tx, row)  # else it would be loaded again, against what a person said
    elif known_alive(row["lease_owner"]):
        _return_late(tx, row)
    elif (count := row["interruptions"] + 1) < most:
        rest = min(LONGEST_REST, delay(count - 1, base)) if count > 1 else 0.0
        _return(tx, row, count, most, rest)
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
    reason = because(Code.LEASE_EXPIRED, holder=holder)
    move(tx, row, State.QUEUED, "rescue.late", fields={"holder": holder}, reason=reason, **FREED)


def _return(tx: Tx, row: Row, count: int, most: int, rest: float) -> None:
    holder = short(row["lease_owner"])
    fields = {"holder": holder, "deaths": count, "limit": most, "rest": rest}
    # The code keeps its place before newer ones while it rests: most of it may be loaded already.
    changes = {
        "interruptions": count,
        "not_before": tx.now + rest,
        "reason": because(Code.HOLDER_LOST, holder=holder),
        "error_code": "interrupted",
    }
    move(tx, row, State.QUEUED, "rescue.returned", fields=fields, **changes, **FREED)


def _still_lost(tx: Tx, row: Row) -> bool:
    """Look again inside the transaction: the holder may have renewed in between."""
    held = (jobs.c.id == row["id"], jobs.c.fence == row["fence"], jobs.c.lease_owner == row["lease_owner"])
    now_held = tx.connection.execute(sa.select(jobs).where(*held)).mappings().one_or_none()
    return now_held is not None and is_free(now_held, tx.now)


def _give_up(tx: Tx, row: Row, count: int) -> None:
    step = row["step"] or "none"
    error = (
        f"The service died {count} times in a row while it loaded this, without progress (last step: {step}). "
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
