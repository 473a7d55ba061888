"""Scan: make one job per snapshot folder, notice what changed on disk since, and look cheaply in between.

What the job table knows is read at once and no more than a scan needs. A scan for cron looks twice where
half a second decides.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from bgdeploy.errors import BadInput, NotReadable
from bgdeploy.jobs.ledger import PROGRESS
from bgdeploy.jobs.reasons import Code, because
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.store import joined
from bgdeploy.jobs.transitions import Row, Tx, customers, databases, insert_jobs, jobs, move, title, write
from bgdeploy.naming import alias_name, fold, known_alias, may_be_folded
from bgdeploy.pipeline.admit import (
    BATCH,
    Judged,
    Notes,
    Pending,
    Report,
    admit,
    is_as_it_was,
    judge,
    look_at,
    look_into,
    reason_of,
    standing_alone,
)
from bgdeploy.pipeline.alias import ask_aliases, inherited, mind_aliases
from bgdeploy.site import Site
from bgdeploy.snapshots import folders
from bgdeploy.snapshots.readiness import Fingerprint, Readiness
from bgdeploy.targets import describe_target

_CUSTOMERS = sa.select(
    customers.c.name,
    customers.c.live,
    customers.c.floor_timestamp,
    customers.c.floor_build,
    customers.c.removed_at,
)
# One text for each customer: a hundred thousand rows would take several times as long to hand over.
_TIMESTAMPS = sa.select(jobs.c.customer, joined(jobs.c.timestamp).label("names")).group_by(jobs.c.customer)
_COLUMNS = (
    "id", "customer", "timestamp", "build", "state", "fence", "attempt", "requested", "reason_code", "reason_fields",
    "fingerprint", "fingerprint_at", "changed", "error_code",
)  # fmt: skip
_OPEN = sa.select(*(jobs.c[name] for name in _COLUMNS)).where(sa.text("jobs.state <> 'cleaned'"))
_FEW = 100  # customers that are asked for by name


@dataclass(frozen=True)
class Known:
    """Customers, the names of all folders that have a job, and the jobs that are not over."""

    customers: dict[str, Row]
    timestamps: dict[str, set[str]]
    open: dict[str, list[Row]]


def read_known(site: Site, names: Collection[str] | None = None) -> Known:
    """Read what is known of all customers, or of some."""
    if names is not None and len(names) > _FEW:
        names = None
    with site.store.read() as connection:
        people, texts, rows = (
            connection.execute(_of(statement, column, names)).mappings().all()
            for statement, column in (
                (_CUSTOMERS, customers.c.name),
                (_TIMESTAMPS, jobs.c.customer),
                (_OPEN, jobs.c.customer),
            )
        )
    known = Known({row["name"]: row for row in people}, {}, {})
    for row in texts:
        known.timestamps[row["customer"]] = set(row["names"].split(","))
    for row in rows:
        known.open.setdefault(row["customer"], []).append(row)
    return known


def _of(
    statement: sa.Select[tuple[object, ...]], column: sa.ColumnElement[str], names: Collection[str] | None
) -> sa.Select[tuple[object, ...]]:
    return statement if names is None else statement.where(column.in_(names))


_MOST = 2_000  # snapshots that the inspector is asked about at a time
_WAITING = (State.DISCOVERED, State.QUEUED)
_DONE = (State.LOADED, State.SWITCHED, State.FAILED)


class Newcomer(NamedTuple):
    """A snapshot that has no job yet, with one look at it."""

    customer: str
    timestamp: int
    look: Fingerprint
    verdict: Readiness


@dataclass(frozen=True)
class Visit:
    """What lies in one customer's folder: new snapshots, and the known ones that are still there."""

    customer: str
    new: Sequence[Newcomer]
    there: Set[str]


def scan(site: Site, pending: Pending | None = None) -> Report:
    """Look at every customer's folder once; idempotent, from any number of processes.

    Snapshots whose files are still being read at the end are left in ``pending`` to whoever looks next; without
    it they are waited for. A folder that cannot be listed is an error of this scan and changes no job.
    """
    report = Report()
    try:
        found = folders.list_customers(site.settings.dataset.base_path)
    except NotReadable as error:
        _unlisted(report, str(site.settings.dataset.base_path), error)
        return report
    mind_aliases(site)
    known = read_known(site)
    report.skipped.extend((folder.name, folder.skipped) for folder in found if folder.skipped)
    names = [folder.name for folder in found if not folder.skipped]
    report.customers = len(names)
    report.listed = True
    scan_customers(site, names, known, report, pending)
    expected = {name for name, row in known.customers.items() if not _is_removed(row)}
    for missing in sorted(expected - {folder.name for folder in found}):
        _unlisted(
            report,
            missing,
            NotReadable(
                f"its folder is not there: mount or restore it, or: bgdeploy customers remove {shlex.quote(missing)}"
            ),
        )
    return report


