"""What people and scripts are shown: rows of the job table as results.

Long listings are paged by key: a page begins after the line that the page before ended with, so a line
that is added or removed meanwhile moves no other, and the thousandth page costs what the first does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from bgdeploy.actions import Hint, do
from bgdeploy.clock import iso, since
from bgdeploy.errors import BadInput, NotFound
from bgdeploy.jobs import ledger, lineage, reasons
from bgdeploy.jobs.lease import short
from bgdeploy.jobs.ledger import of_tables
from bgdeploy.jobs.reasons import Code, Reason, because
from bgdeploy.jobs.states import State
from bgdeploy.jobs.transitions import CODE, Row, customers, databases, events, get_job, jobs, sentence
from bgdeploy.pipeline.alias import switches
from bgdeploy.plain import LONGEST, tidy
from bgdeploy.service import timeline
from bgdeploy.service.results import (
    Customer,
    Event,
    Group,
    Job,
    JobRow,
    Move,
    Progress,
    Span,
    Story,
    advice,
)
from bgdeploy.service.timeline import spans
from bgdeploy.site import Site

# Pages

Columns = Mapping[str, sa.ColumnElement[Any]]

# What each listing can be sorted by; ids are given in the order of creation.
JOB_ORDERS: Columns = {
    "created": jobs.c.id,
    "updated": jobs.c.updated_at,
    "customer": jobs.c.customer,
    "snapshot": jobs.c.timestamp,
    "rows": sa.func.coalesce(jobs.c.rows_expected, 0),
}
SWITCH_ORDERS: Columns = {
    "at": switches.c.id,
    "customer": switches.c.customer,
    "took": sa.func.coalesce(switches.c.took_ms, 0.0),
}


def _rows(one: Customer) -> int | None:
    if one.counts is None:
        return None
    return sum(sum(one.counts.get(kind, {}).values()) for kind in ("labels", "types"))


CUSTOMER_ORDERS: Mapping[str, Callable[[Customer], Any]] = {
    "customer": lambda one: one.customer,
    "since": lambda one: one.live_since,
    "snapshot": lambda one: one.snapshot_timestamp,
    "rows": _rows,
}
CUSTOMER_STATES = ("live", "standby", "none", "paused", "failed", "trouble")


@dataclass(frozen=True)
class Page:
    """What is wanted of a listing: ``since`` <= time < ``until`` (seconds since 1970), ``before``: id of the
    line that the page before ended with, ``sort``: a name of its orders, with ``-`` from the greatest down."""

    limit: int = 50
    since: float | None = None
    until: float | None = None
    before: int | None = None
    sort: str = ""


def select_page(
    connection: sa.Connection,
    table: sa.Table,
    page: Page,
    *where: sa.ColumnElement[bool],
    time: sa.ColumnElement[Any],
    orders: Columns,
) -> Sequence[Row]:
    """Return the rows of one page; raises NotFound where the line it goes on from is no more."""
    down = page.sort.startswith("-")
    column = orders[page.sort.removeprefix("-")]
    keys = [column] if column is table.c.id else [column, table.c.id]
    wanted = sa.select(table).where(*where)
    if page.since is not None:
        wanted = wanted.where(time >= page.since)
    if page.until is not None:
        wanted = wanted.where(time < page.until)
    if page.before is not None:
        last: Sequence[Any] | None = (page.before,)
        if len(keys) > 1:
            last = connection.execute(sa.select(*keys).where(table.c.id == page.before)).one_or_none()
        if last is None:
            raise NotFound(
                f"There is no line {page.before} to go on from.", cure="Begin anew, without --before."
            )
        here = sa.tuple_(*keys)
        wanted = wanted.where(here < tuple(last) if down else here > tuple(last))
    order = [key.desc() if down else key.asc() for key in keys]
    return connection.execute(wanted.order_by(*order).limit(page.limit)).mappings().all()


def pick_customers(
    found: Sequence[Customer], *, states: Sequence[str] = (), text: str = "", sort: str = "customer"
) -> list[Customer]:
    """Return those in any of these states whose name holds ``text``, sorted; who has no value comes last."""

    def is_in(one: Customer) -> bool:
        true = {
            "live": one.live is not None,
            "standby": one.standby is not None,
            "none": one.live is None,
            "paused": one.paused,
            "failed": one.failed is not None,
            "trouble": one.trouble is not None,
        }
        return not states or any(true[state] for state in states)

    picked = [one for one in found if text in one.customer and is_in(one)]
    down, key = sort.startswith("-"), CUSTOMER_ORDERS[sort.removeprefix("-")]
    with_value = [one for one in picked if key(one) is not None]
    with_value.sort(key=key, reverse=down)
    return with_value + [one for one in picked if key(one) is None]


# Hints: what a person may do next, worded once for every command


def next_step(job: Mapping[Any, Any]) -> Hint:
    """Return what a person may do about a job in this state."""
    number, database = job["id"], job["database"]
    match State(job["state"]):
        case State.LOADED:
            use = do("switch", customer=job["customer"], to=database)
            return Hint("to use it: ", use, "; to give it up: ", do("cancel", job_id=number))
        case State.SWITCHED:
            keep = do("pin", customer=job["customer"], database=database)
            return Hint("what is live: ", do("customers"), "; to keep it for good: ", keep)
        case State.FAILED:
            return after_failure(job)
        case State.CLEANED:
            return Hint("to load it once more: ", do("reload", job_id=number))
    return Hint("to stop it: ", do("cancel", job_id=number))


def after_failure(job: Mapping[Any, Any]) -> Hint:
    """Return what helps after this failed job, be it a row or what is shown of one.

    A snapshot that was found to be bad is looked at again when its folder changes; nothing else comes
    back by itself.
    """
    retry = do("retry", job_id=job["id"])
    if job["error_code"] == CODE:
        return Hint("To load it after all: ", retry)
    if job["error_code"] == BadInput.code:
        return Hint(
            "Mend its folder, and a running bgdeploy serve or the next bgdeploy scan takes it up by itself; "
            "or drop a newer snapshot. To try the folder as it is: ",
            retry,
        )
    return Hint("It is not tried again by itself. When the reason is gone: ", retry)


def use_anyway(connection: sa.Connection, job: Mapping[Any, Any]) -> Hint:
    """Return how a database that is not live is made so by hand; where a person marked it bad, that first."""
    query = sa.select(databases.c.bad_at, databases.c.bad_why).where(databases.c.name == job["database"])
    mark = connection.execute(query).one_or_none()
    use = do("switch", customer=job["customer"], to=job["database"])
    if mark is None or mark.bad_at is None:
        return Hint("To use it: ", use)
    return Hint(f"It is marked bad ({mark.bad_why}): drop a newer snapshot. If that was wrong: ", use)


def pause_of(customer: Mapping[Any, Any]) -> Hint:
    """Return why nothing of a paused customer goes on, and the command that lets it."""
    return _say_pause(_pause_reason(customer))


def _say_pause(reason: Reason) -> Hint:
    said, resume = tidy(str(reason), LONGEST), do("resume", customer=reason.fields["customer"])
    return Hint(said.removesuffix(str(resume)), resume) if said.endswith(str(resume)) else Hint(said)


def _pause_reason(customer: Mapping[Any, Any]) -> Reason:
    return because(Code.PAUSED, customer=customer["name"], why=customer["paused_why"])


# Results

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
    return {**named, **times, **more, "state": State(row["state"]), "hint": advice(next_step(row))}


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
        marks = {"cancelled": row["state"] == State.FAILED and row["error_code"] == CODE}
        if (database := by_name.get(row["database"])) is not None:
            owner, way_back = owners.get(row["customer"]), standbys.get(row["customer"])
            marks = {
                "live": owner is not None and owner["live"] == database["name"],
                "standby": way_back is not None and way_back["name"] == database["name"],
                "bad": database["bad_at"] is not None,
                "pinned": database["pinned_at"] is not None,
                **marks,
            }
        found[row["id"]] = {
            "snapshot_at": iso(row["timestamp"]),
            "marks": [name for name, true in marks.items() if true],
        }
    return found


def find_pause(site: Site, job_id: int) -> Hint | None:
    """Return why a queued job is held back by its customer's pause, and the command that ends it, or None."""
    with site.store.read() as connection:
        row, paused = get_job(connection, job_id), _pauses(connection)
    return _say_pause(paused[row["customer"]]) if _held_back(row, paused) else None


def _pauses(connection: sa.Connection) -> dict[str, Reason]:
    """Why nothing of a paused customer goes on, by its name."""
    held = sa.select(customers).where(customers.c.paused_at.is_not(None))
    return {row["name"]: _pause_reason(row) for row in connection.execute(held).mappings()}


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


def _show_progress(one: ledger.Progress) -> Progress:
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
    plain = ("id", "job_id", "customer", "kind", "source", "target", "actor", "fence")
    return [
        Event(
            **{key: row[key] for key in plain},
            message=tidy(sentence(row)),
            at=iso(row["at"]),
            by=short(row["owner"]),
        )
        for row in sorted(rows, key=lambda row: row["id"])
    ]


def list_switches(site: Site, customer: str | None = None, *, page: Page | None = None) -> list[Move]:
    """Return moves of aliases, newest first unless ``page`` says otherwise."""
    where = [] if customer is None else [switches.c.customer == customer]
    page = page or Page(sort="-at")
    with site.store.read() as connection:
        rows = select_page(connection, switches, page, *where, time=switches.c.at, orders=SWITCH_ORDERS)
    return [Move(**{**row, "at": iso(row["at"])}) for row in rows]
