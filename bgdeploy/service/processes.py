"""Who works: the processes that are on record, what each of them does, and since when nobody does.

Told from the job table, where each has a row (``worker/presence``), so that it holds for every host and container that
shares it. What this host sees of a process is told beside it: only one that is gone here is over before its lease ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from bgdeploy.actions import Hint, do
from bgdeploy.clock import iso, since
from bgdeploy.jobs.lease import is_free, known_alive, known_dead, short
from bgdeploy.jobs.models import processes
from bgdeploy.jobs.reasons import Code
from bgdeploy.jobs.states import State
from bgdeploy.jobs.transitions import Row, customers, jobs
from bgdeploy.service.results import Doing, Held, Process
from bgdeploy.site import Site
from bgdeploy.worker.presence import GONE

SILENT = 3  # signs of life that are missed
AHEAD = 60.0  # seconds by which another host's clock may be ahead
_SHOWN = 3  # processes that a warning names


@dataclass(frozen=True)
class Works:
    """Who works now: ``here`` are those that do, as far as anybody can know, and ``silent`` all that give no sign.

    ``last`` is the one that did last, where nobody does: ``since`` then (seconds since 1970). Both are None where
    somebody does, and where nobody ever did. ``waiting`` counts the jobs that would move if somebody did, where nobody does.
    """

    here: tuple[Process, ...]
    silent: tuple[Process, ...]
    last: Process | None
    since: float | None
    waiting: int
    nobody: bool

    @property
    def missed(self) -> bool:
        """Nobody works, and somebody should: something waits, or the last was a service and not a ``run`` from cron."""
        return self.nobody and bool(self.waiting or (self.last is not None and self.last.role != "run"))


def list_processes(site: Site) -> list[Process]:
    """Return the processes that work, and those that did, newest first."""
    with site.store.read() as connection:
        known, held = _read(connection)
    return [_show(row, held, site.clock()) for row in known]


def who_works(site: Site) -> Works:
    """Return who works and, where nobody does, since when."""
    with site.store.read() as connection:
        known, held = _read(connection)
    now, lasts = site.clock(), site.settings.orchestrator.lease_seconds
    shown = [(row, _show(row, held, now)) for row in known]
    here = tuple(one for row, one in shown if _may_work(row, one, held, now, lasts))
    # Also somebody who is on no record: a command that moves or drops something at this moment.
    nobody = not here and all(is_free(row, now) for row in held)
    waiting = 0
    if nobody:  # asked only then: every listing comes by here
        with site.store.read() as connection:
            waiting = connection.execute(_WAITING).scalar_one()
    last = max(shown, key=lambda pair: pair[0]["seen_at"], default=None) if nobody else None
    return Works(
        here=here,
        silent=tuple(one for _, one in shown if one.state == "silent"),
        last=None if last is None else last[1],
        since=None if last is None else last[0]["stopped_at"] or last[0]["seen_at"],
        waiting=waiting,
        nobody=nobody,
    )


def say_nobody(works: Works) -> Hint:
    """That nobody works, since when, and what helps; empty where somebody does."""
    if not works.nobody:
        return Hint()
    last = works.last
    when = "" if last is None else f" since {iso(works.since)} ({name(last)}: {_end(last)})"
    what = f"no bgdeploy that scans and loads is running here{when}, and nothing moves until one does. "
    return Hint(what, "Start it with: ", do("serve"), ", or once: ", do("run"))


def say_silent(works: Works) -> list[Hint]:
    """A sentence for each process that was last seen while it held a job, since nobody else may go on with it yet."""
    cut_off = [one for one in works.silent if one.jobs]
    said = [
        Hint(
            f"{name(one)} was last seen {one.silent_seconds} s ago, and holds {', '.join(f'job {job.job} ({job.title})' for job in one.jobs)} "
            f"until {max(job.lease_expires for job in one.jobs)}. See: ",
            do("processes"),
        )
        for one in cut_off[:_SHOWN]
    ]
    left = len(cut_off) - len(said)
    return [*said, Hint(f"{left} more give no sign of life. See: ", do("processes"))] if left else said


def _read(connection: sa.Connection) -> tuple[Sequence[Row], Sequence[Row]]:
    known = connection.execute(sa.select(processes).order_by(processes.c.id.desc())).mappings().all()
    # Not in an order of the table's: for one SQLite would pass by all jobs instead of the few that are held.
    held = connection.execute(sa.select(jobs).where(jobs.c.lease_owner.is_not(None))).mappings().all()
    return known, sorted(held, key=lambda job: job["id"])


# What moves only where somebody works: nothing that a person, or its writer, has to act for first.
_WAITING = (
    sa.select(sa.func.count())
    .select_from(jobs.join(customers, customers.c.name == jobs.c.customer))
    .where(
        jobs.c.state != sa.literal_column("'cleaned'"),  # as the index has it that knows the open ones
        customers.c.paused_at.is_(None),
        customers.c.removed_at.is_(None),
        jobs.c.state.in_((State.DISCOVERED, State.QUEUED, State.LOADING, State.LOADED)),
        jobs.c.blocked.is_(False),
        sa.func.coalesce(jobs.c.reason_code, "").not_in((Code.FOLDER_GONE, Code.NO_FILES, Code.NOT_FINISHED)),
    )
)


def _show(row: Row, held: Sequence[Row], now: float) -> Process:
    over, silent, owner = row["stopped_at"] is not None, since(row["seen_at"], now), row["owner"]
    alive = True if not over and known_alive(owner) else False if over or known_dead(owner) else None
    mine = [_show_held(job) for job in held if job["lease_owner"] == owner]
    state: Doing = "working" if mine else "idle"
    if alive is False:
        state = "stopped"
    elif silent > SILENT * row["beat_seconds"] or row["seen_at"] > now + AHEAD:
        state = "silent"
    return Process(
        id=row["id"],
        host=short(owner).partition(" ")[0],
        pid=row["pid"],
        role=row["role"],
        version=row["version"],
        workers=row["workers"],
        state=state,
        alive=alive,
        jobs=mine,
        started_at=iso(row["started_at"]),
        seen_at=iso(row["seen_at"]),
        silent_seconds=None if alive is False else int(silent),
        stopped_at=iso(row["stopped_at"] or row["seen_at"]) if alive is False else None,
        last_words=row["last_words"] or GONE if alive is False else None,
    )


def _show_held(job: Row) -> Held:
    about = {key: job[key] for key in ("customer", "timestamp", "build")}
    return Held(job=job["id"], **about, state=State(job["state"]), lease_expires=iso(job["lease_expires"]))


def _may_work(row: Row, one: Process, held: Sequence[Row], now: float, lasts: float) -> bool:
    """A silent one is given the benefit of the doubt for as long as a lease lasts: its own, or one it could have taken."""
    if one.state != "silent":
        return one.state != "stopped"
    if row["seen_at"] > now + AHEAD:  # its clock was ahead, and when it was seen nobody knows
        return one.alive is True
    holds = any(job["lease_owner"] == row["owner"] and not is_free(job, now) for job in held)
    return holds or since(row["seen_at"], now) <= lasts


def name(one: Process) -> str:
    """How people call it: what it runs, and where."""
    return f"bgdeploy {one.role} on {one.host} (pid {one.pid})"


def _end(one: Process) -> str:
    if one.state == "silent":
        lives = "lives, and hangs or waits for the job table: " if one.alive else ""
        return f"{lives}last seen {one.silent_seconds} s ago"
    return one.last_words or "stopped"