def scan_customers(
    site: Site, names: Iterable[str], known: Known, report: Report, pending: Pending | None = None
) -> None:
    """Look at some customers: new folders, those that wait, and those that changed since.

    New jobs are written for many customers at once: a transaction for each would be slow.
    """
    notes, asked = Notes(site, report), Pending() if pending is None else pending
    visits: list[Visit] = []
    for name in names:
        if _is_removed(known.customers.get(name)):
            report.removed.add(name)
            report.skipped.append((name, f"it was removed; to take it back: bgdeploy resume {name}"))
            continue
        visits += _visit(site, name, known, report)
        if sum(len(visit.new) for visit in visits) >= BATCH:
            _settle_in(site, visits, known, notes, asked)
            visits = []
    _settle_in(site, visits, known, notes, asked)
    if pending is None:
        asked.finish(site, notes)
    notes.write()


def _visit(site: Site, name: str, known: Known, report: Report) -> list[Visit]:
    """List a customer's folder and look at what is new; nothing where it cannot be listed."""
    folder = site.settings.dataset.base_path / name
    visits = []
    with standing_alone(name, report):
        found = folders.list_timestamps(folder, now=site.clock(), known=known.timestamps.get(name, set()))
        new = [_look_at_new(site, folder, one) for one in sorted(found.timestamps)]
        report.skipped.extend((f"{name}/{one.name}", one.skipped or "") for one in found.skipped)
        visits.append(Visit(name, [one for one in new if one is not None], found.there))
    return visits


def _look_at_new(site: Site, home: Path, timestamp: int) -> Newcomer | None:
    """Nothing where it went away since it was listed."""
    folder = home / str(timestamp)
    look = look_into(folder)
    return None if look is None else Newcomer(home.name, timestamp, look, judge(site, look))


def _settle_in(site: Site, visits: Sequence[Visit], known: Known, notes: Notes, pending: Pending) -> None:
    """Make jobs of what is new, then judge each customer's jobs."""
    judged = _discover(site, [one for visit in visits for one in visit.new], known, notes.report)
    for visit in visits:
        rows, name = known.open.get(visit.customer, []), visit.customer
        with standing_alone(name, notes.report):
            if rows or name in judged:
                waiting = [row for row in rows if row["state"] in _WAITING]
                admit(site, known.customers[name], waiting, notes, pending, judged.get(name, []))
            for row in rows:
                if row["state"] in _DONE and str(row["timestamp"]) in visit.there and not row["changed"]:
                    _compare(site, row, notes)
    pending.finish(site, notes, most=_MOST)


def _is_removed(customer: Row | None) -> bool:
    return customer is not None and customer["removed_at"] is not None


def _unlisted(report: Report, folder: str, error: NotReadable) -> None:
    report.errors.append((folder, error.what))


def _discover(
    site: Site, new: Sequence[Newcomer], known: Known, report: Report
) -> Mapping[str, Sequence[Judged]]:
    """Insert a job for every snapshot that has none; return the new rows by customer."""
    found: dict[str, list[Judged]] = {}
    for start in range(0, len(new), BATCH):
        batch = new[start : start + BATCH]
        newcomers = {one.customer for one in batch} - set(known.customers)
        there = ask_aliases(site) if newcomers else {}  # before the lock: a server may take its time
        twins = _find_twins(site, newcomers)
        with site.transaction(Actor.SCAN) as tx:
            owned = _add_customers(site, tx, batch, known, there, twins, report)
            rows = insert_jobs(tx, State.DISCOVERED, "scan.discovered", [_born(tx, one) for one in owned])
        seen = {(one.customer, one.timestamp): one for one in owned}
        for row in rows:
            one = seen[row["customer"], row["timestamp"]]
            found.setdefault(one.customer, []).append(Judged(row, one.look, one.verdict))
        report.discovered.extend(map(title, rows))
    return found


