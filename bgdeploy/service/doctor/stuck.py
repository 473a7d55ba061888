"""Jobs that do not move by themselves, each with the command that moves it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import sqlalchemy as sa

from bgdeploy.clock import iso, since
from bgdeploy.finding import Check, Finding, error, many, ok, shorten, warning
from bgdeploy.jobs.states import State
from bgdeploy.jobs.transitions import Row, customers, jobs, select_jobs, title
from bgdeploy.service.steer import failed_jobs
from bgdeploy.service.views import after_failure
from bgdeploy.site import Site
from bgdeploy.worker.supervisor import SILENT_AFTER

SUBJECT = "jobs"
_LONG = 600.0  # seconds in the queue before it is worth a word


def checks(site: Site) -> list[Check]:
    """What is looked at among the jobs."""
    known = ("job table",)
    return [
        Check(SUBJECT, "loading", partial(find_loading, site), needs=known),
        Check(SUBJECT, "queued", partial(find_queued, site), needs=known),
        Check(SUBJECT, "loaded", partial(find_loaded, site), needs=known),
        Check(SUBJECT, "failed", partial(find_failed, site), needs=known),
        Check(SUBJECT, "paused customers", partial(find_paused, site), needs=known),
    ]


def find_loading(site: Site) -> Iterator[Finding]:
    """A load without a lease is seen by no rescue: only a hand in the job table makes one. One that hangs keeps its lease."""
    rows = _select(site, State.LOADING)
    lost = [row for row in rows if row["lease_owner"] is None]
    cure = "Somebody changed the job table by hand; put a copy of it back, or let the job run out: a support case."
    yield from (
        error(f"{_name(row)} is loading and held by nobody, so nobody rescues it", cure) for row in lost
    )
    silent = [row for row in rows if row not in lost and site.clock() - row["updated_at"] > SILENT_AFTER]
    yield from (_judge_silent(row, site.clock() - row["updated_at"]) for row in silent)
    if not lost and not silent:
        yield ok(f"{many(len(rows), 'job')} loading, each held by a worker")


def _judge_silent(row: Row, seconds: float) -> Finding:
    return warning(
        f"{_name(row)} is loading, and nothing was heard of it for {seconds / 60:,.0f} min",
        f"A huge file may take that long. If it hangs: bgdeploy jobs cancel {row['id']}, then bgdeploy retry {row['id']}",
    )


def find_queued(site: Site) -> Iterator[Finding]:
    """Jobs that were to be tried again, or that stand in the queue for long, with the reason they have.

    Those of a paused customer are left out: they are told by its pause.
    """
    rows, now = _select_unpaused(site), site.clock()
    found = [_judge_queued(row, now) for row in rows if row["not_before"] > now or _waits_long(row, now)]
    yield from shorten(found, "bgdeploy jobs list --state queued")
    if not found:
        yield ok(f"{many(len(rows), 'job')} queued, none for long")


def _select_unpaused(site: Site) -> list[Row]:
    with site.store.read() as connection:
        held = sa.select(customers.c.name).where(customers.c.paused_at.is_not(None))
        wanted = (jobs.c.state == State.QUEUED, jobs.c.customer.not_in(held))
        return list(select_jobs(connection, *wanted, order=(jobs.c.id,)))


def _waits_long(row: Row, now: float) -> bool:
    return now - (row["queued_at"] or now) > _LONG


def _judge_queued(row: Row, now: float) -> Finding:
    queued, due = since(row["queued_at"] or now, now), row["not_before"] - now
    again = f", and is tried again in {due:,.0f} s" if due > 0 else ""
    what = f"{_name(row)} is queued for {queued:,.0f} s{again}: {row['reason'] or 'no worker has taken it'}"
    cure = (
        "It goes on by itself once the reason is gone."
        if row["reason"]
        else "Is a worker running? bgdeploy serve"
    )
    return warning(what, cure)


def find_loaded(site: Site) -> Iterator[Finding]:
    """Databases that wait for a person, or that could not be switched to."""
    rows = _select(site, State.LOADED)
    found = [_judge_loaded(row) for row in rows if row["blocked"] or row["reason"]]
    yield from shorten(found, "bgdeploy jobs list --state loaded")
    if not found:
        yield ok(f"{many(len(rows), 'job')} loaded and waiting, none for a person")


def _judge_loaded(row: Row) -> Finding:
    what = f"{_name(row)} stays loaded: {row['reason']}"
    cure = f"Decide: bgdeploy switch {row['customer']} --to {row['database']}, or drop a newer snapshot."
    return warning(what, cure if row["blocked"] else "It is tried again by itself once the reason is gone.")


def find_failed(site: Site) -> Iterator[Finding]:
    """Failed jobs worth another try: not cancelled, and newer than all that was ever live."""
    wanted = set(failed_jobs(site))
    rows = [row for row in _select(site, State.FAILED) if row["id"] in wanted]
    found = [_judge_failed(row) for row in rows]
    yield from shorten(found, "bgdeploy jobs list --state failed")
    if not found:
        yield ok("no job failed that is newer than what is live")


def _judge_failed(row: Row) -> Finding:
    first = (row["error"] or "no error is known").splitlines()[0]
    return warning(
        f"{_name(row)} failed: {first}", f"{after_failure(row)}. All of it: bgdeploy jobs show {row['id']}"
    )


def find_paused(site: Site) -> Iterator[Finding]:
    """Customers for whom nothing is claimed or switched; a person who removed one knows it."""
    with site.store.read() as connection:
        held = sa.select(customers).where(customers.c.paused_at.is_not(None))
        rows = connection.execute(held.where(customers.c.removed_at.is_(None))).mappings().all()
    found = [
        warning(
            f"{row['name']} is paused since {iso(row['paused_at'])}: {row['paused_why']}",
            f"bgdeploy resume {row['name']}",
        )
        for row in rows
    ]
    yield from shorten(found, "bgdeploy customers") or [ok("no customer is paused")]


def _select(site: Site, state: State) -> list[Row]:
    with site.store.read() as connection:
        return list(select_jobs(connection, jobs.c.state == state, order=(jobs.c.id,)))


def _name(row: Row) -> str:
    return f"job {row['id']} ({title(row)})"
