"""What is configured and served: the configuration, the snapshots in the base folder, and where the aliases lead.

No file of a snapshot is opened, and no database.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bgdeploy.actions import Hint, do
from bgdeploy.clock import iso
from bgdeploy.config import Settings, find_file, is_unused, load_settings
from bgdeploy.errors import ConfigError, NotReadable
from bgdeploy.finding import TRIAL, Finding, error, many, ok, shorten, warning
from bgdeploy.jobs import lineage
from bgdeploy.jobs.lease import known_dead
from bgdeploy.jobs.states import State
from bgdeploy.jobs.transitions import Row, customers, jobs, select_jobs, title
from bgdeploy.pipeline.alias import INTENT_TRUST, LIVE, cure_of, leads_ahead, led_ahead
from bgdeploy.pipeline.clean import orphans
from bgdeploy.service.doctor import Visit, check
from bgdeploy.service.doctor.table import REBIND
from bgdeploy.site import Site, read_identity
from bgdeploy.snapshots.folders import list_customers, list_timestamps

_SKEW = 2.0  # seconds a file's time may lie ahead of the clock
_LATE = 600.0  # seconds after its grace that a database which is to be dropped may still be there
_BASE, _BOTH = ("base folder",), ("job table", "target")
_KNOWN = ("base folder", "job table")


# Configuration


def read(given: Path | None, overrides: Mapping[str, Any], kept: list[Settings]) -> Iterator[Finding]:
    """Judge the configuration, and put it into ``kept`` where it can be used."""
    try:
        settings = load_settings(given, overrides)
    except ConfigError as faulty:
        yield from (error(fault, faulty.cure) for fault in faulty.what.splitlines())
        return
    kept.append(settings)
    stronger = [
        f"{key} by {origin}"
        for key, _, origin in settings.shown()
        if origin.startswith(("environment", "option"))
    ]
    more = f"; set otherwise: {', '.join(stronger)}" if stronger else ""
    file = find_file(given, os.environ)
    if file is None:
        cure = Hint("Name yours: bgdeploy --config FILE doctor. To write one: ", do("init"))
        yield warning(f"there is no file config.yaml in {Path.cwd()}: defaults are in force{more}", cure)
    else:
        yield ok(f"read from {file.absolute()}{more}")


@check("configuration", "settings")
def find_useless(visit: Visit) -> Iterator[Finding]:
    """Whatever was set is read by something, and leaves a way back."""
    settings = visit.site.settings
    for key, origin in settings.useless():
        cure = "Remove it." if is_unused(key) else f"Remove it, or change target, which is {settings.target}."
        yield warning(f"{key} is set ({origin}), and nothing reads it", cure)
    if settings.orchestrator.keep_databases == 1:
        cure = "Set orchestrator.keep_databases to 2 or more."
        yield warning("keep_databases is 1, so there is never a standby to go back to", cure)
    if not settings.useless():
        yield ok("whatever was set to another value than its default is read by something")


@check("configuration", "password", embedded=False)
def find_password(visit: Visit) -> Iterator[Finding]:
    """Where the password of a server comes from, and who else may read it there."""
    settings = visit.site.settings
    origin = next(origin for key, _, origin in settings.shown() if key == "neo4j.password")
    named, _, line = origin.rpartition(":")
    if settings.neo4j.password_file is not None:
        yield _judge_file("the password is read from", settings.neo4j.password_file)
    elif settings.neo4j.password is not None and line.isdigit():
        yield _judge_file("the password, or the name of its variable, stands in", Path(named))
    elif settings.neo4j.password is not None:
        yield ok(f"the password comes from {origin}")
    elif os.environ.get("NEO4J_PASSWORD"):
        yield ok("the password comes from the variable NEO4J_PASSWORD")
    else:
        cure = "Set neo4j.password_file, neo4j.password or the variable NEO4J_PASSWORD."
        yield error("no password is given anywhere", cure)


def _judge_file(said: str, file: Path) -> Finding:
    try:
        mode = file.stat().st_mode
    except OSError as failure:
        return error(f"{said} {file}, and that: {failure.strerror}", "Give bgdeploy the right to read it.")
    if mode & stat.S_IROTH:
        return warning(f"{said} {file}, which every user of this machine may read", f"chmod o-r {file}")
    return ok(f"{said} {file}")


# Base folder


@check("base folder", "listing", opens="base folder", limit=60.0)
def find_snapshots(visit: Visit) -> Iterator[Finding]:
    """Every customer's folder can be listed."""
    base = visit.site.settings.dataset.base_path
    try:
        found = list_customers(base)
    except NotReadable as failure:
        yield error(failure.what, failure.cure)
        return
    for one in found:
        if one.skipped:
            visit.skipped.append((one.name, one.skipped))
            continue
        try:
            listing = list_timestamps(one.path, now=visit.site.clock())
        except NotReadable as failure:
            yield error(failure.what, failure.cure)
            continue
        visit.snapshots[one.path.name] = listing.timestamps
        visit.skipped += [(f"{one.path.name}/{other.name}", other.skipped or "") for other in listing.skipped]
    count = sum(map(len, visit.snapshots.values()))
    yield ok(f"{base} holds {many(count, 'snapshot')} of {many(len(visit.snapshots), 'customer')}")


