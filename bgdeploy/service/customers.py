"""Customers as they are shown: what is live, what waits, what failed, and where an alias may be moved to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from bgdeploy.actions import Hint, do
from bgdeploy.clock import iso, since
from bgdeploy.errors import ConfigError, NotFound, Refused, TargetError
from bgdeploy.jobs import lineage
from bgdeploy.jobs.states import State
from bgdeploy.jobs.transitions import CODE, Row, customers, databases, get_customer, jobs
from bgdeploy.pipeline.alias import find_way_back, settle
from bgdeploy.service.results import Customer, Database, Failure, advice
from bgdeploy.service.views import after_failure
from bgdeploy.site import Site

CHOICES = 5  # databases that a refusal names
LOOK = Hint("See: ", do("customers"))  # the cure of a refusal that knows no better one
_NEWER = jobs.alias("newer")
# What failed, was not cancelled, and is the newest of its customer: its latest delivery is not served.
_FAILED = sa.select(jobs.c.customer, jobs.c.id, jobs.c.timestamp, jobs.c.error, jobs.c.error_code).where(
    jobs.c.state == State.FAILED,
    jobs.c.state != sa.literal_column("'cleaned'"),  # as the index of what is not over has it
    sa.func.coalesce(jobs.c.error_code, "") != CODE,
    ~sa.exists().where(
        _NEWER.c.customer == jobs.c.customer,
        sa.tuple_(_NEWER.c.timestamp, _NEWER.c.build) > sa.tuple_(jobs.c.timestamp, jobs.c.build),
    ),
)


def list_customers(site: Site) -> list[Customer]:
    """Return every customer, by name; asks the target once for all of them."""
    with site.store.read() as connection:
        owners = connection.execute(sa.select(customers).order_by(customers.c.name)).mappings().all()
        kept = lineage.kept_databases(connection)
        failed = {row["customer"]: row for row in connection.execute(_FAILED).mappings()}
    mine: dict[str, list[Row]] = {}
    for row in kept:
        mine.setdefault(row["customer"], []).append(row)
    look = _look_at_target(site)
    return [
        _show_customer(site, owner, mine.get(owner["name"], []), look, failed.get(owner["name"]))
        for owner in owners
    ]


def list_databases(site: Site, customer: str | None = None, *, dropped: bool = False) -> list[Database]:
    """Return the databases of one customer or of all, newest first, with those that were dropped; asks no target."""
    newest = (databases.c.timestamp.desc(), databases.c.build.desc(), databases.c.created_at.desc())
    gone = sa.select(databases).where(databases.c.dropped_at.is_not(None)).order_by(*newest)
    if customer is not None:
        gone = gone.where(databases.c.customer == customer)
    with site.store.read() as connection:
        owners = connection.execute(sa.select(customers).order_by(customers.c.name)).mappings().all()
        kept = lineage.kept_databases(connection, customer)
        over = connection.execute(gone).mappings().all() if dropped else ()
    mine: dict[str, tuple[list[Row], list[Row]]] = {owner["name"]: ([], []) for owner in owners}
    for row in kept:
        mine[row["customer"]][0].append(row)
    for row in over:
        mine[row["customer"]][1].append(row)
    return [one for owner in owners for one in _show_databases(owner, *mine[owner["name"]])]


def _name(row: Mapping[Any, Any] | None) -> str | None:
    return None if row is None else row["name"]


def _show_databases(owner: Row, kept: Sequence[Row], over: Sequence[Row]) -> list[Database]:
    standby, candidate = _name(lineage.standby(owner, kept)), _name(lineage.candidate(kept))
    same = ("name", "customer", "timestamp", "build", "counts")
    return [
        Database(
            **{key: row[key] for key in same},
            job=row["job_id"],
            created_at=iso(row["created_at"]),
            verified_at=iso(row["verified_at"]),
            left_at=iso(row["left_at"]),
            live=row["name"] == owner["live"],
            standby=row["name"] == standby,
            candidate=row["name"] == candidate,
            pinned=row["pinned_at"] is not None,
            bad=None if row["bad_at"] is None else row["bad_why"] or "no reason was given",
            dropping=None if row["drop_at"] is None else row["drop_why"] or "no reason was given",
            dropped_at=iso(row["dropped_at"]),
        )
        for row in (*kept, *over)
    ]


@dataclass(frozen=True)
class _Look:
    """What the target says of all databases and aliases at once; ``unknown`` is why it cannot be asked."""

    online: frozenset[str] = frozenset()
    down: Mapping[str, str] = field(default_factory=dict)  # what is there and cannot be read, and why
    aliases: Mapping[str, str] = field(default_factory=dict)
    unknown: str | None = None


def _look_at_target(site: Site) -> _Look:
    try:
        there = site.target.databases()
        online = frozenset(found.name for found in there if found.status == "online")
        down = {found.name: found.trouble for found in there if found.trouble}
        return _Look(online, down, site.target.aliases())
    except (TargetError, ConfigError) as error:
        return _Look(unknown=f"unknown: {error.what}")


def _find_trouble(site: Site, owner: Row, look: _Look) -> tuple[str | None, str | None]:
    """What keeps readers from what is live, as a code and a sentence, or None twice; asked of the target, not of memory.

    ``unknown`` is the same for all: the target cannot be asked.
    """
    if look.unknown is not None:
        return "unknown", look.unknown
    found = look.aliases.get(owner["alias"])
    if found != owner["live"] and owner["intent"] is None:
        return "astray", f"the alias points at {found or 'nothing'}"
    if found is None:
        return None, None
    if found in look.online:
        outdated = site.target.outdated(found)
        return None if outdated is None else "outdated", outdated
    return "unreadable", f"{found} is {look.down.get(found, 'gone')}"


def _show_customer(site: Site, owner: Row, kept: Sequence[Row], look: _Look, failed: Row | None) -> Customer:
    by_name = {row["name"]: row for row in kept}
    live = by_name.get(owner["live"] or "")
    there = look.online if look.unknown is None else None
    undecided = [row["job_id"] for row in kept if row["state"] == State.LOADED and row["blocked"]]
    about_failed = ("timestamp", "error_code", "error")
    code, trouble = _find_trouble(site, owner, look)
    return Customer(
        customer=owner["name"],
        alias=owner["alias"],
        live=owner["live"],
        standby=_name(lineage.standby(owner, kept, there)),
        candidate=_name(lineage.candidate(kept)),
        undecided=undecided[0] if undecided else None,
        rolled_back=[row["name"] for row in kept if row["bad_at"] is not None],
        paused=owner["paused_at"] is not None,
        removed=owner["removed_at"] is not None,
        pinned=[row["name"] for row in kept if row["pinned_at"] is not None],
        live_since=iso(owner["live_since"]),
        snapshot_timestamp=owner["live_timestamp"],
        snapshot_age_seconds=None if live is None else int(since(owner["live_timestamp"], site.clock())),
        counts=None if live is None else live["counts"],
        failed=None
        if failed is None
        else Failure(
            job=failed["id"],
            hint=advice(after_failure(failed)),
            **{key: failed[key] for key in about_failed},
        ),
        trouble=trouble,
        trouble_code=code,
    )


def is_live(site: Site, name: str, database: str) -> bool:
    """True where the alias leads to this database and nobody is moving it away."""
    settle(site, name)
    with site.store.read() as connection:
        owner = get_customer(connection, name)
    is_meant = owner["live"] == database and owner["intent"] is None
    return is_meant and site.target.alias(owner["alias"]) == database


def way_back(site: Site, name: str) -> str | None:
    """Return the database that a rollback would go to now, or None where there is none."""
    look = _look_at_target(site)
    with site.store.read() as connection:
        owner, kept = get_customer(connection, name), lineage.kept_databases(connection, name)
        there = look.online if look.unknown is None else None
        return _name(find_way_back(connection, owner, kept, there))


def choices(site: Site, name: str) -> list[tuple[str, str]]:
    """Return the databases a customer's alias may be moved to by hand, newest first, each with what it is."""
    with site.store.read() as connection:
        of_name = sa.select(customers).where(customers.c.name == name, customers.c.removed_at.is_(None))
        owner = connection.execute(of_name).mappings().one_or_none()
        kept = lineage.kept_databases(connection, name)
    if owner is None:
        return []
    look = _look_at_target(site)
    there = look.online if look.unknown is None else {row["name"] for row in kept}
    standby = _name(lineage.standby(owner, kept, there))
    whole = [
        row
        for row in kept
        if row["verified_at"] is not None and row["drop_at"] is None and row["name"] in there
    ]
    return [(row["name"], _role(row, standby)) for row in whole if row["name"] != owner["live"]]


