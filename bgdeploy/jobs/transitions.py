"""Rows of the job table: the one function that moves a job, the reads every stage shares, and how a cancelled job ends."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from bgdeploy import log
from bgdeploy.actions import Hint, do
from bgdeploy.errors import LeaseLost, NotFound
from bgdeploy.jobs import reasons
from bgdeploy.jobs.models import customers as customers
from bgdeploy.jobs.models import databases as databases
from bgdeploy.jobs.models import events as events
from bgdeploy.jobs.models import jobs as jobs
from bgdeploy.jobs.models import load_tables as load_tables
from bgdeploy.jobs.states import Actor, State, find
from bgdeploy.jobs.store import Store, insert_new, select_where, update_where
from bgdeploy.plain import LONGEST, storable, tidy

LONGEST_DELAY = 3600.0  # seconds before another try
Row = sa.RowMapping
Edge = tuple[State | None, State | None]

_SELDOM = 3600.0  # seconds between two of what is said seldom
_SAID = sa.select(sa.func.count(), sa.func.max(events.c.at)).where(
    events.c.job_id == sa.bindparam("job_id"), events.c.kind == sa.bindparam("kind")
)
_EVENT = sa.insert(events)
_INSERTED = insert_new(jobs)
_GUARD = ("id", "state", "fence")  # what every write of a worker carries, as it was read
_REWRITE = update_where(jobs, *_GUARD).returning(*jobs.c)
_AS_READ = sa.select(jobs.c.id, jobs.c.state, jobs.c.fence).where(
    jobs.c.id.in_(sa.bindparam("ids", expanding=True))
)


@dataclass(frozen=True)
class Tx:
    """One write transaction with its time and its author.

    What it says becomes event rows at its end, all in one statement, and is logged once it is durable.
    """

    connection: sa.Connection
    now: float
    actor: Actor
    owner: str
    said: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)  # the events as they will be written

    def say(self, name: str, job: Row | None = None, *, edge: Edge = (None, None), **fields: Any) -> None:
        """Append an event, with the job's name among its fields."""
        if job is not None:
            fields = {"job": title(job), **fields}
        self.said.append((name, fields))
        about = job if job is not None else {"id": None, "customer": fields.get("customer"), "fence": None}
        row = {"job_id": about["id"], "customer": about["customer"], "fence": about["fence"]}
        by = {"at": self.now, "actor": self.actor, "owner": self.owner}
        text = {"kind": name, "source": edge[0], "target": edge[1], "message": log.word(name, **fields)}
        self.rows.append({**row, **by, **text, "fields": _stored(fields)})

    def say_seldom(self, name: str, job: Row, **fields: Any) -> None:
        """Say what may come again and again: after 1, 2, 4 ... seconds, and at most every hour.

        A folder that never settles, or a figure that never stands still, must not fill the job table.
        """
        asked = {"job_id": job["id"], "kind": name}
        times, last = self.connection.execute(_SAID, asked).one()
        if not times or self.now - last >= min(_SELDOM, 2.0 ** (times - 1)):
            self.say(name, job, **fields)


@contextmanager
def transaction(store: Store, *, now: float, actor: Actor, owner: str) -> Iterator[Tx]:
    """A write transaction whose events reach the log only when it has committed."""
    with store.write() as connection:
        tx = Tx(connection, now, actor, owner)
        yield tx
        if tx.rows:
            connection.execute(_EVENT, tx.rows)
    for name, fields in tx.said:
        log.emit(name, **fields)


def _stored(fields: Mapping[str, Any]) -> dict[str, Any]:
    """An event's fields as JSON; a Reason keeps its code and its own fields."""
    reason = {
        name: {"code": str(value.code), "fields": dict(value.fields)}
        for name, value in fields.items()
        if isinstance(value, reasons.Reason)
    }
    return {name: storable(value) for name, value in fields.items()} | reason


def sentence(event: Mapping[Any, Any]) -> str:
    """Return what a row of the history says, made of its fields.

    As it was written where an earlier version wrote it, or one whose kinds or codes this version does not know.
    """
    if event["fields"] is None:
        return str(event["message"])
    try:
        fields = {
            name: reasons.Reason(reasons.Code(value["code"]), value["fields"])
            if isinstance(value, dict)
            else value
            for name, value in event["fields"].items()
        }
        return log.word(event["kind"], **fields)
    except (KeyError, ValueError, TypeError):
        return str(event["message"])


def title(job: Mapping[Any, Any]) -> log.Title:
    """Return how people call a job: customer/timestamp, with the build where it is not the first."""
    build = f" build {job['build']}" if job["build"] > 1 else ""
    about = {"job": job.get("id"), **{name: job[name] for name in ("customer", "timestamp", "build")}}
    return log.Title(f"{job['customer']}/{job['timestamp']}{build}", about)


def move(tx: Tx, job: Row, target: State, event: str, *, fields: Mapping[str, Any], **changes: Any) -> None:
    """Move a job along one edge of the law, with its event, in this transaction.

    Guarded by id, state and fence as they were read; raises LeaseLost when the row is another one
    by now, and ValueError for a move the law does not know.
    """
    find(State(job["state"]), target, tx.actor)
    write(tx, job, state=target, **changes)
    tx.say(event, job, edge=(job["state"], target), **fields)


