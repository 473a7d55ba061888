"""The ledger of a load: which groups of files are committed, and how far and how fast it has come.

Every write carries the fence; progress is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from bgdeploy.errors import LeaseLost
from bgdeploy.jobs.transitions import Row, Tx, databases, jobs, load_tables, write

# Progress clears both counters: they count only runs in a row that got nowhere.
PROGRESS = {"attempt": 0, "interruptions": 0}
_STEPS = {"closed": 1, "verified": 2, "published": 3}  # in the order a build goes through them
_FURTHEST = sa.select(jobs.c.furthest).where(jobs.c.id == sa.bindparam("id"))
_PLANNED = ("number", "kind", "name", "source_label", "target_label", "files", "rows_expected")


def read(connection: sa.Connection, job_id: int, database: str | None) -> Sequence[Row]:
    """Return the groups of a job's build in load order."""
    of_build = (load_tables.c.job_id == job_id, load_tables.c.database == database)
    query = sa.select(load_tables).where(*of_build).order_by(load_tables.c.number)
    return connection.execute(query).mappings().all()


def store_plan(tx: Tx, job: Row, database: str, groups: Sequence[dict[str, Any]]) -> None:
    """Store the plan of a build; an older one stays where it is the same or data may be committed by it."""
    write(tx, job, reason=None)
    planned = [{key: group[key] for key in _PLANNED} for group in groups]
    older = read(tx.connection, job["id"], database)
    if any(row["rows_confirmed"] is not None for row in older):
        return
    if older and [{key: row[key] for key in _PLANNED} for row in older] == planned:
        return
    of_build = (load_tables.c.job_id == job["id"], load_tables.c.database == database)
    tx.connection.execute(load_tables.delete().where(*of_build))
    rows = [{"job_id": job["id"], "database": database, **group} for group in planned]
    if rows:
        tx.connection.execute(load_tables.insert(), rows)
    expected = sum(group["rows_expected"] for group in groups)
    tx.say("load.planned", job, groups=len(rows), rows=expected)


def restart(tx: Tx, job: Row, database: str, reason: str) -> None:
    """Forget every confirmed group: the build was deleted and starts from zero."""
    write(tx, job, rows_confirmed=0, rows_seen=None, step=None)
    cleared: dict[str, Any] = {"confirmed_at": None, "confirmed_fence": None, "found": False}
    cleared |= {"rows_confirmed": None, "rows_seen": None, "starts": 0}
    of_build = (load_tables.c.job_id == job["id"], load_tables.c.database == database)
    tx.connection.execute(load_tables.update().where(*of_build).values(**cleared))
    tx.say("load.restarted", job, reason=reason)


def owns(tx: Tx, job: Row, database: str, mark: str) -> None:
    """Store what tells a build from another database of its name; the first mark stays."""
    write(tx, job)
    unmarked = (databases.c.name == database, databases.c.mark.is_(None))
    tx.connection.execute(databases.update().where(*unmarked).values(mark=mark))


def started(tx: Tx, job: Row, database: str, number: int) -> None:
    """Note that a group is about to be committed; refused for one that is committed already."""
    write(tx, job)
    changes = {"starts": load_tables.c.starts + 1, "started_at": tx.now}
    _change_open(tx, job, database, number, changes)


def confirmed(tx: Tx, job: Row, database: str, number: int, rows: int, *, found: bool) -> Row:
    """Note that a group is committed and return it; ``found`` when an earlier run did it unseen."""
    group = _change_open(
        tx,
        job,
        database,
        number,
        {"rows_confirmed": rows, "confirmed_at": tx.now, "confirmed_fence": job["fence"], "found": found},
    )
    total = confirmed_rows(tx, job["id"], database)
    changes = {"rows_confirmed": total, "rows_seen": total, "step": f"group {number}"}
    write(tx, job, **changes, **_progress(tx, job, total))
    return group


def seen(tx: Tx, job: Row, database: str, number: int, rows: int) -> Row:
    """Note about how many rows of an open group are on their way; no progress yet, since nothing is committed."""
    group = _change_open(tx, job, database, number, {"rows_seen": rows})
    write(tx, job, rows_seen=confirmed_rows(tx, job["id"], database) + rows)
    return group


