"""What people and scripts are shown: rows of the job table as plain dictionaries with fixed keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from bgdeploy.clock import iso
from bgdeploy.errors import ConfigError, NotFound, TargetError
from bgdeploy.jobs import ledger, lineage
from bgdeploy.jobs.lease import short
from bgdeploy.jobs.progress import Progress, of_tables
from bgdeploy.jobs.rows import Row, customers, databases, events, get_job, jobs
from bgdeploy.jobs.states import State
from bgdeploy.pipeline.moves import switches
from bgdeploy.service.picking import JOB_ORDERS, SWITCH_ORDERS, Page, select_page
from bgdeploy.service.timeline import Span, spans
from bgdeploy.site import Site
from bgdeploy.targets.base import Rows

View = dict[str, Any]

_PLAIN = [
    "id",
    "customer",
    "timestamp",
    "build",
    "state",
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
    "error",
    "error_code",
    "fence",
]
_TIMES = ["created_at", "updated_at", "queued_at", "loading_at", "loaded_at", "switched_at", "ended_at"]


def show_job(row: Row) -> View:
    """Return a job with the keys that scripts rely on; times are ISO 8601 in UTC."""
    lease = {"lease_owner": short(row["lease_owner"]) if row["lease_owner"] else None}
    times = {key: iso(row[key]) for key in _TIMES}
    return {**{key: row[key] for key in _PLAIN}, **lease, "lease_expires": iso(row["lease_expires"]), **times}


def list_jobs(
    site: Site,
    *,
    states: Sequence[str] = (),
    customer: str | None = None,
    error: str | None = None,
    blocked: bool = False,
    limit: int = 50,
    page: Page | None = None,
) -> list[View]:
    """Return jobs, newest first unless ``page`` says otherwise; its times are those of the last change."""
    where: list[sa.ColumnElement[bool]] = []
    where += [jobs.c.state.in_([State(state) for state in states])] if states else []
    where += [] if customer is None else [jobs.c.customer == customer]
    where += [] if error is None else [jobs.c.error_code == error]
    where += [jobs.c.blocked.is_(True)] if blocked else []
    page = page or Page(limit=limit, sort="-created")
    with site.store.read() as connection:
        rows = select_page(connection, jobs, page, *where, time=jobs.c.updated_at, orders=JOB_ORDERS)
    return [show_job(row) for row in rows]


def find_job(site: Site, job_id: int) -> View:
    """Return a job with its ledger (``tables``), where its time went (``timeline``) and its history (``events``)."""
    with site.store.read() as connection:
        row = get_job(connection, job_id)
        groups = ledger.read(connection, job_id, row["database"])
        moves = sa.select(events).where(events.c.job_id == job_id).order_by(events.c.id)
        stretches = spans(connection.execute(moves).mappings().all())
    now = site.clock()
    return {
        **show_job(row),
        "progress": [_show_progress(one) for one in of_tables(groups, row["fence"], now)],
        "tables": [_show_group(group) for group in groups],
        "timeline": [_show_span(span, now) for span in stretches],
        "events": list_events(site, job_id),
    }


def _show_progress(one: Progress) -> View:
    rate = None if one.rate is None else round(one.rate)
    left = None if one.left is None else round(one.left, 1)
    return {
        "table": one.name,
        "rows": one.rows,
        "expected": one.expected,
        "rows_per_second": rate,
        "seconds_left": left,
    }


def _show_span(span: Span, now: float) -> View:
    end = span.end if span.end is not None else now
    kind = "work" if span.work else "waiting"
    return {
        "name": span.name,
        "kind": kind,
        "from": iso(span.start),
        "to": iso(span.end),
        "seconds": round(end - span.start, 3),
    }


def _show_group(group: Row) -> View:
    plain = ("number", "kind", "name", "source_label", "target_label", "files", "rows_expected")
    checkpoint = {
        "rows_confirmed": group["rows_confirmed"] or 0,
        "rows_seen": group["rows_seen"] or group["rows_confirmed"] or 0,
        "starts": group["starts"],
        "found": group["found"],
    }
    times = {"started_at": iso(group["started_at"]), "confirmed_at": iso(group["confirmed_at"])}
    return {
        **{key: group[key] for key in plain},
        **checkpoint,
        "confirmed_fence": group["confirmed_fence"],
        **times,
    }


def list_events(
    site: Site,
    job_id: int | None = None,
    *,
    customer: str | None = None,
    limit: int = 1000,
    page: Page | None = None,
) -> list[View]:
    """Return the newest events, oldest first; of one job, of one customer, or of all."""
    where = [] if job_id is None else [events.c.job_id == job_id]
    where += [] if customer is None else [events.c.customer == customer]
    page = page or Page(limit=limit, sort="-at")
    with site.store.read() as connection:
        rows = select_page(connection, events, page, *where, time=events.c.at, orders={"at": events.c.id})
    return sorted((_show_event(row) for row in rows), key=lambda event: int(event["id"]))


def _show_event(row: Row) -> View:
    plain = {
        key: row[key]
        for key in ("id", "job_id", "customer", "kind", "source", "target", "actor", "fence", "message")
    }
    return {**plain, "at": iso(row["at"]), "by": short(row["owner"])}


def list_customers(site: Site) -> list[View]:
    """Return every customer with live, standby and candidate as database names or None."""
    with site.store.read() as connection:
        owners = connection.execute(sa.select(customers).order_by(customers.c.name)).mappings().all()
        kept = lineage.kept_databases(connection)
    mine: dict[str, list[Row]] = {}
    for row in kept:
        mine.setdefault(row["customer"], []).append(row)
    look = _look_at_target(site)
    return [
        {**_show_customer(owner, mine.get(owner["name"], []), site), "trouble": _find_trouble(owner, look)}
        for owner in owners
    ]


@dataclass(frozen=True)
class _Look:
    """What the target says of all databases and aliases at once; ``unknown`` is why it cannot be asked."""

    online: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    unknown: str | None = None


def _look_at_target(site: Site) -> _Look:
    try:
        online = frozenset(found.name for found in site.target.databases() if found.status == "online")
        return _Look(online, site.target.aliases())
    except (TargetError, ConfigError) as error:
        return _Look(unknown=f"unknown: {error.what}")


def _find_trouble(owner: Row, look: _Look) -> str | None:
    """What keeps readers from what is live, or None; asked of the target, not of memory."""
    if look.unknown is not None:
        return look.unknown
    found = look.aliases.get(owner["alias"])
    if found != owner["live"] and owner["intent"] is None:
        return f"the alias points at {found or 'nothing'}"
    return f"{found} is gone" if found is not None and found not in look.online else None


def _show_customer(owner: Row, kept: Sequence[Row], site: Site) -> View:
    by_name = {row["name"]: row for row in kept}
    live = by_name.get(owner["live"] or "")
    standby, candidate = lineage.standby(owner, kept), lineage.candidate(kept)
    bad = [row["name"] for row in kept if row["bad_at"] is not None]
    return {
        "customer": owner["name"],
        "alias": owner["alias"],
        "live": owner["live"],
        "standby": _name(standby),
        "candidate": _name(candidate),
        "rolled_back": bad,
        "paused": owner["paused_at"] is not None,
        "removed": owner["removed_at"] is not None,
        "pinned": [row["name"] for row in kept if row["pinned_at"] is not None],
        "live_since": iso(owner["live_since"]),
        "snapshot_timestamp": owner["live_timestamp"],
        "snapshot_age_seconds": None if live is None else int(site.clock() - owner["live_timestamp"]),
        "counts": None if live is None else live["counts"],
    }


def _name(row: Mapping[Any, Any] | None) -> str | None:
    return None if row is None else row["name"]


def list_switches(site: Site, customer: str | None = None, *, page: Page | None = None) -> list[View]:
    """Return moves of aliases, newest first unless ``page`` says otherwise."""
    where = [] if customer is None else [switches.c.customer == customer]
    page = page or Page(sort="-at")
    with site.store.read() as connection:
        rows = select_page(connection, switches, page, *where, time=switches.c.at, orders=SWITCH_ORDERS)
    return [{**dict(row), "at": iso(row["at"])} for row in rows]


def capacity_warning(site: Site) -> str | None:
    """Say, with the sum, when the databases that are to be kept can exceed ``max_databases``."""
    limit = site.settings.max_databases
    if limit is None:
        return None
    with site.store.read() as connection:
        count = len(connection.execute(sa.select(customers.c.name)).all())
        kept = lineage.kept_databases(connection)
    extra = sum(
        row["pinned_at"] is not None or row["bad_at"] is not None or row["state"] == State.LOADED
        for row in kept
    )
    each, slots = site.settings.orchestrator.keep_databases, site.settings.orchestrator.num_workers
    needed = count * each + extra + slots
    if needed <= limit:
        return None
    sums = f"{count} customers x {each} kept + {extra} pinned, bad or waiting + {slots} loading = {needed}"
    cure = "raise orchestrator.max_databases, or lower keep_databases (bgdeploy config shows both)"
    return f"max_databases is {limit}, but {sums}; loads that still fit go on. Cure: {cure}"


def ask(site: Site, customer: str, cypher: str) -> Rows:
    """Return the rows of a read-only query; an error names the job of what is live."""
    alias = alias_of(site, customer)
    try:
        return site.target.query(alias, cypher)
    except TargetError as error:
        with site.store.read() as connection:
            of_live = sa.select(databases.c.job_id).where(databases.c.name == site.target.alias(alias))
            job = connection.execute(of_live).scalar_one_or_none()
        cure = error.cure.replace("<id>", str(job or "<id>"))
        raise type(error)(error.what, kept=error.kept, cure=cure) from error


def alias_of(site: Site, customer: str) -> str:
    """Return the alias of a customer, or raise NotFound naming the customers there are."""
    with site.store.read() as connection:
        found = sa.select(customers.c.alias).where(
            sa.or_(customers.c.name == customer, customers.c.alias == customer)
        )
        alias = connection.execute(found).scalars().first()
        if alias is None:
            known = connection.execute(sa.select(customers.c.name).limit(10)).scalars().all()
            raise NotFound(
                f"There is no customer {customer!r}.",
                cure=f"There are: {', '.join(known) or 'none yet'}. See: bgdeploy customers",
            )
    return str(alias)
