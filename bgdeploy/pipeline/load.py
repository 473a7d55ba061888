"""Load: how a claimed job ends, each way one transaction that carries the fence.

However a load ends: where a person asked meanwhile to cancel it, it ends as cancelled.
"""

from __future__ import annotations

from collections.abc import Collection

from bgdeploy.clock import since
from bgdeploy.errors import (
    BadInput,
    BgdeployError,
    ConfigError,
    FolderAway,
    SnapshotChanged,
    StoreError,
    TargetAway,
    TargetFull,
    VerifyFailed,
)
from bgdeploy.jobs.lease import FREED
from bgdeploy.jobs.ledger import PROGRESS, confirmed_rows
from bgdeploy.jobs.reasons import Code, because
from bgdeploy.jobs.states import State
from bgdeploy.jobs.store import update_where
from bgdeploy.jobs.transitions import (
    Row,
    Tx,
    databases,
    delay,
    end_cancelled,
    get_job,
    is_asked,
    move,
    rewrite,
)
from bgdeploy.pipeline.claim import own_database

IDLE = {"child_pid": None, "child_born": None, **FREED}


def finish(tx: Tx, job: Row, *, counts: dict[str, object], proof: dict[str, object]) -> None:
    """The database is verified and published: loaded."""
    if is_asked(tx, job):
        cancel(tx, job)
        return
    verified = {"of_name": job["database"], "verified_at": tx.now, "counts": counts, "proof": proof}
    tx.connection.execute(update_where(databases, "name"), verified)
    rows = confirmed_rows(tx, job["id"], job["database"])
    took = since(job["loading_at"] or tx.now, tx.now)
    fields = {"rows": rows, "database": job["database"], "took": took, "compared": proof["compared"]}
    changes = {
        "loaded_at": tx.now,
        "step": "published",
        "reason": None,
        **PROGRESS,
        **IDLE,
    }
    move(tx, job, State.LOADED, "load.loaded", fields=fields, **changes)


def give_back(tx: Tx, job: Row, said: str) -> None:
    """Stop cleanly: the next worker resumes at once, and nothing is counted."""
    if is_asked(tx, job):
        cancel(tx, job)
        return
    reason = because(Code.GIVEN_BACK, said=said)
    changes = {"reason": reason, "not_before": tx.now, **PROGRESS, **IDLE}
    move(tx, job, State.QUEUED, "load.returned", fields={"reason": reason}, **changes)


def end_badly(tx: Tx, job: Row, error: BgdeployError, *, max_retries: int, base: float, wait: float) -> None:
    """Decide by the kind of error: wait for room, target, disk or job table, fail for good, or try again later."""
    attempt = _count_attempt(tx, job)
    if is_asked(tx, job):
        cancel(tx, job)
    elif isinstance(error, TargetFull | TargetAway | FolderAway | ConfigError | StoreError):
        reason = because(Code.UNAVAILABLE, error=error.code, said=str(error))
        changes = {"reason": reason, "error_code": error.code, "not_before": tx.now + wait, **IDLE}
        move(tx, job, State.QUEUED, "load.waits", fields={"reason": reason}, **changes)
    elif isinstance(error, BadInput) or attempt >= max_retries:
        fail(tx, job, error)
    else:
        if isinstance(error, VerifyFailed):
            intend_drop(tx, job, "it did not hold what its snapshot says")
            # A footer may not say what the pages hold: the next build trusts the engine's reader with nothing.
            job = rewrite(tx, job, settings={**(job["settings"] or {}), "rewrite": True})
        _retry(tx, job, error, attempt, max_retries=max_retries, base=base)


def _count_attempt(tx: Tx, job: Row) -> int:
    """This run's number among those without progress; the row in a worker's hands is older than its progress."""
    return int(get_job(tx.connection, job["id"])["attempt"]) + int(job["state"] == State.LOADING)


def _retry(tx: Tx, job: Row, error: BgdeployError, attempt: int, *, max_retries: int, base: float) -> None:
    pause = delay(attempt, base)
    fields = {"delay": pause, "attempt": attempt, "limit": max_retries, "reason": str(error)}
    reason = because(Code.RETRY_AFTER, error=error.code, said=error.what)
    said = {"reason": reason, "error": str(error), "error_code": error.code}
    changes = {"attempt": attempt, "not_before": tx.now + pause, **said, **IDLE}
    move(tx, job, State.QUEUED, "load.retry", fields=fields, **changes)


def fail(tx: Tx, job: Row, error: BgdeployError) -> None:
    """The job ends as failed; what it built is left to the cleaner, what is live is untouched."""
    said = {"error": str(error), "error_code": error.code, "reason": None, "attempt": _count_attempt(tx, job)}
    if isinstance(error, SnapshotChanged):
        said["fingerprint"] = None  # also what comes back just as it was is looked at anew
    move(tx, job, State.FAILED, "load.failed", fields={"reason": str(error)}, ended_at=tx.now, **said, **IDLE)
    intend_drop(tx, job, "its load failed")


def cancel(tx: Tx, job: Row) -> None:
    """The job ends as cancelled; what it built is left to the cleaner."""
    end_cancelled(tx, job)
    intend_drop(tx, job, "its job was cancelled")


def intend_drop(tx: Tx, job: Row, why: str) -> None:
    """Give every database of this job to the cleaner."""
    owned = (databases.c.job_id == job["id"], databases.c.drop_at.is_(None))
    tx.connection.execute(databases.update().where(*owned).values(drop_at=tx.now, drop_why=why))


def rename_build(tx: Tx, job: Row, existing: Collection[str], *, why: str, ours: bool) -> Row:
    """Build under another name; return the new row. What was begun goes to the cleaner if it is ``ours``."""
    old = job["database"]
    if ours:
        intend_drop(tx, job, f"the load went on under another name: {why}")
    else:
        disown(tx, old, why)
    new = own_database(tx, job, existing)
    job = rewrite(tx, job, database=new, rows_confirmed=0, step=None)
    tx.say("load.renamed", job, old=old, new=new, why=why)
    return job


def disown(tx: Tx, name: str, why: str) -> None:
    """The name belongs to somebody else: nothing will ever be dropped by it, and no job takes it again."""
    mine = databases.update().where(databases.c.name == name, databases.c.dropped_at.is_(None))
    tx.connection.execute(mine.values(drop_at=tx.now, dropped_at=tx.now, drop_why=why))