def advanced(tx: Tx, job: Row, database: str, number: int, rows: int) -> Row:
    """Note how many rows of an open group are committed so far, and return it."""
    group = _change_open(tx, job, database, number, {"rows_confirmed": rows})
    total = confirmed_rows(tx, job["id"], database)
    write(tx, job, rows_confirmed=total, rows_seen=total, **_progress(tx, job, total))
    return group


def step(tx: Tx, job: Row, database: str, name: str) -> None:
    """Note that a step after the groups is done: ``closed``, ``verified`` or ``published``."""
    reached = confirmed_rows(tx, job["id"], database) + _STEPS[name]
    write(tx, job, step=name, **_progress(tx, job, reached))
    tx.say("load.step", job, step=name)


def _progress(tx: Tx, job: Row, reached: int) -> dict[str, int]:
    """What changes when a load has come so far: a build made again is no progress up to where one was before."""
    furthest = tx.connection.execute(_FURTHEST, {"id": job["id"]}).scalar_one()
    return {"furthest": reached, **PROGRESS} if reached > furthest else {}


def _change_open(tx: Tx, job: Row, database: str, number: int, changes: dict[str, Any]) -> Row:
    is_open = sa.and_(
        load_tables.c.job_id == job["id"],
        load_tables.c.database == database,
        load_tables.c.number == number,
        load_tables.c.confirmed_at.is_(None),
    )
    changed = load_tables.update().where(is_open).values(**changes).returning(*load_tables.c)
    group = tx.connection.execute(changed).mappings().one_or_none()
    if group is None:
        raise LeaseLost(
            f"Group {number} of job {job['id']} is committed already.", kept="Nothing was written."
        )
    return group


def confirmed_rows(tx: Tx, job_id: int, database: str) -> int:
    """How many rows of a build are committed, as far as its groups tell."""
    of_build = (load_tables.c.job_id == job_id, load_tables.c.database == database)
    total = sa.select(sa.func.coalesce(sa.func.sum(load_tables.c.rows_confirmed), 0)).where(*of_build)
    return int(tx.connection.execute(total).scalar_one())


Group = Mapping[Any, Any]  # a row of the ledger


@dataclass(frozen=True)
class Progress:
    """One table's part of a load, or all of it.

    ``rows`` are committed or, where the target tells, on their way. ``rate`` is rows per second of
    this run, ``left`` the seconds it still needs at that rate; both None while nobody can tell.
    """

    name: str
    rows: int
    expected: int
    rate: float | None = None
    left: float | None = None
    running: bool = False

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.rows / self.expected if self.expected else 1.0


def of_tables(groups: Sequence[Group], fence: int, now: float) -> list[Progress]:
    """Return the progress of every table of a build, in load order."""
    names = dict.fromkeys(group["name"] for group in groups)
    return [_measure(name, [one for one in groups if one["name"] == name], fence, now) for name in names]


def of_load(groups: Sequence[Group], fence: int, now: float) -> Progress:
    """Return the progress of the whole load."""
    return _measure("", groups, fence, now)


def _measure(name: str, groups: Sequence[Group], fence: int, now: float) -> Progress:
    rows, expected = sum(map(_rows, groups)), sum(group["rows_expected"] for group in groups)
    mine = [one for one in groups if _is_of_this_run(one, fence)]
    over = all(group["confirmed_at"] is not None for group in groups)
    rate = _rate(mine, None if over else now)
    left = (expected - rows) / rate if rate and not over else None
    return Progress(name, rows, expected, rate, left, any(one["confirmed_at"] is None for one in mine))


def _rows(group: Group) -> int:
    return max(group["rows_confirmed"] or 0, group["rows_seen"] or 0)


def _is_of_this_run(group: Group, fence: int) -> bool:
    if group["started_at"] is None or group["found"]:
        return False
    return group["confirmed_at"] is None or group["confirmed_fence"] == fence


def _rate(groups: Iterable[Group], now: float | None) -> float | None:
    """Rows a second between the first start and the last end; None before there is anything to divide.

    A group that was started before may hold rows of an earlier run, and nobody knows how many.
    """
    some = [one for one in groups if one["starts"] <= 1]
    ends = [now] if now is not None else [one["confirmed_at"] for one in some]
    if not some:
        return None
    took = max(ends) - min(one["started_at"] for one in some)
    rows = sum(map(_rows, some))
    return rows / took if took > 0 and rows else None
