"""Scan: make one job per snapshot folder, and notice what changed on disk since."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from bgdeploy.errors import BadInput, BgdeployError, NotReadable
from bgdeploy.jobs.rows import Row, Tx, customers, databases, insert_job, jobs, move, write
from bgdeploy.jobs.states import Actor, State
from bgdeploy.naming import alias_name
from bgdeploy.pipeline.admit import BATCH, Report, admit, for_each, look_at
from bgdeploy.site import Site
from bgdeploy.snapshots import folders

_WAITING = (State.DISCOVERED, State.QUEUED)
_DONE = (State.LOADED, State.SWITCHED, State.FAILED)


@dataclass(frozen=True)
class Known:
    """What the job table knows at the start of a scan, read at once: a query per customer is slow."""

    customers: dict[str, Row]
    timestamps: dict[str, set[int]]
    open: dict[str, list[Row]]  # jobs in any state but cleaned


def read_known(site: Site) -> Known:
    """Read all customers, all timestamps, and every job that is not over."""
    with site.store.read() as connection:
        people = connection.execute(sa.select(customers)).mappings().all()
        pairs = connection.execute(sa.select(jobs.c.customer, jobs.c.timestamp)).all()
        rows = [
            row
            for state in State
            if state is not State.CLEANED
            for row in connection.execute(sa.select(jobs).where(jobs.c.state == state)).mappings().all()
        ]
    known = Known({row["name"]: row for row in people}, {}, {})
    for name, timestamp in pairs:
        known.timestamps.setdefault(name, set()).add(timestamp)
    for row in rows:
        known.open.setdefault(row["customer"], []).append(row)
    return known


def scan(site: Site) -> Report:
    """Look at every customer's folder once; idempotent, from any number of processes.

    A folder that cannot be listed is an error of this scan and changes no job.
    """
    report = Report()
    try:
        found = folders.list_customers(site.settings.dataset.base_path)
    except NotReadable as error:
        _unlisted(report, str(site.settings.dataset.base_path), error)
        return report
    known = read_known(site)
    for folder in found:
        if folder.skipped:
            report.skipped.append((folder.name, folder.skipped))
        else:
            report.customers += 1
            scan_customer(site, folder.name, known, report)
    expected = {name for name, row in known.customers.items() if not _is_removed(row)}
    for missing in sorted(expected - {folder.name for folder in found}):
        _unlisted(report, missing, NotReadable("its folder is not there"))
    return report


def scan_customer(site: Site, name: str, known: Known, report: Report) -> None:
    """Look at one customer: new folders, those that wait, and those that changed since."""
    if _is_removed(known.customers.get(name)):
        report.skipped.append((name, f"it was removed; to take it back: bgdeploy resume {name}"))
        return
    with standing_alone(name, report):
        found = folders.list_timestamps(site.settings.dataset.base_path / name, now=site.clock())
        report.skipped.extend((f"{name}/{one.name}", one.skipped or "") for one in found.skipped)
        present = found.timestamps
        new = _discover(site, name, sorted(present - known.timestamps.get(name, set())), known, report)
        rows = [*known.open.get(name, []), *new]
        if rows:
            admit(site, known.customers[name], [row for row in rows if row["state"] in _WAITING], report)
        done = [
            row
            for row in rows
            if row["state"] in _DONE and row["timestamp"] in present and not row["changed"]
        ]
        for_each(done, lambda job: _compare(site, job))


@contextmanager
def standing_alone(name: str, report: Report) -> Iterator[None]:
    """Whatever is wrong with one customer is told of it alone, and the others are looked at all the same."""
    try:
        yield
    except NotReadable as error:
        _unlisted(report, name, error)
    except BadInput as error:
        report.skipped.append((name, str(error)))
    except OSError as error:  # a disk that fails under one customer stops nobody else
        _unlisted(report, name, NotReadable(f"{error.filename or name}: {error.strerror or error}"))
    except BgdeployError:
        raise  # the job table or the target: it concerns all of them
    except Exception as error:  # the edge of a customer: what nobody foresaw in its files stops nobody else
        _unlisted(report, name, NotReadable(f"it cannot be judged ({type(error).__name__}: {error})"))


def _is_removed(customer: Row | None) -> bool:
    return customer is not None and customer["removed_at"] is not None


def _unlisted(report: Report, folder: str, error: NotReadable) -> None:
    report.errors.append((folder, error.what))


def _discover(site: Site, name: str, new: Sequence[int], known: Known, report: Report) -> list[Row]:
    """Insert a job for every snapshot that has none, and return the new rows."""
    if not new:
        return []
    inserted: list[Row] = []
    for start in range(0, len(new), BATCH):
        with site.transaction(Actor.SCAN) as tx:
            if name not in known.customers:
                known.customers[name] = _add_customer(tx, name)
            for timestamp in new[start : start + BATCH]:
                values = {
                    "customer": name,
                    "timestamp": timestamp,
                    "fingerprint_at": tx.now,
                    "reason": "just found",
                }
                row = insert_job(tx, State.DISCOVERED, "scan.discovered", fields={}, **values)
                inserted += [row] if row is not None else []
    report.discovered.extend(f"{name}/{row['timestamp']}" for row in inserted)
    return inserted


def _add_customer(tx: Tx, name: str) -> Row:
    of_name = sa.select(customers).where(customers.c.name == name)
    row = tx.connection.execute(of_name).mappings().one_or_none()
    if row is not None:
        return row
    alias = alias_name(name)
    taken = sa.union_all(
        sa.select(customers.c.name).where(customers.c.alias == alias),
        sa.select(databases.c.customer).where(databases.c.name == alias),
    )
    other = tx.connection.execute(taken).scalars().first()
    if other is not None:
        what = f"Its alias {alias!r} is in use by customer {other!r}."
        raise BadInput(what, kept="Nothing of it was loaded.", cure="Rename the folder.")
    # Begun with the time, so that an alias moved by a job table that was lost obeys this one too.
    born = {"created_at": tx.now, "generation": int(tx.now)}
    tx.connection.execute(customers.insert().values(name=name, alias=alias, **born))
    tx.say("customer.added", customer=name, alias=alias)
    return tx.connection.execute(of_name).mappings().one()


def _compare(site: Site, job: Row) -> None:
    """A folder that changed after it was loaded is an event; one that failed for its content gets a new look."""
    if job["state"] == State.FAILED and job["error_code"] != BadInput.code:
        return
    found = look_at(site, job)
    if found is None or found.text == job["fingerprint"]:
        return
    with site.transaction(Actor.SCAN) as tx:
        if job["state"] == State.FAILED:
            fresh = {"fingerprint": found.text, "fingerprint_at": tx.now, "settings": None}
            counters = {"attempt": 0, "interruptions": 0, "rows_confirmed": 0, "not_before": 0.0}
            cleared = {"error": None, "error_code": None, "ended_at": None, "step": None}
            changes = {**fresh, **counters, **cleared}
            move(tx, job, State.DISCOVERED, "scan.again", fields={}, reason="changed, settling", **changes)
        else:
            write(tx, job, changed=True)
            tx.say("scan.changed", job, cure=f"To load it again: bgdeploy retry {job['id']} --reload")
