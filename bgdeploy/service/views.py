"""What people and scripts are shown: rows of the job table as results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from bgdeploy.clock import iso, since
from bgdeploy.jobs import ledger, lineage, progress, reasons
from bgdeploy.jobs.cancel import CODE
from bgdeploy.jobs.lease import short
from bgdeploy.jobs.progress import of_tables
from bgdeploy.jobs.reasons import Reason
from bgdeploy.jobs.rows import Row, customers, databases, events, get_job, jobs, sentence
from bgdeploy.jobs.states import State
from bgdeploy.pipeline.moves import switches
from bgdeploy.plain import tidy
from bgdeploy.service import timeline
from bgdeploy.service.hints import pause_reason
from bgdeploy.service.picking import JOB_ORDERS, SWITCH_ORDERS, Page, select_page
from bgdeploy.service.results import Event, Group, Job, JobRow, Move, Progress, Span, Story
from bgdeploy.service.timeline import spans
from bgdeploy.site import Site

_PLAIN = (
    "id",
    "customer",
    "timestamp",
    "build",
    "database",
    "attempt",
    "interruptions",
    "rows_expected",
    "rows_confirmed",
    "bytes_expected",
    "blocked",
    "requested",
    "changed",
    "step",
    "reason",
    "reason_code",
    "error",
    "error_code",
    "fence",
)
_TIMES = (
    "lease_expires",
    "created_at",
    "updated_at",
    "queued_at",
    "loading_at",
    "loaded_at",
    "switched_at",
    "ended_at",
)


def show_job(row: Row) -> JobRow:
    """Return a job as its row has it."""
    return JobRow(**_of_row(row))


def _of_row(row: Row) -> dict[str, Any]:
    # An earlier version may have kept what steers a terminal.
    named = {key: tidy(row[key]) if isinstance(row[key], str) else row[key] for key in _PLAIN}
    owner = short(row["lease_owner"]) if row["lease_owner"] else None
    times = {key: iso(row[key]) for key in _TIMES}
    more = {"reason_fields": row["reason_fields"], "lease_owner": owner}
    return {**named, **times, **more, "state": State(row["state"])}


def list_jobs(
    site: Site,
    *,
    states: Sequence[str] = (),
    customer: str | None = None,
    error: str | None = None,
    blocked: bool = False,
    limit: int = 50,
    page: Page | None = None,
) -> list[Job]:
    """Return jobs, newest first unless ``page`` says otherwise; its times are those of the last change."""
    where: list[sa.ColumnElement[bool]] = []
    where += [jobs.c.state.in_([State(state) for state in states])] if states else []
    where += [] if customer is None else [jobs.c.customer == customer]
    where += [] if error is None else [jobs.c.error_code == error]
    where += [jobs.c.blocked.is_(True)] if blocked else []
    page = page or Page(limit=limit, sort="-created")
    with site.store.read() as connection:
        rows = select_page(connection, jobs, page, *where, time=jobs.c.updated_at, orders=JOB_ORDERS)
        paused = _pauses(connection)
        marks = _find_marks(connection, rows)
    return [Job(**{**_of_row(row), **_held_back(row, paused), **marks[row["id"]]}) for row in rows]


def _find_marks(connection: sa.Connection, rows: Sequence[Row]) -> dict[int, dict[str, Any]]:
    """What each job's snapshot is by now: when it is from, and live, standby, bad, pinned or cancelled.

    As the job table has it: no target is asked.
    """
    names = {row["customer"] for row in rows}
    owners = {
        one["name"]: one
        for one in connection.execute(sa.select(customers)).mappings()
        if one["name"] in names
    }
    kept: dict[str, list[Row]] = {}
    for one in lineage.kept_databases(connection, next(iter(names)) if len(names) == 1 else None):
        kept.setdefault(one["customer"], []).append(one)
    standbys = {name: lineage.standby(owner, kept.get(name, [])) for name, owner in owners.items()}
    by_name = {one["name"]: one for some in kept.values() for one in some}
    found = {}
    for row in rows:
        database, owner, way_back = (
            by_name.get(row["database"]),
            owners.get(row["customer"]),
            standbys.get(row["customer"]),
        )
        marks = {
            "live": database is not None and owner is not None and owner["live"] == database["name"],
            "standby": database is not None and way_back is not None and way_back["name"] == database["name"],
            "bad": database is not None and database["bad_at"] is not None,
            "pinned": database is not None and database["pinned_at"] is not None,
            "cancelled": row["state"] == State.FAILED and row["error_code"] == CODE,
        }
        found[row["id"]] = {
            "snapshot_at": iso(row["timestamp"]),
            "marks": [name for name, true in marks.items() if true],
        }
    return found


def find_pause(site: Site, job_id: int) -> str | None:
    """Return why a queued job is held back by its customer's pause, and the command that ends it, or None."""
    with site.store.read() as connection:
        return _held_back(get_job(connection, job_id), _pauses(connection)).get("reason")


