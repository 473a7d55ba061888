"""Customers as they are shown: what is live, what waits, what failed, and where an alias may be moved to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from bgdeploy.clock import iso, since
from bgdeploy.errors import ConfigError, TargetError
from bgdeploy.jobs import lineage
from bgdeploy.jobs.cancel import CODE
from bgdeploy.jobs.rows import Row, customers, get_customer, jobs
from bgdeploy.jobs.states import State
from bgdeploy.pipeline.alias import settle
from bgdeploy.pipeline.moves import find_way_back
from bgdeploy.site import Site

View = dict[str, Any]
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


def list_customers(site: Site) -> list[View]:
    """Return every customer with live, standby and candidate as database names or None."""
    with site.store.read() as connection:
        owners = connection.execute(sa.select(customers).order_by(customers.c.name)).mappings().all()
        kept = lineage.kept_databases(connection)
        failed = {row["customer"]: _show_failure(row) for row in connection.execute(_FAILED).mappings()}
    mine: dict[str, list[Row]] = {}
    for row in kept:
        mine.setdefault(row["customer"], []).append(row)
    look = _look_at_target(site)
    return [
        {
            **_show_customer(owner, mine.get(owner["name"], []), site, look),
            "failed": failed.get(owner["name"]),
            **dict(zip(("trouble_code", "trouble"), _find_trouble(site, owner, look), strict=True)),
        }
        for owner in owners
    ]


def _show_failure(row: Row) -> View:
    return {
        "job": row["id"],
        "timestamp": row["timestamp"],
        "error_code": row["error_code"],
        "error": row["error"],
    }


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


def _show_customer(owner: Row, kept: Sequence[Row], site: Site, look: _Look) -> View:
    by_name = {row["name"]: row for row in kept}
    live = by_name.get(owner["live"] or "")
    there = look.online if look.unknown is None else None
    standby, candidate = lineage.standby(owner, kept, there), lineage.candidate(kept)
    undecided = [row["job_id"] for row in kept if row["state"] == State.LOADED and row["blocked"]]
    bad = [row["name"] for row in kept if row["bad_at"] is not None]
    return {
        "customer": owner["name"],
        "alias": owner["alias"],
        "live": owner["live"],
        "standby": _name(standby),
        "candidate": _name(candidate),
        "undecided": undecided[0] if undecided else None,
        "rolled_back": bad,
        "paused": owner["paused_at"] is not None,
        "removed": owner["removed_at"] is not None,
        "pinned": [row["name"] for row in kept if row["pinned_at"] is not None],
        "live_since": iso(owner["live_since"]),
        "snapshot_timestamp": owner["live_timestamp"],
        "snapshot_age_seconds": None if live is None else int(since(owner["live_timestamp"], site.clock())),
        "counts": None if live is None else live["counts"],
    }


def _name(row: Mapping[Any, Any] | None) -> str | None:
    return None if row is None else row["name"]


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


def _role(row: Row, standby: str | None) -> str:
    if row["bad_at"] is not None:
        return f"marked bad: {row['bad_why']}"
    if row["name"] == standby:
        return "the standby"
    return "waits to go live" if row["state"] == State.LOADED else "was live before"


def capacity_warning(site: Site, *, loads: int | None = None) -> str | None:
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
    cure = "raise orchestrator.max_databases, or lower keep_databases (bgdeploy config shows both)"
    return f"max_databases is {limit}, but {sums}; loads that still fit go on. Cure: {cure}"