def move_all(
    tx: Tx, target: State, event: str, moves: Sequence[tuple[Row, dict[str, Any], dict[str, Any]]]
) -> list[Row]:
    """Move many jobs, each with its event's fields and its changes, and return them.

    All change the same columns. Those that are others' by now are left out.
    """
    # one writer: another store locks the rows as it reads them (FOR UPDATE), else an event is said of a row that was not moved
    mine = as_read(tx, [job for job, _, _ in moves])
    moves = [one for one in moves if one[0]["id"] in mine]
    for source in {job["state"] for job, _, _ in moves}:
        find(State(source), target, tx.actor)
    write_all(tx, [(job, {"state": target, **changes}) for job, _, changes in moves])
    for job, fields, _ in moves:
        tx.say(event, job, edge=(job["state"], target), **fields)
    return [job for job, _, _ in moves]


def write(tx: Tx, job: Row, **changes: Any) -> None:
    """Change a job that still has the state and fence it was read with, or raise LeaseLost."""
    done = tx.connection.execute(update_where(jobs, *_GUARD), _guarded(tx, job, changes))
    if done.rowcount != 1:
        raise _lost(job)


def rewrite(tx: Tx, job: Row, **changes: Any) -> Row:
    """Change a job as ``write`` does, and return it as it is now."""
    done = tx.connection.execute(_REWRITE, _guarded(tx, job, changes)).mappings().one_or_none()
    if done is None:
        raise _lost(job)
    return done


def write_all(tx: Tx, written: Sequence[tuple[Row, dict[str, Any]]]) -> None:
    """Change many jobs, all of them in the same columns; one that is another's by now is left alone."""
    if written:
        several = [_guarded(tx, job, changes) for job, changes in written]
        tx.connection.execute(update_where(jobs, *_GUARD), several)


def _lost(job: Row) -> LeaseLost:
    return LeaseLost(
        f"Job {job['id']} ({title(job)}) has another owner by now.",
        kept="Nothing was written.",
        cure=Hint("See where it is: ", do("job", job_id=job["id"])),
    )


def _guarded(tx: Tx, job: Row, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {**{f"of_{name}": job[name] for name in _GUARD}, "updated_at": tx.now, **_fit(changes)}


def _fit(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with reason and error as they may be kept; a Reason, or None, fills the columns that say why."""
    fit = {**values}
    if "reason" in fit:
        fit |= reasons.columns(fit["reason"])
    if isinstance(fit.get("error"), str):
        fit["error"] = tidy(fit["error"], LONGEST)
    return fit


def as_read(tx: Tx, rows: Sequence[Row]) -> set[int]:
    """Return the numbers of the jobs that still have the state and fence they were read with."""
    found = tx.connection.execute(_AS_READ, {"ids": [row["id"] for row in rows]}).all()
    now = {number: (state, fence) for number, state, fence in found}
    return {row["id"] for row in rows if now.get(row["id"]) == (row["state"], row["fence"])}


def insert_job(tx: Tx, state: State, event: str, *, fields: Mapping[str, Any], **values: Any) -> Row | None:
    """Insert a job, or return None where this customer, timestamp and build has one already."""
    return next(iter(insert_jobs(tx, state, event, [(values, dict(fields))])), None)


def insert_jobs(
    tx: Tx, state: State, event: str, new: Sequence[tuple[dict[str, Any], dict[str, Any]]]
) -> list[Row]:
    """Insert many jobs, each with its values and its event's fields; return those that had none yet."""
    find(None, state, tx.actor)
    if not new:
        return []
    born = {"build": 1, "state": state, "created_at": tx.now, "updated_at": tx.now}
    rows = [{**born, **_fit(values)} for values, _ in new]
    inserted = tx.connection.execute(_INSERTED, rows).mappings().all()
    fields = {_key(row): said for row, (_, said) in zip(rows, new, strict=True)}
    for row in inserted:
        tx.say(event, row, edge=(None, state), **fields[_key(row)])
    return list(inserted)


def _key(row: Mapping[Any, Any]) -> tuple[str, int, int]:
    return row["customer"], row["timestamp"], row["build"]


def get_job(connection: sa.Connection, job_id: int) -> Row:
    """Return a job, or raise NotFound."""
    # What does not fit into the column is no job's id, and SQLite would stumble over it.
    known = abs(job_id) < 2**63
    found = connection.execute(select_where(jobs, "id"), {"id": job_id}) if known else None
    row = found.mappings().one_or_none() if found is not None else None
    if row is None:
        raise NotFound(f"There is no job {job_id}.", cure=Hint("See: ", do("jobs")))
    return row


def get_customer(connection: sa.Connection, name: str) -> Row:
    """Return a customer, or raise NotFound."""
    row = connection.execute(select_where(customers, "name"), {"name": name}).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no customer {name!r}.", cure=Hint("See: ", do("customers")))
    return row


def get_database(connection: sa.Connection, name: str) -> Row:
    """Return a database that bgdeploy owns or owned, or raise NotFound."""
    row = connection.execute(select_where(databases, "name"), {"name": name}).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no database {name!r} of bgdeploy's.", cure=Hint("See: ", do("customers")))
    return row


def select_jobs(connection: sa.Connection, *where: Any, order: Sequence[Any] = ()) -> Sequence[Row]:
    """Return the jobs that meet all conditions."""
    return connection.execute(sa.select(jobs).where(*where).order_by(*order)).mappings().all()


def age(row: Mapping[Any, Any]) -> tuple[int, int]:
    """Return what "newer" compares: (timestamp, build)."""
    return row["timestamp"], row["build"]


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


def delay(attempt: int, base: float, *, jitter: float | None = None) -> float:
    """Return seconds before try ``attempt`` + 1: base to the power of attempt, half of it by chance.

    The chance keeps customers that failed together from coming back together.
    """
    whole = min(LONGEST_DELAY, base**attempt)
    return whole * (0.5 + 0.5 * (random.random() if jitter is None else jitter))