def _pauses(connection: sa.Connection) -> dict[str, Reason]:
    """Why nothing of a paused customer goes on, by its name."""
    held = sa.select(customers).where(customers.c.paused_at.is_not(None))
    return {row["name"]: pause_reason(row) for row in connection.execute(held).mappings()}


def _held_back(row: Row, paused: Mapping[str, Reason]) -> dict[str, Any]:
    """What a queued job of a paused customer waits for, whatever its row remembers."""
    held = row["state"] == State.QUEUED and row["customer"] in paused
    return reasons.columns(paused[row["customer"]]) if held else {}


def find_job(site: Site, job_id: int) -> Story:
    """Return all that is known of a job; raises NotFound."""
    with site.store.read() as connection:
        row = get_job(connection, job_id)
        groups = ledger.read(connection, job_id, row["database"])
        moves = sa.select(events).where(events.c.job_id == job_id).order_by(events.c.id)
        proof = connection.execute(
            sa.select(databases.c.proof).where(databases.c.name == row["database"])
        ).scalar_one_or_none()
        stretches = spans(connection.execute(moves).mappings().all())
        paused = _pauses(connection)
        marks = _find_marks(connection, [row])
    now = site.clock()
    return Story(
        **{**_of_row(row), **_held_back(row, paused), **marks[job_id]},
        by_position=(row["inspection"] or {}).get("by_position", []),
        progress=[_show_progress(one) for one in of_tables(groups, row["fence"], now)],
        tables=[_show_group(group) for group in groups],
        proof=proof,
        timeline=[_show_span(span, now) for span in stretches],
        events=list_events(site, job_id),
    )


def _show_progress(one: progress.Progress) -> Progress:
    return Progress(
        table=one.name,
        rows=one.rows,
        expected=one.expected,
        rows_per_second=None if one.rate is None else round(one.rate),
        seconds_left=None if one.left is None else round(one.left, 1),
    )


def _show_span(span: timeline.Span, now: float) -> Span:
    end = span.end if span.end is not None else now
    return Span(
        name=span.name,
        kind="work" if span.work else "waiting",
        from_=iso(span.start),
        to=iso(span.end),
        seconds=round(since(span.start, end), 3),
    )


def _show_group(group: Row) -> Group:
    plain = (
        "number",
        "kind",
        "name",
        "source_label",
        "target_label",
        "files",
        "rows_expected",
        "starts",
        "found",
    )
    return Group(
        **{key: group[key] for key in (*plain, "confirmed_fence")},
        rows_confirmed=group["rows_confirmed"] or 0,
        rows_seen=group["rows_seen"] or group["rows_confirmed"] or 0,
        started_at=iso(group["started_at"]),
        confirmed_at=iso(group["confirmed_at"]),
    )


def list_events(
    site: Site,
    job_id: int | None = None,
    *,
    customer: str | None = None,
    limit: int = 1000,
    page: Page | None = None,
) -> list[Event]:
    """Return the newest events, oldest first; of one job, of one customer, or of all."""
    where = [] if job_id is None else [events.c.job_id == job_id]
    where += [] if customer is None else [events.c.customer == customer]
    page = page or Page(limit=limit, sort="-at")
    with site.store.read() as connection:
        rows = select_page(connection, events, page, *where, time=events.c.at, orders={"at": events.c.id})
    return sorted((_show_event(row) for row in rows), key=lambda event: event.id)


def _show_event(row: Row) -> Event:
    plain = ("id", "job_id", "customer", "kind", "source", "target", "actor", "fence")
    return Event(
        **{key: row[key] for key in plain},
        message=tidy(sentence(row)),
        at=iso(row["at"]),
        by=short(row["owner"]),
    )


def list_switches(site: Site, customer: str | None = None, *, page: Page | None = None) -> list[Move]:
    """Return moves of aliases, newest first unless ``page`` says otherwise."""
    where = [] if customer is None else [switches.c.customer == customer]
    page = page or Page(sort="-at")
    with site.store.read() as connection:
        rows = select_page(connection, switches, page, *where, time=switches.c.at, orders=SWITCH_ORDERS)
    return [Move(**{**row, "at": iso(row["at"])}) for row in rows]
