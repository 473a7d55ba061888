"""Floor: what an alias leads to already bounds what may follow, also where the job table never heard of it.

A job table that was lost, or an old copy of it that was put back, leaves aliases behind that have come
further. A name at the target is never enough to own or to drop anything; it is enough to keep readers
from being taken back to what is older.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from bgdeploy.errors import ConfigError, TargetError
from bgdeploy.jobs.rows import Row, customers, databases
from bgdeploy.jobs.states import Actor
from bgdeploy.naming import read_age
from bgdeploy.site import Site
from bgdeploy.snapshots.folders import why_skipped


def ask_aliases(site: Site) -> Mapping[str, str]:
    """What every alias leads to; nothing while the target cannot be asked, since a first move asks again."""
    try:
        return site.target.aliases()
    except (TargetError, ConfigError):
        return {}


def inherited(customer: str, database: str | None, *, now: float) -> int:
    """Return the ``floor_timestamp`` of a customer whose alias leads there; 0 where the name says nothing.

    With build 0 it lies just below that snapshot, which is loaded anew; all that is older never follows.
    """
    found = _read(customer, database, now)
    return 0 if found is None else found[0]


def mind_aliases(site: Site) -> None:
    """Raise the floor of every customer whose alias leads to what is newer than the job table knows."""
    there = ask_aliases(site)
    with site.store.read() as connection:
        rows = (
            connection.execute(sa.select(customers).where(customers.c.removed_at.is_(None))).mappings().all()
        )
    for row in rows:
        found = there.get(row["alias"])
        if found != row["live"] and leads_ahead(site, row, found):
            raise_floor(site, row, found)


def leads_ahead(site: Site, customer: Row, found: str | None) -> bool:
    """True where an alias leads to a database that is there, is newer by its name than what the job table
    calls live, and is none that the job table knows to be whole."""
    age = _read(customer["name"], found, site.clock())
    live = (customer["live_timestamp"] or 0, customer["live_build"] or 0)
    if age is None or age <= live or is_whole(site, customer["name"], found):
        return False
    return any(one.name == found and one.status in ("online", "unknown") for one in site.target.databases())


def is_whole(site: Site, customer: str, name: str | None) -> bool:
    """True for a database of this customer that the job table knows to be verified and not dropped."""
    query = sa.select(databases.c.name).where(
        databases.c.name == name,
        databases.c.customer == customer,
        databases.c.verified_at.is_not(None),
        databases.c.dropped_at.is_(None),
    )
    with site.store.read() as connection:
        return connection.execute(query).first() is not None


def raise_floor(site: Site, customer: Row, found: str | None) -> None:
    """Let nothing below what an alias leads to follow, whatever the job table remembers.

    That snapshot itself may follow, as the same build or a later one: it is loaded anew, since nobody here
    owns what the alias leads to.
    """
    age = _read(customer["name"], found, site.clock())
    if age is None:
        return
    timestamp, build = age
    known = (customer["floor_timestamp"], customer["floor_build"])
    # Builds are counted by a job table: one that never saw this snapshot live counts them from 1 again.
    floor = (timestamp, build - 1 if timestamp == known[0] and known[1] else 0)
    if floor <= known:
        return
    with site.transaction(Actor.WORKER) as tx:
        same = (customers.c.name == customer["name"], customers.c.generation == customer["generation"])
        raised = customers.update().where(*same)
        tx.connection.execute(raised.values(floor_timestamp=floor[0], floor_build=floor[1]))
        if customer["live"] is not None:
            fields = {"alias": customer["alias"], "database": found, "live": customer["live"]}
            tx.say("switch.ahead", customer=customer["name"], **fields)


def _read(customer: str, database: str | None, now: float) -> tuple[int, int] | None:
    """Timestamp and build in a database's name, unless nobody could have given it."""
    age = read_age(customer, database or "")
    return None if age is None or why_skipped(age[0], now=now) else age
