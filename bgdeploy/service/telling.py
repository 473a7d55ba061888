"""Telling: how far a load is, in the job table every two seconds and in the log every five."""

from __future__ import annotations

from typing import Any

from bgdeploy.clock import monotonic
from bgdeploy.errors import StoreError, StoreLost
from bgdeploy.jobs import ledger
from bgdeploy.jobs.progress import Progress, of_load, of_tables
from bgdeploy.jobs.rows import Row, Tx, get_job, title
from bgdeploy.jobs.states import Actor
from bgdeploy.service.run_state import Run

LOG_EVERY = 5.0  # seconds between two lines about one load
NOTE_EVERY = 2.0  # seconds between two notes of rows on their way


def note_seen(run: Run, message: dict[str, Any]) -> None:
    """Rows on their way: written down every few seconds, for people, and where that cannot be done left out."""
    if monotonic() - run.noted_at < NOTE_EVERY:
        return
    run.noted_at = monotonic()
    try:
        with run.site.transaction(Actor.WORKER) as tx:
            row = ledger.seen(tx, run.job, run.job["database"], message["group"], message["seen"])
            job = tell_progress(run, tx, row)
        run.job = job
    except StoreLost:
        raise
    except StoreError:
        return  # full or locked: the next write that counts waits for it


def tell_progress(run: Run, tx: Tx, group: Row) -> Row:
    """Log every few seconds how far the load is, and when its last group is in; return the job as it is now.

    Small tables must not fill the log.
    """
    job = get_job(tx.connection, run.job["id"])
    last = job["rows_confirmed"] == job["rows_expected"]
    if not last and monotonic() - run.told_at < LOG_EVERY:
        return job
    run.told_at = monotonic()
    groups = ledger.read(tx.connection, job["id"], job["database"])
    whole = of_load(groups, job["fence"], tx.now)
    table = next(one for one in of_tables(groups, job["fence"], tx.now) if one.name == group["name"])
    tx.said.append(("load.progress", _progress(job, whole, table)))
    return job


def _progress(job: Row, whole: Progress, table: Progress) -> dict[str, Any]:
    rate = f"{whole.rate:,.0f} rows/s" if whole.rate else "rate unknown"
    left = "all in" if whole.rows == whole.expected else _left(whole.left)
    shown: dict[str, Any] = {"rows": whole.rows, "expected": whole.expected, "share": round(whole.share, 4)}
    shown |= {
        "rows_per_second": _round(whole.rate),
        "seconds_left": _round(whole.left),
        "_rate": rate,
        "_left": left,
    }
    of_table = {"table": table.name, "table_rows": table.rows, "table_expected": table.expected}
    return {"job": title(job), **shown, **of_table}


def _round(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 1)


def _left(seconds: float | None) -> str:
    return "time left unknown" if seconds is None else f"about {seconds:,.0f} s left"