@check("base folder", "skipped", needs=_BASE)
def find_skipped(visit: Visit) -> Iterator[Finding]:
    """Folders that are never loaded, each with its reason."""
    cure = "Rename it as <customer>/<seconds since 1970>, or remove it."
    found = [warning(f"{name} is skipped: {reason}", cure) for name, reason in visit.skipped]
    yield from shorten(found, Hint(do("scan"), " names them all.")) or [ok("no folder is skipped")]


@check("base folder", "future", needs=_BASE)
def find_future(visit: Visit) -> Iterator[Finding]:
    """Timestamps up to tomorrow are taken; while one is live, nothing with the time of today follows."""
    now = visit.site.clock()
    ahead = [(one, name) for name, some in visit.snapshots.items() for one in some if one > now]
    if not ahead:
        yield ok("no timestamp lies in the future")
        return
    timestamp, name = max(ahead)
    what = (
        f"{many(len(ahead), 'snapshot')} have a timestamp in the future, the latest {name}/{timestamp} "
        f"({iso(timestamp)}); what is dropped before then never goes live after it"
    )
    back = do("switch", customer=None, to=None)
    yield warning(what, Hint("Set the clock of the ETL job; ", back, " brings an older one back."))


@check("base folder", "times", needs=_BASE)
def find_skew(visit: Visit) -> Iterator[Finding]:
    """A disk whose clock is ahead keeps snapshots from settling."""
    base = visit.site.settings.dataset.base_path
    ahead = base.stat().st_mtime - visit.site.clock()
    if ahead > _SKEW:
        what = f"{base} was changed {ahead:,.0f} s in the future, by this machine's clock"
        yield warning(what, "Set the clock of this machine and of the file server alike.")
    else:
        yield ok(f"{base} was changed {-ahead:,.0f} s ago, by this machine's clock")


@check("base folder", "not found yet", needs=_KNOWN, limit=60.0)
def find_unscanned(visit: Visit) -> Iterator[Finding]:
    """Snapshots that no scan has found; of a customer that a person removed none is wanted."""
    with visit.site.store.read() as connection:
        pairs = connection.execute(sa.select(jobs.c.customer, jobs.c.timestamp)).all()
        left = sa.select(customers.c.name).where(customers.c.removed_at.is_not(None))
        removed = set(connection.execute(left).scalars().all())
    there = {(name, one) for name, some in visit.snapshots.items() if name not in removed for one in some}
    new = there - {(row.customer, row.timestamp) for row in pairs}
    if new:
        names = ", ".join(sorted({name for name, _ in new}))
        what = f"{many(len(new), 'snapshot')} not in the job table yet (of {names[:200]})"
        cure = Hint("No scan has seen them: ", do("serve"), ", or ", do("scan"), " from cron.")
        yield warning(what, cure)
    else:
        yield ok("every snapshot has its job")