def _born(tx: Tx, new: Newcomer) -> tuple[dict[str, object], dict[str, object]]:
    reason = reason_of(new.verdict) or because(Code.COMPLETE)
    seen = {"fingerprint": new.look.text, "fingerprint_at": tx.now, "reason": reason}
    return {"customer": new.customer, "timestamp": new.timestamp, **seen}, {"reason": reason}


def _find_twins(site: Site, newcomers: Set[str]) -> Mapping[str, str]:
    """New customers whose alias would be another folder's too, where the target knows no upper case; that folder by name."""
    kind = site.target.kind
    if not newcomers or not describe_target(kind).folds_case:
        return {}
    folders_of: dict[str, list[str]] = {}
    for folder in folders.list_customers(site.settings.dataset.base_path):
        folders_of.setdefault(alias_name(folder.name, kind), []).append(folder.name)
    others = (
        (name, [one for one in folders_of.get(alias_name(name, kind), []) if one != name])
        for name in newcomers
    )
    return {name: found[0] for name, found in others if found}


def _add_customers(
    site: Site,
    tx: Tx,
    batch: Sequence[Newcomer],
    known: Known,
    there: Mapping[str, str],
    twins: Mapping[str, str],
    report: Report,
) -> list[Newcomer]:
    """Make the customers that are not known yet; return the newcomers of all that could be made."""
    for name in dict.fromkeys(one.customer for one in batch):
        if name not in known.customers:
            try:
                known.customers[name] = _add_customer(site, tx, name, there, twins.get(name))
            except BadInput as error:
                report.skipped.append((name, str(error)))
    return [one for one in batch if one.customer in known.customers]


def _add_customer(site: Site, tx: Tx, name: str, there: Mapping[str, str], twin: str | None) -> Row:
    of_name = sa.select(customers).where(customers.c.name == name)
    row = tx.connection.execute(of_name).mappings().one_or_none()
    if row is not None:
        return row
    alias = known_alias(name, site.target.kind, there)
    taken = sa.union_all(
        sa.select(customers.c.name).where(customers.c.alias == alias),
        sa.select(databases.c.customer).where(databases.c.name == alias),
    )
    # one writer: another store needs a lock on the alias's name (an advisory one), since two tables and folded
    # names are compared, which no unique key can
    other = tx.connection.execute(taken).scalars().first() or _find_folded(tx, alias)
    if other is None and twin is not None:
        what = (
            f"Its alias {alias!r} would be that of {twin!r} too: Neo4j does not tell upper from lower case."
        )
        raise BadInput(what, kept="Nothing of it was loaded.", cure="Rename one of the two folders.")
    if other is not None:
        what = f"Its alias {alias!r} is in use by customer {other!r}."
        raise BadInput(what, kept="Nothing of it was loaded.", cure="Rename the folder.")
    # Begun with the time, so that an alias moved by a job table that was lost obeys this one too.
    born = {"created_at": tx.now, "generation": int(tx.now)}
    born["floor_timestamp"] = inherited(name, there.get(alias), now=tx.now)
    tx.connection.execute(sa.insert(customers), {"name": name, "alias": alias, **born})
    tx.say("customer.added", customer=name, alias=alias)
    return tx.connection.execute(of_name).mappings().one()


def _find_folded(tx: Tx, alias: str) -> str | None:
    """The customer whose folded name this is: an earlier version made it its alias, and readers may go by it."""
    names = tx.connection.execute(sa.select(customers.c.name)).scalars() if may_be_folded(alias) else ()
    return next((name for name in names if name != alias and fold(name) == alias), None)


def _compare(site: Site, job: Row, notes: Notes) -> None:
    """A folder that changed after it was loaded is an event; one that failed for its content gets a new look."""
    if job["state"] == State.FAILED and job["error_code"] != BadInput.code:
        return
    look = look_at(site, job)
    if look is None or is_as_it_was(job, look):
        return
    if job["state"] == State.FAILED:
        notes.report.again.append(title(job))
        notes.act(partial(_take_up_again, job=job, look=look))
    else:
        notes.act(partial(_tell_change, job=job, look=look))


def _take_up_again(tx: Tx, job: Row, look: Fingerprint) -> None:
    fresh = {"fingerprint": look.text, "fingerprint_at": tx.now, "settings": None}
    counters = {**PROGRESS, "furthest": 0, "rows_confirmed": 0, "not_before": 0.0}
    cleared = dict.fromkeys(("error", "error_code", "ended_at", "step", "loading_at"))
    changes = {**fresh, **counters, **cleared}
    move(tx, job, State.DISCOVERED, "scan.again", fields={}, reason=because(Code.CHANGED), **changes)


