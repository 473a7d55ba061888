"""Cancel: how a job ends because a person said so, whoever writes it down: operator, worker or rescue."""

from __future__ import annotations

from bgdeploy.jobs.rows import Row, Tx, get_job, move
from bgdeploy.jobs.states import State

CODE = "cancelled"
_NOBODY = dict.fromkeys(("lease_owner", "lease_expires", "child_pid", "child_born"))


def is_asked(tx: Tx, job: Row) -> bool:
    """True when a person asked meanwhile; the row in a worker's hands is older than that."""
    return get_job(tx.connection, job["id"])["cancel_at"] is not None


def end_cancelled(tx: Tx, job: Row) -> None:
    """The job ends as failed, with the code ``cancelled``; `retry --all-failed` leaves it out."""
    said = {"error": f"Cancelled. To load it after all: bgdeploy retry {job['id']}", "error_code": CODE}
    over = {"reason": None, "blocked": False, "not_before": 0.0, "ended_at": tx.now}
    move(tx, job, State.FAILED, "load.cancelled", fields={}, **said, **over, **_NOBODY)
