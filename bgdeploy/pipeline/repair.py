"""Repair: moves that were cut off are finished or made void, aliases that lead astray are put back."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from bgdeploy import log
from bgdeploy.errors import BgdeployError, Refused, TargetAway
from bgdeploy.jobs import lineage
from bgdeploy.jobs.lease import known_dead
from bgdeploy.jobs.rows import Row, customers, databases, get_customer, get_database
from bgdeploy.jobs.states import Actor
from bgdeploy.pipeline.alias import carry_out, forget_intent, intend, move_alias, settle
from bgdeploy.pipeline.clean import find_there
from bgdeploy.pipeline.floor import leads_ahead
from bgdeploy.pipeline.moves import Move, find_way_back
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
    there, pointing = find_there(site), site.target.aliases()
    down = {one.name: one.trouble for one in site.target.databases() if one.trouble}
    with site.store.read() as connection:
        owners = connection.execute(LIVE).mappings().all()
    found = []
    for owner in owners:
        live = owner["live"]
        if pointing.get(owner["alias"], live) != live:
            continue  # readers have something else, which is told apart
        if live in down:
            look = "Its server says more: bgdeploy doctor"
            found.append((owner["alias"], f"{live} is {down[live]}. {look}"))
            continue
        what = site.target.outdated(live) if live in there else f"{live} is gone"
        if what is not None:
            found.append((owner["alias"], f"{what}. {cure_of(site, owner['name'], there)}"))
    return found


def cure_of(site: Site, name: str, there: Collection[str]) -> str:
    """What helps where a customer's live database cannot be read: where it could go back to, and a reload."""
    with site.store.read() as connection:
        customer, kept = get_customer(connection, name), lineage.kept_databases(connection, name)
        back = find_way_back(connection, customer, kept, there)
        job = get_database(connection, customer["live"])["job_id"]
    again = f"oad it again: bgdeploy retry {job} --reload"
    if back is None:
        return f"There is nothing to go back to. L{again}"
    return f"Go back to {back['name']}: bgdeploy rollback {name} --reason '...', or l{again}"


def _put_back(site: Site, name: str) -> None:
    with site.store.read() as connection:
        customer = get_customer(connection, name)
    found = site.target.alias(customer["alias"])
    if customer["intent"] is not None or customer["live"] is None or found == customer["live"]:
        return
    if leads_ahead(site, customer, found):
        raise led_ahead(customer, found)
    back = Move(name, customer["live"], "repair", f"it pointed at {found or 'nothing'}", "bgdeploy")
    carry_out(site, customer["alias"], back, intend(site, back, seen=customer["generation"]))


def led_ahead(customer: Row, found: str | None) -> Refused:
    """The error where readers have more than the job table knows, as after an old copy of it was put back."""
    name, live = customer["name"], customer["live"]
    return Refused(
        f"The alias {customer['alias']} points at {found}, which no job here owns and which is newer than {live}, "
        "live by the job table.",
        kept="It stays there; nothing older goes live by itself, and its snapshot is loaded again if it is there.",
        cure=f"Was an old copy of the job table put back? To go back all the same: bgdeploy switch {name} --to {live}",
    )


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
        found = site.target.alias(fresh["alias"])
        if _came_further(site, fresh) or (found != fresh["intent"] and leads_ahead(site, fresh, found)):
            raise Refused(f"{fresh['alias']} was moved since, by a newer job table than this one.")
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
    if found is not None and not _came_further(site, customer):
        site.target.switch(customer["alias"], found, customer["generation"] + 1)


def _came_further(site: Site, customer: Row) -> bool:
    """The alias was moved since by a generation that this job table never gave: it is an old copy."""
    return (site.target.generation(customer["alias"]) or 0) > int(customer["generation"])


def read_owned(site: Site) -> dict[str, int]:
    """Databases that the job table knows of and that were not dropped, with their jobs."""
    with site.store.read() as connection:
        mine = sa.select(databases.c.name, databases.c.job_id).where(databases.c.dropped_at.is_(None))
        return {row.name: row.job_id for row in connection.execute(mine)}