@contextmanager
def naming_choices(site: Site, name: str, to: str | None) -> Iterator[None]:
    """Let a refusal that knows no cure of its own name the databases that the alias can be moved to."""
    try:
        yield
    except (Refused, NotFound) as error:
        found = [(database, what) for database, what in choices(site, name) if database != to]
        if not found or error.cure != LOOK:
            raise
        lines = [
            Hint("\n    ", do("switch", customer=name, to=database), f"  ({what})")
            for database, what in found[:CHOICES]
        ]
        cure = Hint("By hand it can be moved to:", *lines)
        raise type(error)(error.what, kept=error.kept, cure=cure) from error


def _role(row: Row, standby: str | None) -> str:
    if row["bad_at"] is not None:
        return f"marked bad: {row['bad_why']}"
    if row["name"] == standby:
        return "the standby"
    return "waits to go live" if row["state"] == State.LOADED else "was live before"


def capacity_warning(site: Site, *, loads: int | None = None) -> Hint | None:
    """Say, with the sum, when the databases that are to be kept can exceed ``max_databases``.

    ``loads`` is how many there may be at once, over all processes; as many as are configured where it is not given.
    """
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
    orchestrator = site.settings.orchestrator
    each, slots = orchestrator.keep_databases, loads or orchestrator.num_workers
    needed = count * each + extra + slots
    if needed <= limit:
        return None
    sums = f"{count} customers x {each} kept + {extra} pinned, bad or waiting + {slots} loading = {needed}"
    return Hint(
        f"max_databases is {limit}, but {sums}; loads that still fit go on. Cure: "
        "raise orchestrator.max_databases, or lower keep_databases (",
        do("config"),
        " shows both)",
    )
