"""``run``: scan, then finish all that is or becomes ready, or one snapshot alone, and say how it ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa

from bgdeploy import log
from bgdeploy.actions import Hint, do
from bgdeploy.clock import monotonic
from bgdeploy.errors import BgdeployError, ConfigError, LeaseLost, NotFound, Refused, StoreLost, TargetError
from bgdeploy.jobs import lineage
from bgdeploy.jobs.lease import rescue
from bgdeploy.jobs.reasons import Code
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.transitions import CODE, Row, age, customers, get_customer, jobs, select_jobs, title, write
from bgdeploy.pipeline.admit import Pending, Report
from bgdeploy.pipeline.clean import clean, find_doomed, find_there
from bgdeploy.pipeline.scan import SECOND_LOOK, read_known, scan, scan_customers
from bgdeploy.pipeline.switch import switch_ready
from bgdeploy.service.serve import serve
from bgdeploy.service.views import after_failure, pause_of, use_anyway
from bgdeploy.site import Site
from bgdeploy.snapshots.folders import list_customers, list_names
from bgdeploy.worker.presence import present
from bgdeploy.worker.run import work_once
from bgdeploy.worker.shutdown import Stop

_WRITERS = 60.0  # seconds beyond the settling that a folder's writer is waited for
# Each state stands in the text, so that SQLite uses the index that is made for it.
_OPEN = sa.union_all(
    *(
        sa.select(jobs).where(jobs.c.state == sa.literal_column(f"'{state}'"))
        for state in (State.DISCOVERED, State.QUEUED, State.LOADING, State.LOADED)
    ),
    sa.select(jobs).where(
        jobs.c.lease_owner.is_not(None), jobs.c.state.in_((State.SWITCHED, State.FAILED, State.CLEANED))
    ),
)
_FAILED = sa.select(jobs.c.id, jobs.c.customer, jobs.c.timestamp, jobs.c.error, jobs.c.ended_at).where(
    jobs.c.state == State.FAILED,
    jobs.c.state != sa.literal_column("'cleaned'"),  # as the index of what is not over has it
    sa.func.coalesce(jobs.c.error_code, "") != CODE,
)


def scan_first(site: Site) -> list[tuple[str, str]]:
    """Scan all; return (folder, reason) of what could not be. What is still being read is taken up by those that work."""
    return scan(site, Pending()).errors


def run(site: Site, stop: Stop, *, workers: int, timeout: float) -> bool:
    """Work until nothing is left that could move by itself; False when the time ran out first.

    Loads that run when the time is over are given back at once, and resume at the next start. Call it
    after a scan: what nobody has found yet is not waited for. Raises StoreLost as ``serve`` does.
    """
    service = threading.Thread(target=_serve, args=(site, stop, workers), name="serve")
    service.start()
    finished = False
    try:
        finished = _await_end(site, stop, service, monotonic() + timeout)
    except StoreLost as error:
        stop.fail(error)
    finally:  # whatever was met: the process ends only once the service has
        if not finished and not stop.asked.is_set():
            stop.timeout = 0.0  # the time that running loads get at a stop was theirs already
        stop.ask()
        service.join()
    if stop.failure is not None:
        raise stop.failure
    return finished


def _serve(site: Site, stop: Stop, workers: int) -> None:
    with suppress(StoreLost):  # it is the stop's failure, which is raised where people see it
        serve(site, stop, workers=workers, role="run")


def _await_end(site: Site, stop: Stop, service: threading.Thread, deadline: float) -> bool:
    done = False
    while not done and monotonic() < deadline and service.is_alive():
        stop.asked.wait(0.1)
        done = stop.asked.is_set() or _is_finished(site)
    return _is_finished(site)


def list_failed(site: Site) -> dict[tuple[int, float], Row]:
    """Return the jobs that failed by id and time, without those that a person cancelled."""
    with site.store.read() as connection:
        rows = connection.execute(_FAILED).mappings().all()
    return {(row["id"], row["ended_at"]): row for row in rows}


def _is_finished(site: Site) -> bool:
    """Asked several times a second: only rows are read that could move, or that belong to somebody who could."""
    keep = site.settings.orchestrator.keep_databases
    with site.store.read() as connection:
        open_jobs = connection.execute(_OPEN).mappings().all()
        crowded = set(lineage.crowded(connection, keep=keep))
        busy = crowded | {row["customer"] for row in open_jobs}
        known = customers.c.intent.is_not(None) | customers.c.removed_at.is_not(None)
        some = customers.select().where(known | customers.c.name.in_(busy))
        owners = connection.execute(some).mappings().all()
        kept = {name: lineage.kept_databases(connection, name) for name in crowded}
    there = cache(lambda: find_there(site))  # asked at most once, and only where anything may go
    return not any(
        customer["intent"]
        or (customer["removed_at"] and customer["live"])
        or _moves(site, customer, [row for row in open_jobs if row["customer"] == customer["name"]])
        or _drops(site, customer, kept.get(customer["name"], ()), there)
        for customer in owners
    )


def _moves(site: Site, customer: Row, open_jobs: Sequence[Row]) -> bool:
    """True while any job of a customer can still get further without a person."""
    paused = customer["paused_at"] is not None
    newest = max((age(row) for row in open_jobs if row["state"] == State.LOADED), default=(0, 0))
    for row in open_jobs:
        match State(row["state"]):
            case State.LOADING:
                return True
            case State.DISCOVERED if _may_settle(site, row):
                return True
            case State.QUEUED if not paused and (row["requested"] or age(row) > newest):
                return True
            case State.LOADED if not paused and not row["blocked"] and age(row) == newest:
                return True  # an older one is dropped, or stays because it is pinned
        if row["lease_owner"] is not None:
            return True
    return False


def _may_settle(site: Site, job: Row) -> bool:
    """True while a snapshot that is not ready changed a short time ago: later its writer, or a person, has to act first."""
    unchanged = site.clock() - (job["fingerprint_at"] or job["created_at"])
    gone = job["reason_code"] == Code.FOLDER_GONE
    return bool(not gone and unchanged < site.settings.dataset.settle_seconds + _WRITERS)


def list_unserved(site: Site) -> list[Row]:
    """Return the newest job of each customer whose newest snapshot neither went live nor can without somebody."""
    newest = sa.func.row_number().over(
        partition_by=jobs.c.customer, order_by=(jobs.c.timestamp.desc(), jobs.c.build.desc())
    )
    over = jobs.c.state != sa.literal_column("'cleaned'")  # as the index of what is not over has it
    ranked = sa.select(jobs.c.id, newest.label("place")).where(over).subquery()
    waits = sa.or_(
        jobs.c.state.in_((State.DISCOVERED, State.FAILED)),
        sa.and_(jobs.c.state == State.LOADED, jobs.c.blocked),
    )
    query = (
        sa.select(jobs.c.id, jobs.c.customer, jobs.c.timestamp, jobs.c.build, jobs.c.state, jobs.c.reason)
        .join(ranked, ranked.c.id == jobs.c.id)
        .join(customers, customers.c.name == jobs.c.customer)
        .where(ranked.c.place == 1, waits, customers.c.removed_at.is_(None))
        .where(sa.func.coalesce(jobs.c.error_code, "") != CODE)
        .order_by(jobs.c.customer)
    )
    with site.store.read() as connection:
        return list(connection.execute(query).mappings().all())


def _drops(site: Site, customer: Row, kept: Sequence[Row], there: Callable[[], Collection[str]]) -> bool:
    try:
        return bool(find_doomed(site, customer, kept, there))
    except (TargetError, ConfigError, OSError):
        return True  # it is dropped once the target can be asked again


@dataclass(frozen=True)
class Outcome:
    """How one snapshot ended: ``said`` is the sentence, ``cure`` the command that helps where it is not ``well``."""

    well: bool
    said: str
    kept: str = ""
    cure: str | Hint = ""


def find_snapshot(site: Site, name: str, timestamp: int | None) -> int:
    """Scan one customer and return the timestamp that is meant: the one given, else that of the newest folder.

    Raises NotFound where there is no such folder, and Refused where it is none that may be loaded.
    """
    base = site.settings.dataset.base_path
    found = {one.name: one.skipped for one in list_customers(base)}
    if name not in found:
        raise NotFound(
            f"There is no folder {base / name}.",
            kept="Nothing was loaded.",
            cure=f"Customers there are: {', '.join(sorted(found)[:10]) or 'none yet'}. Another base folder: dataset.base_path",
        )
    skipped = {name: found[name]} if found[name] else _look_at(site, name)
    with site.store.read() as connection:
        known = connection.execute(sa.select(jobs.c.timestamp).where(jobs.c.customer == name)).scalars().all()
    there = list_names(base / name)
    meant = max((one for one in known if str(one) in there), default=None) if timestamp is None else timestamp
    why = skipped.get(name) or skipped.get(f"{name}/{meant}")
    if why:
        raise Refused(
            f"{base / name}{'' if name in skipped else f'/{meant}'} is not loaded: {why}",
            kept="Nothing was loaded.",
        )
    if meant is None or meant not in known or str(meant) not in there:
        newest = max((one for one in known if str(one) in there), default=None)
        raise NotFound(
            f"There is no snapshot {base / name / str(meant or '')}.",
            kept="Nothing was loaded.",
            cure=f"The newest there is: {newest}"
            if newest
            else "A snapshot is a folder named by unix seconds.",
        )
    return meant


def _look_at(site: Site, name: str) -> dict[str, str | None]:
    """Scan one customer, twice where half a second decides; return what is skipped, and why."""
    report = Report()
    scan_customers(site, [name], read_known(site, [name]), report)
    if report.look_again:
        time.sleep(SECOND_LOOK)
        scan_customers(site, [name], read_known(site, [name]), report)
    return {**dict(report.errors), **dict(report.skipped)}


def run_one(site: Site, stop: Stop, name: str, timestamp: int, *, switches: bool, timeout: float) -> Outcome:
    """Load one snapshot now, whatever older ones wait, and move the alias to it unless ``switches`` is False.

    What other processes do with it is waited for. When the time is over a load that runs is given back
    and resumes next time.
    """
    deadline = monotonic() + timeout
    trouble = ""
    _, job = _newest_build(site, name, timestamp)
    if job["state"] in (State.QUEUED, State.LOADED):
        _ask_for(site, job, switches=switches)
    with present(site, "run", 1), _giving_back(stop, timeout):
        while (outcome := _outcome(site, name, timestamp, switches=switches)) is None:
            if stop.asked.is_set() or monotonic() >= deadline:
                return _unfinished(site, name, timestamp, trouble)
            try:
                moved, trouble = _advance(site, stop, name, timestamp, switches=switches), ""
            except StoreLost:
                raise
            except BgdeployError as error:  # a server that is away, a full disk: it may be over in time
                if str(error) != trouble:
                    log.emit("service.trouble", what=f"loading {name}/{timestamp}", error=error)
                moved, trouble = False, str(error)
            if not moved:
                stop.asked.wait(min(SECOND_LOOK, site.settings.orchestrator.watch_interval))
        with suppress(TargetError):  # dropped by whoever cleans next
            clean(site)
        return outcome


@contextmanager
def _giving_back(stop: Stop, timeout: float) -> Iterator[None]:
    """A load that still runs after so many seconds is given back at once."""

    def give_back() -> None:
        stop.timeout = 0.0
        stop.ask()

    last = threading.Timer(timeout, give_back)
    last.daemon = True
    last.start()
    try:
        yield
    finally:
        last.cancel()


def _newest_build(site: Site, name: str, timestamp: int) -> tuple[Row, Row]:
    with site.store.read() as connection:
        same = (jobs.c.customer == name, jobs.c.timestamp == timestamp)
        job = select_jobs(connection, *same, order=(jobs.c.build.desc(),))[0]
        return get_customer(connection, name), job


def _outcome(site: Site, name: str, timestamp: int, *, switches: bool) -> Outcome | None:
    """How it ended, or None while it can go on without a person."""
    customer, job = _newest_build(site, name, timestamp)
    kept = f"{customer['live']} stays live." if customer["live"] else "Nothing is live yet."
    match State(job["state"]):
        case State.SWITCHED if job["database"] == customer["live"]:
            return Outcome(True, f"{job['database']} is live")
        case State.SWITCHED:
            with site.store.read() as connection:
                cure = use_anyway(connection, job)
            return Outcome(False, f"{title(job)} was live before, and is loaded still.", kept, cure)
        case State.LOADED if not switches and job["blocked"]:
            return Outcome(
                True,
                f"{job['database']} is loaded and not live; to use it: {do('switch', customer=name, to=job['database'])}",
            )
        case State.LOADED if job["blocked"]:
            said = f"{title(job)} is loaded and does not go live: {job['reason']}"
            return Outcome(False, said, kept, Hint("Its whole story: ", do("job", job_id=job["id"])))
        case State.FAILED:
            return Outcome(False, f"{title(job)} failed: {job['error']}", kept, after_failure(job))
        case State.CLEANED:
            again = Hint("To load it all the same: ", do("reload", job_id=job["id"]))
            return Outcome(False, f"{title(job)} is over: {job['reason']}", kept, again)
    if customer["paused_at"] is not None:
        return Outcome(False, f"Nothing was done: {pause_of(customer)}", kept)
    return None


def _unfinished(site: Site, name: str, timestamp: int, trouble: str) -> Outcome:
    customer, job = _newest_build(site, name, timestamp)
    why = trouble or job["reason"] or job["error"] or ""
    said = f"{title(job)} is {job['state']}, and the time is over{f': {why}' if why else '.'}"
    kept = f"{customer['live']} stays live." if customer["live"] else "Nothing is live yet."
    see = Hint("The same command goes on from here. See: ", do("job", job_id=job["id"]))
    return Outcome(False, said, kept, see)


def _advance(site: Site, stop: Stop, name: str, timestamp: int, *, switches: bool) -> bool:
    """Take the snapshot one step further; False where it has to wait."""
    _, job = _newest_build(site, name, timestamp)
    match State(job["state"]):
        case State.DISCOVERED:
            _look_at(site, name)
            return False
        case State.QUEUED:
            _ask_for(site, job, switches=switches)
            clean(site)  # room for it
            return work_once(site, stop, only=job["id"])
        case State.LOADED:
            _ask_for(site, job, switches=switches)
            return bool(switch_ready(site, name))
    orchestrator = site.settings.orchestrator
    most, base = orchestrator.max_service_deaths, orchestrator.retry_backoff_base
    rescue(site.store, now=site.clock(), owner=site.owner, most=most, base=base)
    return False


def _ask_for(site: Site, job: Row, *, switches: bool) -> None:
    """Write down that a person wants it now, and whether it goes live by itself: whoever takes it goes by that."""
    known = job["settings"] or site.settings.target_settings()
    changes: dict[str, Any] = {} if job["requested"] or job["state"] != State.QUEUED else {"requested": True}
    if known.get("auto_switch", True) is not switches:
        changes |= {"settings": {**known, "auto_switch": switches}, "blocked": False}
    if changes:
        with suppress(LeaseLost), site.transaction(Actor.OPERATOR) as tx:
            write(tx, job, **changes)
