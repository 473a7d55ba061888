"""Pins: a pinned database is never dropped, however old it gets."""

from __future__ import annotations

import sqlalchemy as sa

from bgdeploy.errors import Refused
from bgdeploy.jobs.rows import Row, Tx, databases, get_customer, get_database, get_job
from bgdeploy.jobs.states import Actor
from bgdeploy.site import Site


def pin(site: Site, customer: str, database: str | None, *, by: str) -> str:
    """Pin a verified database, the live one where none is named, and return its name; twice is fine.

    The update itself asks that nobody means to drop it, as the cleaner's asks for the pin: one of the
    two wins. Raises NotFound, or Refused for another customer's, one not verified, one being dropped.
    """

    def act(tx: Tx) -> str:
        found = _find(tx, customer, database, "pin")
        whole = databases.c.verified_at.is_not(None), databases.c.drop_at.is_(None)
        pinned = databases.update().where(databases.c.name == found["name"], *whole)
        first = sa.func.coalesce(databases.c.pinned_at, tx.now)
        if tx.connection.execute(pinned.values(pinned_at=first)).rowcount != 1:
            raise _not_to_be_kept(found)
        if found["pinned_at"] is None:
            job = get_job(tx.connection, found["job_id"])
            tx.say("database.pinned", job, database=found["name"], by=by)
        return str(found["name"])

    with site.transaction(Actor.OPERATOR) as tx:
        return act(tx)


def unpin(site: Site, customer: str, database: str | None, *, by: str) -> str:
    """Take a pin back and return the database's name; Refused where there is none, naming those there are."""

    def act(tx: Tx) -> str:
        found = _find(tx, customer, database, "unpin")
        if found["pinned_at"] is None:
            raise _not_pinned(tx, found)
        freed = databases.update().where(databases.c.name == found["name"])
        tx.connection.execute(freed.values(pinned_at=None))
        tx.say("database.unpinned", get_job(tx.connection, found["job_id"]), database=found["name"], by=by)
        return str(found["name"])

    with site.transaction(Actor.OPERATOR) as tx:
        return act(tx)


def _find(tx: Tx, customer: str, database: str | None, verb: str) -> Row:
    owner = get_customer(tx.connection, customer)
    if owner["removed_at"] is not None:
        raise Refused(
            f"Customer {customer} was removed, and its databases go.",
            kept="Nothing was changed.",
            cure=f"To take it back: bgdeploy resume {customer}",
        )
    name = database or owner["live"]
    if name is None:
        raise Refused(
            f"{customer} has nothing live to {verb}.",
            kept="Nothing was changed.",
            cure=f"Name one: bgdeploy {verb} {customer} --database <name>, as bgdeploy customers shows it",
        )
    found = get_database(tx.connection, name)
    if found["customer"] != customer:
        raise Refused(
            f"{name} belongs to customer {found['customer']}.",
            kept="Nothing was changed.",
            cure=f"bgdeploy {verb} {found['customer']} --database {name}",
        )
    return found


def _not_to_be_kept(found: Row) -> Refused:
    name, job = found["name"], found["job_id"]
    if found["drop_at"] is None:
        what, cure = "is not verified yet", f"When it is loaded, pin it then: bgdeploy jobs show {job}"
    elif found["dropped_at"] is None:
        what, cure = (
            f"is being dropped ({found['drop_why']})",
            f"To have it again: bgdeploy retry {job} --reload",
        )
    else:
        what, cure = f"was dropped ({found['drop_why']})", f"To have it again: bgdeploy retry {job} --reload"
    return Refused(f"{name} {what}.", kept="It was not pinned.", cure=cure)


def _not_pinned(tx: Tx, found: Row) -> Refused:
    mine = sa.select(databases.c.name).where(
        databases.c.customer == found["customer"],
        databases.c.pinned_at.is_not(None),
        databases.c.dropped_at.is_(None),
    )
    pinned = tx.connection.execute(mine.order_by(databases.c.name)).scalars().all()
    none = f"No database of {found['customer']} is pinned. See: bgdeploy customers"
    cure = "".join(f" bgdeploy unpin {found['customer']} --database {name}" for name in pinned)
    return Refused(
        f"{found['name']} is not pinned.",
        kept="Nothing was changed.",
        cure=f"Pinned:{cure}" if pinned else none,
    )
