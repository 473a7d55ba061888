"""Workers: who has the job table open, and who holds which job until when, alive or dead."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import sqlalchemy as sa

from bgdeploy.clock import iso, since
from bgdeploy.finding import Check, Finding, error, many, ok, shorten, unknown, warning
from bgdeploy.jobs.lease import known_alive, known_dead, short, this_host
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.transitions import Row, events, jobs, select_jobs, title
from bgdeploy.service.wait import find_absence
from bgdeploy.site import Site
from bgdeploy.worker.processes import count_workers, find_open, has_lost, is_bgdeploy

SUBJECT = "workers"
_START = "Start one: bgdeploy serve (or bgdeploy run from cron)."
_MOVING = (State.QUEUED, State.LOADING)  # what stands still when nobody works


def checks(site: Site) -> list[Check]:
    """What is looked at about those who do the work."""
    known = ("job table",)
    return [
        Check(SUBJECT, "processes", partial(find_processes, site), needs=known),
        Check(SUBJECT, "leases", partial(find_leases, site), needs=known),
        Check(SUBJECT, "last scan", partial(find_last_scan, site), needs=known),
    ]


def find_processes(site: Site) -> Iterator[Finding]:
    """Processes of this host that have the job table open; others' open files only root may see."""
    found = find_open(site.settings.database_path)
    for one in found:
        yield _judge_process(one, site.settings.database_path)
    if found:
        yield _sum_up(found, site.settings.orchestrator.num_workers)
    with site.store.read() as connection:
        waiting = sum(len(select_jobs(connection, jobs.c.state == state)) for state in _MOVING)
    if find_absence(site):
        rest = f"{many(waiting, 'job')} waiting" if waiting else "nothing moves until one does"
        yield warning(f"no bgdeploy that scans and loads is running here, and {rest}", _START)
    elif not found and waiting:
        yield warning(
            f"{many(waiting, 'job')} waiting, and no process of this host that may be seen has the job table open",
            _START,
        )
    elif not found:
        yield ok("no process of this host that may be seen has the job table open, and no job waits for one")


def _judge_process(process: psutil.Process, table: Path) -> Finding:
    try:
        words, since = process.cmdline(), iso(process.create_time())
    except psutil.Error:
        return ok(f"process {process.pid} had the job table open and has ended")
    shown = " ".join([Path(words[0]).name, *words[1:]])[:120] if words else "without a name"
    who = f"process {process.pid} ({shown})"
    if has_lost(process, table):
        cure = f"It must not go on beside the new one. End it: kill {process.pid}"
        return error(
            f"{who} works with a job table that was deleted, or replaced by the one at {table}", cure
        )
    what = f"{who} has the job table open, it runs since {since}"
    if is_bgdeploy(words):
        return ok(what)
    return warning(
        f"{what}, and is not bgdeploy", "What copies or edits that file can lock or damage it; end it."
    )


def _sum_up(found: list[psutil.Process], configured: int) -> Finding:
    running, workers = count_workers(found, configured)
    return ok(f"{many(running, 'process')} that load, with {many(workers, 'worker')} together")


def find_leases(site: Site) -> Iterator[Finding]:
    """Every held job, with its holder."""
    with site.store.read() as connection:
        held = select_jobs(connection, jobs.c.lease_owner.is_not(None), order=(jobs.c.id,))
    found = [judge_lease(row, site.clock()) for row in held]
    yield from shorten(found, "bgdeploy jobs list", most=20) or [ok("no job is held by anybody")]


def judge_lease(row: Row, now: float) -> Finding:
    """Whether the holder lives, as far as it can be told from here."""
    owner, left = row["lease_owner"], row["lease_expires"] - now
    what = f"job {row['id']} ({title(row)}, {row['state']}) is held by {short(owner)} until {iso(row['lease_expires'])}"
    if known_dead(owner):
        return warning(
            f"{what}, and that process is gone", f"The next worker takes it back at once. {_START}"
        )
    if left < 0 and known_alive(owner):
        pid = owner.split("/")[1]
        cure = f"It hangs or was stopped. End it: kill -9 {pid}; the next worker goes on with the job."
        return error(f"{what}; it is over for {-left:,.0f} s, though that process lives", cure)
    if left < 0:
        return warning(f"{what}; it is over for {-left:,.0f} s", f"The next worker takes it back. {_START}")
    if not known_alive(owner):
        where = (
            "hidden from this user"
            if owner.startswith(f"{this_host()}/")
            else "on another host or in another container"
        )
        return unknown(f"{what}, {where}", "Look there whether that process lives.")
    return ok(f"{what}, and that process lives")


def find_last_scan(site: Site) -> Iterator[Finding]:
    """When a scan last had something to write; one that finds nothing new leaves no trace."""
    with site.store.read() as connection:
        newest = sa.select(sa.func.max(events.c.at)).where(events.c.actor == Actor.SCAN)
        at = connection.execute(newest).scalar_one()
    if at is None:
        yield ok("no scan has found anything so far")
    else:
        yield ok(f"a scan last found something new {since(at, site.clock()):,.0f} s ago ({iso(at)})")