@check("base folder", "gone", needs=_KNOWN)
def find_gone(visit: Visit) -> Iterator[Finding]:
    """Customers whose folder is not there any more; nothing of theirs is changed."""
    with visit.site.store.read() as connection:
        staying = sa.select(customers.c.name).where(customers.c.removed_at.is_(None))
        names = connection.execute(staying).scalars().all()
    gone = sorted({*names} - {*visit.snapshots} - {name for name, _ in visit.skipped})
    if gone:
        what = f"no folder is there of {many(len(gone), 'known customer')}: {', '.join(gone)[:200]}"
        leave = do("remove", customer=None)
        yield warning(what, Hint("Mount or restore them; what is live stays live. For good: ", leave))
    else:
        yield ok(f"every one of {many(len(names), 'known customer')} has a folder")


@check("base folder", "waiting", needs=_KNOWN)
def find_waiting(visit: Visit) -> Iterator[Finding]:
    """Snapshots that are not complete, each with what is missing."""
    with visit.site.store.read() as connection:
        rows = select_jobs(connection, jobs.c.state == State.DISCOVERED, order=(jobs.c.id,))
    cure = "It is looked at again by itself; complete the folder, _SUCCESS last."
    found = [warning(f"{title(row)} waits: {row['reason']}", cure) for row in rows]
    rest = Hint(do("jobs", states=["discovered"]))
    yield from shorten(found, rest) or [ok("no snapshot is incomplete")]


# Aliases and databases at the target, against what the job table says of them


@check("aliases", "place", needs=_BOTH, limit=30.0)
def find_place(visit: Visit) -> Iterator[Finding]:
    """The databases of the job table lie in this very folder, or at this very server."""
    row, here = read_identity(visit.site), visit.site.target.identity()
    if row is None or not row["place"]:
        yield ok(f"the job table does not know its place yet, {here} will be it")
    elif row["place"] != here:
        yield error(f"the databases of the job table are at {row['place']}, and this is {here}", REBIND)
    else:
        yield ok(f"the databases of the job table are at {here}")


@check("aliases", "aliases", needs=_BOTH, limit=60.0)
def find_astray(visit: Visit) -> Iterator[Finding]:
    """Every alias points at what the job table calls live, and that is there."""
    site = visit.site
    with site.store.read() as connection:
        staying = sa.select(customers).where(customers.c.removed_at.is_(None))
        owners = connection.execute(staying.order_by(customers.c.name)).mappings().all()
        whole = {row["name"]: row for row in lineage.kept_databases(connection) if row["verified_at"]}
    there, found = _statuses(site), []
    for owner in owners:
        at, live = site.target.alias(owner["alias"]), owner["live"]
        if owner["intent"] is not None:
            one = _judge_intent(owner, site.clock())
        elif at != live:
            one = _judge_astray(site, owner, at, whole)
        else:
            one = None if live is None else _judge_live(site, owner, there)
        found += [] if one is None else [one]
    yield from shorten(found, Hint(do("customers")), most=20)
    if not found:
        count = sum(owner["live"] is not None for owner in owners)
        yield ok(f"{count} of {many(len(owners), 'customer')} live, and each alias points at what it should")


def _statuses(site: Site) -> dict[str, str]:
    # Last come those on their way out, which must not hide a database of the same name.
    return {info.name: info.trouble or info.status for info in reversed(site.target.databases())}


def _judge_intent(owner: Row, now: float) -> Finding | None:
    age = now - owner["intent_at"]
    if not known_dead(owner["intent_by"]) and age < INTENT_TRUST:
        return None  # it is being moved at this moment
    what = f"a move of the alias {owner['alias']} to {owner['intent']} was cut off {age:,.0f} s ago"
    return warning(what, Hint("The next worker finishes it: ", do("serve")))


