"""Leave: a customer a person removed. Its jobs end, its alias goes, then, as claimed work, its databases.

The row that says so is durable first, and shuts every mover out; all that follows may be done again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from bgdeploy.errors import BgdeployError, Refused, TargetError
from bgdeploy.failpoints import reach
from bgdeploy.jobs import lineage
from bgdeploy.jobs.reasons import Code, because
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.transitions import Row, Tx, customers, databases, get_customer, jobs, select_jobs, write
from bgdeploy.pipeline import load
from bgdeploy.pipeline.alias import NO_INTENT, settle, switches
from bgdeploy.site import Site

_OPEN = (State.DISCOVERED, State.QUEUED, State.LOADING, State.LOADED)


@dataclass(frozen=True)
class Leaving:
    """What goes with a customer: the database readers use, all its databases, and jobs that are not over."""

    customer: str
    alias: str
    live: str | None
    databases: tuple[str, ...]
    jobs: int
    removed: bool  # somebody said so already


def look(site: Site, name: str) -> Leaving:
    """Return what removing a customer would take away; changes nothing."""
    with site.store.read() as connection:
        customer = get_customer(connection, name)
        kept = lineage.kept_databases(connection, name)
        open_jobs = select_jobs(connection, jobs.c.customer == name, jobs.c.state.in_(_OPEN))
    names = tuple(row["name"] for row in kept)
    removed = customer["removed_at"] is not None
    return Leaving(name, customer["alias"], customer["live"], names, len(open_jobs), removed)


def remove(site: Site, name: str, *, why: str, by: str) -> Leaving:
    """Write down that a customer leaves, end its jobs, and take its alias away.

    Its databases are dropped by whoever cleans, after their grace. Raises Refused while its alias is moved.
    """
    settle(site, name)
    goes = look(site, name)
    reached = site.target.generation(goes.alias) or 0
    site.persist(Actor.OPERATOR, lambda tx: _say(tx, name, why, by, reached))
    reach("leave.said")
    _retire(site, name)
    return goes


def _say(tx: Tx, name: str, why: str, by: str, reached: int) -> None:
    """``reached`` is the generation that the target remembers: nobody older may move the alias any more."""
    # one writer: another store locks the customer (FOR UPDATE), so that no move is intended between look and generation;
    # a pin that is set at the same moment has to take that lock too
    customer = get_customer(tx.connection, name)
    if customer["intent"] is not None:
        raise Refused(
            f"The alias of {name} is being moved to {customer['intent']} at this moment.",
            kept="Nothing was changed.",
            cure="Try again in a few seconds.",
        )
    if customer["removed_at"] is None:
        left: dict[str, Any] = {"removed_at": tx.now, "removed_by": by, "removed_why": why}
        generation = max(customer["generation"], reached) + 1
        shut = {"paused_at": tx.now, "paused_why": "removed", "generation": generation}
        tx.connection.execute(customers.update().where(customers.c.name == name).values(**left, **shut))
        tx.say("customer.removed", customer=name, by=by, why=why)
    unpinned = databases.update().where(databases.c.customer == name, databases.c.dropped_at.is_(None))
    tx.connection.execute(unpinned.values(pinned_at=None))
    for job in select_jobs(tx.connection, jobs.c.customer == name, jobs.c.state.in_(_OPEN)):
        if job["state"] == State.LOADING:
            write(tx, job, cancel_at=tx.now, reason=because(Code.CUSTOMER_REMOVED, by=by))
        else:
            load.cancel(tx, job)


def finish_leaving(site: Site) -> list[tuple[str, str]]:
    """Take away every alias that a removal left behind; return (customer, trouble) where that failed."""
    with site.store.read() as connection:
        left = sa.select(customers).where(customers.c.removed_at.is_not(None), customers.c.live.is_not(None))
        owners = connection.execute(left).mappings().all()
    troubles = []
    for owner in owners:
        try:
            _retire(site, owner["name"])
        except BgdeployError as error:  # one customer's trouble must not hold up the others
            troubles.append((owner["name"], str(error)))
    return troubles


def _retire(site: Site, name: str) -> None:
    """Remove the alias, see it gone, record it: only then may what it pointed at be dropped."""
    with site.store.read() as connection:
        customer = get_customer(connection, name)
    site.target.remove_alias(customer["alias"], customer["generation"])
    found = site.target.alias(customer["alias"])
    if found is not None:
        what = f"The alias {customer['alias']} still points at {found} after it was removed."
        raise TargetError(what, kept="No database of it was dropped.")
    reach("leave.retired")
    if customer["live"] is not None:
        site.persist(Actor.OPERATOR, lambda tx: _record(tx, customer))


def _record(tx: Tx, customer: Row) -> None:
    same = (customers.c.name == customer["name"], customers.c.live == customer["live"])
    gone = dict.fromkeys(("live", "live_timestamp", "live_build", "live_since"))
    mine = customers.update().where(*same, customers.c.removed_at.is_not(None))
    if tx.connection.execute(mine.values(**gone, **NO_INTENT)).rowcount != 1:
        return  # somebody else recorded it, or the customer came back
    left = databases.update().where(databases.c.name == customer["live"])
    tx.connection.execute(left.values(left_at=tx.now))
    row = {
        "customer": customer["name"],
        "at": tx.now,
        "source": customer["live"],
        "target": None,
        "kind": "remove",
    }
    why, by = customer["removed_why"] or "removed", customer["removed_by"] or "unknown"
    tx.connection.execute(switches.insert().values(why=why, by=by, generation=customer["generation"], **row))
    tx.say("customer.retired", customer=customer["name"], alias=customer["alias"], database=customer["live"])
