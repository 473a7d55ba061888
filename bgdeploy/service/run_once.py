"""``run``: scan, then finish all that is or becomes ready, and say how it ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import cache

import sqlalchemy as sa

from bgdeploy.clock import monotonic
from bgdeploy.errors import ConfigError, StoreLost, TargetError
from bgdeploy.jobs import lineage
from bgdeploy.jobs.cancel import CODE
from bgdeploy.jobs.rows import Row, age, customers, jobs
from bgdeploy.jobs.states import State
from bgdeploy.pipeline.clean import find_doomed, find_there
from bgdeploy.service.serve import serve
from bgdeploy.service.shutdown import Stop
from bgdeploy.site import Site

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
        serve(site, stop, workers=workers)


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
        or _moves(customer, [row for row in open_jobs if row["customer"] == customer["name"]])
        or _drops(site, customer, kept.get(customer["name"], ()), there)
        for customer in owners
    )


def _moves(customer: Row, open_jobs: Sequence[Row]) -> bool:
    """True while any job of a customer can still get further without a person."""
    paused = customer["paused_at"] is not None
    newest = max((age(row) for row in open_jobs if row["state"] == State.LOADED), default=(0, 0))
    for row in open_jobs:
        match State(row["state"]):
            case State.LOADING:
                return True
            case State.DISCOVERED if row["reason"] != "folder gone":
                return True
            case State.QUEUED if not paused and (row["requested"] or age(row) > newest):
                return True
            case State.LOADED if not paused and not row["blocked"] and age(row) == newest:
                return True  # an older one is dropped, or stays because it is pinned
        if row["lease_owner"] is not None:
            return True
    return False


def _drops(site: Site, customer: Row, kept: Sequence[Row], there: Callable[[], Collection[str]]) -> bool:
    try:
        return bool(find_doomed(site, customer, kept, there))
    except (TargetError, ConfigError, OSError):
        return True  # it is dropped once the target can be asked again