def _judge_astray(site: Site, owner: Row, at: str | None, whole: Mapping[str, Row]) -> Finding:
    name, alias, live = owner["name"], owner["alias"], owner["live"]
    if live is None:
        what = f"the alias {alias} points at {at}, though the job table knows of nothing live"
        return warning(what, Hint(f"It stays until something of {name} goes live: ", do("customers")))
    back = do("switch", customer=name, to=live)
    at_once = Hint("A running bgdeploy serve puts it back at its next scan; at once: ", back)
    if at is None:
        return error(f"the alias {alias} is missing; it should point at {live}", at_once)
    what = f"the alias {alias} points at {at}, not at {live}"
    if at in whole and whole[at]["customer"] == name:
        cure = Hint("It is taken as it is at the next scan. To undo: ", back)
        return warning(f"{what}: moved by someone else's hand", cure)
    if leads_ahead(site, owner, at):
        told = led_ahead(owner, at)
        return error(told.what.removesuffix("."), told.cure)
    return error(f"{what}, and that is no database of {name}", at_once)


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


@check("aliases", "what is live", needs=_BOTH, limit=30.0)
def find_unfit(visit: Visit) -> Iterator[Finding]:
    """What is live can be read. It looks into files, which may hang where their names are still listed."""
    site = visit.site
    with site.store.read() as connection:
        live = connection.execute(LIVE).mappings().all()
    there, found = _statuses(site), []
    for owner in live:
        if there.get(owner["live"]) == "online" and (unfit := site.target.outdated(owner["live"])):
            what = f"{unfit}; the alias {owner['alias']} points at it"
            found.append(error(what, cure_of(site, owner["name"], _online(there))))
    yield from shorten(found, Hint(do("customers")), most=20) or [
        ok(f"{many(len(live), 'live database')}, and nothing is seen that keeps readers out")
    ]


@check("aliases", "databases", needs=_BOTH, limit=30.0)
def find_missing(visit: Visit) -> Iterator[Finding]:
    """Verified databases that should be kept and are gone; what is live is told with its alias."""
    with visit.site.store.read() as connection:
        live = set(connection.execute(sa.select(customers.c.live)).scalars().all())
        kept = [
            row for row in lineage.kept_databases(connection) if row["verified_at"] and not row["drop_at"]
        ]
    there = _statuses(visit.site)
    found = [
        warning(
            f"{row['name']} of {row['customer']}, kept for the way back, is {there.get(row['name'], 'gone')}",
            Hint("Load its snapshot again: ", do("reload", job_id=row["job_id"])),
        )
        for row in kept
        if row["name"] not in live and there.get(row["name"]) != "online"
    ]
    yield from shorten(found, Hint(do("customers"))) or [
        ok(f"{many(len(kept), 'database')} kept, and all are there")
    ]


@check("aliases", "orphans", needs=_BOTH, limit=30.0)
def find_orphans(visit: Visit) -> Iterator[Finding]:
    """Databases and builds that no job owns; bgdeploy never touches them."""
    found = [
        warning(f"{name} was made by a bgdeploy doctor that was killed", f"DROP DATABASE `{name}`")
        if name.startswith(TRIAL)
        else warning(
            f"{name} belongs to no job", "It is left alone; remove it by hand when you know what it is."
        )
        for name in orphans(visit.site)
    ]
    yield from shorten(found, "They are listed in the log of bgdeploy serve.") or [
        ok("every database has its job")
    ]


@check("aliases", "late drops", needs=_BOTH, limit=30.0)
def find_late_drops(visit: Visit) -> Iterator[Finding]:
    """Databases that should have been dropped long ago."""
    with visit.site.store.read() as connection:
        kept = lineage.kept_databases(connection)
    late = visit.site.clock() - _LATE - visit.site.settings.orchestrator.drop_grace_seconds
    found = [
        warning(
            f"{row['name']} is to be dropped since {iso(row['drop_at'])} ({row['drop_why']}) and still there",
            Hint(
                do("events", job_id=row["job_id"]),
                " tells what it waits for; a running bgdeploy serve drops it.",
            ),
        )
        for row in kept
        if row["drop_at"] is not None and row["drop_at"] < late
    ]
    yield from shorten(found, Hint(do("events"))) or [ok("no drop is late")]