def _tell_change(tx: Tx, job: Row, look: Fingerprint) -> None:
    """It stays compared with what was loaded: the row keeps its fingerprint."""
    write(tx, job, changed=True)
    tx.say("scan.changed", job, cure=f"To load it again: bgdeploy retry {job['id']} --reload")


_RECENT = 2_000_000_000  # ns; within one tick of its clock a folder can change again unseen
_MOST_WATCHED = (
    1_000  # snapshots that are not ready, looked at in one round; the next round goes on behind them
)
_DISCOVERED = (
    sa.select(jobs)
    .where(
        jobs.c.state == sa.literal_column("'discovered'"),
        sa.tuple_(jobs.c.customer, jobs.c.timestamp) > sa.tuple_(sa.bindparam("name"), sa.bindparam("after")),
    )
    .order_by(jobs.c.customer, jobs.c.timestamp)
    .limit(_MOST_WATCHED)
)


@dataclass
class Watch:
    """When each folder was last seen to change, and how far the last round came; lives as long as the process.

    Snapshots whose files are still being read stay in ``pending`` until the next look; without it a look waits.
    """

    pending: Pending | None = None
    base: int = 0
    customers: dict[str, int] = field(default_factory=dict)
    behind: tuple[str, int] = ("", 0)


def look(site: Site, watch: Watch) -> Report:
    """Scan the customers whose folder changed, and judge the snapshots that are not ready.

    A folder that cannot be looked at is left to the next scan, which says so.
    """
    report = Report()
    base = site.settings.dataset.base_path
    try:
        if _changed(os.stat(base).st_mtime_ns, watch.base, site.clock()):
            found = {one.name for one in folders.list_customers(base) if not one.skipped}
            watch.customers = {name: watch.customers.get(name, 0) for name in found}
        watch.base = os.stat(base).st_mtime_ns
    except (OSError, NotReadable):
        return report
    changed = [name for name in watch.customers if _customer_changed(site, watch, name)]
    if changed:
        scan_customers(site, changed, read_known(site, changed), report, watch.pending)
    _judge(site, watch, set(changed), report)
    return report


def _customer_changed(site: Site, watch: Watch, name: str) -> bool:
    try:
        modified = os.stat(site.settings.dataset.base_path / name).st_mtime_ns
    except OSError:
        return False
    before, watch.customers[name] = watch.customers[name], modified
    return _changed(modified, before, site.clock())


def _changed(modified: int, before: int, now: float) -> bool:
    return modified != before or modified > now * 1e9 - _RECENT


def _judge(site: Site, watch: Watch, done: set[str], report: Report) -> None:
    """Look again at what is not ready, but for customers that were scanned just now."""
    notes, pending = Notes(site, report), watch.pending or Pending()
    for customer, waiting in _read_discovered(site, watch):
        if customer["name"] in watch.customers and customer["name"] not in done:
            with standing_alone(customer["name"], report):
                admit(site, customer, waiting, notes, pending)
    pending.take_up(site, notes) if watch.pending else pending.finish(site, notes)
    notes.write()


def _read_discovered(site: Site, watch: Watch) -> Iterable[tuple[Row, list[Row]]]:
    """Some snapshots that are not ready, by customer, beginning behind those of the last round."""
    name, after = watch.behind
    with site.store.read() as connection:
        rows = connection.execute(_DISCOVERED, {"name": name, "after": after}).mappings().all()
        of_them = customers.c.name.in_({row["customer"] for row in rows})
        owners = connection.execute(sa.select(customers).where(of_them)).mappings().all()
    last = rows[-1] if len(rows) == _MOST_WATCHED else None
    watch.behind = ("", 0) if last is None else (last["customer"], last["timestamp"])
    waiting: dict[str, list[Row]] = {}
    for row in rows:
        waiting.setdefault(row["customer"], []).append(row)
    return [(owner, waiting[owner["name"]]) for owner in owners]


SECOND_LOOK = 0.55  # seconds; a marker counts when two looks half a second apart agree


def scan_once(site: Site) -> Report:
    """Scan, and look again at once where a marker was seen for the first time."""
    report = scan(site)
    if not report.look_again:
        return report
    time.sleep(SECOND_LOOK)
    second = scan(site)
    second.discovered = report.discovered + second.discovered
    second.queued = report.queued + second.queued
    second.failed = report.failed + second.failed
    return second
