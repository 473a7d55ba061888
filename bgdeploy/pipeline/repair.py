"""Repair: moves that were cut off are finished or made void, aliases that lead astray are put back."""

from __future__ import annotations

import sqlalchemy as sa

from bgdeploy import log
from bgdeploy.errors import BgdeployError, Refused, TargetAway
from bgdeploy.jobs.lease import known_dead
from bgdeploy.jobs.rows import Row, customers, databases, get_customer
from bgdeploy.jobs.states import Actor
from bgdeploy.pipeline.alias import carry_out, forget_intent, intend, move_alias, settle
from bgdeploy.pipeline.moves import Move
from bgdeploy.site import Site

_INTENDED = sa.select(customers).where(customers.c.intent.is_not(None))
LIVE = (
    sa.select(customers, databases.c.job_id)
    .join(databases, databases.c.name == customers.c.live)
    .where(customers.c.intent.is_(None), customers.c.removed_at.is_(None))
)
INTENT_TRUST = 10.0  # seconds a living mover is left alone with its intent


def watch_aliases(site: Site) -> list[tuple[str, str]]:
    """Put back every alias that points at nothing good; return (alias, trouble) where that failed."""
    site.target.catch_up(lambda: read_owned(site))
    there = site.target.aliases()  # all at once: a server is not asked a thousand times
    with site.store.read() as connection:
        mine = (customers.c.live.is_not(None), customers.c.removed_at.is_(None))
        owners = connection.execute(sa.select(customers).where(*mine)).mappings().all()
    troubles = []
    for customer in owners:
        if customer["intent"] is None and there.get(customer["alias"]) == customer["live"]:
            continue
        try:
            settle(site, customer["name"])
            _put_back(site, customer["name"])
        except TargetAway:
            raise  # it concerns all of them
        except BgdeployError as error:
            troubles.append((customer["alias"], str(error)))
    return troubles


def find_unreadable(site: Site) -> list[tuple[str, str]]:
    """Return (alias, trouble) where an alias points at what is gone or damaged; nothing is written of it.

    A disk that was not mounted must cost no database its owner.
    """
    there = {found.name: found for found in site.target.databases() if found.status != "dropping"}
    with site.store.read() as connection:
        owners = connection.execute(LIVE).mappings().all()
    found = []
    for owner in owners:
        live = owner["live"]
        what = site.target.outdated(live) if live in there else f"{live} is gone"
        if live in there and there[live].trouble:
            look = "Its server says more: bgdeploy doctor"
            found.append((owner["alias"], f"{live} is {there[live].trouble}. {look}"))
        elif what is not None:
            back = f"bgdeploy rollback {owner['name']} --reason '...'"
            cure = f"Go back: {back}, or load it again: bgdeploy retry {owner['job_id']} --reload"
            found.append((owner["alias"], f"{what}. {cure}"))
    return found


def read_owned(site: Site) -> dict[str, int]:
    """Databases that the job table knows of and that were not dropped, with their jobs."""
    with site.store.read() as connection:
        mine = sa.select(databases.c.name, databases.c.job_id).where(databases.c.dropped_at.is_(None))
        return {row.name: row.job_id for row in connection.execute(mine)}


def _put_back(site: Site, name: str) -> None:
    with site.store.read() as connection:
        customer = get_customer(connection, name)
    found = site.target.alias(customer["alias"])
    if customer["intent"] is not None or customer["live"] is None or found == customer["live"]:
        return
    back = Move(name, customer["live"], "repair", f"it pointed at {found or 'nothing'}", "bgdeploy")
    carry_out(site, customer["alias"], back, intend(site, back, seen=customer["generation"]))


def repeat_cut_off_moves(site: Site) -> None:
    """Finish every move whose mover is gone; where a customer is paused by now, or it is refused, make it void."""
    with site.store.read() as connection:
        pending = connection.execute(_INTENDED).mappings().all()
    for customer in pending:
        if known_dead(customer["intent_by"]) or customer["intent_at"] < site.clock() - INTENT_TRUST:
            try:
                _repeat(site, customer)
            except BgdeployError as error:  # one customer's trouble must not hold up the others
                log.emit("service.trouble", what=f"moving {customer['alias']}", error=error)


def _repeat(site: Site, customer: Row) -> None:
    settle(site, customer["name"])
    with site.store.read() as connection:
        fresh = get_customer(connection, customer["name"])
    if fresh["intent"] is None or fresh["generation"] != customer["generation"]:
        return
    if fresh["paused_at"] is not None and fresh["intent_kind"] == "deploy":
        _void(site, fresh)
        return
    why = fresh["intent_why"] or "repeated after a crash"
    wish = Move(fresh["name"], fresh["intent"], fresh["intent_kind"], why, fresh["intent_who"])
    try:
        move_alias(site, wish)
    except Refused as error:  # what breaks a promise by now would do so at every round
        _give_up(site, fresh, error)


def _give_up(site: Site, customer: Row, error: Refused) -> None:
    with site.store.read() as connection:
        now = get_customer(connection, customer["name"])
    if now["generation"] == customer["generation"]:
        _void(site, customer)
    with site.transaction(Actor.WORKER) as tx:
        about = {"alias": customer["alias"], "database": customer["intent"], "reason": str(error)}
        tx.say("switch.failed", customer=customer["name"], **about)


def _void(site: Site, customer: Row) -> None:
    """Take another process's intent back; raising the generation at the target shuts a frozen mover out."""
    forget_intent(site, customer)
    found = site.target.alias(customer["alias"])
    if found is not None:
        site.target.switch(customer["alias"], found, customer["generation"] + 1)
