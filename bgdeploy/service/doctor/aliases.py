"""Aliases and databases at the target against what the job table says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import sqlalchemy as sa

from bgdeploy.clock import iso
from bgdeploy.finding import TRIAL, Check, Finding, error, many, ok, shorten, warning
from bgdeploy.jobs import lineage
from bgdeploy.jobs.lease import known_dead
from bgdeploy.jobs.transitions import Row, customers
from bgdeploy.pipeline.alias import INTENT_TRUST, LIVE, cure_of, leads_ahead, led_ahead
from bgdeploy.pipeline.clean import orphans
from bgdeploy.service.doctor.job_table import REBIND
from bgdeploy.site import Site, read_identity

SUBJECT = "aliases"
_LATE = 600.0  # seconds after its grace that a database which is to be dropped may still be there
_SCAN = "A running bgdeploy serve puts it back at its next scan;"


def checks(site: Site) -> list[Check]:
    """What is compared; each needs the job table and the target."""
    both = ("job table", "target")
    return [
        Check(SUBJECT, "place", partial(find_place, site), needs=both, limit=30.0),
        Check(SUBJECT, "aliases", partial(find_astray, site), needs=both, limit=60.0),
        Check(SUBJECT, "what is live", partial(find_unfit, site), needs=both, limit=30.0),
        Check(SUBJECT, "databases", partial(find_missing, site), needs=both, limit=30.0),
        Check(SUBJECT, "orphans", partial(find_orphans, site), needs=both, limit=30.0),
        Check(SUBJECT, "late drops", partial(find_late_drops, site), needs=both, limit=30.0),
    ]


def find_place(site: Site) -> Iterator[Finding]:
    """The databases of the job table lie in this very folder, or at this very server."""
    row, here = read_identity(site), site.target.identity()
    if row is None or not row["place"]:
        yield ok(f"the job table does not know its place yet, {here} will be it")
    elif row["place"] != here:
        yield error(f"the databases of the job table are at {row['place']}, and this is {here}", REBIND)
    else:
        yield ok(f"the databases of the job table are at {here}")


def find_astray(site: Site) -> Iterator[Finding]:
    """Every alias points at what the job table calls live, and that is there."""
    with site.store.read() as connection:
        staying = sa.select(customers).where(customers.c.removed_at.is_(None))
        owners = connection.execute(staying.order_by(customers.c.name)).mappings().all()
        whole = {row["name"]: row for row in lineage.kept_databases(connection) if row["verified_at"]}
    there = _statuses(site)
    judged = [_judge(site, owner, site.target.alias(owner["alias"]), whole, there) for owner in owners]
    found = [one for one in judged if one is not None]
    yield from shorten(found, "bgdeploy customers", most=20)
    if not found:
        live = sum(owner["live"] is not None for owner in owners)
        yield ok(f"{live} of {many(len(owners), 'customer')} live, and each alias points at what it should")


def _statuses(site: Site) -> dict[str, str]:
    # Last come those on their way out, which must not hide a database of the same name.
    return {info.name: info.trouble or info.status for info in reversed(site.target.databases())}


def _judge(
    site: Site, owner: Row, found: str | None, whole: Mapping[str, Row], there: Mapping[str, str]
) -> Finding | None:
    if owner["intent"] is not None:
        return _judge_intent(owner, site.clock())
    if found == owner["live"]:
        return None if found is None else _judge_live(site, owner, there)
    if owner["live"] is None:
        what = f"the alias {owner['alias']} points at {found}, though the job table knows of nothing live"
        return warning(what, f"It stays until something of {owner['name']} goes live: bgdeploy customers")
    back = f"bgdeploy switch {owner['name']} --to {owner['live']}"
    if found is None:
        what = f"the alias {owner['alias']} is missing; it should point at {owner['live']}"
        return error(what, f"{_SCAN} at once: {back}")
    what = f"the alias {owner['alias']} points at {found}, not at {owner['live']}"
    if found in whole and whole[found]["customer"] == owner["name"]:
        return warning(
            f"{what}: moved by someone else's hand", f"It is taken as it is at the next scan. To undo: {back}"
        )
    if leads_ahead(site, owner, found):
        told = led_ahead(owner, found)
        return error(told.what.removesuffix("."), told.cure)
    return error(f"{what}, and that is no database of {owner['name']}", f"{_SCAN} at once: {back}")


def _judge_intent(owner: Row, now: float) -> Finding | None:
    age = now - owner["intent_at"]
    if not known_dead(owner["intent_by"]) and age < INTENT_TRUST:
        return None  # it is being moved at this moment
    what = f"a move of the alias {owner['alias']} to {owner['intent']} was cut off {age:,.0f} s ago"
    return warning(what, "The next worker finishes it: bgdeploy serve")


def _judge_live(site: Site, owner: Row, there: Mapping[str, str]) -> Finding | None:
    status = there.get(owner["live"])
    if status == "online":
        return None
    what = f"{owner['live']}, which the alias {owner['alias']} points at, is {status or 'gone'}"
    if status is not None:  # a server may start it again, and a way back may be down with it
        what += "; the next scan starts it again where that helps"
    return error(what, cure_of(site, owner["name"], _online(there)))


def _online(there: Mapping[str, str]) -> list[str]:
    return [name for name, status in there.items() if status == "online"]


def find_unfit(site: Site) -> Iterator[Finding]:
    """What is live can be read. It looks into files, which may hang where their names are still listed."""
    with site.store.read() as connection:
        live = connection.execute(LIVE).mappings().all()
    there = _statuses(site)
    found = [
        error(
            f"{unfit}; the alias {owner['alias']} points at it",
            cure_of(site, owner["name"], _online(there)),
        )
        for owner in live
        if there.get(owner["live"]) == "online" and (unfit := site.target.outdated(owner["live"]))
    ]
    yield from shorten(found, "bgdeploy customers", most=20) or [
        ok(f"{many(len(live), 'live database')}, and nothing is seen that keeps readers out")
    ]


def find_missing(site: Site) -> Iterator[Finding]:
    """Verified databases that should be kept and are gone; what is live is told with its alias."""
    with site.store.read() as connection:
        live = set(connection.execute(sa.select(customers.c.live)).scalars().all())
        kept = [
            row for row in lineage.kept_databases(connection) if row["verified_at"] and not row["drop_at"]
        ]
    there = _statuses(site)
    found = [
        warning(
            f"{row['name']} of {row['customer']}, kept for the way back, is {there.get(row['name'], 'gone')}",
            f"Load its snapshot again: bgdeploy retry {row['job_id']} --reload",
        )
        for row in kept
        if row["name"] not in live and there.get(row["name"]) != "online"
    ]
    yield from shorten(found, "bgdeploy customers") or [
        ok(f"{many(len(kept), 'database')} kept, and all are there")
    ]


def find_orphans(site: Site) -> Iterator[Finding]:
    """Databases and builds that no job owns; bgdeploy never touches them."""
    found = [_judge_orphan(name) for name in orphans(site)]
    yield from shorten(found, "They are listed in the log of bgdeploy serve.") or [
        ok("every database has its job")
    ]


def _judge_orphan(name: str) -> Finding:
    if name.startswith(TRIAL):
        return warning(f"{name} was made by a bgdeploy doctor that was killed", f"DROP DATABASE `{name}`")
    cure = "It is left alone; remove it by hand when you know what it is."
    return warning(f"{name} belongs to no job", cure)


def find_late_drops(site: Site) -> Iterator[Finding]:
    """Databases that should have been dropped long ago."""
    with site.store.read() as connection:
        kept = lineage.kept_databases(connection)
    late = site.clock() - _LATE - site.settings.orchestrator.drop_grace_seconds
    found = [
        warning(
            f"{row['name']} is to be dropped since {iso(row['drop_at'])} ({row['drop_why']}) and still there",
            f"bgdeploy jobs log {row['job_id']} tells what it waits for; a running bgdeploy serve drops it.",
        )
        for row in kept
        if row["drop_at"] is not None and row["drop_at"] < late
    ]
    yield from shorten(found, "bgdeploy jobs log") or [ok("no drop is late")]
